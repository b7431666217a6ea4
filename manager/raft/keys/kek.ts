/**
 * The key-encrypting key: a random one in the node's key file, or the swarm's unlock key (autolock). It seals the data
 * keys and nothing else, so changing it rewrites the key file and no log.
 *
 * Node key file: one line, `SKEP-NODE-KEY-1 <64 hexadecimal digits> <CRC-32 of the key, 8 digits>`.
 * Unlock key: `SWMKEY-1-` and 32 bytes in base64 without padding, as Docker prints it.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { readUnlockKey } from "../../../lib/pki/tokens.ts";
import { readWhole, replaceFile, type FileSystem } from "../../../lib/runtime/file-system.ts";
import { KeyFileDamaged, KeyMissing, KeyWrong } from "./errors.ts";
import { onDisk } from "./on-disk.ts";

export interface Kek {
  readonly kind: "node" | "unlock";
  /** 32 bytes. */
  readonly key: Uint8Array;
}

/** Draws a node key and writes its file, durably. Replaces an older one: give the key ring the new key first. */
export function createNodeKey(files: FileSystem, folder: string, name: string, key: Uint8Array): Kek {
  const checksum = crc32(key).toString(16).padStart(8, "0");
  const line = `SKEP-NODE-KEY-1 ${Buffer.from(key).toString("hex")} ${checksum}\n`;
  onDisk("write", `${folder}/${name}`, () => replaceFile(files, folder, name, new TextEncoder().encode(line)));
  return { kind: "node", key };
}

/** @throws KeyMissing if there is no file, KeyFileDamaged if it is not whole, KeyFileUnusable if it cannot be read */
export function readNodeKey(files: FileSystem, folder: string, name: string): Kek {
  const path = `${folder}/${name}`;
  const content = onDisk("read", path, () => readWhole(files, path, 4096));
  if (content === undefined) throw new KeyMissing(`there is no node key file ${path}`);
  const match = /^SKEP-NODE-KEY-1 ([0-9a-f]{64}) ([0-9a-f]{8})\n?$/u.exec(Buffer.from(content).toString("latin1"));
  if (match === null) throw new KeyFileDamaged(path, "it is not a whole node key file");
  const key = new Uint8Array(Buffer.from(match[1] as string, "hex"));
  if (crc32(key) !== Number.parseInt(match[2] as string, 16)) throw new KeyFileDamaged(path, "its checksum is wrong");
  return { kind: "node", key };
}

export { formatUnlockKey } from "../../../lib/pki/tokens.ts";

/** @throws KeyWrong on anything but an unlock key */
export function parseUnlockKey(text: string): Kek {
  try {
    return { kind: "unlock", key: readUnlockKey(text) };
  } catch {
    // The cause would quote nothing, and callers branch on this code.
    throw new KeyWrong("the storage with the unlock key given (SWMKEY-1-... expected)");
  }
}

/** Tells keys apart without telling anything of them. @returns 8 bytes */
export function fingerprintOf(kek: Kek): Uint8Array {
  return new Uint8Array(createHash("sha256").update("skep kek v1").update(kek.key).digest().subarray(0, 8));
}
