// Every page: language and theme switches, times told in words, and forms that
// ask before they delete and are sent once.
import { isKey, lang, onLang, setLang, t } from "./i18n.ts";
import { ago } from "./format.ts";
import { nextTheme, setTheme, theme } from "./prefs.ts";

const all = <T extends HTMLElement>(selector: string) => document.querySelectorAll<T>(selector);

function attribute(selector: string, data: string, apply: (e: HTMLElement, text: string) => void): void {
  for (const e of all(selector)) {
    const key = e.dataset[data];
    if (key && isKey(key)) apply(e, t(key));
  }
}

function translate(): void {
  attribute("[data-t]", "t", (e, s) => (e.textContent = s));
  attribute("[data-t-label]", "tLabel", (e, s) => e.setAttribute("aria-label", s));
  attribute("[data-t-placeholder]", "tPlaceholder", (e, s) => e.setAttribute("placeholder", s));
  attribute("title[data-t-title]", "tTitle", (_, s) => (document.title = `${s} · podlab`));
  for (const e of all("[data-lang-set]")) e.setAttribute("aria-pressed", String(e.dataset["langSet"] === lang()));
  times();
  themeLabel();
}

function times(): void {
  for (const e of document.querySelectorAll<HTMLTimeElement>("time[datetime]")) {
    const at = new Date(e.dateTime);
    e.textContent = ago(at, new Date());
    e.title = at.toLocaleString(lang());
  }
}

function themeLabel(): void {
  const key = `theme.${theme() || "system"}`;
  for (const e of all("[data-theme-cycle]")) {
    const label = isKey(key) ? `${t("page.theme")}: ${t(key)}` : "";
    e.setAttribute("aria-label", label);
    e.title = label;
  }
}

document.addEventListener("click", (ev) => {
  const target = ev.target instanceof Element ? ev.target : null;
  const langButton = target?.closest<HTMLElement>("[data-lang-set]");
  if (langButton) setLang(langButton.dataset["langSet"] === "en" ? "en" : "ko");
  if (target?.closest("[data-theme-cycle]")) {
    setTheme(nextTheme());
    themeLabel();
  }
  const copy = target?.closest<HTMLElement>("[data-copy]");
  if (copy) void navigator.clipboard.writeText(copy.dataset["copy"] ?? "").then(() => (copy.textContent = t("page.copied")));
});

document.addEventListener("submit", (ev) => {
  const form = ev.target as HTMLFormElement;
  const ask = form.dataset["confirm"];
  if (ask && isKey(ask) && !confirm(t(ask))) {
    ev.preventDefault();
    return;
  }
  if (form.dataset["once"] !== undefined) {
    // After the browser has taken the form's values.
    setTimeout(() => form.querySelectorAll("button").forEach((b) => (b.disabled = true)));
  }
});
// A page that comes back from the browser's cache must be usable again.
addEventListener("pageshow", (ev) => {
  if (ev.persisted) document.querySelectorAll<HTMLButtonElement>("form[data-once] button").forEach((b) => (b.disabled = false));
});

onLang(translate);
translate();
setInterval(times, 30_000);
