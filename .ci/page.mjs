// Tests of the page in a real browser; .ci/page runs this. Nothing here sleeps: each step waits for a condition.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { PATIENCE, axe, caller, folder, launch, start, until } from "./browser.mjs";

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
  cleanups.push(async () => {
    // A handler may still run for a request that no test waits for.
    for (const page of context.pages()) await page.unrouteAll({ behavior: "ignoreErrors" });
    await context.close();
  });
  context.setDefaultTimeout(PATIENCE);
  // A visitor uses a browser that is some years old.
  await context.addInitScript(() => {
    delete URLSearchParams.prototype.size;
    for (const name of ["at", "findLast", "findLastIndex", "toSorted"]) delete Array.prototype[name];
  });
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
    if (!ours.includes(origin) && !["data:", "blob:"].includes(protocol)) troubles.push(`It contacts ${origin}`);
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

test("a poster is made, announced, hung on the wall, downloaded and made again", async () => {
  const page = await open(stack, { permissions: ["clipboard-read", "clipboard-write"] });
  await page.getByText("No posters yet.").waitFor();
  await inspect(page, "empty");

  await page.evaluate(() => {
    window.seen = [];
    const watch = () => seen[seen.length - 1] !== document.querySelector("#live").textContent && seen.push(document.querySelector("#live").textContent);
    new MutationObserver(watch).observe(document.querySelector("#live"), { childList: true });
  });
  await ask(page, "A noir detective thriller in 1940s Venice");
  await state(page, "running");
  await inspect(page, "running");
  await state(page, "succeeded");
  const told = await page.evaluate(() => seen.map((text) => text.split(":")[0]));
  assert.deepEqual(told, ["Waiting", "Painting", "Ready"]);
  await page.waitForFunction(() => document.querySelector("#easel img").naturalWidth === 832);
  await page.waitForFunction(() => document.querySelector("#posters img")?.naturalWidth === 400);
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

test("a fault is shown at its field, and text is never markup", async () => {
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

test("a title is set over the picture, and refused if the fonts lack a character", async () => {
  const page = await open(stack, { expected: ["status of 400", "status of 422"] });
  await page.getByLabel("What is the film about?").fill("An astronaut on a moon of Saturn");
  await page.getByLabel("Tagline").fill("Nobody is listening");
  const send = page.getByRole("button", { name: "Make the poster" });
  await send.click();
  await page.locator("#title-fault", { hasText: "need a title." }).waitFor();
  await page.getByLabel("Title").fill("信号");
  await send.click();
  await page.locator("#title-fault", { hasText: "the character 信" }).waitFor();
  await page.getByLabel("Title").fill("The Last Signal");
  await send.click();
  await page.locator("#easel h3", { hasText: "The Last Signal" }).waitFor();
  await state(page, "succeeded");
  await inspect(page, "title");
  const [artwork] = await Promise.all([page.waitForEvent("popup"), page.getByRole("link", { name: "Without the title" }).click()]);
  await artwork.waitForURL(/-artwork\?/);
  const { jobs: [job] } = await api("/jobs");
  assert.deepEqual([job.poster.title, job.poster.tagline], ["The Last Signal", "Nobody is listening"]);
});

/** Loses the answer to the first job that the page submits, after `meanwhile`. Returns the keys of its requests. */
async function loseFirstAnswer(page, meanwhile = async () => {}) {
  const keys = [];
  await page.route("**/jobs", async (route) => {
    if (route.request().method() !== "POST") return route.continue();
    keys.push(route.request().headers()["idempotency-key"]);
    if (keys.length > 1) return route.continue();
    await route.fetch();
    await meanwhile();
    return route.abort();
  });
  return keys;
}

test("a double click or a lost answer makes one job", async () => {
  const page = await open(stack, { expected: ["net::ERR_FAILED"] });
  const keys = await loseFirstAnswer(page);
  await page.getByLabel("What is the film about?").fill("A film that is asked for twice");
  await page.getByRole("button", { name: "Make the poster" }).dblclick();
  await page.locator("#easel h3", { hasText: "asked for twice" }).waitFor();
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  const { jobs } = await api("/jobs?limit=100");
  assert.equal(jobs.filter(({ prompt }) => prompt === "A film that is asked for twice").length, 1);
});

test("a repeated request keeps its key, whatever was sent meanwhile", async () => {
  const page = await open(stack, { expected: ["net::ERR_FAILED", "status of 404"] });
  // Another button is pressed before it is known whether the request arrived.
  const cancel = () => page.evaluate(() => post("jobs/00000000-0000-4000-8000-000000000000/cancel").catch(() => {}));
  const keys = await loseFirstAnswer(page, cancel);
  await page.getByLabel("What is the film about?").fill("A film beside another request");
  await page.getByRole("button", { name: "Make the poster" }).click();
  await page.locator("#easel h3", { hasText: "beside another request" }).waitFor();
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
});

const FILMS = ["The last signal", "A heist on the moon, a comedy", 'A western called ""Dust""', "Something nsfw",
  "A lighthouse keeper and a storm, a horror film", "A love story on a night train", "Seven samurai in the rain",
  "A chase through neon Tokyo", "The forest that remembers, a fantasy", "Ein Krimi in Hamburg im Winter",
  "Une comédie à Paris", "A documentary about whales"];

/** Drops files on the page, each with its name and its text or bytes. */
async function drop(page, ...files) {
  const sent = files.map(([name, content]) => [name, [...Buffer.from(content)]]);
  await page.evaluate((files) => {
    const dataTransfer = new DataTransfer();
    for (const [name, bytes] of files) dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
    const event = (type) => document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    event("dragover");
    window.target = getComputedStyle(document.body, "::after").content;
    event("drop");
  }, sent);
}

test("a batch of twelve is dropped as a file, counted while it runs, and hangs in the order of the file", async () => {
  const page = await open(stack);
  const csv = ["prompt,aspect_ratio,seed", ...FILMS.map((film, index) => `"${film}",${["2:3", "16:9", "1:1"][index % 3]},${index + 1}`)].join("\r\n");
  await drop(page, ["festival.csv", csv]);
  await page.getByText("festival.csv, 1 kB.").waitFor();
  await page.waitForSelector("#send:focus");
  assert.equal(await page.getByLabel("Name of the batch").inputValue(), "festival");
  await inspect(page, "batch-desk");
  await page.evaluate(() => {
    window.seen = new Set();
    new MutationObserver(() => seen.add(document.querySelector("#counts").textContent)).observe(document.querySelector("#counts"), { childList: true });
  });
  await page.getByRole("button", { name: "Make the posters" }).click();
  await page.waitForSelector("#counts:text('painting')");
  await page.waitForSelector("#wall-title:focus");
  await inspect(page, "batch-running", "#wall");
  await page.locator("#counts", { hasText: "12 posters: 11 ready, 1 failed." }).waitFor();
  await page.waitForFunction(() => document.querySelector("#live").textContent.startsWith("The batch has ended."));
  assert.ok((await page.evaluate(() => [...seen])).length >= 2, "the counts move while the batch runs");
  assert.equal(await page.locator("#posters li").count(), 12);
  const films = FILMS.map((film) => film.replaceAll('""', '"'));
  assert.deepEqual(await page.locator("#posters .caption span").allTextContents(), films, "they hang in the order of the file");
  await inspect(page, "batch-ended", "#wall");

  await page.getByRole("radio", { name: "Failed" }).check();
  await until("The filter", async () => (await page.locator("#posters li").count()) === 1);
  await page.getByRole("link", { name: /Something nsfw/ }).click();
  await state(page, "failed", "#poster");
  await inspect(page, "dialog-failed");
  // The filter would refuse the same prompt again.
  assert.equal(await page.locator("#poster").getByRole("button", { name: "Retry" }).count(), 0);
  await page.keyboard.press("Escape");
  assert.equal(await page.getByRole("button", { name: "Retry failed posters" }).count(), 0);
  assert.equal(await page.locator("#posters .why").textContent(), "The model's content filter refused it.");

  // The URL keeps the filter and the open job.
  await page.waitForURL((url) => !url.hash.includes("job"));
  await page.reload();
  await page.locator("#counts", { hasText: "12 posters: 11 ready, 1 failed." }).waitFor();
  await page.getByRole("link", { name: "Show all posters" }).click();
  await page.locator("#wall-title", { hasText: "The wall" }).waitFor();

  // On the wall it is a set, which opens, and closes with the back button.
  const set = page.locator("#posters .set", { hasText: "festival" });
  await set.locator("small", { hasText: "12 posters: 11 ready, 1 failed." }).waitFor();
  await page.waitForFunction(() => [...document.querySelectorAll(".set img")].filter((image) => image.naturalWidth === 400).length === 4);
  await inspect(page, "set", "#wall");
  await set.getByRole("link").press("Enter");
  await page.waitForSelector("#wall-title:focus");
  await until("Its posters", async () => (await page.locator("#posters li").count()) === 12);
  assert.equal(await page.locator("#posters .set").count(), 0);
  await page.goBack();
  await page.locator("#wall-title", { hasText: "The wall" }).waitFor();
  await until("The focus", () => set.getByRole("link").evaluate((link) => link === document.activeElement));
  await page.goForward();
  await until("Its posters", async () => (await page.locator("#posters li").count()) === 12);
  await page.goBack();
  await page.getByRole("radio", { name: "Waiting" }).check();
  await page.getByText("No posters with this filter.").waitFor();
  await page.getByRole("radio", { name: "Failed" }).check();
  await set.waitFor();
});

/** Sends the films that are chosen or typed, and returns the id of their batch. */
async function sendFilms(page) {
  const before = page.url();
  await page.getByRole("button", { name: "Make the posters" }).click();
  await page.waitForURL((url) => url.href !== before && url.hash.startsWith("#batch="));
  return new URL(page.url()).hash.slice("#batch=".length);
}

const HEISTS = 'custom_id,prompt,title,seed\n1,"A heist, in ""Venice""",The Heist,7\n2,A heist on the moon,,seven\n\n3,"A heist,\nthen rain",Dust,-1\n';

test("a file with faults paints nothing and names the lines, which can be left out", async () => {
  const page = await open(stack, { expected: ["status of 400"] });
  // The fault has no field in the form for a batch.
  await drop(page, ["defaults.json", JSON.stringify({ defaults: { poster: { title: "" } }, jobs: [{ prompt: "x" }] })]);
  await page.getByText("defaults.json, 1 kB.").waitFor();
  await page.getByRole("button", { name: "Make the posters" }).click();
  await page.locator("#desk-fault", { hasText: "/poster/title must" }).waitFor();
  await drop(page, ["heists.csv", HEISTS]);
  await page.getByRole("radio", { name: "1:1" }).check();
  const invalid = await sendFilms(page);
  await page.locator("#counts", { hasText: "Nothing is painted, because its file has 2 faults." }).waitFor();
  const faults = await page.locator("#faults li").allTextContents();
  assert.deepEqual(faults.map((fault) => fault.split(" must")[0]), ["Line 3: seed", "Line 5: seed"]);
  await inspect(page, "batch-faults", "#wall");
  assert.deepEqual([(await api(`/batches/${invalid}`)).status, (await api(`/batches/${invalid}/jobs`)).jobs], ["invalid", []]);
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download all faults" }).click()]);
  assert.equal(readFileSync(await file.path(), "utf8").trim().split("\n").length, 2);

  await page.getByRole("button", { name: "Leave out the bad lines" }).click();
  await page.waitForURL((url) => url.hash.startsWith("#batch=") && !url.hash.includes(invalid));
  await page.locator("#counts", { hasText: "1 poster: 1 ready. Lines with faults are left out." }).waitFor();
  const id = new URL(page.url()).hash.slice("#batch=".length);
  const { jobs: [job, ...others] } = await api(`/batches/${id}/jobs`);
  assert.deepEqual([job.prompt, job.poster.title, job.aspect_ratio, others], ['A heist, in "Venice"', "The Heist", "1:1", []]);
  const [results] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download the results" }).click()]);
  const lines = readFileSync(await results.path(), "utf8").trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(lines.map(({ line, status }) => [line, status]), [[2, "succeeded"], [3, "invalid"], [5, "invalid"]]);

  // After a reload the page no longer has the file, and asks for it.
  await page.goto(`${stack.api}/#batch=${invalid}`);
  await page.reload();
  await page.getByRole("button", { name: "Leave out the bad lines" }).click();
  await page.locator("#lines-fault", { hasText: "no longer has them" }).waitFor();
  assert.equal(await page.getByLabel("Lines with faults").inputValue(), "skip");
});

test("a picture that the network did not bring is shown when the network is back", async () => {
  const page = await open(stack, { expected: ["net::ERR_FAILED"] });
  let lost = 0;
  await page.route(`${stack.s3}/**`, (route) => {
    lost += 1;
    return route.abort();
  });
  await ask(page, "A film whose poster is late");
  await state(page, "succeeded");
  // Two tries each: of the thumbnail and of the whole picture on the easel, and of the thumbnail on the wall.
  await until("The pictures are lost", () => lost >= 6);
  await page.unroute(`${stack.s3}/**`);
  await page.waitForFunction(() => ["#easel", "#posters"].every((place) => document.querySelector(`${place} img`).naturalWidth > 0));
});

test("films of every format are sent as they are, and JSON becomes NDJSON", async () => {
  const page = await open(stack);
  const uploads = [];
  await page.route(`${stack.s3}/**`, (route) => {
    if (route.request().method() === "PUT") uploads.push(route.request().postData());
    return route.continue();
  });
  for (const [name, content, sent] of [
    ["a.txt", "A heist; on the moon\n\nprompt\n"],
    ["b.jsonl", '{"prompt": "One", "title": "T"}\r\n\r\n{"prompt": "Two"}'],
    ["c.json", JSON.stringify([{ prompt: "One", title: "T" }, { prompt: "Two" }], null, 2), '{"prompt":"One","title":"T"}\n{"prompt":"Two"}'],
    ["d.json", JSON.stringify({ name: "Festival", defaults: { aspect_ratio: "1:1" }, jobs: [{ prompt: "One" }] }, null, 2), '{"prompt":"One"}'],
    ["films", "[\n{\"prompt\": \"One\"}]", '{"prompt":"One"}'],
  ]) {
    await drop(page, [name, content]);
    await page.getByText(`${name}, 1 kB.`).waitFor();
    const id = await sendFilms(page);
    assert.equal(uploads.pop(), sent ?? content, name);
    const batch = await until(name, async () => { const batch = await api(`/batches/${id}`); return batch.status !== "checking" && batch; });
    assert.equal(batch.name, name === "d.json" ? "Festival" : name.replace(/\..*/, ""));
    if (name === "d.json") await until("The job", async () => (await api(`/batches/${id}/jobs`)).jobs[0]?.aspect_ratio === "1:1");
  }
  await page.getByRole("button", { name: "Type the films instead" }).click();
  for (const [typed, format] of [["A heist; on the moon\nA western", "txt"], ["Prompt,seed\nA heist,7", "csv"], ['{"prompt":"x"}\n{"prompt":"y"}', "ndjson"], ['{\n"jobs":[{"prompt":"x"}]}', "ndjson"]]) {
    await page.getByRole("textbox", { name: "Films" }).fill(typed);
    const asked = page.waitForRequest((request) => request.method() === "POST" && new URL(request.url()).pathname === "/batches");
    await sendFilms(page);
    assert.equal((await asked).postDataJSON().input.format, format);
  }
});

test("what cannot be sent is refused with the reason, and nothing is submitted", async () => {
  const page = await open(stack);
  const posts = [];
  page.on("request", (sent) => { if (sent.method() === "POST") posts.push(sent.url()); });
  const fault = page.locator("#lines-fault");
  for (const [name, content, said] of [
    ["a.json", "[{]", "a.json is not JSON."],
    ["b.json", '[{"prompt":"x","prompt":"y"}]', "b.json names a field twice."],
    ["c.json", '{"prompt":"x"}', "c.json must be an array of jobs, or an object with an array of them in “jobs”."],
    ["d.json", '{"jobs":[],"colour":1}', "d.json has “colour”, which is not a field of a batch here."],
    ["e.json", Buffer.from('["Caf\u00e9"]', "latin1"), "e.json is not in UTF-8."],
    ["f.csv", "", "f.csv is empty."],
    ["g.json", "[]", "g.json must have at least one film."],
  ]) {
    await drop(page, [name, content]);
    await page.getByText(`${name}, `).waitFor();
    await page.getByRole("button", { name: "Make the posters" }).click();
    await fault.filter({ hasText: said }).waitFor();
    await page.waitForSelector("#file:focus");
  }
  assert.match(await page.evaluate(() => window.target), /Drop a file/);
  await inspect(page, "batch-refused");
  await page.evaluate(() => desk.open([new File([new Uint8Array(64_000_001)], "h.json")]));
  await page.getByRole("button", { name: "Make the posters" }).click();
  await fault.filter({ hasText: "h.json must be at most 64 MB as a JSON document." }).waitFor();
  await drop(page, ["a.txt", "x"], ["b.txt", "y"]);
  await fault.filter({ hasText: "These are 2 files. One at a time can be sent." }).waitFor();
  await page.getByRole("button", { name: "Type the films instead" }).click();
  await page.getByRole("button", { name: "Make the posters" }).click();
  await fault.filter({ hasText: "It must have at least one film." }).waitFor();
  await page.waitForSelector("#lines:focus");
  assert.deepEqual(posts, []);

  const work = folder();
  cleanups.push(() => rmSync(work, { recursive: true }));
  const file = join(work, "again.txt");
  for (const text of ["One", "x".repeat(2000)]) {
    writeFileSync(file, text);
    await page.locator("#file").setInputFiles(file);
    await page.getByText(`again.txt, ${Math.ceil(text.length / 1000)} kB.`).waitFor();
  }
  const stopped = await page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.setData("text/plain", "dragged words");
    return ["dragover", "drop"].map((type) => !document.querySelector("[name=prompt]").dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true })));
  });
  assert.deepEqual(stopped, [false, false], "text that is dragged belongs to the field");
});

test("an upload shows its progress, and goes on with the same batch after it broke off or was stopped", async () => {
  const page = await open(stack, { expected: ["net::ERR_FAILED"] });
  const keys = [], held = [];
  page.on("request", (sent) => { if (sent.method() === "POST" && new URL(sent.url()).pathname === "/batches") keys.push(sent.headers()["idempotency-key"]); });
  await page.route(`${stack.s3}/**`, (route) => {
    if (route.request().method() !== "PUT") return route.continue();
    return held.push(route);
  });
  await drop(page, ["twice.txt", "A film that is uploaded twice\n"]);
  const send = page.getByRole("button", { name: "Make the posters" });
  await send.click();
  await until("The upload", () => held.length === 1);
  await page.locator("#upload", { hasText: "of 1 kB" }).waitFor();
  await inspect(page, "batch-upload", "#desk");
  await held[0].abort();
  await page.locator("#desk-fault", { hasText: "The upload broke off. Press the button again; nothing is made twice." }).waitFor();
  await send.click();
  await until("The second upload", () => held.length === 2);
  await page.getByRole("button", { name: "Stop" }).click();
  await page.locator("#desk-fault", { hasText: "The upload was stopped." }).waitFor();
  await page.waitForSelector("#send:focus");
  await page.unrouteAll({ behavior: "ignoreErrors" });
  const id = await sendFilms(page);
  await page.locator("#counts", { hasText: "1 poster: 1 ready." }).waitFor();
  assert.deepEqual(keys, Array(3).fill(keys[0]));
  assert.equal((await api(`/batches/${id}`)).counts.total, 1);

});

test("the commands for a batch do the same with a file, with typed films and with JSON", async () => {
  const page = await open(stack);
  await page.getByText("The same with curl").click();
  const work = folder();
  cleanups.push(() => rmSync(work, { recursive: true }));
  const films = async (lines) => {
    const command = await page.locator("#curl pre").textContent();
    const { id } = JSON.parse(execFileSync("bash", ["-c", command], { cwd: work }));
    return until("The jobs", async () => {
      const { jobs } = await api(`/batches/${id}/jobs`);
      return jobs.length === lines && jobs.map(({ prompt }) => prompt);
    });
  };
  writeFileSync(join(work, "it's.txt"), "A film by curl\n");
  await drop(page, ["it's.txt", "A film by curl\n"]);
  await page.getByText("it's.txt, 1 kB.").waitFor();
  assert.deepEqual(await films(1), ["A film by curl"]);
  await page.getByRole("button", { name: "Type the films instead" }).click();
  const typed = page.getByRole("textbox", { name: "Films" });
  await typed.fill("@file\nA film that's typed");
  assert.deepEqual(await films(2), ["@file", "A film that's typed"]);
  for (const document of ['{"jobs": [{"prompt": "One"}, {"prompt": "Two"}]}', '[{"prompt": "One"}, {"prompt": "Two"}]']) {
    await typed.fill(document);
    assert.deepEqual(await films(2), ["One", "Two"]);
  }
});

test("a batch is followed over a reload, canceled and retried", async () => {
  const data = folder();
  cleanups.push(() => rmSync(data, { recursive: true }));
  const stuck = await start("--data", data, "--model-faults", "hang=1", "--parameter", "MaximumConcurrency=2");
  let stopped;
  const stop = () => (stopped ??= stuck.stop());
  cleanups.push(stop);
  let page = await open(stuck);
  await drop(page, ["many.txt", Array.from({ length: 40 }, (_, index) => `Film ${index}`).join("\n")]);
  const id = await sendFilms(page);
  await page.locator("#counts", { hasText: "painting" }).waitFor();
  await page.reload();
  await page.locator("#batch-name", { hasText: "many" }).waitFor();
  await page.locator("#counts", { hasText: "painting" }).waitFor();
  await page.getByRole("button", { name: "Cancel what has not started" }).click();
  await page.locator("#counts", { hasText: /^40 posters: \d+ painting, \d+ canceled\.$/ }).waitFor();
  await inspect(page, "batch-canceled", "#wall");
  await page.close();
  await stop();

  const failing = await start("--model-plain", "--model-faults", "error=1", "--parameter", "MaxAttempts=1");
  cleanups.push(failing.stop);
  page = await open(failing);
  await drop(page, ["two.txt", "One\nTwo"]);
  await sendFilms(page);
  await page.locator("#counts", { hasText: "2 posters: 2 failed." }).waitFor();
  const sent = [];
  page.on("request", (request) => { if (request.method() === "POST") sent.push(new URL(request.url()).pathname); });
  const ends = async () => (await caller(failing)(new URL(page.url()).hash.replace("#batch=", "/batches/") + "/jobs")).jobs.map((job) => job.finished_at);
  const before = await ends();
  await page.getByRole("button", { name: "Retry failed posters" }).click();
  await until("The second painting", async () => (await ends()).every((end, index) => end > before[index]));
  await page.getByRole("button", { name: "Retry failed posters" }).waitFor();
  assert.match(sent.join(), /^\/batches\/[^/]*\/retry$/);
});

test("the wall shows single posters and sets, the newest first, and more on request", async () => {
  const own = await start("--model-plain");
  cleanups.push(own.stop);
  const call = caller(own);
  const made = [];
  for (let index = 0; index < 60; index++) {
    // The first thirty are sets in the main, the others single posters.
    const job = { prompt: `Film ${index}`, aspect_ratio: "1:1" };
    const single = index % 10 === 0 || index >= 30;
    made.unshift((await (single ? call("/jobs", job) : call("/batches", { jobs: [job] }))).id);
  }
  await until("The end", async () => (await call("/jobs?limit=100&status=succeeded")).jobs.length === 33);
  const page = await open(own);
  const ids = () => page.locator("#posters li").evaluateAll((cards) => cards.map((card) => card.dataset.id));
  await until("The first posters", async () => (await ids()).length === 24);
  assert.deepEqual(await ids(), made.slice(0, 24));
  const asked = [];
  page.on("request", (sent) => { if (/cursor=/.test(sent.url())) asked.push(new URL(sent.url()).pathname); });
  for (let known = 24; known < 60; ) {
    await page.getByRole("button", { name: "Show more" }).click();
    await until("More posters", async () => (await ids()).length > known);
    known = (await ids()).length;
    assert.deepEqual(await ids(), made.slice(0, known));
  }
  assert.deepEqual(asked, ["/jobs", "/batches"]);
  await page.locator("#more").waitFor({ state: "hidden" });
  await inspect(page, "sets", "#wall");
  await page.getByRole("radio", { name: "Failed" }).check();
  await page.getByText("No posters with this filter.").waitFor();
  await page.getByRole("radio", { name: "Ready" }).check();
  await until("Ready ones", async () => (await ids()).length === 24);
});

test("a set is counted live while it is under way and can be seen, and not in the background", async () => {
  const own = await start("--model-latency", "2s", "--parameter", "MaximumConcurrency=2", "--parameter", "PostersInFlight=1");
  cleanups.push(own.stop);
  const page = await open(own);
  await page.getByText("No posters yet.").waitFor();
  const asked = [];
  page.on("request", (sent) => { if (/batches\/[^/]*$/.test(sent.url())) asked.push(sent.url()); });
  const { id } = await caller(own)("/batches", { name: "Live", jobs: Array.from({ length: 6 }, (_, index) => ({ prompt: `Film ${index}` })) });
  await turn(page, true);
  await turn(page, false);
  const set = page.locator("#posters .set", { hasText: "Live" });
  await set.scrollIntoViewIfNeeded();
  await set.locator("small", { hasText: /[1-5] ready/ }).waitFor();
  await page.waitForFunction(() => document.querySelector(".set img")?.naturalWidth);
  await turn(page, true);
  const before = asked.length;
  await until("The end", async () => (await caller(own)(`/batches/${id}`)).status === "completed");
  assert.ok(asked.length <= before + 1, "one request may have been under way");
  await turn(page, false);
  await set.locator("small", { hasText: "6 posters: 6 ready." }).waitFor();
  await until("Four pictures", async () => (await set.locator("img").count()) === 4);
});

test("a poster fails, is retried, is canceled, and succeeds in the end", async () => {
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

  // A model that never answers keeps the job running for as long as the test needs it.
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

test("a webhook is set, its deliveries are shown with every try, and one is sent again", async () => {
  const hooked = await start("--webhooks-to-loopback");
  cleanups.push(hooked.stop);
  const received = [];
  const receiver = createServer((request, answer) => {
    received.push(request.headers["webhook-id"]);
    request.resume().on("end", () => answer.writeHead(received.length === 1 ? 503 : 204).end());
  });
  await new Promise((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => new Promise((resolve) => { receiver.close(resolve); receiver.closeAllConnections(); }));
  const url = `http://127.0.0.1:${receiver.address().port}/`;

  const page = await open(hooked, { expected: ["status of 400"] });
  const asked = [];
  page.on("request", (sent) => { if (sent.url().includes("deliveries")) asked.push(sent.method()); });
  await ask(page, "A film that tells nobody");
  await state(page, "succeeded");
  await page.getByText("More", { exact: false }).first().click();
  await page.getByLabel("Webhook").fill("ftp://example.com");
  await ask(page, "A film that is awaited");
  await page.locator("#webhook-fault", { hasText: "It must begin with https://." }).waitFor();
  await page.getByLabel("Webhook").fill(url);
  await page.getByText("A batch", { exact: true }).click();
  await page.getByText("The same with curl").click();
  await page.locator("#curl pre", { hasText: `"defaults":{"aspect_ratio":"2:3"},"input":{"format":"txt"},"webhook":{"url":"${url}"}}` }).waitFor();
  await page.getByText("One poster", { exact: true }).click();
  await ask(page, "A film that is awaited");
  await page.locator("#easel h3", { hasText: "that is awaited" }).waitFor();
  await state(page, "succeeded");
  assert.deepEqual(asked, [], "only the details show deliveries");

  await page.locator("#easel .frame").click();
  const delivery = page.locator("#poster .deliveries li[data-id]");
  await delivery.filter({ hasText: "job.succeeded: not delivered yet" }).filter({ hasText: "answered 503 (" }).waitFor();
  await delivery.filter({ hasText: "The next try is at" }).waitFor();
  await inspect(page, "deliveries", "#poster .deliveries");
  await delivery.filter({ hasText: "job.succeeded: delivered" }).filter({ hasText: "answered 204 (" }).waitFor();
  await page.getByRole("button", { name: "Replay" }).click();
  await page.locator("#poster .deliveries li li:nth-child(3)", { hasText: "answered 204 (" }).waitFor();
  await delivery.filter({ hasText: "job.succeeded: delivered" }).waitFor();
  await page.waitForSelector("#poster .deliveries button:focus");
  assert.deepEqual([received.length, new Set(received).size], [3, 1], "a delivery has one id");
  await page.locator("#poster").getByRole("button", { name: "Use again" }).click();
  assert.equal(await page.getByLabel("Webhook").inputValue(), url);
  await page.keyboard.press("Escape");

  // What the form has no field for is kept: the events of a poster that is made again, and what a document says.
  const webhook = { url, events: ["job.failed"] };
  await caller(hooked)("/jobs", { prompt: "A film that tells its failure", webhook });
  await page.locator("#posters li", { hasText: "tells its failure" }).locator("a").click();
  await page.locator("#poster h3", { hasText: "tells its failure" }).waitFor();
  await page.locator("#poster").getByRole("button", { name: "Use again" }).click();
  const sentTo = (path) => page.waitForRequest((sent) => sent.method() === "POST" && new URL(sent.url()).pathname === path);
  const [again] = await Promise.all([sentTo("/jobs"), page.getByRole("button", { name: "Make the poster" }).click()]);
  assert.deepEqual(again.postDataJSON().webhook, webhook);
  await page.getByLabel("Webhook").fill("");
  await drop(page, ["d.json", JSON.stringify({ webhook, deadline_hours: 2, jobs: [{ prompt: "One" }] })]);
  await page.getByText("d.json, 1 kB.").waitFor();
  const [batch] = await Promise.all([sentTo("/batches"), sendFilms(page)]);
  assert.deepEqual([batch.postDataJSON().webhook, batch.postDataJSON().deadline_hours], [webhook, 2]);
  await page.goBack();

  const requests = asked.length;
  await page.locator("#posters li", { hasText: "tells nobody" }).locator("a").click();
  await page.locator("#poster h3", { hasText: "tells nobody" }).waitFor();
  await page.locator("#poster dt", { hasText: "Kept until" }).waitFor();
  assert.deepEqual([await delivery.count(), asked.length], [0, requests], "this poster has no webhook");
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
  for (const stop of [".skip", "[name=mode]", "[name=prompt]"]) {
    await press("Tab");
    await focused(stop);
  }
  await page.keyboard.type("A film that was typed");
  for (let stops = 0; stops < 7; stops++) await press("Tab");
  await press("ArrowRight");
  await page.waitForSelector("[value='4:5']:checked");
  for (let stops = 0; stops < 7; stops++) await press("Shift+Tab");
  await press("Control+Enter");
  await page.locator("#easel h3", { hasText: "A film that was typed" }).waitFor();
  await focused("[name=prompt]");

  const card = page.locator("#posters").getByRole("link", { name: /A film that was typed/ });
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

test("a key is requested, checked, kept in the tab, and sent only to the API", async () => {
  const guarded = await start("--api-key", "alice=alice-key");
  cleanups.push(guarded.stop);
  const page = await open(guarded, { expected: ["status of 403"] });
  await page.getByRole("heading", { name: "API key" }).waitFor();
  await inspect(page, "key");
  await page.getByLabel("Key", { exact: true }).fill("mallory-key");
  await page.getByRole("button", { name: "Use this key" }).click();
  await page.getByText("The API refuses this key.").waitFor();
  await page.getByLabel("Key", { exact: true }).fill("alice-key");
  await page.keyboard.press("Enter");
  await page.getByText("No posters yet.").waitFor();
  assert.deepEqual(await page.evaluate(() => [{ ...localStorage }, { ...sessionStorage }, document.cookie]), [{}, { apiKey: "alice-key" }, ""]);
  await ask(page, "A film with a key");
  await state(page, "succeeded");
  await page.waitForFunction(() => document.querySelector("#easel img").naturalWidth > 0);
  await page.getByText("The same with curl").click();
  const command = await page.locator("#curl pre", { hasText: " -d " }).textContent();
  assert.ok(command.includes('"x-api-key: $KEY"') && !command.includes("alice-key"));

  // The watch over the page's requests sees it if the key goes to the bucket with the film or for the results.
  await page.getByRole("radio", { name: "A batch" }).check();
  await page.getByRole("textbox", { name: "Films" }).fill("A film in a batch");
  await sendFilms(page);
  const results = page.getByRole("button", { name: "Download the results" });
  const [download] = await Promise.all([page.waitForEvent("download"), results.click()]);
  assert.equal(JSON.parse(readFileSync(await download.path())).status, "succeeded");
  const ofBatch = await page.locator("#curl pre", { hasText: "/start" }).textContent();
  assert.deepEqual([ofBatch.split('"x-api-key: $KEY"').length, ofBatch.includes("alice-key")], [3, false]);
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

/** Hides the tab, or shows it. */
const turn = (page, hidden) => page.evaluate((hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
  if (!hidden) window.dispatchEvent(new Event("focus"));
}, hidden);

test("the wall shows what is made elsewhere, requests only what has changed, and nothing in the background", async () => {
  const own = await start("--model-plain");
  cleanups.push(own.stop);
  const submit = (prompt) => fetch(`${own.api}/jobs`, { method: "POST", headers, body: JSON.stringify({ prompt }) });
  const page = await open(own);
  await page.getByText("No posters yet.").waitFor();
  await submit("A film that is made elsewhere");
  await page.locator("#posters [data-state=succeeded]", { hasText: "made elsewhere" }).waitFor();

  const looks = [];
  page.on("response", (answer) => { if (new URL(answer.url()).pathname === "/jobs") looks.push(answer.status()); });
  await until("Three looks", () => looks.length >= 3);
  assert.deepEqual(looks.slice(-2), [304, 304]);

  await turn(page, true);
  await submit("A film that is made unseen");
  const unseen = page.waitForRequest(() => true, { timeout: 10_000 }).then(() => "asked", () => "not asked");
  // One request may be in flight when the tab goes into the background.
  await until("The rest", async () => (await unseen) === "not asked" || (await page.waitForRequest(() => true, { timeout: 10_000 }).then(() => false, () => true)));
  assert.equal(await page.locator("#posters li").count(), 1);
  await turn(page, false);
  await page.locator("#posters li", { hasText: "made unseen" }).waitFor({ timeout: 3000 });
});

test("the page says when the service is unreachable, resumes when it is back, and says what was lost", async () => {
  const data = folder();
  cleanups.push(() => rmSync(data, { recursive: true }));
  let stack = await start("--data", data, "--model-faults", "hang=1");
  cleanups.push(() => stack.stop());
  const port = new URL(stack.api).port;
  const s3 = stack.s3;
  const page = await open({ api: stack.api, s3 }, { expected: ["ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE", "ERR_SOCKET_NOT_CONNECTED", "status of 404"] });
  const { id } = await (await fetch(`${stack.api}/batches`, { method: "POST", headers, body: JSON.stringify({ name: "Lost", jobs: [{ prompt: "A film that is batched" }] }) })).json();
  await ask(page, "A film that is painted for ever");
  await state(page, "running");
  await page.locator("#posters .busy").first().waitFor();
  await stack.stop();
  const gone = "The service cannot be reached. Trying again.";
  await page.locator("#easel .news", { hasText: gone }).waitFor();
  await page.locator("#wall-fault", { hasText: gone }).waitFor();
  assert.equal(await page.locator("#easel .busy").count(), 0);
  assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector("#posters .busy"), "::after").display), "none");
  await inspect(page, "gone");

  stack = await start("--data", data, "--model-faults", "hang=1", "--port", port);
  await page.locator("#easel .news", { hasText: "Painting for" }).waitFor();
  await page.locator("#wall-fault", { hasText: /^$/ }).waitFor({ state: "attached" });
  await stack.stop();
  stack = await start("--port", port);
  await page.locator("#easel .news", { hasText: "This poster no longer exists." }).waitFor();
  for (const name of ["Cancel", "Retry", "Download"]) assert.equal(await page.locator("#easel").getByRole("button", { name }).count(), 0);
  await page.getByText("No posters yet.").waitFor();

  await page.goto(`${stack.api}/#batch=${id}`);
  await page.reload();
  await page.getByText("This batch no longer exists.").waitFor();
  await inspect(page, "batch-lost", "#wall");
  await page.getByRole("link", { name: "Show all posters" }).click();
  await page.getByText("No posters yet.").waitFor();
  const asked = [];
  page.on("request", (sent) => asked.push(sent.url()));
  await page.evaluate(() => { location.hash = "job=..%2F..%2Fhealth"; });
  await page.locator("#poster", { hasText: "This poster no longer exists." }).waitFor();
  assert.ok(!asked.some((url) => url.includes("health")), asked.join());
});

test("an empty list says why, and no old poster stays under a new filter", async () => {
  const page = await open(stack);
  await page.waitForSelector("#posters li");
  const held = [];
  await page.route("**/jobs?*status=canceled*", async (route) => { held.push(route); });
  await page.getByRole("radio", { name: "Canceled" }).check();
  await page.getByText("Loading …").waitFor();
  assert.equal(await page.locator("#posters li").count(), 0);
  await until("The list", () => held.length);
  await held[0].continue();
  await page.getByText("No posters with this filter.").waitFor();
});

test("progress is shown, and a batch is not submitted twice by accident", async () => {
  const own = await start("--model-plain", "--model-faults", "error=1", "--parameter", "MaxAttempts=1");
  cleanups.push(own.stop);
  const page = await open(own);
  await page.getByRole("radio", { name: "A batch" }).check();
  await page.getByRole("textbox", { name: "Films" }).fill("One\nTwo\nThree");
  await sendFilms(page);
  await page.locator("#counts", { hasText: "3 failed." }).waitFor();
  const sent = [], asked = [];
  page.on("request", (request) => { if (request.method() === "POST") sent.push(new URL(request.url()).pathname); });
  page.on("dialog", (dialog) => { asked.push(dialog.message()); dialog.dismiss(); });
  await page.getByRole("button", { name: "Make the posters" }).click();
  await until("The question", () => asked.length === 1);
  assert.match(asked[0], /sent already/);
  assert.deepEqual(sent, []);

  const held = [];
  await page.route("**/jobs/*/retry", (route) => { held.push(route); });
  await page.locator("#posters li a", { hasText: "One" }).click();
  const button = page.locator("#poster [data-do=retry]");
  await button.click();
  await page.locator("#poster [data-do=retry][aria-disabled=true]", { hasText: "Retrying …" }).waitFor();
  await button.dispatchEvent("click");
  assert.equal(held.length, 1);
  await held[0].continue();
  await page.locator("#poster [data-do=retry]", { hasText: /^Retry$/ }).waitFor({ state: "attached" });
  await page.unrouteAll({ behavior: "ignoreErrors" });
});

test("file names are cut at whole characters", async () => {
  const page = await open(stack);
  await ask(page, `${"x".repeat(59)}👩‍🚀🎬 and some more words behind it`);
  await page.locator("#posters li .thumb p", { hasText: /👩‍🚀…$/u }).waitFor();
  for (const [prompt, expected] of [["हिन्दी फ़िल्म", "हिन्दी-फ़िल्म.png"], ["?!?", "poster.png"]]) {
    await ask(page, prompt);
    await page.locator("#easel h3", { hasText: prompt }).waitFor();
    await state(page, "succeeded");
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#easel [data-do=download]").click()]);
    assert.equal(download.suggestedFilename().normalize(), expected.normalize());
  }
});

test("all posters of a batch come in one ZIP file, in their order", async () => {
  const jobs = ["One", "Zwei, drei", "Four"].map((prompt) => ({ prompt, output_format: "jpeg" }));
  const { id } = await api("/batches", { method: "POST", headers, body: JSON.stringify({ name: "Kurz & gut", jobs }) });
  await until("The end of the batch", async () => (await api(`/batches/${id}`)).status !== "in_progress");
  const page = await open(stack, { path: `/#batch=${id}` });
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download all" }).click()]);
  await page.locator("#saved", { hasText: "3 posters saved." }).waitFor();
  assert.equal(download.suggestedFilename(), "Kurz-gut.zip");
  const list = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); print(z.testzip(), *(f'{i.filename}:{i.file_size}' for i in z.infolist()))";
  const told = execFileSync("python3", ["-c", list, await download.path()]).toString().trim().split(" ");
  const { jobs: made } = await api(`/batches/${id}/jobs`);
  assert.deepEqual(told, ["None", ...["1-one", "2-zwei-drei", "3-four"].map((name, index) => `${name}.jpeg:${made[index].image.bytes}`)]);

  await page.route(`${stack.s3}/**`, () => {});
  await page.getByRole("button", { name: "Download all" }).click();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.locator("#saved", { hasText: "Stopped." }).waitFor();
});

test("style, placement and credits are sent, and a title that is too small is reported", async () => {
  const page = await open(stack);
  await page.getByLabel("What is the film about?").fill("A lone astronaut");
  await page.getByLabel("Title").fill("The Last Signal");
  await page.getByText("Lettering", { exact: false }).first().click();
  await page.getByLabel("Look").selectOption("scifi");
  await page.getByLabel("Placement").selectOption("top");
  await page.getByLabel("Credits").fill("directed by: Ada Marlowe\nInes Caruso");
  await inspect(page, "lettering");
  await page.getByRole("button", { name: "Make the poster" }).click();
  await page.locator("#easel h3", { hasText: "The Last Signal" }).waitFor();
  await state(page, "succeeded");
  const { jobs: [job] } = await api("/jobs");
  const { style, placement, credits } = job.poster;
  assert.deepEqual({ style, placement, credits }, { style: "scifi", placement: "top", credits: [{ role: "directed by", name: "Ada Marlowe" }, { role: null, name: "Ines Caruso" }] });
  await page.route(`**/jobs/${job.id}`, async (route) => {
    const answer = await route.fetch();
    const body = await answer.json();
    body.image.poster.legible = false;
    return route.fulfill({ response: answer, json: body });
  });
  await page.goto(`${stack.api}/#job=${job.id}`);
  await page.reload();
  await page.locator("#poster .news", { hasText: "The title is too small to read." }).waitFor();

  // The typed text survives a reload.
  await page.keyboard.press("Escape");
  await page.getByLabel("What is the film about?").fill("A half written");
  await page.reload();
  await until("The draft", async () => (await page.getByLabel("What is the film about?").inputValue()) === "A half written");
});

test("the dialog shows the next poster, and nothing jumps when one is ready", async () => {
  const page = await open(stack);
  await page.waitForSelector("#posters li:not(.set) ~ li:not(.set) ~ li:not(.set)");
  await page.locator("#posters li:not(.set) a").nth(1).click();
  const ids = await page.locator("#posters li:not(.set)").evaluateAll((cards) => cards.map((card) => card.dataset.id));
  const at = (id) => page.waitForURL((url) => url.hash === `#job=${id}`);
  await at(ids[1]);
  await page.getByRole("button", { name: "Next" }).click();
  await at(ids[2]);
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  await at(ids[0]);
  assert.equal(await page.getByRole("button", { name: "Previous" }).getAttribute("aria-disabled"), "true");
  await page.goBack();
  await page.waitForSelector("#poster:not([open])", { state: "attached" });

  const edges = (selector) => page.locator(selector).evaluate((element) => { const { left, top } = element.getBoundingClientRect(); return [Math.round(left), Math.round(top + scrollY)]; });
  const before = await edges("#send");
  await ask(page, "A film that does not move");
  await state(page, "running");
  const card = page.locator("#posters li", { hasText: "does not move" });
  const ratio = () => card.locator(".thumb").evaluate((thumb) => (thumb.clientWidth / thumb.clientHeight).toFixed(2));
  assert.equal(await ratio(), "0.68", "the place of a picture has its shape");
  await state(page, "succeeded");
  await card.locator("img").waitFor();
  assert.equal(await ratio(), "0.68");
  assert.deepEqual(await edges("#send"), before);
  assert.equal((await edges("#easel .frame"))[0], (await edges("#easel .about"))[0], "picture and words begin at one edge");
});
