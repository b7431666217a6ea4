import assert from "node:assert/strict";
import { describe, test } from "node:test";

import fc from "fast-check";

import { macOfAddress } from "./cidr.ts";
import { Model } from "./model.ts";
import { objectKey, type NetObject } from "./objects.ts";
import { Overlays } from "./overlays.ts";
import type { MakePart, SandboxFacts, Self } from "./part.ts";
import { endpointKey, serviceKey } from "./records.ts";
import type { EndpointRecord, OverlayNetwork, PeerRecord, RecordChange, ServiceRecord } from "./records.ts";

const nowhere: Self = { nodeId: "", number: 0, addr: "", underlayMtu: 1500 };
const make: MakePart = (self, placement) =>
  new Overlays({ self, placement, tunnelKey: () => undefined, namespacePath: ({ vni }) => `/ns/n-${vni}` });

const peer = (number: number, mtu = 1500): PeerRecord => ({
  nodeId: `node${number}`,
  number,
  addr: `10.99.0.${number}`,
  mtu,
  publicKey: "",
});

const network = (index: number): OverlayNetwork => ({
  id: `net${index}`,
  name: `net${index}`,
  vni: 4097 + index,
  subnet: "10.0.1.0/24",
  gateway: "10.0.1.1",
  // Every other one has IPv6.
  ...(index % 2 === 1 ? { subnet6: "fd00:b1::/64", gateway6: "fd00:b1::1" } : {}),
  internal: false,
  encrypted: false,
  mtu: 0,
});

interface TaskWish {
  readonly net: number;
  readonly task: number;
  readonly node: number;
  readonly service: number;
  readonly serving: boolean;
}

const addressOfTask = (task: number): string => `10.0.1.${10 + task}`;

const address6OfTask = (task: number): string => `fd00:b1::${10 + task}/64`;

const endpoint = ({ net, task, node, service, serving }: TaskWish): EndpointRecord => ({
  networkId: `net${net}`,
  taskId: `task${task}`,
  serviceId: `service${service}`,
  nodeId: `node${node}`,
  name: `web.${task}`,
  slot: task,
  addresses: [`${addressOfTask(task)}/24`, ...(net % 2 === 1 ? [address6OfTask(task)] : [])],
  gatewayAddress: "",
  aliases: [],
  serving,
});

const service = (net: number, index: number, vip = true): ServiceRecord => ({
  networkId: `net${net}`,
  serviceId: `service${index}`,
  name: `web${index}`,
  aliases: [],
  virtualIp: vip ? `10.0.1.${200 + index}/24` : "",
  ...(vip && net % 2 === 1 ? { virtualIp6: `fd00:b1::c${8 + index}/64` } : {}),
  mode: vip ? "vip" : "dnsrr",
  ports: [],
});

const sandbox = (task: number, nets: readonly number[]): SandboxFacts => ({
  id: `task${task}`,
  tag: `tag${task}`,
  namespacePath: `/ns/task${task}`,
  gatewayAddress: "",
  internal: false,
  overlays: nets.map((net, at) => ({
    wish: {
      kind: "overlay",
      network: network(net),
      address: `${addressOfTask(task)}/24`,
      ...(net % 2 === 1 ? { address6: address6OfTask(task) } : {}),
      aliases: [],
    },
    interfaceName: `eth${at}`,
    macAddress: macOfAddress(addressOfTask(task)),
  })),
  bridges: [],
  ports: [],
});

const put = (record: PeerRecord | EndpointRecord | ServiceRecord): RecordChange => {
  if ("taskId" in record) return { kind: "endpoint", key: endpointKey(record.networkId, record.taskId), record };
  if ("serviceId" in record) return { kind: "service", key: serviceKey(record.networkId, record.serviceId), record };
  return { kind: "peer", key: record.nodeId, record };
};

const gone = (change: RecordChange): RecordChange => ({ ...change, record: undefined });

/** What a kernel has that did what it was told so far. */
class Told {
  readonly #namespaces = new Map<string, Map<string, NetObject>>();

  hear(model: Model): void {
    for (const [path, namespace] of model.namespaces) {
      const objects = this.#namespaces.get(path) ?? new Map<string, NetObject>();
      this.#namespaces.set(path, objects);
      for (const { key, before, after } of namespace.take().changes) {
        assert.deepEqual(objects.get(key), before, `${key} is believed to be what it is`);
        if (after === undefined) objects.delete(key);
        else objects.set(key, after);
      }
    }
  }

  shown(): Record<string, unknown> {
    const all = [...this.#namespaces].filter(([, objects]) => objects.size > 0);
    return Object.fromEntries(all.map(([path, objects]) => [path, shownObjects(objects.values())]));
  }
}

function shown(model: Model): Record<string, unknown> {
  const all = [...model.namespaces].filter(([, namespace]) => namespace.size > 0);
  return Object.fromEntries(all.map(([path, namespace]) => [path, shownObjects(namespace.objects())]));
}

/** Objects by key; which task is in which slot of a service is no matter, but slots are dense. */
function shownObjects(objects: Iterable<NetObject>): unknown {
  const others = new Map<string, unknown>();
  const slots = new Map<string, { readonly numbers: number[]; readonly tasks: string[] }>();
  for (const object of objects) {
    if (object.type === "element" && object.set === "be") {
      const [vip = "", slot = ""] = object.key;
      const service = slots.get(vip) ?? { numbers: [], tasks: [] };
      slots.set(vip, service);
      service.numbers.push(Number(slot));
      service.tasks.push(object.value[0] ?? "");
    } else {
      others.set(objectKey(object), object);
    }
  }
  for (const [vip, { numbers, tasks }] of slots) {
    assert.deepEqual(
      numbers.sort((a, b) => a - b),
      numbers.map((_, at) => at),
      `slots of ${vip} are dense`,
    );
    others.set(`slots ${vip}`, tasks.sort());
  }
  return Object.fromEntries([...others].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function joined(): Model {
  const model = new Model([make], nowhere);
  model.replace({ nodeId: "node1", peers: [peer(1), peer(2), peer(3)], endpoints: [], services: [] });
  return model;
}

const keysOf = (model: Model, path: string): string[] =>
  [...(model.namespaces.get(path)?.objects() ?? [])].map(objectKey).sort();

describe("the model of overlays", () => {
  test("a network is built with its first sandbox of this node, and goes with its last", () => {
    const model = joined();
    model.change([put(service(0, 0)), put(endpoint({ net: 0, task: 2, node: 2, service: 0, serving: true }))]);
    assert.equal(model.namespaces.get("/ns/n-4097"), undefined);
    model.sandbox("task1", sandbox(1, [0]));
    assert.deepEqual(keysOf(model, "/ns/n-4097"), [
      "address lo 10.0.1.1/32",
      "address vx 10.0.1.1/32",
      // For as many tasks as most services have.
      ...Array.from({ length: 16 }, (_, at) => `chain ip skep lb${at + 1}`).sort(),
      "element ip skep be 10.0.1.200 . 0",
      ...Array.from({ length: 17 }, (_, at) => `element ip skep lead ${at}`).sort(),
      "element ip skep self 10.0.1.11 . 10.0.1.11",
      "element ip skep vips 10.0.1.200",
      "fdb vx 02:fe:00:00:00:02",
      "link lo",
      "link vtag1",
      "link vx",
      "neighbour vtag1 10.0.1.11",
      "neighbour vx 169.254.0.2",
      "route 254 10.0.1.11/32",
      "route 254 10.0.1.12/32",
      "sysctl net/ipv4/conf/all/rp_filter",
      "sysctl net/ipv4/conf/all/send_redirects",
      "sysctl net/ipv4/conf/default/rp_filter",
      "sysctl net/ipv4/conf/default/send_redirects",
      "sysctl net/ipv4/icmp_ratemask",
      "sysctl net/ipv4/ip_early_demux",
      "sysctl net/ipv4/ip_forward",
      "sysctl net/ipv6/conf/default/disable_ipv6",
      "table ip skep",
    ]);
    model.sandbox("task1", undefined);
    assert.equal(model.namespaces.get("/ns/n-4097")?.size, 0);
    assert.equal(model.namespaces.get("/ns/task1")?.size, 0);
  });

  test("a service without a serving task refuses, from its first moment to its last", () => {
    const model = joined();
    model.sandbox("task1", sandbox(1, [0]));
    const task = { net: 0, task: 2, node: 2, service: 0, serving: true };
    const leadsTo = (): unknown => {
      const namespace = model.namespaces.get("/ns/n-4097");
      const tasks = namespace?.get("element ip skep vips 10.0.1.200");
      const lead = tasks?.type === "element" ? namespace?.get(`element ip skep lead ${tasks.value[0]}`) : undefined;
      return lead?.type === "element" ? lead.value : undefined;
    };
    model.change([put(service(0, 0))]);
    assert.deepEqual(leadsTo(), ["goto nobody"]);
    model.change([put(endpoint(task))]);
    assert.deepEqual(leadsTo(), ["goto lb1"]);
    model.change([put(endpoint({ ...task, serving: false }))]);
    assert.deepEqual(leadsTo(), ["goto nobody"]);
    const left = keysOf(model, "/ns/n-4097");
    assert.ok(!left.some((key) => /element ip skep be/.test(key)), left.join("\n"));
    assert.ok(left.includes("route 254 10.0.1.12/32"), "connections that it has go on");
    model.change([gone(put(service(0, 0)))]);
    assert.equal(leadsTo(), undefined);
  });

  test("connections of a task that is gone are forgotten, those of one that drains are not", () => {
    const model = joined();
    model.sandbox("task1", sandbox(1, [0]));
    const task = { net: 0, task: 2, node: 2, service: 0, serving: true };
    model.change([put(service(0, 0)), put(endpoint(task))]);
    model.change([put(endpoint({ ...task, serving: false }))]);
    const namespace = model.namespaces.get("/ns/n-4097");
    assert.deepEqual(namespace?.take().forgotten, []);
    model.change([gone(put(endpoint(task)))]);
    assert.deepEqual(namespace?.take().forgotten, [{ destination: "10.0.1.200", replySource: "10.0.1.12" }]);
  });

  test("with IPv6 a service has slots of it in a table of its own, there while a service has such an address", () => {
    const model = joined();
    model.sandbox("task1", sandbox(1, [1]));
    const task = { net: 1, task: 2, node: 2, service: 0, serving: true };
    model.change([put(service(1, 0)), put(endpoint(task))]);
    const of6 = (): string[] =>
      keysOf(model, "/ns/n-4098").filter((key) => key.includes("skepvip") && !/ lb| lead /.test(key));
    assert.deepEqual(of6(), [
      "element ip6 skepvip be fd00:b1::c8 . 0",
      "element ip6 skepvip self fd00:b1::11 . fd00:b1::11",
      "element ip6 skepvip vips fd00:b1::c8",
      "table ip6 skepvip",
    ]);
    model.namespaces.get("/ns/n-4098")?.take();
    model.change([gone(put(endpoint(task)))]);
    assert.deepEqual(model.namespaces.get("/ns/n-4098")?.take().forgotten, [
      { destination: "10.0.1.200", replySource: "10.0.1.12" },
      { destination: "fd00:b1::c8", replySource: "fd00:b1::12" },
    ]);
    const { virtualIp6: _, ...without } = service(1, 0);
    model.change([put(without)]);
    assert.deepEqual(of6(), []);
    assert.ok(keysOf(model, "/ns/n-4098").includes("table ip6 skep"), "sources are checked all the same");
  });

  test("a change of one task among many touches its own objects only", () => {
    const model = joined();
    model.sandbox("task1", sandbox(1, [0]));
    const tasks = Array.from({ length: 50 }, (_, at) => ({ net: 0, task: 2 + at, node: 2, service: 0, serving: true }));
    model.change([put(service(0, 0)), ...tasks.map((task) => put(endpoint(task)))]);
    model.namespaces.get("/ns/n-4097")?.take();
    model.change([gone(put(endpoint({ net: 0, task: 10, node: 2, service: 0, serving: true })))]);
    const touched =
      model.namespaces
        .get("/ns/n-4097")
        ?.take()
        .changes.map(({ key }) => key) ?? [];
    assert.deepEqual(touched.sort(), [
      "chain ip skep lb49",
      "chain ip skep lb50",
      "element ip skep be 10.0.1.200 . 49",
      "element ip skep be 10.0.1.200 . 8",
      "element ip skep lead 49",
      "element ip skep lead 50",
      "element ip skep vips 10.0.1.200",
      "route 254 10.0.1.20/32",
    ]);
  });

  test("nothing leads to a node whose frames go by the other family of IP, whichever is told first", () => {
    const model = joined();
    const toTwo = (): string[] =>
      keysOf(model, "/ns/n-4097").filter((key) => /02:fe:00:00:00:02|169\.254\.0\.2/.test(key));
    model.sandbox("task1", sandbox(1, [0]));
    model.change([put(endpoint({ net: 0, task: 2, node: 2, service: 0, serving: false }))]);
    assert.notDeepEqual(toTwo(), []);
    assert.equal(model.strangers.size, 0);
    const before = keysOf(model, "/ns/n-4097");
    const six = (number: number, mtu = 1500): PeerRecord => ({ ...peer(number, mtu), addr: `fd99::${number}` });
    model.change([put(six(2, 1300))]);
    assert.deepEqual(toTwo(), []);
    assert.deepEqual([...model.strangers.keys()], ["node2"]);
    assert.equal(model.self.underlayMtu, 1500, "how long its packets may be is nobody's business here");
    // This node's own frames go by IPv6, too, from now on: the others are the strangers.
    model.change([put(six(1))]);
    assert.notDeepEqual(toTwo(), []);
    assert.ok(!model.strangers.has("node1") && !model.strangers.has("node2"));
    assert.equal(model.self.underlayMtu, 1280, "an outer header of IPv6 is 20 bytes longer");
    model.change([put(peer(1)), put(peer(2))]);
    assert.deepEqual(keysOf(model, "/ns/n-4097"), before);
    assert.equal(model.strangers.size, 0);
    model.change([put(six(2))]);
    model.change([gone(put(six(2)))]);
    assert.equal(model.strangers.size, 0);
  });

  test("the smallest underlay of the cluster says how long a packet may be", () => {
    const model = joined();
    model.sandbox("task1", sandbox(1, [0]));
    const mtu = (): unknown => {
      const link = model.namespaces.get("/ns/n-4097")?.get("link vx");
      return link?.type === "link" ? link.mtu : undefined;
    };
    assert.equal(mtu(), 1450);
    model.change([put(peer(2, 1400))]);
    assert.equal(mtu(), 1350);
    model.change([gone(put(peer(2)))]);
    assert.equal(mtu(), 1450);
  });

  test("an address that passes from one task to the next in one change is routed to the new one", () => {
    const model = joined();
    model.sandbox("task1", sandbox(1, [0]));
    const old = endpoint({ net: 0, task: 2, node: 2, service: 0, serving: false });
    model.change([put(old)]);
    const next: EndpointRecord = {
      ...endpoint({ net: 0, task: 3, node: 3, service: 0, serving: false }),
      addresses: old.addresses,
    };
    model.change([put(next), gone(put(old))]);
    const route = model.namespaces.get("/ns/n-4097")?.get("route 254 10.0.1.12/32");
    assert.equal(route?.type === "route" ? route.via : undefined, "169.254.0.3");
  });

  type Step =
    | { readonly kind: "records"; readonly change: RecordChange }
    | { readonly kind: "sandbox"; readonly task: number; readonly nets: readonly number[] };

  const step: fc.Arbitrary<Step> = fc.oneof(
    fc
      .tuple(fc.integer({ min: 1, max: 4 }), fc.constantFrom(1500, 1400), fc.boolean())
      .map(([number, mtu, there]): Step => {
        const change = put(peer(number, mtu));
        return { kind: "records", change: there ? change : gone(change) };
      }),
    fc
      .record({
        net: fc.integer({ min: 0, max: 1 }),
        task: fc.integer({ min: 1, max: 6 }),
        node: fc.integer({ min: 1, max: 4 }),
        service: fc.integer({ min: 0, max: 2 }),
        serving: fc.boolean(),
      })
      .chain((wish) =>
        fc.boolean().map((there): Step => {
          const change = put(endpoint(wish));
          return { kind: "records", change: there ? change : gone(change) };
        }),
      ),
    fc
      .tuple(fc.integer({ min: 0, max: 1 }), fc.integer({ min: 0, max: 2 }), fc.constantFrom("vip", "dnsrr", "gone"))
      .map(([net, index, how]): Step => {
        const change = put(service(net, index, how === "vip"));
        return { kind: "records", change: how === "gone" ? gone(change) : change };
      }),
    fc
      .tuple(fc.integer({ min: 1, max: 3 }), fc.constantFrom([], [0], [1], [0, 1], [1, 0]))
      .map(([task, nets]): Step => ({ kind: "sandbox", task, nets })),
  );

  function take(model: Model, one: Step): void {
    if (one.kind === "records") model.change([one.change]);
    else model.sandbox(`task${one.task}`, one.nets.length === 0 ? undefined : sandbox(one.task, one.nets));
  }

  test("facts in any order end in the objects of a fresh start, and the kernel is told all of it", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, sandboxesFirst) => {
        const model = joined();
        const told = new Told();
        for (const [at, one] of steps.entries()) {
          take(model, one);
          if (at % 3 === 0) told.hear(model);
        }
        told.hear(model);
        assert.deepEqual(told.shown(), shown(model));

        const fresh = new Model([make], nowhere);
        const records = {
          nodeId: "node1",
          peers: [1, 2, 3, 4].flatMap((number) => model.peers.get(`node${number}`) ?? []),
          endpoints: [...model.endpoints.values()].reverse(),
          services: [...model.services.values()].reverse(),
        };
        // A node that is not told of itself goes on as it was.
        if (!model.peers.has("node1"))
          fresh.replace({ nodeId: "node1", peers: [peer(1)], endpoints: [], services: [] });
        if (!sandboxesFirst) fresh.replace(records);
        for (const [id, facts] of [...model.sandboxes].reverse()) fresh.sandbox(id, facts);
        if (sandboxesFirst) fresh.replace(records);
        assert.deepEqual(shown(fresh), shown(model));
      }),
      { numRuns: 300 },
    );
  });

  test("nothing is left of what is gone", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const model = joined();
        for (const one of steps) take(model, one);
        model.replace({ nodeId: "node1", peers: [peer(1)], endpoints: [], services: [] });
        for (const id of model.sandboxes.keys()) model.sandbox(id, undefined);
        assert.deepEqual(shown(model), {});
      }),
      { numRuns: 200 },
    );
  });
});
