// From what the lab has to what the map shows: boxes, their ports, and the
// lines between them. Pure; places come later (layout.ts).
import type { Link, Namespace, Pod } from "../gen/lab.ts";
import { podKey, type Model } from "../model/state.ts";

export type BoxKind = "node" | "pod" | "netns" | "bridge" | "vxlan" | "iface" | "underlay" | "rack";
export type Density = "full" | "compact" | "tiny";

export interface Port {
  /** id of the interface, see linkId. */
  readonly id: string;
  readonly name: string;
  readonly up: boolean;
  readonly running: boolean;
}

export interface Chip {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly ready: boolean;
  readonly x: number;
  readonly y: number;
  readonly w: number;
}

export interface Box {
  readonly id: string;
  readonly kind: BoxKind;
  /** parent box, "" at the top. */
  readonly parent: string;
  readonly title: string;
  /** sub is the second text of the title: addresses, VNI. */
  readonly sub: string;
  /** state is what colours the box: a pod's status word, or up and down. */
  readonly state: "ok" | "warn" | "bad" | "plain" | "leaving";
  readonly note: string;
  readonly density: Density;
  readonly chips: readonly Chip[];
  readonly port: Port | null;
  readonly w: number;
  readonly h: number;
}

export type EdgeKind = "veth" | "member" | "routed" | "tunnel";

export interface Edge {
  readonly id: string;
  readonly kind: EdgeKind;
  readonly from: string;
  readonly to: string;
  readonly up: boolean;
  readonly label: string;
  /** port is the interface on the side of `to`, drawn on its edge. */
  readonly port: Port | null;
}

export interface Graph {
  readonly boxes: readonly Box[];
  readonly edges: readonly Edge[];
  /** shape changes exactly when the boxes must be placed again. */
  readonly shape: string;
}

/** Measure gives the width in pixels of a text in one of the map's fonts. */
export type Measure = (text: string, font: "name" | "mono" | "chip") => number;

export const linkId = (ns: string, index: number) => `link:${ns}#${index}`;
export const podId = (key: string) => `pod:${key}`;
export const nsBoxId = (id: string) => `ns:${id}`;
export const containerId = (key: string, name: string) => `ctr:${key}#${name}`;

export const SIZES = {
  padX: 12,
  titleH: 34,
  chipH: 22,
  chipGap: 6,
  podMin: 128,
  podMax: 264,
  podFoot: 22,
  bar: 28,
  nodePad: 20,
  nodeHead: 44,
} as const;

const COMPACT_FROM = 9;
const TINY_FROM = 31;

/** address is a link's first global IPv4 address, or its first at all. */
export function address(l: Link | undefined, prefix = false): string {
  const all = (l?.addrs ?? []).filter((a) => a.scope === "global");
  const best = all.find((a) => a.prefix.includes(".")) ?? all[0];
  if (!best) return "";
  return prefix ? best.prefix : best.prefix.split("/")[0]!;
}

const portOf = (ns: Namespace, l: Link): Port => ({ id: linkId(ns.id, l.index), name: l.name, up: l.up, running: l.running });

/** build makes the graph of a model. */
export function build(m: Model, measure: Measure): Graph {
  const boxes: Box[] = [];
  const edges: Edge[] = [];
  const all = [...m.namespaces.values()];
  const underlay = all.find((n) => n.kind === "underlay");
  const nodes = all.filter((n) => n.kind === "node").sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));

  for (const node of nodes) addNode(m, node, boxes, edges, measure);
  if (underlay && nodes.length > 0) addUnderlay(m, underlay, nodes, boxes, edges, measure);
  addTunnels(nodes, edges);

  const shape = JSON.stringify([boxes.map((b) => [b.id, b.parent, Math.round(b.w), Math.round(b.h)]), edges.map((e) => [e.id, e.from, e.to])]);
  return { boxes, edges, shape };
}

function box(part: Partial<Box> & Pick<Box, "id" | "kind" | "parent" | "title" | "w" | "h">): Box {
  return { sub: "", state: "plain", note: "", density: "full", chips: [], port: null, ...part };
}

function addNode(m: Model, node: Namespace, boxes: Box[], edges: Edge[], measure: Measure): void {
  const id = nsBoxId(node.id);
  const links = node.links ?? [];
  const eth0 = links.find((l) => l.name === "eth0") ?? links.find((l) => l.peer?.namespace === "underlay");
  const sub = address(eth0);
  boxes.push(
    box({
      id,
      kind: "node",
      parent: "",
      title: node.name,
      sub,
      w: measure(node.name, "name") + measure(sub, "mono") + 2 * SIZES.nodePad + 24,
      h: 0,
      port: eth0 ? portOf(node, eth0) : null,
    }),
  );

  const pods = [...m.pods.values()].filter((p) => p.node === node.name).sort((a, b) => podKey(a).localeCompare(podKey(b), "en", { numeric: true }));
  const hand = [...m.namespaces.values()].filter((n) => n.kind === "netns" && n.node === node.name).sort((a, b) => a.name.localeCompare(b.name));
  const many = pods.length + hand.length;
  const density: Density = many >= TINY_FROM ? "tiny" : many >= COMPACT_FROM ? "compact" : "full";
  const parent = `rack:${node.id}`;
  if (many > 0) boxes.push(box({ id: parent, kind: "rack", parent: id, title: "", density, w: 0, h: 0 }));
  for (const p of pods) boxes.push(podBox(m, p, parent, density, measure));
  for (const n of hand) boxes.push(handBox(n, parent, measure));

  const uplinks: string[] = [];
  for (const l of links) {
    if (l === eth0 || l.kind === "loopback") continue;
    const lid = linkId(node.id, l.index);
    if (l.kind === "bridge") {
      const text = address(l);
      boxes.push(
        box({ id: lid, kind: "bridge", parent: id, title: l.name, sub: text, state: l.up ? "plain" : "bad", w: measure(`${l.name}  ${text}`, "mono") + 48, h: SIZES.bar }),
      );
      uplinks.push(lid);
    } else if (l.kind === "vxlan") {
      const text = `VNI ${l.vxlan?.vni ?? "?"}`;
      boxes.push(
        box({ id: lid, kind: "vxlan", parent: id, title: l.name, sub: text, state: l.up ? "plain" : "bad", w: measure(`${l.name}  ${text}`, "mono") + 28, h: SIZES.bar }),
      );
    } else if (!isPodEnd(m, l) && !l.master && l.peer?.namespace !== "underlay") {
      // An end without a bridge, or one whose other end nobody knows.
      boxes.push(ifaceBox(node, l, id, measure));
    }
  }
  addNodeEdges(m, node, edges, eth0);
}

/** isPodEnd tells whether a link's other end is in a pod or a namespace made
 * by hand, and is drawn there. */
function isPodEnd(m: Model, l: Link): boolean {
  const kind = l.peer ? m.namespaces.get(l.peer.namespace)?.kind : undefined;
  return kind === "pod";
}

function ifaceBox(ns: Namespace, l: Link, parent: string, measure: Measure): Box {
  const sub = address(l);
  return box({
    id: linkId(ns.id, l.index),
    kind: "iface",
    parent,
    title: l.name,
    sub,
    state: l.up ? (l.running ? "ok" : "warn") : "bad",
    w: measure(`${l.name}  ${sub}`, "mono") + 34,
    h: 24,
  });
}

/** podState is the colour of a pod and the word beside its name, if any. */
export function podState(p: Pod): { state: Box["state"]; note: string } {
  if (p.status === "Running") return { state: p.ready ? "ok" : "warn", note: p.ready ? "" : p.status };
  if (p.status === "Completed" || p.status === "Succeeded") return { state: "plain", note: p.status };
  if (p.status === "Terminating") return { state: "leaving", note: p.status };
  if (/Err|BackOff|Fail|Crash|OOM|Invalid|Evicted/.test(p.status)) return { state: "bad", note: p.status };
  return { state: "warn", note: p.status };
}

function podBox(m: Model, p: Pod, parent: string, density: Density, measure: Measure): Box {
  const key = podKey(p);
  const { state, note } = podState(p);
  const ns = p.netns ? m.namespaces.get(p.netns) : undefined;
  const eth0 = ns?.links?.find((l) => l.kind !== "loopback");
  const title = p.namespace === "default" ? p.name : key;
  const ip = (p.ips ?? []).find((a) => a.includes(".")) ?? p.ips?.[0] ?? "";
  const sub = note || ip;
  const base = { id: podId(key), kind: "pod" as const, parent, title, sub, note, state, density, port: ns && eth0 ? portOf(ns, eth0) : null };
  if (density === "tiny") return box({ ...base, w: 92, h: 30, chips: chips(p, key, measure, 0, density).chips });
  if (density === "compact") return box({ ...base, w: 156, h: 52, chips: chips(p, key, measure, 0, density).chips });

  const text = measure(title, "name") + 10 + measure(sub, "mono");
  const want = Math.max(text, chips(p, key, measure, SIZES.podMax, density).w);
  const w = Math.min(Math.max(want + 2 * SIZES.padX, SIZES.podMin), SIZES.podMax + 2 * SIZES.padX);
  const { chips: placed, h } = chips(p, key, measure, w - 2 * SIZES.padX, density);
  return box({ ...base, chips: placed, w, h: SIZES.titleH + h + SIZES.podFoot });
}

/** chips places a pod's containers, in rows no wider than max. */
function chips(p: Pod, key: string, measure: Measure, max: number, density: Density): { chips: Chip[]; w: number; h: number } {
  const out: Chip[] = [];
  let x = 0;
  let y = 0;
  let w = 0;
  for (const c of p.containers ?? []) {
    const width = density === "full" ? Math.min(measure(c.name, "chip") + 25, max) : 8;
    if (density === "full" && x > 0 && x + width > max) {
      x = 0;
      y += SIZES.chipH + 4;
    }
    out.push({ id: containerId(key, c.name), name: c.name, state: c.state, ready: c.ready, x, y, w: width });
    x += width + (density === "full" ? SIZES.chipGap : 4);
    w = Math.max(w, x - SIZES.chipGap);
  }
  return { chips: out, w, h: out.length === 0 ? 0 : y + SIZES.chipH };
}

function handBox(n: Namespace, parent: string, measure: Measure): Box {
  const first = (n.links ?? []).find((l) => l.kind !== "loopback");
  const sub = address(first);
  return box({
    id: nsBoxId(n.id),
    kind: "netns",
    parent,
    title: n.name,
    sub,
    port: first ? portOf(n, first) : null,
    w: Math.max(measure(n.name, "name") + measure(sub, "mono") + 10 + 2 * SIZES.padX, SIZES.podMin),
    h: SIZES.titleH + SIZES.podFoot - 4,
  });
}

/** boxOf is the box that shows a link: a pod, a namespace, or its own. */
function boxOf(m: Model, ns: Namespace): string {
  if (ns.kind === "pod") {
    const pod = [...m.pods.values()].find((p) => p.netns === ns.id);
    return pod ? podId(podKey(pod)) : "";
  }
  return nsBoxId(ns.id);
}

function addNodeEdges(m: Model, node: Namespace, edges: Edge[], eth0: Link | undefined): void {
  const links = node.links ?? [];
  const byIndex = new Map(links.map((l) => [l.index, l]));
  const bridges = links.filter((l) => l.kind === "bridge");
  const vxlans = links.filter((l) => l.kind === "vxlan");

  for (const l of links) {
    const lid = linkId(node.id, l.index);
    const master = l.master ? byIndex.get(l.master) : undefined;
    const peerNS = l.peer ? m.namespaces.get(l.peer.namespace) : undefined;
    const peer = peerNS?.links?.find((x) => x.index === l.peer?.index);
    const up = l.up && l.running && (!peer || peer.up);
    if (peerNS && (peerNS.kind === "pod" || peerNS.kind === "netns")) {
      const from = boxOf(m, peerNS);
      if (from) {
        const to = master ? linkId(node.id, master.index) : peerNS.kind === "netns" ? lid : nsBoxId(node.id);
        edges.push({ id: `veth:${lid}`, kind: "veth", from, to, up, label: l.name, port: master ? portOf(node, l) : null });
      }
    } else if (master && l.kind !== "bridge") {
      edges.push({ id: `member:${lid}`, kind: "member", from: linkId(node.id, master.index), to: lid, up, label: "", port: null });
    }
  }
  // The node's own routing joins what no wire joins: its bridge, the tunnel
  // device and the uplink. Drawn only where a route says so.
  const routes = node.routes ?? [];
  const routed = (dev: string) => routes.some((r) => r.dev === dev && r.type !== "local" && r.table === 254);
  for (const v of vxlans) {
    for (const b of bridges) {
      if (v.master === b.index || !routed(v.name) || !routed(b.name)) continue;
      edges.push({ id: `routed:${linkId(node.id, b.index)}-${v.index}`, kind: "routed", from: linkId(node.id, b.index), to: linkId(node.id, v.index), up: v.up && b.up, label: "", port: null });
    }
    if (eth0) edges.push({ id: `routed:${linkId(node.id, v.index)}-eth0`, kind: "routed", from: linkId(node.id, v.index), to: `${nsBoxId(node.id)}!eth0`, up: v.up && eth0.up, label: "", port: null });
  }
  if (vxlans.length === 0 && eth0)
    for (const b of bridges)
      if (routed(b.name)) edges.push({ id: `routed:${linkId(node.id, b.index)}-eth0`, kind: "routed", from: linkId(node.id, b.index), to: `${nsBoxId(node.id)}!eth0`, up: b.up && eth0.up, label: "", port: null });

  // Namespaces made by hand on this node, wired to each other.
  for (const n of m.namespaces.values()) {
    if (n.kind !== "netns" || n.node !== node.name) continue;
    for (const l of n.links ?? []) {
      const other = l.peer ? m.namespaces.get(l.peer.namespace) : undefined;
      if (!other || other.kind !== "netns" || other.id <= n.id) continue;
      const end = other.links?.find((x) => x.index === l.peer?.index);
      edges.push({ id: `veth:${linkId(n.id, l.index)}`, kind: "veth", from: nsBoxId(n.id), to: nsBoxId(other.id), up: l.up && l.running && (end?.up ?? false), label: `${l.name} – ${end?.name ?? "?"}`, port: end ? portOf(other, end) : null });
    }
  }
}

function addUnderlay(m: Model, u: Namespace, nodes: Namespace[], boxes: Box[], edges: Edge[], measure: Measure): void {
  const sub = (m.spec?.underlay?.cidrs ?? []).join("   ");
  const bridge = (u.links ?? []).find((l) => l.kind === "bridge");
  const id = nsBoxId(u.id);
  boxes.push(box({ id, kind: "underlay", parent: "", title: "underlay", sub, state: !bridge || bridge.up ? "plain" : "bad", w: measure(sub, "mono") + 140, h: 32 }));
  for (const node of nodes) {
    const eth0 = (node.links ?? []).find((l) => l.name === "eth0") ?? (node.links ?? []).find((l) => l.peer?.namespace === u.id);
    if (!eth0) continue;
    const end = eth0.peer ? u.links?.find((l) => l.index === eth0.peer?.index) : undefined;
    edges.push({
      id: `uplink:${node.id}`,
      kind: "veth",
      from: nsBoxId(node.id),
      to: id,
      up: eth0.up && eth0.running && (end?.up ?? true),
      label: "",
      port: end ? portOf(u, end) : null,
    });
  }
}

/** addTunnels draws each pair of VXLAN devices that name one another in their
 * forwarding tables; a tunnel that only one side knows is not up. */
function addTunnels(nodes: Namespace[], edges: Edge[]): void {
  const ends = nodes.flatMap((n) => (n.links ?? []).filter((l) => l.kind === "vxlan" && l.vxlan).map((l) => ({ n, l })));
  const knows = (a: (typeof ends)[number], b: (typeof ends)[number]) => (a.n.fdb ?? []).some((f) => f.dev === a.l.name && f.dst === b.l.vxlan!.local);
  ends.forEach((a, i) => {
    for (const b of ends.slice(i + 1)) {
      if (a.l.vxlan!.vni !== b.l.vxlan!.vni || a.n.id === b.n.id) continue;
      const there = knows(a, b);
      const back = knows(b, a);
      if (!there && !back) continue;
      edges.push({
        id: `tunnel:${linkId(a.n.id, a.l.index)}|${linkId(b.n.id, b.l.index)}`,
        kind: "tunnel",
        from: linkId(a.n.id, a.l.index),
        to: linkId(b.n.id, b.l.index),
        up: there && back && a.l.up && b.l.up,
        label: `UDP ${a.l.vxlan!.port}`,
        port: null,
      });
    }
  });
}
