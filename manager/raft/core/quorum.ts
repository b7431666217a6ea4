/** Majorities, alone and joint (Raft thesis §3.6.2 and §4.3). */
import { raftInvariant } from "./errors.ts";
import type { ConfState, MemberId } from "./types.ts";

export function quorumSize(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

export type VoteResult = "won" | "lost" | "pending";

/** Counts explicit answers only; a joint configuration needs both halves to win and either to lose. */
export function voteResult(conf: ConfState, votes: ReadonlyMap<MemberId, boolean>): VoteResult {
  const incoming = halfResult(conf.voters, votes);
  if (conf.votersOutgoing.length === 0 || incoming === "lost") return incoming;
  const outgoing = halfResult(conf.votersOutgoing, votes);
  if (outgoing === "lost") return "lost";
  return incoming === "won" && outgoing === "won" ? "won" : "pending";
}

function halfResult(voters: readonly MemberId[], votes: ReadonlyMap<MemberId, boolean>): VoteResult {
  let granted = 0;
  let rejected = 0;
  for (const voter of voters) {
    const vote = votes.get(voter);
    if (vote === true) granted++;
    else if (vote === false) rejected++;
  }
  const quorum = quorumSize(voters.length);
  if (voters.length > 0 && granted >= quorum) return "won";
  return voters.length - rejected < quorum ? "lost" : "pending";
}

/**
 * The highest value that a majority of both halves has reached: a commit index, a heartbeat round, a tick.
 * Sorts in a buffer of its own, since it runs for each acknowledgement.
 * @param incoming  non-empty
 * @param outgoing  empty unless joint
 */
export class QuorumReader<Member> {
  readonly #sorted: number[] = [];

  reached(incoming: readonly Member[], outgoing: readonly Member[], read: (member: Member) => number): number {
    raftInvariant(incoming.length > 0, "a quorum is asked of somebody");
    const first = this.#half(incoming, read);
    return outgoing.length === 0 ? first : Math.min(first, this.#half(outgoing, read));
  }

  #half(members: readonly Member[], read: (member: Member) => number): number {
    const sorted = this.#sorted;
    const count = members.length;
    // Insertion sort, descending: there are 3 to 7 of them.
    for (let at = 0; at < count; at++) {
      const value = read(members[at] as Member);
      let slot = at;
      while (slot > 0 && (sorted[slot - 1] as number) < value) {
        sorted[slot] = sorted[slot - 1] as number;
        slot--;
      }
      sorted[slot] = value;
    }
    return sorted[quorumSize(count) - 1] as number;
  }
}
