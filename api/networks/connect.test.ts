import assert from "node:assert/strict";
import { test } from "node:test";

import type { ContainerNetworks, Networks } from "../../worker/container-networks/index.ts";
import type { ContainerRecord, Containers } from "../../worker/containers/index.ts";
import { connect, disconnect } from "./connect.ts";
import { find, matches, type NodeSide, type Shown } from "./shown.ts";

const shown = (Name: string, Id: string, Scope = "local"): Shown => ({
  Name,
  Id,
  Scope,
  Created: "2026-01-01T00:00:00Z",
  Driver: "bridge",
  Ingress: false,
});
const net1 = shown("net1", "aa11");

/** One container, whose record is all there is of it. */
function nodeWith(mode: string, networks: Networks): { readonly node: NodeSide; readonly now: () => Networks } {
  let now = networks;
  const record = (): ContainerRecord =>
    ({ name: "c1", hostConfig: { NetworkMode: mode }, networks: now }) as unknown as ContainerRecord;
  const container = {
    get record() {
      return record();
    },
    changeNetworks: async (change: (now: Networks, record: ContainerRecord) => Networks) => {
      now = change(now, record());
    },
  };
  const containers = { get: () => container } as unknown as Containers;
  const ours = { wrongWish: () => undefined } as unknown as ContainerNetworks;
  return { node: { containers, networks: ours }, now: () => now };
}

test("a container is connected by the network's name, once, and disconnected by name or id", async () => {
  const { node, now } = nodeWith("bridge", { bridge: {} });
  const body = { Container: "c1", EndpointConfig: { Aliases: ["a"] } };
  await connect(node, net1, "aa11", body);
  assert.deepEqual(now(), { bridge: {}, net1: { Aliases: ["a"] } });
  await assert.rejects(connect(node, net1, "net1", body), { code: "CONTAINER_NETWORK_REFUSED", status: 403 });
  await disconnect(node, net1, "aa11", { Container: "c1" });
  assert.deepEqual(now(), { bridge: {} });
  await assert.rejects(disconnect(node, net1, "net1", { Container: "c1" }), { code: "CONTAINER_NETWORK_REFUSED" });
  await disconnect(node, net1, "net1", { Container: "c1", Force: true });
});

test("a network that is gone can still be left, and one that never was is not found", async () => {
  const { node, now } = nodeWith("bridge", { bridge: {}, old: {} });
  await disconnect(node, undefined, "old", { Container: "c1" });
  assert.deepEqual(now(), { bridge: {} });
  await assert.rejects(disconnect(node, undefined, "old", { Container: "c1" }), { code: "NO_SUCH_OBJECT" });
  await assert.rejects(connect(node, undefined, "nosuch", { Container: "c1" }), { code: "NO_SUCH_OBJECT" });
});

test("who shares a network, or has none, gets no other; host and none take nobody later", async () => {
  for (const mode of ["host", "none", "container:x"]) {
    const { node } = nodeWith(mode, {});
    await assert.rejects(connect(node, net1, "net1", { Container: "c1" }), { code: "CONTAINER_NETWORK_REFUSED" }, mode);
  }
  const { node } = nodeWith("bridge", { bridge: {} });
  for (const name of ["host", "none"]) {
    await assert.rejects(connect(node, shown(name, name), name, { Container: "c1" }), {
      code: "CONTAINER_NETWORK_REFUSED",
    });
  }
  await assert.rejects(connect(node, net1, "net1", { Container: "c1", EndpointConfig: { Aliases: ["a b"] } }), {
    code: "BAD_REQUEST",
  });
  await assert.rejects(connect(node, net1, "net1", { Container: 1 }), { code: "BAD_REQUEST" });
});

test("networks are found by a whole id, a whole name, then the beginning of one id only", () => {
  const own = [shown("net1", "aa11"), shown("aa", "bb22")];
  const swarm = [shown("net2", "aa33", "swarm"), shown("net1", "cc44", "swarm")];
  assert.equal(find("aa11", own, swarm)?.Name, "net1");
  assert.equal(find("aa", own, swarm)?.Id, "bb22");
  assert.equal(find("aa3", own, swarm)?.Name, "net2");
  assert.equal(
    find("net1", own, swarm)?.Id,
    "aa11",
    "a record that stands for a network of the nodes is no second one",
  );
  assert.throws(() => find("a", [shown("x", "aa11"), shown("y", "ab22")], []), {
    code: "BAD_REQUEST",
    message: /ambiguous \(2 matches/,
  });
  assert.equal(find("", own, swarm), undefined);
  assert.equal(find("zz", own, swarm), undefined);
});

test("filters of lists: name, scope, type, labels, and whether anybody uses it", () => {
  const one = { ...net1, Labels: { k: "v" } };
  const fits = (key: string, ...values: string[]): boolean => matches(one, new Map([[key, values]]), new Set(["aa11"]));
  assert.ok(
    fits("name", "et1") &&
      fits("scope", "local") &&
      fits("type", "custom") &&
      fits("label", "k=v") &&
      fits("label", "k"),
  );
  assert.ok(!fits("name", "x") && !fits("type", "builtin") && !fits("label", "k=w") && !fits("driver", "overlay"));
  assert.ok(fits("dangling", "false") && !fits("dangling", "true"));
  assert.ok(matches(shown("bridge", "b"), new Map([["type", ["builtin"]]]), new Set()));
});
