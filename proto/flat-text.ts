/**
 * Texts as protobufjs reads them are built of pieces of eight characters, which V8 keeps as a tree of two hundred bytes for an
 * id of 25: nearly all that is read has ids and names in it, and some of it is kept. Read here in one piece, they are flat.
 */
import protobuf from "protobufjs/minimal.js";

/** V8 makes trees of texts from this length on; below, the pieces cost less than a call out of JavaScript. */
const treeLengthMin = 13;

interface TextReader {
  readonly buf: Buffer & { latin1Slice(from: number, to: number): string };
  readonly len: number;
  pos: number;
  uint32(): number;
  stringVerify(): string;
}

const reader = protobuf.Reader.prototype as unknown as TextReader;
const bufferReader = protobuf.BufferReader.prototype as unknown as TextReader;

bufferReader.stringVerify = function readFlat(this: TextReader): string {
  const { buf, len, pos } = this;
  const length = this.uint32();
  const from = this.pos;
  const to = from + length;
  if (length >= treeLengthMin && to <= len) {
    let at = from;
    while (at < to && (buf[at] as number) < 0x80) at++;
    if (at === to) {
      this.pos = to;
      return buf.latin1Slice(from, to);
    }
  }
  this.pos = pos;
  return reader.stringVerify.call(this);
};
