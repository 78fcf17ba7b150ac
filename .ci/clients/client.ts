// A caller's program with the types that openapi-typescript generates: node client.js ADDRESS KEY FILE

import { writeFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

function assert(holds: unknown, found: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(found));
}

const [address, key, file] = process.argv.slice(2);
const api = createClient<paths>({ baseUrl: address, headers: { "x-api-key": key } });

const submitted = await api.POST("/jobs", { body: { prompt: "A heist on the moon", poster: { title: "Moonfall" } } });
assert(submitted.data, submitted.error);
let job: components["schemas"]["Job"] = submitted.data;
while (job.finished_at === null) {
  const looked = await api.GET("/jobs/{id}", { params: { path: { id: job.id }, header: { Prefer: "wait=20" } } });
  assert(looked.data, looked.error);
  job = looked.data;
}
assert(job.status === "succeeded" && job.image, job);
const picture = await fetch(job.image.url);
const bytes = new Uint8Array(await picture.arrayBuffer());
assert(bytes.length === job.image.bytes, bytes.length);
await writeFile(file, bytes);

const refused = await api.POST("/jobs", { body: { prompt: " " } });
assert(refused.error?.code === "invalid_request", refused.data);
assert(refused.error.errors?.[0]?.pointer === "/prompt", refused.error);

// An endpoint whose name does not resolve, so that its delivery stays pending.
const webhook = { url: "https://posters.invalid/hooks", events: ["job.succeeded" as const] };
const told = await api.POST("/jobs", { body: { prompt: "A message in a bottle", webhook } });
assert(told.data?.webhook?.events[0] === "job.succeeded", told.error);
let delivery: components["schemas"]["Delivery"] | undefined;
while (!delivery) {
  const log = await api.GET("/deliveries", { params: { query: { job: told.data.id } } });
  assert(log.data, log.error);
  delivery = log.data.deliveries[0];
  if (!delivery) await new Promise((wake) => setTimeout(wake, 200));
}
assert(delivery.status === "pending" && delivery.tries[0].error?.code === "dns_failed", delivery);
assert(delivery.event.type === "job.succeeded" && delivery.event.data.id === told.data.id, delivery);

// These must not compile. If one does, tsc reports it.
// @ts-expect-error A job needs a prompt.
export const nothing: components["schemas"]["JobRequest"] = {};
// @ts-expect-error A batch needs jobs.
export const noJobs: components["schemas"]["BatchRequest"] = {};
// @ts-expect-error There is no such shape.
export const noShape: components["schemas"]["JobRequest"] = { prompt: "A heist", aspect_ratio: "3:4" };
// @ts-expect-error A webhook needs a URL.
export const noUrl: components["schemas"]["JobRequest"] = { prompt: "A heist", webhook: { events: ["job.failed"] } };
// @ts-expect-error Lettering needs a title.
export const noTitle: components["schemas"]["JobRequest"] = { prompt: "A heist", poster: { tagline: "One small step" } };

console.log("typescript: submitted, waited, saved a picture, read a delivery and a problem.");
