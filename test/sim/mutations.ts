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
  /**
   * A file of scripted tests that kills it, tried after the run that is known to: where whole clusters hardly show it, be
   * it that other rules make up for it, or that the moment is too rare.
   */
  readonly test?: string;
}

const root = new URL("../../", import.meta.url);

const core = (file: string): string => `manager/raft/core/${file}.ts`;

const wal = (file: string): string => `manager/raft/wal/${file}.ts`;
const store = (file: string): string => `manager/store/core/${file}.ts`;
const dispatcher = (file: string): string => `manager/dispatcher/core/${file}.ts`;
/** Whole clusters and what their nodes route by. */
const swarmTables = "test/sim/swarm-tables.test.ts";
const member = "manager/raft/member.ts";
const scripted = (file: string): string => `test/scenarios/raft-${file}.test.ts`;

export const mutations: readonly Mutation[] = [
  {
    name: "task stopped while nodes still send to it",
    file: dispatcher("drains"),
    snippet: "if (reader.heard >= servingSince && reader.applied < version)",
    replacement: "if (reader.heard < 0 && reader.applied < version)",
    test: swarmTables,
  },
  {
    name: "told taken for applied",
    file: dispatcher("table"),
    snippet: "(this.#sent[0]?.revision ?? Infinity) <= revision",
    replacement: "(this.#sent[0]?.revision ?? Infinity) <= revision + 1",
    test: swarmTables,
  },
  {
    name: "applied said before it is",
    file: "worker/agent/data-feed.ts",
    snippet: "await (complete ? plane.replace(records())",
    replacement: "void (complete ? plane.replace(records())",
    test: swarmTables,
  },
  {
    name: "removal of a record not told",
    file: dispatcher("table"),
    snippet: "if (removed && version <= this.#since) continue;",
    replacement: "if (removed) continue;",
    test: swarmTables,
  },
  {
    name: "records kept after their network",
    file: "worker/agent/core/assignment-set.ts",
    snippet: "if (removed) dropRecords(held,",
    replacement: "if (removed && held.records.size < 0) dropRecords(held,",
    test: swarmTables,
  },
  {
    name: "node numbers not read by a new leader",
    file: "manager/allocator/allocator.ts",
    snippet: "yield* this.#readNodes(view);",
    replacement: ";",
    test: swarmTables,
  },
  {
    name: "task begins before its network is routed",
    file: "worker/agent/core/task-machine.ts",
    snippet: "return informed && routed ?",
    replacement: "return informed ?",
    test: "test/scenarios/tables.test.ts",
  },
  {
    name: "gateway address of another node believed",
    file: dispatcher("statuses"),
    snippet: "said.filter((address) => isTaskGateway(number, address))",
    replacement: "said.filter((address) => isTaskGateway(number, address) || number > 0)",
    test: "manager/dispatcher/core/dispatcher-core.test.ts",
  },
  {
    name: "vote not persisted",
    file: core("core"),
    snippet: "return term !== last.term || vote !== last.vote ||",
    replacement: "return term !== last.term || vote < 0 ||",
  },
  {
    name: "configuration in force before the disk knows its commit",
    file: core("core"),
    snippet: "const limit = Math.min(log.commit, log.durable, unkept - 1);",
    replacement: "const limit = Math.min(log.commit, log.durable, unkept * Infinity);",
  },
  {
    name: "removed member's time stands still",
    file: member,
    snippet: "this.#guard(() => this.#tick(this.#now()));\n      return;",
    replacement: "return;",
    test: "manager/raft/member.test.ts",
  },
  {
    name: "newer snapshot taken for a damaged one",
    file: member,
    snippet: "if (error instanceof ClusterError && error.code === incompatible) {",
    replacement: "if (error instanceof ClusterError && error.code === stateDiverged) {",
    test: "manager/raft/member.test.ts",
  },
  {
    name: "level of an entry not looked at",
    file: store("machine"),
    snippet: "if (level > this.supportedLevel)\n      throw new Incompatible(`entry ${index}`, `it raises",
    replacement: "if (level < 0)\n      throw new Incompatible(`entry ${index}`, `it raises",
    test: "test/scenarios/store-upgrade.test.ts",
  },
  {
    name: "changed memory not noticed",
    file: store("machine"),
    snippet: "if (!object.intact())",
    replacement: "if (object.bytes === undefined)",
    test: "test/scenarios/store-upgrade.test.ts",
  },
  {
    name: "changed memory goes into a snapshot",
    file: store("snapshot"),
    snippet: "if (!this.#pending.intact()) {",
    replacement: "if (this.#objects < 0) {",
    test: "test/scenarios/store-snapshot.test.ts",
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
    test: scripted("elections"),
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
    test: scripted("replication"),
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
    test: scripted("replication"),
  },
  {
    name: "late durability notice for content that is gone",
    file: core("log"),
    snippet: "for (const write of this.#writes) if (write.last >= from) write.last = from - 1;",
    replacement: "",
    test: scripted("replication"),
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
    test: scripted("reads"),
  },
  {
    name: "read joins a round that began before it",
    file: core("read-only"),
    snippet: "if (waiting.round > round) break;",
    replacement: "if (waiting.round > round + 1) break;",
    test: scripted("reads"),
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
    test: scripted("partitions"),
  },
  {
    name: "lease counted from the answer",
    file: core("replication"),
    snippet: "progress.confirmedTick = Math.max(progress.confirmedTick, raft.roundTick(message.round) ?? never);",
    replacement: "progress.confirmedTick = raft.leaderTick + 2 * raft.config.electionTicks;",
    test: scripted("reads"),
  },
  {
    name: "joint configuration counted as one half",
    file: core("quorum"),
    snippet: "return outgoing.length === 0 ? first : Math.min(first, this.#half(outgoing, read));",
    replacement: "return outgoing.length < 0 ? Math.min(first, this.#half(outgoing, read)) : first;",
    test: scripted("membership"),
  },
  {
    name: "joint election won by one half",
    file: core("quorum"),
    snippet: 'return incoming === "won" && outgoing === "won" ? "won" : "pending";',
    replacement: 'return incoming === "won" || outgoing === "won" ? "won" : "pending";',
    test: "manager/raft/core/quorum.test.ts",
  },
  {
    name: "joint configuration left by its proposer only",
    file: core("membership"),
    snippet: "if (!raft.conf.autoLeave || raft.applied < raft.pendingConfIndex",
    replacement:
      "if (!raft.conf.autoLeave || raft.pendingConfIndex <= raft.budgetFrom || raft.applied < raft.pendingConfIndex",
    test: scripted("membership"),
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
    test: scripted("membership"),
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
    test: scripted("membership"),
  },
  {
    name: "campaign over an unapplied change",
    file: core("election"),
    snippet: "return raft.log.hasConfChangeBetween(raft.applied, raft.log.commit);",
    replacement: "return raft.log.hasConfChangeBetween(raft.applied, 0);",
    test: scripted("elections"),
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
    test: scripted("transfer"),
  },
  {
    name: "shell sends before it persists",
    file: member,
    snippet:
      "for (const message of ready.messages) this.#send(message);\n    this.#persist(ready);\n    for (const { requestId",
    replacement:
      "for (const message of [...ready.messages, ...ready.messagesAfterPersist]) this.#send(message);\n    this.#persist({ ...ready, messagesAfterPersist: [] });\n    for (const { requestId",
  },
  {
    name: "index of a snapshot in force before its data",
    file: member,
    snippet:
      "this.#load(snapshot, () => {\n        step.loading = false;\n        this.#installed(snapshot);\n        this.#saved(step, undefined);\n      });",
    replacement:
      "this.#installed(snapshot);\n      this.#saved(step, undefined);\n      this.#load(snapshot, () => {});",
  },
  {
    name: "removed member silent at once",
    file: member,
    snippet: 'if (this.#state === "removed" && (message.type === "preVote"',
    replacement: 'if (this.#state === "stopped" && (message.type === "preVote"',
  },
  {
    name: "result of fdatasync ignored",
    file: wal("engine"),
    snippet: 'if (isFull(error)) throw new LogWriteFailed("sync", error);\n      throw error;',
    replacement: "errnoOf(error);",
    test: "manager/raft/wal/engine.test.ts",
  },
  {
    name: "log written without fdatasync",
    file: wal("engine"),
    snippet: "file.pwrite(bytes, at);\n    this.#sync(file);",
    replacement: "file.pwrite(bytes, at);",
  },
  {
    name: "CRC of a record not checked",
    file: wal("recovery"),
    snippet: "=== header.bodyCrc ? header : undefined;",
    replacement: ">= 0 ? header : undefined;",
    test: "manager/raft/wal/engine.test.ts",
  },
  {
    name: "nonce used again",
    file: wal("engine"),
    snippet: "nonce: ++session.nonces,",
    replacement: "nonce: (session.nonces = 1),",
  },
  {
    name: "slot left in the page cache",
    file: wal("engine"),
    snippet: "this.#bringSlotsToDisk(this.#slots);",
    replacement: "",
    test: "manager/raft/wal/engine.test.ts",
  },
  {
    name: "torn record taken for damage",
    file: wal("recovery"),
    snippet: "if (header === undefined) return undefined;\n    if (header.sequence",
    replacement:
      'if (header === undefined && content[at] !== 0) throw quarantine("chain", path, at, "torn");\n    if (header === undefined) return undefined;\n    if (header.sequence',
  },
  {
    name: "sessions missing in snapshots",
    file: store("snapshot"),
    snippet: "this.#kind = next.value;",
    replacement: "if (!next.value.visible) continue;\n      this.#kind = next.value;",
  },
  {
    name: "repeated request executed again",
    file: store("machine"),
    snippet: "const repeated = this.replyTo(id, seq);\n    if (repeated !== undefined) return repeated;",
    replacement: "",
    test: "test/scenarios/store-sessions.test.ts",
  },
  {
    name: "precondition not checked when it is applied",
    file: store("transaction"),
    snippet: "if ((before?.updatedAtUs ?? 0) !== (change.expectedUs ?? 0)) return conflict(kind, id);",
    replacement: "",
    test: "manager/store/store.test.ts",
  },
  {
    name: "slow watch goes on without a resync",
    file: "manager/store/watch.ts",
    snippet: 'this.#viewDue = "behind";\n        break;',
    replacement: "this.#place = this.#log.end;\n        break;",
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
