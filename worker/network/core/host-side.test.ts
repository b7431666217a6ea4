import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { BridgeNetwork } from "./bridges.ts";
import { HostSide } from "./host-side.ts";
import { Model } from "./model.ts";
import { objectKey } from "./objects.ts";
import type { SandboxFacts, Self } from "./part.ts";
import type { NetworkRecords, PublishedPort } from "./records.ts";
import { TunnelKey } from "./tunnel-key.ts";

const nowhere: Self = { nodeId: "", number: 0, addr: "", underlayMtu: 1500 };
const blue: BridgeNetwork = {
  id: "blue",
  name: "blue",
  subnet: "172.18.0.0/16",
  gateway: "172.18.0.1",
  ipRange: "",
  reserved: [],
  internal: false,
  masquerade: true,
  interContainer: true,
  mtu: 0,
  hostAddress: "",
};
const dark: BridgeNetwork = {
  ...blue,
  id: "dark",
  name: "dark",
  subnet: "172.19.0.0/16",
  gateway: "172.19.0.1",
  internal: true,
};
const networks: readonly BridgeNetwork[] = [blue, dark];

interface Tunnel {
  key?: TunnelKey | undefined;
  readonly wasMeshEncrypted?: boolean;
}

function build(
  self: Self = nowhere,
  tunnel: Tunnel = {},
): { model: Model; side: HostSide; keys: (path?: string) => string[] } {
  const side = new HostSide({
    dataPort: 4789,
    forwardsForOthers6: false,
    bridge: (id) => networks.find((network) => network.id === id),
    tunnelKey: () => tunnel.key,
    has6: true,
    was: { encrypted: tunnel.wasMeshEncrypted ?? false, has6: false },
  });
  const model = new Model([side.make], self);
  const keys = (path = ""): string[] => [...(model.namespaces.get(path)?.objects() ?? [])].map(objectKey).sort();
  return { model, side, keys };
}

const sandbox = (facts: Partial<SandboxFacts>): SandboxFacts => ({
  id: "c1",
  tag: "t1",
  namespacePath: "/ns/c1",
  gatewayAddress: "",
  internal: false,
  overlays: [],
  bridges: [],
  ports: [],
  ...facts,
});
const onBridge = (network: BridgeNetwork, host: number, at = 0): SandboxFacts["bridges"][number] => ({
  wish: { kind: "bridge", networkId: network.id, networkName: network.name, address: "", macAddress: "", aliases: [] },
  interfaceName: `eth${at}`,
  macAddress: "02:42:ac:12:00:02",
  address: `${network.gateway.slice(0, -1)}${host}/16`,
  gateway: network.gateway,
});
const publish = (port: Partial<PublishedPort>): PublishedPort => ({
  protocol: "tcp",
  targetPort: 80,
  publishedPort: 8080,
  hostAddress: "",
  ...port,
});

describe("the host's side of the model", () => {
  test("outside a swarm there is no mesh, and nothing is told of VXLAN", () => {
    const { keys, model } = build();
    assert.ok(keys().every((key) => !key.includes("skepmesh")));
    const table = model.namespaces.get("")?.get("table ip skep");
    assert.ok(table?.type === "table" && !table.text.includes("4789"));
  });

  test("joining adds the mesh and leaving takes it away, and the sandboxes' ends are not touched", () => {
    const { model, keys } = build();
    model.sandbox("c1", sandbox({ gatewayAddress: "100.64.0.2", bridges: [onBridge(blue, 2)] }));
    const before = keys();
    const told = model.namespaces.get("")?.take();
    assert.ok(told);
    const peers = [1, 2].map((number) => ({
      nodeId: `n${number}`,
      number,
      addr: `10.99.0.${number}`,
      mtu: 1400,
      publicKey: "",
    }));
    model.replace({ nodeId: "n1", peers, endpoints: [], services: [] });
    assert.ok(keys().includes("link skepmesh"));
    assert.ok(keys().includes("route 254 100.64.8.0/22"));
    const changed =
      model.namespaces
        .get("")
        ?.take()
        .changes.map(({ key }) => key) ?? [];
    assert.deepEqual(
      changed.filter((key) => /skep[gl]/.test(key)),
      [],
      "links of sandboxes stay as they are",
    );
    model.replace({ nodeId: "", peers: [], endpoints: [], services: [] });
    assert.deepEqual(keys(), before);
  });

  test("who may send frames is known by family: nodes by IPv4 in one table, by IPv6 in another, and never in both", () => {
    const { model, keys } = build();
    const tell = (addr: (number: number) => string, more: object = {}): void => {
      const peers = [1, 2].map((number) => ({
        nodeId: `n${number}`,
        number,
        addr: addr(number),
        mtu: 1500,
        publicKey: "",
        ...more,
      }));
      model.replace({ nodeId: "n1", peers, endpoints: [], services: [] });
    };
    const meshMtu = (): unknown => {
      const link = model.namespaces.get("")?.get("link skepmesh");
      return link?.type === "link" ? link.mtu : undefined;
    };
    const rawOf = (family: "ip" | "ip6", table: string): string => {
      const found = model.namespaces.get("")?.get(`table ${family} ${table}`);
      return found?.type === "table" ? (/chain raw \{[^}]*/.exec(found.text)?.[0] ?? "") : "";
    };
    tell((number) => `10.99.0.${number}`);
    const four = keys();
    assert.ok(!four.some((key) => key.includes("ip6 ")), "nothing of IPv6 in a cluster of IPv4");
    assert.ok(four.includes("element ip skep peers 10.99.0.2"));
    assert.match(rawOf("ip", "skep"), /\n +udp dport 4789 ip daddr 10\.99\.0\.1 ip saddr @peers .* notrack accept\n/);
    assert.equal(meshMtu(), 1450);
    tell((number) => `fd99::${number}`, { addresses4: ["192.0.2.1", "172.17.0.1"] });
    const six = keys();
    assert.deepEqual(
      six.filter((key) => key.includes(" peers ")),
      ["element ip6 skepnodes peers fd99::1", "element ip6 skepnodes peers fd99::2"],
    );
    assert.ok(six.includes("element ip skep bounce 172.17.0.1 . 100.64.8.0/22"));
    assert.doesNotMatch(rawOf("ip", "skep"), /notrack accept/);
    assert.match(rawOf("ip6", "skepnodes"), /udp dport 4789 ip6 daddr fd99::1 ip6 saddr @peers .* notrack accept\n/);
    assert.ok(!six.includes("table ip6 skep"), "the host does not forward IPv6 for that");
    assert.equal(meshMtu(), 1430);
    tell((number) => `10.99.0.${number}`);
    assert.deepEqual(keys(), four);
  });

  test("a mesh with IPv6 on links that are too narrow for it goes on with IPv4", () => {
    const { model, side, keys } = build();
    const service = {
      networkId: "ingress",
      serviceId: "web",
      name: "web",
      aliases: [],
      virtualIp: "",
      mode: "vip",
      ports: [{ protocol: "tcp", targetPort: 80, publishedPort: 8080, mode: "ingress" }],
      has6: true,
    } as const;
    const tell = (mtu: number): void => {
      const own = { nodeId: "n1", number: 1, addr: "fd99::1", mtu, publicKey: "" };
      model.replace({ nodeId: "n1", peers: [own], endpoints: [], services: [service] });
      side.told();
    };
    tell(1350);
    assert.deepEqual([side.hasMesh6, side.hasGateway6([])], [true, true]);
    assert.ok(keys().includes("table ip6 skep"));
    tell(1349);
    assert.deepEqual([side.hasMesh6, side.hasGateway6([])], [true, false]);
    assert.ok(!keys().includes("table ip6 skep"));
    assert.ok(keys().includes("link skepmesh"));
    tell(1350);
    assert.ok(keys().includes("table ip6 skep"));
  });

  test("a network of this node is in the kernel while a sandbox is on it", () => {
    const { model, keys } = build();
    const empty = keys();
    model.sandbox("c1", sandbox({ bridges: [onBridge(blue, 2)] }));
    model.sandbox("c2", sandbox({ id: "c2", namespacePath: "/ns/c2", bridges: [onBridge(blue, 3)] }));
    assert.ok(keys().includes("address skep0 172.18.0.1/32"));
    model.sandbox("c1", undefined);
    assert.ok(keys().includes("address skep0 172.18.0.1/32"));
    model.sandbox("c2", undefined);
    assert.deepEqual(keys(), empty);
    assert.deepEqual(keys("/ns/c1"), []);
  });

  test("the way out is gw0, or else the first network that is not internal", () => {
    const defaultRoute = (facts: Partial<SandboxFacts>): string | undefined => {
      const { model } = build();
      model.sandbox("c1", sandbox(facts));
      const route = model.namespaces.get("/ns/c1")?.get("route 254 0.0.0.0/0");
      return route?.type === "route" ? route.link : undefined;
    };
    assert.equal(defaultRoute({ bridges: [onBridge(dark, 2)] }), undefined);
    assert.equal(defaultRoute({ bridges: [onBridge(dark, 2), onBridge(blue, 2, 1)] }), "eth1");
    assert.equal(defaultRoute({ gatewayAddress: "100.64.0.2", bridges: [onBridge(blue, 2)] }), "gw0");
  });

  test("ports lead to gw0 or to the first open network; an internal one has none", () => {
    const targets = (facts: Partial<SandboxFacts>): string[] => {
      const { model } = build();
      model.sandbox(
        "c1",
        sandbox({ ...facts, ports: [publish({}), publish({ protocol: "udp", hostAddress: "10.99.0.1" })] }),
      );
      return [...(model.namespaces.get("")?.objects() ?? [])].flatMap((object) =>
        object.type === "element" && /^(tcp|udp)(be|to)$/.test(object.set)
          ? [`${object.set} ${object.key.join(" ")} > ${object.value.join(":")}`]
          : [],
      );
    };
    assert.deepEqual(targets({ gatewayAddress: "100.64.0.9", bridges: [onBridge(blue, 2)] }), [
      "tcpbe 8080 0 > 100.64.0.9:80",
      "udpto 10.99.0.1 8080 > 100.64.0.9:80",
    ]);
    assert.deepEqual(targets({ bridges: [onBridge(dark, 2), onBridge(blue, 2, 1)] }), [
      "tcpbe 8080 0 > 172.18.0.2:80",
      "udpto 10.99.0.1 8080 > 172.18.0.2:80",
    ]);
    assert.deepEqual(targets({ bridges: [onBridge(dark, 2)] }), []);
  });

  test("connections that led to a sandbox are forgotten when its address goes", () => {
    const { model } = build();
    const ports = [publish({})];
    model.sandbox("c1", sandbox({ gatewayAddress: "100.64.0.2", bridges: [onBridge(blue, 2)], ports }));
    model.namespaces.get("")?.take();
    model.sandbox("c1", sandbox({ gatewayAddress: "100.64.0.2", ports }));
    assert.deepEqual(model.namespaces.get("")?.take().forgotten, [{ destination: "", replySource: "172.18.0.2" }]);
    model.sandbox("c1", undefined);
    assert.deepEqual(model.namespaces.get("")?.take().forgotten, [{ destination: "", replySource: "100.64.0.2" }]);
    // To a container without ports nothing leads, and to a task the mesh may: else nobody looks among all connections.
    model.sandbox("c2", sandbox({ id: "c2", gatewayAddress: "100.64.0.3", bridges: [onBridge(blue, 3)] }));
    model.sandbox("c2", undefined);
    assert.deepEqual(model.namespaces.get("")?.take().forgotten, []);
    model.sandbox("t1", sandbox({ id: "t1", gatewayAddress: "100.64.4.2" }));
    model.sandbox("t1", undefined);
    assert.deepEqual(model.namespaces.get("")?.take().forgotten, [{ destination: "", replySource: "100.64.4.2" }]);
  });

  describe("with an encrypted mesh", () => {
    const key = new TunnelKey("", Buffer.alloc(32, 1).toString("base64"));
    const theirs = Buffer.alloc(32, 2).toString("base64");
    const peer = (number: number, publicKey: string) => ({
      nodeId: `n${number}`,
      number,
      addr: `10.99.0.${number}`,
      mtu: 1500,
      publicKey,
    });
    const web = {
      networkId: "mesh",
      serviceId: "web",
      name: "web",
      aliases: [],
      virtualIp: "",
      mode: "vip",
      ports: [{ protocol: "tcp", targetPort: 80, publishedPort: 8080, mode: "ingress" }],
    } as const;
    const records = (encrypted: boolean): NetworkRecords => ({
      nodeId: "n1",
      peers: [peer(1, key.publicKey), peer(2, theirs), peer(3, "")],
      endpoints: [],
      services: [{ ...web, encrypted }],
    });
    const mesh = (model: Model) => {
      const link = model.namespaces.get("")?.get("link skepmesh");
      return link?.type === "link" && link.how.kind === "vxlan" ? { ...link.how, mtu: link.mtu } : undefined;
    };
    const guards = (model: Model): boolean => {
      const table = model.namespaces.get("")?.get("table ip skep");
      return table?.type === "table" && table.text.includes("chain guard");
    };
    const inClear = { kind: "vxlan", vni: 4095, local: "10.99.0.1", port: 4789, mtu: 1450 };
    const inTunnel = { kind: "vxlan", vni: 4095, local: "100.64.7.255", port: 4793, lower: "skepwg", mtu: 1390 };

    test("it goes through the tunnel, to nodes that have a key, while there is a service in it", () => {
      const { model, keys, side } = build(nowhere, { key });
      model.replace(records(true));
      assert.deepEqual(mesh(model), inTunnel);
      assert.ok(guards(model) && side.isMeshEncrypted);
      const known = keys();
      assert.ok(known.includes("route 254 100.64.8.0/22") && known.includes(`tunnel-peer skepwg ${theirs}`));
      assert.ok(!known.includes("route 254 100.64.12.0/22"), "nothing leads to a node without a key");
      assert.equal(known.filter((one) => one.startsWith("tunnel-peer")).length, 1);
      model.change([{ kind: "service", key: "mesh/web", record: undefined }]);
      assert.deepEqual(mesh(model), inClear);
      assert.ok(!keys().some((one) => /skepwg/.test(one)) && !guards(model));
      model.replace(records(false));
      assert.deepEqual(mesh(model), inClear);
      assert.ok(keys().includes("route 254 100.64.12.0/22"));
    });

    test("gw0 of a task is as long as the mesh's link, in the tunnel and out of it; a container's is none of the mesh's", () => {
      const { model } = build(nowhere, { key });
      model.replace(records(true));
      model.sandbox("t1", sandbox({ id: "t1", namespacePath: "/ns/t1", gatewayAddress: "100.64.4.2" }));
      model.sandbox("c1", sandbox({ gatewayAddress: "100.64.0.2" }));
      const mtusOf = (name: string): readonly number[] => {
        const link = model.namespaces.get("")?.get(`link ${name}`);
        return link?.type === "link" && link.how.kind === "veth" ? [link.mtu, link.how.peerMtu] : [];
      };
      assert.deepEqual(
        [mtusOf("skepg64400402"), mtusOf("skepg64400002")],
        [
          [1390, 1390],
          [1500, 1500],
        ],
      );
      model.change([{ kind: "service", key: "mesh/web", record: undefined }]);
      assert.deepEqual(
        [mtusOf("skepg64400402"), mtusOf("skepg64400002")],
        [
          [1450, 1450],
          [1500, 1500],
        ],
      );
    });

    test("without a tunnel there is no mesh and no port of it, until there is one", () => {
      const tunnel: Tunnel = {};
      const { model, side, keys } = build(nowhere, tunnel);
      model.replace(records(true));
      assert.equal(mesh(model), undefined);
      assert.deepEqual(side.wantedPorts(), []);
      assert.ok(!keys().some((one) => /route 254 100\.64|skepwg/.test(one)));
      assert.ok(guards(model));
      tunnel.key = key;
      side.tunnelKeyChanged();
      assert.deepEqual(mesh(model), inTunnel);
      assert.deepEqual(side.wantedPorts(), [{ protocol: "tcp", port: 8080, hostAddress: "" }]);
      tunnel.key = undefined;
      side.tunnelKeyChanged();
      assert.equal(mesh(model), undefined);
      assert.deepEqual(side.wantedPorts(), []);
    });

    test("after a restart it is encrypted before anybody has told so, and in clear text only when somebody did", () => {
      const self: Self = { nodeId: "n1", number: 1, addr: "10.99.0.1", underlayMtu: 1500 };
      const { model, side } = build(self, { key, wasMeshEncrypted: true });
      assert.deepEqual(mesh(model), inTunnel);
      model.replace(records(true));
      side.told();
      assert.deepEqual(mesh(model), inTunnel);
      const other = build(self, { key, wasMeshEncrypted: true });
      other.model.replace(records(false));
      assert.deepEqual(mesh(other.model), inTunnel);
      other.side.told();
      assert.deepEqual(mesh(other.model), inClear);
    });
  });

  test("a host that did not route before drops what is not ours between its links", () => {
    const { model, side } = build();
    const drops = (): boolean => {
      const table = model.namespaces.get("")?.get("table ip skep");
      return table?.type === "table" && table.text.includes('iifname != "skep*" oifname != "skep*" drop');
    };
    assert.equal(drops(), false);
    side.setForwardsForOthers(false);
    assert.equal(drops(), true);
    model.replace({
      nodeId: "n1",
      peers: [{ nodeId: "n1", number: 1, addr: "10.99.0.1", mtu: 0, publicKey: "" }],
      endpoints: [],
      services: [],
    });
    assert.equal(drops(), true, "it is known after the part was made anew");
  });
});
