// What the browser tests share: Chromium without a network of its own, pages
// that fail a test when they log an error, and axe.
import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import assert from "node:assert/strict";

const require = createRequire(new URL("../client/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** launch starts Chromium, or says what is missing. */
export async function launch() {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: install chromium, or name another in CHROMIUM`);
  return chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

/** Watched collects what must not happen on a page: errors in its console,
 * exceptions, and requests to another host. */
export class Watched {
  problems = [];
  constructor(page, base) {
    page.on("pageerror", (e) => this.problems.push(`exception: ${e.message}`));
    page.on("console", (m) => m.type() === "error" && !this.expected(m.text()) && this.problems.push(`console: ${m.text()}`));
    page.on("request", (r) => {
      const url = new URL(r.url());
      if (!["data:", "blob:"].includes(url.protocol) && url.host !== new URL(base).host) this.problems.push(`request to another host: ${r.url()}`);
    });
  }
  expected = () => false;
  check() {
    assert.deepEqual(this.problems, []);
  }
}

/** open makes a page in a language and theme, in a context of its own. */
export async function open(browser, base, path, { lang = "ko", theme = "light", width = 1440, height = 900, motion = "reduce" } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, locale: lang === "ko" ? "ko-KR" : "en-US", reducedMotion: motion });
  await context.addCookies([{ name: "podlab_lang", value: lang, url: base }]);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const watched = new Watched(page, base);
  await page.goto(base + path);
  return { context, page, watched };
}

/** assertAccessible fails on violations that axe calls serious or critical.
 * axe is put in through the debugger, past the page's content policy. */
export async function assertAccessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join(" | ")}`);
  assert.deepEqual(bad, []);
}

/** assertNothingCut fails when an element of the frame is pushed out of the window. */
export async function assertNothingCut(page) {
  const out = await page.evaluate(() => {
    const w = document.documentElement;
    const bad = [];
    if (w.scrollWidth > w.clientWidth) bad.push(`the page is ${w.scrollWidth - w.clientWidth} px too wide`);
    for (const e of document.querySelectorAll(".top > *, .tabs > *, .pane-bar > *, .map-bar")) {
      const r = e.getBoundingClientRect();
      if (r.width > 0 && (r.right > innerWidth + 1 || r.left < -1)) bad.push(`${e.className || e.tagName} lies outside the window`);
    }
    return bad;
  });
  assert.deepEqual(out, []);
}

/** text is what a terminal shows. */
export const terminalText = (page) => page.locator(".term:visible .xterm-rows").innerText();
