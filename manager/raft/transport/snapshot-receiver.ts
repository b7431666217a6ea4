/**
 * Takes in snapshots, one at a time, into a spool that survives a broken connection. A damaged chunk is asked for again;
 * nothing is handed on before the whole has been verified.
 */
import { ClusterError, invariant } from "../../../lib/pure/errors.ts";
import type { RpcStream } from "../../../lib/rpc/index.ts";
import { decodeStrictly, skep } from "../../../proto/index.ts";
import type { MemberId, SnapshotRequest } from "../core/types.ts";
import {
  chunkBytesMax,
  type SnapshotChunk,
  type SnapshotOffer,
  type SnapshotReceiver,
  type SnapshotTransfers,
} from "../snapshot/transfer.ts";
import type { IncomingEvents } from "./acceptor.ts";
import { metaFromWire } from "./codec.ts";
import { HandshakeExpected, SnapshotBusy, TransportClosed } from "./errors.ts";
import type { PeerStats } from "./peer-stats.ts";

const { SnapshotUp } = skep.raft;

type Stream = RpcStream<skep.raft.ISnapshotDown>;

const upLimits = { fieldsMax: 64, bytesMax: chunkBytesMax };
/** More than any window: a sender that does not wait for us is cut off, so that memory stays bounded. */
const chunksQueuedMax = 16;
/** Damaged chunks on one connection; beyond that the connection itself is at fault. */
const damagedMax = 8;

export class SnapshotInbox implements Disposable {
  readonly #transfers: SnapshotTransfers;
  readonly #local: MemberId;
  readonly #receive: (request: SnapshotRequest) => void;
  #current: Arrival | undefined;
  /** The last one that was taken in: its sender may have missed the answer, and need not send it all again. */
  #completed: SnapshotOffer | undefined;

  constructor(options: {
    readonly transfers: SnapshotTransfers;
    readonly local: MemberId;
    readonly receive: (request: SnapshotRequest) => void;
  }) {
    this.#transfers = options.transfers;
    this.#local = options.local;
    this.#receive = options.receive;
  }

  open(from: MemberId, stats: PeerStats, stream: Stream): IncomingEvents {
    let arrival: Arrival | undefined;
    return {
      message: (bytes) => {
        const up = decodeStrictly(SnapshotUp, bytes, upLimits);
        if (up.offer && arrival === undefined) {
          const { term } = up.offer as skep.raft.SnapshotOffer;
          const offer = readOffer(up.offer);
          if (this.#completed !== undefined && isSame(offer, this.#completed)) {
            stream.write({ done: {} });
            this.#complete(from, term, offer); // the leader of a later term has to get an answer of its own
          } else arrival = this.#begin(from, term, stats, stream, offer);
        } else if (up.chunk && arrival !== undefined) {
          arrival.chunk(up.chunk as skep.raft.SnapshotChunk);
        } else throw new HandshakeExpected("a chunk came before its offer");
      },
      closed: () => arrival?.close(),
    };
  }

  [Symbol.dispose](): void {
    this.#current?.abort(new TransportClosed());
  }

  #complete(from: MemberId, term: number, offer: SnapshotOffer): void {
    this.#completed = offer;
    this.#receive({ type: "snapshot", from, to: this.#local, term, meta: offer.meta });
  }

  #begin(from: MemberId, term: number, stats: PeerStats, stream: Stream, offer: SnapshotOffer): Arrival {
    const current = this.#current;
    // Nothing can be gained by starting over what is nearly done.
    if (current?.finishing === true) throw new SnapshotBusy(`one of member ${current.from} is being verified`);
    if (current !== undefined && current.from !== from) {
      // Of two leaders the one of the later term is the leader (scenario G13).
      if (current.term >= term) throw new SnapshotBusy(`one is arriving from member ${current.from}`);
      current.abort(new SnapshotBusy(`member ${from} leads since`));
    }
    current?.close();
    const arrival: Arrival = new Arrival(from, term, offer, stats, stream, {
      complete: () => this.#complete(from, term, offer),
      over: () => {
        if (this.#current === arrival) this.#current = undefined;
      },
    });
    this.#current = arrival;
    this.#transfers.openReceiver(from, offer, (error, receiver) => arrival.opened(error, receiver));
    return arrival;
  }
}

/** @throws HandshakeExpected */
function readOffer(wire: skep.raft.ISnapshotOffer): SnapshotOffer {
  const { chunks, sizeBytes, digest } = wire as skep.raft.SnapshotOffer;
  const meta = metaFromWire(wire.meta);
  if (meta === undefined || chunks < 1 || digest.length !== 32) {
    throw new HandshakeExpected("its offer makes no sense");
  }
  return { meta, chunks, sizeBytes, digest };
}

function isSame(one: SnapshotOffer, other: SnapshotOffer): boolean {
  const { index, term } = other.meta;
  return one.meta.index === index && one.meta.term === term && Buffer.from(one.digest).equals(other.digest);
}

class Arrival {
  readonly from: MemberId;
  readonly term: number;
  readonly #offer: SnapshotOffer;
  readonly #stats: PeerStats;
  readonly #stream: Stream;
  readonly #events: { complete(): void; over(): void };
  #receiver: SnapshotReceiver | undefined;
  readonly #queue: SnapshotChunk[] = [];
  #next = 0;
  #writing = false;
  /** After a damaged chunk those behind it are dropped until the right one comes again. */
  #rewinding = false;
  #damaged = 0;
  #over = false;
  /** All chunks are here: this goes on to its end, whatever becomes of the connection. */
  finishing = false;

  constructor(
    from: MemberId,
    term: number,
    offer: SnapshotOffer,
    stats: PeerStats,
    stream: Stream,
    events: { complete(): void; over(): void },
  ) {
    this.from = from;
    this.term = term;
    this.#offer = offer;
    this.#stats = stats;
    this.#stream = stream;
    this.#events = events;
  }

  opened(error: Error | undefined, receiver: SnapshotReceiver | undefined): void {
    if (this.#over) {
      receiver?.suspend();
      return;
    }
    if (receiver === undefined) {
      this.abort(asClusterError(error));
      return;
    }
    this.#receiver = receiver;
    this.#next = receiver.nextChunk;
    this.#progress(false);
    if (this.#next === this.#offer.chunks) this.#finish(receiver);
  }

  /** @throws HandshakeExpected for a sender that does not keep to the window */
  chunk(chunk: skep.raft.SnapshotChunk): void {
    if (this.#over) return;
    if (this.#receiver === undefined || this.#queue.length >= chunksQueuedMax) {
      throw new HandshakeExpected("chunks came before they were asked for");
    }
    this.#stats.snapshotBytesReceived += chunk.data.length;
    this.#queue.push({ number: chunk.number, data: chunk.data, crc: chunk.crc });
    this.#write();
  }

  abort(error: ClusterError): void {
    if (this.#over) return;
    this.finishing = false;
    this.close();
    this.#stream.abort(error);
  }

  /** The connection is gone, or this transfer is no longer wanted: what is in the spool stays for a resume. */
  close(): void {
    if (this.#over || this.finishing) return;
    this.#over = true;
    this.#queue.length = 0;
    // A chunk that is being written is waited for: the spool works in the order of the calls.
    this.#receiver?.suspend();
    this.#events.over();
  }

  #write(): void {
    const receiver = this.#receiver;
    invariant(receiver !== undefined, "chunks are taken once the spool is open");
    if (this.#writing || this.#over) return;
    const chunk = this.#queue.shift();
    if (chunk === undefined) return;
    if (this.#rewinding && chunk.number !== this.#next) {
      this.#write();
      return;
    }
    this.#rewinding = false;
    this.#writing = true;
    receiver.write(chunk, (error) => {
      this.#writing = false;
      if (this.#over) return;
      if (error === undefined) {
        this.#next = receiver.nextChunk;
        this.#progress(false);
        if (this.#next === this.#offer.chunks) this.#finish(receiver);
      } else if (this.#isDamage(error) && ++this.#damaged <= damagedMax) {
        this.#rewinding = true;
        this.#next = receiver.nextChunk;
        this.#progress(true);
      } else {
        this.abort(asClusterError(error));
        return;
      }
      this.#write();
    });
  }

  #finish(receiver: SnapshotReceiver): void {
    this.finishing = true;
    receiver.finish((error) => {
      if (this.#over) return;
      if (error !== undefined) {
        this.abort(asClusterError(error));
        return;
      }
      this.#over = true;
      this.#events.over();
      this.#stream.write({ done: {} });
      this.#events.complete();
    });
  }

  #progress(rewind: boolean): void {
    this.#stream.write({ progress: { nextChunk: this.#next, rewind } });
  }

  #isDamage(error: Error): boolean {
    return (error as { code?: unknown }).code === "SNAPSHOT_TRANSFER_INVALID";
  }
}

function asClusterError(error: Error | undefined): ClusterError {
  return error instanceof ClusterError ? error : new SnapshotBusy("the spool cannot be written");
}
