/**
 * A daemon that answers what a recording holds (test/conformance/api/recorded), and keeps what it was asked. The same
 * request may come again and again: the last answer stays.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";

export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly repeated?: number;
  readonly poll?: unknown;
  readonly response?: {
    readonly status?: number;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: unknown;
    readonly hijacked?: readonly HijackedPart[];
  };
}

type HijackedPart = Readonly<Record<string, unknown>>;

export interface Recording {
  readonly command?: string;
  readonly api?: string;
  readonly tty?: boolean;
  readonly exit?: number;
  readonly stderr?: string;
  readonly requests: readonly RecordedRequest[];
}

export interface SeenRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly query: Readonly<Record<string, string | readonly string[]>>;
  readonly headers: IncomingMessage["headers"];
  /** Parsed when it is JSON, otherwise the number of bytes. */
  readonly body: unknown;
}

export function readRecording(folder: string, name: string): Recording {
  return fillIn(JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"))) as Recording;
}

/** Puts ids in the place of `{{id1}}`, `{{hex1}}` and `{{hex1:12}}`. */
export function fillIn(value: unknown): unknown {
  if (value === "B64") return "AAAA";
  if (typeof value === "string") {
    return value.replace(/\{\{(id|hex)(\d+)(?::(\d+))?\}\}/g, (_all, kind: string, number: string, length?: string) =>
      (kind === "id" ? idOf(number) : hexOf(number)).slice(0, length === undefined ? undefined : Number(length)),
    );
  }
  if (Array.isArray(value)) return value.map(fillIn);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [fillIn(key) as string, fillIn(one)]));
  }
  return value;
}

const idOf = (number: string): string => `id${number}`.padEnd(25, "x");
const hexOf = (number: string): string => Number(number).toString(16).padStart(4, "0").repeat(16);

/** Takes out what the recorder cut: `"…(3 items)"` in lists, `{"…": 4}` for objects. */
function uncut(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.filter((one) => !(typeof one === "string" && one.startsWith("…"))).map(uncut);
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key]) => key !== "…")
        .map(([key, one]) => [key, uncut(one)]),
    );
  }
  return value;
}

export class RecordedServer {
  readonly seen: SeenRequest[] = [];
  readonly host: string;
  readonly #folder: string;
  readonly #server: Server;
  readonly #requests: readonly RecordedRequest[];
  readonly #used = new Set<number>();
  readonly #sockets = new Set<Duplex>();

  private constructor(requests: readonly RecordedRequest[]) {
    this.#requests = requests;
    this.#folder = mkdtempSync(join(tmpdir(), "skep-cli-"));
    this.host = `unix://${this.#folder}/api.sock`;
    this.#server = createServer((request, response) => void this.#answer(request, response));
    this.#server.on("upgrade", (request, socket, head) => void this.#upgrade(request, socket, head));
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  static async start(requests: readonly RecordedRequest[]): Promise<RecordedServer> {
    const server = new RecordedServer(requests);
    await new Promise<void>((resolve) => {
      server.#server.listen(server.host.slice("unix://".length), resolve);
    });
    return server;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => {
      this.#server.close(resolve);
    });
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** The next recorded answer to this request; when all are used, the last one. */
  #find(seen: SeenRequest): RecordedRequest | undefined {
    const matches = this.#requests
      .map((request, at) => ({ request, at }))
      .filter(
        ({ request }) =>
          request.method === seen.method &&
          unversioned(request.path) === unversioned(seen.path) &&
          sameQuery(request, seen),
      );
    const next = matches.find(({ at }) => !this.#used.has(at)) ?? matches.at(-1);
    if (next !== undefined) this.#used.add(next.at);
    return next?.request;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader("Api-Version", "1.50");
    response.setHeader("Ostype", "linux");
    response.setHeader("Docker-Experimental", "false");
    response.setHeader("Server", "Docker/28.2.2 (linux)");
    if (request.url?.endsWith("/_ping") === true) {
      response.end(request.method === "HEAD" ? undefined : "OK");
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const seen = seenOf(request, Buffer.concat(chunks));
    this.seen.push(seen);
    const found = this.#find(seen);
    if (found === undefined) {
      response.writeHead(404, { "Content-Type": "application/json" }).end(`{"message":"page not found"}`);
      return;
    }
    const { status = 200, body, headers } = found.response ?? {};
    for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
    response.statusCode = status;
    send(response, body);
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const length = Number(request.headers["content-length"] ?? 0);
    let body: Buffer = head;
    const more = async (): Promise<void> => {
      const chunk = await new Promise<Buffer>((resolve) => {
        socket.once("data", resolve);
      });
      body = Buffer.concat([body, chunk]);
    };
    while (body.length < length) await more();
    const seen = seenOf(request, body.subarray(0, length));
    this.seen.push(seen);
    const found = this.#find(seen);
    const { status = 404, body: answer, hijacked, headers } = found?.response ?? {};
    if (hijacked === undefined) {
      const text = JSON.stringify(answer ?? { message: "page not found" });
      socket.end(
        `HTTP/1.1 ${status} X\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
      );
      return;
    }
    const type = headers?.["Content-Type"] ?? "application/vnd.docker.multiplexed-stream";
    socket.write(
      `HTTP/1.1 101 UPGRADED\r\nApi-Version: 1.50\r\nContent-Type: ${type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
    );
    socket.resume();
    for (const part of hijacked) for (const bytes of partBytes(part)) socket.write(bytes);
    socket.end();
  }
}

/** What the server says in a hijacked stream; what the client says is not needed to answer. */
function* partBytes(part: HijackedPart): Generator<Buffer> {
  if (part["dir"] !== "<") return;
  if (typeof part["data"] === "string") yield Buffer.from(part["data"]);
  for (const one of (part["frames"] ?? []) as readonly { readonly stream: number; readonly data: string }[]) {
    yield frame(one.stream, one.data);
  }
}

export function frame(stream: number, text: string): Buffer {
  const data = Buffer.from(text);
  const head = Buffer.alloc(8);
  head.writeUInt8(stream, 0);
  head.writeUInt32BE(data.length, 4);
  return Buffer.concat([head, data]);
}

function send(response: ServerResponse, body: unknown): void {
  const special = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  if (body === undefined) response.end();
  else if (Array.isArray(special["$jsonlines"])) {
    response.setHeader("Content-Type", "application/json");
    response.end(
      special["$jsonlines"]
        .filter((line) => typeof line !== "string")
        .map((line) => `${JSON.stringify(line)}\n`)
        .join(""),
    );
  } else if (Array.isArray(special["$frames"])) {
    response.setHeader("Content-Type", "application/vnd.docker.multiplexed-stream");
    for (const one of special["$frames"] as { stream: number; data: string }[]) {
      if (typeof one !== "string") response.write(frame(one.stream, one.data));
    }
    response.end();
  } else if (typeof special["$binary"] === "number") response.end(Buffer.alloc(special["$binary"]));
  else if (typeof special["$text"] === "string") response.end(special["$text"]);
  else {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(uncut(body)));
  }
}

function seenOf(request: IncomingMessage, bytes: Buffer): SeenRequest {
  const url = new URL(request.url ?? "/", "http://daemon");
  const query: Record<string, string | readonly string[]> = {};
  for (const key of url.searchParams.keys()) {
    const values = url.searchParams.getAll(key);
    query[key] = values.length === 1 ? values[0]! : values;
  }
  const isJson = request.headers["content-type"] === "application/json" && bytes.length > 0;
  return {
    method: request.method ?? "",
    path: decodeURIComponent(url.pathname),
    query,
    headers: request.headers,
    body: isJson ? JSON.parse(bytes.toString("utf8")) : bytes.length === 0 ? undefined : { $binary: bytes.length },
  };
}

const unversioned = (path: string): string => path.replace(/^\/v\d+\.\d+/, "");

/** Filters are compared as what they mean; times and sizes of terminals differ from run to run. */
function sameQuery(recorded: RecordedRequest, seen: SeenRequest): boolean {
  const normal = (query: Readonly<Record<string, unknown>>): string =>
    JSON.stringify(
      Object.entries(query)
        .filter(([key]) => !["since", "until", "h", "w"].includes(key))
        .map(([key, value]) => [key, key === "filters" ? canonicalFilters(String(value)) : value])
        .toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
    );
  return normal(recorded.query ?? {}) === normal(seen.query);
}

export function canonicalFilters(text: string): string {
  try {
    const parsed = JSON.parse(text) as Record<string, Record<string, boolean>>;
    return JSON.stringify(
      Object.entries(parsed)
        .map(([key, values]) => [key, Object.keys(values).toSorted()])
        .toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
    );
  } catch {
    return text;
  }
}
