import assert from "node:assert/strict";
import { test } from "node:test";

import { MemberTable } from "./member-table.ts";
import { TableFromState, TableThenState } from "./snapshot-frame.ts";
import { recordOf } from "./testing/small-group.ts";

function written(chunks: readonly string[]): Buffer {
  const rest = [...chunks];
  const table = new MemberTable([recordOf(1), recordOf(2)], [9]);
  const source = new TableThenState(7, table, { index: 7, next: () => chunkOf(rest.shift()) });
  const pieces: Uint8Array[] = [];
  for (let piece = source.next(1000); piece !== undefined; piece = source.next(1000)) pieces.push(piece);
  return Buffer.concat(pieces);
}

const chunkOf = (text: string | undefined): Uint8Array | undefined =>
  text === undefined ? undefined : Buffer.from(text);

test("the state machine gets its chunks back as it gave them, however the bytes were cut (O5)", () => {
  const chunks = ["first", "", "x".repeat(5000), "last"];
  const bytes = written(chunks);
  for (const cut of [1, 2, 3, 7, 100, 4096, bytes.length]) {
    const got: string[] = [];
    let members: number[] = [];
    const sink = new TableFromState(
      { write: (chunk) => void got.push(Buffer.from(chunk).toString()), finish: () => {} },
      (table) => (members = table.list().map(({ id }) => id)),
    );
    for (let at = 0; at < bytes.length; at += cut) sink.write(bytes.subarray(at, at + cut));
    sink.finish(7);
    assert.deepEqual([got, members], [chunks, [1, 2]], `cut at every ${cut} bytes`);
  }
});

test("a snapshot that ends within a frame, or claims too much, is refused before the state changes", () => {
  const bytes = written(["state"]);
  for (const length of [0, 3, 10, bytes.length - 1]) {
    let finished = false;
    const sink = new TableFromState({ write: () => {}, finish: () => (finished = true) }, () => {});
    sink.write(bytes.subarray(0, length));
    assert.throws(() => sink.finish(7), { code: "RAFT_MEMBER_TABLE_DAMAGED" });
    assert.equal(finished, false);
  }
  const sink = new TableFromState({ write: () => {}, finish: () => {} }, () => {});
  assert.throws(() => sink.write(Buffer.from([0xff, 0xff, 0xff, 0xff])), { code: "RAFT_MEMBER_TABLE_DAMAGED" });
});
