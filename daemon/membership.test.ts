import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import {
  Authority,
  createAuthority,
  createRequest,
  digestOfRoot,
  generatePrivateKey,
  makeJoinToken,
  TlsIdentity,
} from "../lib/pki/index.ts";
import { hostOf } from "../lib/pure/address.ts";
import { ClusterError } from "../lib/pure/errors.ts";
import { Random } from "../lib/pure/prng.ts";
import { RpcServer } from "../lib/rpc/index.ts";
import { createLogger, silentLogger, VirtualClock, type Logger } from "../lib/runtime/index.ts";
import type { Bootstrap } from "../manager/ca/index.ts";
import { caMethods } from "../proto/ca-methods.ts";
import { skep } from "../proto/index.ts";
import type { Interfaces } from "./addresses.ts";
import { frameAddressIn, IdentityFolder, type SwarmIdentity } from "./identity/index.ts";
import {
  AlreadyInSwarm,
  LeaveNeedsForce,
  ManagerStartTimedOut,
  Membership,
  NotASwarmManager,
  NotInSwarm,
  NotLocked,
  SwarmLocked,
  type AgentEvents,
} from "./membership.ts";

const never = new AbortController().signal;
const v4 = { address: "10.0.0.5", family: "IPv4", internal: false };
const v6 = { address: "fd00::5", family: "IPv6", internal: false };

/** A node whose manager is a program that says what `manager` prints, and whose agent does nothing. */
function node(
  t: TestContext,
  manager: string,
  cluster = false,
  {
    managerUser,
    logger = silentLogger,
    interfaces = { eth0: [v4] },
    joined = (): Promise<void> => Promise.resolve(),
    abandon = (): Promise<void> => Promise.resolve(),
    folder = mkdtempSync(join(tmpdir(), "skep-membership-")),
  }: {
    readonly managerUser?: { readonly uid: number; readonly gid: number };
    readonly logger?: Logger;
    readonly interfaces?: Interfaces;
    readonly joined?: (signal: AbortSignal) => Promise<void>;
    readonly abandon?: (signal: AbortSignal) => Promise<void>;
    readonly folder?: string;
  } = {},
): {
  swarm: Membership;
  clock: VirtualClock;
  entered: Promise<SwarmIdentity>;
  /** Of the agent that was opened first. */
  events: Promise<AgentEvents>;
  served: Promise<void>;
  folder: string;
} {
  const clock = new VirtualClock();
  const entered = Promise.withResolvers<SwarmIdentity>();
  const opened = Promise.withResolvers<AgentEvents>();
  const served = Promise.withResolvers<void>();
  const swarm = new Membership({
    dataRoot: folder,
    execRoot: folder,
    defaultAdvertiseAddr: undefined,
    hostname: "node",
    interfaces: () => interfaces,
    managerCommand: [process.execPath, "-e", manager, "--"],
    managerUser,
    managerArgs: [],
    openAgent: (identity, events) => {
      entered.resolve(identity);
      opened.resolve(events);
      const done = (): Promise<void> => Promise.resolve();
      return { start: () => {}, look: served.resolve, joined, abandon, [Symbol.asyncDispose]: done };
    },
    clusterExists: () => Promise.resolve(cluster),
    countManagers: () => Promise.resolve(3),
    describe: () => Promise.resolve({}),
    clock,
    random: new Random("membership"),
    logger,
  });
  t.after(async () => {
    await swarm[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  return { swarm, clock, entered: entered.promise, events: opened.promise, served: served.promise, folder };
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
/** The same, and what it is told on standard input lies in its folder afterwards. */
const keepsSecrets = `const [flag, folder] = process.argv.slice(process.argv.indexOf("--data-dir"));
  process.stdin.once("data", (secrets) => { require("node:fs").writeFileSync(folder + "/../secrets", secrets); ${serves} });`;

test("a founding that is not done in two minutes leaves the node in no swarm, and says so", async (t) => {
  const { swarm, clock, entered, folder } = node(
    t,
    'process.stdin.on("data", () => {}); process.on("SIGTERM", () => process.exit(0))',
  );
  const init = swarm.init(request, never);
  await entered;
  // As long as a join has is too short for a manager on a slow machine.
  clock.advance(119_999);
  assert.equal(swarm.state().state, "pending");
  clock.advance(1);
  await assert.rejects(init, ManagerStartTimedOut);
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

test("a node that is leaving goes on with it when whoever asked has gone", async (t) => {
  const asked = new AbortController();
  const abandon = async (signal: AbortSignal): Promise<void> => {
    asked.abort();
    signal.throwIfAborted();
  };
  const { swarm } = node(t, serves, true, { abandon });
  await swarm.init(request, never);
  await swarm.leave(true, asked.signal);
  assert.equal(swarm.state().state, "inactive");
});

const six = { ...request, advertiseAddr: "fd00::5" };

test("frames go where a node is advertised, by IPv6 too, or where it says otherwise, and that is kept", async (t) => {
  const { swarm, entered, folder } = node(t, serves, true);
  await assert.rejects(swarm.init({ ...request, dataPathPort: 7777 }, never), { code: "DATA_PATH_REFUSED" });
  assert.equal(swarm.state().state, "inactive");
  await swarm.init({ ...six, dataPathAddr: "eth0" }, never);
  const { settings } = await entered;
  assert.deepEqual(settings, {
    listenAddr: "[::]:2377",
    advertiseAddr: "[fd00::5]:2377",
    dataPathAddr: "10.0.0.5",
    frameAddr: "10.0.0.5",
  });
  assert.deepEqual(new IdentityFolder(join(folder, "swarm")).read(undefined)?.state.settings, settings);
  assert.equal(frameAddressIn({ ...settings, dataPathAddr: "10.0.0.9" }), "10.0.0.5");
  const { frameAddr: _none, ...before } = settings;
  assert.equal(
    frameAddressIn(before),
    "fd00::5",
    "what an earlier daemon did not heed is not heeded before it joins again",
  );
  assert.equal(swarm.state().nodeAddr, "fd00::5");
});

test("a cluster's first manager is told where its frames go", async (t) => {
  const { swarm, folder } = node(t, keepsSecrets, true);
  await swarm.init({ ...six, dataPathAddr: "" }, never);
  const { bootstrap } = JSON.parse(readFileSync(join(folder, "swarm/secrets"), "utf8")) as { bootstrap: Bootstrap };
  assert.deepEqual([bootstrap.advertise, bootstrap.frameAddr], ["[fd00::5]:2377", "fd00::5"]);
});

test("a manager whose daemon ended before it was let in is told whom to join when the daemon starts again", async (t) => {
  const before = node(t, serves, true);
  await before.swarm.init(request, never);
  const identity = await before.entered;
  identity.remember([
    { nodeId: identity.nodeId, addr: "10.0.0.5:2377" },
    { nodeId: "o".repeat(25), addr: "10.0.0.6:2377" },
  ]);
  await before.swarm[Symbol.asyncDispose]();
  const keepsWords = `const [flag, folder] = process.argv.slice(process.argv.indexOf("--data-dir"));
    require("node:fs").writeFileSync(folder + "/../words", process.argv.join(" ")); ${serves}`;
  const { swarm, served, folder } = node(t, keepsWords, true, { folder: before.folder });
  swarm.resume();
  await served;
  const words = readFileSync(join(folder, "swarm/words"), "utf8");
  assert.match(words, /--join 10\.0\.0\.6:2377/u);
  assert.doesNotMatch(words, /--join 10\.0\.0\.5/u);
});

/** A call that a busy machine was late with is tried again, and that waits by this clock. */
function run(t: TestContext, clock: VirtualClock): void {
  const ticks = setInterval(() => clock.advance(10), 10);
  t.after(() => clearInterval(ticks));
}

class OtherFamily extends ClusterError {
  readonly code = "DATA_PATH_FAMILY";
}

/** A manager of a cluster whose frames go by IPv6: it lets in whose frames do so, too. */
async function clusterBy6(t: TestContext): Promise<{
  readonly address: string;
  readonly token: string;
  readonly asked: { readonly advertised: string; readonly frames: string }[];
}> {
  const clusterId = "c".repeat(25);
  const root = await createAuthority(clusterId, Date.now());
  const authority = new Authority(root);
  const issue = (csr: string, role: "manager" | "worker"): Promise<string> => {
    const memberId = role === "manager" ? 7 : undefined;
    return authority.issue(csr, { nodeId: role[0]!.repeat(25), clusterId, role, memberId }, { nowMs: Date.now() });
  };
  const privateKeyPem = await generatePrivateKey();
  const certificatePem = await issue(await createRequest(privateKeyPem), "manager");
  const tls = new TlsIdentity({ certificatePem, privateKeyPem, rootsPem: root.certificatePem });
  const server = new RpcServer({ tls, wallMs: () => Date.now(), onBug: () => undefined });
  t.after(() => server[Symbol.asyncDispose]());
  const asked: { advertised: string; frames: string }[] = [];
  server.unary(caMethods.getRoot, () => Promise.resolve({ certificate: root.certificatePem }));
  server.unary(caMethods.join, async ({ addr, csr, description }) => {
    const advertised = addr ?? "";
    const frames = description?.network?.dataPathAddr || hostOf(advertised);
    asked.push({ advertised, frames });
    if (!frames.includes(":")) {
      throw new OtherFamily(`frames would go to ${frames}`, { fix: "Join with --data-path-addr and an IPv6 address" });
    }
    const certificate = await issue(csr ?? "", "worker");
    return { certificate, root: root.certificatePem, nodeId: "w".repeat(25), managerAddrs: [] };
  });
  const port = await server.listen("127.0.0.1:0");
  const token = makeJoinToken(digestOfRoot(root.certificatePem), (count) => new Uint8Array(count).fill(3));
  return { address: `127.0.0.1:${port}`, token, asked };
}

test("who says nothing of addresses joins with those of the family that the cluster's frames go by", async (t) => {
  const { address, token, asked } = await clusterBy6(t);
  const { swarm, entered, clock } = node(t, serves, true, { interfaces: { eth0: [v4, v6] } });
  run(t, clock);
  await swarm.join({ ...request, remoteAddrs: [address], joinToken: token }, never);
  assert.deepEqual(asked[0], { advertised: "10.0.0.5:2377", frames: "10.0.0.5" });
  assert.deepEqual(asked.at(-1), { advertised: "[fd00::5]:2377", frames: "fd00::5" });
  assert.equal(swarm.state().state, "active");
  const { settings } = await entered;
  assert.deepEqual([settings.advertiseAddr, frameAddressIn(settings)], ["[fd00::5]:2377", "fd00::5"]);
});

test("a join that is not done in 20 s says so, and goes on", async (t) => {
  const { address, token } = await clusterBy6(t);
  const joined = async (signal: AbortSignal): Promise<void> => {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
    throw signal.reason;
  };
  const { swarm, clock, entered } = node(t, serves, true, { interfaces: { eth0: [v6] }, joined });
  const join = swarm.join({ ...request, remoteAddrs: [address], joinToken: token }, never);
  run(t, clock);
  const refused = assert.rejects(join, { code: "JOIN_TIMED_OUT" });
  await entered;
  clock.advance(20_000);
  await refused;
  assert.equal(swarm.state().state, "pending");
});

test("an interface named for frames stands for its address of the cluster's family, beside what is advertised", async (t) => {
  const { address, token, asked } = await clusterBy6(t);
  const { swarm, clock } = node(t, serves, true, { interfaces: { eth0: [v4, v6] } });
  run(t, clock);
  const named = { ...request, advertiseAddr: "10.0.0.5", dataPathAddr: "eth0" };
  await swarm.join({ ...named, remoteAddrs: [address], joinToken: token }, never);
  assert.deepEqual(asked.at(-1), { advertised: "10.0.0.5:2377", frames: "fd00::5" });
});

test("who has no address of the cluster's family, several, or has named another, is told by the manager what to do", async (t) => {
  const { address, token, asked } = await clusterBy6(t);
  const refused = { code: "DATA_PATH_FAMILY", message: /10\.0\.0\.5/, fix: /--data-path-addr and an IPv6 address/ };
  const wish = { ...request, remoteAddrs: [address], joinToken: token };
  for (const [interfaces, more] of [
    [{ eth0: [v4] }, {}],
    [{ eth0: [v4, v6, { ...v6, address: "fd00::6" }] }, {}],
    [{ eth0: [v4, v6] }, { advertiseAddr: "10.0.0.5" }],
    [{ eth0: [v4, v6] }, { dataPathAddr: "10.0.0.5" }],
  ] as const) {
    const { swarm, clock } = node(t, serves, true, { interfaces });
    run(t, clock);
    await assert.rejects(swarm.join({ ...wish, ...more }, never), refused);
    assert.equal(swarm.state().state, "inactive");
  }
  const frames = new Set(asked.map((one) => one.frames));
  assert.deepEqual(frames, new Set(["10.0.0.5"]), "nobody asks with what was not said or is not certain");
});

const nobody = { uid: 65_534, gid: 65_534 };

/** Why no program can be run here as somebody without rights, or false. */
function cannotRunAsNobody(): string | false {
  if (process.getuid?.() !== 0) return "needs root to run the manager as another user";
  const ran = spawnSync(process.execPath, ["-e", ""], nobody);
  return ran.status === 0 ? false : "this Node.js lies where other users cannot read it";
}

test(
  "a manager without rights can put its backup somewhere before it becomes a cluster of its own",
  { skip: cannotRunAsNobody() },
  async (t) => {
    const backsUp = `const at = process.argv.indexOf("--backups");
      if (at < 0) { ${serves} } else require("node:fs").mkdirSync(process.argv[at + 1] + "/kept");`;
    const { swarm, folder } = node(t, backsUp, true, { managerUser: nobody });
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

test(
  "a node that cannot be what its new certificate says tries again, and its daemon lives",
  { timeout: 60_000 },
  async (t) => {
    const failed = Promise.withResolvers<string>();
    const write = (line: string): void => failed.resolve(line);
    const logger = createLogger({ level: "error", destination: { write } });
    const { swarm, clock, entered, served, folder } = node(t, keepsSecrets, true, { logger });
    await swarm.init(request, never);
    const identity = await entered;
    await served;
    const { bootstrap } = JSON.parse(readFileSync(join(folder, "swarm/secrets"), "utf8")) as { bootstrap: Bootstrap };
    const authority = new Authority({ certificatePem: bootstrap.rootCert, privateKeyPem: bootstrap.rootKey });
    const { nodeId, clusterId } = identity;
    const memberId = bootstrap.memberId + 1;
    const csr = await identity.request();
    const issued = await authority.issue(csr, { nodeId, clusterId, role: "manager", memberId }, { nowMs: Date.now() });
    // In the place of a folder that the manager needs.
    rmSync(join(folder, "manager"), { recursive: true });
    writeFileSync(join(folder, "manager"), "");
    identity.adopt(issued, bootstrap.rootCert);
    assert.match(await failed.promise, /not yet what its certificate says/u);
    assert.equal(swarm.state().manager, false);
    rmSync(join(folder, "manager"));
    clock.advance(1000);
    // The turn that it takes has no end that could be waited for from outside.
    while (!swarm.state().manager) await new Promise((next) => setImmediate(next));
  },
);

test("what a manager has said is written again until it is, of each kind the last; a newer lock keeps the keys before", async (t) => {
  const lines = [
    '{"lock":"one"}',
    '{"renewed":{"certificatePem":"c","rootsPem":"r"}}',
    '{"lockSettled":true}',
    '{"lock":"two"}',
    '{"serving":2377}',
  ];
  const { swarm, clock, entered, served } = node(
    t,
    `process.on("SIGHUP", () => {}); console.log(${JSON.stringify(lines.join("\n"))}); ${serves}`,
    true,
  );
  const init = swarm.init(request, never);
  const identity = await entered;
  const tried: string[] = [];
  let isFull = true;
  const write = (what: string): void => {
    tried.push(what);
    if (isFull) throw new Error("ENOSPC");
  };
  Object.assign(identity, {
    lock: (key: string) => write(`lock ${key}`),
    settleLock: () => write("settled"),
    adoptForSameKey: () => write("certificate"),
  });
  await Promise.all([init, served]);
  assert.deepEqual(tried, ["lock one", "certificate", "settled", "lock two"]);
  isFull = false;
  clock.advance(1000);
  assert.deepEqual(tried.slice(4), ["certificate", "lock two"]);
});

test("who the managers are is written when the disk takes it, and the daemon lives until then", async (t) => {
  const { swarm, clock, entered, events } = node(t, serves, true);
  await swarm.init(request, never);
  const tried: string[] = [];
  let isFull = true;
  const remember = ([first]: readonly { readonly addr: string }[]): void => {
    tried.push(first?.addr ?? "");
    if (isFull) throw new Error("ENOSPC");
  };
  Object.assign(await entered, { remember });
  const { onManagers } = await events;
  onManagers([{ nodeId: "a", addr: "10.0.0.6:2377" }]);
  onManagers([{ nodeId: "b", addr: "10.0.0.7:2377" }]);
  assert.deepEqual(tried, ["10.0.0.6:2377", "10.0.0.7:2377"]);
  isFull = false;
  clock.advance(1000);
  assert.deepEqual(tried.slice(2), ["10.0.0.7:2377"], "the last word, once");
});
