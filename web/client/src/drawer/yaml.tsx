// The manifest editor with its apply button and what the lab answered.
import { useEffect, useRef, useState } from "preact/hooks";
import type { ApplyResult } from "../gen/agentapi.ts";
import type { Error as LabError } from "../gen/lab.ts";
import type { LabBoot } from "../gen/view.ts";
import { ApiError, type Api } from "../api.ts";
import { inLang, t } from "../i18n.ts";
import { load, save } from "../prefs.ts";
import { Icon } from "../ui.tsx";
import type { DrawerControl } from "./control.ts";
import type { Editor } from "./editor.ts";

type Outcome = { readonly applied: NonNullable<ApplyResult["objects"]> } | { readonly errors: readonly LabError[]; readonly message: string } | null;

export function Yaml({ boot, api, control }: { boot: LabBoot; api: Api; control: DrawerControl }) {
  const host = useRef<HTMLDivElement>(null);
  const editor = useRef<Editor | null>(null);
  const [busy, setBusy] = useState(false);
  const [outcome, setOutcome] = useState<Outcome>(null);
  const key = `yaml.${boot.id}`;
  const apply = useRef<() => void>(() => undefined);

  useEffect(() => {
    let gone = false;
    void import("./editor.ts").then(({ createEditor }) => {
      if (gone) return;
      editor.current = createEditor(host.current!, {
        text: control.offered ?? load(key, boot.templates?.[0]?.yaml ?? ""),
        label: t("yaml.label"),
        readOnly: Boolean(boot.readOnly),
        onApply: () => apply.current(),
        onChange: (text) => {
          save(key, text);
          setOutcome(null);
          editor.current?.show([]);
        },
      });
      if (control.offered !== null) save(key, control.offered);
      control.offered = null;
    });
    return () => {
      gone = true;
      editor.current?.destroy();
      editor.current = null;
    };
  }, []);
  useEffect(() => {
    if (control.offered === null || !editor.current) return;
    editor.current.replace(control.offered);
    control.offered = null;
    editor.current.focus();
  });

  apply.current = () => {
    const text = editor.current?.text() ?? "";
    if (busy || boot.readOnly) return;
    if (text.trim() === "") {
      setOutcome({ errors: [], message: t("yaml.empty") });
      return;
    }
    setBusy(true);
    setOutcome(null);
    api
      .apply(text)
      .then((r) => {
        const errors = r.errors ?? [];
        editor.current?.show(errors);
        setOutcome(errors.length > 0 ? { errors, message: t("yaml.failed") } : { applied: r.objects ?? [] });
      })
      .catch((e: unknown) => {
        const errors = e instanceof ApiError ? e.errors : [];
        editor.current?.show(errors);
        setOutcome({ errors, message: errors.length > 0 ? t("yaml.failed") : e instanceof Error ? e.message : String(e) });
      })
      .finally(() => setBusy(false));
  };
  const pick = (id: string) => {
    const tpl = boot.templates?.find((x) => x.id === id);
    if (tpl) editor.current?.replace(tpl.yaml);
  };
  return (
    <div class="pane">
      <div class="pane-bar">
        <button type="button" class="button primary small" disabled={busy || boot.readOnly} onClick={() => apply.current()} title={t("yaml.hint")}>
          <Icon name="play" />
          {busy ? t("yaml.applying") : t("yaml.apply")}
        </button>
        <select
          aria-label={t("yaml.template")}
          value=""
          disabled={boot.readOnly}
          onChange={(ev) => {
            pick(ev.currentTarget.value);
            ev.currentTarget.value = "";
          }}
        >
          <option value="">{t("yaml.template.pick")}</option>
          {(boot.templates ?? []).map((x) => (
            <option key={x.id} value={x.id}>
              {inLang(x.title)}
            </option>
          ))}
        </select>
        <span class="grow" />
        <span class="dim small">{boot.readOnly ? t("yaml.readonly") : t("yaml.hint")}</span>
      </div>
      <div class="editor" ref={host} />
      <div class="outcome" role="status">
        {outcome && "applied" in outcome && (
          <ul class="outcome-ok">
            {outcome.applied.map((o) => (
              <li key={`${o.kind}/${o.namespace}/${o.name}`}>
                <Icon name="check" />
                <span class="mono">
                  {o.kind.toLowerCase()}/{o.name}
                </span>
                <span class="dim">{t(`yaml.done.${o.action === "created" ? "created" : o.action === "configured" ? "configured" : "unchanged"}`)}</span>
              </li>
            ))}
          </ul>
        )}
        {outcome && "errors" in outcome && (
          <div class="outcome-bad">
            <p>{outcome.message}</p>
            <ul>
              {outcome.errors.map((e, i) => (
                <li key={i}>
                  {e.line ? <button type="button" class="link-button num" onClick={() => (editor.current?.show([e]), editor.current?.focus())}>{t("yaml.line", { n: e.line })}</button> : null}
                  {e.field && <code>{e.field}</code>} {e.message}
                </li>
              ))}
            </ul>
          </div>
        )}
      </div>
    </div>
  );
}
