// The page's one store: messages are gathered and worked in once a frame, so
// that a thousand events in a second cost sixty renderings, not a thousand.
import type { Event } from "../gen/lab.ts";
import type { LabBoot, StreamMessage } from "../gen/view.ts";
import { initial, reduce, withPast, type Model } from "./state.ts";
import { Stream, type Connection } from "./stream.ts";

/** A hidden tab has no frames; it works its messages in this often. */
const HIDDEN_MS = 500;

export class Store {
  model: Model;
  connection: Connection = { status: "connecting" };
  private readonly listeners = new Set<() => void>();
  private queue: StreamMessage[] = [];
  private scheduled = false;
  private readonly stream: Stream;
  private readonly boot: LabBoot;
  private pastAsked = false;

  constructor(boot: LabBoot) {
    this.boot = boot;
    this.model = initial(boot);
    this.stream = new Stream(`/api/v1/labs/${boot.id}/events`, {
      resume: () => {
        this.flush(); // what waits in the queue is known too
        const { known, gap, seq, lab } = this.model;
        return known && !gap ? `?after=${seq}&instance=${lab.instance}` : "";
      },
      message: (m) => {
        this.queue.push(m);
        this.schedule();
      },
      connection: (c) => {
        this.connection = c;
        this.notify();
        if (c.status === "waiting" && c.attempt === 2) void this.askWhy();
      },
    });
  }

  start(): void {
    this.stream.open();
  }

  retryNow = (): void => this.stream.now();

  /** subscribe calls f after each change. */
  subscribe(f: () => void): () => void {
    this.listeners.add(f);
    return () => this.listeners.delete(f);
  }

  /** askWhy finds out what a closed WebSocket cannot say: that the session has
   * ended, or the lab is gone. */
  private async askWhy(): Promise<void> {
    const res = await fetch(`/api/v1/labs/${this.boot.id}`).catch(() => null);
    if (res?.status === 401) location.assign(`/signin?next=${encodeURIComponent(location.pathname)}`);
    if (res?.status === 404) {
      this.model = { ...this.model, lab: { ...this.model.lab, deleted: true } };
      this.stream.close();
    }
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    if (document.visibilityState === "visible") requestAnimationFrame(this.flush);
    else setTimeout(this.flush, HIDDEN_MS);
  }

  private readonly flush = (): void => {
    this.scheduled = false;
    if (this.queue.length === 0) return;
    const batch = this.queue;
    this.queue = [];
    this.model = reduce(this.model, batch);
    if (this.model.gap) this.stream.again();
    if (this.model.lab.deleted) this.stream.close();
    if (this.model.unseen && !this.pastAsked) void this.askPast();
    this.notify();
  };

  /** askPast fetches what happened before the snapshot. */
  private async askPast(): Promise<void> {
    this.pastAsked = true;
    this.model = { ...this.model, unseen: false };
    try {
      const res = await fetch(`/api/v1/labs/${this.boot.id}/log?before=${this.model.seq + 1}&limit=3000`);
      if (!res.ok) return;
      const past = (await res.json()) as Event[]; // the model may have gone on meanwhile
      this.model = withPast(this.model, past);
      this.notify();
    } catch {
      // the connection was lost: the next snapshot asks again
    } finally {
      this.pastAsked = false;
    }
  }

  private notify(): void {
    for (const f of this.listeners) f();
  }
}
