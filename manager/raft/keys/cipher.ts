/**
 * Sealing of records and chunks: AES-256-GCM behind a port, because one seal costs microseconds of object set-up and the
 * simulator makes millions of them (test/support/plain-cipher.ts is its stand-in, with the same checks).
 *
 * No nonce repeats (ADR 0011): each opening of the storage draws a random 16-byte session, from which HKDF-SHA-256
 * derives a key of its own below the data key; inside a session nonces count from 1. A restored backup or a copied folder
 * therefore never continues somebody's counter.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";

export const keyBytes = 32;
export const nonceBytes = 12;
export const tagBytes = 16;
export const sessionBytes = 16;

export interface Cipher {
  /** The key of one session. @param session  16 random bytes, written beside what it seals */
  derive(key: Uint8Array, session: Uint8Array): Uint8Array;
  /** Encrypts `data` in place. @returns the tag, 16 bytes */
  seal(key: Uint8Array, nonce: Uint8Array, associated: Uint8Array, data: Uint8Array): Uint8Array;
  /** Decrypts `data` in place if key, nonce, associated data and tag fit; otherwise leaves it alone and says false. */
  open(key: Uint8Array, nonce: Uint8Array, associated: Uint8Array, data: Uint8Array, tag: Uint8Array): boolean;
}

const info = new TextEncoder().encode("skep storage session v1");

export const aesGcm: Cipher = {
  derive: (key, session) => new Uint8Array(hkdfSync("sha256", key, session, info, keyBytes)),

  seal: (key, nonce, associated, data) => {
    const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes });
    cipher.setAAD(associated);
    data.set(cipher.update(data));
    cipher.final();
    return cipher.getAuthTag();
  },

  open: (key, nonce, associated, data, tag) => {
    const cipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes });
    cipher.setAAD(associated);
    cipher.setAuthTag(tag);
    const plain = cipher.update(data);
    try {
      cipher.final();
    } catch {
      return false; // the tag does not fit; Node gives no other reason
    }
    data.set(plain);
    return true;
  },
};

/** The nonce with number `count` of a session. */
export function nonceOf(count: number, into: Uint8Array = new Uint8Array(nonceBytes)): Uint8Array {
  new DataView(into.buffer, into.byteOffset).setUint32(4, Math.floor(count / 0x1_0000_0000));
  new DataView(into.buffer, into.byteOffset).setUint32(8, count >>> 0);
  return into;
}
