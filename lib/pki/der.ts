/**
 * DER, as far as certificates need it (ITU-T X.690 §8 and §10, RFC 5280 appendix A). A library for all of X.509 takes 8 MB
 * of each process that has it, and more to be loaded than everything else.
 *
 * Reading is for bytes of strangers: every length is checked against what is there, and nothing recurses by itself.
 */

import { invariant } from "../pure/errors.ts";

/** One value with its tag. Both are views of the bytes that were read. */
export interface Element {
  readonly tag: number;
  readonly content: Uint8Array;
  /** With its head. */
  readonly whole: Uint8Array;
}

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** `[number]` with other elements in it; of a plain value the tag is without the bit of composition. */
export const composed = (number: number): number => 0xa0 | number;
const plain = (number: number): number => 0x80 | number;

/** Not DER, or not what was expected; whoever reads says of what. */
export class DerUnreadable extends Error {}

// ---- Reading ---------------------------------------------------------------------------------------------------------------

/** The elements that stand one after the other. @throws DerUnreadable */
export function readElements(bytes: Uint8Array): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < bytes.length;) {
    const element = readAt(bytes, at);
    found.push(element);
    at += element.whole.length;
  }
  return found;
}

/** The one element that the bytes are, with this tag. @throws DerUnreadable */
export function readElement(bytes: Uint8Array, tag: number): Element {
  const element = readAt(bytes, 0);
  if (element.whole.length !== bytes.length) throw new DerUnreadable("there is more behind it");
  return expectTag(element, tag);
}

/** @throws DerUnreadable, also when there is no element */
export function expectTag(element: Element | undefined, tag: number): Element {
  if (element?.tag !== tag) throw new DerUnreadable(`expected tag ${tag} and found ${element?.tag ?? "nothing"}`);
  return element;
}

function readAt(bytes: Uint8Array, start: number): Element {
  const tag = bytes[start];
  const first = bytes[start + 1];
  if (tag === undefined || first === undefined) throw new DerUnreadable("it ends within a head");
  // A tag of several bytes does not occur in what is read here.
  if ((tag & 0x1f) === 0x1f) throw new DerUnreadable("an unknown kind of tag");
  let length = first;
  let at = start + 2;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > 3) throw new DerUnreadable("a length of an unknown kind");
    length = 0;
    for (const end = at + count; at < end; at++) {
      const byte = bytes[at];
      if (byte === undefined) throw new DerUnreadable("it ends within a head");
      length = length * 256 + byte;
    }
    // One value, one spelling: else two readers could see two different things.
    if (length < 0x80 || length < 256 ** (count - 1)) throw new DerUnreadable("a length longer than needed");
  }
  const end = at + length;
  if (end > bytes.length) throw new DerUnreadable("it ends too early");
  return { tag, content: bytes.subarray(at, end), whole: bytes.subarray(start, end) };
}

// ---- Writing ---------------------------------------------------------------------------------------------------------------

export function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  invariant(length < 0x1_0000, "what is written in DER has a length of two bytes at most", { length });
  const head = length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length];
  return Buffer.concat([Buffer.from(head), ...parts]);
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => element(tags.sequence, ...parts);

/** Of a positive number, most significant byte first. */
export function integer(bytes: Uint8Array): Buffer {
  return element(tags.integer, ...((bytes[0] ?? 0) >= 0x80 ? [Buffer.of(0)] : []), bytes);
}

export const text = (value: string): Buffer => element(tags.utf8String, Buffer.from(value));

/** @param unusedBits  of the last byte */
export const bitString = (bytes: Uint8Array, unusedBits = 0): Buffer =>
  element(tags.bitString, Buffer.of(unusedBits), bytes);

export const octetString = (bytes: Uint8Array): Buffer => element(tags.octetString, bytes);

export const boolean = (value: boolean): Buffer => element(tags.boolean, Buffer.of(value ? 0xff : 0));

/** `[number] IMPLICIT` of a value that is no composition. */
export const tagged = (number: number, bytes: Uint8Array): Buffer => element(plain(number), bytes);

/** "2.5.4.3" */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const digits = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      digits.unshift(0x80 | (left & 0x7f));
    bytes.push(...digits);
  }
  return element(tags.oid, Buffer.from(bytes));
}

/** Whole seconds; two digits of the year until 2049 (RFC 5280 §4.1.2.5). */
export function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/\.\d+|[-:T]/gu, "");
  const short = digits < "2050";
  return element(short ? tags.utcTime : tags.generalizedTime, Buffer.from(short ? digits.slice(2) : digits));
}

export function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der.buffer, der.byteOffset, der.byteLength)
      .toString("base64")
      .match(/.{1,64}/gu) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
