// Looks at HTML pages as people do: a phone's width and a desktop's, light and dark, with the keyboard, and by axe-core's rules.
//
//   node check.mjs CHROMIUM PAGE.html [PAGE.html ...] [--shots FOLDER]
//
// Prints one JSON list: for each page, width and theme, what axe-core found, how far the page reaches beyond the window, and
// what scrolls but cannot be reached by the Tab key. Code 0 even if something was found; the caller decides.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WIDTHS = [360, 1280];
const THEMES = ["light", "dark"];
const TABS = 400; // more stops than any of our pages has

const args = process.argv.slice(2);
const at = args.indexOf("--shots");
const shots = at >= 0 ? args.splice(at, 2)[1] : null;
const [chromium, ...pages] = args;

// The boxes that scroll sideways, in the page's order, and those of them that have the focus at some stop of the Tab key.
async function unreachable(page) {
  await page.evaluate(() => {
    const scrolls = (box) => box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
    [...document.querySelectorAll("*")].filter(scrolls).forEach((box) => box.setAttribute("data-scrolls", ""));
    document.activeElement?.blur();
  });
  for (let stop = 0; stop < TABS; stop++) {
    await page.keyboard.press("Tab");
    const ended = await page.evaluate(() => {
      const focused = document.activeElement;
      if (!focused || focused === document.body || focused.hasAttribute("data-seen")) return true;
      focused.setAttribute("data-seen", "");
      focused.closest("[data-scrolls]")?.setAttribute("data-reached", "");
      return false;
    });
    if (ended) break;
  }
  return page.$$eval("[data-scrolls]:not([data-reached])", (boxes) => boxes.map((box) => box.outerHTML.slice(0, 160)));
}

async function look(browser, file, width, theme) {
  const page = await browser.newPage();
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  await page.goto(pathToFileURL(resolve(file)).href);
  if (shots) await page.screenshot({ path: join(shots, `${basename(file, ".html")}-${width}-${theme}.png`), fullPage: true });
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  await page.evaluate(AXE);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  const violations = found.violations.map(({ id, impact, help, nodes }) => ({
    id,
    impact,
    help,
    nodes: nodes.slice(0, 5).map((node) => node.html.slice(0, 200)),
  }));
  const result = { page: basename(file), width, theme, beyond, unreachable: await unreachable(page), violations };
  await page.close();
  return result;
}

const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
try {
  const results = [];
  for (const file of pages)
    for (const width of WIDTHS) for (const theme of THEMES) results.push(await look(browser, file, width, theme));
  console.log(JSON.stringify(results));
} finally {
  await browser.close();
}
