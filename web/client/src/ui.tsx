// Small pieces that every panel uses.
import type { ComponentChildren } from "preact";
import { useEffect, useReducer, useRef } from "preact/hooks";
import { onLang } from "./i18n.ts";
import { load, save } from "./prefs.ts";
import type { Store } from "./model/store.ts";
import type { Model } from "./model/state.ts";

/** useTick draws the component again when f's subscription fires. */
export function useTick(subscribe: (f: () => void) => () => void): void {
  const [, tick] = useReducer<number, void>((n) => n + 1, 0);
  useEffect(() => subscribe(() => tick()), []);
}

export function useModel(store: Store): Model {
  useTick((f) => store.subscribe(f));
  return store.model;
}

export function useLang(): void {
  useTick(onLang);
}

/** Icons: 16 × 16, one line weight, drawn for podlab. */
const ICONS = {
  plus: "M8 3.5v9M3.5 8h9",
  minus: "M3.5 8h9",
  close: "M4.5 4.5l7 7M11.5 4.5l-7 7",
  check: "M3.5 8.5l3 3 6-7",
  fit: "M2.75 6V2.75H6M10 2.75h3.25V6M13.25 10v3.25H10M6 13.25H2.75V10",
  table: "M2.75 3.25h10.5v9.5H2.75zM2.75 6.5h10.5M6.5 6.5v6.25",
  copy: "M5.75 5.75v-3h7.5v7.5h-3M2.75 5.75h7.5v7.5h-7.5z",
  play: "M5 3.25v9.5l7.5-4.75z",
  terminal: "M3 4.5L6.5 8 3 11.5M8 11.75h5",
  left: "M2.75 3.25h10.5v9.5H2.75zM6.25 3.25v9.5",
  right: "M2.75 3.25h10.5v9.5H2.75zM9.75 3.25v9.5",
  bottom: "M2.75 3.25h10.5v9.5H2.75zM2.75 9.25h10.5",
  chevron: "M4.5 6.25L8 9.75l3.5-3.5",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  bulb: "M6 12.5h4M6.75 14.25h2.5M8 1.75a4 4 0 0 0-2.25 7.3c.5.4.75.9.75 1.45h3c0-.55.25-1.05.75-1.45A4 4 0 0 0 8 1.75z",
  search: "M7 3a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM10 10l3.25 3.25",
  file: "M4 1.75h5.25L12 4.5v9.75H4zM9.25 1.75V4.5H12",
  down: "M8 3v9.5M4 8.75L8 12.5l4-3.75",
  theme: "M8 2.75a5.25 5.25 0 1 0 0 10.5 5.25 5.25 0 1 0 0-10.5",
} as const;
export type IconName = keyof typeof ICONS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 16 16" aria-hidden="true">
      <path d={ICONS[name]} />
      {name === "theme" && <path class="fill" d="M8 2.75v10.5a5.25 5.25 0 0 0 0-10.5z" />}
    </svg>
  );
}

export function IconButton(props: { icon: IconName; label: string; onClick: (ev: MouseEvent) => void; pressed?: boolean; disabled?: boolean; class?: string }) {
  return (
    <button
      type="button"
      class={`icon-button ${props.class ?? ""}`}
      aria-label={props.label}
      title={props.label}
      aria-pressed={props.pressed}
      disabled={props.disabled}
      onClick={props.onClick}
    >
      <Icon name={props.icon} />
    </button>
  );
}

/** Menu is a button with a list of actions, by keyboard too. */
export interface MenuItem {
  readonly id: string;
  readonly label: ComponentChildren;
  readonly group?: string;
  readonly danger?: boolean;
  readonly run: () => void;
}

export function Menu(props: { button: ComponentChildren; label: string; items: MenuItem[]; class?: string; empty?: string; up?: boolean }) {
  const ref = useRef<HTMLDetailsElement>(null);
  const close = () => {
    const d = ref.current;
    if (d?.open) {
      d.open = false;
      d.querySelector("summary")?.focus();
    }
  };
  useEffect(() => {
    const outside = (ev: Event) => {
      if (ref.current?.open && !ref.current.contains(ev.target as Node)) ref.current.open = false;
    };
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, []);
  const onKey = (ev: KeyboardEvent) => {
    if (ev.key === "Escape") close();
    if (ev.key !== "ArrowDown" && ev.key !== "ArrowUp") return;
    ev.preventDefault();
    const d = ref.current!;
    if (!d.open) d.open = true;
    const items = [...d.querySelectorAll<HTMLButtonElement>(".menu button")];
    const at = items.indexOf(document.activeElement as HTMLButtonElement);
    items[(at + (ev.key === "ArrowDown" ? 1 : -1) + items.length) % items.length]?.focus();
  };
  let group = "";
  return (
    <details ref={ref} class={`menu-root ${props.class ?? ""} ${props.up ? "menu-up" : ""}`} onKeyDown={onKey}>
      <summary class="icon-button menu-button" aria-label={props.label} title={props.label}>
        {props.button}
      </summary>
      <div class="menu">
        {props.items.length === 0 && <p class="menu-empty">{props.empty}</p>}
        {props.items.map((it) => {
          const head = it.group && it.group !== group ? it.group : "";
          if (it.group) group = it.group;
          return [
            head && (
              <p class="menu-group" key={`g-${head}`}>
                {head}
              </p>
            ),
            <button
              type="button"
              key={it.id}
              class={it.danger ? "danger" : ""}
              onClick={() => {
                close();
                it.run();
              }}
            >
              {it.label}
            </button>,
          ];
        })}
      </div>
    </details>
  );
}

/** Splitter resizes what is beside it, with the pointer or the arrow keys. */
export function Splitter(props: { label: string; axis: "x" | "y"; name: string; min: number; max: () => number; reverse?: boolean; fallback: number; onChange: (px: number) => void }) {
  const size = useRef(load<number>(`size.${props.name}`, props.fallback));
  const ref = useRef<HTMLDivElement>(null);
  const set = (px: number) => {
    const v = Math.round(Math.min(Math.max(px, props.min), props.max()));
    size.current = v;
    ref.current?.setAttribute("aria-valuenow", String(v));
    props.onChange(v);
  };
  const onPointerDown = (ev: PointerEvent & { currentTarget: HTMLDivElement }) => {
    ev.preventDefault();
    const start = props.axis === "x" ? ev.clientX : ev.clientY;
    const from = size.current;
    const target = ev.currentTarget;
    target.setPointerCapture(ev.pointerId);
    const move = (e: PointerEvent) => {
      const delta = (props.axis === "x" ? e.clientX : e.clientY) - start;
      set(from + (props.reverse ? -delta : delta));
    };
    const up = () => {
      target.removeEventListener("pointermove", move);
      save(`size.${props.name}`, size.current);
    };
    target.addEventListener("pointermove", move);
    target.addEventListener("pointerup", up, { once: true });
    target.addEventListener("pointercancel", up, { once: true });
  };
  const onKeyDown = (ev: KeyboardEvent) => {
    const keys: Record<string, number> = props.axis === "x" ? { ArrowLeft: -16, ArrowRight: 16 } : { ArrowUp: -16, ArrowDown: 16 };
    const step = keys[ev.key];
    if (step === undefined) return;
    ev.preventDefault();
    set(size.current + (props.reverse ? -step : step));
    save(`size.${props.name}`, size.current);
  };
  return (
    <div
      ref={ref}
      class={`splitter splitter-${props.axis} splitter-${props.name}`}
      role="separator"
      tabIndex={0}
      aria-label={props.label}
      aria-orientation={props.axis === "x" ? "vertical" : "horizontal"}
      aria-valuenow={size.current}
      aria-valuemin={props.min}
      aria-valuemax={props.max()}
      onPointerDown={onPointerDown}
      onKeyDown={onKeyDown}
      onDblClick={() => {
        set(props.fallback);
        save(`size.${props.name}`, props.fallback);
      }}
    />
  );
}

/** CopyButton copies and says so. */
export function CopyButton({ text, label, done }: { text: string; label: string; done: string }) {
  const copy = (ev: MouseEvent) => {
    ev.stopPropagation();
    const b = ev.currentTarget as HTMLButtonElement;
    void navigator.clipboard.writeText(text).then(() => {
      b.classList.add("done");
      b.setAttribute("aria-label", done);
      setTimeout(() => {
        b.classList.remove("done");
        b.setAttribute("aria-label", label);
      }, 1500);
    });
  };
  return (
    <button type="button" class="icon-button copy" aria-label={label} title={label} onClick={copy}>
      <Icon name="copy" />
      <Icon name="check" />
    </button>
  );
}
