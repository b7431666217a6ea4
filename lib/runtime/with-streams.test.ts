import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";

import { withStreams } from "./with-streams.ts";

test("a child that was started is given as it is, and one that is not there still says so itself", async () => {
  const child = withStreams(spawn("true", [], { stdio: ["pipe", "pipe", "inherit"] }));
  const [code] = (await once(child, "close")) as [number];
  assert.equal(code, 0);
  const missing = withStreams(spawn("/no/such/program", [], { stdio: ["pipe", "pipe", "pipe"] }));
  await assert.rejects(once(missing, "spawn"), { code: "ENOENT" });
});

test("without free descriptors no child is given, and the process goes on", () => {
  const script = `
    import { spawn } from "node:child_process";
    import { openSync, writeSync } from "node:fs";
    import { withStreams } from ${JSON.stringify(join(import.meta.dirname, "with-streams.ts"))};
    setImmediate(() => setImmediate(() => writeSync(1, "goes on")));
    try {
      for (;;) openSync("/dev/null", "r");
    } catch {}
    try {
      withStreams(spawn("true", [], { stdio: ["pipe", "pipe", "pipe"] }));
    } catch (error) {
      writeSync(1, error.code + ", ");
    }`;
  const command = 'ulimit -n 128 && exec "$0" --input-type=module -e "$1"';
  const ran = spawnSync("sh", ["-c", command, process.execPath, script], { encoding: "utf8", timeout: 60_000 });
  assert.equal(ran.stdout, "EMFILE, goes on", ran.stderr);
});
