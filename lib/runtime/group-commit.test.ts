import assert from "node:assert/strict";
import { test } from "node:test";

import { GroupCommit } from "./group-commit.ts";

/** A disk whose writes end when the test says so. */
class Disk {
  readonly written: (readonly number[])[] = [];
  readonly #under: PromiseWithResolvers<void>[] = [];

  readonly write = (items: readonly number[]): Promise<void> => {
    this.written.push(items);
    const write = Promise.withResolvers<void>();
    this.#under.push(write);
    return write.promise;
  };

  get underWay(): number {
    return this.#under.length;
  }

  end(error?: Error): void {
    const write = this.#under.shift();
    if (error === undefined) write?.resolve();
    else write?.reject(error);
  }
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

test("what comes while a write is under way is one write after it, in order", async () => {
  const disk = new Disk();
  const group = new GroupCommit<number>(disk.write);
  const first = group.add(1);
  await turn();
  const others = [group.add(2, 3), group.add(4)];
  await turn();
  assert.deepEqual(disk.written, [[1]]);
  disk.end();
  await first;
  await turn();
  assert.deepEqual(disk.written, [[1], [2, 3, 4]]);
  disk.end();
  await Promise.all(others);
  assert.equal(disk.underWay, 0);
});

test("who comes alone waits for nobody, and those of one turn go together", async () => {
  const disk = new Disk();
  const group = new GroupCommit<number>(disk.write);
  const both = [group.add(1), group.add(2)];
  await turn();
  assert.deepEqual(disk.written, [[1, 2]]);
  disk.end();
  await Promise.all(both);
});

test("a write that fails is told to its own group, and the next one is written", async () => {
  const disk = new Disk();
  const group = new GroupCommit<number>(disk.write);
  const failed = group.add(1);
  await turn();
  const next = group.add(2);
  disk.end(new Error("full"));
  await assert.rejects(failed, /full/);
  await turn();
  disk.end();
  await next;
  await group.idle();
  assert.deepEqual(disk.written, [[1], [2]]);
});
