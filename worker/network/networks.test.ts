import assert from "node:assert/strict";
import { createPrivateKey, createPublicKey } from "node:crypto";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { inspect } from "node:util";

import { Random } from "../../lib/pure/prng.ts";
import { silentLogger } from "../../lib/runtime/index.ts";
import { VirtualClock } from "../../lib/runtime/virtual-clock.ts";
import type {
  EndpointRecord,
  NetworkRecords,
  OverlayNetwork,
  PeerRecord,
  SandboxRequest,
  ServiceRecord,
} from "./contract.ts";
import { Networks } from "./networks.ts";
import type { HostChoices } from "./sandboxes.ts";
import { TunnelKeys } from "./tunnel-keys.ts";
import { MemoryKernel, MemoryNamespace } from "./testing/memory-kernel.ts";

const peer = (number: number): PeerRecord => ({
  nodeId: `node${number}`,
  number,
  addr: `10.99.0.${number}`,
  mtu: 1500,
  publicKey: "",
});

const network: OverlayNetwork = {
  id: "net1",
  name: "backend",
  vni: 4097,
  subnet: "10.0.1.0/24",
  gateway: "10.0.1.1",
  internal: false,
  encrypted: false,
  mtu: 0,
};

const service: ServiceRecord = {
  networkId: "net1",
  serviceId: "web",
  name: "web",
  aliases: [],
  virtualIp: "10.0.1.200/24",
  mode: "vip",
  ports: [],
};

const endpoint = (task: number, node: number, serving = true): EndpointRecord => ({
  networkId: "net1",
  taskId: `task${task}`,
  serviceId: "web",
  nodeId: `node${node}`,
  name: `web.${task}`,
  slot: task,
  addresses: [`10.0.1.${10 + task}/24`],
  gatewayAddress: "",
  aliases: [],
  serving,
});

const request = (task: number, more: Partial<OverlayNetwork> = {}): SandboxRequest => ({
  networks: [
    { kind: "overlay", network: { ...network, ...more }, address: `10.0.1.${10 + task}/24`, aliases: ["www"] },
  ],
  gateway: false,
  ports: [],
  containerName: `web.${task}`,
  hostname: "",
  dns: [],
  serviceId: "web",
  taskId: `task${task}`,
});

const records = (...endpoints: readonly EndpointRecord[]): NetworkRecords => ({
  nodeId: "node1",
  peers: [peer(1), peer(2)],
  endpoints,
  services: [service],
});

/** A host side that chooses nothing: gw0, bridges and ports have tests of their own. */
const noChoices: HostChoices = {
  choose: async () => ({ bridges: [], ports: [], gatewayAddress: "" }),
  hold: async () => undefined,
  release: async () => undefined,
  resolverOf: () => undefined,
  hostAddressOf: () => undefined,
};

const taskId = "0123456789abcdefghijklmn1";
const otherId = "0123456789abcdefghijklmn2";
const never = new AbortController().signal;

describe("networks on a kernel in memory", () => {
  let folder = "";
  let kernel = new MemoryKernel();
  let clock = new VirtualClock();
  const opened: Networks[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "skeppl-"));
    kernel = new MemoryKernel();
    kernel.onNamespace = (file, isThere) => (isThere ? writeFileSync(file, "") : rmSync(file, { force: true }));
    clock = new VirtualClock();
  });
  afterEach(async () => {
    for (const networks of opened.splice(0)) await networks[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  async function open(): Promise<Networks> {
    const networks = await Networks.open({
      kernel,
      dataDirectory: join(folder, "data"),
      tunnelKeys: TunnelKeys.open(join(folder, "swarm"), silentLogger),
      namespaceDirectory: join(folder, "netns"),
      isNamespaceFile: async (path) => kernel.namespaces.has(path),
      parts: [],
      choices: noChoices,
      clock,
      random: new Random("networks"),
      logger: silentLogger,
    });
    opened.push(networks);
    return networks;
  }

  const path = (name: string): string => join(folder, "netns", name);
  /** Everything that was asked of the kernel since the last call. */
  const asked = (): string[] => kernel.log.splice(0);

  test("a sandbox is built whole before attach() answers, and nothing is left after release()", async () => {
    const networks = await open();
    await networks.replace(records(endpoint(2, 2)));
    const sandbox = await networks.sandboxes.attach(taskId, request(1), never);
    assert.deepEqual(sandbox, {
      id: taskId,
      namespacePath: path(taskId),
      resolver: undefined,
      hostAddress: undefined,
      gatewayAddress: undefined,
      endpoints: [
        {
          kind: "overlay",
          networkId: "net1",
          networkName: "backend",
          interfaceName: "eth0",
          address: "10.0.1.11",
          prefixLength: 24,
          gateway: "10.0.1.1",
          macAddress: "02:42:0a:00:01:0b",
          aliases: ["www"],
        },
      ],
      ports: [],
    });
    const overlay = kernel.get(path("n-4097"));
    assert.deepEqual([...overlay.routes.keys()].sort(), ["254 10.0.1.11/32", "254 10.0.1.12/32"]);
    assert.deepEqual([...(overlay.elements.get("ip skep vips") ?? [])], [["10.0.1.200", "1"]]);
    assert.equal(kernel.get(path(taskId)).links.get("eth0")?.mac, "02:42:0a:00:01:0b");
    assert.deepEqual([...kernel.get(path(taskId)).routes.keys()].sort(), ["254 10.0.1.0/24", "254 10.0.1.1/32"]);
    await networks.sandboxes.release(taskId);
    assert.deepEqual([...kernel.namespaces.keys()], [""]);
    assert.deepEqual(await networks.sandboxes.held(), []);
    assert.deepEqual(await readdir(join(folder, "data", "sandboxes")), []);
  });

  test("a network that goes and comes at once is whole, however often somebody looks at it meanwhile", async () => {
    const networks = await open();
    await networks.replace(records());
    for (const [before, after] of [
      [0, 0],
      [0, 1],
      [0, 2],
      [1, 0],
      [1, 1],
    ] as const) {
      const looks = `${before} looks before and ${after} after`;
      await networks.sandboxes.attach(taskId, request(1), never);
      const held = Promise.withResolvers<void>();
      kernel.until = (namespace) => (namespace === path("n-4097") ? held.promise : undefined);
      const look = async (): Promise<void> => {
        kernel.tell({ namespace: path("n-4097"), kinds: ["link"] });
        await clock.run(150);
      };
      for (let left = before; left > 0; left -= 1) await look();
      const released = networks.sandboxes.release(taskId);
      for (let left = after; left > 0; left -= 1) await look();
      held.resolve();
      kernel.until = () => undefined;
      await released;
      assert.ok(!kernel.namespaces.has(path("n-4097")) && !kernel.namespaces.has(path(taskId)), looks);
      await networks.sandboxes.attach(taskId, request(1), never);
      await clock.run(1_000);
      assert.deepEqual([...kernel.get(path("n-4097")).routes.keys()], ["254 10.0.1.11/32"], looks);
      await networks.sandboxes.release(taskId);
      await clock.run(1_000);
      assert.deepEqual([...kernel.namespaces.keys()], [""]);
    }
  });

  test("a sandbox's links pass packets when it is attached: the kernel is asked once both ends are open", async () => {
    const networks = await open();
    await networks.replace(records());
    asked();
    await networks.sandboxes.attach(taskId, request(1), never);
    const acts = asked();
    const settled = acts.indexOf(`${path("n-4097")} link-settle`);
    assert.ok(settled > acts.lastIndexOf(`${path(taskId)} link-set`), acts.join("\n"));
    await networks.sandboxes.attach(otherId, request(2), never);
    assert.equal(
      asked().filter((act) => act.endsWith("link-settle")).length,
      1,
      "that of others is not asked for again",
    );
  });

  test("what shall be in a new sandbox is asked for without waiting; where one was there, it is compared", async () => {
    const networks = await open();
    await networks.replace(records(endpoint(2, 2)));
    const { promise: answers, resolve: answer } = Promise.withResolvers<void>();
    const early: string[] = [];
    const runAll = kernel.runAll.bind(kernel);
    const run = kernel.run.bind(kernel);
    kernel.runAll = (batches) => {
      for (const { namespace, operations } of batches) early.push(...operations.map(({ op }) => `${namespace} ${op}`));
      return runAll(batches);
    };
    kernel.run = (namespace, operations) => {
      early.push(...operations.map(({ op }) => `${namespace} ${op}`));
      return run(namespace, operations);
    };
    kernel.until = () => answers;
    const attached = networks.sandboxes.attach(taskId, request(1), never);
    await new Promise((resolve) => setImmediate(resolve));
    answer();
    await attached;
    assert.ok(early.includes(`${path(taskId)} address-set`), early.join("\n"));
    kernel.until = () => undefined;
    const left = new MemoryNamespace();
    left.links.set("lo", { name: "lo", index: 1, up: false, mtu: 65_536 });
    kernel.namespaces.set(path(otherId), left);
    await networks.sandboxes.attach(otherId, request(2), never);
    assert.deepEqual([...left.routes.keys()].sort(), ["254 10.0.1.0/24", "254 10.0.1.1/32"]);
    assert.deepEqual([...left.addresses.keys()], ["eth0 10.0.1.12/24"]);
    assert.equal(left.links.get("eth0")?.up, true);
  });

  test("a network keeps its interface while others come and go", async () => {
    const networks = await open();
    await networks.replace(records());
    const [first] = request(1).networks;
    const other = request(1, { id: "net2", name: "other", vni: 4098 }).networks[0];
    assert.ok(first !== undefined && other !== undefined);
    const attach = async (wanted: SandboxRequest["networks"]): Promise<unknown> => {
      const { endpoints } = await networks.sandboxes.attach(taskId, { ...request(1), networks: wanted }, never);
      return endpoints.map(({ networkId, interfaceName }) => [networkId, interfaceName]);
    };
    const interfaces = (): string[] => [...kernel.get(path(taskId)).links.keys()].sort();
    assert.deepEqual(await attach([first, other]), [["net1", "eth0"], ["net2", "eth1"]]); // prettier-ignore
    assert.deepEqual(await attach([other]), [["net2", "eth1"]]);
    assert.deepEqual(interfaces(), ["eth1", "lo"]);
    assert.deepEqual(await attach([other, first]), [["net2", "eth1"], ["net1", "eth0"]]); // prettier-ignore
    assert.deepEqual(interfaces(), ["eth0", "eth1", "lo"]);
  });

  test("a sandbox that leaves its last network keeps its namespace, and is put on another in it", async () => {
    const networks = await open();
    await networks.replace(records());
    await networks.sandboxes.attach(taskId, request(1), never);
    const own = kernel.get(path(taskId));
    await networks.sandboxes.attach(taskId, { ...request(1), networks: [] }, never);
    assert.equal(kernel.get(path(taskId)), own);
    assert.deepEqual([...own.links.keys()], ["lo"]);
    assert.deepEqual(kernel.namespaces.has(path("n-4097")), false);
    await networks.sandboxes.attach(taskId, request(1, { id: "net2", vni: 4098 }), never);
    assert.equal(kernel.get(path(taskId)), own);
    assert.deepEqual([...own.links.keys()].sort(), ["eth0", "lo"]);
    await networks.sandboxes.release(taskId);
    assert.equal(kernel.namespaces.has(path(taskId)), false);
  });

  test("attach() again is the same sandbox and asks nothing of the kernel", async () => {
    const networks = await open();
    await networks.replace(records());
    const first = await networks.sandboxes.attach(taskId, request(1), never);
    asked();
    assert.deepEqual(await networks.sandboxes.attach(taskId, request(1), never), first);
    assert.deepEqual(asked(), []);
  });

  test("a new life takes up what runs: rules are defined again in place, nothing else is touched", async () => {
    const first = await open();
    await first.replace(records(endpoint(2, 2)));
    const sandbox = await first.sandboxes.attach(taskId, request(1), never);
    await first[Symbol.asyncDispose]();
    asked();
    const second = await open();
    assert.deepEqual(second.sandboxes.get(taskId), sandbox);
    // Before the managers have told anything, what they told in the earlier life stays.
    assert.ok(kernel.get(path("n-4097")).routes.has("254 10.0.1.12/32"));
    assert.ok(kernel.get(path("n-4097")).tables.has("ip skep"));
    await second.replace(records(endpoint(2, 2)));
    const overlay = path("n-4097");
    const touched = asked().filter((one) => !/sysctl-write|\/probe|^ namespace/.test(one));
    assert.deepEqual(touched, [`${overlay} ruleset`]);
    assert.deepEqual([...(kernel.get(overlay).elements.get("ip skep vips") ?? [])], [["10.0.1.200", "1"]]);
  });

  test("what went while skepd was away is removed once managers have told what there is", async () => {
    const first = await open();
    await first.replace(records(endpoint(2, 2), endpoint(3, 2)));
    await first.sandboxes.attach(taskId, request(1), never);
    await first[Symbol.asyncDispose]();
    const second = await open();
    await second.replace(records(endpoint(2, 2)));
    const overlay = kernel.get(path("n-4097"));
    assert.deepEqual([...overlay.routes.keys()].sort(), ["254 10.0.1.11/32", "254 10.0.1.12/32"]);
    assert.deepEqual([...(overlay.elements.get("ip skep be") ?? [])], [["10.0.1.200 . 0", "10.0.1.12"]]);
    assert.deepEqual(
      [...(overlay.tables.get("ip skep")?.chains.keys() ?? [])],
      Array.from({ length: 16 }, (_, at) => `lb${at + 1}`),
    );
  });

  test("after a reboot a sandbox keeps what was chosen for it, and is built when its container starts again", async () => {
    const first = await open();
    await first.replace(records(endpoint(2, 2)));
    const sandbox = await first.sandboxes.attach(taskId, request(1), never);
    await first[Symbol.asyncDispose]();
    // The files of namespaces are still there, and stand for nothing.
    kernel.namespaces.clear();
    kernel.namespaces.set("", new MemoryNamespace());
    const second = await open();
    assert.equal(second.sandboxes.get(taskId), undefined);
    assert.deepEqual(await second.sandboxes.held(), [taskId]);
    assert.ok(!existsSync(path(taskId)));
    await second.replace(records(endpoint(2, 2)));
    assert.deepEqual(await second.sandboxes.attach(taskId, request(1), never), sandbox);
    assert.deepEqual([...kernel.get(path("n-4097")).routes.keys()].sort(), ["254 10.0.1.11/32", "254 10.0.1.12/32"]);
  });

  test("a namespace that does not answer delays no other", async () => {
    const networks = await open();
    await networks.replace(records());
    await networks.sandboxes.attach(taskId, request(1), never);
    const slow = Promise.withResolvers<void>();
    kernel.until = (namespace) => (namespace === path("n-4097") ? slow.promise : undefined);
    const change = networks.change([{ kind: "endpoint", key: "net1/task2", record: endpoint(2, 2) }]);
    const other = { ...request(3, { id: "net2", vni: 4098 }), taskId: otherId };
    await networks.sandboxes.attach(otherId, other, never);
    assert.ok(kernel.get(path("n-4098")).routes.has("254 10.0.1.13/32"));
    assert.ok(!kernel.get(path("n-4097")).routes.has("254 10.0.1.12/32"));
    slow.resolve();
    await change;
    assert.ok(kernel.get(path("n-4097")).routes.has("254 10.0.1.12/32"));
  });

  test("a namespace that refuses while another does not answer ends nothing but the request", async () => {
    const networks = await open();
    const net2 = { id: "net2", vni: 4098 };
    const [first] = request(1).networks;
    const [second] = request(2, net2).networks;
    await networks.replace({ ...records(), services: [service, { ...service, networkId: "net2" }] });
    await networks.sandboxes.attach(taskId, { ...request(1), networks: [first!, second!] }, never);
    const slow = Promise.withResolvers<void>();
    kernel.until = (namespace) => (namespace === path("n-4098") ? slow.promise : undefined);
    const record = { ...endpoint(5, 2), networkId: "net2" };
    const change = networks.change([{ kind: "endpoint", key: "net2/task5", record }]);
    kernel.beforeEach = (namespace, { op }) => {
      if (namespace === path("n-4097") && op === "route-replace")
        throw Object.assign(new Error("no memory"), { errno: "ENOMEM" });
    };
    const networksOf3 = [request(3).networks[0]!, request(4, net2).networks[0]!];
    const attached = networks.sandboxes.attach(otherId, { ...request(3), networks: networksOf3 }, never);
    // Long enough for a rejection that nobody took to end the process.
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    slow.resolve();
    await change;
    await assert.rejects(attached, { code: "NETWORK_NOT_APPLIED" });
  });

  test("namespaces and files that are nobody's are cleared away at start", async () => {
    await mkdir(join(folder, "netns"), { recursive: true });
    for (const name of ["n-9999", otherId]) {
      await kernel.run("", [{ op: "namespace-add", path: path(name) }]);
    }
    await writeFile(path("not-mounted"), "");
    await open();
    assert.deepEqual([...kernel.namespaces.keys()], [""]);
    assert.ok(!(await readdir(join(folder, "netns"))).includes("not-mounted"));
  });

  test("what somebody else breaks is repaired, and what is not ours stays", async () => {
    const networks = await open();
    await networks.replace(records(endpoint(2, 2)));
    await networks.sandboxes.attach(taskId, request(1), never);
    const overlay = kernel.get(path("n-4097"));
    const before = structuredClone({ routes: overlay.routes, elements: overlay.elements, tables: overlay.tables });
    overlay.tables.clear();
    overlay.elements.clear();
    overlay.routes.delete("254 10.0.1.12/32");
    overlay.routes.set("254 10.7.0.0/16", { destination: "10.7.0.0/16", link: "vx", protocol: 3 } as never);
    overlay.routes.set("254 10.0.1.99/32", { destination: "10.0.1.99/32", link: "vx" });
    kernel.tell({ namespace: path("n-4097"), kinds: ["route", "nft"] });
    await clock.run(200);
    await networks.settle();
    assert.deepEqual([...overlay.routes.keys()].sort(), [...before.routes.keys(), "254 10.7.0.0/16"].sort());
    assert.deepEqual(overlay.elements, before.elements);
    assert.deepEqual(overlay.tables, before.tables);
  });

  test("a link that is gone is made again with all that was on it, on both ends", async () => {
    const networks = await open();
    await networks.replace(records(endpoint(2, 2)));
    await networks.sandboxes.attach(taskId, request(1), never);
    const [veth = ""] = [...kernel.get(path("n-4097")).links.keys()].filter(
      (name) => name.startsWith("v0") || /^v[0-9a-f]{10}$/.test(name),
    );
    await kernel.run(path("n-4097"), [{ op: "link-delete", name: veth }]);
    assert.equal(kernel.get(path(taskId)).routes.size, 0);
    await clock.run(60_000);
    await networks.settle();
    await clock.run(1_000);
    await networks.settle();
    assert.deepEqual([...kernel.get(path(taskId)).routes.keys()].sort(), ["254 10.0.1.0/24", "254 10.0.1.1/32"]);
    assert.ok(kernel.get(path("n-4097")).routes.has("254 10.0.1.11/32"));
  });

  test("a node that gets another address makes its networks' links anew, with all that was on them", async () => {
    const networks = await open();
    await networks.replace(records(endpoint(2, 2)));
    await networks.sandboxes.attach(taskId, request(1), never);
    const overlay = kernel.get(path("n-4097"));
    const before = structuredClone({ routes: overlay.routes, neighbours: overlay.neighbours, fdb: overlay.fdb });
    await networks.change([{ kind: "peer", key: "node1", record: { ...peer(1), addr: "10.99.0.111" } }]);
    assert.equal(overlay.links.get("vx")?.local, "10.99.0.111");
    assert.deepEqual({ routes: overlay.routes, neighbours: overlay.neighbours, fdb: overlay.fdb }, before);
    await networks.change([{ kind: "peer", key: "node2", record: { ...peer(2), mtu: 1400 } }]);
    assert.equal(overlay.links.get("vx")?.mtu, 1350);
    assert.equal(kernel.get(path(taskId)).links.get("eth0")?.mtu, 1350);
  });

  test("a refusal of the kernel is told, and tried again until it goes", async () => {
    const networks = await open();
    await networks.replace(records());
    await networks.sandboxes.attach(taskId, request(1), never);
    let broken = true;
    kernel.beforeEach = (_namespace, { op }) => {
      if (broken && op === "route-replace") throw Object.assign(new Error("no memory"), { errno: "ENOMEM" });
    };
    const change = { kind: "endpoint", key: "net1/task2", record: endpoint(2, 2) } as const;
    await assert.rejects(networks.change([change]), { code: "NETWORK_NOT_APPLIED" });
    broken = false;
    await clock.run(60_000);
    await networks.settle();
    assert.ok(kernel.get(path("n-4097")).routes.has("254 10.0.1.12/32"));
    assert.deepEqual([...(kernel.get(path("n-4097")).elements.get("ip skep vips") ?? [])], [["10.0.1.200", "1"]]);
  });

  test("tables of a daemon of before whose sets were others are replaced as a whole, and everything goes on", async () => {
    const before = await open();
    await before.replace(records(endpoint(2, 2)));
    await before.sandboxes.attach(taskId, request(1), never);
    await opened.pop()?.[Symbol.asyncDispose]();
    const overlay = kernel.get(path("n-4097"));
    const elements = structuredClone(overlay.elements);
    let isOfBefore = true;
    kernel.beforeEach = (namespace, operation) => {
      if (operation.op !== "ruleset" || namespace !== path("n-4097") || !isOfBefore) return;
      if (!operation.text.includes("delete table"))
        throw Object.assign(new Error("datatype mismatch"), { errno: "EINVAL", operation: "ruleset" });
      isOfBefore = false;
    };
    const after = await open();
    await after.replace(records(endpoint(2, 2)));
    assert.equal(isOfBefore, false);
    assert.deepEqual(overlay.elements, elements);
    await after.sandboxes.attach(otherId, request(3), never);
  });

  test("tables that are refused however they are made are an error, and tried again", async () => {
    const networks = await open();
    let refusals = 0;
    kernel.beforeEach = (namespace, { op }) => {
      if (op !== "ruleset" || namespace !== path("n-4097")) return;
      refusals += 1;
      throw Object.assign(new Error("no such expression"), { errno: "EINVAL", operation: "ruleset" });
    };
    await networks.replace(records(endpoint(2, 2)));
    await assert.rejects(networks.sandboxes.attach(taskId, request(1), never), { code: "NETWORK_NOT_APPLIED" });
    assert.ok(refusals >= 2);
  });

  test("a task that has ended leaves no connection behind", async () => {
    const networks = await open();
    await networks.replace(records(endpoint(2, 2)));
    await networks.sandboxes.attach(taskId, request(1), never);
    await networks.change([{ kind: "endpoint", key: "net1/task2", record: undefined }]);
    await clock.run(200);
    assert.deepEqual(kernel.get(path("n-4097")).forgotten, ["10.0.1.200 10.0.1.12"]);
  });

  test("a record that makes no sense is left out", async () => {
    const networks = await open();
    await networks.replace({
      ...records(),
      peers: [peer(1), { ...peer(2), number: 70_000 }, { ...peer(3), addr: "x" }],
    });
    await networks.sandboxes.attach(taskId, request(1), never);
    await networks.change([
      { kind: "endpoint", key: "net1/task2", record: { ...endpoint(2, 2), addresses: ["10.0.1.12/24; drop"] } },
    ]);
    assert.deepEqual([...kernel.get(path("n-4097")).routes.keys()], ["254 10.0.1.11/32"]);
  });

  test("an encrypted network is refused, never sent in clear text", async () => {
    const networks = await open();
    await networks.replace(records());
    await assert.rejects(networks.sandboxes.attach(taskId, request(1, { encrypted: true }), never), {
      code: "NETWORK_ENCRYPTION_UNAVAILABLE",
    });
    assert.deepEqual([...kernel.namespaces.keys()], [""]);
  });

  describe("encrypted, with WireGuard in the kernel", () => {
    /** As WireGuard derives them, for keys of this test. */
    const publicKeyOf = (secret: string): string => {
      const der = Buffer.concat([
        Buffer.from("302e020100300506032b656e04220420", "hex"),
        Buffer.from(secret, "base64"),
      ]);
      const key = createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
      return key.export({ format: "der", type: "spki" }).subarray(-32).toString("base64");
    };
    const theirs = publicKeyOf(Buffer.alloc(32, 2).toString("base64"));
    const host = () => kernel.get("");
    const tunnel = () => host().tunnels.get("skepwg");
    /** Sysctls aside, which this kernel does not tell. */
    const differences = async (networks: Networks): Promise<string[]> =>
      (await networks.differences())
        .map(({ what, object }) => `${what} ${object}`)
        .filter((text) => !text.includes("sysctl"));
    const encrypted = (task: number): SandboxRequest => request(task, { encrypted: true });
    const told = (...peers: readonly PeerRecord[]): NetworkRecords => ({ ...records(endpoint(2, 2)), peers });

    beforeEach(() => {
      kernel.publicKeyOf = (secret) => (secret === "" ? "" : publicKeyOf(secret));
    });

    test("its frames go from tunnel address to tunnel address by the tunnel's link, and by nothing else", async () => {
      const networks = await open();
      const own = networks.enterTunnel("node1") ?? "";
      await networks.replace(told(peer(1), { ...peer(2), publicKey: theirs }));
      await networks.sandboxes.attach(taskId, encrypted(1), never);
      const vx = kernel.get(path("n-4097")).links.get("vx");
      assert.deepEqual(
        { local: vx?.local, port: vx?.port, mtu: vx?.mtu, lower: vx?.lower },
        { local: "100.64.7.255", port: 4793, mtu: 1390, lower: 9 },
      );
      assert.deepEqual(
        [...kernel.get(path("n-4097")).fdb.values()].map(({ destination }) => destination),
        ["100.64.11.255"],
      );
      assert.equal(host().links.get("skepwg")?.mtu, 1440);
      assert.equal(publicKeyOf(tunnel()?.privateKey ?? ""), own);
      assert.equal(tunnel()?.listenPort, 2377);
      assert.deepEqual(
        [...(tunnel()?.peers.values() ?? [])],
        [
          {
            publicKey: theirs,
            endpoint: "10.99.0.2",
            port: 2377,
            allowed: ["100.64.11.255/32"],
            keepaliveSeconds: 25,
          },
        ],
      );
      assert.equal(host().routes.get("254 100.64.11.255/32")?.link, "skepwg");
      await networks.sandboxes.release(taskId);
      assert.deepEqual([...host().links.keys()], []);
    });

    test("a node without a key, or with one that is none, is led to by nothing", async () => {
      for (const publicKey of ["", "AAAA", `${theirs.slice(0, -2)}!=`]) {
        const networks = await open();
        networks.enterTunnel("node1");
        await networks.replace(told(peer(1), { ...peer(2), publicKey }));
        await networks.sandboxes.attach(taskId, encrypted(1), never);
        const inside = kernel.get(path("n-4097"));
        assert.deepEqual([...inside.fdb.keys()], []);
        assert.deepEqual([...inside.routes.keys()], ["254 10.0.1.11/32"]);
        assert.equal(tunnel()?.peers.size, 0);
        await networks.sandboxes.release(taskId);
      }
    });

    test("a peer that the kernel tells in pieces is one, with what the first says of it", async (t) => {
      const networks = await open();
      networks.enterTunnel("node1");
      await networks.replace(told(peer(1), { ...peer(2), publicKey: theirs }));
      await networks.sandboxes.attach(taskId, encrypted(1), never);
      const pieces = [
        { publicKey: theirs, allowed: [], handshakeSeconds: 5, receivedBytes: 6, sentBytes: 7 },
        { publicKey: theirs, allowed: ["100.64.11.255/32"], receivedBytes: 0, sentBytes: 0 },
      ];
      t.mock.method(kernel, "run", async () => [{ listenPort: 2377, peers: pieces }]);
      assert.deepEqual(await networks.tunnelPeers(), [
        { nodeId: "node2", addr: "10.99.0.2", handshakeSeconds: 5, receivedBytes: 6, sentBytes: 7 },
      ]);
    });

    test("before this node has a key, an attachment is refused for now", async () => {
      const networks = await open();
      await networks.replace(told(peer(1)));
      await assert.rejects(networks.sandboxes.attach(taskId, encrypted(1), never), {
        code: "NETWORK_NOT_READY",
        temporary: true,
      });
      assert.deepEqual([...host().links.keys()], []);
    });

    test("a peer's new key takes the place of the old one, and its node's address goes with it", async () => {
      const networks = await open();
      networks.enterTunnel("node1");
      await networks.replace(told(peer(1), { ...peer(2), publicKey: theirs }));
      await networks.sandboxes.attach(taskId, encrypted(1), never);
      const next = publicKeyOf(Buffer.alloc(32, 3).toString("base64"));
      await networks.change([{ kind: "peer", key: "node2", record: { ...peer(2), publicKey: next } }]);
      assert.deepEqual([...(tunnel()?.peers.keys() ?? [])], [next]);
      assert.deepEqual(tunnel()?.peers.get(next)?.allowed, ["100.64.11.255/32"]);
    });

    test("this node's new key is in use when managers tell it, and outlives a restart before and after", async () => {
      const networks = await open();
      const first = networks.enterTunnel("node1") ?? "";
      await networks.replace(told({ ...peer(1), publicKey: first }, { ...peer(2), publicKey: theirs }));
      await networks.sandboxes.attach(taskId, encrypted(1), never);
      const offered = networks.renewTunnelKey() ?? "";
      assert.notEqual(offered, first);
      assert.equal(networks.renewTunnelKey(), offered, "one key is offered until it is in use");
      await networks.change([{ kind: "endpoint", key: "net1/task2", record: undefined }]);
      assert.equal(publicKeyOf(tunnel()?.privateKey ?? ""), first);
      // A restart before managers have told it.
      const later = await open();
      assert.equal(later.enterTunnel("node1"), offered);
      assert.equal(publicKeyOf(tunnel()?.privateKey ?? ""), first);
      await later.replace(told({ ...peer(1), publicKey: offered }, { ...peer(2), publicKey: theirs }));
      assert.equal(publicKeyOf(tunnel()?.privateKey ?? ""), offered);
      const last = await open();
      assert.equal(last.enterTunnel("node1"), offered);
      assert.deepEqual((await readdir(join(folder, "swarm"))).sort(), ["wireguard.key"]);
      assert.equal((await stat(join(folder, "swarm/wireguard.key"))).mode & 0o777, 0o600);
    });

    test("another node of another swarm has another key, and one that cannot be read is replaced", async () => {
      const first = (await open()).enterTunnel("node1");
      const other = (await open()).enterTunnel("node2");
      assert.notEqual(other, first);
      await writeFile(join(folder, "swarm/wireguard.key"), "node2 not-a-key\n");
      assert.notEqual((await open()).enterTunnel("node2"), other);
      const networks = await open();
      networks.enterTunnel("node2");
      networks.leaveTunnel();
      assert.deepEqual(await readdir(join(folder, "swarm")), []);
    });

    test("what somebody changed in the tunnel is put right, a peer that moved is not sought where it was", async () => {
      const networks = await open();
      networks.enterTunnel("node1");
      await networks.replace(told(peer(1), { ...peer(2), publicKey: theirs }));
      await networks.sandboxes.attach(taskId, encrypted(1), never);
      const held = tunnel()?.peers.get(theirs);
      tunnel()?.peers.set(theirs, {
        ...held,
        publicKey: theirs,
        allowed: held?.allowed ?? [],
        endpoint: "192.0.2.9",
        keepaliveSeconds: 25,
      });
      assert.deepEqual(await differences(networks), []);
      tunnel()?.peers.clear();
      tunnel()?.peers.set("stranger", { publicKey: "stranger", allowed: ["100.64.11.255/32"] });
      assert.deepEqual((await differences(networks)).sort(), [
        `missing tunnel-peer skepwg ${theirs}`,
        "surplus tunnel-peer skepwg stranger",
      ]);
      await networks.repair();
      assert.deepEqual([...(tunnel()?.peers.keys() ?? [])], [theirs]);
      // A key that the other end does not have, and a mark that may lead the tunnel's packets elsewhere.
      const whole = tunnel()?.peers.get(theirs) ?? assert.fail("no peer");
      tunnel()?.peers.set(theirs, { ...whole, preshared: true });
      tunnel()!.mark = 83;
      assert.deepEqual((await differences(networks)).sort(), [
        "missing wireguard skepwg",
        `wrong tunnel-peer skepwg ${theirs}`,
      ]);
      await networks.repair();
      assert.deepEqual([tunnel()?.peers.get(theirs)?.preshared, tunnel()?.mark], [undefined, undefined]);
      assert.deepEqual(await differences(networks), []);
      // The link itself, which takes the network's with it.
      await kernel.run("", [{ op: "link-delete", name: "skepwg" }]);
      assert.equal(kernel.get(path("n-4097")).links.has("vx"), false);
      await networks.repair();
      assert.equal(kernel.get(path("n-4097")).links.get("vx")?.lower, 9);
      assert.deepEqual([...(tunnel()?.peers.keys() ?? [])], [theirs]);
      assert.deepEqual(await differences(networks), []);
    });

    test("the secret half of a key is in no text that is made of what is wanted", async () => {
      const networks = await open();
      networks.enterTunnel("node1");
      await networks.replace(told(peer(1), { ...peer(2), publicKey: theirs }));
      await networks.sandboxes.attach(taskId, encrypted(1), never);
      const secret = tunnel()?.privateKey ?? "";
      const objects = [...networks.model.namespace("").objects()];
      const key = objects.find(({ type }) => type === "wireguard");
      for (const text of [
        JSON.stringify(objects),
        inspect(objects, { depth: 9 }),
        inspect(key, { showHidden: true, depth: 9, getters: false }),
      ]) {
        assert.ok(!text.includes(secret));
      }
    });
  });

  test("before the node has its number an attachment is refused for now, and an address outside of the network for good", async () => {
    const networks = await open();
    await assert.rejects(networks.sandboxes.attach(taskId, request(1), never), {
      code: "NETWORK_NOT_READY",
      temporary: true,
    });
    await networks.replace(records());
    await assert.rejects(networks.sandboxes.attach(taskId, request(1, { subnet: "10.0.2.0/24" }), never), {
      code: "SANDBOX_INVALID",
    });
  });

  test("where the kernel has no networks for us, what asks for one is refused and the rest goes on", async () => {
    kernel.beforeEach = (_namespace, { op }) => {
      if (op === "namespace-add") throw Object.assign(new Error("Operation not permitted"), { errno: "EPERM" });
    };
    const networks = await open();
    assert.equal(networks.abilities.refusal?.code, "NETWORK_UNAVAILABLE");
    await networks.replace(records(endpoint(2, 2)));
    await networks.change([{ kind: "endpoint", key: "net1/task2", record: undefined }]);
    await assert.rejects(networks.sandboxes.attach(taskId, request(1), never), { code: "NETWORK_UNAVAILABLE" });
  });
});
