import assert from "node:assert/strict";
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { layersOf, makeSharedDirectories, prepareRoot } from "./root-access.ts";

test("containers of one image that start together look into its root once", async () => {
  const folder = mkdtempSync(join(tmpdir(), "root-access-"));
  try {
    const visits = join(folder, "visits");
    const isolate = join(folder, "isolate");
    writeFileSync(isolate, `#!/bin/sh\necho visit >> ${visits}\nprintf '%s\\n' 20 'joe:x:1000:77:::/sh' -1\n`);
    chmodSync(isolate, 0o755);
    const programs = { isolate, archive: "/nowhere", runtime: "builtin" };
    const ask = (id: number, workingDirectory: string): ReturnType<typeof prepareRoot> => {
      const directory = join(folder, "containers", String(id));
      mkdirSync(directory, { recursive: true });
      const layers = layersOf(directory, [join(folder, "layer")]);
      return prepareRoot(programs, layers, { imageId: "sha256:x", workingDirectory, user: "joe", groupAdd: [] });
    };
    const users = await Promise.all(Array.from({ length: 20 }, (_, id) => ask(id, "/")));
    assert.ok(users.every(({ uid, gid }) => uid === 1000 && gid === 77));
    assert.equal(readFileSync(visits, "utf8"), "visit\n");
    assert.equal((await ask(20, "/")).uid, 1000);
    assert.equal(readFileSync(visits, "utf8"), "visit\n");
    await ask(21, "/srv");
    assert.equal(readFileSync(visits, "utf8"), "visit\nvisit\n", "a working directory is made in each");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("what all containers share is whole when it is there, also after a start that was cut short", async () => {
  const folder = mkdtempSync(join(tmpdir(), "root-access-"));
  try {
    mkdirSync(join(folder, "init.new/etc"), { recursive: true });
    writeFileSync(join(folder, "init.new/half"), "");
    await makeSharedDirectories(folder);
    await makeSharedDirectories(folder);
    assert.ok(lstatSync(join(folder, "init/etc/mtab")).isSymbolicLink());
    assert.equal(readFileSync(join(folder, "init/etc/hosts"), "utf8"), "");
    assert.equal(existsSync(join(folder, "init/half")), false);
    assert.ok(existsSync(join(folder, "merged")));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
