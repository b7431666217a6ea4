import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";

import { Host } from "../../deploy/quickstart/hosts.ts";

const site = { name: "skepho", subnet: "10.78.9", skepd: [process.execPath] } as const;

/** What looks like a host's daemon, and has written no process id down. */
async function starting({ dataRoot }: Host): Promise<ChildProcess> {
  const script = "setInterval(() => {}, 60_000); console.log(1)";
  const child = spawn(process.execPath, ["-e", script, "--", "--data-root", dataRoot], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  // Until then its command line may not be there yet.
  await once(child.stdout, "data");
  return child;
}

test("a daemon that has not written its process id down is ended with the others of its host, and no other host's", async () => {
  const [one, ten] = [new Host(site, 1), new Host(site, 10)];
  const [child, other] = [await starting(one), await starting(ten)];
  try {
    assert.deepEqual([one.pid, ten.pid], [child.pid, other.pid]);
    // What an earlier daemon has left, and somebody else has that number now.
    mkdirSync(`/run/${site.name}`, { recursive: true });
    writeFileSync(`/run/${site.name}/${one.name}.pid`, `${other.pid}\n`);
    const ended = once(child, "exit");
    await one.kill("SIGTERM");
    assert.deepEqual(await ended, [null, "SIGTERM"]);
    assert.equal(one.pid, undefined);
    assert.equal(ten.pid, other.pid);
    const alsoEnded = once(other, "exit");
    await ten.kill();
    assert.deepEqual(await alsoEnded, [null, "SIGKILL"]);
  } finally {
    child.kill("SIGKILL");
    other.kill("SIGKILL");
    rmSync(`/run/${site.name}`, { recursive: true, force: true });
  }
});
