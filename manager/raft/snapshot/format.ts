/**
 * A snapshot on disk, format 1: a pure codec. docs/design/raft-storage.md has the tables.
 *
 * A file is a 512-byte header, then blocks: chunk 0 (the meta), chunks 1 .. n-1 (content, compressed
 * where that pays), and an end block (counts and digest). Each block is sealed and carries a CRC. The chunks are also what
 * travels between members, so a receiver stores what it got without packing it anew.
 */
import { crc32, zstdCompressSync, zstdDecompressSync, constants } from "node:zlib";
import type { ConfState, SnapshotMeta } from "../core/types.ts";
import { getUint64, ownerBytes, putUint64, tagBytes, viewOf } from "../keys/index.ts";

export const formatVersion = 1;
export const fileHeaderBytes = 512;
export const blockHeaderBytes = 16;
/** Content in one chunk. */
export const contentBytesMax = 256 * 1024;
export const endBytes = 4 + 8 + 8 + 32;

const magic = 0x4e534b53; // "SKSN"
const membersMax = 1000;
const storedMark = 0;
const zstdMark = 1;

export interface FileHeader {
  readonly index: number;
  readonly term: number;
  readonly keyId: number;
  readonly session: Uint8Array;
  readonly owner: Uint8Array;
}

export interface BlockHeader {
  readonly payloadBytes: number;
  readonly number: number;
  readonly isEnd: boolean;
  readonly crc: number;
}

export interface End {
  readonly chunks: number;
  /** Of all chunks, as they travel. */
  readonly sizeBytes: number;
  /** Of the content before compression. */
  readonly contentBytes: number;
  readonly digest: Uint8Array;
}

export function encodeFileHeader({ index, term, keyId, session, owner }: FileHeader): Uint8Array {
  const out = new Uint8Array(fileHeaderBytes);
  const view = viewOf(out);
  view.setUint32(0, magic, true);
  view.setUint16(4, formatVersion, true);
  putUint64(view, 8, index);
  putUint64(view, 16, term);
  view.setUint32(24, keyId, true);
  out.set(session, 32);
  out.set(owner, 48);
  view.setUint32(508, crc32(out.subarray(0, 508)), true);
  return out;
}

/** @returns the header, a later version's number, or undefined if it is damaged */
export function decodeFileHeader(bytes: Uint8Array): FileHeader | number | undefined {
  if (bytes.length < fileHeaderBytes) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== magic || view.getUint32(508, true) !== crc32(bytes.subarray(0, 508)))
    return undefined;
  const version = view.getUint16(4, true);
  if (version > formatVersion) return version;
  return {
    index: getUint64(view, 8),
    term: getUint64(view, 16),
    keyId: view.getUint32(24, true),
    session: bytes.slice(32, 48),
    owner: bytes.slice(48, 48 + ownerBytes),
  };
}

/** What the seal of a block covers beside its payload. */
export function associateBlock(header: FileHeader, block: Uint8Array): Uint8Array {
  const out = new Uint8Array(ownerBytes + 16 + 12);
  out.set(header.owner);
  putUint64(viewOf(out), ownerBytes, header.index);
  putUint64(viewOf(out), ownerBytes + 8, header.term);
  out.set(block.subarray(0, 12), ownerBytes + 16);
  return out;
}

/**
 * An unsealed block with room for the tag; `finishBlock` follows the sealing.
 * @param scratch  at least `blockBytes(payload.length)`; the block is its beginning
 */
export function beginBlock(scratch: Uint8Array, payload: Uint8Array, number: number, isEnd: boolean): Uint8Array {
  const block = scratch.subarray(0, blockBytes(payload.length));
  const view = viewOf(block);
  view.setUint32(0, payload.length, true);
  view.setUint32(4, number, true);
  view.setUint32(8, isEnd ? 1 : 0, true);
  block.set(payload, blockHeaderBytes);
  return block;
}

export function blockBytes(payloadBytes: number): number {
  return blockHeaderBytes + payloadBytes + tagBytes;
}

export function finishBlock(block: Uint8Array): void {
  viewOf(block).setUint32(12, crcOfBlock(block), true);
}

export function crcOfBlock(block: Uint8Array): number {
  return crc32(block.subarray(blockHeaderBytes), crc32(block.subarray(0, 12)));
}

/** Bounds are checked by the caller, who knows what may come. */
export function decodeBlockHeader(bytes: Uint8Array): BlockHeader | undefined {
  const view = viewOf(bytes);
  const kind = view.getUint32(8, true);
  if (kind > 1) return undefined;
  return {
    payloadBytes: view.getUint32(0, true),
    number: view.getUint32(4, true),
    isEnd: kind === 1,
    crc: view.getUint32(12, true),
  };
}

export function encodeEnd({ chunks, sizeBytes, contentBytes, digest }: End): Uint8Array {
  const out = new Uint8Array(endBytes);
  const view = viewOf(out);
  view.setUint32(0, chunks, true);
  putUint64(view, 4, sizeBytes);
  putUint64(view, 12, contentBytes);
  out.set(digest, 20);
  return out;
}

export function decodeEnd(payload: Uint8Array): End | undefined {
  if (payload.length !== endBytes) return undefined;
  const view = viewOf(payload);
  return {
    chunks: view.getUint32(0, true),
    sizeBytes: getUint64(view, 4),
    contentBytes: getUint64(view, 12),
    digest: payload.slice(20, 52),
  };
}

// ---- chunk 0 ----

const listsOf = (conf: ConfState): readonly (readonly number[])[] => [
  conf.voters,
  conf.votersOutgoing,
  conf.learners,
  conf.learnersNext,
];

export function encodeMeta(meta: SnapshotMeta): Uint8Array {
  const lists = listsOf(meta.conf);
  const members = lists.reduce((sum, list) => sum + list.length, 0);
  const out = new Uint8Array(16 + 4 + lists.length * 4 + members * 8);
  const view = viewOf(out);
  putUint64(view, 0, meta.index);
  putUint64(view, 8, meta.term);
  view.setUint32(16, meta.conf.autoLeave ? 1 : 0, true);
  let at = 20;
  for (const list of lists) {
    view.setUint32(at, list.length, true);
    at += 4;
    for (const member of list) {
      putUint64(view, at, member);
      at += 8;
    }
  }
  return out;
}

/** @returns undefined if the bytes are no meta: every length is checked before it is used */
export function decodeMeta(bytes: Uint8Array): SnapshotMeta | undefined {
  if (bytes.length < 20) return undefined;
  const view = viewOf(bytes);
  const [index, term] = [getUint64(view, 0), getUint64(view, 8)];
  if (!(index >= 0) || !(term >= 0) || view.getUint32(16, true) > 1) return undefined;
  let at = 20;
  const lists: number[][] = [];
  for (let list = 0; list < 4; list++) {
    const count = at + 4 <= bytes.length ? view.getUint32(at, true) : membersMax + 1;
    at += 4;
    if (count > membersMax || at + count * 8 > bytes.length) return undefined;
    const members = Array.from({ length: count }, (_, place) => getUint64(view, at + place * 8));
    if (members.some(Number.isNaN)) return undefined;
    lists.push(members);
    at += count * 8;
  }
  if (at !== bytes.length) return undefined;
  const [voters = [], votersOutgoing = [], learners = [], learnersNext = []] = lists;
  const conf: ConfState = { voters, votersOutgoing, learners, learnersNext, autoLeave: view.getUint32(16, true) === 1 };
  return { index, term, conf };
}

// ---- content chunks ----

/** Content as it is stored and travels. Level 1 of zstd: about 600 MB/s here, faster than sealing what it saves. */
export function packContent(content: Uint8Array, compress: boolean): Uint8Array {
  const packed = compress
    ? // One output buffer of the right size: the default of 16 KiB pieces costs half the speed and much garbage.
      zstdCompressSync(content, {
        chunkSize: content.length + 4_096,
        params: { [constants.ZSTD_c_compressionLevel]: 1 },
      })
    : undefined;
  const shorter = packed !== undefined && packed.length < content.length - content.length / 16;
  const body = shorter ? packed : content;
  const out = new Uint8Array(5 + body.length);
  out[0] = shorter ? zstdMark : storedMark;
  viewOf(out).setUint32(1, content.length, true);
  out.set(body, 5);
  return out;
}

/** Whether a chunk could be content, by its first bytes. */
export function looksLikeContent(chunk: Uint8Array): boolean {
  if (chunk.length < 5 || (chunk[0] ?? 9) > zstdMark) return false;
  const contentBytes = viewOf(chunk).getUint32(1, true);
  return contentBytes <= contentBytesMax && (chunk[0] === zstdMark || contentBytes === chunk.length - 5);
}

/** @returns undefined if the chunk does not hold what it says; never more than `contentBytesMax` */
export function unpackContent(chunk: Uint8Array): Uint8Array | undefined {
  if (!looksLikeContent(chunk)) return undefined;
  if (chunk[0] === storedMark) return chunk.subarray(5);
  const contentBytes = viewOf(chunk).getUint32(1, true);
  try {
    const content = zstdDecompressSync(chunk.subarray(5), { maxOutputLength: Math.max(1, contentBytes) });
    return content.length === contentBytes ? content : undefined;
  } catch {
    return undefined; // not a zstd frame, or one that swells beyond its word
  }
}
