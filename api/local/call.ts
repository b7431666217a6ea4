/**
 * One request and its answer, as the routes of this room see them. The adapter (kernel.ts) makes a Call of what the HTTP
 * kernel has, ordinary or upgraded, and carries the Answer out; a route knows nothing of sockets.
 */
import type { IncomingHttpHeaders } from "node:http";
import type { Duplex, Readable } from "node:stream";

import { formatJson } from "../http/index.ts";
import type { Query } from "./query.ts";

export interface Call {
  /** Names in the route's path, decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly headers: IncomingHttpHeaders;
  /** Minor number of the client's API version: 50 for 1.50. */
  readonly minor: number;
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal;
  /** The body as JSON, `{}` when there is none. @throws BadRequest */
  json(): Promise<Readonly<Record<string, unknown>>>;
  /** Reads a body that nobody wants, so that it is not taken for what comes after it. */
  skipBody(): Promise<void>;
  /** The body as it comes; of an upgraded connection there is none. */
  readonly body: Readable;
}

/** Where a stream of an answer goes; `write` waits while the client does not read, and fails when it is gone. */
export interface Out {
  write(bytes: string | Uint8Array): Promise<void>;
}

export type Answer =
  | { readonly kind: "json"; readonly status: number; readonly body: unknown }
  | { readonly kind: "empty"; readonly status: number; readonly headers?: Headers }
  /** Status and headers leave at once, before the first byte. */
  | {
      readonly kind: "stream";
      readonly status: number;
      readonly headers: Headers;
      readonly send: (out: Out) => Promise<void>;
    }
  /** The connection is the route's: 101 UPGRADED to who asked for an upgrade, else 200 without a length. */
  | { readonly kind: "hijack"; readonly contentType: string; readonly talk: (socket: Duplex) => Promise<void> };

type Headers = Readonly<Record<string, string>>;

export interface LocalRoute {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  /** Without the version; `:name` is one segment, `*name` takes slashes as well. */
  readonly path: string;
  /** Clients may ask for an upgrade of the connection. */
  readonly hijacks?: true;
  readonly handle: (call: Call) => Promise<Answer>;
}

export const json = (body: unknown, status = 200): Answer => ({ kind: "json", status, body });
export const empty = (status = 204): Answer => ({ kind: "empty", status });

/** JSON values, one a line, as pull, push, load and events send them. */
export function lines(send: (line: (value: unknown) => Promise<void>) => Promise<void>): Answer {
  return {
    kind: "stream",
    status: 200,
    headers: { "content-type": "application/json" },
    send: (out) => send((value) => out.write(`${formatJson(value)}\r\n`)),
  };
}
