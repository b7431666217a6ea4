/**
 * Sends snapshots, one at a time: a connection of its own, a few chunks ahead of the receiver, no faster than the rate
 * limit. When the connection breaks it goes on where the receiver stands; without progress it gives up, and the core tries
 * again later.
 */
import type { Backoff } from "../../../lib/pure/backoff.ts";
import type { ClusterError } from "../../../lib/pure/errors.ts";
import type { DirectChannel } from "../../../lib/rpc/index.ts";
import type { Clock, Timer } from "../../../lib/runtime/index.ts";
import { skep } from "../../../proto/index.ts";
import type { MemberId, SnapshotRequest } from "../core/types.ts";
import type { SnapshotReader, SnapshotTransfers } from "../snapshot/transfer.ts";
import { chunkBytesMax } from "../snapshot/transfer.ts";
import { metaToWire } from "./codec.ts";
import { NotConnected, SnapshotBusy, SnapshotStalled, TransportClosed } from "./errors.ts";
import type { TransportLimits } from "./limits.ts";
import { snapshotMethod } from "./methods.ts";
import type { PeerStats } from "./peer-stats.ts";
import { Session } from "./session.ts";
import { TokenBucket } from "./token-bucket.ts";

const { SnapshotUp } = skep.raft;

export interface SnapshotTarget {
  readonly stats: PeerStats;
  dial(): DirectChannel;
  hello(): Uint8Array;
  backoff(): Backoff;
  statement(bytes: Uint8Array): void;
}

type Done = (error: Error | undefined) => void;

interface Order {
  readonly request: SnapshotRequest;
  readonly done: Done;
}

export class SnapshotSender implements Disposable {
  readonly #transfers: SnapshotTransfers;
  readonly #target: (to: MemberId) => SnapshotTarget | undefined;
  readonly #clock: Clock;
  readonly #limits: TransportLimits;
  readonly #bucket: TokenBucket;
  /** In the order of asking, one per receiver. */
  readonly #waiting = new Map<MemberId, Order>();
  #current: Transfer | undefined;
  #disposed = false;

  constructor(options: {
    readonly transfers: SnapshotTransfers;
    readonly target: (to: MemberId) => SnapshotTarget | undefined;
    readonly clock: Clock;
    readonly limits: TransportLimits;
  }) {
    this.#transfers = options.transfers;
    this.#target = options.target;
    this.#clock = options.clock;
    this.#limits = options.limits;
    const { snapshotBytesPerSecond, snapshotWindow } = options.limits;
    const burstBytes = snapshotWindow * chunkBytesMax;
    this.#bucket = new TokenBucket(snapshotBytesPerSecond, burstBytes, options.clock.monotonicMs());
  }

  /** `done` is called once, never inside this call. */
  send(request: SnapshotRequest, done: Done): void {
    const settle = once(done);
    const { to } = request;
    if (this.#disposed) settle(new TransportClosed());
    else if (this.#target(to) === undefined) settle(new NotConnected(to));
    else if (this.#current?.to === to || this.#waiting.has(to)) {
      settle(new SnapshotBusy(`one is already on its way to member ${to}`));
    } else {
      this.#waiting.set(to, { request, done: settle });
      this.#next();
    }
  }

  /** The receiver is no member any more. */
  cancel(to: MemberId): void {
    const order = this.#waiting.get(to);
    this.#waiting.delete(to);
    order?.done(new NotConnected(to));
    if (this.#current?.to === to) this.#current.fail(new NotConnected(to));
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const { done } of this.#waiting.values()) done(new TransportClosed());
    this.#waiting.clear();
    this.#current?.fail(new TransportClosed());
  }

  #next(): void {
    if (this.#current !== undefined || this.#disposed) return;
    const [first] = this.#waiting;
    if (first === undefined) return;
    const [to, { request, done }] = first;
    this.#waiting.delete(to);
    const target = this.#target(to);
    if (target === undefined) {
      done(new NotConnected(to));
      this.#next();
      return;
    }
    const transfer = new Transfer(request, target, this.#clock, this.#limits, this.#bucket, (error) => {
      this.#current = undefined;
      done(error);
      this.#next();
    });
    this.#current = transfer;
    this.#transfers.openReader(request.meta, (error, reader) => transfer.opened(error, reader));
  }
}

/** One snapshot to one receiver, over as many connections as it takes. */
class Transfer {
  readonly to: MemberId;
  readonly #request: SnapshotRequest;
  readonly #target: SnapshotTarget;
  readonly #clock: Clock;
  readonly #limits: TransportLimits;
  readonly #bucket: TokenBucket;
  readonly #done: Done;
  readonly #backoff: Backoff;
  #reader: SnapshotReader | undefined;
  #session: Session<skep.raft.ISnapshotDown> | undefined;
  #timer: Timer | undefined;
  #watchdog: Timer | undefined;
  #over = false;
  /** The receiver has everything before this chunk. */
  #acked = 0;
  /** The next chunk to send on this connection; undefined until the receiver has said where to begin. */
  #nextToSend: number | undefined;
  #reading = false;
  #progressMs: number;
  /** Connections that broke since a chunk got through. */
  #fruitless = 0;
  /** Furthest that the receiver has ever been: going over the same chunks again is no progress. */
  #furthest = 0;

  constructor(
    request: SnapshotRequest,
    target: SnapshotTarget,
    clock: Clock,
    limits: TransportLimits,
    bucket: TokenBucket,
    done: Done,
  ) {
    this.to = request.to;
    this.#request = request;
    this.#target = target;
    this.#clock = clock;
    this.#limits = limits;
    this.#bucket = bucket;
    this.#done = done;
    this.#backoff = target.backoff();
    this.#progressMs = clock.monotonicMs();
  }

  opened(error: Error | undefined, reader: SnapshotReader | undefined): void {
    if (this.#over) {
      reader?.close();
      return;
    }
    if (reader === undefined) {
      this.fail(error ?? new NotConnected(this.to));
      return;
    }
    this.#reader = reader;
    this.#progressMs = this.#clock.monotonicMs();
    this.#watchdog = this.#clock.every(this.#limits.snapshotStallMsMax / 4, () => {
      const stalledMs = this.#clock.monotonicMs() - this.#progressMs;
      if (stalledMs > this.#limits.snapshotStallMsMax) this.fail(new SnapshotStalled(stalledMs));
    });
    this.#connect();
  }

  fail(error: Error): void {
    this.#end(error);
  }

  #end(error: Error | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#timer?.cancel();
    this.#watchdog?.cancel();
    this.#session?.[Symbol.dispose]();
    this.#reader?.close();
    this.#done(error);
  }

  #connect(): void {
    const reader = this.#reader;
    if (this.#over || reader === undefined) return;
    const { offer } = reader;
    this.#nextToSend = undefined;
    const session: Session<skep.raft.ISnapshotDown> = new Session(
      {
        channel: this.#target.dial(),
        method: snapshotMethod,
        hello: this.#target.hello(),
        clock: this.#clock,
        handshakeTimeoutMs: this.#limits.handshakeTimeoutMs,
      },
      {
        accepted: () => {
          const { meta, chunks, sizeBytes, digest } = offer;
          const { term } = this.#request;
          session.write(
            SnapshotUp.encode({ offer: { term, meta: metaToWire(meta), chunks, sizeBytes, digest } }).finish(),
          );
        },
        message: (down) => this.#received(session, down),
        drain: () => this.#pump(session),
        statement: (bytes) => this.#target.statement(bytes),
        closed: (error, { refused }) => this.#broken(error, refused),
      },
    );
    this.#session = session;
  }

  #received(session: Session<skep.raft.ISnapshotDown>, down: skep.raft.ISnapshotDown): void {
    if (down.done) {
      this.#end(undefined);
    } else if (down.progress) {
      const next = down.progress.nextChunk ?? 0;
      if (next > (this.#reader?.offer.chunks ?? 0)) return; // nonsense of a peer: it only delays itself
      this.#acked = next;
      this.#progressMs = this.#clock.monotonicMs();
      if (next > this.#furthest) {
        this.#furthest = next;
        this.#fruitless = 0;
        this.#backoff.reset();
      }
      if (this.#nextToSend === undefined || down.progress.rewind === true || next > this.#nextToSend) {
        this.#nextToSend = next;
      }
      this.#pump(session);
    }
  }

  /** Reads and sends the next chunk, if the window, the rate limit and the connection allow. */
  #pump(session: Session<skep.raft.ISnapshotDown>): void {
    const reader = this.#reader;
    if (this.#over || reader === undefined || session !== this.#session || this.#reading) return;
    const number = this.#nextToSend;
    if (number === undefined || number >= reader.offer.chunks) return;
    if (number - this.#acked >= this.#limits.snapshotWindow) return;
    const waitMs = this.#bucket.waitMs(this.#clock.monotonicMs());
    if (waitMs > 0) {
      if (this.#timer !== undefined) return;
      this.#target.stats.snapshotThrottledMs += waitMs;
      this.#timer = this.#clock.after(waitMs, () => {
        this.#timer = undefined;
        const current = this.#session;
        if (current !== undefined) this.#pump(current);
      });
      return;
    }
    this.#reading = true;
    reader.read(number, (error, chunk) => {
      this.#reading = false;
      if (this.#over) return;
      if (chunk === undefined) {
        this.#end(error);
        return;
      }
      // Meanwhile the receiver may have gone back, or the connection may be another one.
      if (session === this.#session && this.#nextToSend === number) {
        this.#nextToSend = number + 1;
        this.#bucket.spend(chunk.data.length);
        this.#target.stats.snapshotBytesSent += chunk.data.length;
        session.write(SnapshotUp.encode({ chunk }).finish());
      }
      const current = this.#session;
      if (current !== undefined) this.#pump(current);
    });
  }

  #broken(error: ClusterError | undefined, refused: boolean): void {
    if (this.#over) return;
    this.#session = undefined;
    this.#fruitless++;
    const spent = this.#fruitless >= this.#limits.snapshotAttemptsMax;
    if (refused || spent || error?.code === "SNAPSHOT_TRANSFER_INVALID") {
      this.#end(error ?? new NotConnected(this.to));
      return;
    }
    this.#timer?.cancel();
    this.#timer = this.#clock.after(this.#backoff.next(), () => {
      this.#timer = undefined;
      this.#connect();
    });
  }
}

/** Calls back once, and never inside the call that led to it. */
function once(done: Done): Done {
  let called = false;
  return (error) => {
    if (called) return;
    called = true;
    setImmediate(() => done(error));
  };
}
