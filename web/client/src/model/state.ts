// What the lab page knows, and how a message of the stream changes it. Pure:
// no clock, no DOM. A Model is never changed in place, so that a view can tell
// by identity what is new.
import type { Error as LabError, Event, Link, Namespace, Pod, Spec, State, StepEvent } from "../gen/lab.ts";
import type { CheckResult, LabBoot, LabStatus, StreamMessage } from "../gen/view.ts";

/** LOG_LIMIT bounds the events kept, and so the page's memory. */
export const LOG_LIMIT = 5000;
/** STEP_PODS bounds the pods whose steps are kept after they are gone. */
const STEP_PODS = 200;

export interface Model {
  readonly lab: LabStatus;
  /** version of the server that the page talks to, "" before the first hello. */
  readonly version: string;
  /** known is false until the first snapshot: there is nothing to draw yet. */
  readonly known: boolean;
  readonly seq: number;
  readonly spec: Spec | null;
  readonly namespaces: ReadonlyMap<string, Namespace>;
  /** pods by "namespace/name". */
  readonly pods: ReadonlyMap<string, Pod>;
  /** checks by "task/check". */
  readonly checks: ReadonlyMap<string, CheckResult>;
  /** log holds the last events in order, at most LOG_LIMIT. */
  readonly log: readonly Event[];
  /** steps of creation and termination by pod. */
  readonly steps: ReadonlyMap<string, readonly StepEvent[]>;
  /** unseen is set by a snapshot that has events which the log lacks. */
  readonly unseen: boolean;
  /** gap is set when an event is missing: the stream must begin anew. */
  readonly gap: boolean;
  /** error is why the server ended the stream, if it did. */
  readonly error: LabError | null;
}

export function initial(boot: Pick<LabBoot, "phase" | "reason">): Model {
  return {
    lab: { phase: boot.phase, reason: boot.reason, instance: 0 },
    version: "",
    known: false,
    seq: 0,
    spec: null,
    namespaces: new Map(),
    pods: new Map(),
    checks: new Map(),
    log: [],
    steps: new Map(),
    unseen: false,
    gap: false,
    error: null,
  };
}

export const podKey = (p: Pick<Pod, "namespace" | "name">) => `${p.namespace}/${p.name}`;
export const checkKey = (c: Pick<CheckResult, "task" | "check">) => `${c.task}/${c.check}`;

/** A Draft is the copy that a batch of messages is worked into. */
interface Draft {
  model: Model;
  namespaces: Map<string, Namespace> | null;
  pods: Map<string, Pod> | null;
  steps: Map<string, readonly StepEvent[]> | null;
  log: Event[] | null;
}

/** reduce works messages into the model, in order. */
export function reduce(model: Model, messages: readonly StreamMessage[]): Model {
  const d: Draft = { model, namespaces: null, pods: null, steps: null, log: null };
  for (const m of messages) apply(d, m);
  const { namespaces, pods, steps, log } = d;
  if (log && log.length > LOG_LIMIT) log.splice(0, log.length - LOG_LIMIT);
  return {
    ...d.model,
    ...(namespaces && { namespaces }),
    ...(pods && { pods }),
    ...(steps && { steps }),
    ...(log && { log }),
  };
}

function apply(d: Draft, m: StreamMessage): void {
  switch (m.type) {
    case "hello":
      if (m.hello) {
        setLab(d, m.hello.lab);
        d.model = { ...d.model, version: m.hello.version, error: null, gap: false };
      }
      return;
    case "lab":
      if (m.lab) setLab(d, m.lab);
      return;
    case "snapshot":
      if (m.snapshot) applySnapshot(d, m.snapshot);
      return;
    case "event":
      if (m.event) applyEvent(d, m.event);
      return;
    case "checks": {
      const checks = new Map(d.model.checks);
      for (const c of m.checks ?? []) checks.set(checkKey(c), c);
      d.model = { ...d.model, checks };
      return;
    }
    case "error":
      d.model = { ...d.model, error: m.error ?? null };
  }
}

/** setLab takes the server's word for the lab; a new instance forgets the old. */
function setLab(d: Draft, lab: LabStatus): void {
  if (lab.instance !== d.model.lab.instance && d.model.lab.instance !== 0) {
    d.namespaces = new Map();
    d.pods = new Map();
    d.steps = new Map();
    d.log = [];
    d.model = { ...d.model, known: false, seq: 0, spec: null };
  }
  d.model = { ...d.model, lab };
}

function applySnapshot(d: Draft, s: State): void {
  d.namespaces = new Map((s.namespaces ?? []).map((n) => [n.id, n]));
  d.pods = new Map((s.pods ?? []).map((p) => [podKey(p), p]));
  // What was logged stays, up to the snapshot: a gap in between is possible.
  d.log = (d.log ?? d.model.log).filter((e) => e.seq <= s.seq);
  d.model = {
    ...d.model,
    known: true,
    unseen: d.model.unseen || s.seq > (d.log.at(-1)?.seq ?? 0),
    gap: false,
    seq: s.seq,
    spec: s.spec,
    lab: { ...d.model.lab, phase: s.phase, reason: s.reason },
  };
}

function applyEvent(d: Draft, e: Event): void {
  if (e.seq <= d.model.seq) return; // seen already
  if (e.seq !== d.model.seq + 1) {
    d.model = { ...d.model, gap: true };
    return;
  }
  d.model = { ...d.model, seq: e.seq };
  d.log ??= [...d.model.log];
  d.log.push(e);
  if (d.log.length > 2 * LOG_LIMIT) d.log.splice(0, d.log.length - LOG_LIMIT);
  if (e.step) addStep(d, e.step);
  if (e.phase) d.model = { ...d.model, lab: { ...d.model.lab, phase: e.phase.phase, reason: e.phase.reason } };
  if (e.pod) {
    d.pods ??= new Map(d.model.pods);
    if (e.kind === "pod.gone") d.pods.delete(podKey(e.pod));
    else d.pods.set(podKey(e.pod), e.pod);
  }
  if (e.netns) applyNamespace(d, e, e.netns);
  else applyContents(d, e);
}

function applyNamespace(d: Draft, e: Event, netns: Namespace): void {
  d.namespaces ??= new Map(d.model.namespaces);
  const id = netns.id || e.ns || "";
  if (e.kind === "namespace.gone") {
    d.namespaces.delete(id);
    return;
  }
  const old = d.namespaces.get(id);
  // A namespace that is set again keeps what its own events said; another
  // inode means that it is a new one of the same name.
  const keep = old && old.inode === netns.inode ? old : undefined;
  d.namespaces.set(id, {
    ...netns,
    links: keep?.links ?? netns.links ?? [],
    routes: keep?.routes ?? netns.routes ?? [],
    neighbours: keep?.neighbours ?? netns.neighbours ?? [],
    fdb: keep?.fdb ?? netns.fdb ?? [],
  });
}

function applyContents(d: Draft, e: Event): void {
  if (!e.ns || !(e.link || e.route || e.neigh || e.fdb)) return;
  d.namespaces ??= new Map(d.model.namespaces);
  const ns = d.namespaces.get(e.ns);
  if (!ns) return;
  const gone = e.kind.endsWith(".gone");
  if (e.link) {
    const links = put(ns.links ?? [], e.link, gone, (l) => String(l.index));
    links.sort((a, b) => a.index - b.index);
    d.namespaces.set(e.ns, { ...ns, links });
  } else if (e.route) {
    const routes = put(ns.routes ?? [], e.route, gone, (r) => `${r.table} ${r.dst} ${r.metric ?? 0} ${r.type} ${r.dev ?? ""} ${r.gateway}`);
    d.namespaces.set(e.ns, { ...ns, routes });
  } else if (e.neigh) {
    const neighbours = put(ns.neighbours ?? [], e.neigh, gone, (n) => `${n.dev} ${n.addr}`);
    d.namespaces.set(e.ns, { ...ns, neighbours });
  } else if (e.fdb) {
    const fdb = put(ns.fdb ?? [], e.fdb, gone, (f) => `${f.dev} ${f.mac} ${f.master ?? ""} ${f.dst}`);
    d.namespaces.set(e.ns, { ...ns, fdb });
  }
}

/** put replaces, appends or removes one item, in a new list. */
function put<T>(list: readonly T[], item: T, gone: boolean, key: (t: T) => string): T[] {
  const k = key(item);
  const at = list.findIndex((x) => key(x) === k);
  const out = [...list];
  if (gone) {
    if (at >= 0) out.splice(at, 1);
  } else if (at >= 0) out[at] = item;
  else out.push(item);
  return out;
}

function addStep(d: Draft, step: StepEvent): void {
  d.steps ??= new Map(d.model.steps);
  const before = d.steps.get(step.pod) ?? [];
  // A pod made again under its name starts its story anew.
  const fresh = step.course === "create" && step.number === 1;
  d.steps.delete(step.pod);
  d.steps.set(step.pod, fresh ? [step] : [...before.slice(-31), step]);
  for (const oldest of d.steps.keys()) {
    if (d.steps.size <= STEP_PODS) break;
    d.steps.delete(oldest);
  }
}

/** withPast works events that the log lacks into it, and tells the steps again. */
export function withPast(model: Model, past: readonly Event[]): Model {
  const have = new Set(model.log.map((e) => e.seq));
  const missing = past.filter((e) => e.seq <= model.seq && !have.has(e.seq));
  const log = [...missing, ...model.log].sort((a, b) => a.seq - b.seq).slice(-LOG_LIMIT);
  const d: Draft = { model, namespaces: null, pods: null, steps: new Map(), log: null };
  for (const e of log) if (e.step) addStep(d, e.step);
  return { ...model, log, steps: d.steps! };
}

/** linkAt finds a link by reference. */
export function linkAt(m: Model, ns: string, index: number): Link | undefined {
  return m.namespaces.get(ns)?.links?.find((l) => l.index === index);
}
