// The drawer's state: which tab is open, which shells there are, and what
// stands in the editor.
import { ApiError, type Api } from "../api.ts";
import { t } from "../i18n.ts";
import { load, save } from "../prefs.ts";
import { Session } from "./session.ts";

/** A tab is "events", "yaml", "commands", or a session's id. */
export type Tab = string;

export class DrawerControl {
  readonly sessions: Session[] = [];
  tab: Tab = "events";
  error = "";
  opening = "";
  screenReader = load("term.reader", false);
  /** yaml to be put into the editor, once. */
  offered: string | null = null;
  private readonly listeners = new Set<() => void>();
  private readonly api: Api;
  private readonly readOnly: boolean;

  constructor(api: Api, readOnly: boolean) {
    this.api = api;
    this.readOnly = readOnly;
  }

  subscribe(f: () => void): () => void {
    this.listeners.add(f);
    return () => this.listeners.delete(f);
  }

  private readonly changed = (): void => {
    for (const f of this.listeners) f();
  };

  show(tab: Tab): void {
    this.tab = tab;
    this.changed();
  }

  /** restore finds the shells that run already, such as before a reload. */
  async restore(): Promise<void> {
    try {
      for (const info of (await this.api.terminals()) ?? []) {
        if (info.ended || this.sessions.some((s) => s.info.id === info.id)) continue;
        this.sessions.push(new Session(this.api.base, info, this.readOnly, this.changed));
      }
      if (this.sessions[0] && this.tab === "events") this.tab = this.sessions[0].info.id;
    } catch {
      // The lab is not up: its stream says so, and a terminal can be opened later.
    }
    this.changed();
  }

  /** open starts a shell in a place and shows it. */
  async open(target: string): Promise<Session | null> {
    if (this.readOnly) return null;
    this.error = "";
    this.opening = target;
    this.changed();
    try {
      const info = await this.api.openTerminal({ target, cols: 80, rows: 24 });
      const session = new Session(this.api.base, info, false, this.changed);
      this.sessions.push(session);
      this.tab = info.id;
      return session;
    } catch (e) {
      this.error = t("term.failed", { error: e instanceof ApiError ? e.message : String(e) });
      return null;
    } finally {
      this.opening = "";
      this.changed();
    }
  }

  /** run types a command where it says: in the open shell of that place, or a new one. */
  async run(target: string, command: string): Promise<void> {
    const there = this.sessions.find((s) => s.info.target === target && s.state !== "ended");
    if (there) {
      this.show(there.info.id);
      there.run(command);
      return;
    }
    (await this.open(target))?.run(command);
  }

  close(session: Session): void {
    const at = this.sessions.indexOf(session);
    if (at < 0) return;
    this.sessions.splice(at, 1);
    session.close();
    if (!this.readOnly) void this.api.closeTerminal(session.info.id).catch(() => undefined); // gone already, or the lab is
    if (this.tab === session.info.id) this.tab = (this.sessions[at] ?? this.sessions[at - 1])?.info.id ?? "events";
    this.changed();
  }

  /** closeAll drops the terminals of a lab that was restarted. */
  closeAll(): void {
    for (const s of this.sessions.splice(0)) s.close();
    if (!["events", "yaml", "commands"].includes(this.tab)) this.tab = "events";
    this.changed();
  }

  offer(yaml: string): void {
    this.offered = yaml;
    this.show("yaml");
  }

  toggleScreenReader(): void {
    this.screenReader = !this.screenReader;
    save("term.reader", this.screenReader);
    for (const s of this.sessions) s.screenReader = this.screenReader;
    this.changed();
  }
}
