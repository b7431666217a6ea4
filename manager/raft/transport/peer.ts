/** One other member: the streams that go out to it, and what is known of it. */
import { Backoff } from "../../../lib/pure/backoff.ts";
import type { ClusterError } from "../../../lib/pure/errors.ts";
import type { Random } from "../../../lib/pure/prng.ts";
import { DirectChannel, RpcUnavailable } from "../../../lib/rpc/index.ts";
import type { TlsIdentity } from "../../../lib/pki/index.ts";
import type { Clock, Logger } from "../../../lib/runtime/index.ts";
import type { MemberId } from "../core/types.ts";
import { PeerSilent } from "./errors.ts";
import { Forwarder } from "./forwarder.ts";
import { helloTo } from "./handshake.ts";
import { raftMessageBytesMax, type TransportLimits } from "./limits.ts";
import { Link } from "./link.ts";
import { controlMethod, dataMethod, type StreamMethod } from "./methods.ts";
import { PeerStats } from "./peer-stats.ts";
import type { SnapshotTarget } from "./snapshot-sender.ts";
import type { LocalMember } from "./types.ts";
import type { skep } from "../../../proto/index.ts";

const failuresBeforeOther = 3;
const repeatLogMs = 10_000;
/** Of the connection of heartbeats, whose answers are watched anyway. */
const controlPingMs = 10_000;

export interface PeerOptions {
  readonly id: MemberId;
  readonly local: LocalMember;
  readonly tls: TlsIdentity;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly limits: TransportLimits;
  /** A stream broke or a try failed. */
  readonly down: () => void;
  /** The control stream broke, and the peer's port refused the next one. */
  readonly gone: () => void;
  readonly statement: (bytes: Uint8Array) => void;
}

export class Peer implements SnapshotTarget, Disposable {
  readonly id: MemberId;
  readonly stats: PeerStats;
  readonly control: Link;
  readonly data: Link;
  readonly forwarder: Forwarder;
  readonly #options: PeerOptions;
  /** As the cluster has it; undefined for one that we know only from its own streams to us. */
  #address: string | undefined;
  /** As it says itself: used in turn with the other once that one has not answered a few times, since members move. */
  #claimed: string | undefined;
  /** Where the control stream was accepted last: good for the other streams as well. */
  #proven: string | undefined;
  #failures = 0;
  /** The control stream has just broken, and nothing has been heard of a new one. */
  #lost = false;

  constructor(
    options: PeerOptions,
    addresses: { readonly known?: string | undefined; readonly claimed?: string | undefined },
    stats = new PeerStats(),
  ) {
    this.id = options.id;
    this.#options = options;
    this.stats = stats;
    this.#address = addresses.known;
    this.#claimed = addresses.claimed;
    this.control = this.#controlLink();
    this.data = this.#link("data", dataMethod, options.limits.dataBytesMax, () => this.dial());
    this.forwarder = new Forwarder(this, options.clock, options.limits);
  }

  get address(): string | undefined {
    return this.#address;
  }

  /** It has said so in a hello, which its certificate vouches for. */
  claims(address: string): void {
    this.#claimed = address;
  }

  /** Nothing comes back although it should: the streams are given up. */
  silent(silentMs: number): void {
    const error = new PeerSilent(this.id, silentMs);
    this.stats.forgive();
    this.control.reset(error);
    this.data.reset(error);
  }

  /** Another connection to where the control stream goes. */
  dial(): DirectChannel {
    return this.#dialAt(this.#proven ?? this.#address ?? this.#claimed ?? "");
  }

  #dialAt(address: string, pingMs?: number): DirectChannel {
    const { tls } = this.#options;
    return new DirectChannel({
      address,
      tls,
      ...(pingMs === undefined ? {} : { pingMs }),
      expect: { role: "manager", memberId: this.id },
      messageBytesMax: raftMessageBytesMax,
    });
  }

  hello(): Uint8Array {
    return helloTo(this.#options.local, this.id);
  }

  backoff(): Backoff {
    const { limits, random } = this.#options;
    return new Backoff(random, { minMs: limits.reconnectMinMs, maxMs: limits.reconnectMaxMs });
  }

  statement(bytes: Uint8Array): void {
    this.#options.statement(bytes);
  }

  [Symbol.dispose](): void {
    this.control[Symbol.dispose]();
    this.data[Symbol.dispose]();
    this.forwarder[Symbol.dispose]();
  }

  #controlLink(): Link {
    let dialled: string | undefined;
    return this.#link(
      "control",
      controlMethod,
      this.#options.limits.controlBytesMax,
      () => {
        dialled = this.#nextAddress();
        return this.#dialAt(dialled, controlPingMs);
      },
      (up) => {
        this.#failures = up ? 0 : this.#failures + 1;
        if (up) this.#proven = dialled;
      },
      (error, wasUp) => {
        const refused = error instanceof RpcUnavailable && error.refused;
        if (this.#lost && refused) this.#options.gone();
        this.#lost = wasUp;
      },
    );
  }

  #nextAddress(): string {
    const known = this.#address ?? this.#claimed ?? "";
    const turnToOther = this.#failures >= failuresBeforeOther && this.#failures % 2 === 1;
    return turnToOther ? (this.#claimed ?? known) : known;
  }

  #link(
    name: string,
    method: StreamMethod<skep.raft.IAnswer>,
    bytesMax: number,
    dial: () => DirectChannel,
    tried?: (up: boolean) => void,
    ended?: (error: ClusterError | undefined, wasUp: boolean) => void,
  ): Link {
    const { clock, limits, logger, down, statement } = this.#options;
    const toldMs = new Map<string | undefined, number>();
    return new Link(
      {
        method,
        dial,
        hello: () => this.hello(),
        clock,
        backoff: this.backoff(),
        handshakeTimeoutMs: limits.handshakeTimeoutMs,
        bytesMax,
      },
      {
        up: () => {
          this.stats.lastError = undefined;
          this.stats.forgive();
          tried?.(true);
          logger.debug("stream is up", { peer: this.id, stream: name });
        },
        down: (error: ClusterError | undefined, { wasUp }) => {
          tried?.(false);
          ended?.(error, wasUp);
          if (wasUp) this.stats.streamResets++;
          else this.stats.connectFailures++;
          this.stats.forgive();
          this.stats.lastError = error?.code ?? this.stats.lastError;
          // A peer that is down is dialled many times a minute: a line for each reason now and then is enough.
          const nowMs = clock.monotonicMs();
          if (nowMs - (toldMs.get(error?.code) ?? -Infinity) > repeatLogMs) {
            toldMs.set(error?.code, nowMs);
            logger.warn(wasUp ? "stream is lost" : "peer cannot be reached", { peer: this.id, stream: name, error });
          }
          down();
        },
        statement,
      },
    );
  }
}
