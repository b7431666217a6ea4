/**
 * Keys of the storage at rest: whose folder it is, which data keys seal its files, and what seals those.
 * In:    a key-encrypting key (the node's, or the unlock key), random bytes, a file system.
 * Out:   data keys by id, rotated and retired crash-safely; one cipher port for log and snapshots.
 * Uses:  lib.   Used by: wal, snapshot, the driver.   Design: docs/design/raft-storage.md, docs/adr/0011
 */
export { aesGcm, keyBytes, nonceOf, sessionBytes, tagBytes, type Cipher } from "./cipher.ts";
export {
  KeyFileDamaged,
  KeyFileUnusable,
  KeyMissing,
  KeyWrong,
  StorageForeign,
  StorageLocked,
  StorageNewer,
} from "./errors.ts";
export { checkOwner, encodeOwner, ownerBytes, type StorageIdentity } from "./identity.ts";
export { createNodeKey, formatUnlockKey, parseUnlockKey, readNodeKey, type Kek } from "./kek.ts";
export { isRingLocked, KeyRing, type DataKey, type DataKeys, type RandomBytes } from "./key-ring.ts";
export { getUint64, putUint64, sameBytes, viewOf } from "./bytes.ts";
