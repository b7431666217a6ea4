/**
 * Moving a snapshot between members, as the transport sees it. Numbered chunks, so that a broken stream resumes where the
 * receiver stands. Both ends check: each chunk by its CRC, the whole by its digest, before anything is installed.
 * Callbacks come once each and in the order of the calls; chunks are handed over, not shared (the callee may keep them).
 */
import type { MemberId, SnapshotMeta } from "../core/types.ts";

/** What a sender says before the first chunk. All of it is checked against what then arrives. */
export interface SnapshotOffer {
  readonly meta: SnapshotMeta;
  /** Chunks are numbered 0 .. chunks-1. */
  readonly chunks: number;
  /** Of all chunks together, as they travel. */
  readonly sizeBytes: number;
  /** SHA-256 of all chunks in order (32 bytes). */
  readonly digest: Uint8Array;
}

export interface SnapshotChunk {
  readonly number: number;
  /** At most `chunkBytesMax`. */
  readonly data: Uint8Array;
  /** CRC-32 of `data`. */
  readonly crc: number;
}

/** The largest chunk that travels: 256 KiB of content, and what compression adds to incompressible bytes. */
export const chunkBytesMax = 256 * 1024 + 1024;

/** An open snapshot file; it stays readable, even when a newer one is in force, until it is closed. */
export interface SnapshotReader {
  readonly offer: SnapshotOffer;
  read(number: number, done: (error: Error | undefined, chunk: SnapshotChunk | undefined) => void): void;
  close(): void;
}

/** A spool file that fills up. Chunks must arrive in order from `nextChunk`; write the next one after `done` of the last. */
export interface SnapshotReceiver {
  /** How many chunks are here by now and need not be sent again: grows as writes succeed. */
  readonly nextChunk: number;
  write(chunk: SnapshotChunk, done: (error: Error | undefined) => void): void;
  /** Verifies the whole and makes it durable. After success `LogStorage.reset(meta)` can put it in force. */
  finish(done: (error: Error | undefined) => void): void;
  /** The stream broke: what is here is kept for a resume by the same sender. */
  suspend(): void;
}

/** The two ends of a transfer, beside what the driver uses (ports.ts `SnapshotStore`). */
export interface SnapshotTransfers {
  /** Opens the snapshot at `meta` (or the newest one, if that is newer) for sending. */
  openReader(meta: SnapshotMeta, done: (error: Error | undefined, reader: SnapshotReader | undefined) => void): void;
  /** Opens or resumes the spool of what `from` offers. Spools of different senders or digests never meet. */
  openReceiver(
    from: MemberId,
    offer: SnapshotOffer,
    done: (error: Error | undefined, receiver: SnapshotReceiver | undefined) => void,
  ): void;
}
