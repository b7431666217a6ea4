import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import { meta } from "../../../test/support/log-rig.ts";
import type { Scheduler, SnapshotSource } from "../ports.ts";
import { SnapshotClient, type SnapshotThread } from "./client.ts";
import type { SnapshotRequestMessage } from "./snapshot-worker.ts";

/** A thread that answers when the test says so. */
class SlowThread extends EventEmitter {
  readonly asked: SnapshotRequestMessage[] = [];

  postMessage(message: SnapshotRequestMessage): void {
    this.asked.push(message);
  }

  terminate(): Promise<number> {
    this.emit("exit", 0);
    return Promise.resolve(0);
  }

  /** Answers the oldest request. */
  answer(answer: unknown): SnapshotRequestMessage {
    const request = this.asked.shift();
    assert.ok(request !== undefined);
    this.emit("message", { kind: "answer", id: request.id, answer });
    return request;
  }

  get outstandingWrites(): number {
    return this.asked.filter(({ act }) => act === "write").length;
  }
}

class Turns implements Scheduler {
  readonly #turns: (() => void)[] = [];
  /** Each look at the clock costs so much. */
  lookMs = 0;
  #nowMs = 0;

  defer(turn: () => void): void {
    this.#turns.push(turn);
  }

  nowMs(): number {
    this.#nowMs += this.lookMs;
    return this.#nowMs;
  }

  runOne(): boolean {
    const turn = this.#turns.shift();
    turn?.();
    return turn !== undefined;
  }
}

function chunks(count: number): SnapshotSource & { given: number } {
  const source = {
    index: 5,
    given: 0,
    next: () => (source.given < count ? (source.given++, new Uint8Array(10)) : undefined),
  };
  return source;
}

test("at most four chunks wait for the thread, however slow it is: memory does not grow with the snapshot", () => {
  const [thread, turns] = [new SlowThread(), new Turns()];
  const client = new SnapshotClient(thread as unknown as SnapshotThread, turns);
  const source = chunks(100);
  const ended: [Error | undefined, number][] = [];
  client.create(meta(5, 1), source, (error, sizeBytes) => ended.push([error, sizeBytes]));
  thread.answer({ handle: 1 });
  assert.equal(source.given, 4);
  while (thread.asked[0]?.act === "write") {
    assert.ok(thread.outstandingWrites <= 4);
    thread.answer(undefined);
    while (turns.runOne());
  }
  assert.equal(source.given, 100);
  assert.equal(thread.answer(1_234).act, "finish");
  assert.deepEqual(ended, [[undefined, 1_234]]);
});

test("the source is asked for five milliseconds at most, then other work has its turn", () => {
  const [thread, turns] = [new SlowThread(), new Turns()];
  const client = new SnapshotClient(thread as unknown as SnapshotThread, turns);
  turns.lookMs = 3;
  const source = chunks(100);
  client.create(meta(5, 1), source, () => {});
  thread.answer({ handle: 1 });
  assert.equal(source.given, 1); // looked at 3, 6 and 9 ms
  assert.ok(turns.runOne());
  assert.equal(source.given, 2);
});

test("when the thread ends, whoever waits is told", async () => {
  const [thread, turns] = [new SlowThread(), new Turns()];
  const client = new SnapshotClient(thread as unknown as SnapshotThread, turns);
  const errors: (string | undefined)[] = [];
  const note = (error: Error | undefined): void => void errors.push((error as { code?: string } | undefined)?.code);
  client.install(meta(5, 1), note);
  client.create(meta(5, 1), chunks(1), note);
  await client.close();
  await client.close();
  client.install(meta(5, 1), note);
  await Promise.resolve();
  assert.deepEqual(errors, ["SNAPSHOT_ABORTED", "SNAPSHOT_ABORTED", "SNAPSHOT_ABORTED"]);
  await assert.rejects(client.opened, { code: "SNAPSHOT_ABORTED" });
});
