/** L4 and the format's part of L6: files of every released format open; later ones are refused and left alone. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { DirectStorage } from "../../manager/raft/direct-storage.ts";
import { StorageNewer } from "../../manager/raft/keys/index.ts";
import {
  goldenConf,
  goldenContent,
  goldenEntries,
  goldenHardState,
  goldenOptions,
  readGolden,
} from "../conformance/golden/storage.ts";
import { flat } from "../support/log-rig.ts";

for (const name of ["storage-v1"]) {
  test(`L4: ${name} opens, holds what it held, and can be written on`, () => {
    const disk = readGolden(name);
    assert.ok(disk.paths().length >= 6);
    const storage = DirectStorage.open(goldenOptions(disk, 3));
    const { recovered } = storage;
    assert.deepEqual(recovered.snapshot, { index: 3, term: 2, conf: goldenConf });
    const after = recovered.entries.filter(({ index }) => index > 3);
    assert.deepEqual(flat({ ...recovered, entries: after }), {
      hardState: goldenHardState,
      snapshot: "3/2",
      entries: goldenEntries,
    });
    for (const meta of [recovered.snapshot, { ...recovered.snapshot, index: 1, term: 1 }]) {
      const reader = storage.snapshots.openReader(meta);
      assert.equal(Buffer.from(reader.content(1)).toString(), goldenContent);
      reader.verify();
      reader.close();
    }
    assert.deepEqual(
      storage.keys.all().map(({ id }) => id),
      [1, 2],
    );
    storage.save({ hardState: { term: 6, vote: 7, commit: 9 }, entries: [] });
    disk.restart();
    assert.equal(DirectStorage.open(goldenOptions(disk, 4)).recovered.hardState.term, 6);
  });
}

test("L6: a file of a later format is refused by name and left alone; nobody takes it for damage", () => {
  // Where the version stands, and how much the checksum behind it covers: promised for every format to come.
  const kinds = [
    { of: /segment-.*2\.log$/u, sealedBytes: 512 },
    { of: /slots$/u, sealedBytes: 512 },
    { of: /0003-.*\.snap$/u, sealedBytes: 512 },
    { of: /keys$/u, sealedBytes: undefined },
  ];
  for (const { of, sealedBytes } of kinds) {
    const disk = readGolden("storage-v1");
    const path = disk.paths().find((path) => of.test(path))!;
    const content = disk.peek(path)!;
    const end = sealedBytes ?? content.length;
    const view = new DataView(content.buffer);
    view.setUint16(4, 2, true);
    view.setUint32(end - 4, crc32(content.subarray(0, end - 4)), true);
    disk.plant(path, content);
    const before = disk.contents();
    assert.throws(
      () => DirectStorage.open(goldenOptions(disk, 3)),
      (error) => error instanceof StorageNewer && error.code === "STORAGE_NEWER" && error.message.includes(path),
      path,
    );
    assert.deepEqual(disk.contents(), before);
  }
});
