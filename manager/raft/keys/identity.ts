/**
 * Whose data folder this is. Every file names its owner and every seal covers the name, so that a file of another cluster,
 * member or incarnation is refused, wherever it comes from.
 *
 * Owner: cluster id (64 bytes, UTF-8, zero padded; a longer one is replaced by the 64 hexadecimal digits of its SHA-256),
 * member id u64, incarnation (16 bytes), 4 zero bytes.
 */
import { createHash } from "node:crypto";
import { InvariantViolation, invariant } from "../../../lib/pure/errors.ts";
import type { MemberId } from "../core/types.ts";
import { getUint64, putUint64, sameBytes, viewOf } from "./bytes.ts";
import { StorageForeign } from "./errors.ts";

export interface StorageIdentity {
  /** Without NUL. */
  readonly clusterId: string;
  readonly memberId: MemberId;
  /** One life of this data folder: 32 hexadecimal digits, drawn when it is created (scenario F12). */
  readonly incarnation: string;
}

export const ownerBytes = 92;
const clusterIdBytesMax = 64;

/** The owner as files and seals carry it. @throws InvariantViolation on an identity out of bounds */
export function encodeOwner(identity: StorageIdentity): Uint8Array {
  const owner = new Uint8Array(ownerBytes);
  const given = new TextEncoder().encode(identity.clusterId);
  const long = given.length > clusterIdBytesMax;
  const cluster = long ? Buffer.from(createHash("sha256").update(given).digest("hex")) : given;
  invariant(given.length > 0 && !given.includes(0), "a cluster id has no NUL");
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

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/gu, "?");
}
