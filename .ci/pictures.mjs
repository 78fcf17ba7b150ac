// Takes the pictures for the README: two of the page, and the posters. .ci/page --pictures runs this.
import { statSync, writeFileSync } from "node:fs";
import { caller, launch, start, until } from "./browser.mjs";

const FOLDER = "docs/pictures";
/** The largest picture that may go into the repository, in bytes. */
const MOST = 300_000;

/** The posters that the README shows by themselves, by the names of their files. */
const POSTERS = {
  "the-last-signal": { prompt: '"The Last Signal": a lone astronaut on a moon of Saturn, a science fiction epic', seed: 7 },
  "venice-noir": { prompt: "A noir detective thriller in 1940s Venice", seed: 5 },
};
/** The other posters on the wall, oldest first. */
const WALL = [
  { prompt: "Seven samurai in the rain", seed: 3 },
  { prompt: "A chase through neon Tokyo, a cyberpunk thriller", seed: 12, aspect_ratio: "16:9" },
  { prompt: "The last stagecoach to Santa Fe, a western", seed: 2 },
  { prompt: "A documentary about whales", seed: 4 },
  { prompt: "A lighthouse keeper and a storm that does not end, a horror film", seed: 8, aspect_ratio: "4:5" },
  { prompt: "The forest that remembers, a fantasy epic", seed: 9 },
  { prompt: "A love story on a night train through the Alps", seed: 6, aspect_ratio: "3:2", poster: { title: "The Night Train to Bern" } },
  { prompt: "Une comédie à Paris au printemps", seed: 11, poster: { title: "Minuit moins le quart", tagline: "Rien ne sera plus comme avant." } },
];
/** The poster on the easel. */
const EASEL = { ...POSTERS["venice-noir"], poster: { title: "Death in San Marco", tagline: "The truth keeps late hours" } };

const stack = await start();
const browser = await launch();
const call = caller(stack);

/** Makes a poster, and returns its job when it has succeeded. */
async function poster(order) {
  const { id } = await call("/jobs", { output_format: "jpeg", ...order });
  return until(order.prompt, async () => {
    const job = await call(`/jobs/${id}`);
    if (job.error) throw new Error(job.error.message);
    return job.image && job;
  });
}

function keep(name, bytes) {
  const file = `${FOLDER}/${name}.jpg`;
  writeFileSync(file, bytes);
  const { size } = statSync(file);
  console.log(`${file}: ${size} bytes`);
  if (size > MOST) throw new Error(`${file} is larger than ${MOST} bytes`);
}

/** Opens the page, waits for the poster on the easel, and fills in the form with its order. */
async function page(options) {
  const context = await browser.newContext({ reducedMotion: "reduce", locale: "en-GB", ...options });
  const page = await context.newPage();
  await page.goto(stack.api);
  await page.waitForSelector("#easel [data-state=succeeded]");
  await page.getByRole("button", { name: "Use again" }).click();
  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(0, 0);
  return page;
}

/** Waits until all pictures within the window have loaded. */
async function hung(page) {
  await page.waitForFunction((wanted) => {
    const pictures = [...document.querySelectorAll("#easel img, #posters img")];
    const near = pictures.filter((picture) => picture.getBoundingClientRect().top < innerHeight);
    return pictures.length > wanted && near.every((picture) => picture.complete && picture.naturalWidth > 0);
  }, WALL.length + Object.keys(POSTERS).length);
}

try {
  for (const order of WALL) await poster(order);
  for (const [name, order] of Object.entries(POSTERS)) {
    const { image } = await poster(order);
    const { width, height } = image;
    const sheet = await browser.newPage({ viewport: { width, height } });
    await sheet.goto(image.url);
    keep(name, await sheet.screenshot({ type: "jpeg", quality: 80 }));
  }
  await poster(EASEL);
  const desktop = await page({ viewport: { width: 1280, height: 1345 }, colorScheme: "dark" });
  await hung(desktop);
  keep("page", await desktop.screenshot({ type: "jpeg", quality: 84 }));
  const phone = await page({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5, colorScheme: "light" });
  await phone.locator("#wall").evaluate((wall) => wall.scrollIntoView());
  await hung(phone);
  keep("page-phone", await phone.screenshot({ type: "jpeg", quality: 84 }));
} finally {
  await browser.close();
  await stack.stop();
}
