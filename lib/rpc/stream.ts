/**
 * One end of a stream, the same for the caller and the one who serves: messages in, messages out with back-pressure,
 * one ending. gRPC's own objects differ between the ends and need a listener for each of their ways to end.
 */
import { once } from "node:events";
import { status, type ClientDuplexStream, type ServerDuplexStream } from "@grpc/grpc-js";

import type { Certificate } from "../pki/index.ts";
import { ClusterError } from "../pure/errors.ts";
import { RpcUnavailable } from "./errors.ts";
import type { Codec } from "./method.ts";
import { fromStatus, toStatus } from "./status.ts";

export interface StreamEvents<In> {
  message(message: In): void;
  /** After `write` has answered false: there is room again. */
  drain?(): void;
  /** The other end sends no more; this one still may. */
  finished?(): void;
  /** Once, the last of all calls. Without an error: as this end or the other one wished. */
  closed(error: ClusterError | undefined): void;
}

export interface RpcStream<Out> {
  /** Who is at the other end; undefined if it has shown no certificate. */
  readonly peer: Certificate | undefined;
  readonly closed: boolean;
  /**
   * @param taken  called once the connection has taken the bytes; not called if the stream breaks before
   * @returns      false: wait for `drain`. What was written is on its way all the same
   */
  write(message: Out, taken?: () => void): boolean;
  /** Rejects when the signal aborts or the stream ends. */
  drained(signal: AbortSignal): Promise<void>;
  /** Nothing more from this end; what was written still arrives. */
  end(): void;
  /** Ends the stream at once; the one who serves tells the caller why. */
  abort(error: ClusterError): void;
  /** Stops reading, so that the other end has to wait in turn. */
  pause(): void;
  resume(): void;
}

/** What all kinds of streams have in common. */
export abstract class Stream<Out, In> {
  protected readonly codec: { readonly out: Codec<Out>; readonly in: Codec<In> };
  readonly #events: StreamEvents<In>;
  #closed = false;

  constructor(codec: { readonly out: Codec<Out>; readonly in: Codec<In> }, events: StreamEvents<In>) {
    this.codec = codec;
    this.#events = events;
  }

  get closed(): boolean {
    return this.#closed;
  }

  abstract abort(error: ClusterError): void;

  protected received(bytes: Buffer): void {
    if (this.#closed) return;
    let message: In;
    try {
      message = this.codec.in.decode(bytes);
    } catch (error) {
      if (!(error instanceof ClusterError)) throw error;
      this.abort(error);
      return;
    }
    this.#events.message(message);
  }

  protected drainedNow(): void {
    if (!this.#closed) this.#events.drain?.();
  }

  protected finishedByPeer(): void {
    if (!this.#closed) this.#events.finished?.();
  }

  protected close(error: ClusterError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#events.closed(error);
  }
}

type RawClientCall = ClientDuplexStream<Uint8Array, Buffer>;
type RawServerCall = ServerDuplexStream<Buffer, Uint8Array>;

export class CallerStream<Out, In> extends Stream<Out, In> implements RpcStream<Out> {
  readonly #call: RawClientCall;
  readonly #readPeer: (der: Uint8Array) => Certificate | undefined;

  constructor(
    call: RawClientCall,
    codec: { readonly out: Codec<Out>; readonly in: Codec<In> },
    where: { readonly address: string; readonly path: string; readonly failure: () => ClusterError | undefined },
    readPeer: (der: Uint8Array) => Certificate | undefined,
    events: StreamEvents<In>,
  ) {
    super(codec, events);
    this.#call = call;
    this.#readPeer = readPeer;
    // "status" says how it ended in every case; without a listener for "error" a failed call would end the process.
    call.on("error", () => {});
    call.on("status", (ended) =>
      this.close(ended.code === status.OK ? undefined : (where.failure() ?? fromStatus(ended, where))),
    );
    call.on("data", (bytes: Buffer) => this.received(bytes));
    call.on("drain", () => this.drainedNow());
    call.on("end", () => this.finishedByPeer());
  }

  get peer(): Certificate | undefined {
    const der = this.#call.getAuthContext()?.sslPeerCertificate?.raw;
    return der === undefined ? undefined : this.#readPeer(der);
  }

  write(message: Out, taken?: () => void): boolean {
    if (this.closed || this.#call.writableEnded) return false;
    return this.#call.write(this.codec.out.encode(message), (error: Error | null | undefined) => {
      if (error === null || error === undefined) taken?.();
    });
  }

  async drained(signal: AbortSignal): Promise<void> {
    await waitForDrain(this.#call, "status", () => this.closed, signal);
  }

  end(): void {
    this.#call.end();
  }

  abort(error: ClusterError | undefined): void {
    this.#call.cancel();
    this.close(error);
  }

  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }
}

export class ServingStream<Out, In> extends Stream<Out, In> implements RpcStream<Out> {
  readonly #call: RawServerCall;
  readonly peer: Certificate | undefined;

  constructor(
    call: RawServerCall,
    codec: { readonly out: Codec<Out>; readonly in: Codec<In> },
    peer: Certificate | undefined,
    events: StreamEvents<In>,
  ) {
    super(codec, events);
    this.#call = call;
    this.peer = peer;
    call.on("error", () => {});
    call.on("data", (bytes: Buffer) => this.received(bytes));
    call.on("drain", () => this.drainedNow());
    call.on("end", () => this.finishedByPeer());
    // Also after an orderly end, when it is not heard any more.
    call.on("cancelled", () => this.close(new RpcUnavailable(call.getPeer(), "the caller went away")));
    call.on("finish", () => this.close(undefined));
  }

  write(message: Out, taken?: () => void): boolean {
    if (this.closed || this.#call.writableEnded || this.#call.destroyed) return false;
    return this.#call.write(this.codec.out.encode(message), (error: Error | null | undefined) => {
      if (error === null || error === undefined) taken?.();
    });
  }

  async drained(signal: AbortSignal): Promise<void> {
    await waitForDrain(this.#call, "cancelled", () => this.closed, signal);
  }

  end(): void {
    if (!this.#call.destroyed) this.#call.end();
  }

  abort(error: ClusterError): void {
    if (this.closed) return;
    this.close(error);
    if (!this.#call.destroyed) this.#call.emit("error", toStatus(error));
  }

  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }
}

/** A stream that ended does not drain; without its ending among the events one would wait for ever. */
async function waitForDrain(
  call: RawClientCall | RawServerCall,
  ending: string,
  closed: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  if (!call.writableNeedDrain) return;
  const settled = new AbortController();
  const either = { signal: AbortSignal.any([signal, settled.signal]) };
  try {
    await Promise.race([once(call, "drain", either), once(call, ending, either)]);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new RpcUnavailable(call.getPeer(), "the stream broke", error);
  } finally {
    settled.abort();
  }
  if (closed()) throw new RpcUnavailable(call.getPeer(), "the stream ended");
}

/**
 * Sends everything that `items` gives, at the pace of the other end, and then ends the stream.
 * @param signal  rejects with its reason when it aborts; the stream is the owner's to end then
 */
export async function pump<T>(stream: RpcStream<T>, items: AsyncIterable<T>, signal: AbortSignal): Promise<void> {
  for await (const item of items) {
    signal.throwIfAborted();
    if (stream.closed) throw new RpcUnavailable("the other end", "the stream ended");
    if (!stream.write(item)) await stream.drained(signal);
  }
  stream.end();
}
