// The drawer below the map: shells on the left of its tabs, tools on the right.
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { LabBoot } from "../gen/view.ts";
import type { Api } from "../api.ts";
import { t } from "../i18n.ts";
import { podKey, type Model } from "../model/state.ts";
import { Icon, IconButton, Menu, useLang, useTick, type MenuItem } from "../ui.tsx";
import type { DrawerControl } from "./control.ts";
import { Commands, Events } from "./events.tsx";
import type { Session } from "./session.ts";
import { Yaml } from "./yaml.tsx";

const TOOLS = ["events", "yaml", "commands"] as const;

interface Props {
  boot: LabBoot;
  api: Api;
  model: Model;
  control: DrawerControl;
  open: boolean;
  onOpen: (open: boolean) => void;
}

/** shortTarget is how a tab names a place. */
const shortTarget = (target: string) => target.replace(/^node:/, "");

export function Drawer(props: Props) {
  useLang();
  const { control, model } = props;
  useTick((f) => control.subscribe(f));
  const tabs = [...control.sessions.map((s) => s.info.id), ...TOOLS];
  const show = (tab: string) => {
    control.show(tab);
    props.onOpen(true);
  };
  const onKey = (ev: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[ev.key];
    if (!step) return;
    ev.preventDefault();
    const next = tabs[(tabs.indexOf(control.tab) + step + tabs.length) % tabs.length]!;
    show(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  const tab = (id: string, label: preact.ComponentChildren, extra?: preact.ComponentChildren) => (
    <div class={`tab ${control.tab === id ? "on" : ""}`} key={id} role="presentation">
      <button type="button" role="tab" id={`tab-${id}`} aria-selected={control.tab === id} aria-controls="drawer-panel" tabIndex={control.tab === id ? 0 : -1} onClick={() => show(id)}>
        {label}
      </button>
      {extra}
    </div>
  );
  const active = control.sessions.find((s) => s.info.id === control.tab);
  return (
    <section class="drawer" aria-label={t("panel.drawer")}>
      <div class="tabs">
        <div class="tab-list" role="tablist" aria-label={t("panel.drawer")} onKeyDown={onKey}>
          {control.sessions.map((s) =>
            tab(
              s.info.id,
              <>
                <span class={`dot term-${s.state}`} aria-hidden="true" />
                <span class="mono">{shortTarget(s.info.target)}</span>
              </>,
            ),
          )}
          <span class="tab-gap" role="presentation" />
          {tab("events", <>{t("drawer.events")}</>)}
          {tab("yaml", t("drawer.yaml"))}
          {tab("commands", t("drawer.commands"))}
        </div>
        {!props.boot.readOnly && <Menu class="new-terminal" button={<Icon name="plus" />} label={t("drawer.new")} items={places(model, control)} empty={t("drawer.nowhere")} up />}
        {active && <IconButton icon="close" label={t("drawer.closeTab", { name: shortTarget(active.info.target) })} onClick={() => control.close(active)} />}
        <IconButton icon="bottom" label={t("panel.toggleDrawer")} pressed={props.open} onClick={() => props.onOpen(!props.open)} />
      </div>
      {props.open && (
        <div class="drawer-panel" id="drawer-panel" role="tabpanel" aria-labelledby={`tab-${control.tab}`}>
          {control.error && (
            <p class="note bad small drawer-error" role="alert">
              {control.error}
            </p>
          )}
          {active ? (
            <TerminalPane key={active.info.id} session={active} control={control} />
          ) : control.opening ? (
            <p class="pane-empty dim">{t("term.opening")}</p>
          ) : control.tab === "yaml" ? (
            <Yaml boot={props.boot} api={props.api} control={control} />
          ) : control.tab === "commands" ? (
            <Commands model={model} />
          ) : (
            <Events model={model} />
          )}
        </div>
      )}
    </section>
  );
}

/** places are where a shell can be opened: nodes, and running containers. */
function places(model: Model, control: DrawerControl): MenuItem[] {
  const items: MenuItem[] = [];
  for (const n of model.namespaces.values())
    if (n.kind === "node") items.push({ id: `node:${n.name}`, group: t("drawer.nodes"), label: <span class="mono">{n.name}</span>, run: () => void control.open(`node:${n.name}`) });
  const pods = [...model.pods.values()].sort((a, b) => podKey(a).localeCompare(podKey(b), "en", { numeric: true }));
  for (const p of pods) {
    const running = (p.containers ?? []).filter((c) => c.state === "running");
    for (const c of running) {
      const base = p.namespace === "default" ? p.name : `${p.namespace}/${p.name}`;
      const target = p.namespace === "default" && running.length === 1 ? p.name : `${base}/${c.name}`;
      items.push({
        id: target,
        group: t("drawer.pods"),
        label: (
          <span class="mono">
            {base}
            {running.length > 1 && <span class="dim">/{c.name}</span>}
          </span>
        ),
        run: () => void control.open(target),
      });
    }
  }
  return items;
}

function TerminalPane({ session, control }: { session: Session; control: DrawerControl }) {
  const host = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    host.current!.append(session.element);
    session.fit();
  }, [session]);
  useEffect(() => session.focus(), [session]);
  return (
    <div class="term-pane">
      <div class="term-host" ref={host} />
      <div class="term-side">
        <button type="button" class="chip" aria-pressed={control.screenReader} onClick={() => control.toggleScreenReader()}>
          {t("term.reader")}
        </button>
      </div>
      {session.state === "waiting" && (
        <p class="term-note warn" role="status">
          {t("term.waiting")}
        </p>
      )}
      {session.readOnly && <p class="term-note">{t("term.readonly")}</p>}
      {session.state === "ended" && (
        <p class="term-note" role="status">
          {t("term.ended", { code: session.exitCode ?? 0 })}
          <button
            type="button"
            class="button small"
            onClick={() => {
              const target = session.info.target;
              control.close(session);
              void control.open(target);
            }}
          >
            {t("term.again")}
          </button>
        </p>
      )}
    </div>
  );
}
