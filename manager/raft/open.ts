/** Opening a member's disk: with which key, as whose, and how a new cluster begins. */
import { randomBytes } from "node:crypto";

import { invariant } from "../../lib/pure/errors.ts";
import { nodeFileSystem } from "../../lib/runtime/file-system.ts";
import { bootstrapState } from "./core/index.ts";
import type { DataFolder } from "./data-folder.ts";
import { writeFoundingSnapshot, type DirectStorageOptions } from "./direct-storage.ts";
import { createNodeKey, parseUnlockKey, readNodeKey, type Kek } from "./keys/index.ts";
import { MemberTable, type MemberRecord } from "./member-table.ts";
import type { StateMachine } from "./ports.ts";
import { TableThenState } from "./snapshot-frame.ts";
import { Storage } from "./storage.ts";

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

/** @throws typed errors of the keys, the snapshots and the log */
export function openStorage(access: StorageAccess): Promise<Storage> {
  // The threads bring their own disk and chance: functions do not travel.
  const { folder, identity, kek } = storageOptions(access);
  return Storage.open({ folder, identity, kek });
}

/** Drawn at the first start of the folder. */
function nodeKey(folder: string): Kek {
  if (nodeFileSystem.readdir(folder).includes(nodeKeyFile) || nodeFileSystem.readdir(folder).includes("keys")) {
    return readNodeKey(nodeFileSystem, folder, nodeKeyFile);
  }
  return createNodeKey(nodeFileSystem, folder, nodeKeyFile, new Uint8Array(randomBytes(32)));
}
