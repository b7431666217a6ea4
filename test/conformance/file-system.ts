/** What every FileSystem does when nothing fails: the suite that the real disk and the fake one both pass. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { errnoOf, readWhole, replaceFile, type FileSystem } from "../../lib/runtime/file-system.ts";

/** @param setUp  gives a file system and an empty folder on it */
export function fileSystemSuite(name: string, setUp: () => { files: FileSystem; folder: string }): void {
  const text = (content: string): Uint8Array => new TextEncoder().encode(content);
  const code = (act: () => unknown): string | undefined => {
    try {
      act();
    } catch (error) {
      return errnoOf(error);
    }
    return undefined;
  };

  describe(`file system: ${name}`, () => {
    test("what was written is read back, at its place, and a read stops at the end", () => {
      const { files, folder } = setUp();
      const file = files.open(`${folder}/a`, "create");
      file.pwrite(text("hello world"), 0);
      file.pwrite(text("HE"), 0);
      file.pwrite(text("!"), 13);
      const into = new Uint8Array(20);
      assert.equal(file.pread(into, 0), 14);
      assert.deepEqual(into.subarray(0, 14), text("HEllo world\0\0!"));
      assert.equal(file.pread(into, 14), 0);
      assert.equal(file.pread(into.subarray(0, 3), 6), 3);
      assert.equal(file.sizeBytes(), 14);
      file.datasync();
      file.close();
      file.close();
      assert.throws(() => file.sizeBytes());
    });

    test("open refuses what is not there, and create empties what is", () => {
      const { files, folder } = setUp();
      assert.equal(
        code(() => files.open(`${folder}/a`, "read")),
        "ENOENT",
      );
      assert.equal(
        code(() => files.open(`${folder}/a`, "write")),
        "ENOENT",
      );
      assert.equal(
        code(() => files.open(`${folder}/none/a`, "create")),
        "ENOENT",
      );
      replaceFile(files, folder, "a", text("old"));
      const file = files.open(`${folder}/a`, "create");
      assert.equal(file.sizeBytes(), 0);
      file.close();
    });

    test("truncate shortens and grows with zeros; allocate only grows", () => {
      const { files, folder } = setUp();
      const file = files.open(`${folder}/a`, "create");
      file.pwrite(text("abcdef"), 0);
      file.truncate(3);
      file.truncate(5);
      file.allocate(4);
      file.allocate(7);
      assert.equal(file.sizeBytes(), 7);
      file.close();
      assert.deepEqual(readWhole(files, `${folder}/a`, 100), text("abc\0\0\0\0"));
    });

    test("allocate passes a mebibyte", () => {
      const { files, folder } = setUp();
      const file = files.open(`${folder}/a`, "create");
      file.allocate(2_500_000);
      assert.equal(file.sizeBytes(), 2_500_000);
      file.close();
    });

    test("names appear sorted, move, are replaced and go", () => {
      const { files, folder } = setUp();
      for (const name of ["b", "a", "c"]) replaceFile(files, folder, name, text(name));
      files.mkdir(`${folder}/d/e`);
      files.mkdir(`${folder}/d/e`);
      assert.deepEqual(files.readdir(folder), ["a", "b", "c", "d"]);
      assert.deepEqual(files.readdir(`${folder}/d`), ["e"]);
      files.rename(`${folder}/a`, `${folder}/c`);
      files.unlink(`${folder}/b`);
      files.syncDirectory(folder);
      assert.deepEqual(files.readdir(folder), ["c", "d"]);
      assert.deepEqual(readWhole(files, `${folder}/c`, 100), text("a"));
      for (const act of [
        () => files.unlink(`${folder}/b`),
        () => files.rename(`${folder}/b`, `${folder}/x`),
        () => files.readdir(`${folder}/none`),
      ]) {
        assert.equal(code(act), "ENOENT");
      }
    });

    test("an open file keeps its content when its name is given to another", () => {
      const { files, folder } = setUp();
      replaceFile(files, folder, "a", text("old"));
      const old = files.open(`${folder}/a`, "read");
      replaceFile(files, folder, "a", text("new"));
      const into = new Uint8Array(3);
      old.pread(into, 0);
      assert.deepEqual(into, text("old"));
      old.close();
    });

    test("readWhole refuses a file above its bound and knows a missing one", () => {
      const { files, folder } = setUp();
      replaceFile(files, folder, "a", text("12345"));
      assert.equal(
        code(() => readWhole(files, `${folder}/a`, 4)),
        "EFBIG",
      );
      assert.equal(readWhole(files, `${folder}/b`, 4), undefined);
    });

    test("free space is a number of bytes", () => {
      const { files, folder } = setUp();
      assert.ok(files.freeBytes(folder) > 0);
    });
  });
}
