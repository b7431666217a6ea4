import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import protobuf from "protobufjs/minimal.js";
import { skep } from "./index.ts";

const { Annotations } = skep.objects;
const inPieces = protobuf.Reader.prototype as unknown as { stringVerify(): string };

/** As the library reads it, where the bytes are no Buffer. */
function plainly(bytes: Uint8Array): string {
  return inPieces.stringVerify.call(protobuf.Reader.create(Uint8Array.from(bytes)));
}

test("texts of every length and alphabet are read as they were written", () => {
  const text = fc.oneof(fc.string({ maxLength: 40 }), fc.string({ unit: "binary", maxLength: 40 }));
  fc.assert(
    fc.property(text, fc.nat(200), (name, times) => {
      for (const each of [name, name.repeat(times)].filter((it) => it.isWellFormed())) {
        const bytes = Annotations.encode({ name: each, labels: { [each]: "x" } }).finish();
        const read = Annotations.decode(bytes);
        assert.equal(read.name, each);
        assert.deepEqual(Object.keys(read.labels), [each]);
      }
    }),
  );
});

test("what is no text, or is cut off, is refused as the library refuses it", () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 60 });
  const ascii = fc.uint8Array({ minLength: 1, maxLength: 60, max: 0x7f });
  fc.assert(
    fc.property(fc.oneof(bytes, ascii), fc.integer({ min: -3, max: 3 }), (content, off) => {
      const framed = Buffer.concat([Buffer.of(Math.max(0, content.length + off)), content]);
      const attempt = (read: () => string): string => {
        try {
          return `read ${read()}`;
        } catch (error) {
          return `refused ${(error as Error).name}`;
        }
      };
      assert.equal(
        attempt(() => (protobuf.Reader.create(framed) as unknown as typeof inPieces).stringVerify()),
        attempt(() => plainly(framed)),
      );
    }),
  );
});
