/** A lean client of the Engine API, the same for both contestants: one kept connection, JSON in and out. */
import { Agent, request } from "node:http";
import { setTimeout as wait } from "node:timers/promises";

export interface Answer<T> {
  readonly status: number;
  readonly body: T;
}

export interface TaskShape {
  readonly NodeID?: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string; readonly Err?: string };
  readonly Spec: { readonly ContainerSpec: { readonly Image: string } };
}

export interface NodeShape {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: Record<string, unknown> & { readonly Role: string };
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability: string };
}

export interface Versioned {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: Record<string, unknown>;
}

/** The newest that Debian's docker.io knows. */
const version = "/v1.41";

export class Engine implements Disposable {
  readonly #socket: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4 });

  constructor(socket: string) {
    this.#socket = socket;
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  ask<T = unknown>(method: string, path: string, body?: unknown, timeoutMs = 60_000): Promise<Answer<T>> {
    const raw = Buffer.isBuffer(body);
    const bytes = body === undefined ? undefined : raw ? body : Buffer.from(JSON.stringify(body));
    const headers = {
      "content-type": raw ? "application/x-tar" : "application/json",
      ...(bytes === undefined ? {} : { "content-length": bytes.length }),
    };
    return new Promise((resolve, reject) => {
      const asked = request(
        { socketPath: this.#socket, agent: this.#agent, method, path: `${version}${path}`, headers },
        (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("error", reject);
          response.on("end", () => {
            clearTimeout(timer);
            const text = Buffer.concat(chunks).toString();
            let found: unknown = text;
            try {
              found = text === "" ? undefined : JSON.parse(text);
            } catch {
              // Lines of progress, or plain text.
            }
            resolve({ status: response.statusCode ?? 0, body: found as T });
          });
        },
      );
      const timer = setTimeout(
        () => asked.destroy(new Error(`${method} ${path}: no answer in ${timeoutMs} ms`)),
        timeoutMs,
      );
      asked.on("error", (error) => {
        clearTimeout(timer);
        reject(error);
      });
      asked.end(bytes);
    });
  }

  /** @throws Error unless it succeeds */
  async done<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const { status, body: answer } = await this.ask<T>(method, path, body);
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`);
    return answer;
  }

  async ping(): Promise<boolean> {
    try {
      return (await this.ask("GET", "/_ping", undefined, 1000)).status === 200;
    } catch {
      return false;
    }
  }

  /** Tasks that are wanted and run, as the managers count them: the least that can be asked, and the same of both. */
  async runningTasks(serviceId: string): Promise<number> {
    const filters = encodeURIComponent(JSON.stringify({ id: { [serviceId]: true } }));
    const [service] = await this.done<readonly { readonly ServiceStatus?: { readonly RunningTasks: number } }[]>(
      "GET",
      `/services?status=true&filters=${filters}`,
    );
    return service?.ServiceStatus?.RunningTasks ?? 0;
  }

  tasks(serviceId: string): Promise<readonly TaskShape[]> {
    const filters = encodeURIComponent(JSON.stringify({ service: { [serviceId]: true } }));
    return this.done("GET", `/tasks?filters=${filters}`);
  }

  nodes(): Promise<readonly NodeShape[]> {
    return this.done("GET", "/nodes");
  }
}

/**
 * Asks again and again: every twentieth of the time that has gone by, so that asking costs a slow one no more than a fast
 * one, and the figure is true to 5 %.
 * @returns ms since `startMs`
 */
export async function until(
  what: string,
  holds: () => Promise<boolean>,
  startMs = performance.now(),
  patienceMs = 240_000,
): Promise<number> {
  for (;;) {
    if (await holds()) return performance.now() - startMs;
    const goneMs = performance.now() - startMs;
    if (goneMs > patienceMs) throw new Error(`${what}: not within ${patienceMs / 1000} s`);
    await wait(Math.min(500, Math.max(5, goneMs / 20)));
  }
}
