// The live map: the graph drawn as SVG, moved with the pointer, walked with
// the arrow keys, and told as a table for those who want it so.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { memo } from "preact/compat";
import { lang, t } from "../i18n.ts";
import { load, save } from "../prefs.ts";
import { IconButton, useLang } from "../ui.tsx";
import { podKey, type Model } from "../model/state.ts";
import { build, podId, SIZES, type Box, type Graph, type Measure, type Port } from "./graph.ts";
import { between, lines, place, uplinkX, type Layout, type Line, type Rect } from "./layout.ts";
import { MapTable } from "./table.tsx";

const MOVE_MS = 200;
const MARGIN = 28;
const BAR = 44; // height of the buttons over the map
const LEGEND = 34;
const MAX_UNPLACED = 4;
const MAX_FIT = 1.35;

interface View {
  x: number;
  y: number;
  k: number;
}

interface MapProps {
  model: Model;
  workerURL: string;
  selected: string;
  onSelect: (id: string) => void;
}

export function TopologyMap(props: MapProps) {
  useLang();
  const [asTable, setAsTable] = useState(load("map.table", false));
  const measure = useMeasure();
  const graph = useMemo(() => build(props.model, measure), [props.model.namespaces, props.model.pods, props.model.spec, measure]);
  const svg = useRef<SVGSVGElement>(null);
  const { rects, size, ready } = useLayoutOf(graph, props.workerURL, svg);
  const view = useView(svg, size);

  const toggle = () => {
    save("map.table", !asTable);
    setAsTable(!asTable);
  };
  return (
    <section class="map" aria-label={t("map.label")}>
      <div class="map-bar">
        {!asTable && (
          <>
            <IconButton icon="plus" label={t("map.zoomIn")} onClick={() => view.zoom(1.25)} />
            <IconButton icon="minus" label={t("map.zoomOut")} onClick={() => view.zoom(0.8)} />
            <IconButton icon="fit" label={t("map.fit")} onClick={view.fit} />
          </>
        )}
        <IconButton icon="table" label={t("map.asTable")} pressed={asTable} onClick={toggle} />
      </div>
      {asTable ? (
        <MapTable model={props.model} selected={props.selected} onSelect={props.onSelect} />
      ) : (
        <svg ref={svg} class={`map-svg ${ready ? "ready" : ""}`} role="group" aria-label={t("map.label")} onKeyDown={(ev) => walk(ev, svg.current, view)} {...view.handlers}>
          <g ref={view.layer}>
            <Scene graph={graph} rects={rects} selected={props.selected} onSelect={props.onSelect} lang={lang()} />
          </g>
        </svg>
      )}
      {!asTable && <Unplaced {...props} />}
      {!asTable && <Legend />}
    </section>
  );
}

/** useMeasure measures texts in the map's fonts, and again once they are there. */
function useMeasure(): Measure {
  const [fonts, setFonts] = useState(0);
  useEffect(() => {
    const list = ["550 13px 'Pretendard Variable'", "11px 'JetBrains Mono Variable'"];
    void Promise.all(list.map((f) => document.fonts.load(f, "pod-a 가"))).then(() => setFonts(1));
  }, []);
  return useMemo(() => {
    const ctx = document.createElement("canvas").getContext("2d")!;
    const style = getComputedStyle(document.documentElement);
    const families = { name: `550 13px ${style.getPropertyValue("--font")}`, mono: `11px ${style.getPropertyValue("--mono")}`, chip: `11px ${style.getPropertyValue("--mono")}` };
    const known = new Map<string, number>();
    return (text, font) => {
      const key = `${font} ${text}`;
      let w = known.get(key);
      if (w === undefined) {
        ctx.font = families[font];
        w = Math.ceil(ctx.measureText(text).width);
        if (known.size > 5000) known.clear();
        known.set(key, w);
      }
      return w;
    };
  }, [fonts]);
}

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** useLayoutOf keeps places for the graph: asked for when its shape changes,
 * reached by a short movement. */
function useLayoutOf(graph: Graph, workerURL: string, svg: { current: SVGSVGElement | null }): { rects: ReadonlyMap<string, Rect>; size: { w: number; h: number }; ready: boolean } {
  const [layout, setLayout] = useState<Layout | null>(null);
  const [rects, setRects] = useState<ReadonlyMap<string, Rect>>(new Map());
  const wanted = useRef("");
  const shown = useRef<ReadonlyMap<string, Rect>>(new Map());
  shown.current = rects;
  useEffect(() => {
    if (graph.boxes.length === 0 || wanted.current === graph.shape) return;
    wanted.current = graph.shape;
    const e = svg.current;
    const room = { w: (e?.clientWidth ?? 800) - 2 * MARGIN, h: (e?.clientHeight ?? 500) - BAR - LEGEND };
    void place(graph, workerURL, room).then((l) => {
      if (wanted.current === l.shape) setLayout(l);
    });
  }, [graph]);
  useLayoutEffect(() => {
    if (!layout) return;
    const from = shown.current;
    if (from.size === 0 || still()) {
      setRects(layout.rects);
      return;
    }
    const start = performance.now();
    let frame = 0;
    const step = (now: number) => {
      const p = Math.min((now - start) / MOVE_MS, 1);
      const eased = 1 - (1 - p) ** 3;
      setRects(p < 1 ? between(from, layout.rects, eased) : layout.rects);
      if (p < 1) frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [layout]);
  return { rects, size: { w: layout?.w ?? 0, h: layout?.h ?? 0 }, ready: layout !== null };
}

/** useView moves and scales the map. It fits by itself until the reader moves it. */
function useView(svg: { current: SVGSVGElement | null }, size: { w: number; h: number }) {
  const layer = useRef<SVGGElement>(null);
  const v = useRef<View>({ x: 0, y: 0, k: 1 });
  const own = useRef(false); // the reader has moved it
  const latest = useRef(size);
  latest.current = size;

  const show = () => layer.current?.setAttribute("transform", `translate(${v.current.x} ${v.current.y}) scale(${v.current.k})`);
  const fit = () => {
    const e = svg.current;
    const { w, h } = latest.current;
    if (!e || w === 0) return;
    const { clientWidth: cw, clientHeight: ch } = e;
    const k = Math.max(Math.min((cw - 2 * MARGIN) / w, (ch - BAR - LEGEND) / h, MAX_FIT), 0.15);
    v.current = { k, x: (cw - w * k) / 2, y: BAR + (ch - BAR - LEGEND - h * k) / 2 };
    own.current = false;
    show();
  };
  const zoomAt = (factor: number, px: number, py: number) => {
    const k = Math.min(Math.max(v.current.k * factor, 0.15), 4);
    const real = k / v.current.k;
    v.current = { k, x: px - (px - v.current.x) * real, y: py - (py - v.current.y) * real };
    own.current = true;
    show();
  };
  const pan = (dx: number, dy: number) => {
    v.current = { ...v.current, x: v.current.x + dx, y: v.current.y + dy };
    own.current = true;
    show();
  };

  useLayoutEffect(() => {
    if (!own.current) fit();
    else show();
  }, [size.w, size.h, svg.current]);
  useEffect(() => {
    const e = svg.current;
    if (!e) return;
    const observer = new ResizeObserver(() => (own.current ? show() : fit()));
    observer.observe(e);
    const wheel = (ev: WheelEvent) => {
      ev.preventDefault();
      const box = e.getBoundingClientRect();
      if (ev.ctrlKey || ev.metaKey) zoomAt(Math.exp(-ev.deltaY / 200), ev.clientX - box.x, ev.clientY - box.y);
      else if (ev.shiftKey) pan(-ev.deltaY, 0);
      else if (ev.deltaX !== 0) pan(-ev.deltaX, -ev.deltaY);
      else zoomAt(Math.exp(-ev.deltaY / 500), ev.clientX - box.x, ev.clientY - box.y);
    };
    e.addEventListener("wheel", wheel, { passive: false });
    return () => {
      observer.disconnect();
      e.removeEventListener("wheel", wheel);
    };
  }, [svg.current]);

  const onPointerDown = (ev: PointerEvent) => {
    if (ev.button !== 0 || (ev.target as Element).closest("[data-id]")) return;
    const e = svg.current!;
    e.setPointerCapture(ev.pointerId);
    let [x, y] = [ev.clientX, ev.clientY];
    const move = (m: PointerEvent) => {
      pan(m.clientX - x, m.clientY - y);
      [x, y] = [m.clientX, m.clientY];
    };
    e.addEventListener("pointermove", move);
    e.addEventListener("pointerup", () => e.removeEventListener("pointermove", move), { once: true });
  };
  const zoom = (factor: number) => {
    const e = svg.current;
    if (e) zoomAt(factor, e.clientWidth / 2, e.clientHeight / 2);
  };
  return { layer, fit, zoom, handlers: { onPointerDown } };
}

/** walk moves the focus to the nearest thing in the direction of an arrow. */
function walk(ev: KeyboardEvent, svg: SVGSVGElement | null, view: { zoom: (f: number) => void; fit: () => void }): void {
  if (ev.key === "+" || ev.key === "=") return view.zoom(1.25);
  if (ev.key === "-") return view.zoom(0.8);
  if (ev.key === "0") return view.fit();
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[ev.key];
  const here = document.activeElement?.closest<SVGGElement>("[data-id]");
  if (!direction || !svg || !here) return;
  ev.preventDefault();
  const centre = (e: Element) => {
    const r = (e.querySelector("rect") ?? e).getBoundingClientRect();
    return [r.x + r.width / 2, r.y + r.height / 2] as const;
  };
  const [x, y] = centre(here);
  let best: SVGGElement | null = null;
  let least = Infinity;
  for (const other of svg.querySelectorAll<SVGGElement>("[data-id]")) {
    if (other === here) continue;
    const [ox, oy] = centre(other);
    const along = (ox - x) * direction[0]! + (oy - y) * direction[1]!;
    const across = Math.abs((ox - x) * direction[1]!) + Math.abs((oy - y) * direction[0]!);
    if (along < 4) continue;
    const cost = along + 2 * across;
    if (cost < least) [least, best] = [cost, other];
  }
  best?.focus();
}

interface SceneProps {
  graph: Graph;
  rects: ReadonlyMap<string, Rect>;
  selected: string;
  onSelect: (id: string) => void;
  lang: string;
}

const Scene = memo(function Scene({ graph, rects, selected, onSelect }: SceneProps) {
  const drawn = useMemo(() => lines(graph, rects), [graph, rects]);
  const placed = graph.boxes.filter((b) => rects.has(b.id));
  const by = (kind: Box["kind"]) => placed.filter((b) => b.kind === kind);
  const common = { selected, onSelect };
  return (
    <>
      {by("node").map((b) => (
        <NodeBox key={b.id} box={b} rect={rects.get(b.id)!} {...common} />
      ))}
      {by("underlay").map((b) => (
        <Bar key={b.id} box={b} rect={rects.get(b.id)!} {...common} />
      ))}
      {drawn.filter((l) => l.edge.kind !== "tunnel").map((l) => (
        <Wire key={l.edge.id} line={l} selected={selected === l.edge.port?.id} />
      ))}
      {[...by("bridge"), ...by("vxlan"), ...by("iface")].map((b) => (
        <Bar key={b.id} box={b} rect={rects.get(b.id)!} {...common} />
      ))}
      {by("pod").map((b) => (
        <PodBox key={b.id} box={b} rect={rects.get(b.id)!} {...common} />
      ))}
      {by("netns").map((b) => (
        <PodBox key={b.id} box={b} rect={rects.get(b.id)!} {...common} />
      ))}
      {drawn.filter((l) => l.edge.kind === "tunnel").map((l) => (
        <Tunnel key={l.edge.id} line={l} {...common} />
      ))}
      {drawn.map((l) => l.edge.port && l.port && <PortMark key={`p-${l.edge.id}`} port={l.edge.port} x={l.port.x} y={l.port.y} small {...common} />)}
      {by("node").map((b) => b.port && <PortMark key={`p-${b.id}`} port={b.port} x={uplinkX(graph, b.id, rects)} y={rects.get(b.id)!.y + rects.get(b.id)!.h} label {...common} />)}
    </>
  );
});

interface Pick {
  selected: string;
  onSelect: (id: string) => void;
}

/** pick makes an element of the map selectable by pointer and keyboard. */
function pick(id: string, label: string, p: Pick) {
  return {
    "data-id": id,
    role: "button" as const,
    tabindex: 0, // an SVG attribute is spelt so
    "aria-label": label,
    "aria-pressed": p.selected === id,
    onClick: (ev: MouseEvent) => {
      ev.stopPropagation();
      p.onSelect(id);
    },
    onKeyDown: (ev: KeyboardEvent) => {
      if (ev.key === "Enter" || ev.key === " ") {
        ev.preventDefault();
        p.onSelect(id);
      }
    },
  };
}

const on = (id: string, p: Pick) => (p.selected === id ? " selected" : "");

function NodeBox({ box, rect, ...p }: { box: Box; rect: Rect } & Pick) {
  return (
    <g class={`m-box kind-node${on(box.id, p)}`} transform={`translate(${rect.x} ${rect.y})`} {...pick(box.id, t("map.node", { name: box.title, address: box.sub }), p)}>
      <rect width={rect.w} height={rect.h} rx="10" />
      <text class="name" x={SIZES.nodePad} y="27">
        {box.title}{" "}
        <tspan class="mono" dx="4">
          {box.sub}
        </tspan>
      </text>
    </g>
  );
}

const stateClass = (b: Box) => `state-${b.state}`;

function PodBox({ box, rect, ...p }: { box: Box; rect: Rect } & Pick) {
  const kind = box.kind === "netns" ? "kind-hand" : "kind-pod";
  const label = box.kind === "netns" ? t("map.netns", { name: box.title, address: box.sub }) : t("map.pod", { name: box.title, address: box.note ? box.sub : `${box.sub}, Running` });
  const full = box.density === "full";
  const baseline = full ? 23 : box.density === "compact" ? 20 : 19;
  return (
    <g class={`m-box ${kind} ${stateClass(box)} density-${box.density}${on(box.id, p)}`} transform={`translate(${rect.x} ${rect.y})`}>
      <g {...pick(box.id, label, p)}>
        <rect width={rect.w} height={rect.h} rx="7" />
        {full ? (
          <>
            <text class="name" x={SIZES.padX} y={baseline}>
              {box.title}
            </text>{" "}
            <text class={`mono end ${box.note ? "note" : ""}`} x={rect.w - SIZES.padX} y={baseline}>
              {box.sub}
            </text>
          </>
        ) : (
          <>
            <text class="name" x="10" y={baseline}>
              {clip(box.title, box.density === "compact" ? 20 : 11)}
            </text>{" "}
            {box.density === "compact" && (
              <text class={`mono ${box.note ? "note" : ""}`} x="10" y="37">
                {box.sub}
              </text>
            )}
          </>
        )}
      </g>
      {full
        ? box.chips.map((c) => (
            <g key={c.id} class={`m-chip chip-${c.state}${c.ready ? " ready" : ""}${on(c.id, p)}`} transform={`translate(${SIZES.padX + c.x} ${SIZES.titleH + c.y})`} {...pick(c.id, t("map.container", { name: c.name, state: c.state }), p)}>
              <rect width={c.w} height={SIZES.chipH} rx="4" />
              <circle cx="9" cy="11" r="3" />
              <text x="17" y="15">
                {c.name}
              </text>
            </g>
          ))
        : box.chips.map((c, i) => <circle key={c.id} class={`m-dot chip-${c.state}${c.ready ? " ready" : ""}`} cx={rect.w - 10 - i * 9} cy={box.density === "compact" ? 33 : rect.h / 2} r="3" />)}
      {box.port && <PortMark port={box.port} x={rect.w / 2} y={rect.h} label={full} {...p} />}
    </g>
  );
}

const clip = (s: string, n: number) => (s.length > n ? `${s.slice(0, n - 1)}…` : s);

function Bar({ box, rect, ...p }: { box: Box; rect: Rect } & Pick) {
  const name = box.kind === "underlay" ? t("map.underlay") : box.title;
  const label = t(`map.${box.kind === "vxlan" ? "vxlan" : box.kind === "bridge" ? "bridge" : box.kind === "iface" ? "iface" : "underlayLabel"}`, { name, address: box.sub });
  return (
    <g class={`m-box kind-${box.kind} ${stateClass(box)}${on(box.id, p)}`} transform={`translate(${rect.x} ${rect.y})`} {...pick(box.id, label, p)}>
      <rect width={rect.w} height={rect.h} rx="6" />
      <text class="mono mid" x={rect.w / 2} y={rect.h / 2 + 4}>
        <tspan class="strong">{name}</tspan> <tspan>{box.sub}</tspan>
      </text>
    </g>
  );
}

function PortMark({ port, x, y, label, small, ...p }: { port: Port; x: number; y: number; label?: boolean; small?: boolean } & Pick) {
  const s = small ? 8 : 12;
  const state = port.up ? (port.running ? "up" : "nocarrier") : "down";
  return (
    <g class={`m-port port-${state}${on(port.id, p)}`} transform={`translate(${x} ${y})`} {...pick(port.id, t("map.port", { name: port.name, state: t(`port.${state}`) }), p)}>
      <rect class="hit" x={-12} y={-12} width="24" height="24" />
      <rect x={-s / 2} y={-s / 2} width={s} height={s} rx={small ? 2 : 3} />
      {label && (
        <text class="mono" x="11" y="-5">
          {port.name}
        </text>
      )}
    </g>
  );
}

function Wire({ line, selected }: { line: Line; selected: boolean }) {
  const e = line.edge;
  return <path class={`m-wire wire-${e.kind}${e.up ? "" : " down"}${selected ? " selected" : ""}`} d={line.d} />;
}

function Tunnel({ line, ...p }: { line: Line } & Pick) {
  const e = line.edge;
  return (
    <g class={`m-tunnel${e.up ? "" : " down"}${on(e.id, p)}`} {...pick(e.id, t("map.tunnel", { name: e.label }), p)}>
      <path class="hit" d={line.d} />
      <path class="line" d={line.d} />
      {line.label && (
        <text class="mono mid" x={line.label.x} y={line.label.y}>
          {e.label}
        </text>
      )}
    </g>
  );
}

/** Unplaced are the pods that no node has yet, which the map has no place for. */
function Unplaced({ model, selected, onSelect }: MapProps) {
  const pods = [...model.pods.values()].filter((p) => !p.node);
  if (pods.length === 0) return null;
  return (
    <div class="unplaced" role="group" aria-label={t("map.unplaced")}>
      <span class="dim">{t("map.unplaced")}</span>
      {pods.slice(0, MAX_UNPLACED).map((p) => (
        <button type="button" key={podKey(p)} class="chip mono" aria-pressed={selected === podId(podKey(p))} onClick={() => onSelect(podId(podKey(p)))}>
          {p.namespace === "default" ? p.name : podKey(p)} {p.status}
        </button>
      ))}
      {pods.length > MAX_UNPLACED && <span class="dim num">+{pods.length - MAX_UNPLACED}</span>}
    </div>
  );
}

function Legend() {
  return (
    <p class="legend" aria-hidden="true">
      <span>
        <i class="lg-port up" />
        {t("port.up")}
      </span>
      <span>
        <i class="lg-port down" />
        {t("port.down")}
      </span>
      <span>
        <i class="lg-line" />
        {t("map.legend.wire")}
      </span>
      <span>
        <i class="lg-line routed" />
        {t("map.legend.routed")}
      </span>
      <span>
        <i class="lg-line tunnel" />
        {t("map.legend.tunnel")}
      </span>
    </p>
  );
}

