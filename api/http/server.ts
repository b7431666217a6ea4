/**
 * The kernel of the HTTP API: versions, errors, headers, bodies and connections, the same for every route: what a request
 * is and what an answer looks like is decided here.
 */
import { chmodSync, chownSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";

import { ClusterError, isAbort } from "../../lib/pure/errors.ts";
import { listening, type Logger } from "../../lib/runtime/index.ts";
import { readJsonObject } from "./body.ts";
import { BadRequest, BodyTooLarge, PageNotFound, statusOf } from "./errors.ts";
import { formatJson } from "./json.ts";
import { Query } from "./query.ts";
import { Router, type Found } from "./router.ts";
import type { Answer, Call, Outgoing, Route, UpgradeCall, UpgradeRoute } from "./routes.ts";
import { newestMinor, splitVersion, type VersionedPath } from "./version.ts";

export type Listen =
  /** @param groupId  who may use it besides its owner; without one, the owner's group */
  | { readonly kind: "unix"; readonly path: string; readonly groupId?: number }
  /** Only for those who show a certificate of `ca`. */
  | {
      readonly kind: "tls";
      readonly host: string;
      readonly port: number;
      readonly key: string;
      readonly cert: string;
      readonly ca: string;
    }
  /** Without any protection, for tests on the loopback. */
  | { readonly kind: "loopback"; readonly port: number };

export interface HttpOptions {
  readonly routes: readonly Route[];
  readonly upgrades: readonly UpgradeRoute[];
  readonly logger: Logger;
  /** Version of skep, for the header `Server`. */
  readonly release: string;
}

/** Clients keep idle connections for long, and a POST on one that was just closed fails. */
const keepAliveMs = 10 * 60_000;
const headerBytesMax = 64 * 1024;
const socketMode = 0o660;

export class HttpServer implements AsyncDisposable {
  readonly #options: HttpOptions;
  /** By method. */
  readonly #routes = new Map<string, Router<Route>>();
  readonly #upgrades = new Router<UpgradeRoute>();
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Duplex>();

  constructor(options: HttpOptions) {
    this.#options = options;
    for (const route of options.routes) {
      const router = this.#routes.get(route.method) ?? new Router<Route>();
      this.#routes.set(route.method, router);
      router.add(route.path, route);
    }
    for (const route of options.upgrades) this.#upgrades.add(route.path, route);
  }

  /** @returns the port, or 0 for a socket */
  async listen(where: Listen): Promise<number> {
    const server = this.#serverFor(where);
    this.#servers.push(server);
    // A socket that a killed process left is nobody's any more: the daemon's folder is locked.
    if (where.kind === "unix") rmSync(where.path, { force: true });
    const place =
      where.kind === "unix"
        ? { path: where.path }
        : { port: where.port, host: where.kind === "tls" ? where.host : "127.0.0.1" };
    await listening(server, place, (error) =>
      this.#options.logger.warn("a connection could not be accepted", { error }),
    );
    if (where.kind !== "unix") return (server.address() as AddressInfo).port;
    chmodSync(where.path, socketMode);
    if (where.groupId !== undefined) chownSync(where.path, -1, where.groupId);
    return 0;
  }

  /** Ends every connection, streams included. */
  [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
    for (const socket of this.#sockets) socket.destroy();
    return Promise.resolve();
  }

  // -------------------------------------------------------------------------------------------------------- listeners

  #serverFor(where: Listen): Server {
    const settings: ServerOptions = {
      // Streams last as long as they last; bodies that are read whole have a limit of their own.
      requestTimeout: 0,
      keepAliveTimeout: keepAliveMs,
      maxHeaderSize: headerBytesMax,
    };
    const handler = (request: IncomingMessage, response: ServerResponse): void => this.#serve(request, response);
    const server =
      where.kind === "tls"
        ? createTlsServer(
            {
              ...settings,
              key: where.key,
              cert: where.cert,
              ca: where.ca,
              requestCert: true,
              rejectUnauthorized: true,
              minVersion: "TLSv1.2",
            },
            handler,
          )
        : createServer(settings, handler);
    server.timeout = 0;
    // A client that has sent everything and closed its half still gets its answer.
    (server as { httpAllowHalfOpen?: boolean }).httpAllowHalfOpen = true;
    server.on("connection", (socket: Duplex) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) =>
      this.#upgrade(request, socket, head),
    );
    server.on("clientError", (error: Error & { code?: string }, socket: Duplex) => {
      if (!socket.writable) {
        socket.destroy();
        return;
      }
      const [status, text] =
        error.code === "HPE_HEADER_OVERFLOW"
          ? ["431 Request Header Fields Too Large", "request header too large"]
          : ["400 Bad Request", "malformed HTTP request"];
      const body = formatJson({ message: text });
      socket.end(
        `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
      );
    });
    return server;
  }

  // ------------------------------------------------------------------------------------------------------------ routes

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { path, refusal } = versioned(request);
    if (request.method === "OPTIONS") {
      this.#answer(request, response, { status: 200, text: "" });
      return;
    }
    let found: Found<Route> | undefined;
    try {
      found = this.#routes.get(request.method ?? "")?.find(pathOf(path));
    } catch {
      this.#fail(request, response, new BadRequest(`'${pathOf(path)}' is not a valid url component`));
      return;
    }
    if (refusal !== undefined || found === undefined) this.#fail(request, response, refusal ?? new PageNotFound());
    else void this.#run(found, request, response);
  }

  async #run(
    { value: route, params }: Found<Route>,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const { minor, query } = versioned(request);
    const call = new HttpCall(request, response, { minor, params, query }, this.#headers());
    try {
      const answer = await route.handle(call);
      if (answer !== undefined) this.#answer(request, response, answer);
      else if (!call.taken) this.#answer(request, response, { status: 500, json: { message: "no answer" } });
    } catch (error) {
      if (call.taken) this.#endTaken(call, error, request);
      // What is left of a body that nobody read would be taken for the next request.
      else this.#fail(request, response, error, request.complete ? {} : { connection: "close" });
    } finally {
      call.done();
    }
  }

  /** The head is gone: all that is left is to end the stream before its time, so that the client notices. */
  #endTaken(call: HttpCall, error: unknown, request: IncomingMessage): void {
    if (!isAbort(error) && !(error instanceof ClusterError)) this.#bug(request, error);
    call.abandon();
  }

  #answer(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
    const { status = 200, json, text, headers } = answer;
    const bytes = json === undefined ? Buffer.from(text ?? "") : Buffer.from(formatJson(json));
    // Without a charset for JSON: Go's clients compare the whole header.
    const type = json !== undefined ? "application/json" : text !== undefined ? "text/plain; charset=utf-8" : undefined;
    const bodiless = status === 204 || status === 304;
    response.writeHead(status, {
      ...this.#headers(),
      ...(type === undefined || bodiless ? {} : { "content-type": type }),
      ...(bodiless || (request.method === "HEAD" && bytes.length === 0) ? {} : { "content-length": bytes.length }),
      ...headers,
    });
    if (bodiless || request.method === "HEAD") response.end();
    else response.end(bytes);
  }

  #fail(
    request: IncomingMessage,
    response: ServerResponse,
    error: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): void {
    if (isAbort(error)) {
      this.#answer(request, response, { status: 499, headers });
      return;
    }
    const { status, body } = this.#errorOf(error, request);
    this.#answer(request, response, { status, json: body, headers });
  }

  #errorOf(error: unknown, request: IncomingMessage): { readonly status: number; readonly body: object } {
    if (error instanceof ClusterError) {
      const { code, message, fix } = error;
      return { status: statusOf(error), body: { message, code, ...(fix === undefined ? {} : { fix }) } };
    }
    this.#bug(request, error);
    return { status: 500, body: { message: "internal error" } };
  }

  #bug(request: IncomingMessage, error: unknown): void {
    this.#options.logger.error("a route failed", { method: request.method, path: request.url?.split("?")[0], error });
  }

  /** On every answer. */
  #headers(): Record<string, string> {
    return {
      "api-version": `1.${newestMinor}`,
      "docker-experimental": "false",
      ostype: "linux",
      server: `Docker/${this.#options.release} (linux)`,
    };
  }

  // ---------------------------------------------------------------------------------------------------------- upgrades

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    const { path, refusal, minor, query } = versioned(request);
    const found = this.#findUpgrade(request, pathOf(path));
    const stop = new AbortController();
    socket.once("close", () => stop.abort());
    let accepted = false;
    const fail = (error: unknown): void => {
      if (accepted || socket.destroyed) {
        if (!isAbort(error) && !(error instanceof ClusterError)) this.#bug(request, error);
        socket.destroy();
        return;
      }
      const { status, body } = this.#errorOf(error, request);
      socket.end(
        head1(
          status,
          { ...this.#headers(), "content-type": "application/json", connection: "close" },
          formatJson(body),
        ),
      );
    };
    if (refusal !== undefined || found === undefined) {
      fail(refusal ?? new PageNotFound());
      return;
    }
    const call: UpgradeCall = {
      minor,
      params: found.params,
      query,
      headers: request.headers,
      signal: stop.signal,
      body: (bytesMax) => {
        const length = Number(request.headers["content-length"] ?? "0");
        if (length > bytesMax) return Promise.reject(new BodyTooLarge(bytesMax));
        return takeBody(socket, head, length);
      },
      accept: (headers) => {
        accepted = true;
        socket.write(head1(101, { ...this.#headers(), ...headers, connection: "Upgrade", upgrade: "tcp" }, undefined));
        return socket;
      },
    };
    found.value.handle(call).catch(fail);
  }

  #findUpgrade(request: IncomingMessage, path: string): Found<UpgradeRoute> | undefined {
    if (request.method !== "POST" && request.method !== "GET") return undefined;
    try {
      return this.#upgrades.find(path);
    } catch {
      return undefined; // a path that is no text is no route's
    }
  }
}

function pathOf(url: string): string {
  const end = url.indexOf("?");
  return end < 0 ? url : url.slice(0, end);
}

interface Incoming extends IncomingMessage {
  /** What was found out about it, once. */
  versionedPath?: VersionedPath & { readonly query: Query };
}

function versioned(request: Incoming): VersionedPath & { readonly query: Query } {
  if (request.versionedPath === undefined) {
    const split = splitVersion(request.url ?? "/");
    const at = split.path.indexOf("?");
    request.versionedPath = { ...split, query: new Query(at < 0 ? "" : split.path.slice(at + 1)) };
  }
  return request.versionedPath;
}

/** One for all: with a stack of its own it would cost each call some microseconds. */
const callIsOver = new DOMException("The call is over", "AbortError");

class HttpCall implements Call {
  readonly method: string;
  readonly minor: number;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #stop = new AbortController();
  readonly #onClose = (): void => this.#stop.abort();
  taken = false;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    { minor, params, query }: Pick<Call, "minor" | "params" | "query">,
    headers: Readonly<Record<string, string>>,
  ) {
    this.method = request.method ?? "";
    this.minor = minor;
    this.params = params;
    this.query = query;
    this.request = request;
    this.#response = response;
    this.#headers = headers;
    response.once("close", this.#onClose);
  }

  get headers(): IncomingMessage["headers"] {
    return this.request.headers;
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  json(): ReturnType<Call["json"]> {
    return readJsonObject(this.request);
  }

  stream(status: number, headers: Readonly<Record<string, string>>): Outgoing {
    this.taken = true;
    const raw = this.#response;
    // On a stream a client that closes its half has left: there is no other way to notice before there is output.
    this.request.socket.once("end", this.#onClose);
    raw.writeHead(status, { ...this.#headers, ...headers });
    raw.flushHeaders();
    return {
      response: raw,
      write: (bytes) => this.#write(bytes),
      end: () => raw.end(),
    };
  }

  hijack(): Duplex {
    this.taken = true;
    const { socket } = this.request;
    this.#response.detachSocket(socket);
    return socket;
  }

  /** Nothing more is to be heard of the connection on behalf of this call, and whoever still waits for its sake stops. */
  done(): void {
    this.#response.off("close", this.#onClose);
    this.request.socket.off("end", this.#onClose);
    this.#stop.abort(callIsOver);
  }

  abandon(): void {
    this.request.socket.destroy();
  }

  #write(bytes: Uint8Array | string): Promise<void> {
    const raw = this.#response;
    this.signal.throwIfAborted();
    if (raw.write(bytes)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const end = (act: () => void) => (): void => {
        raw.off("drain", onDrain);
        this.signal.removeEventListener("abort", onAbort);
        act();
      };
      const onDrain = end(resolve);
      const onAbort = end(() => reject(this.signal.reason as Error));
      raw.once("drain", onDrain);
      this.signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}

const reasons: Readonly<Record<number, string>> = {
  101: "UPGRADED",
  400: "Bad Request",
  404: "Not Found",
  409: "Conflict",
};

function head1(status: number, headers: Readonly<Record<string, string>>, body: string | undefined): string {
  const all = body === undefined ? headers : { ...headers, "content-length": String(Buffer.byteLength(body)) };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${reasons[status] ?? "Error"}\r\n${lines.join("")}\r\n${body ?? ""}`;
}

/** What comes beyond the body is put back. */
async function takeBody(socket: Duplex, head: Buffer, length: number): Promise<Buffer> {
  let taken = head;
  while (taken.length < length) {
    const chunk = (socket.read() as Buffer | null) ?? (await nextChunk(socket));
    if (chunk === undefined) throw new BadRequest("unexpected EOF");
    taken = Buffer.concat([taken, chunk]);
  }
  if (taken.length > length) socket.unshift(taken.subarray(length));
  return taken.subarray(0, length);
}

function nextChunk(socket: Duplex): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const finish = (): void => {
      socket.off("readable", finish).off("end", finish).off("close", finish);
      resolve((socket.read() as Buffer | null) ?? undefined);
    };
    socket.on("readable", finish).on("end", finish).on("close", finish);
  });
}
