/** The state of one member, shared by the files of this room; each of them decides one subject on it. */
import { Random } from "../../../lib/pure/prng.ts";
import { checkConfig } from "./config.ts";
import { changeConf, isVoter, members } from "./conf.ts";
import { decodeConfChange } from "./conf-codec.ts";
import { RaftLog } from "./log.ts";
import { Progress } from "./progress.ts";
import { QuorumReader } from "./quorum.ts";
import { ReadQueue, type ReadRequest } from "./read-only.ts";
import type {
  ConfState,
  CoreConfig,
  InitialState,
  MemberId,
  Message,
  ReadState,
  Role,
  SnapshotMeta,
  TraceSink,
} from "./types.ts";
import { checkInitialState, isLogSuperseded } from "./validate.ts";

export interface Transfer {
  readonly to: MemberId;
  elapsedTicks: number;
}

/** Rounds of heartbeats whose sending tick is remembered; far more than fit into one election timeout. */
const roundsRemembered = 256;

export class Raft {
  readonly config: CoreConfig;
  readonly id: MemberId;
  readonly log: RaftLog;
  readonly trace: TraceSink | undefined;
  readonly #random: Random;

  term: number;
  /** Whom this member voted for in `term`. */
  vote: MemberId;
  role: Role = "follower";
  leader: MemberId = 0;
  /** In force: changes when an entry that says so is applied, not when it is appended. */
  conf: ConfState;

  /** Ticks since the last word of the leader, the last vote granted, or the start of a campaign. */
  electionElapsed = 0;
  randomizedElectionTicks = 0;
  /** A restarted member has forgotten whose lease it honours, so with lease reads it grants nothing for one timeout. */
  voteGuardTicks: number;
  /** Ticks of this process; only to give up forwarded reads. */
  tickCount = 0;
  /** Explicit answers in the current campaign. */
  readonly votes = new Map<MemberId, boolean>();
  /** TimeoutNow came while a committed configuration change was not applied: campaign when it is, before this tick. */
  campaignUntilTick = 0;
  /** The leader is known to be gone: campaign at this tick, unless a leader is heard or a vote given before; 0 for never. */
  hurryTick = 0;

  /** The newest durable snapshot of this member: what a leader offers. */
  snapshot: SnapshotMeta;
  /** Accepted from a leader; part of the log already, the state machine does not have it yet. */
  installing: SnapshotMeta | undefined;
  applied: number;
  /** Last committed entry handed to the shell. */
  handedToApply: number;

  // What follows has a meaning on a leader only; becomeLeader() sets it.
  /** All members, this one included, ascending by id. Empty unless leader. */
  peers: Progress[] = [];
  readonly peerById = new Map<MemberId, Progress>();
  /** The same objects, by half of the configuration. */
  incoming: Progress[] = [];
  outgoing: Progress[] = [];
  leaderTick = 0;
  /** Leader tick at which the commit index last grew. */
  commitTick = 0;
  heartbeatElapsed = 0;
  /** Check-quorum is silent until this tick: those newly counted get one timeout to answer. */
  quorumGraceTick = 0;
  round = 0;
  /** A stall voids what older rounds proved. */
  confirmFromRound = 0;
  readonly #roundTicks: number[] = [];
  /** No change may be proposed before the entry at this index is applied. */
  pendingConfIndex = 0;
  /** Entries after this one count against the budget of uncommitted ones. */
  budgetFrom = 0;
  transfer: Transfer | undefined;
  /** TimeoutNow was sent in this term: its receiver may override the lease at any later time. */
  leaseVoid = false;
  /** A hand-over before leaving the joint configuration was tried and failed: leave without it. */
  handOverFailed = false;

  readonly reads = new ReadQueue();
  readonly #quorum = new QuorumReader<Progress>();

  messages: Message[] = [];
  messagesAfterPersist: Message[] = [];
  readStates: ReadState[] = [];
  readFailures: number[] = [];

  constructor(config: CoreConfig, initial: InitialState, trace: TraceSink | undefined) {
    checkConfig(config);
    checkInitialState(initial);
    this.config = config;
    this.id = config.id;
    this.trace = trace;
    this.#random = Random.stream(config.seed, `election/${config.id}`);
    this.voteGuardTicks = config.readMode === "lease" ? config.electionTicks : 0;
    const { hardState, snapshot } = initial;
    // A snapshot may outrun the last hard state on disk. No vote can have been given in its term then.
    this.term = Math.max(hardState.term, snapshot.term);
    this.vote = this.term === hardState.term ? hardState.vote : 0;
    this.snapshot = snapshot;
    this.applied = this.handedToApply = initial.applied;
    this.log = recoverLog(initial);
    this.conf = snapshot.conf;
    for (let index = snapshot.index + 1; index <= initial.applied; index++) {
      const entry = this.log.entry(index);
      if (entry.kind !== "confChange") continue;
      const changed = changeConf(this.conf, decodeConfChange(entry.data));
      if (changed.valid) this.conf = changed.conf;
    }
    this.drawElectionTimeout();
  }

  /** Uniform in T .. 2T-1, new for each campaign (Raft thesis §3.4). */
  drawElectionTimeout(): void {
    const { electionTicks } = this.config;
    this.randomizedElectionTicks = this.#random.int(electionTicks, 2 * electionTicks);
  }

  /** What a majority of each half has reached. Leader only. */
  reached(read: (progress: Progress) => number): number {
    return this.#quorum.reached(this.incoming, this.outgoing, read);
  }

  get self(): Progress | undefined {
    return this.peerById.get(this.id);
  }

  /** Until then a leader may know less of the commit index than its predecessor did (Raft thesis §6.4). */
  get hasCommittedInTerm(): boolean {
    return this.log.term(this.log.commit) === this.term;
  }

  get isVoter(): boolean {
    return isVoter(this.conf, this.id);
  }

  noteRound(): void {
    this.#roundTicks[this.round % roundsRemembered] = this.leaderTick;
  }

  /** Leader tick at which `round` began, or undefined if that is too long ago to matter. */
  roundTick(round: number): number | undefined {
    return round > this.round - roundsRemembered ? this.#roundTicks[round % roundsRemembered] : undefined;
  }

  /** Brings the leader's table of progress in line with the configuration. */
  syncPeers(): void {
    const ids = members(this.conf);
    if (!ids.includes(this.id)) ids.push(this.id);
    const limits = { msgsMax: this.config.maxInflightMsgs, bytesMax: this.config.maxInflightBytes };
    this.peers = ids
      .sort((a, b) => a - b)
      .map((id) => {
        const isLearner = !isVoter(this.conf, id);
        const known = this.peerById.get(id);
        if (known !== undefined) {
          known.isLearner = isLearner;
          return known;
        }
        const added = new Progress(id, this.log.lastIndex + 1, limits, isLearner);
        if (id === this.id) {
          added.acknowledge(this.log.durable);
          added.becomeReplicate();
        }
        // Counted as heard of, so that adding a member does not at once cost the leader its quorum.
        if (this.leaderTick > 0) added.heardTick = this.leaderTick;
        return added;
      });
    this.peerById.clear();
    for (const progress of this.peers) this.peerById.set(progress.id, progress);
    const half = (ids: readonly MemberId[]): Progress[] => this.peers.filter(({ id }) => ids.includes(id));
    this.incoming = half(this.conf.voters);
    this.outgoing = half(this.conf.votersOutgoing);
  }

  dropPeers(): void {
    this.peers = [];
    this.peerById.clear();
    this.incoming = [];
    this.outgoing = [];
  }

  answerRead(request: ReadRequest, index: number, lease: boolean): void {
    if (request.from === this.id) this.readStates.push({ requestId: request.requestId, index, lease });
    else {
      this.send({
        type: "readIndexResponse",
        from: this.id,
        to: request.from,
        term: this.term,
        requestId: request.requestId,
        index,
        refused: false,
      });
    }
  }

  /**
   * Puts a message where it may leave. What speaks of this member's log or vote waits until both are durable (Raft
   * thesis §3.8). A vote request waits too: if it left earlier, a crash could take the end of the log on which the
   * votes were given, and those votes would still count in the next campaign of the same term.
   */
  send(message: Message): void {
    if (this.trace !== undefined) this.traceMessage("send", message);
    switch (message.type) {
      case "vote":
      case "voteResponse":
      case "appendResponse":
        this.messagesAfterPersist.push(message);
        return;
      default:
        this.messages.push(message);
    }
  }

  /** One line a transition, with the state after it (scenario A5). */
  note(name: string, more: Readonly<Record<string, unknown>> = {}): void {
    this.trace?.({
      name,
      member: this.id,
      term: this.term,
      vote: this.vote,
      role: this.role,
      commit: this.log.commit,
      lastIndex: this.log.lastIndex,
      conf: this.conf,
      ...more,
    });
  }

  traceMessage(direction: "send" | "receive", message: Message): void {
    if (message.type === "heartbeat" || message.type === "heartbeatResponse") return;
    if (message.type === "append") {
      const { entries, ...head } = message;
      this.note(direction, { message: { ...head, entries: entries.length } });
    } else this.note(direction, { message });
  }
}

function recoverLog(initial: InitialState): RaftLog {
  const { snapshot, entries, hardState } = initial;
  const first = entries[0];
  const superseded = isLogSuperseded(initial);
  const commit = superseded ? snapshot.index : Math.max(hardState.commit, snapshot.index);
  if (first === undefined || superseded) {
    return new RaftLog({ index: snapshot.index, term: snapshot.term }, [], commit);
  }
  if (first.index === snapshot.index + 1) {
    return new RaftLog({ index: snapshot.index, term: snapshot.term }, entries, commit);
  }
  // Trailing entries: nothing tells the term before the first of them, so it only serves as the boundary.
  return new RaftLog({ index: first.index, term: first.term }, entries.slice(1), commit);
}
