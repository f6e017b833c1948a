// The right column: everything the kernel says of what is selected.
import { type ComponentChildren } from "preact";
import type { Container, Link, LinkRef, Namespace, Pod, Route, StepEvent } from "../gen/lab.ts";
import { micros, sinceShort } from "../format.ts";
import { isKey, t, type MessageKey } from "../i18n.ts";
import { address, containerId, linkId, nsBoxId, podId, podState } from "../map/graph.ts";
import { podKey, type Model } from "../model/state.ts";
import { CopyButton, IconButton, useLang } from "../ui.tsx";

interface Props {
  model: Model;
  selected: string;
  readOnly: boolean;
  onSelect: (id: string) => void;
  onTerminal: (target: string) => void;
}

export function Inspector(props: Props) {
  useLang();
  return (
    <div class="inspector-scroll" tabIndex={0} role="region" aria-label={t("panel.inspector")}>
      {content(props)}
    </div>
  );
}

function content(p: Props): ComponentChildren {
  const { model, selected } = p;
  const [kind, rest] = split(selected);
  if (kind === "pod") {
    const pod = model.pods.get(rest);
    if (pod) return <PodView {...p} pod={pod} />;
  } else if (kind === "ctr") {
    const at = rest.lastIndexOf("#");
    const pod = model.pods.get(rest.slice(0, at));
    const c = pod?.containers?.find((x) => x.name === rest.slice(at + 1));
    if (pod && c) return <ContainerView {...p} pod={pod} container={c} />;
  } else if (kind === "ns") {
    const ns = model.namespaces.get(rest);
    if (ns) return <NamespaceView {...p} ns={ns} />;
  } else if (kind === "link") {
    const found = findLink(model, selected);
    if (found) return <LinkView {...p} {...found} />;
  } else if (kind === "tunnel") {
    const [a, b] = rest.split("|").map((id) => findLink(model, id));
    if (a && b) return <TunnelView {...p} a={a} b={b} />;
  }
  return <Overview {...p} gone={selected !== ""} />;
}

function split(id: string): [string, string] {
  const at = id.indexOf(":");
  return at < 0 ? ["", ""] : [id.slice(0, at), id.slice(at + 1)];
}

function findLink(m: Model, id: string): { ns: Namespace; link: Link } | undefined {
  const rest = id.slice("link:".length);
  const at = rest.lastIndexOf("#");
  const ns = m.namespaces.get(rest.slice(0, at));
  const link = ns?.links?.find((l) => l.index === Number(rest.slice(at + 1)));
  return ns && link ? { ns, link } : undefined;
}

/* ---- pieces ---- */

function Head({ kind, title, status, onClose, children }: { kind: string; title: string; status?: ComponentChildren; onClose?: (() => void) | undefined; children?: ComponentChildren }) {
  return (
    <header class="ins-head">
      <div class="ins-title">
        <p class="eyebrow">
          {kind} {status}
        </p>
        <h2 class="mono">{title}</h2>
      </div>
      <span class="grow" />
      {children}
      {onClose && <IconButton icon="close" label={t("ins.close")} onClick={onClose} />}
    </header>
  );
}

function Section({ title, count, children }: { title: string; count?: number | undefined; children: ComponentChildren }) {
  return (
    <section class="ins-section">
      <h3>
        {title}
        {count !== undefined && <span class="count num">{count}</span>}
      </h3>
      {children}
    </section>
  );
}

function Facts({ rows }: { rows: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {rows
        .filter(([, v]) => v !== "" && v !== undefined && v !== null && v !== false)
        .map(([k, v]) => (
          <div key={k}>
            <dt>{k}</dt>
            <dd>{v}</dd>
          </div>
        ))}
    </dl>
  );
}

const None = () => <p class="dim none">{t("ins.none")}</p>;

function PortDot({ link }: { link: Link }) {
  const state = link.up ? (link.running ? "up" : "nocarrier") : "down";
  return (
    <>
      <span class={`port-dot ${state}`} aria-hidden="true" />
      <span class="visually-hidden">{t(`port.${state}`)}</span>
    </>
  );
}

function Go({ id, onSelect, children }: { id: string; onSelect: (id: string) => void; children: ComponentChildren }) {
  return (
    <button type="button" class="link-button mono" onClick={() => onSelect(id)}>
      {children}
    </button>
  );
}

function Status({ pod }: { pod: Pod }) {
  return <span class={`pod-status state-${podState(pod).state}`}>{pod.status}</span>;
}

function peerOf(m: Model, ref: LinkRef | undefined): { id: string; text: string } | undefined {
  const ns = ref && m.namespaces.get(ref.namespace);
  const link = ns?.links?.find((l) => l.index === ref?.index);
  return ns && link ? { id: linkId(ns.id, link.index), text: `${ns.name} ${link.name}` } : undefined;
}

function Interfaces({ model, ns, onSelect }: { model: Model; ns: Namespace; onSelect: (id: string) => void }) {
  const links = ns.links ?? [];
  if (links.length === 0) return <None />;
  return (
    <ul class="ifaces">
      {links.map((l) => (
        <li key={l.index}>
          <PortDot link={l} />
          <div class="iface-main">
            <Go id={linkId(ns.id, l.index)} onSelect={onSelect}>
              {l.name}
            </Go>
            <span class="dim">{l.kind}</span>
            {peerOf(model, l.peer) && <span class="dim mono">↔ {peerOf(model, l.peer)!.text}</span>}
          </div>
          <div class="iface-addrs mono">
            {(l.addrs ?? []).filter((a) => a.scope !== "link").map((a) => (
              <span key={a.prefix}>{a.prefix}</span>
            ))}
          </div>
        </li>
      ))}
    </ul>
  );
}

/** routeText is a route as `ip route` prints its beginning. */
function routeText(r: Route): { dst: string; rest: string } {
  const dst = r.dst === "0.0.0.0/0" || r.dst === "::/0" ? "default" : r.dst.replace(/\/(32|128)$/, "");
  const rest = [r.type !== "unicast" && r.type, r.gateway && `via ${r.gateway}`, r.dev && `dev ${r.dev}`, r.onlink && "onlink", r.src && `src ${r.src}`, r.metric ? `metric ${r.metric}` : ""];
  return { dst, rest: rest.filter(Boolean).join(" ") };
}

const LOCAL_TABLE = 255; // RT_TABLE_LOCAL, rtnetlink(7)

function Routes({ ns }: { ns: Namespace }) {
  const all = ns.routes ?? [];
  const main = all.filter((r) => r.table !== LOCAL_TABLE && r.type !== "multicast");
  if (main.length === 0) return <None />;
  const v6 = (r: Route) => r.dst.includes(":");
  return (
    <>
      <table class="lines">
        <tbody>
          {[...main].sort((a, b) => Number(v6(a)) - Number(v6(b))).map((r) => {
            const { dst, rest } = routeText(r);
            return (
              <tr key={`${r.table} ${r.dst} ${r.dev} ${r.gateway} ${r.metric}`}>
                <th scope="row" class="mono">
                  {dst}
                </th>
                <td class="mono">{rest}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {all.length > main.length && <p class="dim none">{t("ins.route.local", { n: all.length - main.length })}</p>}
    </>
  );
}

function Neighbours({ ns, dev }: { ns: Namespace; dev?: string }) {
  const list = (ns.neighbours ?? []).filter((n) => (!dev || n.dev === dev) && n.state !== "NOARP");
  if (list.length === 0) return <None />;
  return (
    <table class="lines">
      <tbody>
        {list.map((n) => (
          <tr key={`${n.dev} ${n.addr}`}>
            <th scope="row" class="mono">
              {n.addr}
            </th>
            <td class="mono">
              {!dev && <>{n.dev} </>}
              {n.mac} <span class={`neigh neigh-${n.state.toLowerCase()}`}>{n.state}</span>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Fdb({ ns, dev }: { ns: Namespace; dev?: string }) {
  const list = (ns.fdb ?? []).filter((f) => !dev || f.dev === dev || f.master === dev);
  if (list.length === 0) return <None />;
  return (
    <table class="lines">
      <tbody>
        {list.map((f) => (
          <tr key={`${f.dev} ${f.mac} ${f.dst} ${f.master}`}>
            <th scope="row" class="mono">
              {f.mac}
            </th>
            <td class="mono">
              {f.dev}
              {f.dst && <> → {f.dst}</>} <span class="dim">{f.state}</span>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function NamespaceSections({ ns, model, onSelect }: { ns: Namespace } & Pick<Props, "model" | "onSelect">) {
  return (
    <>
      <Section title={t("ins.interfaces")} count={ns.links?.length ?? 0}>
        <Interfaces model={model} ns={ns} onSelect={onSelect} />
      </Section>
      <Section title={t("ins.routes")}>
        <Routes ns={ns} />
      </Section>
      <Section title={t("ins.neighbours")}>
        <Neighbours ns={ns} />
      </Section>
      {(ns.kind === "node" || ns.kind === "underlay" || (ns.fdb?.length ?? 0) > 0) && (
        <Section title={t("ins.fdb")} count={ns.fdb?.length ?? 0}>
          <Fdb ns={ns} />
        </Section>
      )}
    </>
  );
}

/* ---- views ---- */

function Overview({ model, onSelect, gone }: Props & { gone: boolean }) {
  const pods = [...model.pods.values()].sort((a, b) => podKey(a).localeCompare(podKey(b), "en", { numeric: true }));
  const nodes = [...model.namespaces.values()].filter((n) => n.kind === "node");
  return (
    <>
      <Head kind={t("panel.inspector")} title={t("ins.overview")} />
      <p class="dim ins-hint">{gone ? t("ins.gone") : t("ins.overview.hint")}</p>
      <Section title={t("ins.nodes")} count={nodes.length}>
        <ul class="pick-list">
          {nodes.map((n) => (
            <li key={n.id}>
              <button type="button" onClick={() => onSelect(nsBoxId(n.id))}>
                <span class="mono strong">{n.name}</span>
                <span class="mono dim end">{address((n.links ?? []).find((l) => l.name === "eth0"))}</span>
              </button>
            </li>
          ))}
        </ul>
      </Section>
      <Section title={t("ins.pods")} count={pods.length}>
        {pods.length === 0 && <p class="dim none">{t("ins.noPods")}</p>}
        <ul class="pick-list">
          {pods.map((p) => (
            <li key={podKey(p)}>
              <button type="button" onClick={() => onSelect(podId(podKey(p)))}>
                <span class={`dot state-${podState(p).state}`} aria-hidden="true" />
                <span class="mono strong">{p.namespace === "default" ? p.name : podKey(p)}</span>
                {p.status !== "Running" && <Status pod={p} />}
                <span class="mono dim end">{(p.ips ?? []).find((a) => a.includes(".")) ?? p.node}</span>
              </button>
            </li>
          ))}
        </ul>
      </Section>
    </>
  );
}

function PodView(p: Props & { pod: Pod }) {
  const { pod, model, onSelect } = p;
  const key = podKey(pod);
  const ns = pod.netns ? model.namespaces.get(pod.netns) : undefined;
  const node = [...model.namespaces.values()].find((n) => n.kind === "node" && n.name === pod.node);
  return (
    <>
      <Head kind={t("kind.pod")} title={pod.namespace === "default" ? pod.name : key} status={<Status pod={pod} />} onClose={() => onSelect("")}>
        {!p.readOnly && pod.phase === "Running" && <IconButton icon="terminal" label={t("ins.terminal")} onClick={() => p.onTerminal(pod.namespace === "default" ? pod.name : `${key}/${pod.containers?.[0]?.name ?? ""}`)} />}
      </Head>
      <Facts
        rows={[
          [t("ins.addresses"), (pod.ips ?? []).length > 0 && <span class="mono stack">{(pod.ips ?? []).map((a) => <span key={a}>{a}</span>)}</span>],
          [t("ins.node"), node ? <Go id={nsBoxId(node.id)} onSelect={onSelect}>{pod.node}</Go> : pod.node],
          [t("ins.namespace"), ns ? <span class="mono">net:[{ns.inode}]</span> : ""],
          [t("ins.age"), <span class="num">{sinceShort(new Date(pod.createdAt), new Date())}</span>],
          [t("ins.labels"), pod.labels && <span class="mono">{Object.entries(pod.labels).map(([k, v]) => `${k}=${v}`).join(", ")}</span>],
        ]}
      />
      <Section title={t("ins.containers")} count={pod.containers?.length ?? 0}>
        <ul class="pick-list">
          {(pod.containers ?? []).map((c) => (
            <li key={c.name}>
              <button type="button" onClick={() => onSelect(containerId(key, c.name))}>
                <span class={`dot ctr-${c.state}${c.ready ? " ready" : ""}`} aria-hidden="true" />
                <span class="mono strong">{c.name}</span>
                <span class="mono dim end">{(c.ports ?? []).map((n) => `:${n}`).join(" ") || c.reason || c.state}</span>
              </button>
              {c.message && <p class="note bad small">{c.message}</p>}
            </li>
          ))}
        </ul>
      </Section>
      <Lifecycle steps={model.steps.get(key) ?? []} />
      {ns && <NamespaceSections ns={ns} model={model} onSelect={onSelect} />}
      <PodCommands model={model} pod={key} />
    </>
  );
}

/** stepName is a step as the course names it, in the page's language. */
export function stepName(s: StepEvent): string {
  const key = `step.${s.course}.${s.number}`;
  return isKey(key) ? t(key) : s.name;
}

function Lifecycle({ steps }: { steps: readonly StepEvent[] }) {
  const courses = ["create", "terminate"].map((c) => [c, steps.filter((s) => s.course === c)] as const).filter(([, s]) => s.length > 0);
  return (
    <Section title={t("ins.lifecycle")}>
      {courses.length === 0 && <p class="dim none">{t("ins.lifecycle.none")}</p>}
      {courses.map(([course, list]) => {
        const total = list.reduce((n, s) => n + s.micros, 0);
        const longest = Math.max(1, ...list.map((s) => s.micros));
        return (
          <div key={course}>
            <p class="steps-head">
              <span>{t(`ins.lifecycle.${course}` as MessageKey)}</span>
              <span class="mono dim">{micros(total)}</span>
            </p>
            <ol class="steps">
              {list.map((s) => (
                <li key={`${s.number}-${s.startedAt}`} class={s.error ? "bad" : ""}>
                  <span class="step-no num">{s.number}</span>
                  <span class="step-name">
                    {stepName(s)}
                    {(s.error || s.detail) && <small class="mono">{s.error || s.detail}</small>}
                  </span>
                  <span class="step-time mono">
                    {micros(s.micros)}
                    <svg class="step-bar" viewBox="0 0 40 3" preserveAspectRatio="none" aria-hidden="true">
                      <rect width={Math.max(1, (s.micros / longest) * 40)} height="3" rx="1" />
                    </svg>
                  </span>
                </li>
              ))}
            </ol>
          </div>
        );
      })}
    </Section>
  );
}

const MAX_COMMANDS = 60;

function PodCommands({ model, pod }: { model: Model; pod: string }) {
  const ops = model.log.filter((e) => e.op?.pod === pod).slice(-MAX_COMMANDS);
  if (ops.length === 0) return null;
  return (
    <Section title={t("ins.commands")} count={ops.length}>
      <ul class="mini-commands">
        {ops.map((e) => (
          <li key={e.seq} class={e.op!.error ? "bad" : ""}>
            <code>{e.op!.command}</code>
            <span class="mono dim">{micros(e.op!.micros)}</span>
            <CopyButton text={e.op!.command} label={t("cmds.copy")} done={t("page.copied")} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

function ContainerView(p: Props & { pod: Pod; container: Container }) {
  const { pod, container: c, onSelect } = p;
  const key = podKey(pod);
  return (
    <>
      <Head kind={t("ins.container")} title={c.name} status={<span class={`pod-status ctr-${c.state}${c.ready ? " ready" : ""}`}>{c.reason || c.state}</span>} onClose={() => onSelect("")}>
        {!p.readOnly && c.state === "running" && <IconButton icon="terminal" label={t("ins.terminal")} onClick={() => p.onTerminal(pod.namespace === "default" ? `${pod.name}/${c.name}` : `${key}/${c.name}`)} />}
      </Head>
      {c.message && <p class="note bad small ins-note">{c.message}</p>}
      <Facts
        rows={[
          [t("kind.pod"), <Go id={podId(key)} onSelect={onSelect}>{pod.name}</Go>],
          [t("ins.image"), <span class="mono">{c.image}</span>],
          [t("ins.ports"), <span class="mono">{(c.ports ?? []).join(", ")}</span>],
          [t("ins.restarts"), <span class="num">{c.restarts}</span>],
          [t("ins.exit"), c.exitCode !== undefined && <span class="num">{c.exitCode}</span>],
        ]}
      />
    </>
  );
}

function NamespaceView(p: Props & { ns: Namespace }) {
  const { ns, model, onSelect } = p;
  const pod = [...model.pods.values()].find((x) => x.netns === ns.id);
  const isNode = ns.kind === "node";
  const here = isNode ? [...model.pods.values()].filter((x) => x.node === ns.name) : [];
  return (
    <>
      <Head kind={t(`kind.${ns.kind}`)} title={ns.kind === "underlay" ? t("map.underlay") : ns.name} onClose={() => onSelect("")}>
        {isNode && !p.readOnly && <IconButton icon="terminal" label={t("ins.terminal")} onClick={() => p.onTerminal(`node:${ns.name}`)} />}
      </Head>
      <Facts
        rows={[
          [t("ins.namespace"), <span class="mono">net:[{ns.inode}]</span>],
          [t("ins.node"), ns.node && ns.node !== ns.name ? <span class="mono">{ns.node}</span> : ""],
          [t("kind.pod"), pod && <Go id={podId(podKey(pod))} onSelect={onSelect}>{pod.name}</Go>],
        ]}
      />
      {isNode && (
        <Section title={t("ins.pods")} count={here.length}>
          {here.length === 0 && <p class="dim none">{t("ins.noPods")}</p>}
          <ul class="pick-list">
            {here.map((x) => (
              <li key={podKey(x)}>
                <button type="button" onClick={() => onSelect(podId(podKey(x)))}>
                  <span class={`dot state-${podState(x).state}`} aria-hidden="true" />
                  <span class="mono strong">{x.name}</span>
                  <span class="mono dim end">{(x.ips ?? [])[0] ?? x.status}</span>
                </button>
              </li>
            ))}
          </ul>
        </Section>
      )}
      <NamespaceSections ns={ns} model={model} onSelect={onSelect} />
    </>
  );
}

function LinkView(p: Props & { ns: Namespace; link: Link }) {
  const { ns, link, model, onSelect } = p;
  const peer = peerOf(model, link.peer);
  const master = ns.links?.find((l) => l.index === link.master);
  const members = (ns.links ?? []).filter((l) => l.master === link.index);
  const state = link.up ? (link.running ? "up" : "nocarrier") : "down";
  const pod = [...model.pods.values()].find((x) => x.netns === ns.id);
  return (
    <>
      <Head kind={`${link.kind} · ${ns.kind === "underlay" ? t("map.underlay") : ns.name}`} title={link.name} status={<span class={`port-word ${state}`}>{t(`port.${state}`)}</span>} onClose={() => onSelect("")} />
      <Facts
        rows={[
          [t("ins.addresses"), (link.addrs ?? []).length > 0 && <span class="mono stack">{(link.addrs ?? []).map((a) => <span key={a.prefix}>{a.prefix}</span>)}</span>],
          [t("ins.mac"), <span class="mono">{link.mac}</span>],
          [t("ins.mtu"), <span class="num">{link.mtu}</span>],
          [t("ins.kind"), <span class="mono">{link.kind}</span>],
          [t(`kind.${ns.kind}`), <Go id={pod ? podId(podKey(pod)) : nsBoxId(ns.id)} onSelect={onSelect}>{ns.name}</Go>],
          [t("ins.peer"), peer && <Go id={peer.id} onSelect={onSelect}>{peer.text}</Go>],
          [t("ins.master"), master && <Go id={linkId(ns.id, master.index)} onSelect={onSelect}>{master.name}</Go>],
          [t("ins.vni"), link.vxlan && <span class="num">{link.vxlan.vni}</span>],
          [t("ins.udpPort"), link.vxlan && <span class="num">{link.vxlan.port}</span>],
          [t("ins.local"), link.vxlan && <span class="mono">{link.vxlan.local}</span>],
        ]}
      />
      {link.kind === "bridge" && (
        <Section title={t("ins.members")} count={members.length}>
          <ul class="pick-list">
            {members.map((m) => (
              <li key={m.index}>
                <button type="button" onClick={() => onSelect(linkId(ns.id, m.index))}>
                  <PortDot link={m} />
                  <span class="mono strong">{m.name}</span>
                  <span class="mono dim end">{peerOf(model, m.peer)?.text}</span>
                </button>
              </li>
            ))}
          </ul>
        </Section>
      )}
      {(link.kind === "bridge" || link.kind === "vxlan") && (
        <Section title={t("ins.fdb")}>
          <Fdb ns={ns} dev={link.name} />
        </Section>
      )}
      <Section title={t("ins.neighbours")}>
        <Neighbours ns={ns} dev={link.name} />
      </Section>
    </>
  );
}

function TunnelView(p: Props & { a: { ns: Namespace; link: Link }; b: { ns: Namespace; link: Link } }) {
  const { a, b, onSelect } = p;
  const knows = (x: typeof a, y: typeof a) => (x.ns.fdb ?? []).some((f) => f.dev === x.link.name && f.dst === y.link.vxlan?.local);
  const oneWay = !knows(a, b) || !knows(b, a);
  return (
    <>
      <Head kind={t("ins.tunnel")} title={`${a.ns.name} ⇄ ${b.ns.name}`} onClose={() => onSelect("")} />
      {oneWay && <p class="note warn small ins-note">{t("ins.tunnel.oneway")}</p>}
      <Facts
        rows={[
          [t("ins.vni"), <span class="num">{a.link.vxlan?.vni}</span>],
          [t("ins.udpPort"), <span class="num">{a.link.vxlan?.port}</span>],
          [t("ins.mtu"), <span class="num">{a.link.mtu}</span>],
        ]}
      />
      <Section title={t("ins.tunnel.ends")}>
        <ul class="pick-list">
          {[a, b].map((x) => (
            <li key={x.ns.id}>
              <button type="button" onClick={() => onSelect(linkId(x.ns.id, x.link.index))}>
                <PortDot link={x.link} />
                <span class="mono strong">
                  {x.ns.name} {x.link.name}
                </span>
                <span class="mono dim end">{x.link.vxlan?.local}</span>
              </button>
            </li>
          ))}
        </ul>
      </Section>
      {[a, b].map((x) => (
        <Section key={x.ns.id} title={`${t("ins.fdb")} · ${x.ns.name}`}>
          <Fdb ns={x.ns} dev={x.link.name} />
        </Section>
      ))}
    </>
  );
}

