/**
 * The dialling end of one stream: a connection of its own, the hello, the answer, then messages until it ends. Lives once;
 * whoever wants another one makes another.
 */
import type { ClusterError } from "../../../lib/pure/errors.ts";
import type { DirectChannel, RpcStream } from "../../../lib/rpc/index.ts";
import type { Clock, Timer } from "../../../lib/runtime/index.ts";
import { HandshakeTimeout } from "./errors.ts";
import { errorOf } from "./handshake.ts";
import type { Down, StreamMethod } from "./methods.ts";

export interface SessionEvents<D> {
  /** The peer has accepted the hello: from now on messages may be written. */
  accepted(): void;
  message(message: D): void;
  drain?(): void;
  /** Once. `refused` if the peer has answered that it does not serve us; `statement` is what it adds to that. */
  closed(error: ClusterError | undefined, end: { readonly accepted: boolean; readonly refused: boolean }): void;
  /** Proof that this member has been removed, perhaps; before `closed`. */
  statement(bytes: Uint8Array): void;
}

export class Session<D extends Down> implements Disposable {
  readonly #channel: DirectChannel;
  readonly #stream: RpcStream<Uint8Array> & { abort(error: ClusterError | undefined): void };
  readonly #handshake: Timer;
  readonly #events: SessionEvents<D>;
  #state: "greeting" | "accepted" | "closed" = "greeting";

  constructor(
    options: {
      readonly channel: DirectChannel;
      readonly method: StreamMethod<D>;
      readonly hello: Uint8Array;
      readonly clock: Clock;
      readonly handshakeTimeoutMs: number;
    },
    events: SessionEvents<D>,
  ) {
    this.#channel = options.channel;
    this.#events = events;
    const { handshakeTimeoutMs, channel } = options;
    this.#handshake = options.clock.after(handshakeTimeoutMs, () => {
      this.#close(new HandshakeTimeout(channel.address, handshakeTimeoutMs), false);
    });
    this.#stream = channel.open(options.method, {
      message: (message) => this.#received(message),
      drain: () => {
        if (this.#state === "accepted") events.drain?.();
      },
      closed: (error) => this.#close(error, false),
    });
    this.#stream.write(options.hello);
  }

  get accepted(): boolean {
    return this.#state === "accepted";
  }

  /** As RpcStream.write. */
  write(bytes: Uint8Array, taken?: () => void): boolean {
    return this.#stream.write(bytes, taken);
  }

  /** Ends it at once; `closed` is called with `error`. */
  abort(error: ClusterError | undefined): void {
    this.#close(error, false);
  }

  /** Ends it without a word. */
  [Symbol.dispose](): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#release();
  }

  #received(message: D): void {
    if (this.#state === "closed") return;
    if (message.refused) {
      const { statement } = message.refused;
      if (statement && statement.length > 0) this.#events.statement(statement);
      this.#close(errorOf(message.refused), true);
    } else if (this.#state === "accepted") {
      this.#events.message(message);
    } else if (message.accepted) {
      this.#state = "accepted";
      this.#handshake.cancel();
      this.#events.accepted();
    }
  }

  #close(error: ClusterError | undefined, refused: boolean): void {
    if (this.#state === "closed") return;
    const accepted = this.#state === "accepted";
    this.#state = "closed";
    this.#release();
    this.#events.closed(error, { accepted, refused });
  }

  #release(): void {
    this.#handshake.cancel();
    this.#stream.abort(undefined);
    this.#channel[Symbol.dispose]();
  }
}
