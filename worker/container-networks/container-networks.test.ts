import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";

import { ClusterError } from "../../lib/pure/errors.ts";
import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import type { Attached, AttachRequest } from "../agent/index.ts";
import type { ContainerRecord, EndpointSettings, HostConfig } from "../containers/index.ts";
import type { BridgeWish, Sandbox, SandboxRequest } from "../network/index.ts";
import { LocalNetworks } from "../network/local-networks.ts";
import { AgentPlaces, ContainerNetworks, type NetworkEvent } from "./index.ts";
import type { KnownSandboxes } from "./container-networks.ts";

const id = (letter: string): string => letter.repeat(64);

class PortTaken extends ClusterError {
  readonly code = "PORT_IN_USE";
  readonly port: { readonly port: number; readonly protocol: string };
  constructor(port: number) {
    super(`Bind for 0.0.0.0:${port} failed: port is already allocated`);
    this.port = { port, protocol: "tcp" };
  }
}

/** Sandboxes without a kernel; ports that are taken by somebody refuse. */
class FakeSandboxes implements KnownSandboxes {
  readonly requests = new Map<string, SandboxRequest>();
  readonly #sandboxes = new Map<string, Sandbox>();
  taken = new Set<number>();
  failure: Error | undefined;

  attach(sandbox: string, request: SandboxRequest): Promise<Sandbox> {
    const busy = request.ports.find(({ publishedPort }) => this.taken.has(publishedPort));
    if (busy !== undefined) return Promise.reject(new PortTaken(busy.publishedPort));
    if (this.failure !== undefined) return Promise.reject(this.failure);
    this.requests.set(sandbox, request);
    const made: Sandbox = {
      id: sandbox,
      namespacePath: `/run/netns/${sandbox}`,
      resolver: request.networks.some((wish) => wish.kind === "overlay" || wish.networkName !== "bridge")
        ? "127.0.0.11"
        : undefined,
      hostAddress: "172.18.0.1",
      gatewayAddress: undefined,
      endpoints: request.networks.map((wish, at) => ({
        kind: wish.kind,
        networkId: wish.kind === "overlay" ? wish.network.id : wish.networkId,
        networkName: wish.kind === "overlay" ? wish.network.name : wish.networkName,
        interfaceName: `eth${at}`,
        address: (wish.address === "" ? `172.18.0.${this.requests.size + 1}` : wish.address).split("/")[0] ?? "",
        prefixLength: 24,
        gateway: "172.18.0.1",
        macAddress: "02:42:ac:12:00:02",
        aliases: wish.aliases,
      })),
      ports: request.ports.map((port) => ({ ...port, publishedPort: port.publishedPort || 49_153 })),
    };
    this.#sandboxes.set(sandbox, made);
    return Promise.resolve(made);
  }

  get(sandbox: string): Sandbox | undefined {
    return this.#sandboxes.get(sandbox);
  }

  request(sandbox: string): SandboxRequest | undefined {
    return this.requests.get(sandbox);
  }

  release(sandbox: string): Promise<void> {
    this.#sandboxes.delete(sandbox);
    this.requests.delete(sandbox);
    return Promise.resolve();
  }

  held(): Promise<readonly string[]> {
    return Promise.resolve([...this.#sandboxes.keys()]);
  }
}

/** An agent whose managers know one attachable network, ov1. */
class FakeAgent {
  readonly places = new Map<string, Attached>();
  readonly detached: string[] = [];

  attach(request: AttachRequest): Promise<Attached> {
    if (!["ov1", "overlay1"].includes(request.network))
      return Promise.reject(new Error(`network ${request.network} not found`));
    const network = new skep.objects.Network({
      id: "overlay1",
      vni: 4097,
      spec: { name: "ov1" },
      ipam: { config: [{ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }] },
    });
    const taskId = `task-${request.containerId[0]}`;
    const { containerId, aliases, addresses } = request;
    const place = {
      taskId,
      containerId,
      network,
      aliases,
      addresses: addresses.length > 0 ? addresses : ["10.0.1.7/24"],
    };
    this.places.set(taskId, place);
    return Promise.resolve(place);
  }

  detach(taskId: string): void {
    this.places.delete(taskId);
    this.detached.push(taskId);
  }

  get attached(): readonly Attached[] {
    return [...this.places.values()];
  }
}

let folder: string;
let local: LocalNetworks;
let sandboxes: FakeSandboxes;
let agent: FakeAgent;
let places: AgentPlaces;
let clock: VirtualClock;
let events: NetworkEvent[];
let networks: ContainerNetworks;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "skep-cn-"));
  clock = new VirtualClock();
  local = await LocalNetworks.open({
    folder: join(folder, "db"),
    clock,
    logger: silentLogger,
    hostRanges: async () => [],
    onV6: async () => undefined,
  });
  sandboxes = new FakeSandboxes();
  agent = new FakeAgent();
  places = new AgentPlaces();
  places.follow(agent);
  events = [];
  networks = open();
});
afterEach(async () => {
  await networks[Symbol.asyncDispose]();
  await local[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const open = (): ContainerNetworks =>
  new ContainerNetworks({
    folder,
    local,
    sandboxes,
    places,
    onEvent: (event) => events.push(event),
    clock,
    logger: silentLogger,
  });

function record(
  letter: string,
  hostConfig: HostConfig,
  asked?: Readonly<Record<string, EndpointSettings>>,
): ContainerRecord {
  return {
    id: id(letter),
    name: `c-${letter}`,
    config: {},
    hostConfig,
    image: { ExposedPorts: { "80/tcp": {} } },
    ...(asked === undefined ? {} : { networks: asked }),
  } as unknown as ContainerRecord;
}
const told = (): string[] =>
  events.map(({ action, name, container }) => `${action} ${name} ${container?.[0] ?? ""}`.trim());

test("a container is put on the networks that its record names, told of, and taken off", async () => {
  await networks.create({ name: "net1" }, { configOnly: false, from: "" });
  const settings = {
    net1: { Aliases: ["db"], IPAMConfig: { IPv4Address: "172.18.0.9" }, Links: ["cache:c"] },
    ov1: {},
  };
  const attached = await networks.attach(record("a", { NetworkMode: "net1", Dns: ["9.9.9.9"] }, settings));
  assert.deepEqual(attached.addresses, ["172.18.0.9", "10.0.1.7"]);
  assert.equal(attached.resolver, "127.0.0.11");
  assert.equal(attached.hostAddress, "172.18.0.1");
  const request = sandboxes.request(id("a"));
  const [first] = request?.networks ?? [];
  assert.deepEqual((first as BridgeWish).aliases, ["db", "a".repeat(12)]);
  assert.deepEqual([request?.containerName, request?.dns, request?.links], ["c-a", ["9.9.9.9"], { c: "cache" }]);
  assert.deepEqual(
    networks.overlaysOf(id("a"), undefined).map(({ name, subnet }) => [name, subnet]),
    [["ov1", "10.0.1.0/24"]],
  );
  await networks.release(id("a") as ContainerRecord["id"]);
  assert.deepEqual(told(), ["create net1", "connect net1 a", "connect ov1 a", "disconnect net1 a", "disconnect ov1 a"]);
  assert.deepEqual(agent.detached, ["task-a"]);
});

test("what differs is done when a running container's networks change, and a place that is left is given back", async () => {
  await networks.create({ name: "net1" }, { configOnly: false, from: "" });
  await networks.attach(record("a", { NetworkMode: "ov1" }, { ov1: {} }));
  await networks.attach(record("a", { NetworkMode: "ov1" }, { ov1: {}, net1: {} }));
  await networks.attach(record("a", { NetworkMode: "ov1" }, { net1: {} }));
  assert.deepEqual(told(), ["create net1", "connect ov1 a", "connect net1 a", "disconnect ov1 a"]);
  assert.deepEqual(agent.detached, ["task-a"]);
});

test("of a range of ports the first that is free is taken, and what was taken is kept", async () => {
  sandboxes.taken = new Set([8000, 8001]);
  const wish = record("a", { NetworkMode: "bridge", PortBindings: { "80/tcp": [{ HostPort: "8000-8005" }] } });
  await networks.attach(wish);
  assert.deepEqual(
    networks.sandboxOf(id("a"), undefined)?.ports.map(({ publishedPort }) => publishedPort),
    [8002],
  );
  sandboxes.taken = new Set();
  await networks.attach(wish);
  assert.deepEqual(
    sandboxes.request(id("a"))?.ports.map(({ publishedPort }) => publishedPort),
    [8002],
  );
  sandboxes.taken = new Set([8000, 8001]);
  const narrow = record("b", { NetworkMode: "bridge", PortBindings: { "80/tcp": [{ HostPort: "8000-8001" }] } });
  await assert.rejects(networks.attach(narrow), { code: "PORT_IN_USE" });
});

test("all exposed ports are published where there is room", async () => {
  await networks.attach(record("a", { NetworkMode: "bridge", PublishAllPorts: true }));
  assert.deepEqual(sandboxes.request(id("a"))?.ports, [
    { protocol: "tcp", targetPort: 80, publishedPort: 0, hostAddress: "" },
  ]);
});

test("a link on the network bridge is a line of hosts, and only to a container that runs", async () => {
  networks.bind((name) => (name === "c-a" ? id("a") : undefined));
  const linked = record("b", { NetworkMode: "bridge", Links: ["c-a:store"] });
  await assert.rejects(networks.attach(linked), { message: /Cannot link to a non running container: c-a AS store/ });
  await networks.attach(record("a", { NetworkMode: "bridge" }));
  const address = networks.sandboxOf(id("a"), undefined)?.endpoints[0]?.address;
  assert.deepEqual((await networks.attach(linked)).hosts, [`store:${address}`, `c-a:${address}`]);
});

test("a place that was taken for a start that failed is given back", async () => {
  sandboxes.failure = new Error("no room");
  await assert.rejects(networks.attach(record("a", { NetworkMode: "ov1" })), /no room/);
  assert.deepEqual(agent.detached, ["task-a"]);
});

test("after a restart containers that run keep their place, and what belongs to none is released", async () => {
  await networks.attach(record("a", { NetworkMode: "ov1" }));
  await networks.attach(record("b", { NetworkMode: "ov1" }));
  await sandboxes.attach("task00000000000000000000x", sandboxes.request(id("a")) as SandboxRequest);
  await networks[Symbol.asyncDispose]();
  networks = open();
  await networks.keep(new Set([id("a")]));
  assert.deepEqual(
    (await sandboxes.held()).toSorted(),
    [id("a"), "task00000000000000000000x"],
    "a task's is somebody else's",
  );
  assert.deepEqual(agent.detached, []);
  // b's place is known to the managers only, and is found by looking.
  clock.advance(60_000);
  assert.deepEqual(agent.detached, ["task-b"]);
  await networks.release(id("a") as ContainerRecord["id"]);
  assert.deepEqual(agent.detached, ["task-b", "task-a"]);
});

test("outside a swarm a network that this node does not have is not found; a start waits for the agent", async () => {
  places.follow(undefined);
  assert.equal(networks.isKnown("ov1"), false);
  const starts = networks.attach(record("a", { NetworkMode: "ov1" }));
  places.follow(agent);
  assert.deepEqual((await starts).addresses, ["10.0.1.7"]);
  assert.equal(networks.isKnown("ov1"), true);
});

test("a configuration gives its subnet and options to networks that name it, and stays while they are there", async () => {
  const ipam = [{ subnet: "172.31.9.0/24" }];
  const config = await networks.create({ name: "conf", ipam, labels: { a: "b" } }, { configOnly: true, from: "" });
  const made = await networks.create({ name: "net1" }, { configOnly: false, from: "conf" });
  assert.ok(made.kind === "bridge" && made.record.network.subnet === "172.31.9.0/24");
  await assert.rejects(networks.create({ name: "net2", ipam }, { configOnly: false, from: "conf" }), {
    code: "CONTAINER_NETWORK_INVALID",
  });
  await assert.rejects(networks.create({ name: "conf" }, { configOnly: false, from: "" }), {
    code: "CONTAINER_NETWORK_CONFLICT",
  });
  await assert.rejects(networks.create({ name: "net3" }, { configOnly: false, from: "nosuch" }), {
    code: "CONTAINER_NETWORK_NOT_FOUND",
  });
  await assert.rejects(networks.attach(record("a", { NetworkMode: "conf" })), /cannot be used by containers/);
  await assert.rejects(networks.remove(config), { code: "CONFIG_NETWORK_IN_USE" });
  await networks.remove(made);
  await networks[Symbol.asyncDispose]();
  networks = open();
  const found = networks.find("conf");
  assert.ok(found?.kind === "config" && found.config.wish.ipam?.[0]?.subnet === "172.31.9.0/24", "it is remembered");
  await networks.remove(found);
  assert.equal(networks.find("conf"), undefined);
});

test("networks without containers are pruned, and their removal is told", async () => {
  await networks.create({ name: "net1" }, { configOnly: false, from: "" });
  await networks.create({ name: "net2" }, { configOnly: false, from: "" });
  local.setUser(id("a"), [networks.find("net1")?.kind === "bridge" ? (local.find("net1")?.network.id ?? "") : ""]);
  assert.deepEqual(await networks.prune(() => true), []);
  assert.deepEqual(await networks.prune(() => false), ["net2"]);
  assert.deepEqual(told().slice(-1), ["destroy net2"]);
});
