import assert from "node:assert/strict";
import test from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import { markNames, Marks } from "./marks.ts";
import { drawOptions, type SimOptions } from "./options.ts";
import { EventQueue } from "./queue.ts";
import { schedules } from "./schedules.ts";
import { shrink } from "./shrink.ts";
import { runSimulation } from "./simulation.ts";
import { withTraps } from "./traps.ts";

test("N1: events run by time, and in the order of planning at equal times", () => {
  const queue = new EventQueue();
  const random = new Random(1);
  const ran: { atUs: number; planned: number }[] = [];
  for (let planned = 0; planned < 2_000; planned++) {
    const atUs = random.int(0, 50);
    queue.push(atUs, () => ran.push({ atUs, planned }));
  }
  for (let event = queue.pop(); event !== undefined; event = queue.pop()) event.run();
  const sorted = ran.toSorted((a, b) => a.atUs - b.atUs || a.planned - b.planned);
  assert.deepEqual(ran, sorted);
});

test("N1: real time, chance and timers throw inside a turn and work again afterwards", () => {
  const micro: (() => void)[] = [];
  const inside = (act: () => unknown): void => {
    assert.throws(() => withTraps(act, (task) => micro.push(task)), { name: "ForbiddenInSimulation" });
  };
  inside(() => Date.now());
  inside(() => new Date());
  inside(() => Math.random());
  inside(() => performance.now());
  inside(() => setTimeout(() => {}, 1));
  inside(() => setImmediate(() => {}));
  inside(() => process.nextTick(() => {}));
  inside(() => crypto.getRandomValues(new Uint8Array(1)));
  withTraps(
    () => queueMicrotask(() => {}),
    (task) => micro.push(task),
  );
  assert.equal(micro.length, 1);
  const dated = withTraps(
    () => new Date(5).getTime(),
    (task) => micro.push(task),
  );
  assert.equal(dated, 5);
  assert.ok(Date.now() > 0 && Math.random() < 1);
});

test("N1: a seed gives the same run twice, and another seed another", () => {
  for (const seed of [3, 7, 20]) {
    const once = runSimulation(drawOptions(seed));
    const twice = runSimulation(drawOptions(seed));
    assert.equal(once.failure, undefined);
    assert.equal(once.traceHash, twice.traceHash);
    assert.equal(once.events, twice.events);
    assert.notEqual(once.traceHash, runSimulation(drawOptions(seed + 1)).traceHash);
  }
});

test("N10: a traced run is the same run, in words", () => {
  const options = drawOptions(9);
  const traced = runSimulation(options, { trace: true, traceMax: 50 });
  assert.equal(traced.traceHash, runSimulation(options).traceHash);
  assert.equal(traced.trace.length, 50);
});

test("N6: options survive being written down, and half of the seeds take at most two fault kinds", () => {
  const all = Array.from({ length: 400 }, (_, seed) => drawOptions(seed));
  const few = all.filter(({ kinds }) => kinds.length <= 2).length;
  assert.ok(few > 160 && few < 260, `${few} of 400`);
  for (const options of all.slice(0, 20)) assert.deepEqual(JSON.parse(JSON.stringify(options)), options);
});

test("N10: leaving one fault out does not change what the others draw", () => {
  const seed = Array.from({ length: 100 }, (_, at) => at).find((at) => drawOptions(at).kinds.length > 3)!;
  const options = drawOptions(seed);
  const [left, ...kinds] = options.kinds;
  const fewer = drawOptions(seed, { kinds });
  const acts = (from: SimOptions): string[] => from.faults.map(({ when, act }) => JSON.stringify({ when, act }));
  assert.ok(
    acts(fewer).every((act) => acts(options).includes(act)),
    `without ${left}`,
  );
});

test("N10: shrinking leaves the one fault, client and member that matter", () => {
  const big = drawOptions(40);
  const options: SimOptions = {
    ...big,
    voters: 5,
    faults: Array.from({ length: 24 }, (_, id) => ({ id, when: { atUs: id }, act: { kind: "transfer", salt: id } })),
  };
  // Stands for a run that breaks a promise whenever fault 17 is there and at least three members vote.
  const fails = ({ faults, voters }: SimOptions): string | undefined =>
    faults.some(({ id }) => id === 17) && voters >= 3 ? "B1" : undefined;
  const shrunk = shrink(options, fails)!;
  assert.equal(shrunk.check, "B1");
  assert.deepEqual(
    shrunk.options.faults.map(({ id }) => id),
    [17],
  );
  assert.equal(shrunk.options.voters, 3);
  assert.equal(shrunk.options.workload.clients, 1);
  assert.equal(
    shrink(options, () => undefined),
    undefined,
  );
});

test("N9: marks that were hardly reached are named, and every mark has one name", () => {
  const marks = new Marks();
  assert.equal(new Set(markNames).size, markNames.length);
  assert.equal(marks.missing().length, markNames.length);
  marks.hit("split vote", 9);
  assert.ok(marks.missing().includes("split vote"));
  marks.addAll({ "split vote": 1 });
  assert.ok(!marks.missing().includes("split vote"));
});

test("N11: there are at least 200 scripted schedules, under names of their own", () => {
  const names = schedules().map(({ name }) => name);
  assert.ok(names.length >= 200);
  assert.equal(new Set(names).size, names.length);
});
