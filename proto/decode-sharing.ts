/**
 * Messages of which many have equal parts: the tasks of a service all carry its spec. Equal parts are decoded once and
 * shared, frozen, and what was decoded or encoded once is not encoded again; so a task costs its own few fields, in time
 * and in memory.
 */
import protobuf from "protobufjs/minimal.js";

import { encodeBriefly, encodeMessage, type Encodable, type EncodedPart } from "./encode.ts";

interface Decoder<M> {
  decode(bytes: Uint8Array): M;
}

/** A field that holds a message, by its number. */
export interface SharedField {
  readonly name: string;
  readonly type: Decoder<unknown> & Encodable<never>;
}

interface Kept {
  readonly bytes: Uint8Array;
  readonly decoded: unknown;
}

const keptMax = 1024;
/** Larger ones are rare, and would keep too much. */
const keptBytesMax = 8192;
const kept = new Map<Decoder<unknown>, (Kept | undefined)[]>();
/** Of frozen parts, their bytes. */
const encodings = new WeakMap<object, Uint8Array>();

/**
 * As `type.decode(bytes)`, but the fields in `shared` are frozen at every depth and may belong to other messages, too: whoever
 * changes one replaces it. They keep nothing of `bytes`; fields of bytes elsewhere in the message do.
 * @throws what `decode` throws
 */
export function decodeSharing<M extends object>(
  type: Decoder<M>,
  shared: ReadonlyMap<number, SharedField>,
  bytes: Uint8Array,
): M {
  const reader = protobuf.Reader.create(bytes);
  const own: Uint8Array[] = [];
  const found = new Map<SharedField, Uint8Array>();
  let from = 0;
  while (reader.pos < bytes.length) {
    const start = reader.pos;
    const tag = reader.uint32();
    const field = (tag & 7) === 2 ? shared.get(tag >>> 3) : undefined;
    if (field === undefined) {
      reader.skipType(tag & 7);
      continue;
    }
    // A field that stands there twice is merged, which is for the whole decoder.
    if (found.has(field)) return type.decode(Uint8Array.from(bytes));
    const length = reader.uint32();
    if (start > from) own.push(bytes.subarray(from, start));
    found.set(field, bytes.subarray(reader.pos, reader.pos + length));
    reader.skip(length);
    from = reader.pos;
  }
  if (found.size === 0) return type.decode(bytes);
  if (bytes.length > from) own.push(bytes.subarray(from));
  const message = type.decode(own.length === 1 ? (own[0] as Uint8Array) : Buffer.concat(own));
  for (const [field, part] of found) (message as Record<string, unknown>)[field.name] = decodeShared(field.type, part);
  return message;
}

function decodeShared(type: Decoder<unknown>, bytes: Uint8Array): unknown {
  if (bytes.length > keptBytesMax) return freeze(type.decode(Uint8Array.from(bytes)));
  let keptOfType = kept.get(type);
  if (keptOfType === undefined) {
    keptOfType = Array.from({ length: keptMax }, () => undefined);
    kept.set(type, keptOfType);
  }
  const at = hashOf(bytes) % keptMax;
  const known = keptOfType[at];
  if (known !== undefined && Buffer.compare(known.bytes, bytes) === 0) return known.decoded;
  // A copy of the bytes: decoded byte fields lie in it, and what it was read from is not to be kept alive.
  const copy = Uint8Array.from(bytes);
  const decoded = freeze(type.decode(copy));
  if (typeof decoded === "object" && decoded !== null) encodings.set(decoded, copy);
  keptOfType[at] = { bytes: copy, decoded };
  return decoded;
}

/**
 * As `encodeBriefly`, but the fields in `shared` come last, and those that are frozen are encoded once for all messages that
 * have them. Whoever freezes an object here freezes all of it.
 * @param message  a copy of the caller's own: these fields are taken out of it
 * @returns        bytes that the next call of encode.ts overwrites
 */
export function encodeSharing<M extends object>(
  type: Encodable<M>,
  shared: ReadonlyMap<number, SharedField>,
  message: M,
): Uint8Array {
  const parts: EncodedPart[] = [];
  for (const [field, { name, type: partType }] of shared) {
    const part = (message as Record<string, unknown>)[name];
    if (typeof part !== "object" || part === null) continue;
    let bytes = encodings.get(part);
    if (bytes === undefined) {
      if (!Object.isFrozen(part)) continue;
      bytes = encodeMessage(partType, part as never);
      encodings.set(part, bytes);
    }
    (message as Record<string, unknown>)[name] = undefined;
    parts.push({ field, bytes });
  }
  return encodeBriefly(type, message, parts);
}

/**
 * Where in an encoded message the fields in `shared` begin, if nothing else follows them, as `encodeSharing` puts them.
 * @returns the length of `bytes` where that is not so
 */
export function sharedFrom(shared: ReadonlyMap<number, SharedField>, bytes: Uint8Array): number {
  const end = bytes.length;
  let from = end;
  let at = 0;
  let value = 0;
  /** Numbers of fields and lengths; of larger ones only the end counts. */
  const readVarint = (): void => {
    value = 0;
    for (let shift = 0; at < end; shift += 7) {
      const byte = bytes[at++] as number;
      if (shift < 28) value |= (byte & 127) << shift;
      if (byte < 128) return;
    }
  };
  while (at < end) {
    const start = at;
    readVarint();
    const wireType = value & 7;
    if (wireType !== 2 || !shared.has(value >>> 3)) from = end;
    else if (from === end) from = start;
    if (wireType === 0) readVarint();
    else if (wireType === 1) at += 8;
    else if (wireType === 5) at += 4;
    else if (wireType === 2) {
      readVarint();
      at += value;
    } else return end;
  }
  return at === end ? from : end;
}

function hashOf(bytes: Uint8Array): number {
  let hash = bytes.length;
  for (let at = 0; at < bytes.length; at++) hash = Math.imul(hash ^ (bytes[at] as number), 0x01000193);
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** Typed arrays cannot be frozen; those who read one must not write it. */
function freeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  Object.freeze(value);
  for (const inner of Object.values(value)) freeze(inner);
  return value;
}
