/**
 * Messages as bytes without garbage. protobufjs starts each message in a small buffer that it doubles, and copies at the
 * end: for 1 KB five buffers from Node's pool, whose last piece then keeps all of them alive. Here one writer serves all,
 * and what is kept is exactly as large as it must be.
 */
import protobuf from "protobufjs/minimal.js";

import type { Codec } from "../lib/rpc/index.ts";
import { MessageUnreadable } from "./decode.ts";

/** The static half of a generated class. */
export interface Encodable<M> {
  encode(message: M, writer?: protobuf.Writer): protobuf.Writer;
}

/** Larger ones are written once and let go, so that one large message does not keep its buffer for ever. */
const keptBytesMax = 1 << 20;
const slabBytes = 64 * 1024;
/** From this size on a message has a buffer of its own; smaller ones share slabs. */
const slabShareMax = slabBytes / 4;

let writer = protobuf.Writer.create();
let slab = Buffer.alloc(0);
let slabUsed = 0;

/** A message within a message that is encoded already, and the number of its field. */
export interface EncodedPart {
  readonly field: number;
  readonly bytes: Uint8Array;
}

/** @returns bytes that the next call of this file overwrites: copy them, or be done with them before that */
export function encodeBriefly<M>(type: Encodable<M>, message: M, parts: readonly EncodedPart[] = []): Uint8Array {
  if (writer.buf.length > keptBytesMax) writer = protobuf.Writer.create();
  writer.pos = 0;
  try {
    type.encode(message, writer);
    // Wire type 2: a length, and so many bytes.
    for (const { field, bytes } of parts) writer.uint32((field << 3) | 2).bytes(bytes);
  } catch (error) {
    // Left in the middle of a nested message.
    writer = protobuf.Writer.create();
    throw error;
  }
  return writer.buf.subarray(0, writer.pos);
}

/** @returns bytes of the caller's own */
export function encodeMessage<M>(type: Encodable<M>, message: M): Uint8Array {
  const bytes = encodeBriefly(type, message);
  const own = Buffer.allocUnsafeSlow(bytes.length);
  own.set(bytes);
  return own;
}

/** For bytes that live about as long as those encoded before and after them, such as entries of a log: they share slabs. */
export function encodeInRow<M>(type: Encodable<M>, message: M): Uint8Array {
  const bytes = encodeBriefly(type, message);
  if (bytes.length > slabShareMax) {
    const own = Buffer.allocUnsafeSlow(bytes.length);
    own.set(bytes);
    return own;
  }
  if (slabUsed + bytes.length > slab.length) {
    slab = Buffer.allocUnsafeSlow(slabBytes);
    slabUsed = 0;
  }
  const own = slab.subarray(slabUsed, slabUsed + bytes.length);
  own.set(bytes);
  slabUsed += bytes.length;
  return own;
}

/** @param name  of the message, for the error of a peer that sends something else */
export function messageCodec<M>(name: string, type: Encodable<M> & { decode(bytes: Uint8Array): M }): Codec<M> {
  return {
    encode: (message) => encodeMessage(type, message),
    decode: (bytes) => {
      try {
        return type.decode(bytes);
      } catch (error) {
        throw new MessageUnreadable(name, "its bytes are no such message", error);
      }
    },
  };
}
