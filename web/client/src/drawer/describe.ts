// Events in words, close to what the kernel's own tools print.
import type { Event } from "../gen/lab.ts";
import { t, type MessageKey } from "../i18n.ts";
import { micros } from "../format.ts";
import { stepName } from "../panels/inspector.tsx";

export type Group = "link" | "route" | "neigh" | "pod" | "kube" | "op" | "lab";
export const GROUPS: readonly Group[] = ["pod", "kube", "link", "route", "neigh", "op", "lab"];

export function groupOf(e: Event): Group {
  const head = e.kind.split(".")[0];
  switch (head) {
    case "link":
    case "namespace":
      return "link";
    case "route":
      return "route";
    case "neigh":
    case "fdb":
      return "neigh";
    case "pod":
    case "step":
      return "pod";
    case "kube":
      return "kube";
    case "op":
      return "op";
  }
  return "lab";
}

export interface Described {
  readonly place: string;
  readonly text: string;
  readonly tone: "" | "bad" | "warn" | "ok" | "dim";
}

/** place is a namespace's short name: "node1", "pod-a". */
export const place = (ns: string | undefined) => (ns ?? "").split("/").pop() ?? "";

export function describe(e: Event): Described {
  const gone = e.kind.endsWith(".gone");
  const minus = gone ? "− " : "";
  const d = (text: string, tone: Described["tone"] = "", at = place(e.ns)): Described => ({ place: at, text, tone });
  if (e.link) {
    const l = e.link;
    const state = gone ? "" : `${l.up ? (l.running ? "UP" : "NO-CARRIER") : "DOWN"} `;
    const addrs = (l.addrs ?? []).filter((a) => a.scope !== "link").map((a) => a.prefix);
    return d(`${minus}${l.name} ${l.kind} ${state}mtu ${l.mtu} ${addrs.join(" ")}`, gone || !l.up ? "warn" : "");
  }
  if (e.route) {
    const r = e.route;
    const dst = r.dst === "0.0.0.0/0" || r.dst === "::/0" ? "default" : r.dst;
    return d(`${minus}${[r.type !== "unicast" && r.type, dst, r.gateway && `via ${r.gateway}`, r.dev && `dev ${r.dev}`, r.src && `src ${r.src}`].filter(Boolean).join(" ")}`, gone ? "warn" : "");
  }
  if (e.neigh) return d(`${minus}${e.neigh.addr} dev ${e.neigh.dev} ${e.neigh.mac ? `lladdr ${e.neigh.mac} ` : ""}${e.neigh.state}`, e.neigh.state === "FAILED" ? "bad" : "dim");
  if (e.fdb) return d(`${minus}${e.fdb.mac} dev ${e.fdb.dev}${e.fdb.dst ? ` dst ${e.fdb.dst}` : ""} ${e.fdb.state}`, "dim");
  if (e.netns) return d(`${minus}${e.netns.name} net:[${e.netns.inode}]`, gone ? "warn" : "", e.netns.node || e.netns.name);
  if (e.pod) return d(`${minus}${e.pod.status}${e.pod.ips?.length ? ` ${e.pod.ips.join(" ")}` : ""}`, gone ? "warn" : /Err|BackOff|Fail|Crash|OOM/.test(e.pod.status) ? "bad" : e.pod.ready ? "ok" : "", e.pod.name);
  if (e.step) {
    const s = e.step;
    const n = t(`events.step.${s.course === "terminate" ? "terminate" : "create"}` as MessageKey, { n: s.number });
    return d(`${n} · ${stepName(s)} · ${micros(s.micros)}${s.error ? ` · ${s.error}` : s.detail ? ` · ${s.detail}` : ""}`, s.error ? "bad" : "", s.pod.split("/").pop());
  }
  if (e.kube) return d(`${e.kube.reason}: ${e.kube.message}${e.kube.count > 1 ? ` (×${e.kube.count})` : ""}`, e.kube.type === "Warning" ? "bad" : "", e.kube.object.split("/").pop());
  if (e.op) return d(`${e.op.command}${e.op.error ? `  # ${e.op.error}` : ""}`, e.op.error ? "bad" : "");
  if (e.phase) return d(`${t(`phase.${e.phase.phase}`)}${e.phase.reason ? `: ${e.phase.reason}` : ""}`, e.phase.phase === "failed" ? "bad" : "");
  if (e.terminal) return d(e.terminal.ended ? t("events.terminal.ended", { code: e.terminal.exitCode }) : t("events.terminal.started"), "dim", e.terminal.target.replace("node:", ""));
  return d(e.kind, "dim");
}
