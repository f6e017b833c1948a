import { lang, t } from "./i18n.ts";

const pad = (n: number, width = 2) => String(n).padStart(width, "0");

/** clockTime is the local time of day with milliseconds. */
export function clockTime(at: Date): string {
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

/** ago is "3 minutes ago" in the page's language. */
export function ago(at: Date, now: Date): string {
  const seconds = Math.round((at.getTime() - now.getTime()) / 1000);
  const f = new Intl.RelativeTimeFormat(lang(), { numeric: "auto", style: "short" });
  const size = Math.abs(seconds);
  if (size < 10) return t("time.now");
  if (size < 60) return f.format(seconds, "second");
  if (size < 3600) return f.format(Math.round(seconds / 60), "minute");
  if (size < 86400) return f.format(Math.round(seconds / 3600), "hour");
  return f.format(Math.round(seconds / 86400), "day");
}

/** sinceShort is a short age as kubectl prints it: 8s, 3m, 2h. */
export function sinceShort(at: Date, now: Date): string {
  const s = Math.max(0, Math.round((now.getTime() - at.getTime()) / 1000));
  if (s < 120) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m`;
  if (s < 86400) return `${Math.floor(s / 3600)}h`;
  return `${Math.floor(s / 86400)}d`;
}

/** micros is a duration given in microseconds, with its unit. */
export function micros(n: number): string {
  if (n < 1000) return `${Math.round(n)} µs`;
  if (n < 10_000) return `${(n / 1000).toFixed(2)} ms`;
  if (n < 1_000_000) return `${(n / 1000).toFixed(0)} ms`;
  return `${(n / 1e6).toFixed(2)} s`;
}
