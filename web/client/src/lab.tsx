// The lab page: a lesson, a live map, an inspector and a drawer, over one store.
import { render, type ComponentChildren } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { LabBoot } from "./gen/view.ts";
import { Api, ApiError } from "./api.ts";
import { DrawerControl } from "./drawer/control.ts";
import { Drawer } from "./drawer/drawer.tsx";
import { inLang, lang, setLang, t } from "./i18n.ts";
import { TopologyMap } from "./map/map.tsx";
import { Store } from "./model/store.ts";
import { Inspector } from "./panels/inspector.tsx";
import { Lesson, taskState } from "./panels/lesson.tsx";
import { load, nextTheme, save, setTheme, theme } from "./prefs.ts";
import { Icon, IconButton, Menu, Splitter, useLang, useModel, useTick } from "./ui.tsx";

interface PageProps {
  boot: LabBoot;
  store: Store;
  api: Api;
  control: DrawerControl;
}

/** OVERLAY is the width up to which the inspector lies over the map (lab-page.css). */
const OVERLAY = 1120;

/** usePanel is whether a panel is open, remembered. */
function usePanel(name: string, fallback: boolean): [boolean, (open: boolean) => void] {
  const [open, set] = useState(load(`panel.${name}`, fallback));
  return [
    open,
    (v) => {
      save(`panel.${name}`, v);
      set(v);
    },
  ];
}

const size = (name: string, px: number) => document.documentElement.style.setProperty(`--${name}`, `${px}px`);

function Page({ boot, store, api, control }: PageProps) {
  useLang();
  const model = useModel(store);
  const [selected, setSelected] = useState("");
  const [lessonOpen, setLessonOpen] = usePanel("lesson", true);
  const [inspectorOpen, setInspectorOpen] = usePanel("inspector", innerWidth > OVERLAY);
  const [drawerOpen, setDrawerOpen] = usePanel("drawer", true);

  const instance = model.lab.instance;
  useEffect(() => {
    if (instance > 1) control.closeAll();
  }, [instance]);
  useEffect(() => {
    if (model.known) void control.restore();
  }, [model.known, instance]);
  useEffect(() => {
    document.title = `${boot.exercise ? inLang(boot.exercise.title) : boot.name} · podlab`;
  });

  const pick = (id: string) => {
    setSelected(id);
    if (id !== "") setInspectorOpen(true);
  };
  const terminal = (target: string) => {
    setDrawerOpen(true);
    const there = control.sessions.find((s) => s.info.target === target && s.state !== "ended");
    if (there) control.show(there.info.id);
    else void control.open(target);
  };
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  // What is not known to be true any more loses its colours of state.
  const stale = store.connection.status === "waiting" || model.lab.phase === "failed" || Boolean(model.lab.deleted);
  return (
    <div class={`lab ${stale ? "stale" : ""} ${lessonOpen ? "" : "no-lesson"} ${inspectorOpen ? "" : "no-inspector"} ${drawerOpen ? "" : "no-drawer"}`}>
      <Header
        boot={boot}
        store={store}
        api={api}
        toggles={
          <>
            <IconButton icon="left" label={t("panel.toggleLesson")} pressed={lessonOpen} onClick={() => setLessonOpen(!lessonOpen)} />
            <IconButton icon="right" label={t("panel.toggleInspector")} pressed={inspectorOpen} onClick={() => setInspectorOpen(!inspectorOpen)} />
          </>
        }
      />
      <Notice store={store} />
      {lessonOpen && (
        <aside class="lesson" aria-label={t("panel.lesson")}>
          <Lesson
            boot={boot}
            api={api}
            model={model}
            onRun={(target, command) => {
              setDrawerOpen(true);
              void control.run(target, command);
            }}
            onOpen={(yaml) => {
              setDrawerOpen(true);
              control.offer(yaml);
            }}
          />
        </aside>
      )}
      {lessonOpen && <Splitter axis="x" name="lesson" label={t("panel.resizeLesson")} min={240} max={() => innerWidth * 0.45} fallback={21.25 * rem} onChange={(px) => size("lesson", px)} />}
      <main class="stage">
        <Stage boot={boot} store={store} api={api} selected={selected} onSelect={pick} />
        {drawerOpen && <Splitter axis="y" name="drawer" reverse label={t("panel.resizeDrawer")} min={120} max={() => innerHeight * 0.7} fallback={17 * rem} onChange={(px) => size("drawer", px)} />}
        <Drawer boot={boot} api={api} model={model} control={control} open={drawerOpen} onOpen={setDrawerOpen} />
      </main>
      {inspectorOpen && <Splitter axis="x" name="inspector" reverse label={t("panel.resizeInspector")} min={240} max={() => innerWidth * 0.45} fallback={21.25 * rem} onChange={(px) => size("inspector", px)} />}
      {inspectorOpen && (
        <aside class="inspector" aria-label={t("panel.inspector")}>
          <Inspector model={model} selected={selected} readOnly={Boolean(boot.readOnly)} onSelect={pick} onTerminal={terminal} />
        </aside>
      )}
    </div>
  );
}

function Header({ boot, store, api, toggles }: { boot: LabBoot; store: Store; api: Api; toggles: ComponentChildren }) {
  const [, redraw] = useState(0);
  const model = store.model;
  const tasks = boot.exercise?.tasks ?? [];
  const states = tasks.map((task) => taskState(model.checks, task));
  const current = states.findIndex((s) => s !== "passed");
  const done = states.filter((s) => s === "passed").length;
  const failed = (e: unknown) => alert(e instanceof ApiError ? e.message : String(e));
  const themeName = t(`theme.${theme() || "system"}`);
  return (
    <header class="top">
      <a class="logo" href="/" aria-label="podlab">
        <svg viewBox="0 0 20 20" aria-hidden="true" class="logo-mark">
          <rect x="2.5" y="3" width="15" height="9.5" rx="2.5" />
          <rect x="7.75" y="10" width="4.5" height="4.5" rx="1" class="logo-port" />
          <path d="M10 14.5v3M4 17.5h12" />
        </svg>
        <span>
          pod<b>lab</b>
        </span>
      </a>
      <span class="crumb">{boot.exercise ? inLang(boot.exercise.title) : boot.name}</span>
      {tasks.length > 0 && (
        <span class="pips" role="img" aria-label={t("lesson.progress", { done, total: tasks.length })}>
          {states.map((s, i) => (
            <i key={i} class={s === "passed" ? "on" : i === current ? "now" : ""} />
          ))}
        </span>
      )}
      <span class="grow" />
      {boot.readOnly && <span class="badge">{t("lab.readonly", { name: boot.owner ?? "" })}</span>}
      <ConnectionState store={store} />
      <span class="top-group">{toggles}</span>
      <div class="segmented" role="group" aria-label={t("page.language")}>
        <button type="button" lang="ko" aria-pressed={lang() === "ko"} onClick={() => setLang("ko")}>
          한국어
        </button>
        <button type="button" lang="en" aria-pressed={lang() === "en"} onClick={() => setLang("en")}>
          EN
        </button>
      </div>
      <IconButton
        icon="theme"
        label={`${t("page.theme")}: ${themeName}`}
        onClick={() => {
          setTheme(nextTheme());
          redraw((n) => n + 1);
        }}
      />
      {boot.user && <span class="user-name">{boot.user.name}</span>}
      <Menu
        class="lab-menu"
        button={<Icon name="more" />}
        label={t("lab.menu")}
        items={[
          { id: "home", label: t("lab.home"), run: () => location.assign("/") },
          { id: "kubeconfig", label: t("lab.kubeconfig"), run: () => location.assign(`${api.base}/kubeconfig`) },
          ...(boot.readOnly
            ? []
            : [
                { id: "restart", label: t("lab.restart"), run: () => void (confirm(t("lab.restart.confirm")) && api.restart().catch(failed)) },
                {
                  id: "delete",
                  label: t("lab.delete"),
                  danger: true,
                  run: () =>
                    void (
                      confirm(t("home.delete.confirm")) &&
                      api
                        .delete()
                        .then(() => location.assign("/"))
                        .catch(failed)
                    ),
                },
              ]),
        ]}
      />
    </header>
  );
}

function ConnectionState({ store }: { store: Store }) {
  useTick((f) => store.subscribe(f));
  const c = store.connection;
  const tone = c.status === "live" ? "ok" : c.status === "waiting" ? "bad" : "warn";
  const word = c.status === "waiting" ? t("conn.ended") : t(`conn.${c.status}`);
  return (
    <span class="conn" role="status">
      <span class={`dot ${tone}`} aria-hidden="true" />
      {word}
    </span>
  );
}

/** Notice says above everything that what is seen may be old. */
function Notice({ store }: { store: Store }) {
  const c = store.connection;
  const [, tick] = useState(0);
  useEffect(() => {
    if (c.status !== "waiting") return;
    const timer = setInterval(() => tick((n) => n + 1), 500);
    return () => clearInterval(timer);
  }, [c]);
  const version = useMemo(() => ({ first: "" }), []);
  version.first ||= store.model.version;
  if (c.status === "waiting" && c.attempt > 1)
    return (
      <div class="notice warn" role="alert">
        <span>{t("conn.waiting", { s: Math.max(0, Math.ceil((c.retryAt - Date.now()) / 1000)) })}</span>
        <span class="dim">{t("conn.stale")}</span>
        <button type="button" class="button small" onClick={store.retryNow}>
          {t("conn.now")}
        </button>
      </div>
    );
  if (store.model.version !== version.first)
    return (
      <div class="notice" role="status">
        <span>{t("lab.newVersion")}</span>
        <button type="button" class="button small" onClick={() => location.reload()}>
          {t("lab.reload")}
        </button>
      </div>
    );
  return null;
}

/** Stage is the map, or what there is in its place. */
function Stage({ boot, store, api, selected, onSelect }: { boot: LabBoot; store: Store; api: Api; selected: string; onSelect: (id: string) => void }) {
  const { model } = store;
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const { phase, reason, deleted } = model.lab;
  const restart = () => {
    setBusy(true);
    setError("");
    api
      .restart()
      .catch((e: unknown) => setError(e instanceof Error ? e.message : String(e)))
      .finally(() => setBusy(false));
  };
  if (deleted)
    return (
      <Panel title={t("lab.deleted.title")} text={t("lab.deleted.text")}>
        <a class="button primary" href="/">
          {t("lab.home")}
        </a>
      </Panel>
    );
  if (phase === "deleting") return <Panel title={t("lab.deleting.title")} text="" busy />;
  if (phase === "failed")
    return (
      <Panel title={t("lab.failed.title")} text={t("lab.failed.text")} tone="bad">
        {reason && <p class="note bad mono">{reason}</p>}
        {error && <p class="note bad">{error}</p>}
        {!boot.readOnly && (
          <button type="button" class="button primary" disabled={busy} onClick={restart}>
            {t("lab.restart")}
          </button>
        )}
      </Panel>
    );
  if (model.error && !model.known)
    return (
      <Panel title={t("error.500.title")} text={model.error.message} tone="bad">
        <button type="button" class="button" onClick={() => location.reload()}>
          {t("lab.reload")}
        </button>
      </Panel>
    );
  if (!model.known) return <Panel title={phase === "creating" ? t("lab.creating.title") : t("lab.opening")} text={phase === "creating" ? t("lab.creating.text") : ""} busy />;
  return <TopologyMap model={model} workerURL={boot.assets!["layout-worker.js"]!} selected={selected} onSelect={onSelect} />;
}

function Panel({ title, text, busy, tone, children }: { title: string; text: string; busy?: boolean; tone?: "bad"; children?: ComponentChildren }) {
  return (
    <section class={`map stage-panel ${tone ?? ""}`} role="status">
      <div>
        {busy && <span class="progress" aria-hidden="true" />}
        <h2>{title}</h2>
        {text && <p class="dim">{text}</p>}
        {children}
      </div>
    </section>
  );
}

function main(): void {
  const boot = JSON.parse(document.getElementById("boot")!.textContent!) as LabBoot;
  const store = new Store(boot);
  const api = new Api(boot);
  const control = new DrawerControl(api, Boolean(boot.readOnly));
  for (const name of ["lesson", "inspector", "drawer"]) {
    const px = load<number | null>(`size.${name}`, null);
    if (px !== null) size(name, px);
  }
  const root = document.getElementById("lab")!;
  root.replaceChildren();
  render(<Page boot={boot} store={store} api={api} control={control} />, root);
  store.start();
}

main();
