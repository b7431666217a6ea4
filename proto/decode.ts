/**
 * Reading messages of strangers. What protobufjs reads is well-formed; here it is bounded as well: numbers above 2^53
 * are refused (they would be rounded in silence), the number of fields is limited (an empty one of two bytes becomes an
 * object of a hundred), texts and bytes have a longest length, and fields nobody knows are not kept.
 */
import protobuf from "protobufjs/minimal.js";

import { ClusterError } from "../lib/pure/errors.ts";

export class MessageUnreadable extends ClusterError {
  readonly code = "MESSAGE_UNREADABLE";
  constructor(name: string, found: string, cause?: unknown) {
    super(`Cannot read a ${name} message: ${found}`, {
      fix: "Check that both ends run the same release; if they do, report it with both logs",
      cause,
    });
  }
}

export interface DecodeLimits {
  /** Fields in the whole message, nested ones included. */
  readonly fieldsMax: number;
  /** Longest single text or byte string, nested messages excluded. */
  readonly bytesMax: number;
}

/** The static half of a generated class. */
export interface Decodable<T> {
  decode(reader: protobuf.Reader | Uint8Array, length?: number): T;
  getTypeUrl(prefix?: string): string;
}

class Refusal extends Error {}

/** What protobufjs has when it does not use the Long package (proto/generate.mjs); its types know the other case only. */
interface NumberReader {
  discardUnknown: boolean;
  tag(): number;
  bytes(): Buffer;
  string(): string;
  stringVerify(): string;
  uint64(): number;
  int64(): number;
  sint64(): number;
  fixed64(): number;
  sfixed64(): number;
}
const BufferReader = protobuf.BufferReader as unknown as new (buffer: Buffer) => NumberReader;

class StrictReader extends BufferReader {
  readonly #limits: DecodeLimits;
  #fields = 0;

  constructor(buffer: Buffer, limits: DecodeLimits) {
    super(buffer);
    this.#limits = limits;
    this.discardUnknown = true;
  }

  override tag(): number {
    if (++this.#fields > this.#limits.fieldsMax) throw new Refusal(`more than ${this.#limits.fieldsMax} fields`);
    return super.tag();
  }

  override bytes(): Buffer {
    const value = super.bytes();
    if (value.length > this.#limits.bytesMax) throw new Refusal(`a field of ${value.length} bytes`);
    return value;
  }

  override string(): string {
    return this.#short(super.string());
  }

  override stringVerify(): string {
    return this.#short(super.stringVerify());
  }

  override uint64(): number {
    return safe(super.uint64());
  }

  override int64(): number {
    return safe(super.int64());
  }

  override sint64(): number {
    return safe(super.sint64());
  }

  override fixed64(): number {
    return safe(super.fixed64());
  }

  override sfixed64(): number {
    return safe(super.sfixed64());
  }

  #short(text: string): string {
    if (text.length > this.#limits.bytesMax) throw new Refusal(`a text of ${text.length} characters`);
    return text;
  }
}

function safe(value: number): number {
  if (!Number.isSafeInteger(value)) throw new Refusal(`the number ${value}, beyond 2^53`);
  return value;
}

/**
 * @param bytes  bytes fields of the result are views of it: it must not change afterwards
 * @throws       MessageUnreadable
 */
export function decodeStrictly<T>(type: Decodable<T>, bytes: Uint8Array, limits: DecodeLimits): T {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    return type.decode(new StrictReader(buffer, limits) as unknown as protobuf.Reader);
  } catch (error) {
    const name = type.getTypeUrl("").slice(1);
    throw new MessageUnreadable(name, error instanceof Error ? error.message : String(error), error);
  }
}
