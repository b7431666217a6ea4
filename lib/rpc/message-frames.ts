/** Messages on an HTTP/2 stream as gRPC has them: a byte that says "not compressed", four of length, the message. */
import { RpcFailed, RpcTooLarge } from "./errors.ts";

export const frameHeadBytes = 5;
/** Below this one buffer and one copy cost less than two writes. */
const copiedBytesMax = 8 * 1024;

/** One buffer, or a head and the message as it is. */
export function frameMessage(message: Uint8Array): readonly [Buffer] | readonly [Buffer, Uint8Array] {
  const copies = message.length <= copiedBytesMax;
  const frame = Buffer.allocUnsafe(copies ? frameHeadBytes + message.length : frameHeadBytes);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  if (!copies) return [frame, message];
  frame.set(message, frameHeadBytes);
  return [frame];
}

/** Cuts what arrives into messages. Nothing is set aside for a message before its bytes are here. */
export class MessageReader {
  readonly #path: string;
  readonly #bytesMax: number;
  /** What has arrived and was not read; only the first one was cut. */
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Of the message whose head has been read. */
  #length: number | undefined;

  constructor(path: string, bytesMax: number) {
    this.#path = path;
    this.#bytesMax = bytesMax;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /**
   * @returns the next message that is here whole: a view of what arrived if it came in one piece
   * @throws  RpcTooLarge; RpcFailed for a compressed one
   */
  next(): Buffer | undefined {
    if (this.#length === undefined) {
      if (this.#bytes < frameHeadBytes) return undefined;
      const head = this.#take(frameHeadBytes);
      if (head[0] !== 0) throw new RpcFailed(this.#path, "its message is compressed, which nobody offered to read");
      const length = head.readUInt32BE(1);
      if (length > this.#bytesMax) throw new RpcTooLarge(this.#path, `a message of ${length} bytes`);
      this.#length = length;
    }
    if (this.#bytes < this.#length) return undefined;
    const message = this.#take(this.#length);
    this.#length = undefined;
    return message;
  }

  #take(length: number): Buffer {
    this.#bytes -= length;
    const first = this.#chunks[0];
    if (first !== undefined && first.length > length) {
      this.#chunks[0] = first.subarray(length);
      return first.subarray(0, length);
    }
    if (first !== undefined && first.length === length) {
      this.#chunks.shift();
      return first;
    }
    const whole = Buffer.allocUnsafe(length);
    let at = 0;
    let used = 0;
    for (const chunk of this.#chunks) {
      if (at === length) break;
      const part = Math.min(chunk.length, length - at);
      chunk.copy(whole, at, 0, part);
      at += part;
      if (part < chunk.length) this.#chunks[used] = chunk.subarray(part);
      else used++;
    }
    this.#chunks.splice(0, used);
    return whole;
  }
}
