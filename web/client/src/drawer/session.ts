// One shell of the lab and its terminal in the page. The session outlives its
// connection: it comes back after the last byte that it has shown, and never
// sends anything that the reader did not type.
import type { Terminal as ShellInfo, TerminalControl } from "../gen/agentapi.ts";
import type { FitAddon } from "@xterm/addon-fit";
import type { ITheme, Terminal } from "@xterm/xterm";
import { t } from "../i18n.ts";
import { isDark, load, onTheme } from "../prefs.ts";
import { backoff } from "../model/stream.ts";

export type SessionState = "connecting" | "live" | "waiting" | "ended";

const FONT = '"JetBrains Mono Variable", "D2Coding Cells", "Noto Sans Mono CJK KR", monospace';
const SCROLLBACK_LINES = 5000;

/** theme gives xterm the page's colours. */
function theme(): ITheme {
  const css = getComputedStyle(document.documentElement);
  const v = (name: string) => css.getPropertyValue(name).trim();
  const dark = isDark();
  return {
    background: v("--term-bg"),
    foreground: v("--text"),
    cursor: v("--accent"),
    cursorAccent: v("--term-bg"),
    selectionBackground: v("--sel-strong"),
    black: dark ? "#3a4555" : "#18202c",
    red: v("--bad"),
    green: v("--ok"),
    yellow: v("--warn"),
    blue: v("--accent-text"),
    magenta: v("--tunnel"),
    cyan: dark ? "#5cc8d0" : "#0f7583",
    white: dark ? "#c9d1db" : "#566172",
    brightBlack: v("--dim"),
    brightRed: v("--bad"),
    brightGreen: v("--ok"),
    brightYellow: v("--warn"),
    brightBlue: v("--accent-text"),
    brightMagenta: v("--tunnel"),
    brightCyan: dark ? "#7adbe2" : "#0f7583",
    brightWhite: v("--text"),
  };
}

export class Session {
  readonly info: ShellInfo;
  readonly element: HTMLDivElement;
  state: SessionState = "connecting";
  exitCode: number | null = null;
  private term: Terminal | null = null;
  private fitter: FitAddon | null = null;
  private socket: WebSocket | null = null;
  /** offset of the next byte to come; where to go on after a reconnect. */
  private offset = 0;
  /** past: bytes up to here were written before this connection. */
  private past = 0;
  private shown = 0;
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private closed = false;
  private waiting: string | null = null;
  private wantsFocus = false;
  private readonly path: string;
  private readonly changed: () => void;
  private readonly offTheme: () => void;
  private readonly observer: ResizeObserver;
  readonly readOnly: boolean;

  constructor(base: string, info: ShellInfo, readOnly: boolean, changed: () => void) {
    this.info = info;
    this.readOnly = readOnly;
    this.path = `${base}/terminals/${encodeURIComponent(info.id)}`;
    this.changed = changed;
    this.element = document.createElement("div");
    this.element.className = "term";
    this.offTheme = onTheme(() => this.term && (this.term.options.theme = theme()));
    this.observer = new ResizeObserver(() => this.fit());
    void this.start();
  }

  private async start(): Promise<void> {
    const [{ Terminal }, { FitAddon }, { Unicode11Addon }, { WebLinksAddon }] = await Promise.all([
      import("@xterm/xterm"),
      import("@xterm/addon-fit"),
      import("@xterm/addon-unicode11"),
      import("@xterm/addon-web-links"),
      document.fonts.load(`13px ${FONT}`, "root@pod-a:~# 가"),
    ]);
    if (this.closed) return;
    const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
    const term = new Terminal({
      fontFamily: FONT,
      fontSize: Math.round(12.5 * scale * 2) / 2,
      lineHeight: 1.25,
      cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
      scrollback: SCROLLBACK_LINES,
      allowProposedApi: true, // for the widths of Unicode 11
      theme: theme(),
      screenReaderMode: load("term.reader", false),
      disableStdin: this.readOnly,
      minimumContrastRatio: 4.5,
    });
    this.term = term;
    this.fitter = new FitAddon();
    term.loadAddon(this.fitter);
    term.loadAddon(new Unicode11Addon());
    term.unicode.activeVersion = "11";
    term.loadAddon(new WebLinksAddon());
    term.open(this.element);
    term.textarea?.setAttribute("aria-label", t("term.label", { name: this.info.target }));
    term.onData((data) => this.input(data));
    term.onBinary((data) => this.input(data));
    term.onResize(() => this.sendSize());
    term.attachCustomKeyEventHandler((ev) => {
      const copy = ev.type === "keydown" && (ev.ctrlKey || ev.metaKey) && ev.key.toLowerCase() === "c" && term.hasSelection();
      if (copy) {
        void navigator.clipboard.writeText(term.getSelection());
        if (ev.shiftKey || ev.metaKey) ev.preventDefault();
        else term.clearSelection();
        return false;
      }
      // Tab cycles leave the terminal with Ctrl+Shift+Tab, else a keyboard would be caught in it.
      return !(ev.key === "Tab" && ev.ctrlKey);
    });
    this.observer.observe(this.element);
    this.fit();
    if (this.wantsFocus) this.focus();
    if (this.info.ended) this.exitCode = this.info.exitCode;
    this.connect();
  }

  private connect(): void {
    if (this.closed) return;
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.path}?after=${this.offset}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    // Until the first frame says where the past ends, all of it is past.
    this.past = Infinity;
    socket.onmessage = (ev) => {
      if (this.socket !== socket) return;
      if (typeof ev.data === "string") this.control(JSON.parse(ev.data) as TerminalControl);
      else this.output(new Uint8Array(ev.data as ArrayBuffer));
    };
    socket.onclose = () => this.socket === socket && this.lost();
  }

  private control(c: TerminalControl): void {
    if (c.offset !== undefined) {
      // The first frame of each connection says where it goes on.
      if (c.offset > this.offset && this.offset > 0) this.term?.write(`\r\n\x1b[2m[${t("term.lost", { n: c.offset - this.offset })}]\x1b[0m\r\n`);
      this.offset = c.offset;
      this.shown = c.offset;
      this.past = c.end ?? c.offset;
      this.attempt = 0;
      if (this.state !== "ended") this.set("live");
      this.sendSize();
    }
    if (c.exit !== undefined) {
      this.exitCode = c.exit;
      this.set("ended");
    }
  }

  private output(bytes: Uint8Array): void {
    this.offset += bytes.length;
    const end = this.offset;
    this.term?.write(bytes, () => {
      this.shown = end;
      if (this.waiting !== null && this.shown >= this.past) {
        const text = this.waiting;
        this.waiting = null;
        this.send(text);
      }
    });
  }

  /** input passes on what was typed. What the terminal itself answers to a
   * question in its past is not typed, and dropped. */
  private input(data: string): void {
    if (this.readOnly || this.shown < this.past) return;
    this.send(data);
  }

  private send(data: string): void {
    if (this.socket?.readyState === WebSocket.OPEN && this.state === "live") this.socket.send(new TextEncoder().encode(data));
  }

  /** run types a command, once the shell has shown its prompt. It is asked for
   * by a click, and forgotten if the shell cannot be reached. */
  run(command: string): void {
    const text = `${command.replaceAll("\n", "\r")}\r`;
    if (this.state === "live" && this.offset > 0 && this.shown >= this.past) this.send(text);
    else this.waiting = text;
    this.focus();
  }

  private lost(): void {
    this.socket = null;
    this.waiting = null; // nothing is typed by itself after a reconnect
    if (this.closed || this.state === "ended") return;
    this.set("waiting");
    if (this.attempt === 2) void this.askWhether();
    this.timer = setTimeout(() => this.connect(), backoff(this.attempt++, Math.random()));
  }

  /** askWhether finds out that the shell is gone for good. */
  private async askWhether(): Promise<void> {
    const list = await fetch(this.path.replace(/\/[^/]*$/, "")).then((r) => (r.ok ? (r.json() as Promise<ShellInfo[] | null>) : null)).catch(() => null);
    if (!list || list.some((x) => x.id === this.info.id) || this.closed) return;
    clearTimeout(this.timer);
    this.set("ended");
  }

  private set(state: SessionState): void {
    if (this.state === state) return;
    this.state = state;
    this.changed();
  }

  fit(): void {
    if (this.element.offsetWidth > 0 && this.element.offsetHeight > 0) this.fitter?.fit();
  }

  private sendSize(): void {
    if (!this.term || this.readOnly || this.socket?.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify({ cols: this.term.cols, rows: this.term.rows } satisfies TerminalControl));
  }

  set screenReader(on: boolean) {
    if (this.term) this.term.options.screenReaderMode = on;
  }

  focus(): void {
    this.wantsFocus = this.term === null; // its code is still on the way
    this.term?.focus();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.offTheme();
    this.observer.disconnect();
    this.socket?.close();
    this.term?.dispose();
    this.element.remove();
  }
}
