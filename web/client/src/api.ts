// The server's REST interface, as far as the lab page uses it.
import type { ApplyResult, Terminal, TerminalRequest } from "./gen/agentapi.ts";
import type { Error as LabError } from "./gen/lab.ts";
import type { LabBoot, Text } from "./gen/view.ts";

/** ApiError carries what the server said: problem details (RFC 9457), or the
 * errors of an apply with their lines. */
export class ApiError extends Error {
  readonly status: number;
  readonly errors: readonly LabError[];
  constructor(status: number, message: string, errors: readonly LabError[] = []) {
    super(message);
    this.status = status;
    this.errors = errors;
  }
}

interface Problem {
  title?: string;
  detail?: string;
  message?: string;
  code?: string;
  field?: string;
  line?: number;
  column?: number;
  errors?: (LabError & { location?: string })[];
}

export class Api {
  readonly base: string;
  private readonly csrf: string | undefined;

  constructor(boot: LabBoot) {
    this.base = `/api/v1/labs/${encodeURIComponent(boot.id)}`;
    this.csrf = boot.csrf;
  }

  private async call<T>(method: string, path: string, body?: BodyInit, type = "application/json"): Promise<T> {
    const headers: Record<string, string> = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = type;
    if (this.csrf) headers["X-CSRF-Token"] = this.csrf;
    const res = await fetch(this.base + path, { method, headers, body });
    const text = await res.text();
    let data: unknown = null;
    try {
      data = text === "" ? null : JSON.parse(text);
    } catch {
      // not JSON: a proxy's page, perhaps
    }
    if (!res.ok) throw problem(res, data);
    return data as T;
  }

  apply(yaml: string): Promise<ApplyResult> {
    return this.call("POST", "/apply", yaml, "application/yaml");
  }
  terminals(): Promise<Terminal[]> {
    return this.call("GET", "/terminals");
  }
  openTerminal(req: TerminalRequest): Promise<Terminal> {
    return this.call("POST", "/terminals", JSON.stringify(req));
  }
  closeTerminal(id: string): Promise<void> {
    return this.call("DELETE", `/terminals/${encodeURIComponent(id)}`);
  }
  hint(task: string, number: number): Promise<{ text: Text }> {
    return this.call("POST", "/hints", JSON.stringify({ task, number }));
  }
  restart(): Promise<void> {
    return this.call("POST", "/restart");
  }
  delete(): Promise<void> {
    return this.call("DELETE", "");
  }
}

function problem(res: Response, data: unknown): ApiError {
  const p = (data ?? {}) as Problem;
  const message = p.detail || p.message || p.title || `${res.status} ${res.statusText}`;
  const errors = p.errors ?? (p.code ? [{ code: p.code, message, field: p.field, line: p.line, column: p.column } as LabError] : []);
  return new ApiError(res.status, message, errors);
}
