/** What comes from outside is checked before anything changes: messages of peers, and the state that storage recovered. */
import { confDefect } from "./conf.ts";
import { InitialStateInvalid } from "./errors.ts";
import type { AppendRequest, Entry, InitialState, Message } from "./types.ts";

/**
 * A reason why no correct member sends `message`, or undefined. The leader asks the same of what it sends (E11).
 * Also true for text or numbers of the wrong type, since a decoder may be of another release.
 */
export function messageDefect(message: Message): string | undefined {
  if (!isCount(message.from) || message.from === 0) return "no sender";
  if (!isCount(message.term)) return "no term";
  switch (message.type) {
    case "preVote":
    case "vote":
      if (message.term === 0) return "term 0";
      if (!isCount(message.commit) || !isCount(message.commitTerm)) return "no commit";
      return isCount(message.lastIndex) && isCount(message.lastTerm) && message.lastTerm < message.term
        ? undefined
        : "a last entry that does not fit the term";
    case "preVoteResponse":
    case "voteResponse":
      return isCount(message.commit) && isCount(message.commitTerm) ? undefined : "no commit";
    case "append":
      return appendDefect(message);
    case "appendResponse":
      return isCount(message.index) && isCount(message.hintIndex) && isCount(message.hintTerm) ? undefined : "no index";
    case "heartbeat":
      return message.term > 0 && isCount(message.commit) && isCount(message.round) ? undefined : "no commit or round";
    case "heartbeatResponse":
      return isCount(message.round) ? undefined : "no round";
    case "snapshot": {
      const { index, term, conf } = message.meta;
      if (!isCount(index) || index === 0 || !isCount(term) || term === 0) return "a snapshot of nothing";
      if (term > message.term) return "a snapshot of a later term";
      return confDefect(conf);
    }
    case "timeoutNow":
      return undefined;
    case "readIndex":
      return isCount(message.requestId) ? undefined : "no request";
    case "readIndexResponse":
      return isCount(message.requestId) && isCount(message.index) ? undefined : "no request or index";
    default:
      return "a type that this release does not know";
  }
}

function appendDefect(message: AppendRequest): string | undefined {
  const { prevIndex, prevTerm, entries, term } = message;
  if (term === 0 || !isCount(prevIndex) || !isCount(prevTerm) || !isCount(message.commit)) return "no index or term";
  if ((prevIndex === 0) !== (prevTerm === 0)) return `a previous entry ${prevIndex} of term ${prevTerm}`;
  const defect = entriesDefect(entries, prevIndex, prevTerm);
  if (defect !== undefined) return defect;
  const last = entries.at(-1);
  return (last === undefined ? prevTerm : last.term) > term ? "an entry of a later term" : undefined;
}

/** Consecutive indexes, and terms that never fall. */
function entriesDefect(entries: readonly Entry[], prevIndex: number, prevTerm: number): string | undefined {
  let index = prevIndex;
  let term = prevTerm;
  for (const entry of entries) {
    index++;
    if (entry.index !== index) return `entry ${entry.index} where ${index} belongs`;
    if (!(entry.term >= term) || !isCount(entry.term)) return `entry ${index} of term ${entry.term} after term ${term}`;
    if (entry.term === 0) return `entry ${index} of term 0`;
    term = entry.term;
  }
  return undefined;
}

/**
 * The snapshot was made durable and the process ended before the log followed: the log ends before it, or says something
 * else at its index. The core drops such a log; so must storage, before it appends.
 */
export function isLogSuperseded({ snapshot, entries }: Pick<InitialState, "snapshot" | "entries">): boolean {
  const first = entries[0];
  const last = entries.at(-1);
  if (first === undefined || last === undefined || first.index > snapshot.index) return false;
  return last.index < snapshot.index || entries[snapshot.index - first.index]?.term !== snapshot.term;
}

/** @throws InitialStateInvalid */
export function checkInitialState(initial: InitialState): void {
  const { hardState, snapshot, entries, applied } = initial;
  const fail = (found: string): never => {
    throw new InitialStateInvalid(found);
  };
  if (![hardState.term, hardState.vote, hardState.commit, snapshot.index, snapshot.term, applied].every(isCount)) {
    fail("a number is negative or too large");
  }
  const defect = confDefect(snapshot.conf);
  if (defect !== undefined) fail(`its configuration has ${defect}`);
  const first = entries[0];
  const last = entries.at(-1);
  if (first !== undefined && last !== undefined) {
    if (first.index > snapshot.index + 1) fail(`entries ${snapshot.index + 1} to ${first.index - 1} are missing`);
    const gap = entriesDefect(entries, first.index - 1, 0);
    if (gap !== undefined) fail(gap);
    if (last.term > hardState.term) fail(`entry ${last.index} is of term ${last.term}, the vote of ${hardState.term}`);
    const after = first.index === snapshot.index + 1 ? first : undefined;
    if (after !== undefined && after.term < snapshot.term) fail(`entry ${after.index} is older than the snapshot`);
  }
  const lastIndex = Math.max(snapshot.index, last?.index ?? 0);
  if (hardState.commit > lastIndex) fail(`entry ${hardState.commit} is committed, the log ends at ${lastIndex}`);
  if (applied < snapshot.index || applied > Math.max(hardState.commit, snapshot.index)) {
    fail(`entry ${applied} is applied, ${hardState.commit} committed, the snapshot at ${snapshot.index}`);
  }
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
