// The left column: the lesson as the server rendered it, with commands that
// can be clicked, and the tasks with their live checks where the text has them.
import { render, type ComponentChild } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Check, CheckResult, Exercise, LabBoot, Task } from "../gen/view.ts";
import { ApiError, type Api } from "../api.ts";
import { inLang, lang, t } from "../i18n.ts";
import { checkKey, type Model } from "../model/state.ts";
import { Icon, useLang } from "../ui.tsx";

export type TaskState = "open" | "passed" | "failed";

/** resultOf is a check's last result, or none. */
function resultOf(checks: ReadonlyMap<string, CheckResult>, task: Task, check: Check): CheckResult | undefined {
  return checks.get(checkKey({ task: task.id, check: check.id }));
}

/** taskState is "passed" when all of a task's checks pass. */
export function taskState(checks: ReadonlyMap<string, CheckResult>, task: Task): TaskState {
  const results = (task.checks ?? []).map((c) => resultOf(checks, task, c)?.status);
  return results.length > 0 && results.every((s) => s === "pass") ? "passed" : "open";
}

interface LessonProps {
  boot: LabBoot;
  api: Api;
  model: Model;
  onRun: (target: string, command: string) => void;
  onOpen: (yaml: string) => void;
}

export function Lesson(props: LessonProps) {
  useLang();
  const e = props.boot.exercise;
  if (!e)
    return (
      <div class="lesson-scroll" tabIndex={0}>
        <p class="eyebrow">{t("lab.free")}</p>
        <h1>{props.boot.name}</h1>
        <p class="prose dim">{t("lesson.free")}</p>
      </div>
    );
  const done = (e.tasks ?? []).filter((task) => taskState(props.model.checks, task) === "passed").length;
  const current = (e.tasks ?? []).find((task) => taskState(props.model.checks, task) !== "passed");
  return (
    <>
      <div class="lesson-scroll" tabIndex={0} role="region" aria-label={t("panel.lesson")}>
        <p class="eyebrow">{t("lab.exercise", { n: e.minutes })}</p>
        <h1>{inLang(e.title)}</h1>
        <Prose {...props} exercise={e} key={lang()} />
      </div>
      <CurrentTask exercise={e} done={done} current={current} model={props.model} />
    </>
  );
}

/** Prose puts the server's HTML in once for each language and then draws
 * buttons and task cards into it, so that text is never drawn again. */
function Prose(props: LessonProps & { exercise: Exercise }) {
  const ref = useRef<HTMLDivElement>(null);
  const slots = useRef<{ element: Element; draw: () => ComponentChild }[]>([]);
  const latest = useRef(props);
  latest.current = props;

  useLayoutEffect(() => {
    const root = ref.current!;
    root.innerHTML = inLang(props.exercise.lesson);
    slots.current = [];
    const placed = new Set<string>();
    for (const pre of root.querySelectorAll<HTMLElement>("pre[data-run], pre[data-apply]")) decorate(pre, latest);
    for (const pre of root.querySelectorAll<HTMLElement>("pre:not(.command-run pre)")) pre.tabIndex = 0; // to be scrolled by keyboard
    for (const slot of root.querySelectorAll<HTMLElement>("[data-task]")) {
      const index = (props.exercise.tasks ?? []).findIndex((x) => x.id === slot.dataset["task"]);
      const task = props.exercise.tasks?.[index];
      if (!task) continue;
      placed.add(task.id);
      slots.current.push({ element: slot, draw: () => <TaskCard task={task} number={index + 1} {...latest.current} /> });
    }
    (props.exercise.tasks ?? []).forEach((task, i) => {
      if (placed.has(task.id)) return;
      const slot = document.createElement("div");
      slot.dataset["task"] = task.id;
      root.append(slot);
      slots.current.push({ element: slot, draw: () => <TaskCard task={task} number={i + 1} {...latest.current} /> });
    });
    return () => {
      for (const s of slots.current) render(null, s.element);
    };
  }, []);
  useLayoutEffect(() => {
    for (const s of slots.current) render(s.draw(), s.element);
  }, [props.model.checks]);
  return <div class="prose" ref={ref} />;
}

/** decorate makes a block of the lesson clickable. */
function decorate(pre: HTMLElement, latest: { current: LessonProps }): void {
  const code = pre.querySelector("code") ?? pre;
  const body = code.textContent ?? "";
  const target = pre.dataset["run"];
  const disabled = latest.current.boot.readOnly;
  const figure = document.createElement("figure");
  figure.className = target ? "command" : "manifest";
  pre.replaceWith(figure);
  pre.tabIndex = 0;
  const button = document.createElement("button");
  button.type = "button";
  button.disabled = Boolean(disabled);
  if (target) {
    button.className = "command-run";
    button.append(pre.cloneNode(true));
    const where = document.createElement("span");
    where.className = "command-where";
    where.textContent = `${t("lesson.run", { place: target.replace(/^node:/, "") })} ↵`;
    button.append(where);
    button.querySelector("pre")!.removeAttribute("tabindex");
    button.addEventListener("click", () => latest.current.onRun(target, body.trimEnd()));
    figure.append(button);
    return;
  }
  const caption = document.createElement("figcaption");
  caption.innerHTML = "";
  const name = document.createElement("span");
  name.className = "mono";
  name.textContent = pre.dataset["apply"] ?? "";
  button.className = "button small";
  button.textContent = t("lesson.open");
  button.addEventListener("click", () => latest.current.onOpen(body));
  caption.append(name, button);
  figure.append(caption, pre);
}

const MARKS = { pass: "check", fail: "", error: "", pending: "" } as const;

function CheckRow({ task, check, checks }: { task: Task; check: Check; checks: ReadonlyMap<string, CheckResult> }) {
  const r = resultOf(checks, task, check);
  const status = r?.status ?? "pending";
  const got = inLang(r?.got);
  const want = inLang(r?.want);
  return (
    <li class={`check check-${status}`}>
      <span class="check-mark" aria-hidden="true">
        {MARKS[status] && <Icon name="check" />}
        {status === "error" && "!"}
      </span>
      <div>
        <p class="check-title">
          {inLang(check.title)} <span class="visually-hidden">({t(`check.${status}`)})</span>
        </p>
        {got && (
          <p class="check-fact">
            <span>{t("check.got")}</span> {got}
          </p>
        )}
        {status !== "pass" && want && (
          <p class="check-fact">
            <span>{t("check.want")}</span> {want}
          </p>
        )}
      </div>
    </li>
  );
}

function TaskCard({ task, number, model, api, boot }: LessonProps & { task: Task; number: number }) {
  const [hints, setHints] = useState<string[]>([]);
  const [error, setError] = useState("");
  const state = taskState(model.checks, task);
  const was = useRef(state);
  const [broken, setBroken] = useState(false);
  useEffect(() => {
    if (was.current === "passed" && state !== "passed") setBroken(true);
    if (state === "passed") setBroken(false);
    was.current = state;
  }, [state]);
  const shown: TaskState = state === "passed" ? "passed" : broken ? "failed" : "open";
  const more = async () => {
    try {
      const { text } = await api.hint(task.id, hints.length + 1);
      setHints([...hints, inLang(text)]);
      setError("");
    } catch (e) {
      setError(t("hint.none", { error: e instanceof ApiError ? e.message : String(e) }));
    }
  };
  return (
    <section class={`task-card task-card-${shown}`} id={`task-${task.id}`} aria-label={t("task.number", { n: number })}>
      <header>
        <span class="task-no num" aria-hidden="true">
          {shown === "passed" ? <Icon name="check" /> : number}
        </span>
        <h3>{inLang(task.title)}</h3>
        <span class="task-word">{t(`task.${shown}`)}</span>
      </header>
      <ul>
        {(task.checks ?? []).map((c) => (
          <CheckRow key={c.id} task={task} check={c} checks={model.checks} />
        ))}
      </ul>
      {hints.map((h, i) => (
        <p class="hint" key={i}>
          <Icon name="bulb" />
          <span>{ticks(h)}</span>
        </p>
      ))}
      {error && <p class="note bad small">{error}</p>}
      {hints.length < task.hints && shown !== "passed" && !boot.readOnly && (
        <button type="button" class="button quiet small hint-button" onClick={() => void more()}>
          <Icon name="bulb" />
          {t("hint.show", { n: hints.length + 1, total: task.hints })}
        </button>
      )}
    </section>
  );
}

/** ticks shows what stands between backquotes as code. */
export function ticks(s: string): ComponentChild[] {
  return s.split(/`([^`]+)`/).map((part, i) => (i % 2 === 1 ? <code key={i}>{part}</code> : part));
}

/** CurrentTask keeps the task at hand and its state in sight. */
function CurrentTask({ exercise, done, current, model }: { exercise: Exercise; done: number; current: Task | undefined; model: Model }) {
  const total = exercise.tasks?.length ?? 0;
  const go = () => document.getElementById(`task-${current?.id}`)?.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  const failing = current?.checks?.find((c) => resultOf(model.checks, current, c)?.status !== "pass");
  const got = current && failing ? inLang(resultOf(model.checks, current, failing)?.got) : "";
  return (
    <footer class={`current-task ${current ? "" : "all-done"}`} aria-live="polite">
      <button type="button" onClick={go} disabled={!current}>
        <span class="current-line">
          <span class="current-title">{current ? inLang(current.title) : t("lesson.allDone")}</span>
          <span class="num dim">
            {done}/{total}
          </span>
        </span>
        {failing && (
          <span class="current-check dim">
            {inLang(failing.title)}
            {got && ` · ${t("check.got")}: ${got}`}
          </span>
        )}
      </button>
    </footer>
  );
}
