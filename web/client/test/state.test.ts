import assert from "node:assert/strict";
import { test } from "node:test";
import { initial, LOG_LIMIT, reduce, withPast } from "../src/model/state.ts";
import { event, hello, link, namespace, pod, snapshot, state } from "./sample.ts";

const start = () => reduce(initial({ phase: "ready" }), [hello(), snapshot()]);
const node1 = "node/node1";

test("a snapshot replaces what was known", () => {
  const m = start();
  assert.equal(m.known, true);
  assert.equal(m.seq, 10);
  assert.deepEqual([...m.pods.keys()], ["default/pod-a", "default/pod-b"]);
  const s = state(20);
  s.pods = [];
  const later = reduce(m, [snapshot(s)]);
  assert.equal(later.pods.size, 0);
  assert.equal(later.seq, 20);
});

test("a model is never changed in place", () => {
  const m = start();
  const before = m.namespaces.get(node1)!.links!.find((l) => l.index === 5)!.up;
  const after = reduce(m, [event(11, { kind: "link.set", ns: node1, link: link(5, "veth1", "veth", { up: false }) })]);
  assert.equal(m.namespaces.get(node1)!.links!.find((l) => l.index === 5)!.up, before);
  assert.equal(after.namespaces.get(node1)!.links!.find((l) => l.index === 5)!.up, false);
  assert.equal(after.namespaces.get("node/node2"), m.namespaces.get("node/node2"), "what did not change keeps its identity");
  assert.equal(after.pods, m.pods);
});

test("links are put in by index, replaced and removed", () => {
  let m = reduce(start(), [event(11, { kind: "link.set", ns: node1, link: link(7, "new", "veth") }), event(12, { kind: "link.set", ns: node1, link: link(6, "mid", "veth") })]);
  assert.deepEqual(m.namespaces.get(node1)!.links!.map((l) => l.index), [1, 2, 3, 4, 5, 6, 7]);
  m = reduce(m, [event(13, { kind: "link.gone", ns: node1, link: link(6, "mid", "veth") })]);
  assert.deepEqual(m.namespaces.get(node1)!.links!.map((l) => l.index), [1, 2, 3, 4, 5, 7]);
});

test("routes, neighbours and FDB entries come and go by their keys", () => {
  const neigh = { addr: "10.244.1.10", dev: "cni0", mac: "0a:00:00:00:00:09", state: "REACHABLE" };
  const fdb = { mac: "0a:00:00:00:00:09", dev: "veth1", master: "cni0", dst: "", state: "reachable" };
  const route = { dst: "10.9.0.0/16", gateway: "192.168.1.11", dev: "eth0", src: "", table: 254, protocol: "static", scope: "global", type: "unicast" };
  let m = reduce(start(), [
    event(11, { kind: "neigh.set", ns: node1, neigh }),
    event(12, { kind: "neigh.set", ns: node1, neigh: { ...neigh, state: "STALE" } }),
    event(13, { kind: "fdb.set", ns: node1, fdb }),
    event(14, { kind: "route.set", ns: node1, route }),
  ]);
  const ns = m.namespaces.get(node1)!;
  assert.deepEqual(ns.neighbours, [{ ...neigh, state: "STALE" }]);
  assert.equal(ns.fdb!.length, 2);
  assert.equal(ns.routes!.length, 4);
  m = reduce(m, [event(15, { kind: "neigh.gone", ns: node1, neigh }), event(16, { kind: "fdb.gone", ns: node1, fdb }), event(17, { kind: "route.gone", ns: node1, route })]);
  assert.deepEqual([m.namespaces.get(node1)!.neighbours!.length, m.namespaces.get(node1)!.fdb!.length, m.namespaces.get(node1)!.routes!.length], [0, 1, 3]);
});

test("an event seen already is ignored, and a missing one asks for a new start", () => {
  const m = start();
  const twice = reduce(m, [event(10, { kind: "pod.gone", pod: pod("pod-a", "node1", "") })]);
  assert.equal(twice.pods.size, 2);
  const gap = reduce(m, [event(12, { kind: "pod.gone", pod: pod("pod-a", "node1", "") })]);
  assert.equal(gap.gap, true);
  assert.equal(gap.pods.size, 2, "nothing is worked in after a gap");
  assert.equal(reduce(gap, [snapshot(state(12))]).gap, false);
});

test("a namespace of the same name but another inode is a new one", () => {
  const blue = namespace("netns/node1/blue", "netns", [], { node: "node1", inode: 5 });
  let m = reduce(start(), [event(11, { kind: "namespace.set", ns: blue.id, netns: blue }), event(12, { kind: "link.set", ns: blue.id, link: link(1, "lo", "loopback") })]);
  assert.equal(m.namespaces.get(blue.id)!.links!.length, 1);
  m = reduce(m, [event(13, { kind: "namespace.set", ns: blue.id, netns: blue })]);
  assert.equal(m.namespaces.get(blue.id)!.links!.length, 1, "set again: its contents stay");
  m = reduce(m, [event(14, { kind: "namespace.set", ns: blue.id, netns: { ...blue, inode: 6 } })]);
  assert.equal(m.namespaces.get(blue.id)!.links!.length, 0);
  m = reduce(m, [event(15, { kind: "namespace.gone", ns: blue.id, netns: blue })]);
  assert.equal(m.namespaces.has(blue.id), false);
});

test("a restarted lab forgets the old one, a reconnect does not", () => {
  const m = start();
  assert.equal(reduce(m, [hello(1)]).pods.size, 2);
  const anew = reduce(m, [hello(2)]);
  assert.deepEqual([anew.pods.size, anew.namespaces.size, anew.known, anew.seq, anew.log.length], [0, 0, false, 0, 0]);
});

test("checks are kept by task and check", () => {
  const check = { task: "one", check: "a", status: "fail" as const, at: "2026-01-01T00:00:00Z" };
  const m = reduce(start(), [{ type: "checks", checks: [check, { ...check, check: "b" }] }, { type: "checks", checks: [{ ...check, status: "pass" }] }]);
  assert.equal(m.checks.get("one/a")!.status, "pass");
  assert.equal(m.checks.get("one/b")!.status, "fail");
});

test("a phase event and a lab message move the phase", () => {
  const failed = reduce(start(), [event(11, { kind: "phase", phase: { phase: "failed", reason: "no memory" } })]);
  assert.deepEqual([failed.lab.phase, failed.lab.reason], ["failed", "no memory"]);
  assert.equal(reduce(failed, [{ type: "lab", lab: { phase: "ready", instance: 1 } }]).lab.phase, "ready");
});

test("the log is bounded and a thousand events are worked in quickly", () => {
  let m = start();
  let seq = 10;
  const began = performance.now();
  for (let frame = 0; frame < 60; frame++) {
    const batch = Array.from({ length: 200 }, (_, i) => event(++seq, { kind: "neigh.set", ns: node1, neigh: { addr: `10.244.1.${i % 200}`, dev: "cni0", state: "STALE" } }));
    m = reduce(m, batch);
  }
  const perEvent = (performance.now() - began) / 12_000;
  assert.equal(m.log.length, LOG_LIMIT);
  assert.equal(m.log.at(-1)!.seq, seq);
  assert.equal(m.namespaces.get(node1)!.neighbours!.length, 200);
  assert.ok(perEvent < 0.5, `${perEvent} ms for an event: a frame holds 16 of 1,000 a second`);
});

test("steps are kept by pod; a pod made again starts anew", () => {
  const step = (seq: number, number: number, course = "create") => event(seq, { kind: "step", step: { pod: "default/pod-a", course, number, name: "x", startedAt: "2026-01-01T00:00:00Z", micros: 5 } });
  let m = reduce(start(), [step(11, 1), step(12, 2), step(13, 1, "terminate")]);
  assert.equal(m.steps.get("default/pod-a")!.length, 3);
  m = reduce(m, [step(14, 1)]);
  assert.equal(m.steps.get("default/pod-a")!.length, 1);
});

test("the past goes in front of the log and tells the steps", () => {
  const step = (seq: number, number: number) => event(seq, { kind: "step", step: { pod: "default/pod-a", course: "create", number, name: "x", startedAt: "2026-01-01T00:00:00Z", micros: 5 } }).event!;
  const live = reduce(start(), [event(11, { kind: "link.set", ns: node1, link: link(5, "veth1", "veth") })]);
  const m = withPast(live, [step(9, 1), step(10, 2), event(11, { kind: "link.set", ns: node1 }).event!]);
  assert.deepEqual(m.log.map((e) => e.seq), [9, 10, 11]);
  assert.equal(m.steps.get("default/pod-a")!.length, 2);
  assert.equal(m.seq, 11);
});

test("a snapshot says when the log lacks events, and the past is worked in between", () => {
  const live = reduce(start(), [event(11, { kind: "link.set", ns: node1, link: link(5, "veth1", "veth") })]);
  assert.equal(live.unseen, true, "ten events came before the first snapshot");
  const again = reduce({ ...live, unseen: false }, [snapshot(state(20)), event(21, { kind: "link.set", ns: node1, link: link(5, "veth1", "veth") })]);
  assert.equal(again.unseen, true);
  const m = withPast(again, [15, 18, 21, 22].map((seq) => event(seq, { kind: "phase" }).event!));
  assert.deepEqual(m.log.map((e) => e.seq), [11, 15, 18, 21], "in order, none twice, none from the future");
  assert.equal(reduce({ ...live, unseen: false }, [snapshot(state(11))]).unseen, false);
});
