import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mock, test } from "node:test";

import { Random } from "../../lib/pure/prng.ts";
import { realClock, silentLogger } from "../../lib/runtime/index.ts";
import type { EndpointRecord, OverlayWish, PeerRecord, SandboxRequest, ServiceRecord } from "./contract.ts";
import type { BridgeNetwork } from "./core/bridges.ts";
import { Model } from "./core/model.ts";
import type { SandboxFacts } from "./core/part.ts";
import { NameTable } from "./dns/index.ts";
import { NameService } from "./name-service.ts";

const asker = "127.0.2.61";
const gateways = ["127.0.1.61", "127.0.1.62"];

const overlay: OverlayWish = {
  kind: "overlay",
  network: {
    id: "ov1",
    name: "blue",
    vni: 4097,
    subnet: "10.0.1.0/24",
    gateway: "10.0.1.1",
    internal: false,
    encrypted: false,
    mtu: 0,
  },
  address: "10.0.1.11/24",
  aliases: [],
};
const bridge: BridgeNetwork = {
  id: "br1",
  name: "green",
  subnet: "172.18.0.0/16",
  gateway: "172.18.0.1",
  ipRange: "",
  reserved: [],
  internal: true,
  masquerade: true,
  interContainer: true,
  mtu: 0,
  hostAddress: "",
};
const bridgeWish = {
  kind: "bridge",
  networkId: "br1",
  networkName: "green",
  address: "",
  macAddress: "",
  aliases: ["store", "0123456789ab"],
} as const;

const request = (networks: SandboxRequest["networks"], containerName: string): SandboxRequest => ({
  networks,
  gateway: false,
  ports: [],
  containerName,
  hostname: "",
  dns: [],
  links: { alias: "web" },
  serviceId: "",
  taskId: "",
});
const facts = (id: string, gatewayAddress: string, more: Partial<SandboxFacts>): SandboxFacts => ({
  id,
  tag: id,
  namespacePath: `/run/netns/${id}`,
  gatewayAddress,
  internal: false,
  overlays: [],
  bridges: [],
  ports: [],
  ...more,
});
const self: PeerRecord = { nodeId: "n1", number: 1, addr: "10.99.0.1", mtu: 1500, publicKey: "" };
const service: ServiceRecord = {
  networkId: "ov1",
  serviceId: "s1",
  name: "web",
  aliases: [],
  virtualIp: "10.0.1.100/24",
  mode: "vip",
  ports: [],
};
const endpoint: EndpointRecord = {
  networkId: "ov1",
  taskId: "t1",
  serviceId: "s1",
  nodeId: "n1",
  name: "web.1.t1",
  slot: 1,
  addresses: ["10.0.1.11/24"],
  gatewayAddress: asker,
  aliases: [],
  serving: true,
};

/** Address of a name as the container asks for it; "" without an answer, the code when it is refused. */
async function ask(server: string, port: number, name: string, from = asker): Promise<string> {
  const socket = createSocket("udp4").bind(0, from);
  await once(socket, "listening");
  try {
    const labels = name.split(".").flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
    const header = Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    // Connected, so that the kernel tells when nobody serves there: waiting for a message then fails.
    socket.connect(port, server);
    await once(socket, "connect");
    socket.send(Buffer.concat([header, ...labels, Buffer.from([0, 0, 1, 0, 1])]));
    const [reply] = (await once(socket, "message")) as [Buffer];
    if ((reply[3]! & 0xf) !== 0) return `code ${reply[3]! & 0xf}`;
    return reply.readUInt16BE(6) === 0 ? "" : [...reply.subarray(-4)].join(".");
  } finally {
    socket.close();
  }
}

async function freePort(): Promise<number> {
  const socket = createSocket("udp4").bind(0, gateways[0]);
  await once(socket, "listening");
  const { port } = socket.address();
  socket.close();
  await once(socket, "close");
  return port;
}

/** The first answer, as soon as somebody serves there. */
async function untilServed(server: string, port: number): Promise<string> {
  for (;;) {
    try {
      return await ask(server, port, "web");
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "ECONNREFUSED");
    }
  }
}

test(
  "a node answers its containers from what the model is told, at the addresses that it has",
  { timeout: 120_000 },
  async () => {
    const port = await freePort();
    const requests = new Map<string, SandboxRequest>([
      ["t1", request([overlay], "web.1.t1")],
      ["c1", request([bridgeWish], "db")],
    ]);
    const names = new NameService({
      requestOf: (id) => requests.get(id),
      bridge: (id) => (id === "br1" ? bridge : undefined),
      clock: realClock,
      random: new Random("names"),
      logger: silentLogger,
      port,
      gatewayOf: (number) => gateways[number] ?? "",
    });
    try {
      const model = new Model([names.make], { nodeId: "", number: 0, addr: "", underlayMtu: 1500 });
      model.sandbox("t1", facts("t1", asker, { overlays: [{ wish: overlay, interfaceName: "eth0", macAddress: "" }] }));
      names.start(model.sandboxes);
      model.replace({ nodeId: "n1", peers: [self], endpoints: [endpoint], services: [service] });
      assert.equal(await untilServed(gateways[0]!, port), "10.0.1.100");
      assert.equal(await untilServed(gateways[1]!, port), "10.0.1.100");
      for (const name of ["tasks.web", "web.1.t1", "web.1.t1.blue"])
        assert.equal(await ask(gateways[1]!, port, name), "10.0.1.11", name);
      assert.equal(await ask(gateways[1]!, port, "alias"), "10.0.1.100", "a link");

      model.change([{ kind: "endpoint", key: "ov1/t1", record: { ...endpoint, serving: false } }]);
      assert.equal(await ask(gateways[1]!, port, "tasks.web"), "", "at once");
      assert.equal(await ask(gateways[1]!, port, "web"), "10.0.1.100");

      const here = {
        wish: bridgeWish,
        interfaceName: "eth0",
        macAddress: "",
        address: "127.0.2.62/16",
        gateway: "172.18.0.1",
      };
      model.sandbox("c1", facts("c1", "", { bridges: [here] }));
      for (const name of ["db", "store", "0123456789ab", "db.green"]) {
        assert.equal(await ask(gateways[0]!, port, name, "127.0.2.62"), "127.0.2.62", name);
      }
      assert.equal(
        await ask(gateways[0]!, port, "web", "127.0.2.62"),
        "code 3",
        "of another network, and it is internal",
      );
      assert.equal(await ask(gateways[0]!, port, "db", "127.0.2.63"), "code 5", "nobody of ours");

      model.change([{ kind: "peer", key: "n1", record: undefined }]);
      model.replace({ nodeId: "", peers: [], endpoints: [], services: [] });
      assert.equal(await ask(gateways[0]!, port, "db", "127.0.2.62"), "127.0.2.62", "out of the swarm it goes on");
      model.sandbox("c1", undefined);
      assert.equal(await ask(gateways[0]!, port, "db", "127.0.2.62"), "code 5");
      assert.ok(names.figures.queries > 10);
    } finally {
      await names[Symbol.asyncDispose]();
    }
  },
);

const serviceAt = (port: number): NameService =>
  new NameService({
    requestOf: () => request([], "db"),
    bridge: (id) => (id === "br1" ? bridge : undefined),
    clock: realClock,
    random: new Random("names"),
    logger: silentLogger,
    port,
    gatewayOf: (number) => gateways[number] ?? "",
  });
const nobody = { nodeId: "", number: 0, addr: "", underlayMtu: 1500 };

test("a network of this node is known by name for as long as somebody is on it", async () => {
  const known = new Map<string, string>();
  const { prototype } = NameTable;
  mock.method(prototype, "setNetwork", ({ id, name }: { id: string; name: string }) => void known.set(id, name));
  mock.method(prototype, "removeNetwork", (id: string) => void known.delete(id));
  const names = serviceAt(0);
  try {
    const model = new Model([names.make], nobody);
    const here = { wish: bridgeWish, interfaceName: "eth0", macAddress: "", gateway: "172.18.0.1" };
    model.sandbox("c1", facts("c1", "", { bridges: [{ ...here, address: "127.0.2.62/16" }] }));
    model.sandbox("c2", facts("c2", "", { bridges: [{ ...here, address: "127.0.2.63/16" }] }));
    model.sandbox("c1", undefined);
    assert.deepEqual([...known], [["br1", "green"]]);
    // It leaves the network and goes on.
    model.sandbox("c2", facts("c2", "", {}));
    assert.deepEqual([...known], []);
  } finally {
    mock.restoreAll();
    await names[Symbol.asyncDispose]();
  }
});

test("an address that this node has no more is not told to be unserved, however late that is found out", async () => {
  const other = createSocket("udp4").bind(0, gateways[1]);
  await once(other, "listening");
  const names = serviceAt(other.address().port);
  try {
    const model = new Model([names.make], nobody);
    names.start(model.sandboxes);
    model.replace({ nodeId: "n1", peers: [self], endpoints: [], services: [] });
    model.replace({ nodeId: "", peers: [], endpoints: [], services: [] });
  } finally {
    await names[Symbol.asyncDispose]();
    other.close();
  }
  assert.ok(!names.unserved.some(({ address }) => address === gateways[1]));
});
