// Tests of the page in a real browser; .ci/page runs this. Nothing here sleeps: each step waits for a condition.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { PATIENCE, axe, folder, launch, start, until } from "./browser.mjs";

const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };

let browser, stack;
/** The faults that were seen in the pages of the current test. */
let troubles = [];
const cleanups = [];

before(async () => {
  browser = await launch();
  stack = await start("--model-latency", "3s");
});
after(async () => {
  await browser?.close();
  await stack?.stop();
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  assert.deepEqual(troubles.splice(0), [], "errors in the console, or requests to others");
});

/** Opens the page and watches it: it may send requests only to its API and to the bucket, and must log no errors. */
async function open({ api, s3 }, { path = "/", expected = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, reducedMotion: "reduce", locale: "en-GB", ...options });
  cleanups.push(() => context.close());
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const ours = [api, s3].map((address) => new URL(address).origin);
  page.on("pageerror", (error) => troubles.push(error.stack));
  page.on("console", (message) => {
    // Chromium reports every 4xx as an error. The test names those that it expects.
    const meant = expected.some((text) => message.text().includes(text));
    if (["error", "warning"].includes(message.type()) && !meant) troubles.push(message.text());
  });
  page.on("request", (sent) => {
    const { origin, protocol } = new URL(sent.url());
    if (!ours.includes(origin) && !["data:", "blob:"].includes(protocol)) troubles.push(`It speaks to ${origin}`);
    if (origin === ours[1] && sent.headers()["x-api-key"]) troubles.push("It tells the key to the bucket");
  });
  await page.goto(api + path);
  return page;
}

/** Fills in the prompt and submits it. */
async function ask(page, prompt) {
  await page.getByLabel("What is the film about?").fill(prompt);
  await page.getByRole("button", { name: "Make the poster" }).click();
}

/** Waits until a poster in `place` is in `state`. */
const state = (page, state, place = "#easel") => page.waitForSelector(`${place} [data-state=${state}]`);

/** Checks the page with axe in both themes, on a desktop and on a phone, and saves screenshots in target/page. */
async function inspect(page, name, at = "body") {
  for (const [size, viewport] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    for (const colorScheme of ["dark", "light"]) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.locator(at).first().evaluate((element) => element.scrollIntoView());
      const { violations } = await page.evaluate(`${axe}; axe.run()`);
      const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
      assert.deepEqual(told, [], `${name}, ${size}, ${colorScheme}`);
      await page.screenshot({ path: join(process.env.PAGE_PICTURES, `${name}-${size}-${colorScheme}.png`) });
    }
  }
  await page.setViewportSize({ width: 360, height: 640 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, `${name} is too wide for a small phone`);
  await page.setViewportSize(DESKTOP);
}

const api = async (path, options) => (await fetch(stack.api + path, options)).json();
const headers = { "Content-Type": "application/json" };

test("a poster is made, told of, hung, downloaded and asked for again", async () => {
  const page = await open(stack, { permissions: ["clipboard-read", "clipboard-write"] });
  await page.getByText("Nothing hangs here yet.").waitFor();
  await inspect(page, "empty");

  await page.evaluate(() => {
    window.seen = [];
    const watch = () => seen.at(-1) !== document.querySelector("#live").textContent && seen.push(document.querySelector("#live").textContent);
    new MutationObserver(watch).observe(document.querySelector("#live"), { childList: true });
  });
  await ask(page, "A noir detective thriller in 1940s Venice");
  await state(page, "running");
  await inspect(page, "running");
  await state(page, "succeeded");
  const told = await page.evaluate(() => seen.map((text) => text.split(":")[0]));
  assert.deepEqual(told, ["Waiting", "Painting", "Ready"]);
  await page.waitForFunction(() => document.querySelector("#easel img").naturalWidth === 832);
  await page.waitForFunction(() => document.querySelector("#posters img")?.naturalWidth === 832);
  await inspect(page, "ready");
  await inspect(page, "wall", "#wall");

  const { jobs: [job] } = await api("/jobs");
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download" }).click()]);
  assert.equal(download.suggestedFilename(), "a-noir-detective-thriller-in-1940s-venice.png");
  const file = readFileSync(await download.path());
  assert.equal(file.length, job.image.bytes);
  assert.equal(file.subarray(1, 4).toString(), "PNG");

  await page.getByRole("button", { name: "Copy curl" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  const again = JSON.parse(execFileSync("bash", ["-c", command]));
  assert.deepEqual([again.status, again.prompt, again.model], ["queued", job.prompt, job.model]);
});

test("what is wrong is shown at the field, and text is never markup", async () => {
  const page = await open(stack, { expected: ["status of 400"] });
  await page.getByText("More", { exact: false }).first().click();
  await page.getByLabel("Seed").fill("many");
  await page.getByLabel("Format").selectOption("webp");
  await page.getByRole("button", { name: "Make the poster" }).click();
  await page.waitForSelector("[name=prompt][aria-invalid=true]:focus");
  await page.waitForSelector("[name=seed][aria-invalid=true]");
  assert.match(await page.locator("#prompt-fault").textContent(), /must not be empty/);
  assert.match(await page.locator("#seed-fault").textContent(), /whole number from 1 to 4294967294/);
  await inspect(page, "faults");

  await page.getByLabel("Seed").fill("7");
  const markup = '<img src="x" onerror="document.title=1"> a film\'s "end" nsfw';
  await ask(page, markup);
  await page.waitForSelector("[name=output_format][aria-invalid=true]");
  await page.getByLabel("Format").selectOption("jpeg");
  await page.getByText("The same with curl").click();
  const command = await page.locator("#curl pre", { hasText: " -d " }).textContent();
  assert.equal(JSON.parse(execFileSync("bash", ["-c", command.replace("curl -s", "echo")]).toString().split(" -d ")[1]).prompt, markup);
  await ask(page, markup);
  await state(page, "failed");
  assert.equal(await page.locator("#easel h3").textContent(), markup);
  assert.match(await page.locator("#easel .news").textContent(), /content filter/);
  assert.equal(await page.title(), "Poster studio");
  await inspect(page, "failed");
});

test("a title is set over the picture, and refused where the fonts cannot", async () => {
  const page = await open(stack, { expected: ["status of 400", "status of 422"] });
  await page.getByLabel("What is the film about?").fill("An astronaut on a moon of Saturn");
  await page.getByLabel("Tagline").fill("Nobody is listening");
  const send = page.getByRole("button", { name: "Make the poster" });
  await send.click();
  await page.locator("#title-fault", { hasText: "It is required." }).waitFor();
  await page.getByLabel("Title").fill("信号");
  await send.click();
  await page.locator("#title-fault", { hasText: "the character 信" }).waitFor();
  await page.getByLabel("Title").fill("The Last Signal");
  await send.click();
  await page.locator("#easel h3", { hasText: "The Last Signal" }).waitFor();
  await state(page, "succeeded");
  await inspect(page, "title");
  const [artwork] = await Promise.all([page.waitForEvent("popup"), page.getByRole("link", { name: "Artwork" }).click()]);
  await artwork.waitForURL(/-artwork\?/);
  const { jobs: [job] } = await api("/jobs");
  assert.deepEqual([job.poster.title, job.poster.tagline], ["The Last Signal", "Nobody is listening"]);
});

test("a double click, and an answer that is lost on the way, make one job", async () => {
  const page = await open(stack, { expected: ["net::ERR_FAILED"] });
  const keys = [];
  await page.route("**/jobs", async (route) => {
    if (route.request().method() !== "POST") return route.continue();
    keys.push(route.request().headers()["idempotency-key"]);
    if (keys.length > 1) return route.continue();
    await route.fetch();
    return route.abort();
  });
  await page.getByLabel("What is the film about?").fill("A film that is asked for twice");
  await page.getByRole("button", { name: "Make the poster" }).dblclick();
  await page.locator("#easel h3", { hasText: "asked for twice" }).waitFor();
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  const { jobs } = await api("/jobs?limit=100");
  assert.equal(jobs.filter(({ prompt }) => prompt === "A film that is asked for twice").length, 1);
});

const FILMS = ["The last signal", "A heist on the moon, a comedy", 'A western called ""Dust""', "Something nsfw",
  "A lighthouse keeper and a storm, a horror film", "A love story on a night train", "Seven samurai in the rain",
  "A chase through neon Tokyo", "The forest that remembers, a fantasy", "Ein Krimi in Hamburg im Winter",
  "Une comédie à Paris", "A documentary about whales"];

test("a batch of twelve is dropped as a file, counted while it runs, and its failed one retried", async () => {
  const page = await open(stack);
  const csv = ["prompt,aspect_ratio,seed", ...FILMS.map((film, index) => `"${film}",${["2:3", "16:9", "1:1"][index % 3]},${index + 1}`)].join("\r\n");
  await page.evaluate((csv) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([csv], "festival.csv", { type: "text/csv" }));
    window.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, csv);
  await page.getByText("12 posters.").waitFor();
  await inspect(page, "batch-desk");
  await page.evaluate(() => {
    window.seen = new Set();
    new MutationObserver(() => seen.add(document.querySelector("#counts").textContent)).observe(document.querySelector("#counts"), { childList: true });
  });
  await page.getByRole("button", { name: "Make 12 posters" }).click();
  await page.waitForSelector("#counts:text('painting')");
  await page.waitForSelector("#wall-title:focus");
  await inspect(page, "batch-running", "#wall");
  await page.locator("#counts", { hasText: "12 posters: 11 ready, 1 failed." }).waitFor();
  await page.waitForFunction(() => document.querySelector("#live").textContent.startsWith("The batch has ended."));
  assert.ok((await page.evaluate(() => [...seen])).length >= 2, "the counts move while the batch runs");
  assert.equal(await page.locator("#posters li").count(), 12);
  await page.locator("#posters span", { hasText: 'A western called "Dust"' }).waitFor();
  await inspect(page, "batch-ended", "#wall");

  await page.getByRole("radio", { name: "Failed" }).check();
  await until("The filter", async () => (await page.locator("#posters li").count()) === 1);
  await page.getByRole("link", { name: /Something nsfw/ }).click();
  await state(page, "failed", "#poster");
  await inspect(page, "dialog-failed");
  const retry = page.waitForResponse((response) => response.url().endsWith("/retry"));
  await page.locator("#poster").getByRole("button", { name: "Retry" }).click();
  assert.equal((await retry).status(), 202);
  await page.locator("#poster [data-state=queued], #poster [data-state=running]").waitFor();
  await state(page, "failed", "#poster");
  await page.keyboard.press("Escape");

  // The URL keeps what is shown.
  await page.waitForURL((url) => !url.hash.includes("job"));
  await page.reload();
  await page.locator("#counts", { hasText: "12 posters: 11 ready, 1 failed." }).waitFor();
  await page.getByRole("link", { name: "Show all posters" }).click();
  await page.locator("#wall-title", { hasText: "The wall" }).waitFor();
  await until("The whole wall", async () => (await page.locator("#posters li").count()) > 12);
});

test("a batch with faults says which line is at fault, and nothing is made of it", async () => {
  const page = await open(stack, { expected: ["status of 400"] });
  await page.getByRole("radio", { name: "A batch" }).check();
  await page.getByLabel("Films").fill('{"prompt": "One"}\n\n{"prompt": "Two", "seed": -1}\n{"prompt": "Three", "colour": "red"}');
  await page.getByRole("button", { name: "Make 3 posters" }).click();
  await page.waitForSelector("#lines[aria-invalid=true]:focus");
  const fault = await page.locator("#lines-fault").textContent();
  assert.match(fault, /Line 3, seed must be a whole number.*\n.*Line 4, colour is not a field/);
  await inspect(page, "batch-faults");
});

test("the wall shows the newest first, and more of it when asked", async () => {
  const batch = { defaults: { aspect_ratio: "1:1" }, jobs: Array.from({ length: 30 }, (_, index) => ({ prompt: `Film ${index}, nsfw` })) };
  const { id } = await api("/batches", { method: "POST", headers, body: JSON.stringify(batch) });
  await until("The end of the batch", async () => (await api(`/batches/${id}`)).status !== "in_progress");
  const page = await open(stack);
  const count = () => page.locator("#posters li").count();
  await until("The first posters", async () => (await count()) === 24);
  const ids = () => page.locator("#posters li").evaluateAll((cards) => cards.map((card) => card.dataset.id));
  const { jobs } = await api("/jobs?limit=48");
  assert.deepEqual(await ids(), jobs.slice(0, 24).map((job) => job.id));
  await page.getByRole("button", { name: "Show more" }).click();
  await until("More posters", async () => (await count()) > 24);
  assert.deepEqual(await ids(), jobs.slice(0, await count()).map((job) => job.id));
  await page.getByRole("radio", { name: "Ready" }).check();
  await until("Ready ones alone", async () => page.locator("#posters li:not([data-state=succeeded])").count().then((others) => others === 0));
  await page.waitForFunction(() => [...document.querySelectorAll("#posters img")].some((image) => image.naturalWidth > 0));
});

test("one poster fails, is retried, is canceled, and comes out well in the end", async () => {
  const data = folder();
  cleanups.push(() => rmSync(data, { recursive: true }));
  const phase = async (...options) => {
    const stack = await start("--data", data, ...options);
    let stopped;
    const stop = () => (stopped ??= stack.stop());
    cleanups.push(stop);
    return { ...stack, stop };
  };
  const broken = await phase("--model-faults", "error=1", "--parameter", "MaxAttempts=1");
  let page = await open(broken);
  await ask(page, "A western without horses");
  await state(page, "failed");
  await page.close();
  await broken.stop();

  // A model that never answers keeps the job running for as long as the test needs.
  const stuck = await phase("--model-faults", "hang=1");
  page = await open(stuck);
  await state(page, "failed");
  await page.getByRole("button", { name: "Retry" }).click();
  await state(page, "running");
  await page.getByRole("button", { name: "Cancel" }).click();
  await state(page, "canceled");
  await page.waitForSelector("#easel h3:focus");
  await inspect(page, "canceled", "#easel");
  await page.close();
  await stuck.stop();

  page = await open(await phase());
  await state(page, "canceled");
  await page.getByRole("button", { name: "Retry" }).click();
  await state(page, "succeeded");
  await page.waitForFunction(() => document.querySelector("#easel img").naturalWidth === 832);
});

test("everything can be done with the keyboard", async () => {
  const page = await open(stack);
  await page.waitForSelector("#posters li");
  const press = (key) => page.keyboard.press(key);
  const focused = (selector) => page.waitForSelector(`${selector}:focus`);
  await press("Tab");
  await focused(".skip");
  await press("Enter");
  await page.waitForFunction(() => document.activeElement.id === "wall");

  await page.goto(stack.api);
  await page.waitForSelector("#posters li");
  for (const stop of [".skip", "#key-button", "[name=mode]", "[name=prompt]"]) {
    await press("Tab");
    await focused(stop);
  }
  await page.keyboard.type("A film that was typed");
  await press("Tab");
  await press("Tab");
  await press("Tab");
  await press("ArrowRight");
  await page.waitForSelector("[value='4:5']:checked");
  await press("Shift+Tab");
  await press("Shift+Tab");
  await press("Shift+Tab");
  await press("Control+Enter");
  await page.locator("#easel h3", { hasText: "A film that was typed" }).waitFor();
  await focused("[name=prompt]");

  const card = page.getByRole("link", { name: /A film that was typed/ });
  await card.focus();
  await press("Enter");
  await page.waitForSelector("#poster[open] button:focus");
  await state(page, "succeeded", "#poster");
  await page.waitForFunction(() => document.querySelector("#poster img").naturalWidth === 896);
  await inspect(page, "dialog");
  for (let stops = 0; stops < 12; stops++) {
    await press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement === document.body || !!document.activeElement.closest("#poster")), "focus stays in the dialog");
  }
  await press("Escape");
  await page.waitForSelector("#poster:not([open])", { state: "attached" });
  await until("The focus", () => card.evaluate((link) => link === document.activeElement));
});

test("a key is asked for, checked, kept in the tab, and told to the API alone", async () => {
  const guarded = await start("--api-key", "alice=alice-key");
  cleanups.push(guarded.stop);
  const page = await open(guarded, { expected: ["status of 403"] });
  await page.getByRole("heading", { name: "API key" }).waitFor();
  await inspect(page, "key");
  await page.getByLabel("Key", { exact: true }).fill("mallory-key");
  await page.getByRole("button", { name: "Use this key" }).click();
  await page.getByText("The API does not know this key.").waitFor();
  await page.getByLabel("Key", { exact: true }).fill("alice-key");
  await page.keyboard.press("Enter");
  await page.getByText("Nothing hangs here yet.").waitFor();
  assert.deepEqual(await page.evaluate(() => [{ ...localStorage }, { ...sessionStorage }, document.cookie]), [{}, { apiKey: "alice-key" }, ""]);
  await ask(page, "A film with a key");
  await state(page, "succeeded");
  await page.waitForFunction(() => document.querySelector("#easel img").naturalWidth > 0);
  await page.getByText("The same with curl").click();
  const command = await page.locator("#curl pre", { hasText: " -d " }).textContent();
  assert.ok(command.includes('"x-api-key: $KEY"') && !command.includes("alice-key"));
});

test("the page works below the path of a stage, with and without its slash", async () => {
  const front = createServer((incoming, outgoing) => {
    const { method, headers, url } = incoming;
    if (!/^\/v1(\/|$)/.test(url)) return outgoing.writeHead(404).end();
    const inner = request(stack.api + (url.slice(3) || "/"), { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    // An answer that is still open when the page closes is aborted.
    inner.on("error", () => outgoing.destroy());
    return incoming.pipe(inner);
  });
  await new Promise((resolve) => front.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => { front.closeAllConnections(); front.close(); });
  const staged = { api: `http://127.0.0.1:${front.address().port}`, s3: stack.s3 };
  for (const path of ["/v1", "/v1/?from=elsewhere"]) {
    const page = await open(staged, { path });
    await page.waitForSelector("#posters li");
    await ask(page, "A film on a stage");
    await page.locator("#easel h3", { hasText: "A film on a stage" }).waitFor();
  }
});
