/** Opening a member's disk: with which key, as whose, and how a new cluster begins. */
import { randomBytes } from "node:crypto";

import { ClusterError, invariant } from "../../lib/pure/errors.ts";
import { nodeFileSystem } from "../../lib/runtime/file-system.ts";
import { bootstrapState } from "./core/index.ts";
import type { DataFolder } from "./data-folder.ts";
import { writeFoundingSnapshot, type DirectStorageOptions } from "./direct-storage.ts";
import { createNodeKey, isRingLocked, parseUnlockKey, readNodeKey, StorageLocked, type Kek } from "./keys/index.ts";
import { MemberTable, type MemberRecord } from "./member-table.ts";
import type { StateMachine } from "./ports.ts";
import { TableThenState } from "./snapshot-frame.ts";
import { Storage, type OpeningOptions } from "./storage.ts";

const nodeKeyFile = "node.key";

export interface StorageAccess {
  readonly folder: DataFolder;
  /** Opens the log when it is locked (autolock); without it the node's own key does. */
  readonly unlockKey?: string;
}

export function storageOptions({ folder, unlockKey }: StorageAccess): DirectStorageOptions {
  const { identity } = folder;
  invariant(identity !== undefined, "a folder is somebody's before its disk is opened");
  const { clusterId, memberId, incarnation } = identity;
  return {
    files: nodeFileSystem,
    folder: folder.path,
    identity: { clusterId, memberId, incarnation },
    kek: unlockKey === undefined ? nodeKey(folder.path) : parseUnlockKey(unlockKey),
    randomBytes: (count) => new Uint8Array(randomBytes(count)),
  };
}

/** Writes the snapshot with which a cluster of one begins; nothing else of it exists yet. */
export function foundCluster(access: StorageAccess, founder: MemberRecord, stateMachine: StateMachine): void {
  const { snapshot } = bootstrapState([founder.id]);
  const source = new TableThenState(snapshot.index, new MemberTable([founder]), stateMachine.snapshot());
  writeFoundingSnapshot(storageOptions(access), snapshot, source);
}

/**
 * Opens with the unlock key if one is given, or else with the node's own. With an unlock key the node's own is tried after
 * it: the log changes its lock after the rest of the node, and the power may have failed between the two.
 * @throws typed errors of the keys, the snapshots and the log
 */
export async function openStorage(access: StorageAccess, opening: OpeningOptions = {}): Promise<Storage> {
  // The threads bring their own disk and chance: functions do not travel.
  const { folder, identity, kek } = storageOptions(access);
  try {
    return await Storage.open({ folder, identity, kek, ...opening });
  } catch (error) {
    const elsewise = kek.kind === "unlock" && error instanceof ClusterError && error.code === "KEY_WRONG";
    if (!elsewise || !nodeFileSystem.readdir(folder).includes(nodeKeyFile)) throw error;
    const nodeKek = readNodeKey(nodeFileSystem, folder, nodeKeyFile);
    return await Storage.open({ folder, identity, kek: nodeKek, ...opening });
  }
}

/**
 * Locks the log with another key: its data keys are sealed anew, nothing else is written.
 * @param unlockKey  undefined: with a fresh key of the node's own, so that it opens without anybody
 */
export async function changeLock(folder: DataFolder, storage: Storage, unlockKey: string | undefined): Promise<void> {
  const { path } = folder;
  if (unlockKey === undefined) {
    // The file first: without the ring sealed by it, it opens nothing.
    await storage.changeKek(createNodeKey(nodeFileSystem, path, nodeKeyFile, new Uint8Array(randomBytes(32))));
    return;
  }
  await storage.changeKek(parseUnlockKey(unlockKey));
  if (!nodeFileSystem.readdir(path).includes(nodeKeyFile)) return;
  // It would still open an older copy of the ring.
  nodeFileSystem.unlink(`${path}/${nodeKeyFile}`);
  nodeFileSystem.syncDirectory(path);
}

/** Drawn at the first start of the folder. @throws StorageLocked, KeyMissing */
function nodeKey(folder: string): Kek {
  const names = nodeFileSystem.readdir(folder);
  if (!names.includes(nodeKeyFile) && isRingLocked(nodeFileSystem, folder)) throw new StorageLocked(`${folder}/keys`);
  if (names.includes(nodeKeyFile) || names.includes("keys")) {
    return readNodeKey(nodeFileSystem, folder, nodeKeyFile);
  }
  return createNodeKey(nodeFileSystem, folder, nodeKeyFile, new Uint8Array(randomBytes(32)));
}
