/** A remote procedure as both ends know it: its path, how its messages become bytes, and who may call it. */

/** `decode` throws a ClusterError for bytes that are not such a message. */
export interface Codec<T> {
  encode(message: T): Uint8Array;
  decode(bytes: Buffer): T;
}

/**
 * Who may call: "manager", "node" (any node of this cluster), or "anyone" (who then has to prove something in the
 * request, as with a join token).
 */
export type Caller = "manager" | "node" | "anyone";

export interface Method<Request, Response> {
  readonly kind: "unary" | "bidi";
  /** "/skep.raft.Raft/Control", as gRPC has it. */
  readonly path: string;
  readonly caller: Caller;
  readonly request: Codec<Request>;
  readonly response: Codec<Response>;
}

export interface UnaryMethod<Request, Response> extends Method<Request, Response> {
  readonly kind: "unary";
}

/** Both ends send streams; one that sends a single message, or none, is a special case of it. */
export interface BidiMethod<Request, Response> extends Method<Request, Response> {
  readonly kind: "bidi";
  /** Served on HTTP/2 itself rather than through grpc-js (direct-server.ts). The bytes are the same, callers do not see it. */
  readonly direct?: boolean;
}

/** Messages that are bytes already, for those who encode once and send often. */
export const rawCodec: Codec<Uint8Array> = { encode: (bytes) => bytes, decode: (bytes) => bytes };

/** The same bytes as the class that gRPC wants. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
