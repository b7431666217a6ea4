/**
 * What goes wrong, when (N3 to N5, N7). A run's faults are planned up front as plain data, each at a time or armed on an
 * event of the cluster, so that shrinking can leave any of them out without shifting the rest.
 * Uniform faults alone missed planted bugs in 58,000 seeds; the armed ones strike where consensus is thinnest.
 */
import { unreachable } from "../../lib/pure/errors.ts";
import { Random } from "../../lib/pure/prng.ts";

export const faultKinds = [
  "crash",
  "pause",
  "partition",
  "clog",
  "reset",
  "clock",
  "disk slow",
  "disk error",
  "corruption",
  "membership",
  "transfer",
  "drop type",
  "crash at vote",
  "crash fresh leader",
  "crash at replicate",
  "restart in election",
  "cut last majority",
  "delay old",
  "alternate leaders",
  "conf and crash",
  "power cut",
  "old binary",
  "memory flip",
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** Drawn apart from the others, so that what seeds drew before these existed is what they draw now. */
export const laterKinds: readonly FaultKind[] = ["old binary", "memory flip"];

/** Events of the cluster on which a fault can be armed. The member at which it happened is the subject. */
export type Trigger =
  | "vote durable"
  | "vote about to leave"
  | "campaign"
  | "leader"
  | "append partly sent"
  | "entry durable"
  | "commit"
  | "conf proposed"
  | "conf applied"
  | "snapshot sent"
  | "snapshot installed"
  | "snapshot created"
  | "transfer"
  | "restart";

export const triggers: readonly Trigger[] = [
  "vote durable",
  "vote about to leave",
  "campaign",
  "leader",
  "append partly sent",
  "entry durable",
  "commit",
  "conf proposed",
  "conf applied",
  "snapshot sent",
  "snapshot installed",
  "snapshot created",
  "transfer",
  "restart",
];

export type When =
  | { readonly atUs: number }
  /** At the nth such event, so much later; then again at each `every`th further one, if given. */
  | { readonly on: Trigger; readonly nth: number; readonly afterUs: number; readonly every?: number };

/** Whom it hits: the subject of the event, the leader, any follower, or a member by number (modulo their count). */
export type Who = "subject" | "leader" | "follower" | number;

/** What a crash leaves of the writes that were not yet synced. */
export type Loss = "none" | "all" | "prefix" | "subset";

export type Shape = "isolate" | "split" | "bridge" | "ring" | "majority ring" | "one way" | "last majority";

export type MembershipChange =
  "add learner" | "promote" | "demote" | "remove" | "remove leader" | "replace" | "swap jointly" | "leave joint";

export type MessageType =
  | "preVote"
  | "vote"
  | "preVoteResponse"
  | "voteResponse"
  | "append"
  | "appendResponse"
  | "heartbeat"
  | "heartbeatResponse"
  | "snapshot"
  | "timeoutNow"
  | "readIndex"
  | "readIndexResponse";

const messageTypes: readonly MessageType[] = [
  "preVote",
  "vote",
  "preVoteResponse",
  "voteResponse",
  "append",
  "appendResponse",
  "heartbeat",
  "heartbeatResponse",
  "snapshot",
  "timeoutNow",
  "readIndex",
  "readIndexResponse",
];

export type DiskErrorKind = "read" | "write" | "sync" | "full";

/** "last record": a bit of the newest record, which no slot may have vouched for yet. */
export type CorruptionKind = "bit flip" | "lost write" | "misdirected write" | "last record" | "wiped";

/** `salt` seeds the choices that depend on the state of the cluster at that moment. */
export type Act =
  | { readonly kind: "crash"; readonly who: Who; readonly downUs: number; readonly loss: Loss; readonly salt: number }
  | { readonly kind: "power cut"; readonly downUs: number; readonly loss: Loss; readonly salt: number }
  | { readonly kind: "pause"; readonly who: Who; readonly forUs: number }
  | { readonly kind: "partition"; readonly shape: Shape; readonly forUs: number; readonly salt: number }
  | { readonly kind: "isolate"; readonly who: Who; readonly forUs: number }
  | { readonly kind: "clog"; readonly who: Who; readonly forUs: number; readonly salt: number }
  | { readonly kind: "reset"; readonly who: Who }
  | { readonly kind: "clock"; readonly who: Who; readonly rate: number; readonly forUs: number }
  | { readonly kind: "wall clock"; readonly who: Who; readonly byUs: number }
  | { readonly kind: "tick burst"; readonly who: Who; readonly ticks: number }
  | { readonly kind: "disk slow"; readonly who: Who; readonly latencyUs: number; readonly forUs: number }
  | { readonly kind: "disk stall"; readonly who: Who; readonly forUs: number }
  | { readonly kind: "disk error"; readonly who: Who; readonly error: DiskErrorKind; readonly forUs: number }
  | {
      readonly kind: "corrupt";
      readonly who: Who;
      readonly how: CorruptionKind;
      readonly downUs: number;
      readonly salt: number;
    }
  /** One object in the memory of the state machine is not what was stored (L7). */
  | { readonly kind: "memory flip"; readonly who: Who; readonly salt: number }
  /** Comes back as a program of the level before, and later as the present one again (N5, L5, L6). */
  | {
      readonly kind: "old binary";
      readonly who: Who;
      readonly downUs: number;
      readonly forUs: number;
      readonly loss: Loss;
      readonly salt: number;
    }
  | { readonly kind: "raise level" }
  | { readonly kind: "membership"; readonly change: MembershipChange; readonly salt: number }
  | { readonly kind: "transfer"; readonly salt: number }
  | { readonly kind: "drop type"; readonly type: MessageType; readonly forUs: number }
  /** Holds the next message of this type until the highest term has grown by two. */
  | { readonly kind: "delay old"; readonly type: MessageType; readonly count: number }
  | { readonly kind: "alternate"; readonly everyUs: number; readonly times: number };

export interface Fault {
  readonly id: number;
  readonly when: When;
  readonly act: Act;
}

/** What the plan depends on; part of the options of a run. */
export interface PlanInput {
  readonly seed: number;
  readonly kinds: readonly FaultKind[];
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly tickUs: number;
  readonly durationUs: number;
  readonly readMode: "readIndex" | "lease";
}

export function planFaults(options: PlanInput, random: Random): Fault[] {
  const faults: Fault[] = [];
  const electionUs = options.electionTicks * options.tickUs;
  const intensity = random.pick([0.5, 1, 1, 2]);
  for (const kind of faultKinds) {
    // Drawn for each kind, wanted or not: taking one kind out does not shift the others.
    const own = Random.stream(options.seed, `faults/${kind}`);
    if (!options.kinds.includes(kind)) continue;
    const count = Math.max(1, Math.round(intensity * own.pick([1, 2, 3, 5, 8])));
    for (let nth = 0; nth < count; nth++) faults.push({ id: 0, ...draw(kind, options, electionUs, own) });
  }
  return faults.map((fault, id) => ({ ...fault, id }));
}

function draw(kind: FaultKind, options: PlanInput, electionUs: number, random: Random): Omit<Fault, "id"> {
  const anyTime: When = { atUs: random.int(0, options.durationUs) };
  const salt = random.uint32();
  const someone: Who = random.pick(["leader", "leader", "follower", salt % 16, salt % 16]);
  const loss = random.pick<Loss>(["all", "all", "prefix", "subset", "none"]);
  const downUs = random.pick([
    random.int(1_000, electionUs),
    random.int(1_000, 4 * electionUs),
    random.int(1_000, 10_000_000),
  ]);
  const forUs = random.pick([random.int(20_000, electionUs), random.int(electionUs, 6 * electionUs)]);
  switch (kind) {
    case "crash":
      return { when: anyTime, act: { kind: "crash", who: someone, downUs, loss, salt } };
    case "power cut":
      return { when: anyTime, act: { kind: "power cut", downUs, loss, salt } };
    case "pause":
      return { when: anyTime, act: { kind: "pause", who: someone, forUs } };
    case "partition": {
      const shape = random.pick<Shape>(["isolate", "split", "bridge", "ring", "majority ring", "one way"]);
      return { when: anyTime, act: { kind: "partition", shape, forUs, salt } };
    }
    case "clog":
      return { when: anyTime, act: { kind: "clog", who: someone, forUs, salt } };
    case "reset":
      // In the middle of a snapshot, so that the next transfer goes on from there.
      if (random.chance(0.4)) {
        const when: When = { on: "snapshot sent", nth: random.int(1, 4), afterUs: random.int(0, 20_000), every: 1 };
        return { when, act: { kind: "reset", who: "subject" } };
      }
      return { when: anyTime, act: { kind: "reset", who: someone } };
    case "clock":
      if (random.chance(0.4)) {
        return { when: anyTime, act: { kind: "tick burst", who: someone, ticks: random.int(2, 50) } };
      }
      if (random.chance(0.3)) {
        return { when: anyTime, act: { kind: "wall clock", who: someone, byUs: random.int(-60_000_000, 60_000_000) } };
      }
      // A lease bears clocks that differ by a fifth, not by a factor of two (H7).
      return {
        when: anyTime,
        act: {
          kind: "clock",
          who: someone,
          rate: options.readMode === "lease" ? 0.92 + 0.16 * random.float() : 0.5 + 1.5 * random.float(),
          forUs: 4 * forUs,
        },
      };
    case "disk slow":
      if (random.chance(0.5)) return { when: anyTime, act: { kind: "disk stall", who: someone, forUs } };
      return {
        when: anyTime,
        act: { kind: "disk slow", who: someone, latencyUs: random.pick([5_000, 50_000, 500_000]), forUs: 3 * forUs },
      };
    case "disk error": {
      const error = random.pick<DiskErrorKind>(["read", "write", "sync", "full", "full"]);
      return { when: anyTime, act: { kind: "disk error", who: someone, error, forUs } };
    }
    case "corruption": {
      const how = random.pick<CorruptionKind>([
        "bit flip",
        "bit flip",
        "lost write",
        "misdirected write",
        "last record",
        "wiped",
      ]);
      // The newest record is the most telling just after it became durable.
      const when: When = how === "last record" ? { on: "entry durable", nth: random.int(5, 60), afterUs: 0 } : anyTime;
      const who: Who = how === "last record" ? "subject" : someone;
      return { when, act: { kind: "corrupt", who, how, downUs, salt } };
    }
    case "membership": {
      const change = random.pick<MembershipChange>([
        "add learner",
        "add learner",
        "promote",
        "promote",
        "demote",
        "remove",
        "remove leader",
        "replace",
        "swap jointly",
        "leave joint",
      ]);
      return { when: anyTime, act: { kind: "membership", change, salt } };
    }
    case "transfer":
      return { when: anyTime, act: { kind: "transfer", salt } };
    case "drop type":
      return { when: anyTime, act: { kind: "drop type", type: random.pick(messageTypes), forUs } };
    case "crash at vote": {
      const on = random.pick<Trigger>(["vote durable", "vote about to leave", "campaign"]);
      return {
        when: {
          on,
          nth: random.int(1, 10),
          afterUs: random.pick([0, 0, random.int(1, 2_000)]),
          every: random.int(2, 6),
        },
        act: { kind: "crash", who: "subject", downUs: random.int(100, Math.ceil(electionUs / 2)), loss, salt },
      };
    }
    case "crash fresh leader": {
      const afterUs = random.int(0, 3) * options.heartbeatTicks * options.tickUs + random.int(0, 3_000);
      return {
        when: { on: "leader", nth: random.int(1, 4), afterUs, every: random.int(1, 4) },
        act: { kind: "crash", who: "subject", downUs, loss, salt },
      };
    }
    case "crash at replicate":
      return {
        when: {
          on: random.pick<Trigger>(["append partly sent", "entry durable", "commit"]),
          nth: random.int(1, 60),
          afterUs: 0,
          every: random.int(20, 80),
        },
        act: { kind: "crash", who: random.pick<Who>(["subject", "leader"]), downUs, loss, salt },
      };
    case "restart in election":
      return {
        when: { on: random.pick<Trigger>(["campaign", "vote durable"]), nth: random.int(1, 8), afterUs: 0, every: 3 },
        act: {
          kind: "crash",
          who: random.pick<Who>(["subject", salt % 16]),
          downUs: random.int(100, Math.ceil(electionUs / 4)),
          loss,
          salt,
        },
      };
    case "cut last majority":
      return {
        when: random.chance(0.5)
          ? anyTime
          : {
              on: random.pick<Trigger>(["append partly sent", "entry durable", "commit"]),
              nth: random.int(1, 80),
              afterUs: 0,
            },
        act: { kind: "partition", shape: "last majority", forUs: 3 * forUs, salt },
      };
    case "delay old":
      return {
        when: anyTime,
        act: {
          kind: "delay old",
          type: random.pick<MessageType>([
            "append",
            "append",
            "snapshot",
            "appendResponse",
            "voteResponse",
            "preVoteResponse",
          ]),
          count: random.int(1, 4),
        },
      };
    case "alternate leaders":
      return {
        when: anyTime,
        act: { kind: "alternate", everyUs: random.int(electionUs, 4 * electionUs), times: random.int(2, 8) },
      };
    case "conf and crash": {
      if (random.chance(0.5)) {
        const change = random.pick<MembershipChange>([
          "add learner",
          "promote",
          "demote",
          "swap jointly",
          "swap jointly",
          "replace",
          "replace",
          "remove leader",
        ]);
        return { when: anyTime, act: { kind: "membership", change, salt } };
      }
      return {
        when: {
          on: random.pick<Trigger>(["conf proposed", "conf applied", "conf applied"]),
          nth: random.int(1, 6),
          afterUs: random.pick([0, 0, random.int(0, 5_000)]),
          every: random.int(1, 4),
        },
        act: { kind: "crash", who: random.pick<Who>(["subject", "leader", "leader", "follower"]), downUs, loss, salt },
      };
    }
    case "memory flip":
      return { when: anyTime, act: { kind: "memory flip", who: someone, salt } };
    case "old binary":
      // Raised early, it is the old ones that must not go on; late, they must have been able to.
      if (random.chance(0.4)) return { when: anyTime, act: { kind: "raise level" } };
      return {
        when: anyTime,
        act: { kind: "old binary", who: someone, downUs: random.int(1_000, electionUs), forUs: 4 * forUs, loss, salt },
      };
    default:
      return unreachable("a kind of fault that nobody plans", { kind });
  }
}
