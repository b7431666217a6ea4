/**
 * Random life of a small group of cores: everything that a network, a disk, an operator or a crash can do, drawn from one
 * seed, with the checks of RaftNetwork after every event. The full simulator adds time, real storage and the store; this
 * one is for the core alone, and quick.
 */
import assert from "node:assert/strict";
import { Random } from "../../lib/pure/prng.ts";
import {
  type ConfChangeStep,
  type CoreConfig,
  type MemberId,
  RaftInvariantError,
  type TraceSink,
  joinerState,
} from "../../manager/raft/core/index.ts";
import { RaftNetwork, bytesOf } from "./raft-network.ts";

export interface ChaosOptions {
  readonly seed: number;
  readonly events: number;
  readonly config?: Partial<CoreConfig>;
  readonly trace?: TraceSink;
}

export interface ChaosResult {
  /** How often each kind of event happened, for judging whether a run was worth anything. */
  readonly counts: ReadonlyMap<string, number>;
  readonly committed: number;
  readonly terms: number;
}

export function chaos({ seed, events, config, trace }: ChaosOptions): ChaosResult {
  const random = Random.stream(seed, "chaos");
  const founders = [1, 2, 3, 4, 5].slice(0, random.pick([1, 2, 3, 3, 3, 4, 5]));
  const tiny = random.chance(0.5);
  const net = new RaftNetwork({
    voters: founders,
    seed,
    ...(trace === undefined ? {} : { trace }),
    config: {
      electionTicks: 10,
      heartbeatTicks: 2,
      preVote: random.chance(0.8),
      readMode: random.chance(0.3) ? "lease" : "readIndex",
      ...(tiny
        ? {
            maxEntriesPerMsgBytes: 40,
            maxInflightMsgs: 2,
            maxInflightBytes: 100,
            maxApplyBytes: 60,
            maxUncommittedBytes: 400,
          }
        : {}),
      ...config,
    },
  });
  const counts = new Map<string, number>();
  const count = (name: string): void => void counts.set(name, (counts.get(name) ?? 0) + 1);
  let nextMember = founders.length + 1;
  let nextValue = 0;
  let nextRead = 1;
  /** Highest commit index acknowledged when a read was asked for. */
  const readFloor = new Map<number, number>();
  const acknowledged = (): number => net.checks.committedTo;

  const acts: [weight: number, name: string, act: (id: MemberId) => boolean][] = [
    [300, "deliver", () => deliverOne(net, random)],
    [60, "deliver late", () => net.queue.length > 0 && (deliverAt(net, random.int(0, net.queue.length)), true)],
    [
      12,
      "drop",
      () =>
        net.queue.length > 0 &&
        (net.queue
          .splice(random.int(0, net.queue.length), 1)
          .forEach((message) => message.type === "snapshot" && net.reportSnapshot(message, false)),
        true),
    ],
    [
      10,
      "duplicate",
      () => net.queue.length > 0 && net.queue.length < 500 && (net.queue.push(random.pick(net.queue)), true),
    ],
    [4, "drop all", () => (net.take((message) => message.type !== "snapshot" && random.chance(0.7)), true)],
    [150, "tick", (id) => (net.tick(id), true)],
    [6, "tick long", (id) => (net.tick(id, random.int(5, 30)), true)],
    [60, "propose", (id) => propose(id)],
    [8, "pause disk", (id) => (net.pauseDisk(id), true)],
    [30, "fsync one", (id) => (net.fsync(id, 1), true)],
    [12, "resume disk", (id) => (net.resumeDisk(id), true)],
    [4, "pause apply", (id) => (net.pauseApply(id), true)],
    [10, "apply one", (id) => (net.apply(id, 1), true)],
    [8, "resume apply", (id) => (net.resumeApply(id), true)],
    [4, "crash", (id) => (net.crash(id), true)],
    [6, "cut", () => (net.cut(random.pick(net.ids), random.pick(net.ids)), true)],
    [2, "isolate", (id) => (net.isolate(id), true)],
    [5, "heal", () => (net.heal(), true)],
    [5, "campaign", (id) => net.input(id, (core) => core.campaign())],
    [
      5,
      "transfer",
      (id) => net.input(id, (core) => core.transferLeadership(random.chance(0.5) ? 0 : random.pick(net.ids))).accepted,
    ],
    [12, "read", (id) => read(id)],
    [12, "change", (id) => change(id)],
    [8, "snapshot", (id) => net.core(id).status().applied > 0 && (net.snapshot(id), true)],
    [
      8,
      "compact",
      (id) => (
        net.compact(id, Math.min(net.disk(id).snapshot.index, net.core(id).status().applied) - random.int(0, 4)),
        true
      ),
    ],
    [3, "unreachable", (id) => (net.input(id, (core) => core.reportUnreachable(random.pick(net.ids))), true)],
    [3, "gone", (id) => (net.input(id, (core) => core.reportGone(random.pick(net.ids))), true)],
    [3, "stalled", (id) => (net.input(id, (core) => core.stalled()), true)],
    [2, "forget", (id) => (net.input(id, (core) => core.forgetLeader()), true)],
  ];
  const total = acts.reduce((sum, [weight]) => sum + weight, 0);

  function propose(id: MemberId): boolean {
    const values = Array.from({ length: random.int(1, 4) }, () => `v${nextValue++}`);
    return net.input(id, (core) => core.propose(values.map((value) => new TextEncoder().encode(value)))).accepted;
  }

  function read(id: MemberId): boolean {
    const requestId = nextRead++;
    readFloor.set(requestId, acknowledged());
    return net.input(id, (core) => core.readIndex(requestId)).accepted;
  }

  function change(id: MemberId): boolean {
    const { conf, role } = net.core(id).status();
    if (role !== "leader") return false;
    const steps: ConfChangeStep[] = [];
    if (conf.votersOutgoing.length === 0 || random.chance(0.2)) {
      for (let left = random.pick([1, 1, 1, 2, 3]); left > 0; left--) {
        const act = random.pick(["addVoter", "addLearner", "remove", "update"] as const);
        const fresh = net.ids.length < 7 && random.chance(0.3);
        if (fresh) net.add(nextMember, joinerState());
        steps.push({ act, member: fresh ? nextMember++ : random.pick(net.ids) });
      }
    }
    const transition = random.pick(["auto", "auto", "jointImplicit", "jointExplicit"] as const);
    const force = random.chance(0.5);
    return net.input(id, (core) => core.proposeConfChange({ transition, steps, context: new Uint8Array(0) }, { force }))
      .accepted;
  }

  for (let event = 0; event < events; event++) {
    let drawn = random.int(0, total);
    const chosen = acts.find(([weight]) => (drawn -= weight) < 0);
    assert.ok(chosen !== undefined);
    const [, name, act] = chosen;
    const up = net.running;
    // The dead come back soon, else nothing happens in the end.
    for (const id of net.ids) if (!net.isUp(id) && random.chance(0.02)) net.restart(id);
    if (up.length > 0 && act(random.pick(up))) count(name);
    checkReads(net, readFloor);
  }
  recover(net, seed);
  checkReads(net, readFloor);
  return {
    counts,
    committed: net.checks.committedTo,
    terms: Math.max(...net.ids.map((id) => net.core(id).status().term)),
  };
}

function deliverOne(net: RaftNetwork, random: Random): boolean {
  // Each pair keeps its order here, as on a stream; "deliver late" does not.
  if (net.queue.length === 0) return false;
  const to = random.pick(net.queue);
  deliverAt(
    net,
    net.queue.findIndex((message) => message.from === to.from && message.to === to.to),
  );
  return true;
}

function deliverAt(net: RaftNetwork, at: number): void {
  const [message] = net.queue.splice(at, 1);
  if (message !== undefined) net.deliver(message);
}

/** No read is answered with an index below what was committed when it was asked for (read index). */
function checkReads(net: RaftNetwork, floor: Map<number, number>): void {
  for (const id of net.ids) {
    for (const { requestId, index, lease } of net.reads(id)) {
      const least = floor.get(requestId);
      // Ticks come at random here, so clocks drift without bound: a lease promises nothing then.
      if (least !== undefined && !lease && index < least) {
        throw new RaftInvariantError("a read sees all that was acknowledged before it", {
          id,
          requestId,
          index,
          least,
        });
      }
      floor.delete(requestId);
    }
  }
}

/** After everything is healed: one leader, and a new proposal reaches everybody who belongs to the group. */
function recover(net: RaftNetwork, seed: number): void {
  net.heal();
  for (const id of net.ids) {
    if (!net.isUp(id)) net.restart(id);
    net.resumeDisk(id);
    net.resumeApply(id);
  }
  net.settle();
  const done = (): boolean => {
    const leader = net.leader();
    if (leader === 0) return false;
    const { conf, commit, lastIndex } = net.core(leader).status();
    if (commit !== lastIndex || (conf.votersOutgoing.length > 0 && conf.autoLeave)) return false;
    const everybody = [...new Set([...conf.voters, ...conf.votersOutgoing, ...conf.learners, ...conf.learnersNext])];
    return everybody.every((id) => net.core(id).status().applied === commit);
  };
  const report = (): string =>
    `seed ${seed} does not recover: ${JSON.stringify(net.ids.map((id) => ({ ...net.core(id).status(), peers: [...net.core(id).status().peers] })))}`;
  assert.ok(net.run(1_000, done), report());
  const propose = (): boolean => {
    const leader = net.leader();
    return leader !== 0 && net.input(leader, (core) => core.propose([bytesOf("last")])).accepted;
  };
  assert.ok(net.run(1_000, propose), report());
  assert.ok(net.run(1_000, done), report());
}
