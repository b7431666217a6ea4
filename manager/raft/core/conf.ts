/**
 * Configurations and their changes (Raft thesis chapter 4), as pure functions on sorted lists.
 * A change that is not valid changes nothing, on every member alike, when its entry is applied.
 */
import type { ConfChange, ConfState, MemberId } from "./types.ts";

export const emptyConf: ConfState = {
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};

export type Changed =
  { readonly valid: true; readonly conf: ConfState } | { readonly valid: false; readonly why: string };

export function isJoint(conf: ConfState): boolean {
  return conf.votersOutgoing.length > 0;
}

export function isVoter(conf: ConfState, id: MemberId): boolean {
  return conf.voters.includes(id) || conf.votersOutgoing.includes(id);
}

/** Counted as a voter once a joint configuration is left. */
export function isLastingVoter(conf: ConfState, id: MemberId): boolean {
  return conf.voters.includes(id);
}

export function isMember(conf: ConfState, id: MemberId): boolean {
  return isVoter(conf, id) || conf.learners.includes(id) || conf.learnersNext.includes(id);
}

/** Everybody who gets entries, ascending. */
export function members(conf: ConfState): MemberId[] {
  return sortedUnion(conf.voters, conf.votersOutgoing, conf.learners, conf.learnersNext);
}

/** The change that leaves a joint configuration. */
export const leaveJoint: ConfChange = { transition: "auto", steps: [], context: new Uint8Array(0) };

export function isLeaveJoint(change: ConfChange): boolean {
  return change.steps.length === 0;
}

/**
 * What `conf` becomes. More than one step, or an explicit wish, goes through a joint configuration; a single step may
 * change the voters by at most one, so that old and new majorities overlap without it (§4.2.1).
 */
export function changeConf(conf: ConfState, change: ConfChange): Changed {
  if (isLeaveJoint(change)) return leave(conf);
  if (isJoint(conf)) return { valid: false, why: "the configuration is joint" };
  const joint = change.transition !== "auto" || change.steps.length > 1;
  const next = walk(conf, change, joint);
  if (next === undefined) return { valid: false, why: "member 0 does not exist" };
  if (next.voters.length === 0) return { valid: false, why: "no voter would be left" };
  if (joint) {
    return {
      valid: true,
      conf: { ...next, votersOutgoing: conf.voters, autoLeave: change.transition !== "jointExplicit" },
    };
  }
  if (countDifferent(conf.voters, next.voters) > 1) return { valid: false, why: "more than one voter would change" };
  return { valid: true, conf: { ...next, votersOutgoing: [], autoLeave: false } };
}

function leave(conf: ConfState): Changed {
  if (!isJoint(conf)) return { valid: false, why: "the configuration is not joint" };
  const learners = sortedUnion(conf.learners, conf.learnersNext);
  return {
    valid: true,
    conf: { voters: conf.voters, votersOutgoing: [], learners, learnersNext: [], autoLeave: false },
  };
}

function walk(
  conf: ConfState,
  change: ConfChange,
  joint: boolean,
): Omit<ConfState, "votersOutgoing" | "autoLeave"> | undefined {
  let { voters, learners, learnersNext } = conf;
  const outgoing = joint ? conf.voters : [];
  for (const { act, member } of change.steps) {
    if (!(member > 0)) return undefined;
    switch (act) {
      case "addVoter":
        learners = without(learners, member);
        learnersNext = without(learnersNext, member);
        voters = withMember(voters, member);
        break;
      case "addLearner":
        if (learners.includes(member) || learnersNext.includes(member)) break;
        voters = without(voters, member);
        // A voter of the outgoing half still counts there, and is a learner only once it does not (§4.3).
        if (outgoing.includes(member)) learnersNext = withMember(learnersNext, member);
        else learners = withMember(learners, member);
        break;
      case "remove":
        voters = without(voters, member);
        learners = without(learners, member);
        learnersNext = without(learnersNext, member);
        break;
      case "update":
        break;
    }
  }
  return { voters, learners, learnersNext };
}

export function sameConf(a: ConfState, b: ConfState): boolean {
  return (
    a.autoLeave === b.autoLeave &&
    sameList(a.voters, b.voters) &&
    sameList(a.votersOutgoing, b.votersOutgoing) &&
    sameList(a.learners, b.learners) &&
    sameList(a.learnersNext, b.learnersNext)
  );
}

/** A reason why `conf` cannot have been made by `changeConf`, or undefined. For what comes from disk or network. */
export function confDefect(conf: ConfState): string | undefined {
  for (const list of [conf.voters, conf.votersOutgoing, conf.learners, conf.learnersNext]) {
    for (let at = 0; at < list.length; at++) {
      const id = list[at] as number;
      if (!Number.isSafeInteger(id) || id <= 0) return `member id ${String(id)}`;
      if (at > 0 && id <= (list[at - 1] as number)) return "members that are not sorted";
    }
  }
  for (const id of conf.learners) if (isVoter(conf, id)) return `member ${id} as voter and as learner`;
  for (const id of conf.learnersNext) {
    if (!conf.votersOutgoing.includes(id) || conf.voters.includes(id)) return `member ${id} as next learner only`;
  }
  if (conf.voters.length === 0 && members(conf).length > 0) return "members without a voter";
  if (!isJoint(conf) && conf.autoLeave) return "a joint configuration to leave without one";
  return undefined;
}

function sameList(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, at) => value === b[at]);
}

function without(list: readonly MemberId[], member: MemberId): readonly MemberId[] {
  return list.includes(member) ? list.filter((one) => one !== member) : list;
}

function withMember(list: readonly MemberId[], member: MemberId): readonly MemberId[] {
  return list.includes(member) ? list : [...list, member].sort((a, b) => a - b);
}

function sortedUnion(...lists: readonly (readonly MemberId[])[]): MemberId[] {
  return [...new Set(lists.flat())].sort((a, b) => a - b);
}

function countDifferent(a: readonly MemberId[], b: readonly MemberId[]): number {
  return a.filter((id) => !b.includes(id)).length + b.filter((id) => !a.includes(id)).length;
}
