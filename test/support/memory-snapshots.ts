/** Snapshots in memory with the promises of SnapshotTransfers: every chunk checked, resumed by digest, verified as a whole. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

import { ClusterError } from "../../lib/pure/errors.ts";
import type { MemberId, SnapshotMeta } from "../../manager/raft/core/types.ts";
import type {
  SnapshotChunk,
  SnapshotOffer,
  SnapshotReader,
  SnapshotReceiver,
  SnapshotTransfers,
} from "../../manager/raft/snapshot/transfer.ts";

class TransferInvalid extends ClusterError {
  readonly code = "SNAPSHOT_TRANSFER_INVALID";
}

export class MemorySnapshots implements SnapshotTransfers {
  /** Chunks by "index term". */
  readonly stored = new Map<string, readonly Buffer[]>();
  readonly spools = new Map<string, Buffer[]>();
  /** How often each chunk was written to a spool, and how often one was refused. */
  readonly written: number[] = [];
  refused = 0;
  openReaders = 0;
  openReceivers = 0;
  /** Lets a test damage what is read, after its CRC has been taken. */
  damage: ((number: number, data: Buffer) => Buffer) | undefined;
  /** Lets a test hold up or refuse the receiver's disk. */
  beforeWrite: ((chunk: SnapshotChunk, go: () => void) => void) | undefined;

  put(meta: SnapshotMeta, chunks: readonly Buffer[]): void {
    this.stored.set(`${meta.index} ${meta.term}`, chunks);
  }

  get(meta: SnapshotMeta): Buffer | undefined {
    const chunks = this.stored.get(`${meta.index} ${meta.term}`);
    return chunks === undefined ? undefined : Buffer.concat(chunks);
  }

  openReader(meta: SnapshotMeta, done: (error: Error | undefined, reader: SnapshotReader | undefined) => void): void {
    setImmediate(() => {
      const chunks = this.stored.get(`${meta.index} ${meta.term}`);
      if (chunks === undefined) {
        done(new TransferInvalid("no such snapshot"), undefined);
        return;
      }
      this.openReaders++;
      const all = Buffer.concat(chunks);
      const digest = createHash("sha256").update(all).digest();
      done(undefined, {
        offer: { meta, chunks: chunks.length, sizeBytes: all.length, digest },
        read: (number, read) => {
          setImmediate(() => {
            const data = chunks[number];
            if (data === undefined) read(new TransferInvalid(`no chunk ${number}`), undefined);
            else read(undefined, { number, data: this.damage?.(number, data) ?? data, crc: crc32(data) });
          });
        },
        close: () => void this.openReaders--,
      });
    });
  }

  openReceiver(
    from: MemberId,
    offer: SnapshotOffer,
    done: (error: Error | undefined, receiver: SnapshotReceiver | undefined) => void,
  ): void {
    const name = `${from} ${Buffer.from(offer.digest).toString("hex")}`;
    const spool = this.spools.get(name) ?? [];
    this.spools.set(name, spool);
    setImmediate(() => {
      this.openReceivers++;
      let open = true;
      const close = (): void => {
        if (open) this.openReceivers--;
        open = false;
      };
      done(undefined, {
        get nextChunk() {
          return spool.length;
        },
        write: (chunk, wrote) => {
          const go = (): void => {
            if (!open) return wrote(new TransferInvalid("suspended"));
            if (chunk.number !== spool.length || crc32(chunk.data) !== chunk.crc) {
              this.refused++;
              return wrote(new TransferInvalid(`chunk ${chunk.number} is not good`));
            }
            this.written[chunk.number] = (this.written[chunk.number] ?? 0) + 1;
            spool.push(Buffer.from(chunk.data));
            return wrote(undefined);
          };
          if (this.beforeWrite === undefined) setImmediate(go);
          else this.beforeWrite(chunk, go);
        },
        finish: (finished) => {
          setImmediate(() => {
            close();
            const all = Buffer.concat(spool);
            const good = createHash("sha256").update(all).digest().equals(offer.digest);
            this.spools.delete(name);
            if (!good || all.length !== offer.sizeBytes)
              return finished(new TransferInvalid("its digest does not match"));
            this.put(offer.meta, [...spool]);
            return finished(undefined);
          });
        },
        suspend: close,
      });
    });
  }
}
