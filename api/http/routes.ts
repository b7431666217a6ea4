/** What a room of the API hands to the kernel: routes and what they are told and answer. */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

import type { JsonObject } from "./json.ts";
import type { Query } from "./query.ts";

export interface Call {
  readonly method: string;
  /** MINOR of the API version 1.MINOR that the client speaks. */
  readonly minor: number;
  /** Of the route's path, decoded; "*" is the rest of the path. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly headers: IncomingHttpHeaders;
  /** For bodies that are streams. */
  readonly request: IncomingMessage;
  /** Aborts when the client has gone before it had its answer, or leaves a stream, and when the route has ended. */
  readonly signal: AbortSignal;
  /** The body as a JSON object. @throws BadRequest, BodyTooLarge, BodyTooSlow */
  json(): Promise<JsonObject>;
  /**
   * Sends the head of an answer that goes on for long, at once. The route then answers nothing itself.
   * @param headers  in lower case
   */
  stream(status: number, headers: Readonly<Record<string, string>>): Outgoing;
  /**
   * Takes the connection over, for clients that speak raw bytes without asking for an upgrade. The route then answers
   * nothing itself; the kernel has written nothing.
   */
  hijack(): Duplex;
}

export interface Outgoing {
  readonly response: ServerResponse;
  /** Resolves when there is room for more; rejects when the client has gone. */
  write(bytes: Uint8Array | string): Promise<void>;
  end(): void;
}

export interface Answer {
  /** 200 unless said. */
  readonly status?: number;
  /** Written as JSON. */
  readonly json?: unknown;
  readonly text?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Route {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS";
  /** "/services/:id/update"; "/images/*" takes the rest of the path. */
  readonly path: string;
  /** @returns the answer, or nothing if it has taken the stream or the connection */
  readonly handle: (call: Call) => Promise<Answer | void> | Answer;
}

/**
 * A request that asks for an upgrade, as attach and exec do. Node has not parsed its body: the first `content-length`
 * bytes of what comes are the body, the rest is the stream.
 */
export interface UpgradeCall {
  readonly minor: number;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly headers: IncomingHttpHeaders;
  readonly signal: AbortSignal;
  /** Reads the body; to be called once, before `accept`. @throws BadRequest, BodyTooLarge */
  body(bytesMax: number): Promise<Buffer>;
  /** Answers 101 and hands over the connection, on which the client may have closed its half already. */
  accept(headers: Readonly<Record<string, string>>): Duplex;
}

export interface UpgradeRoute {
  readonly path: string;
  /** Errors thrown before `accept` become ordinary answers. */
  readonly handle: (call: UpgradeCall) => Promise<void>;
}
