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

// These must not compile. If one does, tsc reports it.
// @ts-expect-error A job needs a prompt.
export const nothing: components["schemas"]["JobRequest"] = {};
// @ts-expect-error A batch needs jobs.
export const noJobs: components["schemas"]["BatchRequest"] = {};
// @ts-expect-error There is no such shape.
export const noShape: components["schemas"]["JobRequest"] = { prompt: "A heist", aspect_ratio: "3:4" };
// @ts-expect-error Lettering needs a title.
export const noTitle: components["schemas"]["JobRequest"] = { prompt: "A heist", poster: { tagline: "One small step" } };

console.log("typescript: submitted, waited, saved a picture, and read a problem.");
