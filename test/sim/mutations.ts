/**
 * Planted bugs (N12). Each replaces one snippet of one source file while it is imported, so that no switch and no wrong
 * line stands in the program itself. A snippet that is not there exactly once is an error: the list follows the source.
 */
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

export interface Mutation {
  readonly name: string;
  /** Path below the root of the project. */
  readonly file: string;
  readonly snippet: string;
  readonly replacement: string;
  /** Seeds that are known to kill it, tried first. */
  readonly seeds?: readonly number[];
}

const root = new URL("../../", import.meta.url);

const core = (file: string): string => `manager/raft/core/${file}.ts`;

export const mutations: readonly Mutation[] = [
  {
    name: "vote not persisted",
    file: core("core"),
    snippet: "return this.#raft.term !== this.#lastHardState.term || this.#raft.vote !== this.#lastHardState.vote;",
    replacement: "return this.#raft.term !== this.#lastHardState.term;",
  },
  {
    name: "vote forgotten on restart",
    file: core("state"),
    snippet: "this.vote = this.term === hardState.term ? hardState.vote : 0;",
    replacement: "this.vote = 0;",
  },
  {
    name: "vote sent before it is durable",
    file: core("state"),
    snippet: 'case "voteResponse":\n      case "appendResponse":',
    replacement: 'case "appendResponse":',
  },
  {
    name: "append acknowledged before it is durable",
    file: core("state"),
    snippet: 'case "voteResponse":\n      case "appendResponse":',
    replacement: 'case "voteResponse":',
  },
  {
    name: "own vote counted early",
    file: core("election"),
    snippet: "// The own vote counts only once it is durable: see countOwnVote().",
    replacement: "recordVote(raft, raft.id, true);",
  },
  {
    name: "logs compared with > instead of >=",
    file: core("log"),
    snippet: "(lastTerm === ownTerm && lastIndex >= this.lastIndex)",
    replacement: "(lastTerm === ownTerm && lastIndex > this.lastIndex)",
  },
  {
    name: "logs compared by index only",
    file: core("log"),
    snippet: "return lastTerm > ownTerm || (lastTerm === ownTerm && lastIndex >= this.lastIndex);",
    replacement: "return lastIndex >= this.lastIndex || lastTerm < 0;",
  },
  {
    name: "logs compared by term only",
    file: core("log"),
    snippet: "(lastTerm === ownTerm && lastIndex >= this.lastIndex)",
    replacement: "lastTerm === ownTerm",
  },
  {
    name: "a term adopted counts as a vote granted",
    file: core("election"),
    snippet: 'if (raft.role === "candidate") recordVote(raft, message.from, message.granted);',
    replacement: 'if (raft.role === "candidate") recordVote(raft, message.from, message.term === raft.term);',
  },
  {
    name: "pre-vote changes the term",
    file: core("step"),
    snippet: "// It only asks what would be; nobody's term changes.\n",
    replacement: "becomeFollower(raft, message.term - 1 > raft.term ? message.term - 1 : message.term, 0);\n",
  },
  {
    name: "votes given while a leader is heard",
    file: core("election"),
    snippet: "if (!raft.config.checkQuorum) return false;",
    replacement: "if (raft.id > 0) return false;",
  },
  {
    name: "leader stays without a quorum",
    file: core("tick"),
    snippet: "if (!raft.config.checkQuorum || raft.leaderTick < raft.quorumGraceTick) return true;",
    replacement: "if (raft.id > 0) return true;",
  },
  {
    name: "old-term entry committed by counting",
    file: core("replication"),
    snippet: "if (index <= raft.log.commit || !raft.log.matches(index, raft.term)) return;",
    replacement: "if (index <= raft.log.commit) return;",
  },
  {
    name: "commit taken from the own last index",
    file: core("replication"),
    snippet: "Math.min(message.commit, covered)",
    replacement: "Math.min(message.commit, log.lastIndex)",
  },
  {
    name: "heartbeat tells a commit beyond the match",
    file: core("replication"),
    snippet: "const commit = Math.min(progress.match, raft.log.commit);",
    replacement: "const commit = raft.log.commit;",
  },
  {
    name: "log truncated where it only goes on",
    file: core("log"),
    snippet: "if (known === entries.length) return 0;",
    replacement:
      "if (known === entries.length) { const end = entries.at(-1)?.index ?? last; if (end < last && end >= this.#commit) this.#truncate(end + 1); return 0; }",
  },
  {
    name: "acknowledgement of the own last index",
    file: core("replication"),
    snippet: "respond(raft, message, { index: covered, rejected: false",
    replacement: "respond(raft, message, { index: log.lastIndex, rejected: false",
  },
  {
    name: "late durability notice for content that is gone",
    file: core("log"),
    snippet: "for (const write of this.#writes) if (write.last >= from) write.last = from - 1;",
    replacement: "",
  },
  {
    name: "match taken from a rejection",
    file: core("replication"),
    snippet: "const { hintIndex, hintTerm } = message;",
    replacement:
      "const { hintIndex, hintTerm } = message; progress.acknowledge(Math.min(message.index, log.lastIndex));",
  },
  {
    name: "no empty entry at the start of a term",
    file: core("roles"),
    snippet: 'appendOwn(raft, "empty", noData);',
    replacement: "noData.at(0);",
  },
  {
    name: "read without a commit of the own term",
    file: core("replication"),
    snippet: "if (raft.hasCommittedInTerm) raft.reads.begin(raft.round, raft.log.commit);",
    replacement: "raft.reads.begin(raft.round, raft.log.commit);",
  },
  {
    name: "read joins a round that began before it",
    file: core("read-only"),
    snippet: "if (waiting.round > round) break;",
    replacement: "if (waiting.round > round + 1) break;",
  },
  {
    name: "id of a read used again",
    file: "manager/raft/reads.ts",
    snippet: "return this.#nextId++;",
    replacement: "return this.#nextId;",
  },
  {
    name: "lease kept over a stall",
    file: core("tick"),
    snippet: 'if (raft.role !== "leader") return;\n  for',
    replacement: 'if (raft.role !== "leader" || raft.id > 0) return;\n  for',
  },
  {
    name: "lease counted from the answer",
    file: core("replication"),
    snippet: "progress.confirmedTick = Math.max(progress.confirmedTick, raft.roundTick(message.round) ?? never);",
    replacement: "progress.confirmedTick = raft.leaderTick + 2 * raft.config.electionTicks;",
  },
  {
    name: "joint configuration counted as one half",
    file: core("quorum"),
    snippet: "return outgoing.length === 0 ? first : Math.min(first, this.#half(outgoing, read));",
    replacement: "return outgoing.length < 0 ? Math.min(first, this.#half(outgoing, read)) : first;",
  },
  {
    name: "joint election won by one half",
    file: core("quorum"),
    snippet: 'return incoming === "won" && outgoing === "won" ? "won" : "pending";',
    replacement: 'return incoming === "won" || outgoing === "won" ? "won" : "pending";',
  },
  {
    name: "joint configuration left by its proposer only",
    file: core("membership"),
    snippet: "if (!raft.conf.autoLeave || raft.applied < raft.pendingConfIndex",
    replacement:
      "if (!raft.conf.autoLeave || raft.pendingConfIndex <= raft.budgetFrom || raft.applied < raft.pendingConfIndex",
  },
  {
    name: "second change accepted while one is pending",
    file: core("membership"),
    snippet: "const pending = raft.applied < raft.pendingConfIndex;",
    replacement: "const pending = raft.applied < 0;",
  },
  {
    name: "configuration kept over a snapshot",
    file: core("replication"),
    snippet: "raft.conf = message.meta.conf;",
    replacement: "",
  },
  {
    name: "learner counted",
    file: core("state"),
    snippet: "this.incoming = half(this.conf.voters);",
    replacement: "this.incoming = half([...this.conf.voters, ...this.conf.learners]);",
  },
  {
    name: "removed leader counts itself",
    file: core("state"),
    snippet: "this.incoming = half(this.conf.voters);",
    replacement: "this.incoming = half([...new Set([...this.conf.voters, this.id])]);",
  },
  {
    name: "campaign over an unapplied change",
    file: core("election"),
    snippet: "return raft.log.hasConfChangeBetween(raft.applied, raft.log.commit);",
    replacement: "return raft.log.hasConfChangeBetween(raft.applied, 0);",
  },
  {
    name: "snapshot with the configuration of now",
    file: core("replication"),
    snippet: "const meta = raft.snapshot;",
    replacement: "const meta = { ...raft.snapshot, conf: raft.conf };",
  },
  {
    name: "successor sent off before it has everything",
    file: core("transfer"),
    snippet: "if (raft.transfer?.to !== progress.id || progress.match !== raft.log.lastIndex) return;",
    replacement: "if (raft.transfer?.to !== progress.id) return;",
  },
];

/** Checks that the snippet is there exactly once. @returns the source with the bug in it */
export function mutatedSource(mutation: Mutation): string {
  const source = readFileSync(new URL(mutation.file, root), "utf8");
  const parts = source.split(mutation.snippet);
  if (parts.length !== 2) {
    throw new Error(
      `Cannot plant "${mutation.name}": its snippet is ${parts.length - 1} times in ${mutation.file}, not once`,
    );
  }
  return parts.join(mutation.replacement);
}

/** From now on, importing the file in this thread gives the changed source. Must run before its first import. */
export function plantMutation(mutation: Mutation): void {
  const source = mutatedSource(mutation);
  const target = pathToFileURL(fileURLToPath(new URL(mutation.file, root))).href;
  registerHooks({
    load(url, context, nextLoad) {
      if (url.split("?")[0] !== target) return nextLoad(url, context);
      return { format: "module-typescript", source, shortCircuit: true };
    },
  });
}
