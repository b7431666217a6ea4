/**
 * The daemon over HTTP: unix socket, or TCP with TLS. One connection is kept and used again, since a command that waits
 * for a service asks fifteen times a second. Plain connections are our own (`wire.ts`); TLS and uploads are left to Node.
 */
import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from "node:http";
import type { Socket } from "node:net";
import type { Duplex, Readable } from "node:stream";
import { ApiError, CommandError, messageOf } from "../errors.ts";
import type { Endpoint } from "./endpoint.ts";
import { parseJson, stringifyJson } from "./json.ts";
import { Wire, type Answer, type WireRequest } from "./wire.ts";

const newestVersion = "1.50";
const oldestVersion = "1.24";

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

export interface Call {
  readonly query?: Query;
  readonly body?: unknown;
  /** Sent as it comes, instead of `body`. */
  readonly upload?: Readable;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

export class Api {
  readonly #endpoint: Endpoint;
  readonly #wire: Wire | undefined;
  /** Made when it is needed. */
  #agent: Agent | undefined;
  #version: string | undefined;
  #ping: Answer["headers"] = {};

  private constructor(endpoint: Endpoint) {
    this.#endpoint = endpoint;
    this.#wire = endpoint.tls === undefined ? new Wire(endpoint.connect) : undefined;
  }

  /** Agrees on the version: the daemon's, or ours when it is older. @param pinned DOCKER_API_VERSION */
  static async connect(endpoint: Endpoint, pinned: string | undefined): Promise<Api> {
    const api = new Api(endpoint);
    api.#version = pinned === undefined || pinned === "" ? await api.#negotiate() : pinned.replace(/^v/, "");
    return api;
  }

  get version(): string {
    return this.#version ?? newestVersion;
  }
  /** The headers of the daemon's answer to the first ping. */
  get pingHeaders(): Answer["headers"] {
    return this.#ping;
  }

  async #negotiate(): Promise<string> {
    const answer = await this.#send("HEAD", "/_ping", {});
    answer.resume();
    this.#ping = answer.headers;
    const offered = answer.headers["api-version"];
    const version = typeof offered === "string" && /^\d+\.\d+$/.test(offered) ? offered : oldestVersion;
    if (olderThan(version, oldestVersion)) {
      throw new CommandError(
        `the daemon's API version ${version} is too old: ${oldestVersion} is the oldest this knows`,
      );
    }
    return olderThan(version, newestVersion) ? version : newestVersion;
  }

  async get<T>(path: string, call: Call = {}): Promise<T> {
    return (await this.#json("GET", path, call)) as T;
  }
  async post<T = unknown>(path: string, call: Call = {}): Promise<T> {
    return (await this.#json("POST", path, call)) as T;
  }
  async delete<T = unknown>(path: string, query?: Query): Promise<T> {
    return (await this.#json("DELETE", path, query === undefined ? {} : { query })) as T;
  }

  /** The answer as it comes, for logs, events, tars. @throws ApiError on a status of 400 or more */
  async open(method: string, path: string, call: Call = {}): Promise<Answer> {
    const answer = await this.#send(method, this.#versioned(path), call);
    if ((answer.statusCode ?? 500) >= 400) throw await failure(answer, method === "HEAD");
    return answer;
  }

  /** Upgrades the connection: bytes both ways, each way ends by itself. @throws ApiError when the daemon answers something else */
  async hijack(path: string, plain: Call): Promise<Duplex> {
    const call = { ...plain, headers: { ...plain.headers, Connection: "Upgrade", Upgrade: "tcp" } };
    if (this.#wire !== undefined) {
      const found = await this.#wire
        .upgrade(this.#wireRequest("POST", this.#versioned(path), call))
        .catch((error: unknown) => Promise.reject(this.#unreachable(error as Error)));
      if (!("socket" in found)) throw await failure(found, false);
      if (found.rest.length > 0) found.socket.unshift(found.rest);
      return found.socket;
    }
    return new Promise((resolve, reject) => {
      const sent = this.#request("POST", this.#versioned(path), call);
      sent.once("upgrade", (_answer: IncomingMessage, socket: Socket, head: Buffer) => {
        if (head.length > 0) socket.unshift(head);
        resolve(socket);
      });
      sent.once("response", (answer) => {
        failure(answer, false).then(reject, reject);
      });
      sent.once("error", (error) => reject(this.#unreachable(error)));
      sent.end(call.body === undefined ? undefined : stringifyJson(call.body));
    });
  }

  /** So many requests will be under way at once, soon. */
  expect(count: number): void {
    this.#wire?.expect(count);
  }

  close(): void {
    this.#wire?.close();
    this.#agent?.destroy();
  }

  async #json(method: string, path: string, call: Call): Promise<unknown> {
    const answer = await this.open(method, path, call);
    const text = await readText(answer);
    if (text.trim() === "") return undefined;
    try {
      return parseJson(text);
    } catch (error) {
      throw new CommandError(`the daemon's answer to ${method} ${path} is not JSON: ${messageOf(error)}`);
    }
  }

  /** What Docker does not have lives outside its versions. */
  #versioned(path: string): string {
    return path.startsWith("/skep/") ? path : `/v${this.version}${path}`;
  }

  #headers(call: Call): Record<string, string> {
    const headers: Record<string, string> = { Host: this.#endpoint.hostHeader, "User-Agent": "skep", ...call.headers };
    if (call.body !== undefined) headers["Content-Type"] = "application/json";
    else if (call.upload !== undefined) headers["Content-Type"] ??= "application/x-tar";
    return headers;
  }

  #wireRequest(method: string, path: string, call: Call): WireRequest {
    const { signal, query, body } = call;
    const text = body === undefined ? undefined : stringifyJson(body);
    return { method, path: path + queryText(query), headers: this.#headers(call), body: text, signal };
  }

  #request(method: string, path: string, call: Call): ClientRequest {
    const http = nodeHttp();
    const { tls, connect } = this.#endpoint;
    const kept = { keepAlive: true, maxSockets: 16 };
    this.#agent ??= tls === undefined ? new http.Agent(kept) : tlsAgent(this.#endpoint, kept);
    const options: RequestOptions = {
      ...connect,
      protocol: tls === undefined ? "http:" : "https:",
      method,
      path: path + queryText(call.query),
      headers: this.#headers(call),
      agent: this.#agent,
      ...(call.signal === undefined ? {} : { signal: call.signal }),
    };
    return http.request(options);
  }

  #send(method: string, path: string, call: Call): Promise<Answer> {
    if (this.#wire !== undefined && call.upload === undefined) {
      return this.#wire
        .ask(this.#wireRequest(method, path, call))
        .catch((error: unknown) => Promise.reject(this.#unreachable(error as Error)));
    }
    return new Promise((resolve, reject) => {
      const sent = this.#request(method, path, call);
      sent.once("response", resolve);
      sent.on("error", (error) => reject(this.#unreachable(error)));
      if (call.upload !== undefined) {
        call.upload.on("error", (error) => sent.destroy(error));
        call.upload.pipe(sent);
      } else if (call.body !== undefined) {
        const body = stringifyJson(call.body);
        sent.setHeader("Content-Length", Buffer.byteLength(body));
        sent.end(body);
      } else sent.end();
    });
  }

  #unreachable(error: Error & { code?: string }): Error {
    if (error.name === "AbortError" || error instanceof CommandError) return error;
    const at = this.#endpoint.name;
    switch (error.code) {
      case "EACCES":
      case "EPERM":
        return new CommandError(
          `permission denied while trying to connect to the skep daemon at ${at}. Run as root, or join the group that owns the socket.`,
        );
      case "ENOENT":
      case "ECONNREFUSED":
        return new CommandError(`Cannot connect to the skep daemon at ${at}. Is skepd running?`);
      default:
        return new CommandError(`error during connect to ${at}: ${error.message}`);
    }
  }
}

/**
 * Not imported: an import reads every export, one of which loads the whole of fetch and WebSocket, and that is 50 ms of
 * processor for nothing (docs/benchmarks.md).
 */
const nodeHttp = () => process.getBuiltinModule("node:http");

function tlsAgent(endpoint: Endpoint, options: object): Agent {
  return new (process.getBuiltinModule("node:https").Agent)({ ...options, ...endpoint.tls });
}

/** A name in a path: image names keep their slashes, colons and digests. */
export function inPath(name: string): string {
  return encodeURIComponent(name).replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%40", "@");
}

/** The query value of `filters`, or undefined when there are none. Keys in order, as Go writes maps. */
export function filtersQuery(filters: ReadonlyMap<string, readonly string[]> | undefined): string | undefined {
  if (filters === undefined || filters.size === 0) return undefined;
  const sorted = [...filters].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(
    Object.fromEntries(
      sorted.map(([key, values]) => [key, Object.fromEntries([...values].toSorted().map((value) => [value, true]))]),
    ),
  );
}

export async function readText(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

function queryText(query: Query | undefined): string {
  const pairs = Object.entries(query ?? {}).flatMap(([key, value]) => {
    if (value === undefined) return [];
    const values = Array.isArray(value) ? (value as readonly string[]) : [String(value)];
    return values.map((one): [string, string] => [key, one]);
  });
  return pairs.length === 0 ? "" : `?${new URLSearchParams(pairs).toString()}`;
}

async function failure(answer: Answer, headOnly: boolean): Promise<ApiError> {
  const status = answer.statusCode ?? 500;
  const text = headOnly ? "" : await readText(answer);
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    if (typeof message === "string") return new ApiError(status, message.trim());
  } catch {
    // Not JSON: its text is all that there is to say.
  }
  return new ApiError(
    status,
    text.trim() === "" ? `status ${status} ${answer.statusMessage ?? ""}`.trim() : text.trim(),
  );
}

function olderThan(a: string, b: string): boolean {
  const [majorA = 0, minorA = 0] = a.split(".").map(Number);
  const [majorB = 0, minorB = 0] = b.split(".").map(Number);
  return majorA < majorB || (majorA === majorB && minorA < minorB);
}
