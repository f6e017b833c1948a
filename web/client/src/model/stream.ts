// The lab's one WebSocket: opened, read, and opened again after the last event
// that was seen, waiting longer each time.
import type { StreamMessage } from "../gen/view.ts";

export type Connection =
  | { readonly status: "connecting" | "live" | "ended" }
  | { readonly status: "waiting"; readonly attempt: number; readonly retryAt: number };

export interface StreamHandlers {
  /** resume is the query to go on with, "" for a new start. */
  resume(): string;
  message(m: StreamMessage): void;
  connection(c: Connection): void;
}

/** A server that answers, then falls silent for this long, is taken as gone. */
const FIRST_FRAME_MS = 10_000;
const WAIT_MS = [250, 500, 1000, 2000, 4000, 8000, 15_000];

/** backoff is how long to wait before a try, with a spread so that a class
 * does not come back in one moment. */
export function backoff(attempt: number, random: number): number {
  const base = WAIT_MS[Math.min(attempt, WAIT_MS.length - 1)]!;
  return Math.round(base * (0.75 + random / 2));
}

export class Stream {
  private socket: WebSocket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private attempt = 0;
  private closed = false;
  private readonly path: string;
  private readonly handlers: StreamHandlers;

  constructor(path: string, handlers: StreamHandlers) {
    this.path = path;
    this.handlers = handlers;
    addEventListener("online", this.now);
    document.addEventListener("visibilitychange", this.visible);
  }

  open(): void {
    if (this.closed) return;
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.path}${this.handlers.resume()}`);
    this.socket = socket;
    if (this.attempt === 0) this.handlers.connection({ status: "connecting" });
    let spoke = false;
    const silent = setTimeout(() => !spoke && socket.close(), FIRST_FRAME_MS);
    socket.onmessage = (ev) => {
      if (this.socket !== socket) return;
      if (!spoke) {
        spoke = true;
        this.attempt = 0;
        this.handlers.connection({ status: "live" });
      }
      this.handlers.message(JSON.parse(String(ev.data)) as StreamMessage);
    };
    socket.onclose = () => {
      clearTimeout(silent);
      if (this.socket === socket) this.retry();
    };
  }

  /** again drops the connection and begins anew, with what `after` says now. */
  again(): void {
    const old = this.socket;
    this.socket = null;
    old?.close();
    this.open();
  }

  /** now tries at once in place of waiting. */
  readonly now = (): void => {
    if (!this.socket && !this.closed) this.open();
  };

  private readonly visible = (): void => {
    if (document.visibilityState === "visible") this.now();
  };

  private retry(): void {
    this.socket = null;
    if (this.closed) return;
    const wait = backoff(this.attempt++, Math.random());
    this.handlers.connection({ status: "waiting", attempt: this.attempt, retryAt: Date.now() + wait });
    this.timer = setTimeout(() => this.open(), wait);
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.now);
    document.removeEventListener("visibilitychange", this.visible);
    this.socket?.close();
    this.handlers.connection({ status: "ended" });
  }
}
