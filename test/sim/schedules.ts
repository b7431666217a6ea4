/**
 * Scripted schedules (N11): every combination of an event on which a fault is armed, what then happens, and how soon,
 * over otherwise quiet clusters. What seeds reach by luck, these reach by plan.
 */
import { triggers, type Act, type Fault, type Trigger } from "./faults.ts";
import { drawOptions, electionUs, type SimOptions } from "./options.ts";

interface Story {
  readonly name: string;
  readonly acts: (options: SimOptions) => readonly Act[];
}

const stories: readonly Story[] = [
  {
    name: "the subject crashes and is back within the election",
    acts: (o) => [{ kind: "crash", who: "subject", downUs: Math.ceil(electionUs(o) / 4), loss: "all", salt: 1 }],
  },
  {
    name: "the subject crashes for long",
    acts: (o) => [{ kind: "crash", who: "subject", downUs: 5 * electionUs(o), loss: "subset", salt: 2 }],
  },
  {
    name: "the leader crashes",
    acts: (o) => [{ kind: "crash", who: "leader", downUs: 2 * electionUs(o), loss: "prefix", salt: 3 }],
  },
  {
    name: "the subject is cut off",
    acts: (o) => [{ kind: "isolate", who: "subject", forUs: 3 * electionUs(o) }],
  },
  {
    name: "the leader is cut off and a follower crashes",
    acts: (o) => [
      { kind: "isolate", who: "leader", forUs: 3 * electionUs(o) },
      { kind: "crash", who: "follower", downUs: electionUs(o), loss: "all", salt: 4 },
    ],
  },
  {
    name: "the leader pauses",
    acts: (o) => [{ kind: "pause", who: "leader", forUs: 3 * electionUs(o) }],
  },
  {
    name: "everybody loses power",
    acts: (o) => [{ kind: "power cut", downUs: Math.ceil(electionUs(o) / 2), loss: "all", salt: 5 }],
  },
  {
    name: "another change is asked for",
    acts: () => [
      { kind: "membership", change: "add learner", salt: 7 },
      { kind: "membership", change: "promote", salt: 8 },
    ],
  },
  {
    name: "holders of the last entry are cut off",
    acts: (o) => [{ kind: "partition", shape: "last majority", forUs: 3 * electionUs(o), salt: 6 }],
  },
];

const delaysInHeartbeats = [0, 1];

/** At least 200 cases, the same on every run. */
export function schedules(): { readonly name: string; readonly options: SimOptions }[] {
  const cases: { name: string; options: SimOptions }[] = [];
  for (const on of triggers) {
    for (const story of stories) {
      for (const heartbeats of delaysInHeartbeats) cases.push(scripted(cases.length, on, story, heartbeats));
    }
  }
  return cases;
}

function scripted(
  number: number,
  on: Trigger,
  story: Story,
  heartbeats: number,
): { name: string; options: SimOptions } {
  const base = drawOptions(number, {
    seed: 7_000_000 + number,
    kinds: [],
    faults: [],
    voters: number % 3 === 0 ? 5 : 3,
    learners: number % 2,
    preVote: true,
    // Under a lease a read at the wrong moment shows what a pause or a cut has made of it.
    readMode: number % 2 === 0 ? "lease" : "readIndex",
    snapshotEntries: 20,
    durationUs: 5_000_000,
    coreEventsMax: 2_000,
    coreQuorumOnly: number % 4 === 0,
  });
  const busy = { ...base.workload, clients: 5, thinkUs: 10_000, wander: 0.4, operationsMax: 200 };
  const afterUs = heartbeats * base.heartbeatTicks * base.tickUs;
  const faults: Omit<Fault, "id">[] = story.acts(base).flatMap((act): Omit<Fault, "id">[] => [
    {
      when: {
        on,
        nth: 2,
        afterUs,
        every: on === "commit" || on === "entry durable" || on === "append partly sent" ? 40 : 3,
      },
      act,
    },
  ]);
  // Something has to happen for the rarer events to come about.
  const half = base.durationUs / 2;
  if (on === "conf proposed" || on === "conf applied") {
    faults.push({ when: { atUs: half / 2 }, act: { kind: "membership", change: "add learner", salt: number } });
    faults.push({ when: { atUs: half }, act: { kind: "membership", change: "promote", salt: number } });
    faults.push({ when: { atUs: half * 1.5 }, act: { kind: "membership", change: "swap jointly", salt: number } });
  }
  if (on === "transfer") {
    for (const part of [0.5, 1, 1.5])
      faults.push({ when: { atUs: half * part }, act: { kind: "transfer", salt: number } });
  }
  if (on === "snapshot sent" || on === "snapshot installed" || on === "restart") {
    for (const part of [0.4, 1]) {
      faults.push({
        when: { atUs: Math.round(half * part) },
        act: { kind: "crash", who: "follower", downUs: 4 * electionUs(base), loss: "all", salt: number },
      });
    }
  }
  return {
    name: `on ${on}, ${heartbeats} heartbeats later: ${story.name}`,
    options: {
      ...base,
      workload: number % 4 < 2 ? busy : base.workload,
      faults: faults.map((fault, id) => ({ ...fault, id })),
    },
  };
}
