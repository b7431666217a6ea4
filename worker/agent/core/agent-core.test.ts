import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../../lib/pure/prng.ts";
import { skep } from "../../../proto/index.ts";
import {
  AssignmentSet,
  changeOf,
  desiredOf,
  failedState,
  ManagerChoice,
  nextAct,
  reached,
  recordsOf,
  SessionBackoff,
  takenUp,
  TaskState,
} from "./index.ts";

const { AssignmentsKind } = skep.dispatcher;

const act = (observed: TaskState, desired: TaskState, more = {}): string => {
  const next = nextAct({ observed, desired, dropped: false, informed: true, routed: true, ...more });
  return next.kind === "move" ? `move ${TaskState[next.state]}` : next.kind;
};

test("a task is taken through its states in order, and held at READY as long as no more is wanted", () => {
  const path: string[] = [];
  let observed: TaskState = TaskState.ASSIGNED;
  for (let step = 0; step < 8; step++) {
    const next = nextAct({ observed, desired: TaskState.RUNNING, dropped: false, informed: true, routed: true });
    path.push(next.kind);
    if (next.kind === "move") observed = next.state;
    else if (next.kind === "prepare" || next.kind === "start") observed = reached(next.kind);
  }
  assert.deepEqual(path, ["move", "move", "prepare", "move", "start", "wait", "wait", "wait"]);
  assert.equal(act(TaskState.READY, TaskState.READY), "hold");
  assert.equal(act(TaskState.READY, TaskState.RUNNING), "move STARTING");
  assert.equal(act(TaskState.READY, TaskState.COMPLETE), "move STARTING");
});

test("a task that is not wanted is stopped, whatever it is doing; one that did nothing yet just ends", () => {
  for (const state of [TaskState.PREPARING, TaskState.READY, TaskState.STARTING, TaskState.RUNNING])
    assert.equal(act(state, TaskState.SHUTDOWN), "stop");
  assert.equal(act(TaskState.ASSIGNED, TaskState.SHUTDOWN), "move SHUTDOWN");
  assert.equal(act(TaskState.ACCEPTED, TaskState.RUNNING, { dropped: true }), "move SHUTDOWN");
  assert.equal(act(TaskState.RUNNING, TaskState.RUNNING, { dropped: true }), "stop");
  assert.equal(act(TaskState.FAILED, TaskState.RUNNING), "hold");
  assert.equal(act(TaskState.FAILED, TaskState.RUNNING, { dropped: true }), "remove");
});

test("before a manager has told what a task needs, nothing new is prepared or started, and what runs goes on", () => {
  assert.equal(act(TaskState.PREPARING, TaskState.RUNNING, { informed: false }), "hold");
  assert.equal(act(TaskState.READY, TaskState.RUNNING, { informed: false }), "hold");
  assert.equal(act(TaskState.STARTING, TaskState.RUNNING, { informed: false }), "start");
  assert.equal(act(TaskState.RUNNING, TaskState.RUNNING, { informed: false }), "wait");
  assert.equal(act(TaskState.RUNNING, TaskState.SHUTDOWN, { informed: false }), "stop");
});

test("an error before STARTING rejects a task, one from then on fails it", () => {
  assert.equal(failedState(TaskState.PREPARING), TaskState.REJECTED);
  assert.equal(failedState(TaskState.READY), TaskState.REJECTED);
  assert.equal(failedState(TaskState.STARTING), TaskState.FAILED);
  assert.equal(failedState(TaskState.RUNNING), TaskState.FAILED);
});

test("a task that a manager has ended is stopped, though its desired state does not say so", () => {
  const task = (state: TaskState, desiredState: TaskState): skep.objects.Task =>
    skep.objects.Task.decode(skep.objects.Task.encode({ status: { state }, desiredState }).finish());
  assert.equal(desiredOf(task(TaskState.ORPHANED, TaskState.RUNNING)), TaskState.SHUTDOWN);
  assert.equal(desiredOf(task(TaskState.RUNNING, TaskState.RUNNING)), TaskState.RUNNING);
  assert.equal(desiredOf(task(TaskState.REJECTED, TaskState.REMOVE)), TaskState.REMOVE);
});

test("a task that had started and of which nothing is left is lost: it is never started again in place", () => {
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.RUNNING, false), "lost");
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.RUNNING, true), TaskState.RUNNING);
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.READY, false), TaskState.READY);
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.FAILED, false), TaskState.FAILED);
  // Nothing is remembered: the assignment says how far it was.
  assert.equal(takenUp(TaskState.RUNNING, undefined, false), "lost");
  assert.equal(takenUp(TaskState.RUNNING, undefined, true), TaskState.STARTING);
  assert.equal(takenUp(TaskState.PREPARING, undefined, false), TaskState.PREPARING);
  assert.equal(takenUp(TaskState.FAILED, undefined, false), TaskState.FAILED);
  assert.equal(takenUp(TaskState.ORPHANED, undefined, true), TaskState.STARTING);
  // The managers never heard how far it was, and its container runs.
  assert.equal(takenUp(TaskState.ASSIGNED, undefined, true), TaskState.PREPARING);
  assert.equal(takenUp(TaskState.ASSIGNED, TaskState.ACCEPTED, true), TaskState.PREPARING);
});

const assignments = (
  kind: skep.dispatcher.AssignmentsKind,
  numbers: { appliesTo?: number; revision: number; last?: boolean },
  ...changes: skep.dispatcher.Assignment.$Properties[]
): skep.dispatcher.Assignments =>
  skep.dispatcher.Assignments.decode(
    skep.dispatcher.Assignments.encode({ kind, last: true, ...numbers, changes }).finish(),
  );

test("a complete state counts when its last part is there; changes apply to exactly the number before", () => {
  const set = new AssignmentSet();
  const { COMPLETE, INCREMENTAL } = AssignmentsKind;
  const secret = { id: "s", spec: { name: "s" } };
  assert.equal(set.take(assignments(INCREMENTAL, { appliesTo: 0, revision: 1 })).kind, "gap");
  assert.equal(set.take(assignments(COMPLETE, { revision: 1, last: false }, { secret })).kind, "nothing");
  assert.equal(set.secret("s"), undefined);
  const whole = set.take(assignments(COMPLETE, { revision: 1 }, { task: { id: "a" } }));
  assert.deepEqual(whole.kind === "complete" && whole.tasks.map(({ id }) => id), ["a"]);
  assert.equal(set.secret("s")?.spec?.name, "s");
  const change = assignments(
    INCREMENTAL,
    { appliesTo: 1, revision: 2 },
    { task: { id: "b" } },
    { task: { id: "a" }, removed: true },
    { secret: { id: "s" }, removed: true },
  );
  const told = set.take(change);
  assert.ok(told.kind === "changes");
  assert.deepEqual([told.tasks.map(({ id }) => id), told.removed], [["b"], ["a"]]);
  assert.equal(set.secret("s"), undefined);
  assert.equal(set.take(change).kind, "nothing", "the same once more");
  assert.equal(set.take(assignments(INCREMENTAL, { appliesTo: 3, revision: 4 })).kind, "gap");
  set.sessionEnded();
  assert.equal(set.take(assignments(INCREMENTAL, { appliesTo: 2, revision: 3 })).kind, "gap");
});

test("a part of a complete state that was begun anew counts for nothing", () => {
  const set = new AssignmentSet();
  const { COMPLETE } = AssignmentsKind;
  set.take(assignments(COMPLETE, { revision: 1, last: false }, { task: { id: "old" } }));
  const told = set.take(assignments(COMPLETE, { revision: 2 }, { task: { id: "new" } }));
  assert.deepEqual(told.kind === "complete" && told.tasks.map(({ id }) => id), ["new"]);
});

test("the leader is asked first and once; then everyone in turn, whoever failed the longest ago", () => {
  const choice = new ManagerChoice(new Random(1), ["a", "b", "c"]);
  choice.redirect("b");
  assert.equal(choice.next(), "b");
  choice.failed("b");
  const others = [choice.next(), ...(choice.failed("a"), [choice.next()])];
  assert.ok(!others.includes("b"));
  choice.failed("c");
  assert.equal(choice.next(), "b");
  choice.failed("b");
  assert.equal(choice.next(), "a");
  choice.succeeded("c");
  assert.equal(choice.next(), "c");
  choice.learn(["d"], "d");
  assert.equal(choice.next(), "d");
  assert.deepEqual(choice.known, ["d"]);
  choice.failed("d");
  assert.notEqual(choice.next(), "d", "those given at the start are a last resort");
  assert.equal(new ManagerChoice(new Random(1), []).next(), undefined);
});

test("managers that are not there are passed by in one round; the next one is another", () => {
  const choice = new ManagerChoice(new Random(1), ["a", "b", "c"]);
  const round = (): boolean[] => Array.from({ length: 3 }, () => choice.absent(choice.next() ?? ""));
  assert.deepEqual(round(), [true, true, false]);
  assert.deepEqual(round(), [true, true, false], "whoever failed the longest ago is first again");
  assert.equal(choice.absent(choice.next() ?? ""), true);
  choice.succeeded(choice.next() ?? "");
  assert.deepEqual(round(), [true, true, false], "a session ends a round");
  assert.equal(new ManagerChoice(new Random(1), ["a"]).absent("a"), false);
});

test("a session is tried again after a random part of 100, 300, 700 ... 8000 ms", () => {
  const random = new Random(1);
  random.float = () => 1;
  const backoff = new SessionBackoff(random);
  assert.deepEqual(
    Array.from({ length: 9 }, () => backoff.next()),
    [100, 300, 700, 1500, 3100, 6300, 8000, 8000, 8000],
  );
  assert.equal(backoff.brief(), 100, "and the next manager of a round after one of 100");
  backoff.reset();
  assert.equal(backoff.next(), 100);
});

// ------------------------------------------------------------------------------------------- records of the data plane

type Item = skep.dispatcher.Assignment.$Properties;
const endpoint = (networkId: string, taskId: string, more: skep.dispatcher.EndpointRecord.$Properties = {}): Item => ({
  endpoint: { networkId, taskId, addresses: ["10.0.1.5/24"], ...more },
});
const peer = (nodeId: string, more: skep.dispatcher.PeerRecord.$Properties = {}): Item => ({
  peer: { nodeId, number: 3, addr: "192.0.2.3", mtu: 1500, publicKey: new Uint8Array([1, 2]), ...more },
});
const complete = (revision: number, changes: Item[]): skep.dispatcher.Assignments.$Properties => ({
  kind: AssignmentsKind.COMPLETE,
  revision,
  changes,
  last: true,
});
const incremental = (appliesTo: number, changes: Item[]): skep.dispatcher.Assignments.$Properties => ({
  kind: AssignmentsKind.INCREMENTAL,
  appliesTo,
  revision: appliesTo + 1,
  changes,
  last: true,
});

test("of records only what is news is told, and with a network go its records", () => {
  const set = new AssignmentSet();
  set.restore([
    ["endpoint/net/old", endpoint("net", "old")],
    ["endpoint/net/same", endpoint("net", "same")],
  ]);
  const first = set.take(complete(1, [endpoint("net", "same"), endpoint("net", "new"), peer("n")]));
  assert.ok(first.kind === "complete");
  assert.deepEqual(
    first.records.map(({ key, item }) => [key, item !== undefined]),
    [
      ["endpoint/net/old", false],
      ["endpoint/net/new", true],
      ["peer/n", true],
    ],
  );
  const gone = { removed: true, endpoint: { networkId: "net", taskId: "new" } };
  const second = set.take(incremental(1, [{ network: { id: "other" } }, endpoint("other", "t"), gone, gone]));
  assert.ok(second.kind === "changes");
  assert.deepEqual(
    second.records.map(({ key, item }) => [key, item !== undefined]),
    [
      ["endpoint/other/t", true],
      ["endpoint/net/new", false],
    ],
  );
  const third = set.take(incremental(2, [{ removed: true, network: { id: "other" } }]));
  assert.ok(third.kind === "changes");
  assert.deepEqual(third.records, [{ key: "endpoint/other/t", item: undefined }]);
  assert.deepEqual([...set.records.keys()].sort(), ["endpoint/net/same", "peer/n"]);
});

test("records are handed on as the data plane takes them; what is no address, port or number is left out", () => {
  const { EndpointMode, PortProtocol } = skep.objects;
  const odd = endpoint("net", "t", { addresses: ["10.0.1.5/24", "10.0.1.5", "x/24"], gatewayAddress: "nowhere" });
  const service: Item = {
    serviceRecord: {
      networkId: "net",
      serviceId: "s",
      name: "web",
      virtualIp: "10.0.1.2/24",
      virtualIp6: "fd00:b1::2/64",
      mode: EndpointMode.DNSRR,
      ports: [
        { targetPort: 80, publishedPort: 8080, protocol: PortProtocol.UDP },
        { targetPort: 80, publishedPort: 70_000 },
        { targetPort: 0, publishedPort: 1 },
      ],
    },
  };
  const records = recordsOf("me", [
    ["endpoint/net/t", odd],
    ["service/net/s", service],
    [
      "service/net/wrong",
      { serviceRecord: { ...service.serviceRecord, virtualIp: "fd00::1/64", virtualIp6: "10.0.1.2/24" } },
    ],
    ["peer/a", peer("a", { addresses6: ["FD99:0::1", "192.0.2.3", "somewhere"] })],
    ["peer/b", peer("b", { number: 4096 })],
    ["peer/c", peer("c", { addr: "host.example" })],
    ["peer/d", peer("d", { addr: "FD99:0::4", addresses4: ["192.0.2.4", "fd99::4", "somewhere"] })],
    ["peer/e", peer("e", { addr: "fe80::5" })],
  ]);
  assert.deepEqual(records, {
    nodeId: "me",
    peers: [
      { nodeId: "a", number: 3, addr: "192.0.2.3", mtu: 1500, publicKey: "AQI=", addresses6: ["fd99::1"] },
      { nodeId: "d", number: 3, addr: "fd99::4", mtu: 1500, publicKey: "AQI=", addresses4: ["192.0.2.4"] },
    ],
    endpoints: [
      {
        networkId: "net",
        taskId: "t",
        serviceId: "",
        nodeId: "",
        name: "",
        slot: 0,
        addresses: ["10.0.1.5/24"],
        gatewayAddress: "",
        aliases: [],
        serving: false,
      },
    ],
    services: [
      {
        networkId: "net",
        serviceId: "s",
        name: "web",
        aliases: [],
        virtualIp: "10.0.1.2/24",
        virtualIp6: "fd00:b1::2/64",
        mode: "dnsrr",
        ports: [{ protocol: "udp", targetPort: 80, publishedPort: 8080, mode: "ingress" }],
        encrypted: false,
      },
      {
        networkId: "net",
        serviceId: "s",
        name: "web",
        aliases: [],
        virtualIp: "",
        mode: "dnsrr",
        ports: [{ protocol: "udp", targetPort: 80, publishedPort: 8080, mode: "ingress" }],
        encrypted: false,
      },
    ],
  });
  assert.deepEqual(changeOf("peer/b", undefined), { kind: "peer", key: "b", record: undefined });
  assert.deepEqual(changeOf("endpoint/net/t", undefined), { kind: "endpoint", key: "net/t", record: undefined });
});

test("nothing is prepared before the data plane was told of the task's networks; what runs goes on", () => {
  assert.equal(act(TaskState.PREPARING, TaskState.RUNNING, { routed: false }), "hold");
  assert.equal(act(TaskState.ASSIGNED, TaskState.RUNNING, { routed: false }), "move ACCEPTED");
  assert.equal(act(TaskState.RUNNING, TaskState.RUNNING, { routed: false }), "wait");
  assert.equal(act(TaskState.PREPARING, TaskState.SHUTDOWN, { routed: false }), "stop");
});
