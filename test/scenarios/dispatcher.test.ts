/** Sessions, heartbeats and node states, as managers and agents live them under virtual time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { skep } from "../../proto/index.ts";
import { replicated, SwarmWorld, TaskState, type Task } from "../support/swarm-world.ts";

const { AssignmentsKind } = skep.dispatcher;
type ManagerMessage = skep.dispatcher.ManagerMessage.$Properties;

/** A stream at the dispatcher, whose other end the test plays. */
class FakeStream {
  readonly said: ManagerMessage[] = [];
  ended = false;
  paused = false;
  closed = false;
  /** Whether the other end reads. */
  reads = true;

  write(message: ManagerMessage): boolean {
    this.said.push(message);
    return this.reads;
  }
  end(): void {
    this.ended = true;
  }
  abort(): void {
    this.ended = true;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }

  get goodbye(): string | undefined {
    return this.said.find(({ goodbye }) => goodbye != null)?.goodbye?.code ?? undefined;
  }
  get welcomed(): boolean {
    return this.said.some(({ welcome }) => welcome != null);
  }
}

const hello = { hello: { protocol: 1, description: { hostname: "h" } } };

interface Dialled {
  readonly stream: FakeStream;
  readonly events: Events;
}

function dial(world: SwarmWorld, nodeId: string, at = 0): Dialled {
  const stream = new FakeStream();
  const events = world.managers[at]!.dispatcher.connect(stream, { nodeId, address: "10.1.2.3" });
  return { stream, events };
}
type Events = ReturnType<SwarmWorld["managers"][0]["dispatcher"]["connect"]>;

test("a node that misses three heartbeats is down, and its tasks run elsewhere; it comes back and stops them", async () => {
  const world = await new SwarmWorld({ workers: 2 }).start();
  world.service("web", replicated(2));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  world.node("node1").cut();
  const cutMs = world.clock.monotonicMs();
  assert.ok(await world.until(20_000, () => world.nodeState("node1") === "NODE_DOWN"));
  const tookMs = world.clock.monotonicMs() - cutMs;
  assert.ok(tookMs > 9000 && tookMs < 17_000, `down after ${tookMs} ms`);
  assert.ok(await world.until(10_000, () => world.node("node2").running("web") === 2));
  assert.equal(world.node("node1").running("web"), 1, "nobody could tell it");
  world.node("node1").heal();
  assert.ok(await world.until(12_000, () => world.nodeState("node1") === "NODE_READY"));
  assert.ok(await world.until(2000, () => world.node("node1").running("web") === 0));
  await world.stop();
});

test("what a node says besides its heartbeats does not put off the moment at which it is down", async () => {
  const world = await new SwarmWorld().start();
  await world.node("node1").kill();
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await world.run(50);
  assert.ok(stream.welcomed);
  await world.run(4000);
  events.message({ describe: { description: { hostname: "h2" } } });
  await world.run(9000);
  assert.equal(world.nodeState("node1"), "NODE_READY", "three periods are at least 13.5 s");
  assert.ok(await world.until(2100, () => world.nodeState("node1") === "NODE_DOWN"));
  assert.equal(stream.goodbye, "HEARTBEAT_MISSED");
  await world.stop();
});

test("a node whose heartbeats are held up is not down while it talks", async () => {
  const world = await new SwarmWorld().start();
  await world.node("node1").kill();
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  for (let at = 0; at < 10; at++) {
    await world.run(4000);
    events.message({ applied: { revision: 0 } });
  }
  assert.equal(world.nodeState("node1"), "NODE_READY", "40 s without a heartbeat");
  assert.equal(stream.goodbye, undefined);
  assert.ok(await world.until(5100, () => world.nodeState("node1") === "NODE_DOWN"));
  await world.stop();
});

test("a leader that stood still first reads what nodes have said, and then judges", async () => {
  const world = await new SwarmWorld({ workers: 2 }).start();
  const held: (() => void)[] = [];
  let still = false;
  const after = world.clock.after.bind(world.clock);
  world.clock.after = (ms, callback) => after(ms, () => (still ? void held.push(callback) : callback()));
  for (const node of ["node1", "node2"]) await world.node(node).kill();
  const [first, second] = ["node1", "node2"].map((node) => dial(world, node)) as [Dialled, Dialled];
  for (const { events } of [first, second]) events.message(hello);
  await world.run(50);
  still = true;
  await world.run(20_000);
  still = false;
  for (const callback of held.splice(0)) callback();
  // It lay in the buffer of the connection.
  first.events.message({ heartbeat: { sentAtUs: 1 } });
  await world.run(5100);
  assert.deepEqual([world.nodeState("node1"), world.nodeState("node2")], ["NODE_READY", "NODE_DOWN"]);
  await world.stop();
});

test("a node that a new leader has met is given the usual time, and not what is left of the longer one", async () => {
  const world = await new SwarmWorld({ managers: 3, workers: 2 }).start();
  world.crashLeader("committed", 200, world.managers[1]);
  assert.ok(await world.until(10_000, () => world.nodeState("node2") === "NODE_UNKNOWN"));
  assert.ok(await world.until(10_000, () => world.nodeState("node2") === "NODE_READY"));
  const readyMs = world.clock.monotonicMs();
  world.node("node2").cut();
  assert.ok(await world.until(20_000, () => world.nodeState("node2") === "NODE_DOWN"));
  const tookMs = world.clock.monotonicMs() - readyMs;
  assert.ok(tookMs <= 15_200, `down after ${tookMs} ms`);
  await world.stop();
});

test("a broken connection makes a node DISCONNECTED at once, and READY again with the next session", async () => {
  const world = await new SwarmWorld().start();
  await world.node("node1").kill();
  await world.run(20);
  assert.equal(world.nodeState("node1"), "NODE_DISCONNECTED");
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await world.run(50);
  assert.ok(stream.welcomed);
  assert.equal(world.nodeState("node1"), "NODE_READY");
  events.closed(undefined);
  await world.run(20);
  assert.equal(world.nodeState("node1"), "NODE_DISCONNECTED");
  await world.stop();
});

test("the cluster's heartbeat period is what nodes are told, and a change of it reaches them", async () => {
  const world = await new SwarmWorld({ cluster: { dispatcher: { heartbeatPeriod: { seconds: 1 } } } }).start();
  world.node("node1").cut();
  assert.ok(await world.until(3500, () => world.nodeState("node1") === "NODE_DOWN"));
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await world.run(20);
  const seconds = (period: skep.objects.Duration.$Properties | null | undefined): number =>
    (period?.seconds ?? 0) + (period?.nanos ?? 0) / 1e9;
  const first = seconds(stream.said[0]?.welcome?.heartbeatPeriod);
  assert.ok(first >= 0.9 && first <= 1.1, String(first));
  world.write((tx) =>
    tx.edit("cluster", "cluster", (draft) => {
      draft.spec = { ...draft.spec, dispatcher: { heartbeatPeriod: { seconds: 20 } } };
    }),
  );
  await world.run(50);
  events.message({ heartbeat: { sentAtUs: 7 } });
  const ack = stream.said.at(-1)?.heartbeatAck;
  assert.equal(ack?.sentAtUs, 7);
  assert.ok(seconds(ack?.period) >= 18, String(seconds(ack?.period)));
  await world.run(30_000);
  assert.equal(world.nodeState("node1"), "NODE_READY", "three periods are a minute now");
  await world.stop();
});

test("a new leader takes nodes for UNKNOWN until they come, and for DOWN when they do not come within twice the grace", async () => {
  const world = await new SwarmWorld({ managers: 3, workers: 2 }).start();
  const states: string[] = [];
  world.node("node2").cut();
  world.crashLeader("committed", 200, world.managers[1]);
  const look = (): void => {
    const state = world.nodeState("node1");
    if (states.at(-1) !== state) states.push(state);
  };
  assert.ok(await world.until(10_000, () => states.at(-1) === "NODE_READY" && states.length > 1, look));
  assert.deepEqual(states.slice(-2), ["NODE_UNKNOWN", "NODE_READY"]);
  assert.equal(world.nodeState("node2"), "NODE_UNKNOWN");
  await world.run(16_000);
  assert.equal(world.nodeState("node2"), "NODE_UNKNOWN", "the grace is twice as long");
  assert.ok(await world.until(15_000, () => world.nodeState("node2") === "NODE_DOWN"));
  await world.stop();
});

test("the tasks of a node that is down for a day are orphaned, whoever leads by then; when it is back it stops them", async () => {
  const cluster = { dispatcher: { heartbeatPeriod: { seconds: 600 } } };
  const world = await new SwarmWorld({ managers: 3, workers: 2, cluster }).start();
  world.service("web", replicated(2));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  const node = world.node("node1");
  const [lost] = world.tasks("web").filter((task) => task.nodeId === "node1");
  const now = (): Task | undefined => world.store.current().get("task", lost!.id);
  await node.kill();
  await world.run(12 * 3_600_000);
  assert.equal(world.nodeState("node1"), "NODE_DOWN");
  assert.equal(now()?.status?.state, TaskState.RUNNING);
  world.crashLeader("committed", 200, world.managers[2]);
  await world.run(12 * 3_600_000);
  assert.equal(now()?.status?.state, TaskState.RUNNING, "it was not down yet when its agent ended");
  await world.run(0.6 * 3_600_000);
  assert.equal(now()?.status?.state, TaskState.ORPHANED);
  assert.equal(now()?.status?.reason?.nodeLost?.nodeId, "node1");
  assert.equal(node.running("web"), 1);
  node.start();
  assert.ok(await world.until(60_000, () => world.nodeState("node1") === "NODE_READY" && node.running("web") === 0));
  await world.stop();
});

test("the tasks of a node that is removed are given up, whoever leads, and what they hold is free", async () => {
  const world = await new SwarmWorld({ managers: 3, workers: 3 }).start();
  world.service("web", replicated(3));
  assert.ok(await world.until(2000, () => world.running("web").length === 3));
  const of = (nodeId: string): Task => world.tasks("web").find((task) => task.nodeId === nodeId)!;
  const state = ({ id }: Task): number | null | undefined => world.store.current().get("task", id)?.status?.state;
  const [first, second] = [of("node1"), of("node2")];
  await world.node("node1").kill();
  assert.ok(await world.until(20_000, () => world.nodeState("node1") === "NODE_DOWN"));
  await world.run(2000);
  assert.equal(state(first), TaskState.RUNNING);
  world.write((tx) => tx.remove("node", "node1"));
  assert.ok(await world.until(2000, () => state(first) === TaskState.ORPHANED));
  assert.equal(world.store.current().get("task", first.id)?.status?.reason?.nodeLost?.nodeId, "node1");
  // Of a node that went when nobody led.
  world.write((tx) => tx.edit("task", second.id, (draft) => void (draft.nodeId = "gone")));
  await world.run(1000);
  assert.equal(state(second), TaskState.RUNNING);
  world.crashLeader("committed", 200, world.managers[1]);
  assert.ok(await world.until(10_000, () => state(second) === TaskState.ORPHANED));
  await world.stop();
});

test("the first node of a cluster that is still being made is told to come again", async () => {
  const world = await new SwarmWorld({ workers: 1 }).start();
  const nodes = [...world.store.current().list("node")].map(({ id }) => id);
  world.write((tx) => {
    for (const id of nodes) tx.remove("node", id);
  });
  assert.ok(await world.until(1000, () => world.store.current().count("node") === 0));
  const early = dial(world, "first");
  early.events.message(hello);
  assert.equal(early.stream.goodbye, "NOT_LEADER");
  await world.stop();
});

test("a node that was removed is told so and let go; one that nobody knows is refused", async () => {
  const world = await new SwarmWorld({ workers: 2 }).start();
  const stranger = dial(world, "stranger");
  stranger.events.message(hello);
  assert.equal(stranger.stream.goodbye, "NODE_REMOVED");
  assert.ok(stranger.stream.ended);
  const node = world.node("node1");
  world.write((tx) => tx.remove("node", "node1"));
  assert.ok(await world.until(1000, () => node.wasRemoved));
  await world.stop();
});

test("a manager that does not lead says who does; a node opens three sessions in eight seconds and no more", async () => {
  const world = await new SwarmWorld({ managers: 3 }).start();
  const other = dial(world, "node1", 1);
  other.events.message(hello);
  assert.equal(other.stream.said[0]?.goodbye?.leaderAddr, "member-1");
  assert.equal(other.stream.goodbye, "NOT_LEADER");
  await world.node("node1").kill();
  await world.run(9000);
  const streams = [1, 2, 3, 4].map(() => {
    const { stream, events } = dial(world, "node1");
    events.message(hello);
    return stream;
  });
  await world.run(100);
  assert.deepEqual(
    streams.map(({ goodbye }) => goodbye),
    ["SESSION_REPLACED", "SESSION_REPLACED", undefined, "REGISTRATION_LIMITED"],
  );
  await world.stop();
});

test("what does not begin with a hello, speaks another protocol or describes itself at length is refused", async () => {
  const world = await new SwarmWorld().start();
  assert.throws(() => dial(world, "node1").events.message({ heartbeat: {} }), { code: "SESSION_INVALID" });
  assert.throws(() => dial(world, "node1").events.message({ hello: { protocol: 9 } }), { code: "SESSION_INVALID" });
  const description = { hostname: "x".repeat(70_000) };
  assert.throws(() => dial(world, "node1").events.message({ hello: { protocol: 1, description } }), {
    code: "SESSION_INVALID",
  });
  await world.stop();
});

test("a node that says another's key is its own has none, and its own it may change", async () => {
  const world = await new SwarmWorld({ workers: 2 }).start();
  const key = (fill: number, length = 32): Uint8Array => new Uint8Array(length).fill(fill);
  const held = (nodeId: string): string =>
    Buffer.from(world.store.current().get("node", nodeId)?.description?.network?.wireguardPublicKey ?? []).toString(
      "hex",
    );
  const say = async (events: Events, wireguardPublicKey: Uint8Array): Promise<void> => {
    const network = { capabilities: ["overlay", "encrypted"], wireguardPublicKey };
    events.message({ describe: { description: { hostname: "h", network } } });
    await world.run(1000);
  };
  const dialled = [];
  for (const nodeId of ["node1", "node2"]) {
    await world.node(nodeId).kill();
    const { events } = dial(world, nodeId);
    events.message(hello);
    await world.run(500);
    dialled.push(events);
  }
  const [first, second] = dialled as [Events, Events];
  await say(first, key(1));
  assert.equal(held("node1"), "01".repeat(32));
  await say(second, key(2));
  await say(second, key(1));
  assert.equal(held("node2"), "", "not what it had before, either: it does not hold that any more");
  await say(second, key(3, 31));
  assert.equal(held("node2"), "");
  await say(first, key(1));
  assert.equal(held("node1"), "01".repeat(32));
  await say(first, key(4));
  await say(second, key(1));
  assert.equal(held("node2"), "01".repeat(32), "nobody holds it any more");
  await world.stop();
});

test("an agent that does not read costs nothing but what is newest: its tasks are told when it reads again", async () => {
  const world = await new SwarmWorld({ workers: 1 }).start();
  await world.node("node1").kill();
  world.service("web", replicated(20));
  world.write((tx) => tx.create("secret", { id: "s", spec: { name: "s", data: Buffer.alloc(1000) } }));
  await world.run(9000);
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await world.run(500);
  stream.reads = false;
  events.message({ heartbeat: { sentAtUs: 1 } });
  const before = stream.said.length;
  for (let round = 0; round < 30; round++) {
    world.update("web", (spec) => (spec.mode = { replicated: { replicas: 5 + (round % 7) } }));
    events.message({ heartbeat: { sentAtUs: round } });
    await world.run(200);
  }
  assert.equal(stream.said.length, before, "nothing is written to a stream that is not read");
  for (let number = 1; number <= 1002; number++) events.message({ statusUpdate: { number, tasks: [] } });
  assert.ok(stream.paused, "nor is it read any more, when it only talks");
  stream.reads = true;
  events.drain?.();
  assert.equal(stream.paused, false);
  await world.run(300);
  const after = stream.said.slice(before);
  assert.equal(after.filter(({ heartbeatAck }) => heartbeatAck != null).length, 1);
  assert.equal(after.filter(({ statusAck }) => statusAck != null).length, 1002);
  // Replayed, what was sent is what the store says.
  const held = new Map<string, skep.objects.Task.$Properties>();
  for (const { assignments } of stream.said)
    for (const { task, removed } of assignments?.changes ?? [])
      if (task != null && removed === true) held.delete(task.id ?? "");
      else if (task != null) held.set(task.id ?? "", task);
  const known = [...world.store.current().find("task", "node", "node1")].filter(
    (task) => (task.status?.state ?? 0) >= TaskState.ASSIGNED,
  );
  assert.deepEqual([...held.keys()].sort(), known.map(({ id }) => id).sort());
  for (const { id, desiredState } of known) assert.equal(held.get(id)?.desiredState, desiredState);
  await world.stop();
});

test("a gap is answered with a complete state in parts, of which the last is marked", async () => {
  const world = await new SwarmWorld({ workers: 1 }).start();
  await world.node("node1").kill();
  const configs = Array.from({ length: 3 }, (_, at) => ({ configId: `c${at}`, file: { name: `c${at}` } }));
  for (const { configId } of configs)
    world.write((tx) => tx.create("config", { id: configId, spec: { name: configId, data: Buffer.alloc(900_000) } }));
  await world.run(50);
  world.service("web", replicated(1, "ok", { taskTemplate: { containerSpec: { image: "ok", configs } } }));
  await world.run(9000);
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await world.run(300);
  stream.said.length = 0;
  events.message({ resync: { revision: 1 } });
  await world.run(100);
  const parts = stream.said.flatMap(({ assignments }) => (assignments == null ? [] : [assignments]));
  assert.ok(parts.length >= 2, `${parts.length} parts`);
  assert.deepEqual(
    parts.map(({ last }) => last),
    parts.map((_, at) => at === parts.length - 1),
  );
  assert.equal(new Set(parts.map(({ revision }) => revision)).size, 1);
  const kinds = parts.flatMap(({ changes }) => changes ?? []).map(({ config }) => (config == null ? "task" : "config"));
  assert.deepEqual(kinds, ["config", "config", "config", "task"]);
  await world.stop();
});

test("a dispatcher that has missed changes tells a node what differs, and not everything anew", async () => {
  const world = await new SwarmWorld({
    workers: 1,
    kept: { watchLimits: { changesMax: 50, bytesMax: 1 << 20 }, decodedMax: 256 },
  }).start();
  await world.node("node1").kill();
  const secrets = [{ secretId: "s", file: { name: "s" } }];
  world.write((tx) => tx.create("secret", { id: "s", spec: { name: "s", data: Buffer.from("1") } }));
  world.service("web", replicated(3, "ok", { taskTemplate: { containerSpec: { image: "ok", secrets } } }));
  await world.run(9000);
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await world.run(300);
  const [stopped, gone, kept] = world.tasks("web").map(({ id }) => id);
  stream.said.length = 0;
  // One entry with more changes than are kept for watches.
  world.write((tx) => {
    tx.edit("task", stopped!, (draft) => (draft.desiredState = TaskState.SHUTDOWN));
    tx.remove("task", gone!);
    tx.edit("secret", "s", (draft) => (draft.spec = { ...draft.spec, name: "s", data: Buffer.from("2") }));
    for (let at = 0; at < 100; at++)
      tx.create("task", { id: `else${at}`, nodeId: "elsewhere", status: { state: TaskState.RUNNING } });
  });
  await world.run(100);
  const told = stream.said.flatMap(({ assignments }) => (assignments == null ? [] : [assignments]));
  assert.deepEqual(new Set(told.map(({ kind }) => kind)), new Set([AssignmentsKind.INCREMENTAL]));
  const changes = told.flatMap((each) => each.changes ?? []);
  const words = changes.map(({ task, secret, removed }) => `${removed ? "-" : "+"}${task?.id ?? secret?.id}`);
  assert.ok(words.includes(`+${stopped}`) && words.includes(`-${gone}`) && words.includes("+s"), words.join(" "));
  assert.ok(!words.includes(`+${kept}`), "it knows that one");
  await world.stop();
});

test("the cluster's log driver is for tasks whose spec names none; a node that leaves is down at once", async () => {
  const world = await new SwarmWorld({ cluster: { taskDefaults: { logDriver: { name: "local" } } } }).start();
  world.service("plain", replicated(1));
  world.service(
    "own",
    replicated(1, "ok", { taskTemplate: { containerSpec: { image: "ok" }, logDriver: { name: "none" } } }),
  );
  assert.ok(await world.until(2000, () => world.running("plain").length + world.running("own").length === 2));
  const drivers = world.node("node1").agent!.tasks.map(({ task }) => `${task.serviceId} ${task.spec?.logDriver?.name}`);
  assert.deepEqual(drivers.sort(), ["own none", "plain local"]);
  assert.equal(world.tasks("plain")[0]?.spec?.logDriver, null, "what is stored is what the user sent");
  const node = world.node("node1");
  const leaving = node.agent!.leave(new AbortController().signal);
  await world.run(50);
  assert.equal(world.nodeState("node1"), "NODE_DOWN");
  await world.run(500);
  await leaving;
  assert.equal(node.host.containers.size, 0);
  node.agent = undefined;
  await world.stop();
});

test("a node's status for another node's task is not taken, and is acknowledged all the same", async () => {
  const world = await new SwarmWorld({ workers: 2 }).start();
  world.service("web", replicated(2));
  assert.ok(await world.until(2000, () => world.running("web").length === 2));
  const other = world.tasks("web").find(({ nodeId }) => nodeId === "node2")!;
  await world.node("node1").kill();
  await world.run(100);
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await world.run(100);
  events.message({ statusUpdate: { number: 5, tasks: [{ taskId: other.id, status: { state: TaskState.FAILED } }] } });
  await world.run(100);
  assert.equal(stream.said.at(-1)?.statusAck?.number, 5);
  assert.equal(world.store.current().get("task", other.id)?.status?.state, TaskState.RUNNING);
  await world.stop();
});

// ------------------------------------------------------------------------------------------------ tables on the stream

const helloWithPlane = { hello: { protocol: 1, description: { hostname: "h", network: { mtu: 1500 } } } };

/** A task as other rooms would have made it. */
const placedTask = (
  id: string,
  nodeId: string,
  more: Omit<skep.objects.Task.$Properties, "id"> = {},
): skep.objects.Task.$Properties & { readonly id: string } => ({
  id,
  nodeId,
  desiredState: TaskState.RUNNING,
  status: { state: TaskState.RUNNING },
  networksAttachments: [{ networkId: "net", addresses: ["10.9.9.9/16"] }],
  ...more,
});

/** What each change of the messages since `from` is about, in order. */
function told(stream: FakeStream, from = 0): string[] {
  return stream.said.slice(from).flatMap(({ assignments }) =>
    (assignments?.changes ?? []).map(({ task, network, endpoint, peer, removed }) => {
      const what =
        task != null
          ? `task ${task.id} ${TaskState[task.desiredState ?? 0]}`
          : endpoint != null
            ? `endpoint ${endpoint.taskId} ${endpoint.serving === true ? "serves" : "idle"}`
            : (network?.id ?? peer?.nodeId ?? "");
      return removed === true ? `-${what}` : what;
    }),
  );
}

async function openTables(): Promise<{ world: SwarmWorld; stream: FakeStream; events: Events }> {
  const world = await new SwarmWorld({ workers: 0 }).start();
  world.addNode("fake");
  world.addNode("ghost");
  world.write((tx) => tx.create("network", { id: "net", spec: { name: "net" } }));
  await world.run(50);
  const { stream, events } = dial(world, "fake");
  events.message(helloWithPlane);
  await world.run(50);
  return { world, stream, events };
}

const revisionOf = (stream: FakeStream): number =>
  stream.said.findLast(({ assignments }) => assignments != null)?.assignments?.revision ?? 0;

test("a node hears of a task after its network and who is in it, and of the end of its tasks before that of the network", async () => {
  const { world, stream } = await openTables();
  world.write((tx) => tx.create("task", placedTask("other", "ghost")));
  await world.run(200);
  assert.ok(!told(stream).some((each) => each.startsWith("endpoint")), "it is in no network of the other");
  let from = stream.said.length;
  world.write((tx) => tx.create("task", placedTask("mine", "fake")));
  await world.run(200);
  assert.deepEqual(told(stream, from), ["net", "endpoint other serves", "endpoint mine serves", "task mine RUNNING"]);
  from = stream.said.length;
  world.write((tx) => tx.remove("task", "mine"));
  await world.run(200);
  assert.deepEqual(told(stream, from), ["-endpoint mine idle", "-task mine NEW", "-net"]);
  from = stream.said.length;
  world.write((tx) => tx.remove("task", "other"));
  await world.run(200);
  assert.deepEqual(told(stream, from), [], "nobody here is in that network any more");
  await world.stop();
});

test("a task is told to stop when the revision without it is applied, and no earlier", async () => {
  const { world, stream, events } = await openTables();
  world.write((tx) => tx.create("task", placedTask("mine", "fake")));
  await world.run(200);
  events.message({ applied: { revision: revisionOf(stream) } });
  const from = stream.said.length;
  world.write((tx) => tx.edit("task", "mine", (draft) => (draft.desiredState = TaskState.SHUTDOWN)));
  await world.run(500);
  assert.deepEqual(told(stream, from), ["endpoint mine idle"]);
  const withdrawn = revisionOf(stream);
  events.message({ applied: { revision: withdrawn - 1 } });
  await world.run(200);
  assert.deepEqual(told(stream, from), ["endpoint mine idle"]);
  events.message({ resync: {} });
  await world.run(200);
  assert.ok(told(stream, from).includes("task mine RUNNING"), "a complete state tells it as it was");
  const again = stream.said.length;
  events.message({ applied: { revision: withdrawn } });
  await world.run(200);
  assert.deepEqual(told(stream, again), ["task mine SHUTDOWN"]);
  await world.stop();
});

test("a node that does not read is told what is newest; when too much has gone, everything", async () => {
  const { world, stream, events } = await openTables();
  const ids = Array.from({ length: 3000 }, (_, at) => `x${at}`);
  const inParts = (act: (id: string) => (tx: Parameters<Parameters<SwarmWorld["write"]>[0]>[0]) => void): void => {
    for (let at = 0; at < ids.length; at += 500)
      world.write((tx) => {
        for (const id of ids.slice(at, at + 500)) act(id)(tx);
      });
  };
  world.write((tx) => tx.create("task", placedTask("mine", "fake")));
  inParts((id) => (tx) => tx.create("task", placedTask(id, "ghost")));
  await world.run(500);
  const known = new Set(told(stream).filter((each) => each.startsWith("endpoint")));
  assert.equal(known.size, 3001);

  stream.reads = false;
  events.message({ heartbeat: { sentAtUs: 1 } });
  const from = stream.said.length;
  for (const state of [TaskState.COMPLETE, TaskState.SHUTDOWN])
    world.write((tx) => tx.edit("task", "x0", (draft) => (draft.desiredState = state)));
  await world.run(2500);
  assert.equal(stream.said.length, from, "nothing is written");
  stream.reads = true;
  events.drain?.();
  await world.run(200);
  assert.deepEqual(told(stream, from), ["endpoint x0 idle"], "once, however often it changed");

  stream.reads = false;
  events.message({ heartbeat: { sentAtUs: 2 } });
  inParts((id) => (tx) => tx.remove("task", id));
  await world.run(500);
  stream.reads = true;
  const back = stream.said.length;
  events.drain?.();
  await world.run(500);
  const { assignments } = stream.said.slice(back).find((each) => each.assignments != null) ?? {};
  assert.equal(assignments?.kind ?? 0, 0, "a complete state");
  const endpoints = told(stream, back).filter((each) => each.includes("endpoint"));
  assert.deepEqual(endpoints, ["endpoint mine serves"]);
  await world.stop();
});

const crowdHello = { hello: { ...hello.hello, takesAcks: true } };

/** What it was told to run, said to run. */
function runningOf(stream: FakeStream): skep.dispatcher.TaskStatusChange.$Properties[] {
  const tasks = stream.said.flatMap(({ assignments }) => assignments?.changes ?? []).flatMap(({ task }) => task ?? []);
  return tasks.map(({ id }) => ({ taskId: id!, status: { state: TaskState.RUNNING, timestampUs: 1 } }));
}

const acksOf = (stream: FakeStream, from = 0): number[] =>
  stream.said
    .slice(from)
    .flatMap(({ acks, statusAck }) => [...(acks ?? []), ...(statusAck == null ? [] : [statusAck.number ?? 0])]);

test("of a crowd, a status is acknowledged with what goes to the node anyway; a second one brings it out", async () => {
  const world = await new SwarmWorld({ workers: 1, crowd: { crowdMin: 1, sendsTurnMax: 1 } }).start();
  await world.node("node1").kill();
  world.service("web", replicated(4));
  await world.run(9000);
  const { stream, events } = dial(world, "node1");
  events.message(crowdHello);
  assert.ok(await world.until(2000, () => runningOf(stream).length === 4));
  const [one, two, three, four] = runningOf(stream);
  events.message({ statusUpdate: { number: 1, tasks: [one!] } });
  await world.run(500);
  assert.equal(world.running("web").length, 1, "it is committed");
  assert.deepEqual(acksOf(stream), [], "and not acknowledged by a message of its own");
  events.message({ heartbeat: { sentAtUs: 1 } });
  assert.deepEqual(acksOf(stream), [1]);
  assert.ok(stream.said.at(-1)?.heartbeatAck != null, "but with the answer");

  events.message({ statusUpdate: { number: 2, tasks: [two!] } });
  await world.run(500);
  assert.deepEqual(acksOf(stream), [1]);
  world.update("web", (spec) => (spec.mode = { replicated: { replicas: 3 } }));
  assert.ok(await world.until(1000, () => acksOf(stream).length === 2));
  assert.ok(stream.said.at(-1)?.assignments != null, "with the next assignment");

  const from = stream.said.length;
  events.message({ statusUpdate: { number: 3, tasks: [three!] } });
  await world.run(300);
  events.message({ statusUpdate: { number: 4, tasks: [four!] } });
  await world.run(300);
  assert.deepEqual(acksOf(stream, from), [3], "an agent with two under way says no more before that");
  await world.stop();
});

test("an agent of before gets each acknowledgement as a message, of a crowd as well", async () => {
  const world = await new SwarmWorld({ workers: 1, crowd: { crowdMin: 1, sendsTurnMax: 1 } }).start();
  await world.node("node1").kill();
  world.service("web", replicated(1));
  await world.run(9000);
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  assert.ok(await world.until(2000, () => runningOf(stream).length === 1));
  events.message({ statusUpdate: { number: 7, tasks: runningOf(stream) } });
  await world.run(500);
  assert.deepEqual(
    stream.said.flatMap(({ statusAck }) => statusAck?.number ?? []),
    [7],
  );
  assert.ok(stream.said.every(({ acks }) => (acks ?? []).length === 0));
  await world.stop();
});

test("what all nodes are to hear is told to some of them a turn, and so are farewells", async () => {
  const world = await new SwarmWorld({ workers: 5, crowd: { crowdMin: 1, sendsTurnMax: 2 } }).start();
  const ids = ["node1", "node2", "node3", "node4", "node5"];
  for (const id of ids) await world.node(id).kill();
  await world.run(9000);
  const all = ids.map((id) => dial(world, id));
  for (const { events } of all) events.message(hello);
  assert.ok(
    await world.until(2000, () => all.every(({ stream }) => stream.said.some(({ managers }) => managers != null))),
  );
  await world.run(100);
  const from = all.map(({ stream }) => stream.said.length);
  const told = (): number => all.filter(({ stream }, at) => stream.said.length > from[at]!).length;
  world.managers[0]!.dispatcher.managersChanged();
  await Promise.resolve();
  assert.equal(told(), 2);
  await world.run(1);
  assert.equal(told(), 5);
  world.managers[0]!.stop();
  const goodbyes = (): number => all.filter(({ stream }) => stream.goodbye === "NOT_LEADER").length;
  assert.equal(goodbyes(), 2);
  await world.run(1);
  assert.equal(goodbyes(), 5);
  await world.stop();
});

test("a node that comes while a new leader still reads what there is, waits for that, and is not taken for unknown", async () => {
  const world = await new SwarmWorld({ workers: 1 }).start();
  await world.node("node1").kill();
  for (let from = 0; from < 1500; from += 250)
    world.write((tx) => {
      for (let at = from; at < from + 250; at++)
        tx.create("node", { id: `other${at}`, status: { state: skep.objects.NodeState.NODE_DOWN } });
    });
  world.service("web", replicated(2));
  await world.run(9000);
  const { dispatcher } = world.managers[0]!;
  dispatcher.stop();
  dispatcher.start();
  const { stream, events } = dial(world, "node1");
  events.message(hello);
  await Promise.resolve();
  assert.ok(!stream.welcomed, "not before everything is read");
  assert.ok(await world.until(2000, () => stream.welcomed && runningOf(stream).length === 2));
  await world.run(500);
  assert.equal(world.nodeState("node1"), "NODE_READY");
  await world.stop();
});
