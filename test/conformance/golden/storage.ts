/**
 * The data folder that every release from format 1 on must open (scenario L4). `storage-v1/` was written by this file and
 * is never written again: a later format gets a folder of its own beside it.
 * Usage, once for each new format: node test/conformance/golden/storage.ts NEW-FOLDER
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Random } from "../../../lib/pure/prng.ts";
import {
  DirectStorage,
  writeFoundingSnapshot,
  type DirectStorageOptions,
} from "../../../manager/raft/direct-storage.ts";
import { FaultDisk } from "../../support/fault-disk.ts";

export const goldenConf = { voters: [7, 8], votersOutgoing: [7], learners: [9], learnersNext: [], autoLeave: true };
export const goldenContent = "the state of the golden cluster, ".repeat(40);

export function goldenOptions(disk: FaultDisk, seed = 1): DirectStorageOptions {
  const random = new Random(seed);
  return {
    files: disk,
    folder: "/data",
    identity: { clusterId: "golden", memberId: 2 ** 47 + 5, incarnation: "0123456789abcdef0123456789abcdef" },
    kek: { kind: "node", key: Uint8Array.from({ length: 32 }, (_, at) => at) },
    randomBytes: (count) => Uint8Array.from({ length: count }, () => random.int(0, 256)),
    log: { segmentBytes: 2_048, recordBytes: 1_024, aheadBytes: 256, ballastBytes: 0, lowBytes: 0 },
  };
}

/** What the log holds after the snapshot at 3: kinds, an empty entry, a replaced tail, a second key. */
export const goldenEntries = [
  "4/2/normal/four",
  "5/2/confChange/five",
  "6/3/empty/",
  `7/3/normal/${"seven ".repeat(100)}`,
  `8/3/normal/${"eight ".repeat(100)}`,
  "9/4/normal/nine",
];
export const goldenHardState = { term: 5, vote: 8, commit: 6 };

function write(disk: FaultDisk): void {
  const founding = { index: 1, term: 1, conf: goldenConf };
  let given = false;
  const source = (index: number): { index: number; next: () => Uint8Array | undefined } => ({
    index,
    next: () => (given ? undefined : ((given = true), new TextEncoder().encode(goldenContent))),
  });
  writeFoundingSnapshot(goldenOptions(disk), founding, source(1));
  const storage = DirectStorage.open(goldenOptions(disk, 2));
  const entryOf = (line: string) => {
    const [index, term, kind, text] = line.split("/");
    const data = new TextEncoder().encode(text);
    return { index: Number(index), term: Number(term), kind: kind as "normal" | "confChange" | "empty", data };
  };
  storage.save({
    hardState: { term: 2, vote: 7, commit: 3 },
    entries: [
      "2/2/normal/two",
      "3/2/normal/three",
      ...goldenEntries.slice(0, 2),
      "6/2/normal/lost",
      "7/2/normal/lost",
    ].map(entryOf),
  });
  given = false;
  storage.createSnapshot({ index: 3, term: 2, conf: goldenConf }, source(3));
  storage.save({ hardState: { term: 3, vote: 0, commit: 5 }, entries: goldenEntries.slice(2, 4).map(entryOf) });
  storage.rotateKey();
  storage.save({ hardState: undefined, entries: goldenEntries.slice(4, 5).map(entryOf) });
  storage.save({ hardState: { term: 4, vote: 8, commit: 6 }, entries: goldenEntries.slice(5).map(entryOf) });
  storage.save({ hardState: goldenHardState, entries: [] });
  storage.close();
}

/** The files of a golden folder, on a disk in memory. */
export function readGolden(name: string): FaultDisk {
  const disk = new FaultDisk(new Random(1));
  disk.mkdir("/data/log");
  disk.mkdir("/data/snapshots");
  const folder = join(import.meta.dirname, name);
  for (const path of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!path.isFile()) continue;
    const file = join(path.parentPath, path.name);
    disk.plant(`/data/${file.slice(folder.length + 1)}`, new Uint8Array(readFileSync(file)));
  }
  return disk;
}

const target = process.argv[1] === import.meta.filename ? process.argv[2] : undefined;
if (target !== undefined) {
  const disk = new FaultDisk(new Random(1));
  write(disk);
  for (const [path, content] of disk.contents()) {
    const file = join(target, path.slice("/data/".length));
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content, { flag: "wx" });
  }
}
