/** A real core with an observer around it: counts what goes in and shows what comes out. */
import { RaftCore } from "../../manager/raft/core/index.ts";
import type { CoreConfig, InitialState, MemberId, Ready } from "../../manager/raft/core/types.ts";
import type { Core } from "../../manager/raft/member.ts";

export interface CoreObserver {
  /** Something went into the core. */
  coreEvent(): void;
  ready(ready: Ready, commit: number, term: number): void;
  /** After a leader took in an acknowledgement of `from`. */
  acknowledged(term: number, from: MemberId, match: number): void;
}

export function observedCore(config: CoreConfig, initial: InitialState, observer: CoreObserver): Core {
  const core = new RaftCore(config, initial);
  const counted = <A extends unknown[], R>(call: (...args: A) => R) => {
    return (...args: A): R => {
      observer.coreEvent();
      return call(...args);
    };
  };
  return {
    tick: counted(() => core.tick()),
    step: (message) => {
      observer.coreEvent();
      core.step(message);
      if (message.type !== "appendResponse") return;
      const status = core.status();
      const match = status.role === "leader" ? status.peers.get(message.from)?.match : undefined;
      if (match !== undefined) observer.acknowledged(status.term, message.from, match);
    },
    hasReady: () => core.hasReady(),
    ready: () => {
      const ready = core.ready();
      const status = core.status();
      observer.ready(ready, status.commit, status.term);
      return ready;
    },
    propose: counted((datas) => core.propose(datas)),
    proposeConfChange: counted((change, options) => core.proposeConfChange(change, options)),
    applyConfChange: counted((change) => core.applyConfChange(change)),
    readIndex: counted((requestId) => core.readIndex(requestId)),
    leaseHolds: () => core.leaseHolds(),
    transferLeadership: counted((to) => core.transferLeadership(to)),
    reportUnreachable: counted((id) => core.reportUnreachable(id)),
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
  };
}
