import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import { Random } from "../lib/pure/prng.ts";
import { silentLogger, VirtualClock } from "../lib/runtime/index.ts";
import { skep } from "../proto/index.ts";
import {
  AlreadyInSwarm,
  JoinTimedOut,
  LeaveNeedsForce,
  Membership,
  NotASwarmManager,
  NotInSwarm,
  NotLocked,
  SwarmLocked,
} from "./membership.ts";

const never = new AbortController().signal;

/** A node whose manager is a program that says what `manager` prints, and whose agent does nothing. */
function node(
  t: TestContext,
  manager: string,
  cluster = false,
  managerUser?: { readonly uid: number; readonly gid: number },
): { swarm: Membership; clock: VirtualClock; entered: Promise<void>; folder: string } {
  const folder = mkdtempSync(join(tmpdir(), "skep-membership-"));
  const clock = new VirtualClock();
  const entered = Promise.withResolvers<void>();
  const swarm = new Membership({
    dataRoot: folder,
    execRoot: folder,
    defaultAdvertiseAddr: undefined,
    hostname: "node",
    interfaces: () => ({ eth0: [{ address: "10.0.0.5", family: "IPv4", internal: false }] }),
    managerCommand: [process.execPath, "-e", manager, "--"],
    managerUser,
    managerArgs: [],
    openAgent: () => {
      entered.resolve();
      const done = (): Promise<void> => Promise.resolve();
      return { start: () => {}, look: () => {}, joined: done, abandon: done, [Symbol.asyncDispose]: done };
    },
    clusterExists: () => Promise.resolve(cluster),
    countManagers: () => Promise.resolve(3),
    describe: () => Promise.resolve({}),
    clock,
    random: new Random("membership"),
    logger: silentLogger,
  });
  t.after(async () => {
    await swarm[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  return { swarm, clock, entered: entered.promise, folder };
}

const request = {
  listenAddr: "",
  advertiseAddr: "",
  dataPathAddr: "",
  dataPathPort: 4789,
  defaultAddrPool: [],
  subnetSize: 24,
  forceNewCluster: false,
  autoLockManagers: false,
  availability: "active" as const,
  spec: skep.objects.ClusterSpec.encode({ name: "default" }).finish(),
};
const serves =
  'console.log(\'{"serving":2377}\'); process.stdin.on("data", () => {}); process.stdin.on("end", () => process.exit(0)); process.on("SIGTERM", () => process.exit(0))';

test("a founding that is not done in 20 s leaves the node in no swarm", async (t) => {
  const { swarm, clock, entered, folder } = node(
    t,
    'process.stdin.on("data", () => {}); process.on("SIGTERM", () => process.exit(0))',
  );
  const init = swarm.init(request, never);
  await entered;
  clock.advance(20_000);
  await assert.rejects(init, JoinTimedOut);
  assert.equal(swarm.state().state, "inactive");
  assert.deepEqual(readdirSync(join(folder, "swarm")), []);
});

test("a node in a swarm is not let into another, and a manager leaves only by force", async (t) => {
  const { swarm } = node(t, serves, true);
  const nodeId = await swarm.init(request, never);
  assert.equal(swarm.state().nodeId, nodeId);
  assert.equal(swarm.state().nodeAddr, "10.0.0.5");
  await assert.rejects(swarm.init(request, never), AlreadyInSwarm);
  await assert.rejects(swarm.leave(false, never), (error: unknown) => {
    assert.ok(error instanceof LeaveNeedsForce);
    assert.match(error.message, /leaves 2 managers out of 3/u);
    return true;
  });
  await assert.rejects(swarm.unlock("key", never), NotLocked);
  await swarm.leave(true, never);
  assert.equal(swarm.state().state, "inactive");
});

test(
  "a manager without rights can put its backup somewhere before it becomes a cluster of its own",
  { skip: process.getuid?.() === 0 ? false : "needs root to run the manager as another user" },
  async (t) => {
    const backsUp = `const at = process.argv.indexOf("--backups");
      if (at < 0) { ${serves} } else require("node:fs").mkdirSync(process.argv[at + 1] + "/kept");`;
    const { swarm, folder } = node(t, backsUp, true, { uid: 65_534, gid: 65_534 });
    chmodSync(folder, 0o711);
    await swarm.init(request, never);
    await swarm.init({ ...request, forceNewCluster: true }, never);
    assert.ok(existsSync(join(folder, "swarm/backups/kept")));
    await swarm.leave(true, never);
    assert.deepEqual(readdirSync(join(folder, "swarm")), []);
  },
);

test("a node in no swarm says so, whatever is asked of it", async (t) => {
  const { swarm } = node(t, serves);
  assert.throws(() => swarm.control(), NotInSwarm);
  await assert.rejects(swarm.leave(true, never), NotInSwarm);
  const words = [new SwarmLocked(), new NotASwarmManager()].map(({ code }) => code);
  assert.deepEqual(words, ["SWARM_LOCKED", "NOT_A_SWARM_MANAGER"]);
});
