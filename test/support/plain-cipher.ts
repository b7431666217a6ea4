/**
 * A stand-in for AES-GCM that hides nothing and checks everything: the tag is two CRCs over key, nonce, associated data
 * and content. Some twenty times cheaper for small records, so the simulator can afford real log code.
 */
import { crc32 } from "node:zlib";
import type { Cipher } from "../../manager/raft/keys/index.ts";

function tagOf(key: Uint8Array, nonce: Uint8Array, associated: Uint8Array, data: Uint8Array): Uint8Array {
  const about = crc32(associated, crc32(nonce, crc32(key)));
  const content = crc32(data, about);
  const tag = new Uint8Array(16);
  putWord(tag, 0, content);
  putWord(tag, 4, about);
  putWord(tag, 8, ~content);
  putWord(tag, 12, ~about);
  return tag;
}

/** Big-endian. By hand, since a DataView would move the sixteen bytes out of the heap. */
function putWord(into: Uint8Array, at: number, word: number): void {
  into[at] = word >>> 24;
  into[at + 1] = (word >>> 16) & 0xff;
  into[at + 2] = (word >>> 8) & 0xff;
  into[at + 3] = word & 0xff;
}

export const plainCipher: Cipher = {
  derive: (key, session) => {
    const derived = new Uint8Array(32);
    derived.set(key.subarray(0, 32));
    for (let at = 0; at < session.length; at++) derived[at] = (derived[at] ?? 0) ^ (session[at] ?? 0);
    return derived;
  },
  seal: tagOf,
  open: (key, nonce, associated, data, tag) => Buffer.compare(tagOf(key, nonce, associated, data), tag) === 0,
};
