import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

import { Random } from "../../lib/pure/prng.ts";
import { realClock, silentLogger } from "../../lib/runtime/index.ts";
import { NetplaneGone, NetplaneRefused } from "./netplane-errors.ts";
import { Netplane } from "./netplane.ts";

/** A program that speaks the protocol: it answers each request by what its first operation is. */
const program = `
let rest = Buffer.alloc(0);
const held = [];
function send(value, split) {
  const text = Buffer.from(JSON.stringify(value));
  const frame = Buffer.alloc(4 + text.length);
  frame.writeUInt32LE(text.length);
  text.copy(frame, 4);
  if (!split) return process.stdout.write(frame);
  for (const byte of frame) require("fs").writeSync(1, Buffer.of(byte));
}
process.stdin.on("end", () => process.exit(0));
process.stdin.on("data", (chunk) => {
  rest = Buffer.concat([rest, chunk]);
  while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32LE()) {
    const request = JSON.parse(rest.subarray(4, 4 + rest.readUInt32LE()).toString());
    rest = rest.subarray(4 + rest.readUInt32LE());
    const batch = request.batches[0];
    const [first] = batch.operations;
    held.push(...batch.operations.filter(({ op }) => op === "watch" || op === "port-reserve").map(({ op }) => op + batch.namespace));
    if (first.path === "die") process.exit(3);
    if (first.path === "garbage") process.stdout.write(Buffer.from([0xff, 0xff, 0xff, 0xff]));
    else if (first.path === "another") send({ id: request.id + 1, results: [] });
    else if (first.path === "refuse")
      send({ id: request.id, failed: { batch: 0, operation: 1, errno: "EEXIST", text: "no" } });
    else if (first.path === "held") send({ id: request.id, results: [{ batch: 0, operation: 0, value: held }] });
    else if (first.path === "event") {
      send({ event: "changed", namespace: "/n", kinds: ["route"] });
      send({ id: request.id, results: [] });
    } else
      send({ id: request.id, results: [{ batch: request.batches.length - 1, operation: 0, value: request.id }] }, first.path === "split");
  }
});`;

const options = { timeout: 120_000 };
const root = join(import.meta.dirname, "../..");

async function withNetplane(body: (netplane: Netplane) => Promise<void>): Promise<void> {
  const netplane = await Netplane.open({
    program: process.execPath,
    args: ["-e", program],
    clock: realClock,
    random: new Random(1),
    logger: silentLogger,
  });
  try {
    await body(netplane);
  } finally {
    await netplane[Symbol.asyncDispose]();
  }
}

const say = (path: string) => ({ op: "namespace-add", path }) as const;

void test(
  "answers find who asked, in whatever pieces they come, and stand in the places of their operations",
  options,
  () =>
    withNetplane(async (netplane) => {
      const answers = await Promise.all([
        netplane.run("", [say("split"), say("x")]),
        netplane.run("", [say("x")]),
        netplane.run("", [say("split")]),
      ]);
      assert.deepEqual(answers, [[1, undefined], [2], [3]]);
      const batch = { namespace: "", operations: [say("a"), say("b")] };
      assert.deepEqual(await netplane.runAll([batch, batch]), [
        [undefined, undefined],
        [4, undefined],
      ]);
    }),
);

void test("a refusal names namespace, operation and errno; those after it are answered", options, () =>
  withNetplane(async (netplane) => {
    const refused = netplane.run("/n", [say("refuse"), { op: "watch" }]);
    const next = netplane.run("/n", [say("x")]);
    await assert.rejects(refused, (error: unknown) => {
      assert.ok(error instanceof NetplaneRefused);
      assert.deepEqual(
        [error.namespace, error.operation, error.batch, error.index, error.errno],
        ["/n", "watch", 0, 1, "EEXIST"],
      );
      assert.equal(error.message, "Cannot program the network in /n: no");
      return true;
    });
    assert.deepEqual(await next, [2]);
  }),
);

void test("a request that is too large is refused before it is sent", options, () =>
  withNetplane(async (netplane) => {
    await assert.rejects(
      netplane.run("", [{ op: "ruleset", text: "x".repeat(17 << 20) }]),
      (error: unknown) => error instanceof NetplaneRefused && error.errno === "E2BIG",
    );
    assert.deepEqual(await netplane.run("", [say("x")]), [2]);
  }),
);

void test("events reach each listener", options, () =>
  withNetplane(async (netplane) => {
    const told: unknown[] = [];
    netplane.onChange((change) => told.push(change));
    netplane.onChange((change) => told.push(change));
    await netplane.run("", [say("event")]);
    assert.deepEqual(
      told,
      Array.from({ length: 2 }, () => ({ namespace: "/n", kinds: ["route"] })),
    );
  }),
);

for (const [how, path, why] of [
  ["that ends", "die", /ended with code 3/],
  ["that cannot be understood", "garbage", /was ended by SIGKILL/],
  ["that answers what was not asked", "another", /was ended by SIGKILL/],
] as const)
  void test(`a program ${how} fails what was asked, is started again and given back what it held`, options, () =>
    withNetplane(async (netplane) => {
      const again = new Promise<unknown>((resolve) => netplane.onChange(resolve));
      await netplane.run("/a", [{ op: "watch" }]);
      await netplane.run("/b", [{ op: "watch" }, { op: "port-reserve", protocol: "tcp", port: 80 }]);
      await netplane.run("/c", [{ op: "watch" }]);
      await netplane.run("/c", [{ op: "unwatch" }]);
      await netplane.run("/d", [{ op: "watch" }, { op: "port-reserve", protocol: "udp", port: 53 }]);
      await netplane.run("/d", [{ op: "port-release", protocol: "udp", port: 53 }]);
      await netplane.run("", [{ op: "namespace-delete", path: "/a" }]);
      const asked = [netplane.run("", [say(path)]), netplane.run("", [say("held")])];
      for (const one of await Promise.allSettled(asked)) {
        assert.ok(one.status === "rejected" && one.reason instanceof NetplaneGone, JSON.stringify(one));
        assert.match(one.reason.message, why);
      }
      await assert.rejects(netplane.run("", [say("x")]), /is being started again/);
      assert.equal(await again, undefined);
      assert.deepEqual(await netplane.run("", [say("held")]), [["watch/b", "port-reserve/b", "watch/d"]]);
    }),
  );

void test("after closing nothing is asked, and nothing is started again", options, async () => {
  let kept: Netplane | undefined;
  await withNetplane(async (netplane) => {
    kept = netplane;
    await netplane.run("", [say("x")]);
  });
  await assert.rejects(
    kept?.run("", [say("x")]) ?? Promise.resolve(),
    (error: unknown) => error instanceof NetplaneGone && error.message.endsWith("was closed"),
  );
  await kept?.[Symbol.asyncDispose]();
});

void test("a program that cannot be started again for want of descriptors is, when there are some", options, () => {
  const script = `
    import { closeSync, openSync, writeSync } from "node:fs";
    import { Random } from "${root}/lib/pure/prng.ts";
    import { VirtualClock } from "${root}/lib/runtime/index.ts";
    import { Netplane } from "${root}/worker/network/netplane.ts";
    const clock = new VirtualClock();
    const ended = Promise.withResolvers();
    const refused = Promise.withResolvers();
    const error = (text, { why }) => (why.startsWith("could not be started") ? refused : ended).resolve(why);
    const logger = { debug() {}, info() {}, warn() {}, error };
    const args = ["-e", ${JSON.stringify(program)}];
    const netplane = await Netplane.open({ program: process.execPath, args, clock, random: new Random(1), logger });
    await netplane.run("", [{ op: "namespace-add", path: "die" }]).catch(() => undefined);
    await ended.promise;
    const opened = [];
    try {
      for (;;) opened.push(openSync("/dev/null", "r"));
    } catch {}
    clock.advance(10_000);
    writeSync(1, await refused.promise);
    opened.forEach((fd) => closeSync(fd));
    const again = new Promise((resolve) => netplane.onChange(resolve));
    clock.advance(10_000);
    await again;
    writeSync(1, "; " + JSON.stringify(await netplane.run("", [{ op: "namespace-add", path: "x" }])));
    await netplane[Symbol.asyncDispose]();`;
  const command = 'ulimit -n 128 && exec "$0" --input-type=module -e "$1"';
  const ran = spawnSync("sh", ["-c", command, process.execPath, script], { encoding: "utf8", timeout: 60_000 });
  assert.match(ran.stdout, /^could not be started: no descriptors are left to start .*; \[2\]$/, ran.stderr);
});
