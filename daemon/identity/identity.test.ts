import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import {
  Authority,
  NodeKeyLocked,
  UnlockKeyWrong,
  createAuthority,
  digestOfRoot,
  formatUnlockKey,
  readCertificate,
} from "../../lib/pki/index.ts";
import { nodeFileSystem, type FileSystem } from "../../lib/runtime/file-system.ts";
import { realClock } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import { IdentityDamaged, IdentityFolder, SwarmIdentity, found, type Founded } from "./index.ts";

const base = mkdtempSync(join(tmpdir(), "skep-identity-"));
after(() => rmSync(base, { recursive: true }));
let made = 0;

const settings = { listenAddr: "0.0.0.0:2377", advertiseAddr: "192.0.2.1:2377", dataPathAddr: "" };

function newFolder(): IdentityFolder {
  return new IdentityFolder(join(base, String(made++), "swarm"));
}

function foundIn(folder: IdentityFolder, spec: skep.objects.ClusterSpec.$Properties = {}): Promise<Founded> {
  return found({
    folder,
    clock: realClock,
    settings,
    spec: skep.objects.ClusterSpec.encode({ name: "default", ...spec }).finish(),
    defaultAddrPool: ["10.0.0.0/8"],
    subnetSize: 24,
    dataPathPort: 4789,
    hostname: "host-1",
    availability: "active",
  });
}

test("a founder is a manager by its own root's word, and finds itself again after a restart", async () => {
  const folder = newFolder();
  assert.equal(folder.standing(), "none");
  const { identity, bootstrap, keep, unlockKey } = await foundIn(folder);
  assert.equal(unlockKey, undefined);
  assert.equal(folder.standing(), "none", "a founding that was cut short leaves no swarm");
  keep();
  assert.equal(folder.standing(), "ready");
  const again = SwarmIdentity.open(folder);
  assert.ok(again !== undefined);
  assert.equal(again.role, "manager");
  assert.equal(again.nodeId, bootstrap.nodeId);
  assert.equal(again.clusterId, bootstrap.clusterId);
  assert.equal(again.memberId, bootstrap.memberId);
  assert.deepEqual(again.settings, settings);
  assert.deepEqual(again.managers, [{ nodeId: identity.nodeId, addr: "192.0.2.1:2377" }]);
  assert.equal(again.tlsInfo.trustRoot, bootstrap.rootCert);
  assert.equal(digestOfRoot(bootstrap.rootCert).length, 50);
  for (const name of readdirSync(folder.path)) assert.equal(statSync(join(folder.path, name)).mode & 0o777, 0o600);
  const files = readdirSync(folder.path).map((name) => readFileSync(join(folder.path, name), "utf8"));
  assert.ok(!files.join("").includes(bootstrap.rootKey), "the root's key is in no file");
});

test("a file is given to the manager's user before it takes its place, so that no crash leaves one that it cannot read", async () => {
  const path = join(base, String(made++), "swarm");
  const seen: string[] = [];
  const prepare = (file: string): void => {
    const name = file.slice(path.length + 1).replace(/\.tmp$/u, "");
    assert.notEqual(file, join(path, name), "it is still beside its place");
    assert.ok(readFileSync(file).length > 0);
    seen.push(name);
  };
  const { identity } = await foundIn(new IdentityFolder(path, { prepare }));
  seen.length = 0;
  identity.lock(formatUnlockKey(new Uint8Array(32).fill(7)));
  assert.deepEqual(seen, ["node.key"]);
});

test("the life of the first certificate is the one that the cluster's settings ask for", async () => {
  const spec = { caConfig: { nodeCertExpiry: { seconds: 7200 } } };
  const { identity } = await foundIn(newFolder(), spec);
  const { notAfterMs } = identity.tls.certificate;
  assert.ok(Math.abs(notAfterMs - Date.now() - 7_200_000) < 60_000);
});

test("in a locked swarm the key on disk needs the unlock key, and a lock can be changed and taken off", async () => {
  const folder = newFolder();
  const founded = await foundIn(folder, { encryptionConfig: { autoLockManagers: true } });
  founded.keep();
  const first = founded.unlockKey!;
  assert.match(first, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
  assert.equal(folder.standing(), "locked");
  const other = formatUnlockKey(new Uint8Array(32).fill(7));
  assert.throws(() => SwarmIdentity.open(folder), NodeKeyLocked);
  assert.throws(() => SwarmIdentity.open(folder, other), UnlockKeyWrong);
  const identity = SwarmIdentity.open(folder, first)!;
  assert.equal(identity.unlockKey, first);
  identity.lock(other);
  // Between the two steps either key opens it: the log may have the lock of before, or the new one.
  assert.equal(SwarmIdentity.open(folder, first)!.nodeId, identity.nodeId);
  assert.equal(SwarmIdentity.open(folder, other)!.nodeId, identity.nodeId);
  identity.settleLock();
  assert.throws(() => SwarmIdentity.open(folder, first), UnlockKeyWrong);
  assert.equal(SwarmIdentity.open(folder, other)!.nodeId, identity.nodeId);
  identity.lock(undefined);
  assert.equal(folder.standing(), "ready");
  // The log may still have the lock: its key is kept until it has not, and then forgotten.
  assert.equal(SwarmIdentity.open(folder)!.unlockKeyBefore, other);
  identity.settleLock();
  assert.equal(SwarmIdentity.open(folder)!.unlockKeyBefore, undefined);
  assert.deepEqual(readdirSync(folder.path).sort(), ["node.crt", "node.key", "root.crt", "state.json"]);
});

/** The disk of a process that is killed after so many changes of it. */
class MortalDisk {
  left = Infinity;
  readonly files: FileSystem = {
    ...nodeFileSystem,
    open: (path, mode) => {
      if (mode !== "read") this.#live();
      return nodeFileSystem.open(path, mode);
    },
    rename: (from, to) => {
      this.#live();
      nodeFileSystem.rename(from, to);
    },
    unlink: (path) => {
      this.#live();
      nodeFileSystem.unlink(path);
    },
    syncDirectory: (path) => {
      this.#live();
      nodeFileSystem.syncDirectory(path);
    },
  };

  #live(): void {
    if (this.left-- <= 0) throw new Error("killed");
  }
}

test("a lock that is put on, changed or taken off leaves key and log to one word, whatever step it is killed in", async () => {
  const [first, second] = [1, 2].map((number) => formatUnlockKey(new Uint8Array(32).fill(number)));
  const original = newFolder();
  (await foundIn(original)).keep();
  for (const withNextKey of [false, true])
    for (const [before, after] of [
      [undefined, first],
      [first, second],
      [first, undefined],
    ])
      for (let step = 0, done = false; !done; step++) {
        const folder = newFolder();
        cpSync(original.path, folder.path, { recursive: true });
        const founder = SwarmIdentity.open(folder)!;
        founder.lock(before);
        founder.settleLock();
        const disk = new MortalDisk();
        const identity = SwarmIdentity.open(new IdentityFolder(folder.path, { files: disk.files }), before)!;
        if (withNextKey) await identity.request();
        disk.left = step;
        /** What the log may be locked with by now. */
        let logs = [before];
        try {
          identity.lock(after);
          logs = [after];
          identity.settleLock();
          done = true;
        } catch (error) {
          assert.equal((error as Error).message, "killed");
        }
        const opens = (log: string | undefined, given: string | undefined): boolean => {
          try {
            const { unlockKey, unlockKeyBefore } = SwarmIdentity.open(folder, given)!;
            // The key of a log without a lock lies beside it, and is tried whatever is known.
            return [undefined, given, unlockKey, unlockKeyBefore].includes(log);
          } catch (error) {
            assert.ok(error instanceof NodeKeyLocked || error instanceof UnlockKeyWrong, String(error));
            return false;
          }
        };
        const what = `${before} to ${after}, killed at step ${step}, a key waiting: ${withNextKey}`;
        for (const log of logs) {
          assert.ok(
            [undefined, before, after].some((given) => opens(log, given)),
            what,
          );
          if (after === undefined && folder.standing() === "ready") assert.ok(opens(log, undefined), what);
        }
      }
});

test("between the steps of a lock, one key opens the node's key and the log, whichever that one has", async () => {
  const [first, second] = [1, 2].map((number) => formatUnlockKey(new Uint8Array(32).fill(number)));
  const folder = newFolder();
  const { keep, identity } = await foundIn(folder);
  keep();
  identity.lock(first);
  identity.settleLock();
  identity.lock(second);
  // Also a key that is renewed just then.
  await identity.request();
  for (const key of [first, second]) assert.equal(SwarmIdentity.open(folder, key)!.nodeId, identity.nodeId);
  identity.settleLock();
  identity.lock(undefined);
  // Locked again before the log was opened: nobody may have the first key any more, and nobody is asked for it.
  identity.lock(first);
  assert.equal(folder.standing(), "ready");
  assert.equal(SwarmIdentity.open(folder, first)!.unlockKeyBefore, second);
  identity.settleLock();
  assert.equal(folder.standing(), "locked");
  folder.wipe();
  assert.deepEqual(readdirSync(folder.path), []);
});

test("a renewed certificate and its new key are in force together, wherever the power fails between their files", async () => {
  const folder = newFolder();
  const { bootstrap, keep } = await foundIn(folder);
  keep();
  const identity = SwarmIdentity.open(folder)!;
  const authority = new Authority({ certificatePem: bootstrap.rootCert, privateKeyPem: bootstrap.rootKey });
  const before = identity.tls.certificate.fingerprint;
  const csr = await identity.request();
  assert.equal(
    SwarmIdentity.open(folder)!.tls.certificate.fingerprint,
    before,
    "a key without its certificate changes nothing",
  );
  const csrAgain = await identity.request();
  assert.notEqual(csrAgain, csr);
  const { memberId, nodeId, clusterId } = bootstrap;
  const issued = await authority.issue(
    csrAgain,
    { nodeId, clusterId, role: "manager", memberId },
    { nowMs: Date.now() },
  );
  // The certificate is on disk, and its key is still called the next one.
  writeFileSync(folder.certificateFile, issued);
  assert.equal(SwarmIdentity.open(folder)!.tls.certificate.fingerprint, readCertificate(issued).fingerprint);
  assert.ok(!readdirSync(folder.path).includes("node.key.next"));

  const changes: string[] = [];
  const live = SwarmIdentity.open(folder)!;
  live.onChange((change) => changes.push(change));
  const worker = await authority.issue(
    await live.request(),
    { nodeId, clusterId, role: "worker", memberId: undefined },
    { nowMs: Date.now() },
  );
  live.adopt(worker, bootstrap.rootCert);
  assert.deepEqual(changes, ["certificate"]);
  assert.equal(live.role, "worker");
  assert.equal(SwarmIdentity.open(folder)!.role, "worker");
});

test("a certificate of another key, node or root is not adopted, and nothing changes", async () => {
  const folder = newFolder();
  const { identity, bootstrap } = await foundIn(folder);
  const before = identity.tls.certificate.fingerprint;
  const { clusterId, nodeId, memberId } = bootstrap;
  const stranger = new Authority(await createAuthority(clusterId, Date.now()));
  const ours = new Authority({ certificatePem: bootstrap.rootCert, privateKeyPem: bootstrap.rootKey });
  const csr = await identity.request();
  const role = "manager";
  const nowMs = Date.now();
  const foreign = await stranger.issue(csr, { nodeId, clusterId, role, memberId }, { nowMs });
  assert.throws(() => identity.adopt(foreign, bootstrap.rootCert), { code: "CERTIFICATE_INVALID" });
  const another = await ours.issue(csr, { nodeId: "x".repeat(25), clusterId, role, memberId }, { nowMs });
  assert.throws(() => identity.adopt(another, bootstrap.rootCert), { code: "CERTIFICATE_INVALID" });
  assert.equal(identity.tls.certificate.fingerprint, before);
});

test("damaged files of an identity are named, and a wiped folder is in no swarm", async () => {
  const folder = newFolder();
  const { keep } = await foundIn(folder);
  keep();
  writeFileSync(join(folder.path, "state.json"), "{");
  assert.throws(() => folder.standing(), IdentityDamaged);
  writeFileSync(join(folder.path, "state.json"), '{"format":1}');
  assert.throws(() => SwarmIdentity.open(folder), IdentityDamaged);
  keep();
  writeFileSync(folder.certificateFile, "no certificate");
  assert.throws(() => SwarmIdentity.open(folder), IdentityDamaged);
  folder.wipe();
  folder.wipe();
  assert.equal(folder.standing(), "none");
  assert.deepEqual(readdirSync(folder.path), []);
});
