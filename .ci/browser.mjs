// Shared by the scripts that drive the page: local stacks and their API, a browser, and waiting for a condition.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const tools = createRequire(join(process.env.NODE_TOOLS, "package.json"));
const { chromium } = tools("playwright-core");
export const axe = readFileSync(tools.resolve("axe-core/axe.min.js"), "utf8");

/** The longest time to wait for anything, in milliseconds. It is reached only if something is broken. */
export const PATIENCE = 30_000;

/** Polls `holds` until it returns a truthy value, and returns that value. */
export async function until(what, holds) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const value = await holds();
    if (value) return value;
  }
  throw new Error(`Timed out waiting for: ${what}.`);
}

/** Makes a temporary folder. */
export const folder = () => mkdtempSync(join(tmpdir(), "movie-poster-page-"));

/** Starts a local stack with these options, and returns its addresses and a function that stops it. */
export async function start(...options) {
  const work = folder();
  const file = join(work, "ready.json");
  const port = options.includes("--port") ? [] : ["--port", "0"];
  const stack = spawn(process.env.LOCAL, [...port, "--ready-file", file, ...options], { stdio: ["ignore", "ignore", "pipe"] });
  let told = "";
  stack.stderr.on("data", (text) => { told += text; });
  const ended = once(stack, "exit");
  await until("The local stack", () => {
    if (stack.exitCode !== null) throw new Error(`The local stack ended: ${told}`);
    return existsSync(file);
  });
  const stop = async () => {
    // A stack that is stopped politely waits for pictures that are being painted. The tests do not need these.
    stack.kill("SIGKILL");
    await ended;
    rmSync(work, { recursive: true });
  };
  return { ...JSON.parse(readFileSync(file, "utf8")), stop };
}

/** Asks the API of a stack, and returns what it answers. A body is posted. */
export const caller = ({ api }) => async (path, body) => {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return (await fetch(api + path, options)).json();
};

export function launch() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];
  return chromium.launch({ executablePath: process.env.CHROMIUM, args });
}
