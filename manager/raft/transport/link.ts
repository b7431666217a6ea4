/**
 * One kind of outgoing stream to one peer, kept up: dialled, dialled again after a pause when it breaks, and fed no faster
 * than its connection takes. What does not fit the byte budget is dropped, never queued without bound.
 */
import type { Backoff } from "../../../lib/pure/backoff.ts";
import type { ClusterError } from "../../../lib/pure/errors.ts";
import type { Clock, Timer } from "../../../lib/runtime/index.ts";
import type { skep } from "../../../proto/index.ts";
import type { StreamMethod } from "./methods.ts";
import { Session } from "./session.ts";
import type { DirectChannel } from "../../../lib/rpc/index.ts";

/** A stream that broke sooner after it was accepted is dialled after a pause, or a peer that ends each would be asked for ever. */
const lastedMs = 1000;

export interface LinkOptions {
  readonly method: StreamMethod<skep.raft.IAnswer>;
  /** A new connection; called for each try, since address and certificate may have changed. */
  readonly dial: () => DirectChannel;
  readonly hello: () => Uint8Array;
  readonly clock: Clock;
  readonly backoff: Backoff;
  readonly handshakeTimeoutMs: number;
  readonly bytesMax: number;
}

export interface LinkEvents {
  up(): void;
  /** A stream ended or a try failed; another follows by itself. */
  down(error: ClusterError | undefined, end: { readonly wasUp: boolean; readonly refused: boolean }): void;
  statement(bytes: Uint8Array): void;
}

export class Link implements Disposable {
  readonly #options: LinkOptions;
  readonly #events: LinkEvents;
  #session: Session<skep.raft.IAnswer> | undefined;
  #retry: Timer | undefined;
  #disposed = false;
  /** Written behind the connection's back-pressure; emptied on drain. */
  #queue: Uint8Array[] = [];
  #head = 0;
  #choked = false;
  #queuedBytes = 0;

  constructor(options: LinkOptions, events: LinkEvents) {
    this.#options = options;
    this.#events = events;
    this.#dial();
  }

  get up(): boolean {
    return this.#session?.accepted === true;
  }

  /** Handed over and not yet taken by the connection. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** @returns false if it was dropped: there is no stream, or no room */
  send(frame: Uint8Array): boolean {
    const session = this.#session;
    if (session?.accepted !== true) return false;
    // A single frame larger than the budget goes alone, so that it goes at all.
    if (this.#queuedBytes > 0 && this.#queuedBytes + frame.length > this.#options.bytesMax) return false;
    this.#queuedBytes += frame.length;
    if (this.#choked) this.#queue.push(frame);
    else this.#write(session, frame);
    return true;
  }

  /** The peer has shown signs of life: do not wait for the end of the pause. */
  nudge(): void {
    if (this.#retry === undefined) return;
    this.#retry.cancel();
    this.#dial();
  }

  /** Gives the stream up, or the try, and dials anew. */
  reset(error: ClusterError): void {
    this.#session?.abort(error);
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#retry?.cancel();
    this.#session?.[Symbol.dispose]();
    this.#forget();
  }

  #dial(): void {
    this.#retry = undefined;
    const { method, dial, hello, clock, backoff, handshakeTimeoutMs } = this.#options;
    let acceptedMs: number | undefined;
    const session: Session<skep.raft.IAnswer> = new Session(
      { channel: dial(), method, hello: hello(), clock, handshakeTimeoutMs },
      {
        accepted: () => {
          acceptedMs = clock.monotonicMs();
          backoff.reset();
          this.#events.up();
        },
        message: () => {},
        drain: () => this.#drain(session),
        statement: (bytes) => this.#events.statement(bytes),
        closed: (error, { accepted, refused }) => {
          this.#forget();
          if (this.#disposed) return;
          // One that had lasted is asked at once: should its process have ended, that is known a pause earlier.
          const lasted = acceptedMs !== undefined && clock.monotonicMs() - acceptedMs >= lastedMs;
          this.#retry = clock.after(lasted ? 0 : backoff.next(), () => this.#dial());
          this.#events.down(error, { wasUp: accepted, refused });
        },
      },
    );
    this.#session = session;
  }

  #write(session: Session<skep.raft.IAnswer>, frame: Uint8Array): void {
    const room = session.write(frame, () => {
      if (this.#session === session) this.#queuedBytes -= frame.length;
    });
    if (!room) this.#choked = true;
  }

  #drain(session: Session<skep.raft.IAnswer>): void {
    this.#choked = false;
    while (this.#head < this.#queue.length && !this.#choked)
      this.#write(session, this.#queue[this.#head++] as Uint8Array);
    if (this.#head < this.#queue.length) return;
    this.#queue = [];
    this.#head = 0;
  }

  #forget(): void {
    this.#session = undefined;
    this.#queue = [];
    this.#head = 0;
    this.#choked = false;
    this.#queuedBytes = 0;
  }
}
