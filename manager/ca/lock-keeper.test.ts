import assert from "node:assert/strict";
import { test } from "node:test";

import { formatUnlockKey, generatePrivateKey, sealPrivateKey } from "../../lib/pki/index.ts";
import { silentLogger } from "../../lib/runtime/index.ts";
import type { ClusterSchema, Store } from "../store/index.ts";
import { LockKeeper, type Lock } from "./lock-keeper.ts";

const key = new Uint8Array(32).fill(7);

/** A store of one cluster whose unlock key is set by hand. */
function storeOf(cluster: { unlockKey: Uint8Array }): { store: Store<ClusterSchema>; look: () => void } {
  let ready = (): void => {};
  const watch = {
    closed: false,
    poll: () => undefined,
    whenReady: (look: () => void) => (ready = look),
    close: () => {},
  };
  const store = { current: () => ({ list: () => [cluster] }), watch: () => watch };
  return { store: store as unknown as Store<ClusterSchema>, look: () => ready() };
}

test("a lock of the past, as a log that is applied after a start shows it, is taken back from the daemon", async () => {
  const keyPem = await generatePrivateKey();
  const cluster = { unlockKey: key };
  const { store, look } = storeOf(cluster);
  const announced: Lock[] = [];
  let settled = 0;
  const locks = {
    announce: (lock: Lock) => void announced.push(lock),
    change: () => assert.fail("the log was never to be locked"),
    settled: () => void settled++,
  };
  const keeper = new LockKeeper({ store, locks, logger: silentLogger, inForce: undefined, keyPem });
  look();
  assert.deepEqual(announced, [formatUnlockKey(key)]);
  cluster.unlockKey = new Uint8Array(0);
  look();
  assert.deepEqual(announced, [formatUnlockKey(key), undefined]);
  // The daemon wrote the file twice; it may be read after each.
  keeper.keyFileWritten(sealPrivateKey(keyPem, formatUnlockKey(key)));
  assert.equal(settled, 0);
  keeper.keyFileWritten(keyPem);
  assert.equal(settled, 1);
  look();
  assert.equal(announced.length, 2);
});
