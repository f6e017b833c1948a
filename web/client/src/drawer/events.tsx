// The lab's events, newest at the end, filtered by kind and by words.
import { useMemo, useState } from "preact/hooks";
import type { Event } from "../gen/lab.ts";
import { clockTime, micros } from "../format.ts";
import { lang, t } from "../i18n.ts";
import type { Model } from "../model/state.ts";
import { load, save } from "../prefs.ts";
import { CopyButton, Icon } from "../ui.tsx";
import { describe, GROUPS, groupOf, place, type Group } from "./describe.ts";
import { VirtualList } from "./virtual.tsx";

const ROW_REM = 1.625;

/** relative is the time since the event before it in the list. */
function relative(e: Event, before: Event | undefined): string {
  if (!before) return "";
  return `+${micros(Math.max(0, (new Date(e.time).getTime() - new Date(before.time).getTime()) * 1000))}`;
}

export function Events({ model }: { model: Model }) {
  const [hidden, setHidden] = useState<Group[]>(load("events.hidden", ["neigh", "op"] as Group[]));
  const [rel, setRel] = useState(load("events.relative", false));
  const [query, setQuery] = useState("");
  const items = useMemo(() => {
    const q = query.trim().toLowerCase();
    return model.log.filter((e) => {
      if (hidden.includes(groupOf(e))) return false;
      if (q === "") return true;
      const d = describe(e);
      return `${e.kind} ${d.place} ${d.text}`.toLowerCase().includes(q);
    });
  }, [model.log, hidden, query, lang()]);
  const toggle = (g: Group) => {
    const next = hidden.includes(g) ? hidden.filter((x) => x !== g) : [...hidden, g];
    save("events.hidden", next);
    setHidden(next);
  };
  return (
    <div class="pane">
      <div class="pane-bar">
        <div class="chips" role="group" aria-label={t("events.filter")}>
          {GROUPS.map((g) => (
            <button type="button" key={g} class="chip" aria-pressed={!hidden.includes(g)} onClick={() => toggle(g)}>
              {t(`events.group.${g}`)}
            </button>
          ))}
        </div>
        <span class="grow" />
        <label class="search">
          <Icon name="search" />
          <input type="search" value={query} placeholder={t("events.search")} aria-label={t("events.search")} onInput={(ev) => setQuery(ev.currentTarget.value)} />
        </label>
        <button
          type="button"
          class="chip"
          aria-pressed={rel}
          onClick={() => {
            save("events.relative", !rel);
            setRel(!rel);
          }}
        >
          {t("events.relative")}
        </button>
        <span class="dim num bar-count">{t("events.count", { n: items.length })}</span>
      </div>
      {items.length === 0 ? (
        <p class="pane-empty dim">{t(model.log.length === 0 ? "events.empty" : "events.none")}</p>
      ) : (
        <VirtualList
          items={items}
          rowHeight={ROW_REM}
          label={t("events.label")}
          keyOf={(e) => e.seq}
          row={(e, i) => {
            const d = describe(e);
            return (
              <div class={`event tone-${d.tone || "plain"}`} title={d.text}>
                <time class="mono dim" dateTime={e.time}>
                  {rel ? relative(e, items[i - 1]) : clockTime(new Date(e.time))}
                </time>
                <span class="event-kind mono">{e.kind}</span>
                <span class="event-place mono">{d.place}</span>
                <span class="event-text mono">{d.text}</span>
              </div>
            );
          }}
        />
      )}
    </div>
  );
}

/** Commands lists what podlab did to the kernel, as the commands they equal. */
export function Commands({ model }: { model: Model }) {
  const [where, setWhere] = useState("");
  const ops = useMemo(() => model.log.filter((e) => e.op), [model.log]);
  const places = useMemo(() => [...new Set(ops.map((e) => e.ns ?? ""))].filter(Boolean).sort(), [ops]);
  const items = where ? ops.filter((e) => e.ns === where) : ops;
  if (ops.length === 0) return <p class="pane-empty dim">{t("cmds.empty")}</p>;
  return (
    <div class="pane">
      <div class="pane-bar">
        <label class="select">
          <span class="dim">{t("cmds.place")}</span>
          <select value={where} onChange={(ev) => setWhere(ev.currentTarget.value)}>
            <option value="">{t("cmds.all")}</option>
            {places.map((p) => (
              <option key={p} value={p}>
                {p}
              </option>
            ))}
          </select>
        </label>
        <span class="grow" />
        <button type="button" class="button small" onClick={() => void navigator.clipboard.writeText(items.map((e) => e.op!.command).join("\n"))}>
          <Icon name="copy" />
          {t("cmds.copyAll")}
        </button>
        <span class="dim num bar-count">{t("events.count", { n: items.length })}</span>
      </div>
      <VirtualList
        items={items}
        rowHeight={ROW_REM}
        label={t("cmds.label")}
        keyOf={(e) => e.seq}
        row={(e) => (
          <div class={`event op ${e.op!.error ? "tone-bad" : ""}`} title={e.op!.error || e.op!.command}>
            <time class="mono dim" dateTime={e.time}>
              {clockTime(new Date(e.time))}
            </time>
            <span class="event-place mono">{place(e.ns)}</span>
            <code class="event-text">{e.op!.command}</code>
            <span class="mono dim op-time">{e.op!.error ? e.op!.error : micros(e.op!.micros)}</span>
            <CopyButton text={e.op!.command} label={t("cmds.copy")} done={t("page.copied")} />
          </div>
        )}
      />
    </div>
  );
}
