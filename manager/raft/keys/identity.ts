/**
 * Whose data folder this is. Every file names its owner and every seal covers the name, so that a file of another cluster,
 * member or incarnation is refused, wherever it comes from.
 *
 * File `identity`: magic "SKID", version u16, 2 zero bytes, owner (92 bytes), CRC-32 of all before.
 * Owner: cluster id (64 bytes, UTF-8, zero padded), member id u64, incarnation (16 bytes), 4 zero bytes.
 */
import { crc32 } from "node:zlib";
import { InvariantViolation, invariant } from "../../../lib/pure/errors.ts";
import { readWhole, replaceFile, type FileSystem } from "../../../lib/runtime/file-system.ts";
import type { MemberId } from "../core/types.ts";
import { getUint64, putUint64, sameBytes, viewOf } from "./bytes.ts";
import { IdentityDamaged, StorageForeign, StorageNewer } from "./errors.ts";

export interface StorageIdentity {
  /** At most 64 bytes of UTF-8, without NUL. */
  readonly clusterId: string;
  readonly memberId: MemberId;
  /** One life of this data folder: 32 hexadecimal digits, drawn when it is created (scenario F12). */
  readonly incarnation: string;
}

export const ownerBytes = 92;
const clusterIdBytesMax = 64;
const magic = 0x44494b53; // "SKID"
const version = 1;
const fileName = "identity";
const fileBytes = 8 + ownerBytes + 4;

/** The owner as files and seals carry it. @throws InvariantViolation on an identity out of bounds */
export function encodeOwner(identity: StorageIdentity): Uint8Array {
  const owner = new Uint8Array(ownerBytes);
  const cluster = new TextEncoder().encode(identity.clusterId);
  invariant(cluster.length > 0 && cluster.length <= clusterIdBytesMax && !cluster.includes(0), "a cluster id fits", {
    bytes: cluster.length,
  });
  invariant(Number.isSafeInteger(identity.memberId) && identity.memberId > 0, "a member id is a positive integer");
  if (!/^[0-9a-f]{32}$/u.test(identity.incarnation)) throw new InvariantViolation("an incarnation has 32 hex digits");
  owner.set(cluster);
  putUint64(viewOf(owner), 64, identity.memberId);
  owner.set(Buffer.from(identity.incarnation, "hex"), 72);
  return owner;
}

/** The reverse, for messages: what a foreign file says of its owner. */
export function decodeOwner(owner: Uint8Array): StorageIdentity {
  const end = owner.subarray(0, clusterIdBytesMax).indexOf(0);
  return {
    clusterId: Buffer.from(owner.subarray(0, end < 0 ? clusterIdBytesMax : end)).toString("utf8"),
    memberId: getUint64(viewOf(owner), 64),
    incarnation: Buffer.from(owner.subarray(72, 88)).toString("hex"),
  };
}

/** @throws StorageForeign if `found` is not `expected` */
export function checkOwner(path: string, found: Uint8Array, expected: Uint8Array): void {
  if (sameBytes(found, expected)) return;
  const [theirs, ours] = [decodeOwner(found), decodeOwner(expected)];
  const difference =
    theirs.clusterId !== ours.clusterId
      ? `it belongs to cluster "${printable(theirs.clusterId)}", this is cluster "${ours.clusterId}"`
      : theirs.memberId !== ours.memberId
        ? `it belongs to member ${theirs.memberId}, this is member ${ours.memberId}`
        : "it belongs to an earlier or other incarnation of this member's folder";
  throw new StorageForeign(path, difference);
}

/** Names the owner of a new data folder, durably. */
export function writeIdentity(files: FileSystem, folder: string, identity: StorageIdentity): void {
  const content = new Uint8Array(fileBytes);
  const view = viewOf(content);
  view.setUint32(0, magic, true);
  view.setUint16(4, version, true);
  content.set(encodeOwner(identity), 8);
  view.setUint32(fileBytes - 4, crc32(content.subarray(0, fileBytes - 4)), true);
  replaceFile(files, folder, fileName, content);
}

/**
 * @returns the owner of the folder, or undefined if it has none yet
 * @throws  IdentityDamaged, StorageNewer
 */
export function readIdentity(files: FileSystem, folder: string): StorageIdentity | undefined {
  const path = `${folder}/${fileName}`;
  const content = readWhole(files, path, 64 * 1024);
  if (content === undefined) return undefined;
  if (content.length < 12) throw new IdentityDamaged(path);
  const view = viewOf(content);
  const crc = crc32(content.subarray(0, content.length - 4));
  if (view.getUint32(0, true) !== magic || view.getUint32(content.length - 4, true) !== crc) {
    throw new IdentityDamaged(path);
  }
  const found = view.getUint16(4, true);
  if (found > version) throw new StorageNewer(path, found, version);
  if (content.length !== fileBytes) throw new IdentityDamaged(path);
  return decodeOwner(content.subarray(8, 8 + ownerBytes));
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/gu, "?");
}
