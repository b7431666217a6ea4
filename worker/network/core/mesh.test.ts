import assert from "node:assert/strict";
import { describe, test } from "node:test";

import fc from "fast-check";

import { IngressMesh } from "./mesh.ts";
import type { ForgottenConnections } from "./namespace.ts";
import { Namespace } from "./namespace.ts";
import type { EndpointRecord, ServicePort, ServiceRecord } from "./records.ts";
import { SlotChains } from "./slots.ts";

class World {
  readonly namespace = new Namespace("");
  readonly forgotten: ForgottenConnections[] = [];
  /** Groups written since they were last looked at. */
  written = 0;
  readonly mesh: IngressMesh;

  constructor() {
    const groups = {
      set: (group: string, objects: Parameters<Namespace["set"]>[1]) => {
        this.written += 1;
        this.namespace.set(group, objects);
      },
      forget: (connections: ForgottenConnections) => void this.forgotten.push(connections),
    };
    this.mesh = new IngressMesh(groups, new SlotChains(groups));
    this.mesh.setOpen(new Set(["70/sctp", "8080/tcp", "8080/udp", "9090/tcp"]));
  }

  /** Where each published port leads: by port, the targets in any order. */
  ports(): Record<string, string[]> {
    const slots = new Map<string, { slot: number; target: string }[]>();
    const heads = new Map<string, number>();
    const chains = new Set<string>();
    const leads = new Map<string, string>();
    for (const object of this.namespace.objects()) {
      if (object.type === "chain") chains.add(object.chain);
      if (object.type !== "element") continue;
      const [first = "", second = ""] = object.key;
      if (object.set === "ports") heads.set(`${second}/${first}`, Number(object.value[0]));
      else if (object.set === "lead") leads.set(`${first}${second}`, object.value[0] ?? "");
      else {
        const port = `${first}/${object.set.slice(0, -"be".length)}`;
        slots.set(port, [...(slots.get(port) ?? []), { slot: Number(second), target: object.value.join(":") }]);
      }
    }
    const ports: Record<string, string[]> = {};
    for (const [port, count] of [...heads].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const targets = slots.get(port) ?? [];
      assert.deepEqual(
        targets.map(({ slot }) => slot).sort((a, b) => a - b),
        Array.from({ length: count }, (_, slot) => slot),
        `the slots of ${port} are 0 to ${count - 1}`,
      );
      const chain = `${port.split("/")[1]}${count}`;
      assert.ok(count === 0 || chains.has(chain), `port ${port} leads to a chain that is there`);
      assert.equal(
        leads.get(chain),
        `goto ${count === 0 ? "nobody" : chain}`,
        `the slots of ${port} lead to their chain`,
      );
      ports[port] = targets.map(({ target }) => target).sort();
    }
    return ports;
  }
}

const port = (publishedPort: number, protocol: ServicePort["protocol"] = "tcp"): ServicePort => ({
  protocol,
  targetPort: 80,
  publishedPort,
  mode: "ingress",
});
const service = (serviceId: string, ...ports: readonly ServicePort[]): ServiceRecord => ({
  networkId: "ingress",
  serviceId,
  name: serviceId,
  aliases: [],
  virtualIp: "",
  mode: "vip",
  ports,
});
const task = (taskId: string, serviceId: string, gatewayAddress: string, serving = true): EndpointRecord => ({
  networkId: "ingress",
  taskId,
  serviceId,
  nodeId: "n1",
  name: taskId,
  slot: 1,
  addresses: [],
  gatewayAddress,
  aliases: [],
  serving,
});

describe("the ingress mesh", () => {
  test("a port leads to every task that serves, on each protocol, and to nobody else", () => {
    const world = new World();
    world.mesh.setService("web", service("web", port(8080), port(8080, "udp"), port(70, "sctp")));
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2"));
    world.mesh.setEndpoint("b", task("b", "web", "100.64.8.2"));
    world.mesh.setEndpoint("c", task("c", "web", "100.64.8.3", false));
    world.mesh.setEndpoint("d", task("d", "web", ""));
    const both = ["100.64.4.2:80", "100.64.8.2:80"];
    assert.deepEqual(world.ports(), { "70/sctp": both, "8080/tcp": both, "8080/udp": both });
  });

  test("tasks that come before their service are found when it comes", () => {
    const world = new World();
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2"));
    world.mesh.setEndpoint("b", task("b", "web", "100.64.4.3"));
    world.mesh.setEndpoint("b", undefined);
    world.mesh.setService("web", service("web", port(8080)));
    assert.deepEqual(world.ports(), { "8080/tcp": ["100.64.4.2:80"] });
  });

  test("a port that somebody else has on this node has nothing of the service there, until it is free", () => {
    const world = new World();
    world.mesh.setService("web", service("web", port(8080), port(22)));
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2"));
    const ofPort22 = (): number =>
      [...world.namespace.objects()].filter((object) => object.type === "element" && object.key.includes("22")).length;
    assert.equal(ofPort22(), 0, "a slot of ours would be taken for the other's, which is named alike");
    world.mesh.setOpen(new Set(["8080/tcp", "22/tcp"]));
    world.mesh.setEndpoint("b", task("b", "web", "100.64.8.2"));
    const both = ["100.64.4.2:80", "100.64.8.2:80"];
    assert.deepEqual(world.ports(), { "22/tcp": both, "8080/tcp": both });
    world.mesh.setOpen(new Set(["8080/tcp"]));
    assert.equal(ofPort22(), 0);
    assert.deepEqual(world.ports(), { "8080/tcp": both });
  });

  test("a port without a task refuses whoever comes, and is nobody's when its service goes", () => {
    const world = new World();
    world.mesh.setService("web", service("web", port(8080), port(22)));
    assert.deepEqual(world.ports(), { "8080/tcp": [] }, "22 is a process's of the host");
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2"));
    assert.deepEqual(world.ports(), { "8080/tcp": ["100.64.4.2:80"] });
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2", false));
    const others = [...world.namespace.objects()].filter(
      (one) => one.type !== "chain" && !(one.type === "element" && one.set === "lead"),
    );
    assert.deepEqual(others, [
      {
        type: "element",
        family: "ip",
        table: "skep",
        set: "ports",
        key: ["tcp", "8080"],
        value: ["0"],
      },
    ]);
    world.mesh.setService("web", undefined);
    assert.deepEqual(world.ports(), {});
  });

  test("a port that is a process's of the host is left to it, and taken when it may be", () => {
    const world = new World();
    world.mesh.setService("web", service("web", port(22), port(8080)));
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2"));
    assert.deepEqual(Object.keys(world.ports()), ["8080/tcp"]);
    world.mesh.setOpen(new Set(["22/tcp", "8080/tcp"]));
    assert.deepEqual(Object.keys(world.ports()), ["22/tcp", "8080/tcp"]);
  });

  test("connections of a task are forgotten when it is gone, not while it is drained", () => {
    const world = new World();
    world.mesh.setService("web", service("web", port(8080)));
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2"));
    world.mesh.setEndpoint("a", task("a", "web", "100.64.4.2", false));
    assert.deepEqual(world.forgotten, []);
    world.mesh.setEndpoint("a", undefined);
    assert.deepEqual(world.forgotten, [{ destination: "", replySource: "100.64.4.2" }]);
  });

  test("a task that comes or goes among two thousand writes a handful of groups", () => {
    const world = new World();
    world.mesh.setService("web", service("web", port(8080)));
    for (let at = 0; at < 2000; at += 1) {
      world.mesh.setEndpoint(`t${at}`, task(`t${at}`, "web", `100.64.${4 + (at >> 8)}.${at & 255}`));
    }
    world.written = 0;
    world.mesh.setEndpoint("t7", undefined);
    world.mesh.setEndpoint("new", task("new", "web", "100.64.4.250"));
    assert.ok(world.written <= 12, `${world.written} groups`);
    assert.equal(world.ports()["8080/tcp"]?.length, 2000);
  });

  test("whatever happens in whatever order, ports lead where a plain reading of the facts says", () => {
    const serviceIds = ["web", "api"];
    const act = fc.oneof(
      fc.record({ kind: fc.constant("service" as const), id: fc.constantFrom(...serviceIds), ports: fc.nat(3) }),
      fc.record({
        kind: fc.constant("task" as const),
        id: fc.nat(5),
        service: fc.constantFrom(...serviceIds),
        address: fc.nat(2),
        state: fc.constantFrom("serving", "draining", "gone"),
      }),
    );
    fc.assert(
      fc.property(fc.array(act, { maxLength: 60 }), (acts) => {
        const world = new World();
        const services = new Map<string, ServiceRecord>();
        const tasks = new Map<string, EndpointRecord>();
        for (const one of acts) {
          if (one.kind === "service") {
            const ports = [port(one.id === "web" ? 8080 : 9090), port(8080, "udp")];
            const listed = one.id === "web" ? ports.slice(0, one.ports) : ports.slice(0, Math.min(one.ports, 1));
            const record = one.ports === 3 ? undefined : service(one.id, ...listed);
            if (record === undefined) services.delete(one.id);
            else services.set(one.id, record);
            world.mesh.setService(one.id, record);
          } else {
            const id = `t${one.id}`;
            const record =
              one.state === "gone"
                ? undefined
                : task(id, one.service, `100.64.4.${2 + one.id * 3 + one.address}`, one.state === "serving");
            if (record === undefined) tasks.delete(id);
            else tasks.set(id, record);
            world.mesh.setEndpoint(id, record);
          }
        }
        const expected: Record<string, string[]> = {};
        for (const { serviceId, ports } of services.values()) {
          const targets = [...tasks.values()]
            .filter((record) => record.serviceId === serviceId && record.serving)
            .map(({ gatewayAddress }) => `${gatewayAddress}:80`);
          for (const one of ports) expected[`${one.publishedPort}/${one.protocol}`] = targets.sort();
        }
        assert.deepEqual(world.ports(), expected);
      }),
      { numRuns: 300 },
    );
  });
});
