/** Carries out one fault on the running cluster. What depends on the state of the moment is drawn from the fault's salt. */
import type { ConfChangeStep, ConfState, MemberId } from "../../manager/raft/core/types.ts";
import type { MemberRecord } from "../../manager/raft/member-table.ts";
import { Random } from "../../lib/pure/prng.ts";
import type { Checks } from "./checks.ts";
import { isQuorum } from "./checks.ts";
import type { Act, Fault, MembershipChange, Shape, Trigger, Who } from "./faults.ts";
import type { MarkName } from "./marks.ts";
import type { Network } from "./network.ts";
import { electionUs, type SimOptions } from "./options.ts";
import type { SimProcess } from "./process.ts";

export interface StrikeHost {
  readonly nowUs: number;
  readonly options: SimOptions;
  readonly isHealed: boolean;
  readonly processes: readonly SimProcess[];
  readonly network: Network;
  readonly checks: Checks;
  schedule(atUs: number, run: () => void): void;
  mark(name: MarkName): void;
  note(what: () => string): void;
  who(who: Who, subject: SimProcess | undefined): SimProcess | undefined;
  leader(): SimProcess | undefined;
  newcomer(): SimProcess | undefined;
  record(id: MemberId, autoPromote: boolean): MemberRecord;
  trigger(name: Trigger, process: SimProcess): void;
  /** The leader asks for the present level. */
  raiseLevel(): void;
}

export function strike(host: StrikeHost, fault: Fault, subject: SimProcess | undefined, on: Trigger | undefined): void {
  const act = fault.act;
  switch (act.kind) {
    case "crash":
      return crash(host, act, host.who(act.who, subject), on);
    case "power cut":
      host.mark("whole cluster down");
      for (const process of host.processes) crash(host, { ...act, kind: "crash", who: 0 }, process, undefined);
      return;
    case "pause":
      host.mark("pause");
      host.who(act.who, subject)?.pause(act.forUs);
      return;
    case "partition":
      return partition(host, act.shape, act.forUs, Random.stream(act.salt, "partition"));
    case "isolate":
      return isolate(host, host.who(act.who, subject), act.forUs);
    case "clog":
      return clog(host, host.who(act.who, subject), act.forUs, act.salt);
    case "reset": {
      const one = host.who(act.who, subject);
      if (one === undefined) return;
      for (const other of host.processes) {
        if (other === one) continue;
        host.network.reset(one.id, other.id);
        host.network.reset(other.id, one.id);
      }
      return;
    }
    case "clock": {
      const process = host.who(act.who, subject);
      if (process === undefined) return;
      host.mark("clock rate changed");
      process.setRate(act.rate);
      host.schedule(host.nowUs + act.forUs, () => process.setRate(1));
      return;
    }
    case "wall clock":
      host.mark("wall clock set");
      host.who(act.who, subject)?.setWall(act.byUs);
      return;
    case "tick burst":
      host.mark("tick burst");
      host.who(act.who, subject)?.leap(act.ticks * host.options.tickUs);
      return;
    case "disk slow": {
      const process = host.who(act.who, subject);
      if (process === undefined) return;
      host.mark("disk slow");
      process.diskSlowUs = act.latencyUs;
      process.diskSlowUntilUs = host.nowUs + act.forUs;
      process.diskFaults++;
      return;
    }
    case "disk stall": {
      const process = host.who(act.who, subject);
      if (process === undefined) return;
      host.mark("disk stall");
      process.diskStalledUntilUs = host.nowUs + act.forUs;
      process.diskFaults++;
      return;
    }
    case "disk error": {
      const process = host.who(act.who, subject);
      if (process === undefined) return;
      process.diskFaults++;
      process.disk.fail(act.error);
      host.schedule(host.nowUs + act.forUs, () => process.disk.mend());
      return;
    }
    case "corrupt":
      return corrupt(host, act, host.who(act.who, subject));
    case "memory flip":
      return flip(host, host.who(act.who, subject), Random.stream(act.salt, "flip"));
    case "old binary":
      return runOld(host, act, host.who(act.who, subject));
    case "raise level":
      return host.raiseLevel();
    case "membership":
      return changeMembers(host, act.change, Random.stream(act.salt, "membership"));
    case "transfer":
      return transfer(host, Random.stream(act.salt, "transfer"));
    case "drop type": {
      host.mark("message type dropped");
      const undo = host.network.filter((message) => (message.type === act.type ? "drop" : "pass"));
      host.schedule(host.nowUs + act.forUs, undo);
      return;
    }
    case "delay old":
      return delayOld(host, act);
    case "alternate":
      return alternate(host, act.everyUs, act.times);
  }
}

function crash(
  host: StrikeHost,
  act: Extract<Act, { kind: "crash" }>,
  process: SimProcess | undefined,
  on: Trigger | undefined,
): void {
  if (process === undefined || !process.alive) return;
  if (on === "vote durable") host.mark("crash right after a durable vote");
  if (on === "vote about to leave") host.mark("crash right before a vote leaves");
  if (on === "leader") host.mark("crash of a fresh leader");
  if (on === "append partly sent") host.mark("crash after a partial replicate");
  if (on === "conf applied" || on === "conf proposed") host.mark("crash around a configuration change");
  if (act.downUs < electionUs(host.options)) host.mark("restart within one election");
  process.crash(act.loss, Random.stream(act.salt, `crash/${process.id}`));
  host.network.resetAll(
    process.id,
    host.processes.map((other) => other.id),
  );
  for (const other of host.processes) {
    if (other !== process) other.enter(() => other.member?.unreachable(process.id));
  }
  tellGone(host, process, Random.stream(act.salt, `gone/${process.id}`));
  host.schedule(host.nowUs + act.downUs, () => {
    if (!host.isHealed) process.start();
  });
}

/**
 * Most of the others notice, by a port that refuses them, that a process has ended, each at its own time; now and then one
 * is told so of a process that lives, and whoever is cut off hears nothing.
 */
function tellGone(host: StrikeHost, gone: SimProcess, random: Random): void {
  for (const other of host.processes) {
    if (other === gone) continue;
    const who = random.chance(0.1) ? random.pick(host.processes) : gone;
    const noticedUs = host.nowUs + random.int(50, 20_000);
    if (random.chance(0.3) || who === other) continue;
    host.schedule(noticedUs, () => {
      if (other.alive && !host.network.isCut(other.id, who.id)) other.enter(() => other.member?.gone(who.id));
    });
  }
}

/** Cuts the links that `isCut` names, and joins them again later. */
function cutFor(host: StrikeHost, forUs: number, isCut: (from: MemberId, to: MemberId) => boolean): void {
  const cut: (readonly [MemberId, MemberId])[] = [];
  for (const { id: from } of host.processes) {
    for (const { id: to } of host.processes) if (from !== to && isCut(from, to)) cut.push([from, to]);
  }
  for (const [from, to] of cut) host.network.cut(from, to);
  host.schedule(host.nowUs + forUs, () => {
    if (host.isHealed) return;
    for (const [from, to] of cut) host.network.join(from, to);
  });
}

function isolate(host: StrikeHost, process: SimProcess | undefined, forUs: number): void {
  if (process === undefined) return;
  host.mark("partition isolating one");
  cutFor(host, forUs, (from, to) => from === process.id || to === process.id);
}

function partition(host: StrikeHost, shape: Shape, forUs: number, random: Random): void {
  const ids = random.shuffle(host.processes.map((process) => process.id));
  const place = new Map(ids.map((id, at) => [id, at]));
  const placeOf = (id: MemberId): number => place.get(id) ?? 0;
  const count = ids.length;
  switch (shape) {
    case "isolate":
      return isolate(host, random.chance(0.5) ? host.leader() : host.processes[random.int(0, count)], forUs);
    case "split": {
      host.mark("partition splitting in two");
      const left = random.int(1, Math.max(2, count));
      return cutFor(host, forUs, (from, to) => placeOf(from) < left !== placeOf(to) < left);
    }
    case "bridge": {
      // Two halves that see each other only through one member.
      host.mark("partition as a bridge");
      const middle = Math.floor(count / 2);
      const side = (id: MemberId): number => Math.sign(placeOf(id) - middle);
      return cutFor(host, forUs, (from, to) => side(from) * side(to) < 0);
    }
    case "ring":
      host.mark("partition as a ring");
      return cutFor(host, forUs, (from, to) => {
        const distance = Math.abs(placeOf(from) - placeOf(to));
        return distance > 1 && distance < count - 1;
      });
    case "majority ring": {
      // Everybody sees a majority, and no two see the same one (Jepsen's majorities-ring).
      host.mark("partition as a ring");
      const reach = Math.floor(count / 4) + 1;
      return cutFor(host, forUs, (from, to) => {
        const distance = Math.abs(placeOf(from) - placeOf(to));
        return Math.min(distance, count - distance) > reach;
      });
    }
    case "one way": {
      host.mark("partition one way");
      const one = random.chance(0.5) ? host.leader()?.id : ids[0];
      const inward = random.chance(0.5);
      return cutFor(host, forUs, (from, to) => (inward ? to : from) === one);
    }
    case "last majority": {
      // Those who hold the last entry are cut from those who do not, and, when they are a majority, from one another.
      const last = Math.max(...ids.map((id) => host.checks.durableLast(id).index));
      const holders = new Set(ids.filter((id) => host.checks.durableLast(id).index === last));
      host.mark("partition of the last entry's majority");
      const apart = holders.size > count / 2 && random.chance(0.5);
      return cutFor(host, forUs, (from, to) => holders.has(from) !== holders.has(to) || (apart && holders.has(from)));
    }
  }
}

function clog(host: StrikeHost, process: SimProcess | undefined, forUs: number, salt: number): void {
  if (process === undefined) return;
  const random = Random.stream(salt, "clog");
  for (const other of host.processes) {
    if (other === process || random.chance(0.3)) continue;
    if (random.chance(0.7)) host.network.clog(process.id, other.id, host.nowUs + forUs);
    if (random.chance(0.7)) host.network.clog(other.id, process.id, host.nowUs + forUs);
  }
}

/**
 * Destroys synced data of one member, only if those never destroyed stay a quorum of every configuration in force: the
 * atlas that lets us demand recovery, not safety alone.
 */
function corrupt(host: StrikeHost, act: Extract<Act, { kind: "corrupt" }>, process: SimProcess | undefined): void {
  if (process === undefined || process.isDamaged || process.isRemoved) return;
  if (!isSpare(host, process)) return;
  const random = Random.stream(act.salt, "corrupt");
  process.crash("all", random);
  if (!process.damage(act.how, random)) return;
  host.mark("corruption injected");
  host.schedule(host.nowUs + act.downUs, () => {
    if (!host.isHealed) process.start();
  });
}

/** Whether the others, without those that are spoilt already, are a quorum of every configuration in force. */
function isSpare(host: StrikeHost, process: SimProcess): boolean {
  const fit = (id: MemberId): boolean => id !== process.id && isFit(host, id);
  return !host.checks.isConfChanging() && confsOf(host).every((conf) => isQuorum(conf, fit));
}

function isFit(host: StrikeHost, id: MemberId): boolean {
  const process = host.processes[id - 1];
  return process !== undefined && !process.isDamaged && !process.isFlipped;
}

/** One bit in the memory of one member, under the rule of the atlas: it will be lost when that is found out. */
function flip(host: StrikeHost, process: SimProcess | undefined, random: Random): void {
  if (process === undefined || process.isUnfit || process.isFlipped || !isSpare(host, process)) return;
  if (process.flip(random)) host.mark("flip in memory");
}

/** An operator goes back a version, and some time later forward again. */
function runOld(host: StrikeHost, act: Extract<Act, { kind: "old binary" }>, process: SimProcess | undefined): void {
  if (process === undefined || process.isOld || process.isUnfit) return;
  const { loss, salt } = act;
  const restart = (isOld: boolean, downUs: number): void => {
    process.isOld = isOld;
    crash(host, { kind: "crash", who: process.id, downUs, loss, salt }, process, undefined);
    if (!process.alive) host.schedule(host.nowUs + downUs, () => host.isHealed || process.start());
  };
  host.mark("old binary started");
  restart(true, act.downUs);
  host.schedule(host.nowUs + act.downUs + act.forUs, () => {
    if (!host.isHealed) restart(false, act.downUs);
  });
}

/** All configurations that somebody may go by now, or after a restart from its disk. */
export function confsOf(host: Pick<StrikeHost, "processes" | "checks">): ConfState[] {
  const oldest = Math.min(...host.processes.filter(({ isUnfit }) => !isUnfit).map(({ disk }) => disk.snapshotIndex));
  return host.checks.confsSince(oldest).filter((conf) => conf.voters.length > 0);
}

function changeMembers(host: StrikeHost, change: MembershipChange, random: Random): void {
  const leader = host.leader();
  const member = leader?.member;
  if (leader === undefined || member === undefined) return;
  const { conf } = member;
  const steps: ConfChangeStep[] = [];
  const records: MemberRecord[] = [];
  const add = (): MemberId | undefined => {
    const process = host.newcomer();
    if (process === undefined) return undefined;
    records.push(host.record(process.id, random.chance(0.5)));
    return process.id;
  };
  const others = conf.voters.filter((id) => id !== leader.id);
  const someVoter = others.length === 0 ? undefined : random.pick(others);
  const someLearner = conf.learners.length === 0 ? undefined : random.pick(conf.learners);
  switch (change) {
    case "add learner": {
      const id = add();
      if (id !== undefined) steps.push({ act: "addLearner", member: id });
      break;
    }
    case "promote":
      if (someLearner !== undefined) steps.push({ act: "addVoter", member: someLearner });
      break;
    case "demote":
      if (someVoter !== undefined) steps.push({ act: "addLearner", member: someVoter });
      break;
    case "remove": {
      const gone = someLearner ?? someVoter;
      if (gone !== undefined) steps.push({ act: "remove", member: gone });
      break;
    }
    case "remove leader":
      steps.push({ act: "remove", member: leader.id });
      break;
    case "replace": {
      const id = add();
      if (id === undefined || someVoter === undefined) break;
      steps.push({ act: "remove", member: someVoter }, { act: "addLearner", member: id });
      host.mark("member replaced");
      break;
    }
    case "swap jointly": {
      if (someLearner === undefined || someVoter === undefined) break;
      steps.push({ act: "addVoter", member: someLearner }, { act: "addLearner", member: someVoter });
      break;
    }
    case "leave joint":
      if (conf.votersOutgoing.length === 0) return;
      break;
  }
  if (steps.length === 0 && change !== "leave joint") return;
  if (!staysRecoverable(host, conf, steps)) return;
  host.note(() => `membership at n${leader.id}: ${JSON.stringify(steps)}`);
  const life = leader.life;
  leader.enter(() => {
    leader.member?.changeMembers({ steps, records, force: false }, (outcome) => {
      if (leader.life !== life) return;
      host.note(() => `membership at n${leader.id}: ${outcome.kind}`);
      if (outcome.kind === "refused") host.mark("configuration change refused");
      if (outcome.kind !== "changed") return;
      if (change === "remove leader") host.mark("leader removed");
    });
    host.trigger("conf proposed", leader);
  });
}

/** A change may not leave a voter set in which the members with destroyed data decide. */
function staysRecoverable(host: StrikeHost, conf: ConfState, steps: readonly ConfChangeStep[]): boolean {
  const voters = new Set(conf.voters);
  for (const step of steps) {
    if (step.act === "addVoter") voters.add(step.member);
    else if (step.act !== "update") voters.delete(step.member);
  }
  const fit = [...voters].filter((id) => isFit(host, id));
  return fit.length > voters.size / 2;
}

function transfer(host: StrikeHost, random: Random): void {
  const leader = host.leader();
  const conf = leader?.member?.conf;
  if (leader === undefined || conf === undefined) return;
  const others = conf.voters.filter((id) => id !== leader.id);
  if (others.length === 0) return;
  const to = random.chance(0.3) ? undefined : random.pick(others);
  const life = leader.life;
  leader.enter(() => {
    leader.member?.transfer(to, (outcome) => {
      if (leader.life !== life) return;
      if (outcome.kind === "transferred") host.mark("transfer completed");
      if (outcome.kind === "timedOut") host.mark("transfer aborted");
    });
    host.trigger("transfer", leader);
  });
}

/** Holds the next few messages of one type until two terms have passed, and then lets them go. */
function delayOld(host: StrikeHost, act: Extract<Act, { kind: "delay old" }>): void {
  let left = act.count;
  let heldTerm = 0;
  const undo = host.network.filter((message) => {
    if (message.type !== act.type || left === 0) return "pass";
    left--;
    heldTerm = Math.max(heldTerm, message.term);
    return "hold";
  });
  const look = (): void => {
    if (host.isHealed) return;
    if (heldTerm > 0 && host.checks.maxTerm >= heldTerm + 2) {
      undo();
      host.network.release();
      host.mark("old message delivered two terms later");
      return;
    }
    host.schedule(host.nowUs + electionUs(host.options) / 2, look);
  };
  look();
}

/** Cuts off whoever leads, again and again, so that leadership goes back and forth. */
function alternate(host: StrikeHost, everyUs: number, times: number): void {
  let left = times;
  const next = (): void => {
    if (host.isHealed || left-- === 0) return;
    const leader = host.leader();
    if (leader !== undefined) {
      host.mark("two leaders alternated");
      cutFor(host, everyUs, (from, to) => from === leader.id || to === leader.id);
    }
    host.schedule(host.nowUs + everyUs, next);
  };
  next();
}
