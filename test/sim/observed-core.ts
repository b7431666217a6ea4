/** A real core with an observer around it: counts what goes in and shows what comes out. */
import { RaftCore } from "../../manager/raft/core/index.ts";
import type { CoreConfig, InitialState, MemberId, Message, Ready, Standing } from "../../manager/raft/core/types.ts";
import type { Core } from "../../manager/raft/member.ts";
import { SimFailure } from "./failure.ts";
import type { MarkName } from "./marks.ts";

export interface CoreObserver {
  /** Something went into the core. */
  coreEvent(): void;
  ready(ready: Ready, status: Standing): void;
  /** After a leader took in an acknowledgement of `from`. */
  acknowledged(term: number, from: MemberId, match: number): void;
  mark(name: MarkName): void;
}

/** What is checked about a core besides what all members together show. */
class Watcher {
  readonly #core: RaftCore;
  readonly #config: CoreConfig;
  readonly #observer: CoreObserver;
  #ticksSinceLeader = Number.POSITIVE_INFINITY;
  #ticksSinceAnswer = 0;

  constructor(core: RaftCore, config: CoreConfig, observer: CoreObserver) {
    this.#core = core;
    this.#config = config;
    this.#observer = observer;
  }

  tick(): void {
    this.#core.tick();
    this.#ticksSinceLeader++;
    this.#ticksSinceAnswer++;
    // One timeout to notice, one of grace after an election, a change or a stall.
    if (this.#ticksSinceAnswer <= 3 * this.#config.electionTicks) return;
    const status = this.#core.standing();
    const others = [...status.conf.voters, ...status.conf.votersOutgoing].some((id) => id !== this.#config.id);
    if (status.role === "leader" && others) {
      throw new SimFailure("D8", "a leader that nobody answers keeps its office", {
        id: this.#config.id,
        term: status.term,
      });
    }
  }

  step(message: Message): void {
    switch (message.type) {
      case "preVote":
        return this.#stepUnmoved(message, "D2", "a pre-vote request changed the one who was asked");
      case "vote": {
        const { leader } = this.#core.standing();
        const isServed = leader !== 0 && leader !== message.from && this.#ticksSinceLeader < this.#config.electionTicks;
        if (isServed && !message.transfer && leader !== this.#config.id) {
          return this.#stepUnmoved(message, "D4", "a vote request moved a member that hears a leader");
        }
        return this.#core.step(message);
      }
      case "append":
      case "heartbeat":
      case "snapshot":
        this.#core.step(message);
        if (message.term >= this.#core.standing().term) this.#ticksSinceLeader = 0;
        return;
      case "appendResponse": {
        this.#ticksSinceAnswer = 0;
        this.#core.step(message);
        const { role, term } = this.#core.standing();
        const match = role === "leader" ? this.#core.matchOf(message.from) : undefined;
        if (match !== undefined) this.#observer.acknowledged(term, message.from, match);
        return;
      }
      case "heartbeatResponse":
      case "voteResponse":
        this.#ticksSinceAnswer = 0;
        return this.#core.step(message);
      case "preVoteResponse":
        if (!message.granted) this.#observer.mark("pre-vote refused");
        return this.#core.step(message);
      default:
        this.#core.step(message);
    }
  }

  conf(): void {
    this.#ticksSinceAnswer = 0;
  }

  #stepUnmoved(message: Message, check: string, what: string): void {
    const before = this.#core.standing();
    this.#core.step(message);
    const after = this.#core.standing();
    if (before.term !== after.term || before.vote !== after.vote || before.leader !== after.leader) {
      throw new SimFailure(check, what, { id: before.id, from: message.from, before: before.term, after: after.term });
    }
  }
}

export function observedCore(config: CoreConfig, initial: InitialState, observer: CoreObserver): Core {
  const core = new RaftCore(config, initial);
  const watcher = new Watcher(core, config, observer);
  const counted = <A extends unknown[], R>(call: (...args: A) => R) => {
    return (...args: A): R => {
      observer.coreEvent();
      return call(...args);
    };
  };
  return {
    tick: counted(() => watcher.tick()),
    step: counted((message) => watcher.step(message)),
    hasReady: () => core.hasReady(),
    ready: () => {
      const ready = core.ready();
      observer.ready(ready, core.standing());
      return ready;
    },
    propose: counted((datas) => core.propose(datas)),
    proposeConfChange: counted((change, options) => core.proposeConfChange(change, options)),
    applyConfChange: counted((change) => {
      watcher.conf();
      return core.applyConfChange(change);
    }),
    readIndex: counted((requestId) => core.readIndex(requestId)),
    leaseHolds: () => core.leaseHolds(),
    transferLeadership: counted((to) => core.transferLeadership(to)),
    reportUnreachable: counted((id) => core.reportUnreachable(id)),
    reportGone: counted((id) => core.reportGone(id)),
    reportSnapshot: counted((id, ok) => core.reportSnapshot(id, ok)),
    snapshotCreated: counted((meta) => core.snapshotCreated(meta)),
    appliedMeta: () => core.appliedMeta(),
    stalled: counted(() => core.stalled()),
    compactionIndex: (policy) => core.compactionIndex(policy),
    promotableLearners: () => core.promotableLearners(),
    compact: (index) => core.compact(index),
    persisted: counted((token) => core.persisted(token)),
    applied: counted((index) => core.applied(index)),
    status: () => core.status(),
    standing: () => core.standing(),
    matchOf: (id) => core.matchOf(id),
    restTicks: () => core.restTicks(),
  };
}
