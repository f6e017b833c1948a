// The walk of a learner, for real: a server of its own, a lab in a sandbox,
// the course's manifest, a shell, and a check that turns green by itself. It
// takes the README's picture (SCREENSHOT=1 writes it to web/screenshot.png).
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { assertAccessible, launch, open, terminalText } from "./browser.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const podlab = process.env.PODLAB_BIN ?? join(root, "bin/podlab");
const installed = process.env.PODLAB_DATA ?? "/var/lib/podlab";
const data = mkdtempSync(join(tmpdir(), "podlab-e2e-"));
let browser, server, base, code, output = "";

/** printed waits until the server has printed something. */
const printed = (re) =>
  new Promise((resolve, reject) => {
    const look = () => {
      const m = output.match(re);
      if (m) resolve(m[1]);
    };
    server.stdout.on("data", look);
    server.once("exit", (status) => reject(new Error(`podlab serve ended with ${status}: ${output}`)));
    look();
  });

async function serve() {
  server = spawn(podlab, ["serve", "--addr", base ? base.replace("http://", "") : "127.0.0.1:0", "--data", data], { stdio: ["ignore", "pipe", "pipe"] });
  server.stdout.on("data", (d) => (output += d));
  server.stderr.on("data", (d) => (output += d));
  base = await printed(/podlab is at (http:\S+)/);
}

before(async () => {
  assert.equal(process.getuid(), 0, "this test makes real labs and needs root");
  for (const [file, how] of [[podlab, "make build"], [join(installed, "rootfs/current"), "make rootfs"], [join(installed, "images"), "make images"]]) assert.ok(existsSync(file), `${file} is missing: run '${how}' first`);
  symlinkSync(join(installed, "rootfs"), join(data, "rootfs"));
  symlinkSync(join(installed, "images"), join(data, "images"));
  await serve();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  if (server) {
    for (const lab of JSON.parse(spawnSync(podlab, ["lab", "list", "--all", "-o", "json"], { env: { ...process.env, PODLAB_DATA: data }, encoding: "utf8" }).stdout || "[]")) spawnSync(podlab, ["lab", "delete", lab.id], { env: { ...process.env, PODLAB_DATA: data } });
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGTERM");
    await ended;
  }
  rmSync(data, { recursive: true, force: true });
});

test("the instructor signs in by the printed link and makes a class", async () => {
  const link = await printed(/(http:\S+signin\?link=\S+)/);
  const { page, watched, context } = await open(browser, base, link.slice(base.length));
  await page.fill("#class-name", "쿠버네티스 네트워킹 3기");
  await page.click(".inline-form button");
  code = await page.innerText(".code-big");
  assert.match(code, /\w{4}/);
  await assertAccessible(page);
  watched.check();
  await context.close();
  const again = await open(browser, base, link.slice(base.length));
  assert.equal(await again.page.locator(".code-big").count(), 0, "the link is good for one use");
  await again.context.close();
});

/** The one learner of the walk keeps a page through the tests. */
let learner;
const rows = () => document.querySelector(".term .xterm-rows")?.textContent ?? "";

test("a learner signs in with code and name and starts the exercise's lab", async () => {
  learner = await open(browser, base, "/", { width: 1440, height: 900 });
  const { page, watched } = learner;
  watched.expected = (s) => /4\d\d|WebSocket connection/.test(s); // the wrong manifest and the server's end, later
  assert.match(page.url(), /signin/);
  await page.fill("[name=code]", "NO-SUCH-CLASS");
  await page.fill("[name=name]", "김하늘");
  await page.click("form button.primary");
  await page.waitForSelector("#code-error");
  await page.fill("[name=code]", code.toLowerCase());
  await page.click("form button.primary");
  await page.click(".exercise-action button");
  await page.waitForSelector(".map-svg.ready");
  for (const pod of ["pod-a", "pod-b", "pod-c"]) await page.waitForSelector(`.kind-pod.state-ok [data-id="pod:default/${pod}"]`);
  assert.equal(await page.locator(".m-tunnel").count(), 1);
  await assertAccessible(page);
});

test("a manifest with a misspelt field changes nothing and says where", async () => {
  const { page } = learner;
  await page.click("#tab-yaml");
  await page.click(".cm-content");
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containrs: []\n");
  await page.click(".pane-bar .primary");
  await page.waitForSelector(".outcome-bad");
  assert.match(await page.innerText(".outcome-bad"), /containrs/);
  assert.match(await page.innerText(".outcome-bad"), /6행/);
  assert.equal(await page.locator('[data-id="pod:default/x"]').count(), 0);
});

test("the course's manifest is applied and its pod is seen, with its eight steps", async () => {
  const { page } = learner;
  await page.locator(".manifest .button").first().click();
  await page.waitForFunction(() => document.querySelector(".cm-content")?.textContent.includes("metrics-exporter"));
  await page.click(".pane-bar .primary");
  await page.waitForSelector(".outcome-ok");
  const pod = page.locator('.kind-pod.state-ok [data-id="pod:default/multi-container-pod"]');
  await pod.waitFor();
  for (const c of ["web-server", "log-collector", "metrics-exporter"]) await page.waitForSelector(`[data-id="ctr:default/multi-container-pod#${c}"].ready`);
  await page.locator('[data-id="pod:default/multi-container-pod"]').focus();
  await page.keyboard.press("Enter");
  await page.locator(".steps li").nth(7).waitFor();
  assert.deepEqual(await page.locator(".steps .step-no").allInnerTexts(), ["1", "2", "3", "4", "5", "6", "7", "8"]);
  await assertAccessible(page);
});

test("the first check is green by itself; a command of the lesson runs where it says", async () => {
  const { page } = learner;
  await page.waitForSelector(".task-card .check-pass");
  await page.locator(".command-run").first().click();
  await page.waitForFunction(() => /net:\[\d+\]/.test(document.querySelector(".term .xterm-rows")?.textContent ?? ""));
  assert.match(await page.innerText(".tab.on"), /multi-container-pod\/web-server/);
});

test("the learner's own work in a shell turns the task green, and undoing it breaks it again", async () => {
  const { page } = learner;
  const inode = (await terminalText(page)).match(/net:\[(\d+)\]/)[1];
  const shown = await page.innerText(".inspector .facts");
  assert.ok(shown.includes(inode), "the page and the kernel name one namespace");
  await page.click(".new-terminal summary");
  await page.locator(".new-terminal .menu button", { hasText: "node1" }).first().click();
  await page.waitForFunction(() => [...document.querySelectorAll(".term")].some((t) => t.offsetParent && /node1/.test(t.textContent)));
  await page.locator(".term:visible textarea").focus();
  await page.keyboard.type(`kubectl label pod multi-container-pod netns=${inode}\n`);
  await page.waitForSelector(".task-card >> nth=0 >> .task-no svg", { timeout: 20_000 });
  assert.equal(await page.locator(".top .pips i.on").count(), 1);
  if (process.env.SCREENSHOT) {
    await page.locator(".tab", { hasText: "web-server" }).locator("button").click();
    await page.evaluate(() => document.querySelector(".task-card").scrollIntoView({ block: "end" }));
    await page.waitForFunction(rows);
    await page.screenshot({ path: join(root, "web/screenshot.png") });
    await page.locator(".tab", { hasText: "node1" }).locator("button").click();
  }
  await page.locator(".term:visible textarea").focus();
  await page.keyboard.type("kubectl label pod multi-container-pod netns-\n");
  await page.waitForSelector(".task-card-failed", { timeout: 20_000 });
});

test("a link that goes down and a namespace made by hand are seen at once", async () => {
  const { page } = learner;
  await page.locator(".term:visible textarea").focus();
  await page.keyboard.type("ip netns add blue && ip link add to-blue type veth peer name eth0 netns blue && ip link set to-blue up\n");
  await page.waitForSelector('[data-id="ns:netns/node1/blue"]');
  await page.waitForSelector('[data-id^="link:node/node1#"] >> text=to-blue');
  await page.keyboard.type("ip link set cni0 down\n");
  await page.waitForSelector('.kind-bridge.state-bad[data-id^="link:node/node1#"]');
  await page.keyboard.type("ip link set cni0 up\n");
  await page.waitForSelector('.kind-bridge.state-plain[data-id^="link:node/node1#"]');
});

test("the server ends and starts again: the page goes on, the shell lives, nothing is typed by itself", async () => {
  const { page } = learner;
  const before = await terminalText(page);
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGKILL");
  await ended;
  await page.waitForSelector(".conn .dot.bad");
  output = "";
  await serve();
  await page.waitForSelector(".conn .dot.ok", { timeout: 30_000 });
  await page.waitForSelector(".tab.on .term-live", { timeout: 30_000 });
  assert.equal(await terminalText(page), before);
  await page.locator(".term:visible textarea").focus();
  await page.keyboard.type("echo still $((40+2))\n");
  await page.waitForFunction(() => /still 42/.test([...document.querySelectorAll(".term")].find((t) => t.offsetParent)?.textContent ?? ""));
});

test("another learner may not look in", async () => {
  const path = new URL(learner.page.url()).pathname;
  const other = await open(browser, base, "/signin");
  await other.page.fill("[name=code]", code);
  await other.page.fill("[name=name]", "박서준");
  await other.page.click("form button.primary");
  await other.page.waitForSelector(".exercise");
  const res = await other.page.goto(base + path);
  assert.ok([403, 404].includes(res.status()), `status ${res.status()}`);
  await other.context.close();
});
