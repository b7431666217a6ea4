/**
 * The kernel of the HTTP API: versions, errors, headers, bodies and connections, the same for every route. fastify matches
 * paths; what a request is and what an answer looks like is decided here.
 */
import { chmodSync, chownSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";

import { ClusterError, isAbort } from "../../lib/pure/errors.ts";
import type { Logger } from "../../lib/runtime/index.ts";
import { readJsonObject } from "./body.ts";
import { BadRequest, BodyTooLarge, PageNotFound, statusOf } from "./errors.ts";
import { formatJson } from "./json.ts";
import { Query } from "./query.ts";
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
  readonly #app: FastifyInstance;
  readonly #upgrades: readonly (readonly [RegExp, UpgradeRoute])[];
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Duplex>();

  private constructor(options: HttpOptions) {
    this.#options = options;
    this.#upgrades = options.upgrades.map((route) => [patternOf(route.path), route]);
    this.#app = fastify({
      logger: false,
      exposeHeadRoutes: false,
      forceCloseConnections: true,
      // Never reached by way of a listener of fastify's own.
      rewriteUrl: (request) => versioned(request as Incoming).path,
      routerOptions: { ignoreTrailingSlash: true, maxParamLength: 4096 },
    });
  }

  static async open(options: HttpOptions): Promise<HttpServer> {
    const server = new HttpServer(options);
    server.#addRoutes();
    await server.#app.ready();
    return server;
  }

  /** @returns the port, or 0 for a socket */
  async listen(where: Listen): Promise<number> {
    const server = this.#serverFor(where);
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      if (where.kind === "unix") {
        // A socket that a killed process left is nobody's any more: the daemon's folder is locked.
        rmSync(where.path, { force: true });
        server.listen(where.path, resolve);
      } else server.listen(where.port, where.kind === "tls" ? where.host : "127.0.0.1", resolve);
    });
    if (where.kind !== "unix") return (server.address() as AddressInfo).port;
    chmodSync(where.path, socketMode);
    if (where.groupId !== undefined) chownSync(where.path, -1, where.groupId);
    return 0;
  }

  /** Ends every connection, streams included. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
    for (const socket of this.#sockets) socket.destroy();
    await this.#app.close();
  }

  // -------------------------------------------------------------------------------------------------------- listeners

  #serverFor(where: Listen): Server {
    const settings: ServerOptions = {
      // Streams last as long as they last; bodies that are read whole have a limit of their own.
      requestTimeout: 0,
      keepAliveTimeout: keepAliveMs,
      maxHeaderSize: headerBytesMax,
    };
    const handler = (request: IncomingMessage, response: ServerResponse): void => this.#app.routing(request, response);
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

  #addRoutes(): void {
    const app = this.#app;
    // Bodies are read by those who want them, within limits of their own.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser("*", (_request, payload, done) => done(null, payload));
    app.setNotFoundHandler((request, reply) =>
      this.#fail(reply, versioned(request.raw as Incoming).refusal ?? new PageNotFound()),
    );
    app.setErrorHandler((error, request, reply) => {
      // What fastify finds itself, such as a path that cannot be decoded.
      const status = (error as { statusCode?: number }).statusCode;
      const known = status !== undefined && status < 500 ? new BadRequest((error as Error).message) : error;
      this.#fail(reply, known, request.raw);
    });
    for (const route of this.#options.routes) {
      app.route({
        method: route.method,
        url: route.path,
        handler: (request, reply) => this.#run(route, request, reply),
      });
    }
    app.route({
      method: "OPTIONS",
      url: "/*",
      handler: (_request, reply) => this.#answer(reply, { status: 200, text: "" }),
    });
  }

  async #run(route: Route, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const { refusal, minor, query } = versioned(request.raw);
    if (refusal !== undefined) return this.#fail(reply, refusal);
    const call = new HttpCall(request, reply, minor, query, this.#headers());
    try {
      const answer = await route.handle(call);
      if (answer !== undefined) this.#answer(reply, answer);
      else if (!call.taken) this.#answer(reply, { status: 500, json: { message: "no answer" } });
    } catch (error) {
      if (call.taken) this.#endTaken(call, error, request.raw);
      else this.#fail(reply, error, request.raw);
    } finally {
      call.done();
    }
    return reply;
  }

  /** The head is gone: all that is left is to end the stream before its time, so that the client notices. */
  #endTaken(call: HttpCall, error: unknown, request: IncomingMessage): void {
    if (!isAbort(error) && !(error instanceof ClusterError)) this.#bug(request, error);
    call.abandon();
  }

  #answer(reply: FastifyReply, answer: Answer): FastifyReply {
    const { status = 200, json, text, headers } = answer;
    void reply.code(status).headers({ ...this.#headers(), ...headers });
    if (json !== undefined) {
      void reply.header("content-type", "application/json");
      return reply.send(jsonBytes(json));
    }
    if (text !== undefined) {
      if (headers?.["content-type"] === undefined) void reply.type("text/plain; charset=utf-8");
      return reply.send(text);
    }
    return reply.send();
  }

  #fail(reply: FastifyReply, error: unknown, request?: IncomingMessage): FastifyReply {
    if (isAbort(error)) return reply.code(499).send();
    const { status, body } = this.#errorOf(error, request);
    // What is left of a body that nobody read would be taken for the next request.
    if (request !== undefined && !request.complete) void reply.header("connection", "close");
    void reply.code(status).headers({ ...this.#headers(), "content-type": "application/json" });
    return reply.send(jsonBytes(body));
  }

  #errorOf(error: unknown, request: IncomingMessage | undefined): { readonly status: number; readonly body: object } {
    if (error instanceof ClusterError) {
      const { code, message, fix } = error;
      return { status: statusOf(error), body: { message, code, ...(fix === undefined ? {} : { fix }) } };
    }
    this.#bug(request, error);
    return { status: 500, body: { message: "internal error" } };
  }

  #bug(request: IncomingMessage | undefined, error: unknown): void {
    this.#options.logger.error("a route failed", { method: request?.method, path: request?.url?.split("?")[0], error });
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
    const found = this.#findUpgrade(request, path.split("?")[0] ?? "/");
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
    found.route.handle(call).catch(fail);
  }

  #findUpgrade(
    request: IncomingMessage,
    path: string,
  ): { readonly route: UpgradeRoute; readonly params: Record<string, string> } | undefined {
    if (request.method !== "POST" && request.method !== "GET") return undefined;
    for (const [pattern, route] of this.#upgrades) {
      const match = pattern.exec(path);
      if (match === null) continue;
      try {
        const params = Object.entries(match.groups ?? {}).map(
          ([key, value]) => [key, decodeURIComponent(value)] as const,
        );
        return { route, params: Object.fromEntries(params) };
      } catch {
        return undefined; // a path that is no text is no route's
      }
    }
    return undefined;
  }
}

/** Bytes, since fastify adds a charset to the type of a text, and Go's clients compare the whole header. */
function jsonBytes(value: unknown): Buffer {
  return Buffer.from(formatJson(value));
}

/** "/containers/:id/attach" */
function patternOf(path: string): RegExp {
  return new RegExp(`^${path.replace(/:(\w+)/g, "(?<$1>[^/]+)")}/?$`);
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

class HttpCall implements Call {
  readonly method: string;
  readonly minor: number;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly request: IncomingMessage;
  readonly #reply: FastifyReply;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #stop = new AbortController();
  readonly #onClose = (): void => this.#stop.abort();
  taken = false;

  constructor(
    request: FastifyRequest,
    reply: FastifyReply,
    minor: number,
    query: Query,
    headers: Readonly<Record<string, string>>,
  ) {
    this.method = request.method;
    this.minor = minor;
    this.params = request.params as Record<string, string>;
    this.query = query;
    this.request = request.raw;
    this.#reply = reply;
    this.#headers = headers;
    reply.raw.once("close", this.#onClose);
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
    this.#reply.hijack();
    const { raw } = this.#reply;
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
    this.#reply.hijack();
    const { socket } = this.request;
    this.#reply.raw.detachSocket(socket);
    return socket;
  }

  /** Nothing more is to be heard of the connection on behalf of this call. */
  done(): void {
    this.#reply.raw.off("close", this.#onClose);
    this.request.socket.off("end", this.#onClose);
  }

  abandon(): void {
    this.request.socket.destroy();
  }

  #write(bytes: Uint8Array | string): Promise<void> {
    const { raw } = this.#reply;
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
