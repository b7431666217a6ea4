import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";

import { MessageReader, frameHeadBytes, frameMessage } from "./message-frames.ts";

test("messages of any size come out as they went in, wherever the bytes between them are cut", () => {
  const size = fc.oneof(fc.nat(40), fc.constantFrom(0, 8 * 1024, 8 * 1024 + 1, 20_000));
  fc.assert(
    fc.property(fc.array(size, { maxLength: 12 }), fc.array(fc.nat(9000), { maxLength: 40 }), (sizes, cuts) => {
      const messages = sizes.map((bytes, at) => Buffer.alloc(bytes, at + 1));
      const wire = Buffer.concat(messages.flatMap((message) => frameMessage(message)));
      const reader = new MessageReader("/t", 20_000);
      const read: Buffer[] = [];
      const readAll = (): void => {
        for (let message = reader.next(); message !== undefined; message = reader.next()) read.push(message);
      };
      let at = 0;
      for (const cut of cuts) {
        reader.push(wire.subarray(at, at + cut));
        at = Math.min(wire.length, at + cut);
        // Not after each piece: several may wait.
        if (cut % 3 > 0) readAll();
      }
      reader.push(wire.subarray(at));
      readAll();
      assert.deepEqual(read, messages);
      assert.equal(reader.next(), undefined);
    }),
    { numRuns: 300 },
  );
});

test("a message that is too long or compressed is refused as soon as its head is there", () => {
  const head = (flag: number, bytes: number): Buffer => {
    const made = Buffer.alloc(frameHeadBytes, flag);
    made.writeUInt32BE(bytes, 1);
    return made;
  };
  const reading = (bytes: Buffer): (() => unknown) => {
    const reader = new MessageReader("/t", 1000);
    reader.push(bytes);
    return () => reader.next();
  };
  assert.throws(reading(head(0, 1001)), { code: "RPC_TOO_LARGE" });
  assert.throws(reading(head(0, 2 ** 32 - 1)), { code: "RPC_TOO_LARGE" });
  assert.throws(reading(head(1, 3)), { code: "RPC_FAILED" });
  assert.equal(reading(head(0, 1000))(), undefined);
  assert.equal(reading(Buffer.alloc(4))(), undefined);
});
