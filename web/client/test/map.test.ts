import assert from "node:assert/strict";
import { test } from "node:test";
import ELK from "elkjs/lib/elk.bundled.js";
import { build, type Graph } from "../src/map/graph.ts";
import { between, elkGraph, finish, lines, racks, type Layout, type Rect } from "../src/map/layout.ts";
import { initial, reduce, type Model } from "../src/model/state.ts";
import { event, hello, link, namespace, pod, snapshot, state } from "./sample.ts";

const measure = (s: string) => s.length * 7;
const model = (...more: Parameters<typeof reduce>[1]): Model => reduce(initial({ phase: "ready" }), [hello(), snapshot(), ...more]);
const graph = (m: Model) => build(m, measure);

async function layout(g: Graph, columns = 4): Promise<Layout> {
  const r = racks(g, columns);
  return finish(g, await new ELK().layout(elkGraph(g, r)), r);
}

const overlap = (a: Rect, b: Rect) => a.x < b.x + b.w - 0.5 && b.x < a.x + a.w - 0.5 && a.y < b.y + b.h - 0.5 && b.y < a.y + a.h - 0.5;

/** sound tells that boxes of one parent do not overlap and stay inside it. */
function sound(g: Graph, l: Layout): void {
  const drawn = g.boxes.filter((b) => b.kind !== "rack");
  for (const a of drawn) {
    const ra = l.rects.get(a.id);
    assert.ok(ra, `${a.id} has no place`);
    const home = g.boxes.find((b) => b.id === a.parent);
    const node = home?.kind === "rack" ? home.parent : home?.id;
    if (node) {
      const rn = l.rects.get(node)!;
      assert.ok(ra.x >= rn.x && ra.y >= rn.y && ra.x + ra.w <= rn.x + rn.w + 0.5 && ra.y + ra.h <= rn.y + rn.h + 0.5, `${a.id} leaves ${node}`);
    }
    for (const b of drawn) if (a.id < b.id && a.kind !== "node" && b.kind !== "node") assert.ok(!overlap(ra, l.rects.get(b.id)!), `${a.id} lies over ${b.id}`);
  }
}

test("the course's picture: two nodes, two pods, bridges, tunnel, underlay", () => {
  const g = graph(model());
  assert.deepEqual(
    g.boxes.filter((b) => b.kind !== "rack").map((b) => `${b.kind} ${b.title}`),
    ["node node1", "pod pod-a", "bridge cni0", "vxlan vxlan.1", "node node2", "pod pod-b", "bridge cni0", "vxlan vxlan.1", "underlay underlay"],
  );
  const kinds = g.edges.map((e) => e.kind);
  assert.equal(kinds.filter((k) => k === "veth").length, 4, "two pods and two uplinks");
  assert.equal(kinds.filter((k) => k === "tunnel").length, 1);
  assert.equal(kinds.filter((k) => k === "routed").length, 4, "bridge to tunnel and tunnel to uplink on each node");
  assert.ok(g.edges.every((e) => e.up));
});

test("a tunnel that one side does not know is not up; without routes nothing is routed", () => {
  const s = state();
  s.namespaces!.find((n) => n.id === "node/node2")!.fdb = [];
  s.namespaces!.find((n) => n.id === "node/node1")!.routes = [];
  const g = graph(reduce(initial({ phase: "ready" }), [hello(), snapshot(s)]));
  assert.equal(g.edges.find((e) => e.kind === "tunnel")!.up, false);
  assert.ok(!g.edges.some((e) => e.kind === "routed" && e.from.includes("node1#3")));
});

test("a link that goes down changes the drawing, not the shape", () => {
  const before = graph(model());
  const after = graph(model(event(11, { kind: "link.set", ns: "pod/default/pod-a", link: link(2, "eth0", "veth", { up: false, running: false, peer: { namespace: "node/node1", index: 5 } }) })));
  assert.equal(after.shape, before.shape);
  assert.equal(after.boxes.find((b) => b.title === "pod-a")!.port!.up, false);
  assert.equal(after.edges.find((e) => e.from === "pod:default/pod-a")!.up, false);
});

test("a namespace made by hand appears with its wires", async () => {
  const g = graph(
    model(
      event(11, { kind: "namespace.set", ns: "netns/node1/blue", netns: namespace("netns/node1/blue", "netns", [], { node: "node1" }) }),
      event(12, { kind: "link.set", ns: "netns/node1/blue", link: link(2, "veth-b", "veth", { peer: { namespace: "node/node1", index: 90 } }) }),
      event(13, { kind: "link.set", ns: "node/node1", link: link(90, "veth-a", "veth", { peer: { namespace: "netns/node1/blue", index: 2 } }) }),
    ),
  );
  assert.ok(g.boxes.some((b) => b.kind === "netns" && b.title === "blue"));
  assert.ok(g.boxes.some((b) => b.kind === "iface" && b.title === "veth-a"));
  assert.ok(g.edges.some((e) => e.from === "ns:netns/node1/blue" && e.to === "link:node/node1#90"));
  sound(g, await layout(g));
});

for (const count of [0, 1, 5, 12, 100])
  test(`${count} more pods: nothing overlaps, every wire is drawn`, async () => {
    const s = state();
    for (let i = 0; i < count; i++) {
      const name = `web-${i}`;
      const n = (i % 2) + 1;
      s.pods!.push(pod(name, `node${n}`, `10.244.${n}.${i + 20}`));
      s.namespaces!.push(namespace(`pod/default/${name}`, "pod", [link(2, "eth0", "veth", { peer: { namespace: `node/node${n}`, index: 100 + i } })], { node: `node${n}` }));
      s.namespaces!.find((x) => x.id === `node/node${n}`)!.links!.push(link(100 + i, `veth-${i}`, "veth", { master: 3, peer: { namespace: `pod/default/${name}`, index: 2 } }));
    }
    const g = graph(reduce(initial({ phase: "ready" }), [hello(), snapshot(s)]));
    for (const columns of [1, 3, 10]) {
      const l = await layout(g, columns);
      sound(g, l);
      assert.equal(lines(g, l.rects).length, g.edges.length);
      for (const line of lines(g, l.rects)) {
        assert.ok(!/NaN|undefined/.test(line.d), line.d);
        if (!line.port || line.edge.kind !== "veth") continue;
        const to = l.rects.get(line.edge.to)!;
        assert.ok(line.port.x >= to.x - 0.5 && line.port.x <= to.x + to.w + 0.5, `${line.edge.id} misses its bridge`);
      }
    }
  });

test("the bars of both nodes stand on one height", async () => {
  const s = state();
  s.pods![0]!.containers = ["web-server", "log-collector", "metrics-exporter", "one-more"].map((name) => ({ name, image: "x", state: "running", ready: true, restarts: 0 }));
  const g = graph(reduce(initial({ phase: "ready" }), [hello(), snapshot(s)]));
  const l = await layout(g);
  const bars = g.boxes.filter((b) => b.kind === "bridge").map((b) => l.rects.get(b.id)!.y);
  assert.equal(bars[0], bars[1]);
  sound(g, l);
});

test("a new box starts where it will be, an old one moves", () => {
  const to = new Map([["a", { x: 10, y: 0, w: 1, h: 1 }], ["b", { x: 5, y: 5, w: 1, h: 1 }]]);
  const mid = between(new Map([["a", { x: 0, y: 0, w: 1, h: 1 }]]), to, 0.5);
  assert.deepEqual([mid.get("a")!.x, mid.get("b")!.x], [5, 5]);
});
