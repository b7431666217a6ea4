/** What can be wrong with keys and with the owner of a data folder. No message holds key material. */
import { ClusterError } from "../../../lib/pure/errors.ts";
import { diskWords } from "../../../lib/runtime/file-system.ts";

/** The key-encrypting key given does not open the key file. */
export class KeyWrong extends ClusterError {
  readonly code = "KEY_WRONG";
  constructor(path: string, cause?: unknown) {
    super(`Cannot open ${path}: it is sealed with another key than the one given`, {
      fix: "Give the node's own key file or the current unlock key; nothing has been changed",
      cause,
    });
  }
}

/** Autolock: the key file waits for the unlock key. */
export class StorageLocked extends ClusterError {
  readonly code = "STORAGE_LOCKED";
  constructor(path: string) {
    super(`Cannot open ${path}: the swarm is locked`, {
      fix: "Unlock it with the unlock key that `unlock-key` printed on a manager",
    });
  }
}

/** A key file or key-encrypting key that should be there is not. */
export class KeyMissing extends ClusterError {
  readonly code = "KEY_MISSING";
  constructor(what: string) {
    super(`Cannot open encrypted storage: ${what}`, {
      fix: "Restore the key file that belongs to this data folder from a backup; nothing has been changed",
    });
  }
}

/** A key file that is cut short or altered. */
export class KeyFileDamaged extends ClusterError {
  readonly code = "KEY_FILE_DAMAGED";
  constructor(path: string, found: string) {
    super(`Cannot read ${path}: ${found}`, {
      fix: "Restore the file from a backup, or move the data folder aside and let this node join again",
    });
  }
}

/** The disk failed under a key file. The keys in force stay in force. */
export class KeyFileUnusable extends ClusterError {
  readonly code = "KEY_FILE_UNUSABLE";
  constructor(act: string, path: string, cause: unknown) {
    super(`Cannot ${act} ${path}: ${diskWords(cause)}`, {
      fix: "Free space or check the disk, and try again",
      cause,
    });
  }
}

/** A file of another cluster, member or incarnation. */
export class StorageForeign extends ClusterError {
  readonly code = "STORAGE_FOREIGN";
  constructor(path: string, found: string) {
    super(`Cannot use ${path}: ${found}`, {
      fix: "Put this node's own data folder back; folders are never shared or copied between members",
    });
  }
}

/** A file that a later release wrote. */
export class StorageNewer extends ClusterError {
  readonly code = "STORAGE_NEWER";
  constructor(path: string, found: number, known: number) {
    super(`Cannot read ${path}: it has format ${found}, this release reads up to ${known}`, {
      fix: "Start the release that wrote it, or a later one; nothing has been changed",
    });
  }
}
