// What a reader prefers: language and theme in cookies, because the server
// draws the next page with them; sizes and the like in this browser only.

const YEAR = 365 * 24 * 3600;

export function setCookie(name: string, value: string): void {
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `podlab_${name}=${encodeURIComponent(value)}; path=/; max-age=${YEAR}; samesite=lax${secure}`;
}

export function load<T>(key: string, fallback: T): T {
  try {
    const s = localStorage.getItem(`podlab.${key}`);
    return s === null ? fallback : (JSON.parse(s) as T);
  } catch {
    return fallback; // storage is off, or holds what an older page wrote
  }
}

export function save(key: string, value: unknown): void {
  try {
    localStorage.setItem(`podlab.${key}`, JSON.stringify(value));
  } catch {
    // storage is off or full: the page works without
  }
}

export type ThemeName = "" | "light" | "dark";
const THEMES: readonly ThemeName[] = ["", "light", "dark"];
const listeners = new Set<() => void>();

export function theme(): ThemeName {
  const v = document.documentElement.dataset["theme"];
  return v === "light" || v === "dark" ? v : "";
}

/** isDark is what is shown, whether chosen or the device's. */
export function isDark(): boolean {
  return theme() === "dark" || (theme() === "" && matchMedia("(prefers-color-scheme: dark)").matches);
}

export function setTheme(to: ThemeName): void {
  if (to === "") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = to;
  setCookie("theme", to);
  for (const f of listeners) f();
}

/** nextTheme is the one after the present in the order device, light, dark. */
export function nextTheme(): ThemeName {
  return THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]!;
}

export function onTheme(f: () => void): () => void {
  listeners.add(f);
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", f);
  return () => {
    listeners.delete(f);
    media.removeEventListener("change", f);
  };
}
