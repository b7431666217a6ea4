/** A log on a disk in memory, for the tests of storage: small segments, cheap cipher, counted chance. */
import { Random } from "../../lib/pure/prng.ts";
import type { Entry, HardState, SnapshotMeta } from "../../manager/raft/core/types.ts";
import {
  KeyRing,
  type Cipher,
  type Kek,
  type RandomBytes,
  type StorageIdentity,
} from "../../manager/raft/keys/index.ts";
import type { RecoveredLog } from "../../manager/raft/ports.ts";
import { WalEngine, emptySnapshot, type EngineOptions } from "../../manager/raft/wal/index.ts";
import { FaultDisk } from "./fault-disk.ts";
import { plainCipher } from "./plain-cipher.ts";

export const identity: StorageIdentity = {
  clusterId: "c1",
  memberId: 7,
  incarnation: "00112233445566778899aabbccddeeff",
};
export const nodeKek: Kek = { kind: "node", key: new Uint8Array(32).fill(5) };
export const logFolder = "/data/log";

export class LogRig {
  readonly disk: FaultDisk;
  readonly random: Random;
  readonly cipher: Cipher;
  readonly options: Partial<EngineOptions>;
  keys: KeyRing;
  snapshots: readonly SnapshotMeta[] = [];

  constructor(seed: number, options: Partial<EngineOptions> = {}, cipher: Cipher = plainCipher) {
    this.random = new Random(seed);
    this.disk = new FaultDisk(Random.stream(seed, "disk"));
    this.cipher = cipher;
    this.options = options;
    this.disk.mkdir("/data");
    this.keys = KeyRing.create(this.keyOptions());
  }

  randomBytes: RandomBytes = (count) => Uint8Array.from({ length: count }, () => this.random.int(0, 256));

  keyOptions(kek: Kek = nodeKek): Parameters<typeof KeyRing.open>[0] {
    const { disk: files, randomBytes, cipher } = this;
    return { files, folder: "/data", identity, kek, randomBytes, cipher };
  }

  open(more: Partial<EngineOptions> = {}): WalEngine {
    return WalEngine.open({ ...this.engineOptions(), ...more });
  }

  engineOptions(): EngineOptions {
    return {
      files: this.disk,
      folder: logFolder,
      identity,
      keys: this.keys,
      randomBytes: this.randomBytes,
      cipher: this.cipher,
      snapshots: this.snapshots,
      segmentBytes: 4096,
      recordBytes: 2048,
      aheadBytes: 1024,
      ballastBytes: 0,
      lowBytes: 0,
      ...this.options,
    };
  }

  segments(): string[] {
    return this.disk.paths().filter((path) => path.endsWith(".log"));
  }
}

export function entry(index: number, term: number, text = `entry ${index} of term ${term}`): Entry {
  return { index, term, kind: "normal", data: new TextEncoder().encode(text) };
}

export function entries(from: number, to: number, term: number): Entry[] {
  return Array.from({ length: to - from + 1 }, (_, place) => entry(from + place, term));
}

export function hardState(term: number, vote = 0, commit = 0): HardState {
  return { term, vote, commit };
}

export function meta(index: number, term: number): SnapshotMeta {
  return { ...emptySnapshot, index, term };
}

/** A recovered log in a form that compares and prints well. */
export function flat({ hardState, snapshot, entries }: RecoveredLog): unknown {
  const data = (entry: Entry): string => Buffer.from(entry.data).toString("latin1");
  return {
    hardState,
    snapshot: `${snapshot.index}/${snapshot.term}`,
    entries: entries.map((entry) => `${entry.index}/${entry.term}/${entry.kind}/${data(entry)}`),
  };
}
