// Measures a wall of 500 posters in a real browser, on a desktop and on a phone, in dark and in light: what the first view
// loads, the memory of the renderer, and how long frames take while the wall is scrolled. .ci/page --measure runs this.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { caller, launch, start, until } from "./browser.mjs";

const POSTERS = 500;
const RATIOS = ["2:3", "16:9", "2:3", "1:1", "4:5", "2:3"];
const FILMS = ["A noir detective thriller in Venice", "A western without horses", "The last lighthouse keeper on Mars",
  "A love story on a night train", "A documentary about whales", "The forest that remembers"];

const stack = await start();
const browser = await launch();
const call = caller(stack);

/** What the page's renderer holds, in MB: memory of its own, decoded pictures that it gives back when memory is short, and the heap of its scripts. */
async function memory(page) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const held = ({ id }) => ["RssAnon", "RssShmem"].map((kind) => Number(readFileSync(`/proc/${id}/status`, "utf8").match(`${kind}:\\s+(\\d+)`)[1]) / 1000);
  const renderers = processInfo.filter(({ type }) => type === "renderer").map(held).sort(([a], [b]) => b - a);
  const heap = await page.evaluate(() => performance.memory.usedJSHeapSize / 1e6);
  return [...renderers[0], heap].map(Math.round);
}

/** Whether the pictures that can be seen hang. */
const hung = () => {
  const near = [...document.querySelectorAll("#easel img, #posters img")].filter((picture) => picture.getBoundingClientRect().top < innerHeight);
  return document.querySelectorAll("#posters img").length >= 24 && near.every((picture) => picture.naturalWidth > 0);
};

/** Scrolls through the wall, and gives the durations of its frames in ms, sorted. */
const scroll = (page) => page.evaluate(() => new Promise((resolve) => {
  const frames = [];
  let last;
  const step = (now) => {
    if (last) frames.push(now - last);
    last = now;
    scrollBy({ top: 40, behavior: "instant" });
    if (scrollY + innerHeight < document.documentElement.scrollHeight - 1) requestAnimationFrame(step);
    else resolve(frames.sort((a, b) => a - b));
  };
  requestAnimationFrame(step);
}));

try {
  const jobs = Array.from({ length: 24 }, (_, index) => ({ prompt: `${FILMS[index % 6]}, part ${index}`, aspect_ratio: RATIOS[index % 6], seed: index + 1 }));
  for (const job of jobs) {
    const { id } = await call("/jobs", job);
    await until(job.prompt, async () => (await call(`/jobs/${id}`)).image);
  }
  const { jobs: painted } = await call("/jobs?limit=24");
  for (const [name, viewport, deviceScaleFactor] of [["desktop", { width: 1440, height: 900 }, 1], ["phone", { width: 390, height: 844 }, 2]]) {
    for (const colorScheme of ["dark", "light"]) {
      const context = await browser.newContext({ viewport, deviceScaleFactor, colorScheme, locale: "en-GB" });
      const page = await context.newPage();
      let bytes = 0;
      const session = await context.newCDPSession(page);
      await session.send("Network.enable");
      session.on("Network.loadingFinished", ({ encodedDataLength }) => { bytes += encodedDataLength; });
      await page.goto(stack.api);
      await page.waitForFunction(hung);
      await page.waitForLoadState("networkidle");
      const first = bytes;
      const [few] = await memory(page);
      // The listener keeps the responses.
      await session.detach();

      // The wall of 500 is made of these 24, each with a name and an address of its own, so that nothing is shared.
      const copy = (job, number) => {
        const copied = structuredClone(job);
        copied.id = `${String(number).padStart(8, "0")}${job.id.slice(8)}`;
        for (const key of ["url", "thumbnail"]) if (job.image[key]) copied.image[key] = `${job.image[key]}&copy=${number}`;
        return copied;
      };
      await page.route(/\/jobs\?/, (route) => {
        const query = new URL(route.request().url()).searchParams;
        const from = Number(query.get("cursor") ?? 0), end = Math.min(POSTERS, from + Number(query.get("limit")));
        const listed = Array.from({ length: end - from }, (_, index) => copy(painted[(from + index) % 24], from + index));
        return route.fulfill({ json: { jobs: listed, next_cursor: end < POSTERS ? String(end) : null } });
      });
      await page.route(/&copy=/, async (route) => route.fulfill({ response: await route.fetch({ url: route.request().url().replace(/&copy=\d+/, "") }) }).catch(() => {}));
      await page.reload();
      const count = () => page.locator("#posters li").count();
      for (let hung = 24; hung < POSTERS; hung = await count()) {
        await until("More posters", async () => (await count()) >= hung);
        await page.evaluate(() => document.querySelector("#more").click());
        await until("More posters", async () => (await count()) > hung);
      }
      await page.locator("#wall").evaluate((wall) => wall.scrollIntoView({ behavior: "instant" }));
      // Once to have all pictures fetched, and once to measure.
      await scroll(page);
      await page.waitForFunction(hung);
      await page.locator("#wall").evaluate((wall) => wall.scrollIntoView({ behavior: "instant" }));
      const frames = await scroll(page);
      const at = (share) => frames[Math.floor(share * (frames.length - 1))].toFixed(1);
      const [many, pictures, heap] = await memory(page);
      console.log(`${name}, ${colorScheme}: first view ${Math.round(first / 1000)} kB; ${few} MB with 24 posters, ${many} MB with ${await count()}`
        + ` and ${pictures} MB of decoded pictures (heap ${heap} MB); frames of ${at(0.5)} ms in the median, ${at(0.95)} ms at 95 %, ${at(1)} ms at most, of ${frames.length}`);
      await page.evaluate(() => scrollTo({ top: document.documentElement.scrollHeight / 2, behavior: "instant" }));
      await page.waitForTimeout(500);
      await page.screenshot({ path: join(process.env.PAGE_PICTURES, `wall-of-500-${name}-${colorScheme}.png`) });
      await page.unrouteAll({ behavior: "ignoreErrors" });
      await context.close();
    }
  }
} finally {
  await browser.close();
  await stack.stop();
}
