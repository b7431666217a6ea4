/** Settings of the core: defaults, checks, and the two states a member can begin its life with. */
import { CoreConfigInvalid } from "./errors.ts";
import { emptyConf } from "./conf.ts";
import type { CoreConfig, InitialState, MemberId } from "./types.ts";

/**
 * LAN defaults in ticks of 25 ms: heartbeats every 50 ms, elections after 400 to 800 ms. 64 messages and 8 MiB in flight
 * for each follower; a budget of 64 MiB or 20,000 entries until they are committed.
 */
export const coreDefaults: Omit<CoreConfig, "id" | "seed"> = {
  electionTicks: 16,
  heartbeatTicks: 2,
  preVote: true,
  checkQuorum: true,
  maxEntriesPerMsgBytes: 512 * 1024,
  maxInflightMsgs: 64,
  maxInflightBytes: 8 * 1024 * 1024,
  maxUncommittedBytes: 64 * 1024 * 1024,
  maxUncommittedEntries: 20_000,
  maxApplyBytes: 4 * 1024 * 1024,
  maxEntryBytes: 1024 * 1024,
  maxPendingReads: 65_536,
  snapshotRetryTicksMax: 1_200,
  promotionLagEntries: 256,
  readMode: "readIndex",
  lazyCommit: false,
  answerTicks: 1,
};

/** Share of the election timeout for which a confirmed round lets the leader read alone: clocks may differ by 20 %. */
export const leaseFactor = 0.8;

/** @throws CoreConfigInvalid */
export function checkConfig(config: CoreConfig): void {
  for (const [name, value] of Object.entries(config)) {
    if (name === "seed" || typeof value !== "number") continue;
    if (!Number.isSafeInteger(value) || value < 1) throw new CoreConfigInvalid(`${name} is ${value}`);
  }
  if (!Number.isSafeInteger(config.seed)) throw new CoreConfigInvalid(`seed is ${config.seed}`);
  if (config.electionTicks <= config.heartbeatTicks) {
    throw new CoreConfigInvalid(
      `elections after ${config.electionTicks} ticks leave no room for heartbeats every ${config.heartbeatTicks}`,
    );
  }
  if (config.readMode === "lease" && !config.checkQuorum) throw new CoreConfigInvalid("lease reads need check-quorum");
}

/**
 * The first state of every founding member, the same on all. It is a snapshot at index 1, not an empty log: the founding
 * configuration is in no entry, so whoever joins later must get it with a snapshot. The shell keeps a snapshot of the
 * empty state machine under this index.
 * @param voters  the founding members
 */
export function bootstrapState(voters: readonly MemberId[]): InitialState {
  return {
    hardState: { term: 1, vote: 0, commit: 1 },
    snapshot: { index: 1, term: 1, conf: { ...emptyConf, voters: [...voters].sort((a, b) => a - b) } },
    entries: [],
    applied: 1,
  };
}

/** The first state of a member that joins a cluster: it knows nobody and waits for the leader. */
export function joinerState(): InitialState {
  return {
    hardState: { term: 0, vote: 0, commit: 0 },
    snapshot: { index: 0, term: 0, conf: emptyConf },
    entries: [],
    applied: 0,
  };
}
