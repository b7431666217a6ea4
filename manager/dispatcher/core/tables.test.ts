import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { skep } from "../../../proto/index.ts";
import { drainMs, Drains, Table, TableReader, Tables, type Withdrawal } from "./index.ts";

const { EndpointMode, NodeState, PublishMode, TaskState } = skep.objects;
type Assignment = skep.dispatcher.Assignment.$Properties;

// ------------------------------------------------------------------------------------------------------------- a table

const item = (taskId: string, name: string, serving = false): Assignment => ({
  endpoint: { networkId: "n", taskId, name, serving },
});
const removal = (taskId: string): Assignment => ({ removed: true, endpoint: { networkId: "n", taskId } });
const put = (table: Table, id: string, name = "", serving = false): Withdrawal | undefined =>
  table.put(id, item(id, name, serving), removal(id), serving);

/** What a node holds that hears this. */
function hear(held: Map<string, string>, told: readonly Assignment[]): void {
  for (const { removed, endpoint } of told) {
    if (removed === true) held.delete(endpoint?.taskId ?? "");
    else held.set(endpoint?.taskId ?? "", endpoint?.name ?? "");
  }
}

function read(reader: TableReader, max = Infinity): Assignment[] {
  const told: Assignment[] = [];
  reader.read((each) => {
    told.push(each);
    return told.length < max;
  });
  return told;
}

test("a record that changes ten times is read once, and the same again is no change", () => {
  const table = new Table("n");
  const reader = new TableReader(table);
  for (let at = 0; at < 10; at++) put(table, "a", `${at}`);
  put(table, "b");
  assert.equal(reader.isBehind, true);
  assert.deepEqual(read(reader), [item("a", "9"), item("b", "")]);
  assert.equal(reader.isBehind, false);
  const { version } = table;
  put(table, "a", "9");
  table.remove("unknown");
  assert.equal(table.version, version);
  table.remove("a");
  assert.deepEqual(read(reader), [removal("a")]);
});

test("whoever begins to read hears what there is, and not what was", () => {
  const table = new Table("n");
  put(table, "a");
  put(table, "b");
  table.remove("a");
  const reader = new TableReader(table);
  assert.deepEqual(read(reader), [item("b", "")]);
  reader.startOver();
  table.remove("b");
  assert.deepEqual(read(reader), [removal("b")], "it was told before: in the same complete state, perhaps");
});

test("however slowly it is read, a reader holds in the end what the table does; nothing is kept for it", () => {
  const change = fc.record({
    id: fc.integer({ min: 0, max: 9 }).map(String),
    name: fc.constantFrom("x", "y", "z"),
    act: fc.constantFrom("put", "put", "put", "remove", "readSome", "readSome", "startOver", "join"),
    max: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 300 }), (changes) => {
      const table = new Table("n");
      const wanted = new Map<string, string>();
      const readers = [{ reader: new TableReader(table), held: new Map<string, string>() }];
      for (const { id, name, act, max } of changes) {
        if (act === "put") {
          put(table, id, name);
          wanted.set(id, name);
        } else if (act === "remove") {
          table.remove(id);
          wanted.delete(id);
        } else if (act === "join" && readers.length < 5)
          readers.push({ reader: new TableReader(table), held: new Map<string, string>() });
        const one = readers[max % readers.length]!;
        if (act === "readSome") hear(one.held, read(one.reader, max));
        else if (act === "startOver") {
          one.reader.startOver();
          one.held.clear();
        }
        assert.ok(table.kept <= 2 * 20 + 65);
      }
      for (const { reader, held } of readers) {
        hear(held, read(reader));
        assert.equal(reader.isLost, false);
        assert.deepEqual(held, wanted);
      }
      assert.deepEqual([...table.keys()].sort(), [...wanted.keys()].sort());
    }),
  );
});

test("removals that nobody reads are forgotten, and who has not read them is told so", () => {
  const table = new Table("n");
  for (let at = 0; at < 200; at++) put(table, `kept${at}`);
  const slow = new TableReader(table);
  read(slow);
  const quick = new TableReader(table);
  for (let at = 0; at < 20_000; at++) {
    put(table, `${at}`);
    table.remove(`${at}`);
    if (at % 100 === 0) read(quick);
  }
  assert.ok(table.kept < 8000, `${table.kept} are kept`);
  assert.equal(slow.isLost, true);
  assert.equal(quick.isLost, false);
  slow.startOver();
  assert.equal(slow.isLost, false);
  assert.equal(read(slow).length, 200);
  const fresh = new TableReader(table);
  assert.equal(fresh.isLost, false);
});

test("a reader has applied what the acknowledged message and those before it said", () => {
  const table = new Table("n");
  const reader = new TableReader(table);
  for (const [at, revision] of [
    [1, 10],
    [2, 11],
    [3, 12],
  ] as const) {
    put(table, `${at}`);
    read(reader);
    reader.sent(revision);
  }
  assert.equal(reader.acknowledge(9), false);
  assert.equal(reader.acknowledge(11), true);
  assert.equal(reader.applied, 2);
  assert.equal(reader.acknowledge(11), false);
  for (let revision = 13; revision < 1000; revision++) {
    put(table, "x", String(revision));
    read(reader);
    reader.sent(revision);
  }
  assert.equal(reader.acknowledge(998), true);
  assert.ok(reader.applied < table.version, "the latest stands for those before it: never too early");
  reader.acknowledge(999);
  assert.equal(reader.applied, table.version);
});

// -------------------------------------------------------------------------------------------------------------- drains

function serving(readers: number): { table: Table; all: TableReader[]; withdraw: () => Withdrawal } {
  const table = new Table("n");
  const all = Array.from({ length: readers }, () => new TableReader(table));
  put(table, "a", "", true);
  for (const reader of all) {
    read(reader);
    reader.sent(1);
    reader.acknowledge(1);
  }
  return { table, all, withdraw: () => put(table, "a", "", false)! };
}

const apply = (reader: TableReader, revision: number): void => {
  read(reader);
  reader.sent(revision);
  reader.acknowledge(revision);
};

test("a task is held until everybody who was told of it does what they were told since", () => {
  const { all, withdraw } = serving(2);
  const drains = new Drains();
  const [one, two] = all as [TableReader, TableReader];
  assert.equal(drains.hold("a", [withdraw()], 0), true);
  assert.equal(drains.isHeld("a"), true);
  assert.deepEqual(drains.applied(one), [], "it has applied nothing new");
  apply(one, 2);
  assert.deepEqual(drains.applied(one), []);
  read(two);
  two.sent(2);
  assert.deepEqual(drains.applied(two), [], "told, and not applied");
  two.acknowledge(2);
  assert.deepEqual(drains.applied(two), ["a"]);
  assert.equal(drains.isHeld("a"), false);
  assert.equal(drains.nextMs, undefined);
});

test("nobody waits longer than the bound, for a node that does not use the table any more, or for one that never heard of the task", () => {
  const { table, all, withdraw } = serving(2);
  const drains = new Drains();
  const [one, two] = all as [TableReader, TableReader];
  const late = new TableReader(table);
  drains.hold("a", [withdraw()], 100);
  assert.equal(drains.nextMs, 100 + drainMs);
  assert.deepEqual(drains.expire(99 + drainMs), []);
  assert.deepEqual(drains.expire(100 + drainMs), ["a"]);

  put(table, "a", "again", true);
  for (const reader of [one, two]) read(reader);
  drains.hold("a", [put(table, "a", "over", false)!], 5000);
  assert.deepEqual(drains.gone(late), []);
  assert.deepEqual(drains.gone(one), []);
  apply(two, 9);
  assert.deepEqual(drains.applied(two), ["a"]);

  put(table, "b", "", true);
  assert.equal(drains.hold("b", [put(table, "b", "", false)!], 6000), false, "nobody was told that it serves");
});

test("who was told of a task and lost its session is waited for until it is met again, whether it was before or meanwhile", () => {
  const { table, all, withdraw } = serving(2);
  const drains = new Drains();
  const [one, two] = all as [TableReader, TableReader];
  const part = (reader: TableReader, nodeId: string): void => {
    reader.close();
    drains.parted(reader, nodeId);
  };
  part(one, "n1");
  assert.equal(drains.hold("a", [withdraw()], 0), true);
  part(two, "n2");
  assert.deepEqual(drains.met("n1"), []);
  assert.equal(drains.isHeld("a"), true, "n2 goes on with what it was told");
  assert.deepEqual(drains.met("n2"), ["a"]);
  assert.deepEqual(drains.met("n2"), []);

  put(table, "b", "", true);
  assert.equal(drains.hold("b", [put(table, "b", "", false)!], 0), false, "both have been met since");

  put(table, "c", "", true);
  const early = new TableReader(table);
  apply(early, 3);
  put(table, "d", "", true);
  part(early, "n3");
  assert.equal(drains.hold("d", [put(table, "d", "", false)!], 100), false, "it had not heard of this one");
  assert.equal(drains.hold("c", [put(table, "c", "", false)!], 100), true);
  part(new TableReader(table), "n3");
  assert.equal(drains.isHeld("c"), true, "its next session broke before it said anything");
  assert.deepEqual(drains.expire(100 + drainMs), ["c"], "nor longer than the bound");
});

test("a task that was withdrawn before it is asked to stop, since its node was down, is held for that", () => {
  const { all, withdraw } = serving(1);
  const drains = new Drains();
  drains.note("a", [withdraw()]);
  assert.equal(drains.isHeld("a"), false);
  assert.equal(drains.hold("a", [], 0), true);
  apply(all[0]!, 2);
  assert.deepEqual(drains.applied(all[0]!), ["a"]);
  assert.equal(drains.hold("a", [], 0), false, "once");
});

test("a task that ends by itself is not waited for; one that is asked to stop twice waits once", () => {
  const { withdraw } = serving(1);
  const drains = new Drains();
  const withdrawal = withdraw();
  drains.hold("a", [withdrawal], 0);
  drains.hold("a", [withdrawal], 1500);
  assert.equal(drains.nextMs, drainMs);
  assert.equal(drains.drop("a"), true);
  assert.equal(drains.drop("a"), false);
  assert.equal(drains.size, 0);
});

test("a new leader waits for every node that still goes by what the last one told", () => {
  const drains = new Drains();
  assert.equal(drains.holdForNodes("a", 0), false, "nobody is expected");
  drains.expect(["n1", "n2"]);
  assert.equal(drains.holdForNodes("a", 0), true);
  assert.equal(drains.holdForNodes("b", 0), true);
  assert.deepEqual(drains.met("n1"), []);
  assert.deepEqual(drains.met("n1"), []);
  assert.deepEqual(drains.met("stranger"), []);
  assert.deepEqual(drains.met("n2"), ["a", "b"]);
  assert.equal(drains.holdForNodes("c", 0), false);
});

test("a task that is asked to stop under a new leader waits for nodes that it has not met, beside those that it told", () => {
  const { all, withdraw } = serving(1);
  const drains = new Drains();
  drains.expect(["n1", "n2"]);
  assert.equal(drains.hold("a", [withdraw()], 0), true);
  apply(all[0]!, 2);
  assert.deepEqual(drains.applied(all[0]!), [], "n1 and n2 may have been told of it by the leader before");
  assert.deepEqual(drains.met("n1"), []);
  assert.deepEqual(drains.met("n2"), ["a"]);

  const other = serving(1);
  drains.expect(["n1"]);
  assert.equal(drains.hold("b", [other.withdraw()], 0), true);
  assert.deepEqual(drains.met("n1"), [], "who is connected has not applied it yet");
  apply(other.all[0]!, 2);
  assert.deepEqual(drains.applied(other.all[0]!), ["b"]);

  const never = serving(0);
  drains.expect(["n1"]);
  assert.equal(drains.hold("c", [never.withdraw()], 100), true, "nobody that is connected was told of it");
  assert.equal(drains.hold("d", [], 100), false, "it never served");
  assert.deepEqual(drains.expire(100 + drainMs), ["c"], "nor longer than the bound");
});

// -------------------------------------------------------------------------------------------------------------- tables

const taskOf = (more: skep.objects.Task.$Properties): skep.objects.Task =>
  skep.objects.Task.decode(
    skep.objects.Task.encode({
      id: "t",
      nodeId: "node1",
      serviceId: "web",
      name: "web.1.t",
      slot: 1,
      desiredState: TaskState.RUNNING,
      networksAttachments: [{ networkId: "net", addresses: ["10.0.1.5/24"], aliases: ["w"] }],
      ...more,
    }).finish(),
  );
const serviceOf = (more: skep.objects.Service.$Properties): skep.objects.Service =>
  skep.objects.Service.decode(skep.objects.Service.encode({ id: "web", spec: { name: "web" }, ...more }).finish());
const nodeOf = (more: skep.objects.Node.$Properties): skep.objects.Node =>
  skep.objects.Node.decode(
    skep.objects.Node.encode({ id: "node1", number: 7, description: { network: { mtu: 1500 } }, ...more }).finish(),
  );
const networkOf = (id: string, spec: skep.objects.NetworkSpec.$Properties): skep.objects.Network =>
  skep.objects.Network.decode(skep.objects.Network.encode({ id, spec: { name: id, ...spec } }).finish());

const endpoints = (tables: Tables, networkId: string): string[] =>
  [...tables.table(networkId).after(0)].flatMap(({ item: { endpoint }, removed }) =>
    endpoint == null || removed ? [] : [`${endpoint.taskId} ${endpoint.serving === true ? "serves" : "idle"}`],
  );

test("an endpoint is there from ASSIGNED until its task has ended, and serves while it runs and is wanted", () => {
  const tables = new Tables();
  const steps: [skep.objects.Task.$Properties, string[]][] = [
    [{ status: { state: TaskState.PENDING } }, []],
    [{ status: { state: TaskState.ASSIGNED } }, ["t idle"]],
    [{ status: { state: TaskState.STARTING } }, ["t idle"]],
    [{ status: { state: TaskState.RUNNING } }, ["t serves"]],
    [{ status: { state: TaskState.RUNNING }, desiredState: TaskState.SHUTDOWN }, ["t idle"]],
    [{ status: { state: TaskState.RUNNING }, desiredState: TaskState.REMOVE }, ["t idle"]],
    [{ status: { state: TaskState.SHUTDOWN }, desiredState: TaskState.REMOVE }, []],
  ];
  const reader = new TableReader(tables.table("net"));
  const withdrawals = steps.map(([more, expected]) => {
    const found = tables.setTask("t", taskOf(more));
    assert.deepEqual(endpoints(tables, "net"), expected);
    return found.length;
  });
  assert.deepEqual(withdrawals, [0, 0, 0, 0, 1, 0, 0]);
  const record = (): Assignment | undefined => [...tables.table("net").after(0)][0]?.item;
  tables.setTask("t", taskOf({ status: { state: TaskState.RUNNING } }));
  assert.deepEqual(record()?.endpoint, {
    networkId: "net",
    taskId: "t",
    serviceId: "web",
    nodeId: "node1",
    name: "web.1.t",
    slot: 1,
    addresses: ["10.0.1.5/24"],
    aliases: ["w"],
    gatewayAddress: "",
    serving: true,
  });
  assert.equal(tables.setTask("t", undefined).length, 1);
  assert.equal(reader.isBehind, true);
  assert.deepEqual(record(), { removed: true, endpoint: { networkId: "net", taskId: "t" } });
});

test("a job that runs serves; a container attached by hand does too", () => {
  const tables = new Tables();
  const status = { state: TaskState.RUNNING };
  tables.setTask("t", taskOf({ status, desiredState: TaskState.COMPLETE }));
  tables.setTask(
    "u",
    taskOf({ id: "u", status, serviceId: "", spec: { networkAttachmentSpec: { containerId: "c" } } }),
  );
  assert.deepEqual(endpoints(tables, "net"), ["t serves", "u serves"]);
});

test("what is on a node that is down does not serve, and does again when the node is back", () => {
  const tables = new Tables();
  const task = taskOf({ status: { state: TaskState.RUNNING } });
  tables.setTask("t", task);
  assert.equal(tables.setNode("node1", nodeOf({ status: { state: NodeState.NODE_READY } })), false);
  assert.equal(tables.setNode("node1", nodeOf({ status: { state: NodeState.NODE_DOWN } })), true);
  tables.setTask("t", task);
  assert.deepEqual(endpoints(tables, "net"), ["t idle"]);
  const isLost = (): boolean => [...tables.table("net").after(0)].some(({ item }) => item.endpoint?.lost === true);
  assert.equal(isLost(), true, "who is not answered by it is given to another");
  assert.equal(tables.setNode("node1", nodeOf({ status: { state: NodeState.NODE_UNKNOWN } })), true);
  tables.setTask("t", task);
  assert.deepEqual(endpoints(tables, "net"), ["t serves"]);
  assert.equal(isLost(), false);
});

test("the mesh's table has services with published ports, and of their tasks those that run and have a gateway address", () => {
  const tables = new Tables();
  assert.equal(tables.setNetwork("mesh", networkOf("mesh", { ingress: true })), true);
  assert.equal(tables.setNetwork("other", networkOf("other", { ingress: true })), false, "there is one");
  const ports = [
    { targetPort: 80, publishedPort: 8080 },
    { targetPort: 81, publishedPort: 8081, publishMode: PublishMode.HOST },
    { targetPort: 82 },
  ];
  assert.equal(tables.setService("web", serviceOf({ endpoint: { ports } })), true);
  const [record] = [...tables.table("mesh").after(0)];
  assert.deepEqual(
    record?.item.serviceRecord?.ports?.map(({ publishedPort }) => publishedPort),
    [8080],
  );
  const gateway = { networkStatus: { gatewayAddresses: ["100.64.28.9"] } };
  tables.setTask("t", taskOf({ status: { state: TaskState.RUNNING } }));
  assert.deepEqual(endpoints(tables, "mesh"), []);
  tables.setTask("t", taskOf({ status: { state: TaskState.STARTING, ...gateway } }));
  assert.deepEqual(endpoints(tables, "mesh"), []);
  tables.setTask("t", taskOf({ status: { state: TaskState.RUNNING, ...gateway } }));
  assert.deepEqual(endpoints(tables, "mesh"), ["t serves"]);
  const leaving = taskOf({ status: { state: TaskState.RUNNING, ...gateway }, desiredState: TaskState.SHUTDOWN });
  assert.equal(tables.setTask("t", leaving).length, 2, "in its network and in the mesh");
  assert.deepEqual(endpoints(tables, "mesh"), ["t idle"], "connections that there are go on");
  assert.equal(tables.setService("web", serviceOf({})), true);
  tables.setTask("t", leaving);
  assert.deepEqual(endpoints(tables, "mesh"), []);
  assert.equal(tables.setNetwork("mesh", undefined), true);
  assert.equal(tables.ingress, undefined);
});

test("a service has a record in each of its networks, and none in networks of each node's own", () => {
  const tables = new Tables();
  tables.setNetwork("host", networkOf("host", { driver: { name: "host" }, scope: "local" }));
  const networks = [{ target: "net", aliases: ["alias"] }, { target: "host" }];
  const service = serviceOf({
    spec: { name: "web", taskTemplate: { networks }, endpointSpec: { mode: EndpointMode.VIP } },
    endpoint: {
      virtualIps: [
        { networkId: "net", addr: "10.0.1.2/24" },
        { networkId: "net", addr: "fd00:b1::2/64" },
      ],
    },
  });
  tables.setService("web", service);
  assert.deepEqual(
    [...tables.table("net").after(0)].map(({ item: { serviceRecord } }) => serviceRecord),
    [
      {
        networkId: "net",
        serviceId: "web",
        name: "web",
        aliases: ["alias"],
        virtualIp: "10.0.1.2/24",
        virtualIp6: "fd00:b1::2/64",
        mode: EndpointMode.VIP,
        ports: [],
      },
    ],
  );
  assert.equal(tables.table("host").size, 0);
  tables.setService("web", undefined);
  assert.equal(tables.table("net").size, 0);
  assert.deepEqual(tables.known().services, []);
});

test("of the mesh's network a service's record says whether it is encrypted and whether it has IPv6, and only that", () => {
  const kind = (spec: skep.objects.NetworkSpec.$Properties): unknown => {
    const tables = new Tables();
    tables.setNetwork("mesh", networkOf("mesh", { ...spec, ingress: true }));
    tables.setService("web", serviceOf({ endpoint: { ports: [{ targetPort: 80, publishedPort: 8080 }] } }));
    const [first] = [...tables.table("mesh").after(0)];
    const { encrypted, has6 } = first?.item.serviceRecord ?? {};
    return [encrypted, has6];
  };
  assert.deepEqual(kind({}), [undefined, undefined]);
  assert.deepEqual(kind({ enableIpv6: true }), [undefined, true]);
  assert.deepEqual(kind({ driver: { name: "overlay", options: { encrypted: "" } } }), [true, undefined]);
});

test("a peer's own addresses of IPv6 are told, as far as they are some, and sixteen at most", () => {
  const tables = new Tables();
  const told = Array.from({ length: 20 }, (_, at) => `fd99::${at + 1}`);
  const network = { mtu: 1500, addresses6: ["nonsense", "192.0.2.1", ...told] };
  const status = { addr: "192.0.2.1", state: NodeState.NODE_READY };
  tables.setNode("node1", nodeOf({ status, description: { network } }));
  const [first] = [...tables.peers.after(0)];
  assert.deepEqual(first?.item.peer?.addresses6, told.slice(0, 16));
});

test("a peer whose frames go by IPv6 is told with its addresses of IPv4 as well, which they do not tell", () => {
  const tables = new Tables();
  const addresses4 = ["192.0.2.1", "nonsense", "fd99::1", "192.0.2.2"];
  const told = (network: object, addr: string): skep.dispatcher.PeerRecord.$Properties | null | undefined => {
    const status = { addr, state: NodeState.NODE_READY };
    tables.setNode("node1", nodeOf({ status, description: { network: { mtu: 1500, addresses4, ...network } } }));
    return [...tables.peers.after(0)].at(-1)?.item.peer;
  };
  const by6 = told({ dataPathAddr: "FD99:0::1" }, "192.0.2.1");
  assert.deepEqual([by6?.addr, by6?.addresses4], ["fd99::1", ["192.0.2.1", "192.0.2.2"]]);
  const by4 = told({}, "192.0.2.1");
  assert.deepEqual([by4?.addr, by4?.addresses4], ["192.0.2.1", undefined]);
  assert.equal(told({}, "fd99::1")?.addr, "fd99::1");
  // Nobody can send frames there.
  for (const addr of ["fe80::1", "ff02::1", "::ffff:192.0.2.1"]) {
    told({}, addr);
    assert.deepEqual([...tables.peers.after(0)].filter(({ removed }) => !removed).length, 0, addr);
  }
});

test("a peer is a node with a data plane, a number and an address", () => {
  const tables = new Tables();
  const peers = (): (skep.dispatcher.PeerRecord.$Properties | null | undefined)[] =>
    [...tables.peers.after(0)].flatMap(({ item: { peer }, removed }) => (removed ? [] : [peer]));
  const status = { addr: "192.0.2.1", state: NodeState.NODE_READY };
  tables.setNode("node1", nodeOf({ status, number: 0 }));
  tables.setNode("node1", nodeOf({ status: {} }));
  tables.setNode("node1", nodeOf({ status: { addr: "somewhere" } }));
  tables.setNode("node1", nodeOf({ status, description: {} }));
  assert.deepEqual(peers(), []);
  tables.setNode("node1", nodeOf({ status }));
  assert.deepEqual(peers(), [{ nodeId: "node1", number: 7, addr: "192.0.2.1", mtu: 1500, publicKey: Buffer.alloc(0) }]);
  const network = { mtu: 9000, dataPathAddr: "10.9.0.1", wireguardPublicKey: new Uint8Array([1]) };
  tables.setNode("node1", nodeOf({ status, description: { network } }));
  assert.equal(peers()[0]?.addr, "10.9.0.1");
  assert.deepEqual(tables.takeChanged(), [tables.peers]);
  assert.deepEqual(tables.takeChanged(), []);
  tables.setNode("node1", undefined);
  assert.deepEqual(peers(), []);
});
