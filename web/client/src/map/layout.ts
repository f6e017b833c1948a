// Places for the boxes of a graph. The pods of a node stand in a rack of equal
// cells, in as many columns as let the whole map be shown largest. ELK finds
// layers and order of the rest, in a worker and only when the shape changes;
// then bars are stretched under what hangs on them, layers of neighbouring
// nodes are aligned, and lines are drawn.
import type { ELK, ElkNode } from "elkjs/lib/elk-api.js";
import type { Box, Edge, Graph } from "./graph.ts";
import { SIZES } from "./graph.ts";

export interface Rect {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** Layout is where each box is, in the map's own pixels. */
export interface Layout {
  readonly shape: string;
  readonly rects: ReadonlyMap<string, Rect>;
  readonly w: number;
  readonly h: number;
}

const GAP = 20; // between things of one layer
const NODE_GAP = 84; // between nodes, wide enough for a tunnel's label
const LAYER = 34; // between layers in a node
const CELL_GAP = { full: 20, compact: 16, tiny: 14 } as const; // between pods; wires run in it
const GUTTER = 14; // what the wires of upper rows need beside a column
const COLUMNS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16];
const WORTH = 1.04; // how much larger a map with fewer columns must be to be taken

let elk: Promise<ELK> | null = null;

function engine(workerURL: string): Promise<ELK> {
  elk ??= import("elkjs/lib/elk-api.js").then((m) => new m.default({ workerFactory: () => new Worker(workerURL) }));
  return elk;
}

/** A Rack is where a node's pods stand, relative to its corner. */
interface Rack {
  readonly w: number;
  readonly h: number;
  readonly cells: ReadonlyMap<string, Rect>;
}

/** racks puts the pods of each node into rows of at most so many columns. */
export function racks(g: Graph, columns: number): Map<string, Rack> {
  const out = new Map<string, Rack>();
  for (const r of g.boxes) {
    if (r.kind !== "rack") continue;
    const inside = g.boxes.filter((b) => b.parent === r.id);
    const gap = CELL_GAP[r.density];
    const n = Math.min(columns, inside.length);
    const widths = Array.from({ length: n }, (_, c) => Math.max(...inside.filter((_, i) => i % n === c).map((b) => b.w)));
    const cells = new Map<string, Rect>();
    let y = 0;
    for (let i = 0; i < inside.length; i += n) {
      const row = inside.slice(i, i + n);
      const h = Math.max(...row.map((b) => b.h));
      let x = 0;
      row.forEach((b, c) => {
        cells.set(b.id, { x, y, w: widths[c]!, h });
        x += widths[c]! + gap;
      });
      y += h + gap;
    }
    // Wires of upper rows run beside the last column too.
    const beside = inside.length > n ? GUTTER : 0;
    out.set(r.id, { w: widths.reduce((s, w) => s + w + gap, -gap) + beside, h: y - gap, cells });
  }
  return out;
}

/** elkGraph is the graph in ELK's words; a rack is one box of its size. */
export function elkGraph(g: Graph, rack: ReadonlyMap<string, Rack>): ElkNode {
  const parentOf = new Map(g.boxes.filter((b) => b.kind !== "iface").map((b) => [b.id, b.parent]));
  const rackOf = (id: string) => (rack.has(parentOf.get(id) ?? "") ? parentOf.get(id)! : id);
  const node = (b: Box): ElkNode => {
    if (b.kind === "rack") return { id: b.id, width: rack.get(b.id)!.w, height: rack.get(b.id)!.h, layoutOptions: { "elk.layered.layering.layerConstraint": "FIRST" } };
    const out: ElkNode = { id: b.id, width: b.w, height: b.h };
    if (b.kind !== "node") return out;
    out.children = g.boxes.filter((c) => c.parent === b.id && c.kind !== "iface").map(node);
    out.edges = inner(g.edges, b.id, parentOf, rackOf);
    out.layoutOptions = {
      "elk.algorithm": "layered",
      "elk.direction": "DOWN",
      "elk.padding": `[top=${SIZES.nodeHead},left=${SIZES.nodePad},bottom=32,right=${SIZES.nodePad}]`,
      "elk.spacing.nodeNode": String(GAP),
      "elk.layered.spacing.nodeNodeBetweenLayers": String(LAYER),
      "elk.layered.considerModelOrder.strategy": "NODES_AND_EDGES",
      "elk.layered.crossingMinimization.forceNodeModelOrder": "true",
      "elk.separateConnectedComponents": "false",
      "elk.layered.nodePlacement.strategy": "BRANDES_KOEPF",
      "elk.layered.nodePlacement.bk.fixedAlignment": "BALANCED",
      "elk.nodeSize.constraints": "MINIMUM_SIZE",
      "elk.nodeSize.minimum": `(${b.w},160)`,
    };
    return out;
  };
  return {
    id: "root",
    layoutOptions: {
      "elk.algorithm": "layered",
      "elk.direction": "DOWN",
      "elk.spacing.nodeNode": String(NODE_GAP),
      "elk.layered.spacing.nodeNodeBetweenLayers": "48",
      "elk.layered.considerModelOrder.strategy": "NODES_AND_EDGES",
      "elk.layered.crossingMinimization.forceNodeModelOrder": "true",
      "elk.separateConnectedComponents": "false",
      "elk.padding": "[top=0,left=0,bottom=0,right=0]",
    },
    children: g.boxes.filter((b) => b.parent === "").map(node),
    edges: g.edges.filter((e) => parentOf.get(e.from) === "" && parentOf.get(e.to) === "").map((e) => ({ id: e.id, sources: [e.from], targets: [e.to] })),
  };
}

/** inner are the edges between things of one node, each pair once. */
function inner(edges: readonly Edge[], node: string, parentOf: Map<string, string>, rackOf: (id: string) => string): NonNullable<ElkNode["edges"]> {
  const seen = new Set<string>();
  const out: NonNullable<ElkNode["edges"]> = [];
  for (const e of edges) {
    const from = rackOf(e.from);
    const to = rackOf(e.to);
    if (from === to || parentOf.get(from) !== node || parentOf.get(to) !== node || seen.has(`${from} ${to}`)) continue;
    seen.add(`${from} ${to}`);
    out.push({ id: e.id, sources: [from], targets: [to] });
  }
  return out;
}

/** Room is what there is to show the map in, in pixels. */
export interface Room {
  readonly w: number;
  readonly h: number;
}

/** place lays the graph out so that it can be shown largest in the room. */
export async function place(g: Graph, workerURL: string, room: Room): Promise<Layout> {
  const layouter = await engine(workerURL);
  const most = Math.max(1, ...g.boxes.filter((b) => b.kind === "rack").map((r) => g.boxes.filter((b) => b.parent === r.id).length));
  const tries = COLUMNS.filter((_, i) => i === 0 || COLUMNS[i - 1]! < most).map(async (c) => {
    const rack = racks(g, c);
    return finish(g, await layouter.layout(elkGraph(g, rack)), rack);
  });
  const scale = (l: Layout) => Math.min(room.w / l.w, room.h / l.h, 1.2);
  // From the widest down: a change must be worth it.
  return (await Promise.all(tries)).reduceRight((best, l) => (scale(l) > scale(best) * WORTH ? l : best));
}

/** finish turns ELK's answer into absolute places and makes bars of bridges. */
export function finish(g: Graph, result: ElkNode, rack: ReadonlyMap<string, Rack>): Layout {
  const rects = new Map<string, Rect>();
  const walk = (n: ElkNode, dx: number, dy: number) => {
    for (const c of n.children ?? []) {
      const r = { x: dx + (c.x ?? 0), y: dy + (c.y ?? 0), w: c.width ?? 0, h: c.height ?? 0 };
      rects.set(c.id, r);
      for (const [id, cell] of rack.get(c.id)?.cells ?? []) rects.set(id, { ...cell, x: r.x + cell.x, y: r.y + cell.y });
      walk(c, r.x, r.y);
    }
  };
  walk(result, 0, 0);
  alignNodes(g, rects);
  for (const b of g.boxes) if (b.kind === "node") placeLoose(g, b, rects);
  for (const b of g.boxes) if (b.kind === "bridge") stretch(g, b, rects);
  settleTunnelEnds(g, rects);
  stretchUnderlay(g, rects);
  let w = 0;
  let h = 0;
  for (const r of rects.values()) {
    w = Math.max(w, r.x + r.w);
    h = Math.max(h, r.y + r.h);
  }
  return { shape: g.shape, rects, w, h };
}

/** placeLoose puts the ends without a bridge on the bars' height, to the right
 * of what hangs on the bars. The node grows where there is no room. */
function placeLoose(g: Graph, node: Box, rects: Map<string, Rect>): void {
  const n = rects.get(node.id)!;
  const loose = g.boxes.filter((b) => b.parent === node.id && b.kind === "iface");
  if (loose.length === 0) return;
  const rack = rects.get(`rack:${node.id.slice(3)}`);
  const bars = g.boxes.filter((b) => b.parent === node.id && b.kind === "bridge").map((b) => rects.get(b.id)!);
  const y = bars[0]?.y ?? (rack ? rack.y + rack.h + LAYER : n.y + SIZES.nodeHead);
  const used = bars.length > 0 && rack ? [rack, ...bars] : bars;
  let x = Math.max(n.x + SIZES.nodePad, ...used.map((r) => r.x + r.w + 16));
  for (const b of loose) {
    rects.set(b.id, { x, y: y + (SIZES.bar - b.h) / 2, w: b.w, h: b.h });
    x += b.w + 12;
  }
  const grow = x - 12 + SIZES.nodePad - (n.x + n.w);
  if (grow <= 0) return;
  const edge = n.x + n.w;
  n.w += grow;
  for (const b of g.boxes) {
    const r = rects.get(b.id);
    if (r && r.x >= edge && b.kind !== "underlay") r.x += grow;
  }
}

const isUpper = (b: Box) => b.kind === "pod" || b.kind === "netns" || b.kind === "rack";

/** alignNodes puts the bars of all nodes on one height and makes the nodes
 * equally high, so that the picture reads across. */
function alignNodes(g: Graph, rects: Map<string, Rect>): void {
  const nodes = g.boxes.filter((b) => b.kind === "node");
  const top = (id: string) => rects.get(id)!.y;
  const floor = new Map<string, number>();
  for (const n of nodes) {
    const upper = g.boxes.filter((b) => isUpper(b) && (b.parent === n.id || b.parent === `rack:${n.id.slice(3)}`));
    const bottoms = upper.map((b) => rects.get(b.id)!.y + rects.get(b.id)!.h - top(n.id));
    floor.set(n.id, Math.max(SIZES.nodeHead + 40, ...bottoms));
  }
  const want = Math.max(0, ...floor.values());
  for (const n of nodes) {
    const lower = g.boxes.filter((b) => b.parent === n.id && !isUpper(b) && rects.has(b.id));
    const first = Math.min(...lower.map((b) => rects.get(b.id)!.y - top(n.id)));
    const shift = lower.length === 0 ? 0 : want + LAYER - first;
    for (const b of lower) rects.get(b.id)!.y += shift;
    const r = rects.get(n.id)!;
    const bottoms = lower.map((b) => rects.get(b.id)!.y + rects.get(b.id)!.h - r.y);
    r.h = Math.max(want + 32, ...bottoms.map((y) => y + 32));
  }
  const y = Math.min(...nodes.map((n) => top(n.id)));
  const h = Math.max(0, ...nodes.map((n) => rects.get(n.id)!.h));
  for (const n of nodes) {
    const dy = y - top(n.id);
    rects.get(n.id)!.h = h;
    if (dy === 0) continue;
    for (const b of g.boxes) {
      const r = rects.get(b.id);
      if (r && (b.id === n.id || b.parent === n.id || b.parent === `rack:${n.id.slice(3)}`)) r.y += dy;
    }
  }
  for (const b of g.boxes) if (b.kind === "underlay") rects.get(b.id)!.y = y + h + 46;
}

/** stretch lays a bridge under everything that hangs on it, as far as nothing
 * else stands on its height. */
function stretch(g: Graph, b: Box, rects: Map<string, Rect>): void {
  const r = rects.get(b.id)!;
  const node = rects.get(b.parent)!;
  const parentOf = new Map(g.boxes.map((x) => [x.id, x.parent]));
  const rackOrSelf = (id: string) => (parentOf.get(id)?.startsWith("rack:") ? parentOf.get(id)! : id); // its wires need all of the rack's width
  const hanging = g.edges.filter((e) => e.to === b.id).map((e) => rects.get(rackOrSelf(e.from))).filter((h) => h !== undefined);
  const beside = g.boxes.filter((o) => o !== b && o.parent === b.parent && !isUpper(o)).map((o) => rects.get(o.id)!).filter((o) => o.y < r.y + r.h && o.y + o.h > r.y);
  const others = beside.filter((o) => o.x + o.w / 2 > r.x + r.w / 2);
  const before = beside.filter((o) => !others.includes(o));
  const min = Math.max(node.x + SIZES.nodePad, ...before.map((o) => o.x + o.w + 12));
  const max = Math.min(node.x + node.w - SIZES.nodePad, ...others.map((o) => o.x - 12));
  const left = Math.max(min, Math.min(r.x, ...hanging.map((h) => h.x)));
  const right = Math.min(max, Math.max(r.x + r.w, ...hanging.map((h) => h.x + h.w)));
  if (right - left < b.w) return;
  r.x = left;
  r.w = right - left;
}

/** settleTunnelEnds centres a lone VXLAN device in its node. */
function settleTunnelEnds(g: Graph, rects: Map<string, Rect>): void {
  for (const n of g.boxes) {
    if (n.kind !== "node") continue;
    const inRow = g.boxes.filter((b) => b.parent === n.id && b.kind === "vxlan");
    const node = rects.get(n.id)!;
    if (inRow.length !== 1) continue;
    const r = rects.get(inRow[0]!.id)!;
    const crowded = g.boxes.some((o) => o.parent === n.id && o.kind === "iface" && Math.abs(rects.get(o.id)!.y - r.y) < 40);
    if (!crowded) r.x = node.x + (node.w - r.w) / 2;
  }
}

function stretchUnderlay(g: Graph, rects: Map<string, Rect>): void {
  const nodes = g.boxes.filter((b) => b.kind === "node").map((b) => rects.get(b.id)!);
  for (const b of g.boxes) {
    if (b.kind !== "underlay" || nodes.length === 0) continue;
    const left = Math.min(...nodes.map((n) => n.x));
    const right = Math.max(...nodes.map((n) => n.x + n.w));
    const r = rects.get(b.id)!;
    const w = Math.max(b.w, (right - left) * 0.86);
    Object.assign(r, { x: (left + right) / 2 - w / 2, w });
  }
}

/** portX is where a node's uplink leaves its box: under its tunnel device, or
 * in the middle. */
export function uplinkX(g: Graph, node: string, rects: ReadonlyMap<string, Rect>): number {
  const r = rects.get(node)!;
  const over = g.edges.find((e) => e.to === `${node}!eth0`);
  const o = over && rects.get(over.from);
  return o ? o.x + o.w / 2 : r.x + r.w / 2;
}

export interface Line {
  readonly edge: Edge;
  readonly d: string;
  /** port is where the interface of the `to` side sits, if it has one. */
  readonly port: { x: number; y: number } | null;
  readonly label: { x: number; y: number } | null;
}

/** lines draws the edges between placed boxes. */
export function lines(g: Graph, rects: ReadonlyMap<string, Rect>): Line[] {
  const byId = new Map(g.boxes.map((b) => [b.id, b]));
  const out: Line[] = [];
  for (const e of g.edges) {
    const from = rects.get(e.from);
    if (!from) continue;
    if (e.kind === "tunnel") {
      const to = rects.get(e.to);
      const [a, b] = [rects.get(byId.get(e.from)!.parent), rects.get(byId.get(e.to)!.parent)];
      if (to && a && b) out.push(tunnel(e, from, to, a.x <= b.x ? [a, b] : [b, a]));
      continue;
    }
    if (e.to.endsWith("!eth0")) {
      const node = rects.get(e.to.slice(0, -5));
      const x = from.x + from.w / 2;
      if (node) out.push({ edge: e, d: `M${x} ${from.y + from.h}V${node.y + node.h}`, port: null, label: null });
      continue;
    }
    const to = rects.get(e.to);
    if (!to) continue;
    const fromBox = byId.get(e.from)!;
    const toBox = byId.get(e.to)!;
    out.push(wire(g, e, fromBox, from, toBox, to, rects));
  }
  return out;
}

function tunnel(e: Edge, a: Rect, b: Rect, nodes: [Rect, Rect]): Line {
  const [l, r] = a.x <= b.x ? [a, b] : [b, a];
  const x1 = l.x + l.w;
  const x2 = r.x;
  const y1 = l.y + l.h / 2;
  const y2 = r.y + r.h / 2;
  const sag = Math.min(26, (x2 - x1) / 8);
  return {
    edge: e,
    d: `M${x1} ${y1}C${x1 + (x2 - x1) / 3} ${y1 - sag} ${x2 - (x2 - x1) / 3} ${y2 - sag} ${x2} ${y2}`,
    port: null,
    // Between the nodes, where nothing else is.
    label: { x: (nodes[0].x + nodes[0].w + nodes[1].x) / 2, y: (y1 + y2) / 2 - sag * 0.75 - 8 },
  };
}

function wire(g: Graph, e: Edge, fromBox: Box, from: Rect, toBox: Box, to: Rect, rects: ReadonlyMap<string, Rect>): Line {
  const x = fromBox.kind === "node" ? uplinkX(g, e.from, rects) : from.x + from.w / 2;
  const y = from.y + from.h;
  const wide = toBox.kind === "bridge" || toBox.kind === "underlay" || toBox.kind === "node";
  if (fromBox.kind === "bridge") {
    // from a wide bar to something below it
    const tx = to.x + to.w / 2;
    return { edge: e, d: `M${tx} ${y}V${to.y}`, port: null, label: null };
  }
  const rack = fromBox.parent.startsWith("rack:") ? rects.get(fromBox.parent) : undefined;
  if (rack && y < rack.y + rack.h - 8) {
    // Not in the rack's last row: down the gutter beside the column, the wires
    // of different rows beside each other.
    const below = Math.round((rack.y + rack.h - y) / (from.h + CELL_GAP.compact));
    const gx = from.x + from.w + 3 + 3.5 * Math.min(below, 3);
    if (!wide) {
      const tx = to.x + to.w / 2;
      return { edge: e, d: `M${x} ${y}v7H${gx}V${to.y - LAYER / 2}H${tx}V${to.y}`, port: null, label: null };
    }
    return { edge: e, d: `M${x} ${y}v7H${gx}V${to.y}`, port: { x: gx, y: to.y }, label: null };
  }
  const clamp = Math.min(Math.max(x, to.x + 10), to.x + to.w - 10);
  if (wide && to.y >= y) {
    const d = clamp === x ? `M${x} ${y}V${to.y}` : `M${x} ${y}V${(y + to.y) / 2}H${clamp}V${to.y}`;
    return { edge: e, d, port: { x: clamp, y: to.y }, label: { x: clamp + 8, y: to.y - 7 } };
  }
  const tx = to.x + to.w / 2;
  if (to.y >= y) {
    const mid = (y + to.y) / 2;
    return { edge: e, d: x === tx ? `M${x} ${y}V${to.y}` : `M${x} ${y}V${mid}H${tx}V${to.y}`, port: { x: tx, y: to.y }, label: { x: tx + 8, y: to.y - 7 } };
  }
  // side by side, or upwards: around below both
  const low = Math.max(y, to.y + to.h) + 12;
  return { edge: e, d: `M${x} ${y}V${low}H${tx}V${to.y + to.h}`, port: { x: tx, y: to.y + to.h }, label: { x: (x + tx) / 2, y: low - 4 } };
}

/** between mixes two layouts: t runs from 0 (old) to 1 (new). A box that is
 * new starts where it will be. */
export function between(from: ReadonlyMap<string, Rect>, to: ReadonlyMap<string, Rect>, t: number): Map<string, Rect> {
  const out = new Map<string, Rect>();
  for (const [id, b] of to) {
    const a = from.get(id) ?? b;
    const mix = (p: number, q: number) => p + (q - p) * t;
    out.set(id, { x: mix(a.x, b.x), y: mix(a.y, b.y), w: mix(a.w, b.w), h: mix(a.h, b.h) });
  }
  return out;
}
