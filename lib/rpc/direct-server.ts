/**
 * The serving end of streams without grpc-js, on grpc-js' own server and port: its HTTP/2 server is asked first whose stream
 * a new one is. Everything else of a connection (certificates, limits, pings, its end) stays with grpc-js.
 */
import { EventEmitter } from "node:events";
import { constants, type IncomingHttpHeaders, type OutgoingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { status, type Server } from "@grpc/grpc-js";

import type { Certificate } from "../pki/index.ts";
import type { ClusterError } from "../pure/errors.ts";
import { DirectStream, type DirectOptions } from "./direct-stream.ts";
import { RpcUnavailable } from "./errors.ts";
import { toStatus } from "./status.ts";
import type { RpcStream, StreamEvents } from "./stream.ts";

const grpcHeaders = { ":status": 200, "content-type": "application/grpc+proto" } as const;

export type ServeStream = (http: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

/**
 * Lets `whose` take streams before grpc-js does. grpc-js does not show the HTTP/2 servers that it makes, hence the look
 * inside; should a later release look different there, it serves all streams itself, as it did.
 * @param seen  servers that were asked for before
 */
export function serveBefore(
  server: Server,
  whose: (path: string) => ServeStream | undefined,
  seen: WeakSet<object>,
): void {
  const { http2Servers } = server as unknown as { http2Servers?: unknown };
  if (!(http2Servers instanceof Map)) return;
  for (const http2Server of http2Servers.keys() as Iterable<unknown>) {
    if (!(http2Server instanceof EventEmitter) || seen.has(http2Server)) continue;
    seen.add(http2Server);
    const others = http2Server.listeners("stream");
    http2Server.removeAllListeners("stream");
    http2Server.on("stream", (http: ServerHttp2Stream, headers: IncomingHttpHeaders, ...rest: unknown[]) => {
      const serve = isGrpc(headers) ? whose(String(headers[":path"])) : undefined;
      if (serve !== undefined) serve(http, headers);
      else for (const other of others) Reflect.apply(other, http2Server, [http, headers, ...rest]);
    });
  }
}

function isGrpc(headers: IncomingHttpHeaders): boolean {
  return headers["content-type"]?.startsWith("application/grpc") === true;
}

export class AcceptedStream<Out, In> extends DirectStream<Out, In> implements RpcStream<Out> {
  readonly peer: Certificate | undefined;
  readonly #http: ServerHttp2Stream;
  #trailers: OutgoingHttpHeaders = { "grpc-status": status.OK };

  constructor(
    http: ServerHttp2Stream,
    options: DirectOptions<Out, In>,
    caller: { readonly peer: Certificate | undefined; readonly address: string },
    events: StreamEvents<In>,
  ) {
    super(http, options, events);
    this.#http = http;
    this.peer = caller.peer;
    // It closes as well, and that is what counts.
    http.on("error", () => {});
    // Both are said of a stream that the caller has reset as well, and then mean nothing.
    const isReset = (): boolean => http.closed && http.rstCode !== constants.NGHTTP2_NO_ERROR;
    http.on("end", () => {
      if (!isReset()) this.finishedByPeer();
    });
    http.on("finish", () => {
      if (!isReset()) this.close(undefined);
    });
    http.on("close", () => this.close(new RpcUnavailable(caller.address, "the caller went away")));
    http.on("wantTrailers", () => http.sendTrailers(this.#trailers));
    http.respond(grpcHeaders, { waitForTrailers: true });
  }

  end(): void {
    if (!this.#http.writableEnded && !this.#http.destroyed) this.#http.end();
  }

  abort(error: ClusterError): void {
    if (this.closed) return;
    this.close(error);
    this.#trailers = trailersOf(toStatus(error));
    // What else the caller has sent is of no use, and keeps the stream from ending while nobody reads it.
    this.#http.resume();
    this.end();
  }
}

/** A stream that is not served at all: headers that say why, and nothing more. */
export function refuseStream(http: ServerHttp2Stream, refusal: ReturnType<typeof toStatus>): void {
  http.on("error", () => {});
  if (http.destroyed || http.headersSent) return;
  http.respond({ ...grpcHeaders, ...trailersOf(refusal) }, { endStream: true });
  http.resume();
}

function trailersOf({ code, details, metadata }: ReturnType<typeof toStatus>): OutgoingHttpHeaders {
  return {
    ...metadata?.toHttp2Headers(),
    "grpc-status": code,
    "grpc-message": encodeURI(details.toWellFormed()),
  };
}
