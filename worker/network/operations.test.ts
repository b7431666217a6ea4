import assert from "node:assert/strict";
import { test } from "node:test";

import { loopbackRoute } from "./core/host6.ts";
import { Namespace } from "./core/namespace.ts";
import type { NetObject } from "./core/objects.ts";
import { routedVeth } from "./core/routed-veth.ts";
import { compare, planChanges } from "./operations.ts";

test("with a link that is made anew the routes are put again that prefer an address of it, on whatever link they are", () => {
  const mesh = (port: number): NetObject => ({
    type: "link",
    name: "skepmesh",
    how: { kind: "vxlan", vni: 4095, local: "10.99.0.1", port },
    owner: "mesh",
    mac: "",
    mtu: 1450,
    master: "",
  });
  const route = (destination: string, source: string): NetObject => ({
    type: "route",
    table: 254,
    destination,
    link: "skepg1",
    via: "",
    onlink: false,
    source,
  });
  const namespace = new Namespace("");
  const address = { type: "address", link: "skepmesh", address: "100.64.4.1/32" } as const;
  const rest = [address, route("100.64.4.2/32", "100.64.4.1"), route("100.64.0.2/32", "100.64.0.1")];
  namespace.set("all", [mesh(4789), ...rest]);
  namespace.take();
  namespace.set("all", [mesh(4793), ...rest]);
  const { batches } = planChanges(namespace, namespace.take().changes, {
    recreate: false,
    partial: false,
    isGoing: () => false,
  });
  const operations = batches.flatMap((batch) => batch.operations);
  assert.deepEqual(
    operations.map((operation) => `${operation.op} ${"destination" in operation ? operation.destination : ""}`.trim()),
    ["link-delete", "link-add", "address-set", "route-replace 100.64.4.2/32"],
  );
});

test("the kernel's own addresses of lo are no surplus, and others on it are", () => {
  const namespace = new Namespace("/netns/n-4097");
  const how = { kind: "existing" } as const;
  namespace.set("all", [{ type: "link", name: "lo", how, owner: "net", mac: "", mtu: 0, master: "" }]);
  const links = [{ name: "lo", index: 1, up: true, mtu: 65_536, alias: "skep:net" }];
  const addresses = ["127.0.0.1/8", "::1/128", "10.0.1.1/32"].map((address) => ({ link: "lo", address }));
  const changes = compare(namespace, { links, dump: { addresses }, tunnels: new Map(), rules: undefined }, true);
  assert.deepEqual(
    changes.map(({ key, after }) => [key, after]),
    [["address lo 10.0.1.1/32", undefined]],
  );
});

test("a link that is to carry less keeps its hardware address, and with it its neighbours; with another they are put again", () => {
  const link = (mac: string, mtu: number): NetObject => ({
    type: "link",
    name: "skepg1",
    how: { kind: "veth", peerNamespace: "/netns/one", peerName: "gw0", peerMac: "", peerMtu: 0 },
    owner: "one",
    mac,
    mtu,
    master: "",
  });
  const neighbour = { type: "neighbour", link: "skepg1", address: "100.64.4.2", mac: "02:42:64:40:04:02" } as const;
  const namespace = new Namespace("");
  const take = (): object[] =>
    planChanges(namespace, namespace.take().changes, { recreate: false, partial: false, isGoing: () => false })
      .batches.flatMap(({ operations }) => operations)
      .map((operation) => ({ ...operation }));
  namespace.set("all", [link("02:fe:ff:ff:ff:01", 1450), neighbour]);
  take();
  const set = { op: "link-set", name: "skepg1", up: true, alias: "skep:one", mtu: 1430 };
  namespace.set("all", [link("02:fe:ff:ff:ff:01", 1430), neighbour]);
  assert.deepEqual(take(), [set]);
  namespace.set("all", [link("02:fe:ff:ff:ff:02", 1430), neighbour]);
  const { type: _type, ...put } = neighbour;
  assert.deepEqual(take(), [
    { ...set, mac: "02:fe:ff:ff:ff:02" },
    { op: "neighbour-set", ...put },
  ]);
});

test("a link of a local network is made in place of one that the kernel has not deleted yet, and is left to it as well", () => {
  const { host } = routedVeth({
    sandboxId: "one",
    namespace: "/netns/one",
    interfaceName: "eth0",
    kind: "local",
    address: "172.17.0.2",
    subnet: "172.17.0.0/16",
    gateway: "172.17.0.1",
    mac: "02:42:ac:11:00:02",
    mtu: 1500,
    isDefaultRoute: true,
    leadsToHost: false,
    leadsToResolver: false,
    isIsolated: false,
  });
  const namespace = new Namespace("");
  const plan = (isGoing: boolean): string[] =>
    planChanges(namespace, namespace.take().changes, { recreate: false, partial: false, isGoing: () => isGoing })
      .batches.flatMap(({ operations }) => operations)
      .map(({ op }) => op);
  // Elements need their table, which is not what this is about.
  const links = host.filter(({ type }) => type !== "element");
  namespace.set("sandbox one", links);
  assert.deepEqual(plan(false), [
    "link-delete",
    "link-add",
    "sysctl-write",
    "sysctl-write",
    "sysctl-write",
    "neighbour-set",
    "route-replace",
  ]);
  namespace.set("sandbox one", []);
  // And it is nobody's from then on.
  assert.deepEqual(plan(true), ["route-delete", "neighbour-delete", "link-set"]);
  namespace.set("sandbox one", links);
  plan(false);
  // It leaves the network and goes on: nothing else would delete the link.
  namespace.set("sandbox one", []);
  assert.deepEqual(plan(false), ["link-delete"]);
});

test("each link's way back to ::1 is a route of its own, is found again by its metric, and never that of lo", () => {
  const namespace = new Namespace("");
  const take = (): object[] =>
    planChanges(namespace, namespace.take().changes, { recreate: false, partial: false, isGoing: () => false })
      .batches.flatMap(({ operations }) => operations)
      .map((operation) => ({ ...operation }));
  const routes = [loopbackRoute("skepg1", 7), loopbackRoute("skepmesh", 5300)];
  namespace.set("all", routes);
  const told = { destination: "::1/128", table: 255, type: "local" } as const;
  assert.deepEqual(take(), [
    { op: "route-replace", ...told, link: "skepg1", metric: 7 },
    { op: "route-replace", ...told, link: "skepmesh", metric: 5300 },
  ]);
  const found = [
    { ...told, link: "skepg1", metric: 7 },
    { ...told, link: "skepg9", metric: 9 },
  ];
  const changes = compare(
    namespace,
    { links: [], dump: { routes: found }, tunnels: new Map(), rules: undefined },
    true,
  );
  assert.deepEqual(
    changes.map(({ key, after }) => `${after === undefined ? "surplus" : "missing"} ${key}`),
    ["missing route 255 ::1/128 metric 5300", "surplus route 255 ::1/128 metric 9"],
  );
  namespace.set("all", []);
  for (const operation of take()) assert.ok("metric" in operation, "without it the kernel would take away lo's");
});

test("a table that is not wanted any more goes whole, also when that was learned while the kernel was asked", () => {
  const namespace = new Namespace("/n");
  const name = { family: "ip", table: "skep" } as const;
  const set = { ...name, name: "vips", key: ["ipv4_addr"], data: ["integer"] } as const;
  const rules = {
    tables: [name],
    elements: [{ set, texts: ["10.0.1.2 : 3"] }],
    chains: new Set(["ip skep nobody"]),
  };
  const changes = compare(namespace, { links: [], dump: {}, tunnels: new Map(), rules }, true);
  const { batches } = planChanges(namespace, changes, { recreate: false, partial: false, isGoing: () => false });
  assert.deepEqual(batches, [{ namespace: "/n", operations: [{ op: "ruleset", text: "delete table ip skep\n" }] }]);
  const kept = compare(namespace, { links: [], dump: {}, tunnels: new Map(), rules }, false);
  assert.deepEqual(kept, [], "before all is known nothing goes");
});
