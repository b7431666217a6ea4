/** Messages in a stream of bytes, each after its length in two bytes (RFC 1035 §4.2.2). Memory is bounded by one message. */
export class Frames {
  readonly #bytesMax: number;
  #header: number[] = [];
  #body: Uint8Array | undefined;
  #filled = 0;
  /** A message was longer than allowed, or empty: the rest of the stream cannot be read. */
  broken = false;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Messages that these bytes complete. */
  push(chunk: Uint8Array): Uint8Array[] {
    const whole: Uint8Array[] = [];
    for (let place = 0; place < chunk.length && !this.broken;) {
      if (this.#body === undefined) {
        this.#header.push(chunk[place++] ?? 0);
        if (this.#header.length < 2) continue;
        const [high = 0, low = 0] = this.#header;
        const length = (high << 8) | low;
        this.#header = [];
        this.broken = length === 0 || length > this.#bytesMax;
        if (!this.broken) this.#body = new Uint8Array(length);
        this.#filled = 0;
        continue;
      }
      const part = chunk.subarray(place, place + this.#body.length - this.#filled);
      this.#body.set(part, this.#filled);
      this.#filled += part.length;
      place += part.length;
      if (this.#filled < this.#body.length) continue;
      whole.push(this.#body);
      this.#body = undefined;
    }
    return whole;
  }
}

/** A message as it goes into a stream. */
export function framed(message: Uint8Array): Uint8Array {
  const out = new Uint8Array(2 + message.length);
  out[0] = message.length >>> 8;
  out[1] = message.length & 0xff;
  out.set(message, 2);
  return out;
}
