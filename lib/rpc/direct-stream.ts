/**
 * One end of a gRPC stream directly on HTTP/2, the same bytes as grpc-js sends and takes: for the few streams between
 * managers that stand for as long as both live, whose small messages cost more in grpc-js' layers than in the kernel
 * (docs/adr/0017). What the two ends do alike.
 */
import { once } from "node:events";
import type { Http2Stream } from "node:http2";

import { ClusterError } from "../pure/errors.ts";
import { RpcUnavailable } from "./errors.ts";
import { frameMessage, MessageReader } from "./message-frames.ts";
import type { Codec } from "./method.ts";
import { Stream, type StreamEvents } from "./stream.ts";

export interface DirectOptions<Out, In> {
  readonly path: string;
  readonly codec: { readonly out: Codec<Out>; readonly in: Codec<In> };
  readonly messageBytesMax: number;
}

export abstract class DirectStream<Out, In> extends Stream<Out, In> {
  protected readonly http: Http2Stream;
  readonly #reader: MessageReader;
  #paused = false;
  #reading = false;

  constructor(http: Http2Stream, options: DirectOptions<Out, In>, events: StreamEvents<In>) {
    super(options.codec, events);
    this.http = http;
    this.#reader = new MessageReader(options.path, options.messageBytesMax);
    http.on("data", (chunk: Buffer) => {
      if (this.closed) return;
      this.#reader.push(chunk);
      this.#read();
    });
    http.on("drain", () => this.drainedNow());
  }

  write(message: Out, taken?: () => void): boolean {
    const { http } = this;
    if (this.closed || http.writableEnded || http.destroyed) return false;
    const [first, second] = frameMessage(this.codec.out.encode(message));
    const written = (error: Error | null | undefined): void => {
      if (error === null || error === undefined) taken?.();
    };
    if (second === undefined) return http.write(first, written);
    http.cork();
    http.write(first);
    const room = http.write(second, written);
    http.uncork();
    return room;
  }

  async drained(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.closed && this.http.writableNeedDrain) {
      const settled = new AbortController();
      const either = { signal: AbortSignal.any([signal, settled.signal]) };
      try {
        await Promise.race([once(this.http, "drain", either), once(this.http, "close", either)]);
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        throw new RpcUnavailable("the other end", "the stream broke", error);
      } finally {
        settled.abort();
      }
    }
    if (this.closed) throw new RpcUnavailable("the other end", "the stream ended");
  }

  pause(): void {
    this.#paused = true;
    this.http.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#read();
    if (!this.#paused) this.http.resume();
  }

  /** Hands on the messages that are here, unless the one who takes them is still busy with one. */
  #read(): void {
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (!this.#paused && !this.closed) {
        const message = this.#reader.next();
        if (message === undefined) break;
        this.received(message);
      }
    } catch (error) {
      if (!(error instanceof ClusterError)) throw error;
      this.abort(error);
    } finally {
      this.#reading = false;
    }
  }
}
