import assert from "node:assert/strict";
import { test } from "node:test";

import { formatUnlockKey, generatePrivateKey, sealPrivateKey } from "../../lib/pki/index.ts";
import { Random } from "../../lib/pure/prng.ts";
import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import type { ClusterSchema, Store, View } from "../store/index.ts";
import { LockKeeper, type Lock } from "./lock-keeper.ts";

const keyOf = (number: number): Uint8Array => new Uint8Array(32).fill(number);
const lockOf = (number: number): string => formatUnlockKey(keyOf(number));
const none = new Uint8Array(0);
const keyPem = await generatePrivateKey();

/** A manager's disk and what is said about it: the log opens with `log`, the daemon writes when it is told to. */
class Rig {
  readonly clock = new VirtualClock();
  /** What this manager has applied, and what the leader would say: undefined when nobody leads. */
  local: Uint8Array;
  truth: Uint8Array | undefined;
  /** Locks announced, and "settled". */
  readonly said: Lock[] = [];
  readonly changes: Lock[] = [];
  asked = 0;
  failures = 0;
  readonly keeper: LockKeeper;
  #ready = (): void => {};

  constructor(local: Uint8Array, truth: Uint8Array | undefined, inForce: Lock, pem = keyPem) {
    this.local = local;
    this.truth = truth;
    const viewOf = (unlockKey: Uint8Array): View<ClusterSchema> =>
      ({ list: () => [{ unlockKey }] }) as unknown as View<ClusterSchema>;
    const watch = {
      closed: false,
      poll: () => undefined,
      whenReady: (look: () => void) => (this.#ready = look),
      close: () => (watch.closed = true),
    };
    const store = {
      current: () => viewOf(this.local),
      watch: () => watch,
      read: async <T>(look: (view: View<ClusterSchema>) => T): Promise<T> => {
        this.asked++;
        await Promise.resolve();
        if (this.truth === undefined) throw new Error("nobody leads");
        this.local = this.truth;
        return look(viewOf(this.truth));
      },
    };
    this.keeper = new LockKeeper({
      store: store as unknown as Store<ClusterSchema>,
      locks: {
        announce: (lock) => void this.said.push(lock),
        change: (lock, done) => {
          this.changes.push(lock);
          queueMicrotask(() => done(this.failures-- > 0 ? new Error("the disk refuses") : undefined));
        },
        settled: () => void this.said.push("settled"),
      },
      clock: this.clock,
      random: new Random("lock-keeper"),
      logger: silentLogger,
      inForce,
      keyPem: pem,
    });
  }

  /** The log brought something. */
  async applied(unlockKey: Uint8Array, truth: Uint8Array | "nobody leads" = unlockKey): Promise<void> {
    this.local = unlockKey;
    this.truth = truth === "nobody leads" ? undefined : truth;
    this.#ready();
    await turns();
  }

  /** The daemon has sealed the file with these, and signals. */
  async written(...locks: readonly number[]): Promise<void> {
    const seals = locks.map((number) => sealPrivateKey(keyPem, lockOf(number)));
    this.keeper.keyFileWritten(seals.length === 0 ? keyPem : seals.join(""));
    await turns();
  }
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 8; turn++) await Promise.resolve();
}

test("locks of the past, as a log that is applied after a start shows them, are never acted on", async () => {
  const rig = new Rig(none, none, undefined);
  // The log of before: locked once, and not any more when it was written to the end.
  for (const past of [keyOf(1), keyOf(2), none, keyOf(3)]) await rig.applied(past, none);
  assert.deepEqual(rig.said, ["settled"]);
  assert.deepEqual(rig.changes, []);
  const asked = rig.asked;
  await rig.applied(none);
  assert.equal(rig.asked, asked, "what fits is not asked about");

  // The other way round: it was not locked for a while, and that must not open the disk.
  const sealed = sealPrivateKey(keyPem, lockOf(1));
  const locked = new Rig(keyOf(1), keyOf(1), lockOf(1), sealed);
  for (const past of [none, keyOf(1), none]) await locked.applied(past, keyOf(1));
  assert.deepEqual(locked.said, ["settled"]);
  assert.deepEqual(locked.changes, []);
});

test("while nobody leads nothing is done, and it is asked again", async () => {
  const rig = new Rig(none, none, undefined);
  await rig.applied(keyOf(1), "nobody leads");
  assert.deepEqual(rig.said, []);
  rig.truth = keyOf(1);
  rig.clock.advance(10_000);
  await turns();
  assert.deepEqual(rig.said, [lockOf(1)]);
  assert.ok(rig.asked >= 2);
});

test("a change is carried to its end before the next one begins", async () => {
  const rig = new Rig(none, none, undefined);
  await rig.applied(keyOf(1));
  assert.deepEqual(rig.said, [lockOf(1)]);
  await rig.applied(keyOf(2));
  assert.deepEqual(rig.said, [lockOf(1)], "the daemon has one change to think of");
  await rig.written(1);
  assert.deepEqual(rig.changes, [lockOf(1)]);
  assert.deepEqual(rig.said, [lockOf(1), "settled", lockOf(2)]);
  await rig.written(2, 1);
  assert.deepEqual(rig.said, [lockOf(1), "settled", lockOf(2), "settled"]);
  assert.deepEqual(rig.changes, [lockOf(1), lockOf(2)]);
});

test("a signal about something else changes nothing", async () => {
  const rig = new Rig(none, none, undefined);
  await rig.applied(keyOf(1));
  await rig.written();
  await rig.written(2);
  assert.deepEqual(rig.changes, []);
  assert.deepEqual(new Set(rig.keeper.candidates), new Set([lockOf(1), undefined]));
});

test("a log that cannot be locked otherwise is tried again", async () => {
  const rig = new Rig(none, none, undefined);
  await rig.applied(keyOf(1));
  rig.failures = 1;
  await rig.written(1);
  assert.deepEqual(rig.said, [lockOf(1)]);
  rig.clock.advance(10_000);
  await turns();
  assert.deepEqual(rig.said, [lockOf(1), lockOf(1)]);
  await rig.written(1);
  assert.deepEqual(rig.changes, [lockOf(1), lockOf(1)]);
  assert.equal(rig.said.at(-1), "settled");
});

test("whatever step a change was killed in, a start carries it on from the disk", async () => {
  const sealed = (...numbers: number[]): string => numbers.map((n) => sealPrivateKey(keyPem, lockOf(n))).join("");
  const cases: readonly [string, Uint8Array, Lock, string, number[]][] = [
    // what, what is wanted, how the log opened, the file at the start, the file as the daemon writes it then
    ["off: the file is sealed still", none, lockOf(1), sealed(1), []],
    ["off: the file is open, the log is not", none, lockOf(1), keyPem, []],
    ["off: both are open", none, undefined, keyPem, []],
    ["on: nothing is sealed", keyOf(1), undefined, keyPem, [1]],
    ["on: the file is sealed", keyOf(1), undefined, sealed(1), [1]],
    ["on: both are sealed", keyOf(1), lockOf(1), sealed(1), [1]],
    ["rotation: nothing is sealed anew", keyOf(2), lockOf(1), sealed(1), [2, 1]],
    ["rotation: the file has both seals", keyOf(2), lockOf(1), sealed(2, 1), [2, 1]],
    ["rotation: the log has the new one", keyOf(2), lockOf(2), sealed(2, 1), [2, 1]],
    ["rotation: the old seal is gone", keyOf(2), lockOf(2), sealed(2), [2]],
  ];
  for (const [what, wanted, inForce, pem, seals] of cases) {
    const rig = new Rig(wanted, wanted, inForce, pem);
    await rig.applied(wanted);
    if (rig.said[0] !== "settled") {
      const lock = wanted.length === 0 ? undefined : formatUnlockKey(wanted);
      assert.deepEqual(rig.said, [lock], what);
      await rig.written(...seals);
      assert.deepEqual(rig.changes, lock === inForce ? [] : [lock], what);
    }
    assert.equal(rig.said.at(-1), "settled", what);
    await rig.applied(wanted);
    assert.equal(rig.said.filter((word) => word === "settled").length, 1, what);
  }
});
