// Uses the page of `softprompt serve` as a person does: a text, two artifacts, the button, then a refusal.
//
//   node serve.mjs CHROMIUM ADDRESS [--shots FOLDER]
//
// Prints one JSON object: what the page showed, all requests that it made, what its console said, and what axe-core found.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const args = process.argv.slice(2);
const at = args.indexOf("--shots");
const shots = at >= 0 ? args.splice(at, 2)[1] : null;
const [chromium, address] = args;

const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage();
  const requests = [], said = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  const shot = (name) => shots && page.screenshot({ path: join(shots, `serve-${name}.png`), fullPage: true });
  const text = (where) => page.$eval(where, (node) => node.textContent);
  const tick = (names) =>
    page.$$eval("input[name=artifact]", (boxes, names) => boxes.forEach((box) => {
      if (box.checked !== names.includes(box.value)) box.click();
    }), names);

  await page.setViewport({ width: 900, height: 900 });
  await page.goto(address, { waitUntil: "networkidle0" });
  const offered = await page.$$eval("input[name=artifact]", (boxes) => boxes.map((box) => box.value));
  await page.click("#text");
  await page.keyboard.type("joy and sun <b>and</b> rain");
  await tick([]);
  await page.click("button");
  const none = await text("#status");
  await tick(offered.slice(0, 2));
  await page.click("button");
  await page.waitForSelector("#rows tr");
  const rows = await page.$$eval("#rows tr", (all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
  const answered = { rows, status: await text("#status"), timing: await text("#timing") };
  await shot("answered");
  await page.evaluate(AXE);
  const axe = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const before = said.length;
  await page.$eval("input[name=artifact]:checked", (box) => (box.value = "gone")); // as if it had been removed meanwhile
  await page.click("button");
  await page.waitForSelector("#status.bad");
  const refused = await text("#status");
  await shot("refused");
  const violations = axe.violations.map(({ id, nodes }) => [id, nodes[0].html.slice(0, 200)]);
  console.log(JSON.stringify({ offered, none, ...answered, refused, requests, said: said.slice(0, before), violations }));
} finally {
  await browser.close();
}
