/** A locked swarm: no manager starts from its disk alone, whatever was interrupted while the lock was changed. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync, existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { join } from "node:path";

import { SwarmIdentity } from "../../daemon/identity/index.ts";
import { formatUnlockKey, isSealed, openPrivateKey, readUnlockKey, UnlockKeyInvalid } from "../../lib/pki/index.ts";
import { nodeFileSystem } from "../../lib/runtime/file-system.ts";
import { createNodeKey } from "../../manager/raft/keys/index.ts";
import { Swarm, type SwarmNode } from "../support/swarm.ts";

const first = formatUnlockKey(new Uint8Array(32).fill(1));
const second = formatUnlockKey(new Uint8Array(32).fill(2));

let swarm: Swarm;
let n1: SwarmNode;
let n2: SwarmNode;
before(async () => {
  swarm = await Swarm.found();
  n1 = swarm.first;
  n2 = await swarm.join("n2", { token: swarm.tokens().manager });
  await swarm.join("n3", { token: swarm.tokens().manager });
  await swarm.untilVoters(3);
});
after(() => swarm[Symbol.asyncDispose]());

/** As `swarm update --autolock` and `unlock-key --rotate` do; resolves when these managers have it. */
async function lock(unlockKey: string | undefined, managers: readonly SwarmNode[]): Promise<void> {
  const settled = managers.map((node) => node.untilLocked(unlockKey));
  await swarm.update((tx) => {
    tx.edit("cluster", swarm.cluster().id, (draft) => {
      draft.unlockKey = unlockKey === undefined ? new Uint8Array(0) : readUnlockKey(unlockKey);
    });
  });
  await Promise.all(settled);
}

const keyFile = (node: SwarmNode): string => readFileSync(node.folder.keyFile, "utf8");

test("locking seals the node's key and the log of every manager, and leaves them running", async () => {
  await lock(first, swarm.nodes);
  for (const node of swarm.nodes) {
    assert.equal(node.folder.standing(), "locked");
    assert.ok(openPrivateKey(keyFile(node), first).includes("PRIVATE KEY"));
    assert.ok(!existsSync(join(node.dataDir, "node.key")), "the key that opened the log is gone");
  }
  await swarm.update((tx) => tx.create("config", { id: "config1", spec: { name: "locked" } }));
});

test("a locked manager starts with the unlock key only", async () => {
  await n2.stopManager();
  await assert.rejects(n2.startManager({ kind: "resume" }), { code: "NODE_KEY_LOCKED" });
  await assert.rejects(n2.startManager({ kind: "resume" }, { unlockKey: second }), { code: "UNLOCK_KEY_WRONG" });
  assert.throws(() => readUnlockKey("SWMKEY-1-short"), UnlockKeyInvalid);
  await n2.startManager({ kind: "resume" }, { unlockKey: first });
  await swarm.untilVoters(3);
});

test("a manager that was away while the key was rotated starts with the one from before, and then needs the new one", async () => {
  await n2.stopManager();
  await lock(second, [n1, swarm.node("n3")]);
  await assert.rejects(n2.startManager({ kind: "resume" }, { unlockKey: second }), { code: "UNLOCK_KEY_WRONG" });
  const settled = n2.untilLocked(second);
  n2.identity = SwarmIdentity.open(n2.folder, first)!;
  await n2.startManager({ kind: "resume" }, { unlockKey: first });
  await settled;
  await n2.stopManager();
  await assert.rejects(n2.startManager({ kind: "resume" }, { unlockKey: first }), { code: "UNLOCK_KEY_WRONG" });
  await n2.startManager({ kind: "resume" }, { unlockKey: second });
});

test("the power fails between the node's key and the log: either order of locks opens again", async () => {
  // The key file has the new lock and the old one, the log the old one only.
  const plain = openPrivateKey(keyFile(n2), second);
  await n2.stopManager();
  n2.folder.writeKey(plain, [first, second]);
  assert.equal(SwarmIdentity.open(n2.folder, second)?.nodeId, n2.nodeId);
  await assert.rejects(n2.startManager({ kind: "resume" }, { unlockKey: first }), { code: "KEY_WRONG" });
  await n2.startManager({ kind: "resume" }, { unlockKey: second });
  await n2.stopManager();
  // The key file is not locked, the log is: its manager says what is missing.
  n2.folder.writeKey(plain, []);
  await assert.rejects(n2.startManager({ kind: "resume" }), { code: "STORAGE_LOCKED" });
  n2.identity = SwarmIdentity.open(n2.folder, second)!;
  const settled = n2.untilLocked(second);
  await n2.startManager({ kind: "resume" }, { unlockKey: second });
  await settled;
});

test("unlocking for good opens everything on disk again", async () => {
  n2.folder.writeKey(openPrivateKey(keyFile(n2), second), [second]);
  n2.identity = SwarmIdentity.open(n2.folder, second)!;
  await lock(undefined, [n1, n2, swarm.node("n3")]);
  for (const node of swarm.nodes) assert.ok(!isSealed(keyFile(node)), node.name);
  await n2.stopManager();
  await n2.startManager({ kind: "resume" });
  await swarm.untilVoters(3);
  // A key that nobody needs any more does no harm.
  await n2.stopManager();
  await n2.startManager({ kind: "resume" }, { unlockKey: second });
});

test("a manager that is killed while its lock is taken off needs nobody, from when its key lies open", async () => {
  const node = swarm.node("n3");
  const others = [n1, n2];
  /** As its daemon starts it again after a kill. */
  const start = async (unlockKey?: string): Promise<void> => {
    node.identity = SwarmIdentity.open(node.folder, unlockKey)!;
    const key = node.identity.unlockKey ?? node.identity.unlockKeyBefore;
    const settled = node.untilLocked(undefined);
    await node.startManager({ kind: "resume" }, key === undefined ? {} : { unlockKey: key });
    await settled;
    assert.ok(!isSealed(keyFile(node)));
    assert.ok(!existsSync(join(node.folder.path, "unlock.key.before")), "the unlock key of before is forgotten");
  };
  /** What its daemon gets done before it is killed, once it is told to take the lock off. */
  const steps: Readonly<Record<string, () => void>> = {
    "nothing was done": () => {},
    "the unlock key is kept": () => node.folder.writeUnlockKeysBefore([second]),
    "the key lies open": () => node.identity.lock(undefined),
    "the log has a key to open it, and is not locked with that": () => {
      node.identity.lock(undefined);
      createNodeKey(nodeFileSystem, node.dataDir, "node.key", new Uint8Array(32).fill(9));
    },
  };
  for (const [what, act] of Object.entries(steps)) {
    await lock(second, swarm.nodes);
    await node.stopManager();
    const told = Promise.withResolvers<void>();
    node.identity = SwarmIdentity.open(node.folder, second)!;
    // It hears of it, and its daemon is killed with it.
    const daemon = { lock: () => told.resolve(), lockSettled: () => {}, renewed: () => {} };
    await node.startManager({ kind: "resume" }, { unlockKey: second, daemon });
    await lock(undefined, others);
    await told.promise;
    await node.stopManager();
    act();
    if (what === "nothing was done") {
      assert.equal(node.folder.standing(), "locked");
      await start(second);
    } else {
      assert.equal(node.folder.standing(), "ready", what);
      await start();
    }
  }
  // The log is open, and what the daemon was told last is lost.
  await lock(second, swarm.nodes);
  await node.stopManager();
  node.identity = SwarmIdentity.open(node.folder, second)!;
  const lost = Promise.withResolvers<void>();
  const daemon = {
    lock: (unlockKey: string | undefined) => {
      node.identity.lock(unlockKey);
      node.reload();
    },
    lockSettled: () => {
      if (node.identity.unlockKey === undefined) lost.resolve();
    },
    renewed: () => {},
  };
  await node.startManager({ kind: "resume" }, { unlockKey: second, daemon });
  await lock(undefined, others);
  await lost.promise;
  await node.stopManager();
  assert.ok(existsSync(join(node.folder.path, "unlock.key.before")));
  await start();
  await swarm.untilVoters(3);
});

test("a swarm can be locked from its first moment on", async () => {
  const locked = await Swarm.found({ encryptionConfig: { autoLockManagers: true } });
  try {
    const { unlockKey } = locked.founded;
    assert.equal(formatUnlockKey(locked.cluster().unlockKey), unlockKey);
    assert.equal(locked.first.folder.standing(), "locked");
    await locked.first.stopManager();
    await assert.rejects(locked.first.startManager({ kind: "resume" }), { code: "NODE_KEY_LOCKED" });
    await locked.first.startManager({ kind: "resume" }, { unlockKey: unlockKey! });
    await locked.leader();
    writeFileSync(locked.first.folder.keyFile, openPrivateKey(keyFile(locked.first), unlockKey));
    await locked.first.stopManager();
    await assert.rejects(locked.first.startManager({ kind: "resume" }), { code: "STORAGE_LOCKED" });
  } finally {
    await locked[Symbol.asyncDispose]();
  }
});
