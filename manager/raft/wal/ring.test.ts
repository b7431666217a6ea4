import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../../lib/pure/prng.ts";
import { RingReader, RingWriter, ringMemory } from "./ring.ts";

test("messages come out as they went in, across the end of the ring and its refusals", () => {
  const memory = ringMemory(1024);
  const [writer, reader] = [new RingWriter(memory), new RingReader(memory)];
  const random = new Random(1);
  const inside: Uint8Array[] = [];
  let refused = 0;
  for (let step = 0; step < 20_000; step++) {
    if (random.chance(0.55)) {
      const message = Uint8Array.from({ length: random.int(0, 300) }, () => random.int(0, 256));
      const room = writer.reserve(message.length);
      if (room === undefined) refused++;
      else {
        room.bytes.set(message);
        writer.push(message.length);
        inside.push(message);
      }
    } else {
      const taken = random.int(1, 4);
      for (let n = 0; n < taken; n++) {
        const message = reader.peek();
        assert.deepEqual(message === undefined ? undefined : new Uint8Array(message), inside.shift());
      }
      reader.release(reader.position);
    }
  }
  assert.ok(refused > 100);
});

test("an empty ring takes any message up to half its size, wherever it stands", () => {
  const memory = ringMemory(1024);
  const [writer, reader] = [new RingWriter(memory), new RingReader(memory)];
  for (let step = 0; step < 500; step++) {
    const messageBytes = step % 2 === 0 ? 500 : step % 97;
    assert.ok(writer.reserve(messageBytes) !== undefined);
    writer.push(messageBytes);
    assert.equal(reader.peek()?.length, messageBytes);
    reader.release(reader.position);
  }
});

test("the reader wakes by a push, by closing and by its timeout", () => {
  const memory = ringMemory(1024);
  const [writer, reader] = [new RingWriter(memory), new RingReader(memory)];
  reader.wait(1);
  writer.reserve(4);
  writer.push(4);
  reader.wait(60_000);
  assert.equal(reader.peek()?.length, 4);
  writer.close();
  reader.wait(60_000);
  reader.pause(60_000);
  assert.ok(reader.isClosing);
});
