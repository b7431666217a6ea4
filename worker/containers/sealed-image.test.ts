import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { SealedImage } from "./sealed-image.ts";

const program = join(import.meta.dirname, "../../native/build/isolate");
const skip = existsSync(program) ? false : "needs native/build: run `make -C native`";

test(
  "the held image is the program, in a memory file that nobody can write, and goes when it is let go",
  { skip },
  async () => {
    const image = await SealedImage.open(program);
    const held = image.path;
    assert.match(readlinkSync(held), /^\/memfd:isolate/);
    assert.ok(readFileSync(held).equals(readFileSync(program)));
    assert.equal(spawnSync("/bin/sh", ["-c", `echo x >> ${held}`], { stdio: "ignore" }).status === 0, false);
    assert.match(spawnSync(held, ["--version"], { encoding: "utf8" }).stdout, /^isolate version/);
    await image[Symbol.asyncDispose]();
    assert.equal(existsSync(held), false);
    assert.equal(image.path, program);
    await image[Symbol.asyncDispose]();
  },
);

test("a program that holds nothing, or is not there, is executed from its own path", async () => {
  for (const path of ["/bin/true", "/nowhere/at-all"]) {
    const image = await SealedImage.open(path);
    assert.equal(image.path, path);
    await image[Symbol.asyncDispose]();
  }
});
