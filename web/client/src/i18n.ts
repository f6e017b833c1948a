import { messages, type MessageKey } from "./gen/messages.ts";
import type { Lang, Text } from "./gen/view.ts";
import { setCookie } from "./prefs.ts";

export type { MessageKey };

const listeners = new Set<() => void>();

/** lang is the page's language just now. */
export function lang(): Lang {
  return document.documentElement.lang === "en" ? "en" : "ko";
}

/** setLang switches the page in place; nothing is loaded again. */
export function setLang(to: Lang): void {
  document.documentElement.lang = to;
  setCookie("lang", to);
  for (const f of listeners) f();
}

/** onLang calls f after each switch, until the returned function is called. */
export function onLang(f: () => void): () => void {
  listeners.add(f);
  return () => listeners.delete(f);
}

/** t is the message of key in the page's language, its places filled in. */
export function t(key: MessageKey, places?: Record<string, string | number>): string {
  let s: string = messages[key][lang()];
  if (places) for (const [name, value] of Object.entries(places)) s = s.replaceAll(`{${name}}`, String(value));
  return s;
}

/** isKey tells whether a string from the page or the server is a message. */
export function isKey(key: string): key is MessageKey {
  return key in messages;
}

/** inLang is a text in the page's language, or in the one that it has. */
export function inLang(text: Text | undefined): string {
  return text?.[lang()] || text?.ko || text?.en || "";
}
