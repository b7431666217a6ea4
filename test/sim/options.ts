/**
 * What one seed runs (N6): everything that was drawn for it, as plain data, so that a run can be written down, cut
 * smaller and replayed. Each seed takes a random subset of the fault kinds with intensities of its own; half of the
 * seeds take at most two kinds, since many kinds at once hide what few would show.
 */
import { Random } from "../../lib/pure/prng.ts";
import { planFaults, type Fault, type FaultKind, faultKinds, laterKinds } from "./faults.ts";
import type { NetworkOptions } from "./network.ts";

export interface DiskOptions {
  readonly minUs: number;
  readonly meanUs: number;
}

export interface LimitOptions {
  readonly maxEntriesPerMsgBytes: number;
  readonly maxInflightMsgs: number;
  readonly maxInflightBytes: number;
  readonly maxUncommittedBytes: number;
  readonly maxUncommittedEntries: number;
  readonly maxApplyBytes: number;
}

export interface WorkloadOptions {
  readonly clients: number;
  readonly operationsMax: number;
  /** Mean pause of a client between two operations. */
  readonly thinkUs: number;
  /** How long a client waits before it calls the outcome unknown and goes on. */
  readonly patienceUs: number;
  readonly registers: number;
  readonly accounts: number;
  /** Shares of the kinds of operation; need not add up to one. */
  readonly mix: {
    readonly put: number;
    readonly get: number;
    readonly cas: number;
    readonly delete: number;
    readonly list: number;
    readonly transfer: number;
    readonly unique: number;
  };
  /** Chance that an operation goes to a random member instead of the one believed to lead. */
  readonly wander: number;
}

export interface SimOptions {
  readonly seed: number;
  readonly voters: number;
  readonly learners: number;
  readonly tickUs: number;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly preVote: boolean;
  readonly readMode: "readIndex" | "lease";
  readonly limits: LimitOptions;
  /** A snapshot after so many applied entries, and how many entries stay before it. */
  readonly snapshotEntries: number;
  readonly trailingEntries: number;
  readonly segmentBytes: number;
  /** "aes": the real cipher, twenty times as slow as its stand-in with the same checks. */
  readonly cipher: "plain" | "aes";
  /** A member's watch is read at every nth applied entry; a slow one falls behind what is kept. */
  readonly watchEvery: number;
  readonly watchChangesMax: number;
  /** State hashes are compared through the log every so many entries. */
  readonly hashEvery: number;
  /** The leader puts every member on record, as managers do: only then they vote on state hashes and levels. */
  readonly recordsMembers?: boolean;
  /** How long a client's session lives without a request. */
  readonly sessionTtlUs: number;
  readonly network: NetworkOptions;
  readonly disk: DiskOptions;
  readonly workload: WorkloadOptions;
  /** The phase with faults ends at this time, or after so many core events. */
  readonly durationUs: number;
  readonly coreEventsMax: number;
  readonly kinds: readonly FaultKind[];
  readonly faults: readonly Fault[];
  /** In the last phase only a random quorum lives; otherwise everybody comes back. */
  readonly coreQuorumOnly: boolean;
}

const laterShare = 0.12;

/** Everything about one seed. `overrides` replace what was drawn, before the faults are planned. */
export function drawOptions(seed: number, overrides: Partial<SimOptions> = {}): SimOptions {
  const random = Random.stream(seed, "swarm");
  const later = Random.stream(seed, "later");
  const drawn = drawKinds(random);
  const kinds = [...drawn, ...laterKinds.filter(() => later.chance(laterShare))];
  const voters = random.pick([1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
  const electionTicks = random.pick([5, 8, 10, 10, 16]);
  const tiny = random.chance(0.3);
  const streams = random.chance(0.5);
  const meanUs = random.pick([300, 1_000, 3_000, 10_000, 30_000]);
  const options: Omit<SimOptions, "faults"> = {
    seed,
    voters,
    // A change of members needs somebody to change.
    learners:
      kinds.includes("membership") || kinds.includes("conf and crash")
        ? random.pick([0, 1, 2, 2])
        : random.pick([0, 0, 0, 1]),
    tickUs: random.pick([10_000, 25_000, 25_000, 50_000]),
    electionTicks,
    heartbeatTicks: random.pick([1, 2]),
    preVote: random.chance(0.85),
    readMode: random.chance(0.2) ? "lease" : "readIndex",
    limits: {
      maxEntriesPerMsgBytes: tiny ? random.pick([1, 200, 1_000]) : 65_536,
      maxInflightMsgs: tiny ? random.pick([1, 2, 4]) : 64,
      maxInflightBytes: tiny ? random.pick([300, 2_000]) : 1 << 20,
      maxUncommittedBytes: tiny ? random.pick([1_500, 10_000]) : 1 << 20,
      maxUncommittedEntries: tiny ? random.pick([6, 30]) : 10_000,
      maxApplyBytes: tiny ? random.pick([1, 500]) : 1 << 20,
    },
    snapshotEntries: random.pick([8, 20, 20, 60, 1_000]),
    trailingEntries: random.pick([0, 2, 10]),
    segmentBytes: random.pick([1_024, 4_096, 65_536]),
    cipher: random.chance(0.02) ? "aes" : "plain",
    watchEvery: random.pick([1, 3, 20]),
    watchChangesMax: random.pick([4, 64, 1_000]),
    // A flip is found at the next comparison, and many runs do not get far.
    hashEvery: Math.min(random.pick([16, 1_024]), kinds.includes("memory flip") ? 16 : 1_024),
    recordsMembers: later.chance(0.3) || laterKinds.some((kind) => kinds.includes(kind)),
    sessionTtlUs: random.pick([500_000, 3_600_000_000, 3_600_000_000]),
    network: {
      minUs: 100,
      meanUs,
      loss: streams || random.chance(0.4) ? 0 : random.pick([0.005, 0.02, 0.1]),
      duplicate: streams || random.chance(0.4) ? 0 : random.pick([0.005, 0.05]),
      streams,
      bytesPerMs: random.chance(0.15) ? random.pick([20, 200]) : 0,
    },
    disk: { minUs: 50, meanUs: random.pick([100, 300, 2_000, 10_000]) },
    workload: {
      clients: random.int(1, 7),
      operationsMax: 220,
      thinkUs: random.pick([2_000, 20_000, 60_000, 150_000]),
      patienceUs: random.pick([300_000, 1_000_000, 3_000_000]),
      registers: random.int(1, 6),
      accounts: random.pick([0, 2, 3, 4]),
      mix: {
        put: 1,
        get: random.pick([0.5, 1, 2]),
        cas: random.pick([0, 0.5, 1]),
        delete: random.pick([0, 0.2, 0.5]),
        list: random.pick([0, 0.3]),
        transfer: random.pick([0, 0.5, 1]),
        unique: random.pick([0, 0.5, 1]),
      },
      wander: random.pick([0, 0.1, 0.3, 1]),
    },
    durationUs: random.pick([6_000_000, 12_000_000, 18_000_000]),
    coreEventsMax: 4_200,
    kinds,
    coreQuorumOnly: random.chance(0.6),
    ...overrides,
  };
  return { ...options, faults: overrides.faults ?? planFaults(options, Random.stream(seed, "faults")) };
}

function drawKinds(random: Random): FaultKind[] {
  const earlier = faultKinds.filter((kind) => !laterKinds.includes(kind));
  const shuffled = random.shuffle(earlier);
  if (random.chance(0.5)) return shuffled.slice(0, random.int(0, 3)).sort();
  return shuffled.slice(0, random.int(3, earlier.length + 1)).sort();
}

/** How long one election lasts at most without trouble. */
export function electionUs(options: Pick<SimOptions, "electionTicks" | "tickUs">): number {
  return options.electionTicks * options.tickUs;
}
