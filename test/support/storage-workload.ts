/**
 * A life of one member's storage as a list of steps, each with the state that it leads to: for tests that end it anywhere
 * and compare what comes back. Saves (appending, replacing, hard state only), marks, snapshots with compaction, installed
 * snapshots, key rotation.
 */
import assert from "node:assert/strict";
import { Random } from "../../lib/pure/prng.ts";
import type { Entry, HardState } from "../../manager/raft/core/types.ts";
import { DirectStorage, type DirectStorageOptions } from "../../manager/raft/direct-storage.ts";
import type { SnapshotSource } from "../../manager/raft/ports.ts";
import { FaultDisk } from "./fault-disk.ts";
import { entry, hardState, identity, meta, nodeKek } from "./log-rig.ts";
import { plainCipher } from "./plain-cipher.ts";

export interface State {
  readonly hardState: HardState;
  /** All of the log from entry 1 on, those replaced by an installed snapshot as holes. */
  readonly entries: readonly (Entry | undefined)[];
  readonly snapshotIndex: number;
  readonly snapshotTerm: number;
}

export interface Step {
  readonly name: string;
  readonly run: (storage: DirectStorage) => void;
  readonly after: State;
}

export const startState: State = { hardState: hardState(0), entries: [], snapshotIndex: 0, snapshotTerm: 0 };

export function storageOptions(disk: FaultDisk, seed: number): DirectStorageOptions {
  const random = Random.stream(seed, "bytes");
  return {
    files: disk,
    folder: "/data",
    identity,
    kek: nodeKek,
    cipher: plainCipher,
    compress: false,
    randomBytes: (count) => Uint8Array.from({ length: count }, () => random.int(0, 256)),
    log: { segmentBytes: 3_000, recordBytes: 1_500, aheadBytes: 700, ballastBytes: 0, lowBytes: 0 },
  };
}

/** The content of the snapshot at `index`, always the same. */
export function snapshotContent(index: number): Uint8Array {
  return new TextEncoder().encode(`state as of ${index} `.repeat(1 + (index % 40)));
}

export function snapshotSource(index: number): SnapshotSource {
  let given = false;
  return { index, next: () => (given ? undefined : ((given = true), snapshotContent(index))) };
}

export type StepKind =
  "save" | "hardState" | "replace" | "idle" | "snapshot" | "install" | "rotate" | "retire" | "compact";

const kindsWeighted: readonly StepKind[] = [
  ...(["save", "save", "save", "save", "save", "hardState", "replace", "idle", "idle"] as const),
  ...(["snapshot", "install", "rotate", "retire", "compact"] as const),
];

/** The next step of a life that stands at `state`. */
export function drawStep(random: Random, state: State, kind: StepKind = random.pick(kindsWeighted)): Step {
  const { hardState: now, entries, snapshotIndex, snapshotTerm } = state;
  const last = Math.max(entries.length, snapshotIndex);
  switch (kind) {
    case "save":
      return saveStep(random, state, last + 1, random.chance(0.1) ? 1 : 0);
    case "replace":
      return last <= now.commit || last <= snapshotIndex
        ? saveStep(random, state, last + 1, 0)
        : saveStep(random, state, random.int(Math.max(now.commit, snapshotIndex) + 1, last + 1), 1);
    case "hardState": {
      const next = hardState(now.term + 1, random.int(0, 4), now.commit);
      return {
        name: `vote in term ${next.term}`,
        run: (storage) => storage.save({ hardState: next, entries: [] }),
        after: { ...state, hardState: next },
      };
    }
    case "idle":
      return { name: "idle", run: (storage) => void storage.log.idle(), after: state };
    case "rotate":
      return { name: "rotate the key", run: (storage) => storage.rotateKey(), after: state };
    case "retire":
      return { name: "retire keys", run: (storage) => void storage.retireKeys(), after: state };
    case "compact":
      return { name: "compact", run: (storage) => storage.compact(snapshotIndex), after: state };
    case "snapshot": {
      if (now.commit <= snapshotIndex) return drawStep(random, state, "save");
      const index = random.int(snapshotIndex, now.commit) + 1;
      const term = entries[index - 1]?.term ?? snapshotTerm;
      return {
        name: `snapshot at ${index}`,
        run: (storage) => void storage.createSnapshot(meta(index, term), snapshotSource(index)),
        after: {
          ...state,
          snapshotIndex: index,
          snapshotTerm: term,
          hardState: { ...now, commit: Math.max(now.commit, index) },
        },
      };
    }
    case "install":
      return installStep(state, last + random.int(1, 30), now.term);
  }
}

function saveStep(random: Random, state: State, first: number, termStep: number): Step {
  const { hardState: now, entries } = state;
  const term = now.term + termStep;
  const count = random.int(1, 5);
  const added = Array.from({ length: count }, (_, place) => entry(first + place, term, "d".repeat(random.int(0, 250))));
  const kept: (Entry | undefined)[] = entries.slice(0, first - 1);
  while (kept.length < first - 1) kept.push(undefined);
  const commit = random.int(now.commit, Math.max(now.commit, first + count - 1) + 1);
  const next = hardState(term, termStep === 0 ? now.vote : random.int(0, 4), commit);
  return {
    name: `save ${first} to ${first + count - 1} in term ${term}`,
    run: (storage) => storage.save({ hardState: next, entries: added }),
    after: { ...state, hardState: next, entries: [...kept, ...added] },
  };
}

/** Receives a snapshot from nowhere and puts it in force. The term is one that the member knows already. */
function installStep(state: State, index: number, term: number): Step {
  const next = { ...state.hardState, commit: index };
  return {
    name: `install the snapshot at ${index}`,
    run: (storage) => {
      const elsewhere = new FaultDisk(new Random(index));
      const sender = DirectStorage.open(storageOptions(elsewhere, index));
      sender.createSnapshot(meta(index, term), snapshotSource(index));
      const reader = sender.snapshots.openReader(meta(index, term));
      const receiver = storage.snapshots.openReceiver(9, reader.offer);
      for (let number = receiver.nextChunk; number < reader.offer.chunks; number++)
        receiver.write(reader.chunk(number));
      receiver.finish();
      storage.reset(meta(index, term), next);
    },
    after: {
      hardState: next,
      entries: Array.from({ length: index }, () => undefined),
      snapshotIndex: index,
      snapshotTerm: term,
    },
  };
}

/** @throws AssertionError if what was recovered is not `state` */
export function assertState(
  storage: DirectStorage,
  { hardState: expected, entries, snapshotIndex, snapshotTerm }: State,
): void {
  const { recovered } = storage;
  assert.deepEqual(recovered.hardState, { ...expected, commit: Math.max(expected.commit, snapshotIndex) });
  assert.deepEqual([recovered.snapshot.index, recovered.snapshot.term], [snapshotIndex, snapshotTerm]);
  const after = recovered.entries.filter(({ index }) => index > snapshotIndex);
  const wanted = entries.slice(snapshotIndex);
  assert.equal(after.length, wanted.length);
  for (const [place, { index, term, data }] of after.entries()) {
    const want = wanted[place];
    assert.ok(want !== undefined);
    assert.deepEqual([index, term, Buffer.compare(data, want.data)], [want.index, want.term, 0]);
  }
  const first = recovered.entries[0]?.index ?? 0;
  for (const { index, term } of recovered.entries) assert.ok(index <= snapshotIndex ? term <= snapshotTerm : true);
  assert.ok(first <= snapshotIndex + 1);
  if (snapshotIndex === 0) return;
  const reader = storage.snapshots.openReader(recovered.snapshot);
  const content = Buffer.concat(
    Array.from({ length: reader.offer.chunks - 1 }, (_, place) => reader.content(place + 1)),
  );
  reader.close();
  assert.equal(Buffer.compare(content, snapshotContent(snapshotIndex)), 0);
}

/** Whether what was recovered is one of `states`; if not, throws what is wrong with the last. */
export function assertOneOf(storage: DirectStorage, states: readonly State[]): State {
  let failure: unknown;
  for (const state of states) {
    try {
      assertState(storage, state);
      return state;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
