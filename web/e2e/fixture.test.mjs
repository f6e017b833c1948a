// The pages and the lab page over made-up data: every state, both languages,
// both themes, keyboard and screen reader, and the stream's bad days.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { assertAccessible, assertNothingCut, launch, open, terminalText } from "./browser.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "podlab-fixture-"));
let browser, server, base, crowd, crowdBase;

/** serve starts a fixture server and returns its address. */
async function serve(...args) {
  const child = spawn(join(dir, "fixture"), args, { stdio: ["ignore", "pipe", "inherit"] });
  const address = await new Promise((resolve, reject) => {
    child.stdout.once("data", (d) => resolve(String(d).trim()));
    child.once("exit", (code) => reject(new Error(`the fixture server ended with ${code}`)));
  });
  return [child, address];
}

before(async () => {
  const built = spawnSync("go", ["build", "-o", join(dir, "fixture"), "./web/e2e/fixture"], { cwd: root, encoding: "utf8" });
  assert.equal(built.status, 0, built.stderr);
  [server, base] = await serve();
  [crowd, crowdBase] = await serve("-pods", "97");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  server?.kill();
  crowd?.kill();
  rmSync(dir, { recursive: true, force: true });
});

const act = async (lab, action, n = 0) => {
  const res = await fetch(`${base}/fixture/${lab}/${action}?n=${n}`, { method: "POST" });
  assert.equal(res.status, 200, await res.text());
};
const node = (page, id) => page.locator(`[data-id="${id}"]`);
/** inspected waits until the inspector shows a thing. */
const inspected = (page, title) => page.locator(".ins-head h2", { hasText: new RegExp(`^${title}$`) }).waitFor();
const openLab = async (id, options) => {
  const it = await open(browser, base, `/labs/${id}`, options);
  await it.page.waitForSelector(".map-svg.ready");
  await it.page.evaluate(() => document.fonts.ready);
  return it;
};

for (const path of ["/signin", "/", "/class", "/error/403", "/error/404", "/error/500", "/error/503"])
  for (const [lang, theme] of [["ko", "light"], ["en", "dark"]])
    test(`page ${path} in ${lang}, ${theme}`, async () => {
      const { page, watched, context } = await open(browser, base, path, { lang, theme, width: 1280 });
      assert.equal(await page.locator("html").getAttribute("lang"), lang);
      await assertAccessible(page);
      await assertNothingCut(page);
      watched.expected = () => path.startsWith("/error");
      watched.check();
      await context.close();
    });

test("language and theme change at once and what was typed stays", async () => {
  const { page, watched, context } = await open(browser, base, "/signin");
  await page.fill("[name=name]", "김하늘");
  await page.click("[data-lang-set=en]");
  assert.equal(await page.textContent("h1"), "Sign in to your lab");
  assert.equal(await page.title(), "Sign in · podlab");
  assert.equal(await page.inputValue("[name=name]"), "김하늘");
  await page.click("[data-theme-cycle]");
  await page.click("[data-theme-cycle]");
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  await page.reload();
  assert.equal(await page.textContent("h1"), "Sign in to your lab", "the next page has the language too");
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  watched.check();
  await context.close();
});

test("a wrong class code is told at its field", async () => {
  const { page, context } = await open(browser, base, "/signin");
  await page.fill("[name=code]", "KUBE-0000");
  await page.fill("[name=name]", "김하늘");
  await page.click("form button");
  assert.match(await page.textContent("#code-error"), /수업이 없습니다/);
  assert.equal(await page.getAttribute("[name=code]", "aria-invalid"), "true");
  await assertAccessible(page);
  await context.close();
});

for (const [lang, theme, width, height] of [["ko", "light", 1280, 800], ["en", "dark", 1440, 900], ["ko", "dark", 1920, 1080], ["en", "light", 1000, 700], ["ko", "light", 600, 900]])
  test(`lab page ${width} wide in ${lang}, ${theme}`, async () => {
    const { page, watched, context } = await openLab(`look-${width}`, { lang, theme, width, height });
    await assertAccessible(page);
    await assertNothingCut(page);
    watched.check();
    await context.close();
  });

test("the map shows what the lab has", async () => {
  const { page, watched, context } = await openLab("map");
  for (const id of ["ns:node/node1", "ns:node/node2", "pod:default/pod-a", "pod:default/pod-b", "pod:default/pod-c", "link:node/node1#3", "link:node/node2#4", "ns:underlay", "link:pod/default/pod-a#2", "tunnel:link:node/node1#4|link:node/node2#4"])
    assert.equal(await node(page, id).count(), 1, id);
  assert.equal(await page.locator(".wire-veth").count(), 5, "three pods and two uplinks");
  watched.check();
  await context.close();
});

test("links, pods and namespaces change as they happen, and nothing else moves", async () => {
  const { page, watched, context } = await openLab("live");
  const port = node(page, "link:pod/default/pod-a#2");
  const places = () => page.evaluate(() => [...document.querySelectorAll(".m-box")].map((e) => e.getAttribute("transform")).join());
  const before = await places();
  await act("live", "link-down");
  await page.waitForSelector('[data-id="link:pod/default/pod-a#2"].port-down');
  assert.equal(await places(), before, "a link's state moves no box");
  await act("live", "link-up");
  await page.waitForSelector('[data-id="link:pod/default/pod-a#2"].port-up');
  assert.equal(await port.count(), 1);
  await act("live", "pod", 7);
  await node(page, "pod:default/web-7").waitFor();
  await act("live", "pod-gone", 7);
  await node(page, "pod:default/web-7").waitFor({ state: "detached" });
  await act("live", "netns");
  await node(page, "ns:netns/node1/blue").waitFor();
  await act("live", "bad-image");
  await page.waitForSelector(".kind-pod.state-bad >> text=ErrImagePull");
  watched.check();
  await context.close();
});

test("a pod that no node has is shown beside the map", async () => {
  const { page, watched, context } = await openLab("unplaced", { lang: "en" });
  await act("unplaced", "unplaced");
  await page.click(".unplaced .chip");
  await inspected(page, "lost");
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("the map is walked by keyboard, and the inspector follows", async () => {
  const { page, watched, context } = await openLab("keys", { lang: "en" });
  await node(page, "pod:default/pod-a").focus();
  await page.keyboard.press("Enter");
  await inspected(page, "pod-a");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await page.locator(".ins-head h2", { hasNotText: "pod-a" }).waitFor();
  for (let i = 0; i < 14 && (await page.evaluate(() => document.activeElement.closest("[data-id]").dataset.id)) !== "ns:underlay"; i++) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await inspected(page, "underlay");
  watched.check();
  await context.close();
});

test("the inspector tells a pod's addresses, steps, routes and commands", async () => {
  const { page, watched, context } = await openLab("inspect", { lang: "en" });
  await node(page, "pod:default/pod-b").focus();
  await page.keyboard.press("Enter");
  await inspected(page, "pod-b");
  await page.locator(".steps li").nth(7).waitFor();
  const text = await page.innerText(".inspector");
  for (const want of ["10.244.2.10", "fd00:10:244:2::a", "node2", "network namespace made", "connectivity verified, status updated", "default", "via 10.244.2.1 dev eth0", "ip link set lo up"]) assert.ok(text.includes(want), `the inspector lacks ${want}`);
  assert.equal(await page.locator(".steps li").count(), 8);
  await assertAccessible(page);
  await node(page, "tunnel:link:node/node1#4|link:node/node2#4").focus();
  await page.keyboard.press("Enter");
  await inspected(page, "node1 ⇄ node2");
  assert.match(await page.innerText(".inspector"), /192\.168\.1\.11/);
  watched.check();
  await context.close();
});

test("the table twin has every interface", async () => {
  const { page, watched, context } = await openLab("table", { lang: "en" });
  await page.click(".map-bar >> [aria-label='Show as table']");
  const text = await page.innerText(".map-table");
  for (const want of ["node1", "pod-a", "vxlan.1", "10.244.1.10/24", "underlay to-node1"]) assert.ok(text.includes(want), want);
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("a manifest is applied, the pod appears and a check turns green by itself", async () => {
  const { page, watched, context } = await openLab("apply");
  await page.getByText("편집기에서 열기").click();
  await page.waitForSelector(".cm-content");
  await page.click(".pane-bar .primary");
  await page.waitForSelector(".outcome-ok");
  await node(page, "pod:default/multi-container-pod").waitFor();
  await page.waitForSelector("#task-sharing.task-card-passed");
  assert.equal(await page.locator(".top .pips i.on").count(), 1);
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("a broken manifest shows its error at its line and nothing changes", async () => {
  const { page, watched, context } = await openLab("broken", { lang: "en" });
  watched.expected = (s) => s.includes("422");
  await page.click("#tab-yaml");
  await page.waitForSelector(".cm-content");
  await page.click(".cm-content");
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containrs: []\n");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector(".outcome-bad");
  assert.match(await page.innerText(".outcome-bad"), /line 6.*unknown field "containrs"/s);
  assert.equal(await page.locator(".cm-lintRange-error").count(), 1);
  assert.equal(await page.locator(".kind-pod").count(), 3);
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("a command of the lesson runs in the place that it names", async () => {
  const { page, watched, context } = await openLab("run");
  await page.click(".command-run");
  await page.waitForFunction(() => document.querySelector(".term .xterm-rows")?.textContent.includes("eth0@if12"));
  assert.match(await page.innerText(".tab.on"), /multi-container-pod\/web-server/);
  await page.click(".command-run");
  await page.waitForFunction(() => document.querySelector(".term .xterm-rows").textContent.split("eth0@if12").length === 3);
  assert.equal(await page.locator(".tab .term-live").count(), 1, "the same shell is used again");
  watched.check();
  await context.close();
});

test("a terminal takes Korean, comes back after a lost connection and a reload, and types nothing by itself", async () => {
  const { page, watched, context } = await openLab("term");
  await page.click(".new-terminal summary");
  await page.locator(".new-terminal .menu button", { hasText: "pod-a" }).click();
  await page.waitForFunction(() => document.querySelector(".term .xterm-rows")?.textContent.includes("root@pod-a"));
  await page.locator(".term textarea").focus();
  await page.keyboard.insertText("안녕");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".term .xterm-rows").textContent.split("안녕").length === 3);
  await act("term", "drop");
  await page.waitForSelector(".tab .term-waiting");
  await page.waitForSelector(".tab .term-live");
  assert.equal((await terminalText(page)).split("안녕").length, 3, "nothing is shown twice");
  await page.reload();
  await page.waitForFunction(() => document.querySelector(".term .xterm-rows")?.textContent.split("안녕").length === 3);
  await page.locator(".term textarea").focus();
  await page.keyboard.type("typed\r");
  await page.waitForFunction(() => document.querySelector(".term .xterm-rows").textContent.includes('"'));
  // The past holds the question "where is the cursor"; its answer was not sent again.
  const typed = (await terminalText(page)).split("\n").find((l) => l.startsWith('"'));
  assert.equal(typed.trim(), String.raw`"안녕\rtyped\r"`);
  watched.check();
  await context.close();
});

test("screen reader mode shows the terminal's lines to it", async () => {
  const { page, watched, context } = await openLab("reader", { lang: "en" });
  await page.click(".new-terminal summary");
  await page.locator(".new-terminal .menu button", { hasText: "pod-b" }).click();
  await page.waitForSelector(".term .xterm-screen");
  await page.hover(".term-pane");
  await page.getByText("Screen reader").click();
  await page.waitForSelector(".xterm-accessibility");
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("after a lost connection the page goes on where it was", async () => {
  const { page, watched, context } = await openLab("lost", { lang: "en" });
  await act("lost", "drop");
  await act("lost", "pod", 3);
  await node(page, "pod:default/web-3").waitFor();
  await page.waitForSelector(".conn:has-text('Live')");
  watched.check();
  await context.close();
});

test("a lab that failed says why and can be restarted; a deleted one says so", async () => {
  const { page, watched, context } = await openLab("phases", { lang: "en" });
  await act("phases", "fail");
  await page.waitForSelector(".stage-panel.bad");
  assert.match(await page.innerText(".stage-panel"), /signal 9/);
  await assertAccessible(page);
  await page.click(".stage-panel button");
  await page.waitForSelector(".map-svg.ready");
  await act("phases", "creating");
  await act("phases", "delete");
  await page.waitForSelector("text=This lab was deleted");
  assert.equal(await page.locator(".conn").innerText(), "Ended");
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("an instructor looks on and can change nothing", async () => {
  const { page, watched, context } = await openLab("readonly-1", { lang: "en" });
  assert.match(await page.innerText(".badge"), /read only/);
  assert.equal(await page.locator(".new-terminal").count(), 0);
  assert.ok(await page.locator(".command-run").first().isDisabled());
  await page.click("#tab-yaml");
  assert.ok(await page.locator(".pane-bar .primary").isDisabled());
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("language changes on the lab page without losing anything", async () => {
  const { page, watched, context } = await openLab("lang");
  await node(page, "pod:default/pod-c").focus();
  await page.keyboard.press("Enter");
  await inspected(page, "pod-c");
  await page.click(".top button[lang=en]");
  await page.locator(".lesson h1", { hasText: "One pod, three containers, one network" }).waitFor();
  await inspected(page, "pod-c");
  assert.match(await page.innerText(".task-card >> nth=0"), /Three containers share/);
  watched.check();
  await context.close();
});

test("a hint is shown when asked for", async () => {
  const { page, watched, context } = await openLab("hint", { lang: "en" });
  await page.click("#task-sharing .hint-button");
  await page.waitForSelector("#task-sharing .hint");
  assert.match(await page.innerText("#task-sharing .hint"), /Run ip -br addr/);
  watched.check();
  await context.close();
});

test("events are filtered and found; commands are listed", async () => {
  const { page, watched, context } = await openLab("events", { lang: "en" });
  await page.waitForSelector(".virtual-row");
  await page.fill(".search input", "default via 10.244.2.1");
  await page.waitForFunction(() => {
    const kinds = [...document.querySelectorAll(".virtual-row .event-kind")].map((e) => e.textContent);
    return kinds.length > 0 && kinds.every((k) => k === "route.set" || k === "step");
  });
  await page.click("#tab-commands");
  assert.match(await page.innerText(".virtual"), /ip route add default via/);
  await assertAccessible(page);
  watched.check();
  await context.close();
});

test("5,000 events in a burst: the page stays smooth and its memory bounded", async () => {
  const { page, watched, context } = await openLab("burst", { lang: "en" });
  await page.evaluate(() => {
    window.worst = 0;
    let last = performance.now();
    const frame = (now) => {
      window.worst = Math.max(window.worst, now - last);
      last = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  await page.click("text=Neighbours, FDB");
  await act("burst", "burst", 5000);
  await page.waitForFunction(() => parseInt(document.querySelector(".bar-count")?.textContent) >= 4500);
  assert.ok((await page.locator(".virtual-row").count()) < 60, "only rows in sight are in the page");
  const worst = await page.evaluate(() => window.worst);
  assert.ok(worst < 500, `a frame took ${Math.round(worst)} ms`);
  watched.check();
  await context.close();
});

test("100 pods are drawn, each with its port", async () => {
  const { page, watched, context } = await open(browser, crowdBase, "/labs/crowd", { width: 1440 });
  await page.waitForSelector(".map-svg.ready");
  assert.equal(await page.locator(".kind-pod").count(), 100);
  const outside = await page.evaluate(() => {
    const box = document.querySelector(".map").getBoundingClientRect();
    return [...document.querySelectorAll(".m-box > rect, .kind-pod rect")].filter((e) => {
      const r = e.getBoundingClientRect();
      return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1;
    }).length;
  });
  assert.equal(outside, 0, "all of the map is in sight");
  watched.check();
  await context.close();
});
