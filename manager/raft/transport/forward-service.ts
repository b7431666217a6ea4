/** The leader's end of the forward stream. Only what this member can do itself is done: nothing is forwarded again. */
import type { RpcStream } from "../../../lib/rpc/index.ts";
import type { Clock, Timer } from "../../../lib/runtime/index.ts";
import { decodeStrictly, skep } from "../../../proto/index.ts";
import { noMember } from "../core/types.ts";
import type { Outcome } from "../proposals.ts";
import type { IncomingEvents } from "./acceptor.ts";
import type { TransportLimits } from "./limits.ts";
import type { TransportHandlers } from "./types.ts";

const { ForwardUp, OutcomeKind, ReadOutcomeKind } = skep.raft;

const upLimits = { fieldsMax: 64, bytesMax: 2 * 1024 * 1024 };
/** Larger answers of the state machine do not travel: that is as good as not knowing. */
const resultBytesMax = 3 * 1024 * 1024;
const timeoutMsMax = 10 * 60_000;
const hopsMax = 1;

interface Pending {
  readonly timer: Timer;
  readonly cancel: () => void;
}

export function openForward(
  stream: RpcStream<skep.raft.IForwardDown>,
  handlers: Pick<TransportHandlers, "propose" | "readIndex">,
  options: { readonly clock: Clock; readonly limits: TransportLimits; readonly heard: (bytes: number) => void },
): IncomingEvents {
  const { clock, limits } = options;
  const pending = new Map<number, Pending>();

  const propose = ({ id, command, timeoutMs, hops }: skep.raft.ForwardedProposal): void => {
    const answer = (outcome: Outcome): void => void stream.write({ outcome: { id, ...outcomeToWire(outcome) } });
    if (pending.has(id)) return; // a second request under the same id would get the first one's answer
    if (hops > hopsMax) return answer({ kind: "notLeader", leader: noMember });
    if (pending.size >= limits.forwardedMax) {
      return answer({ kind: "backpressure", why: "uncommitted", retryAfterMs: 50 });
    }
    let settled = false;
    const timer = clock.after(Math.min(timeoutMs, timeoutMsMax), () => giveUp(id));
    // The outcome may be there before propose() has returned.
    const cancel = handlers.propose(command, (outcome) => {
      settled = true;
      timer.cancel();
      pending.delete(id);
      if (!stream.closed) answer(outcome);
    });
    if (!settled) pending.set(id, { timer, cancel });
    return undefined;
  };

  /** Its asker does not wait any more; what has been appended already takes its course. */
  const giveUp = (id: number): void => {
    const waiting = pending.get(id);
    if (waiting === undefined) return;
    pending.delete(id);
    waiting.timer.cancel();
    waiting.cancel();
  };

  const read = ({ id, hops }: skep.raft.ForwardedRead): void => {
    if (hops > hopsMax) {
      stream.write({ read: { id, kind: ReadOutcomeKind.READ_RETRY } });
      return;
    }
    handlers.readIndex((outcome) => {
      if (stream.closed) return;
      if (outcome.kind === "ready") {
        stream.write({ read: { id, kind: ReadOutcomeKind.READ_READY, index: outcome.index } });
      } else {
        const kind = outcome.kind === "stopped" ? ReadOutcomeKind.READ_STOPPED : ReadOutcomeKind.READ_RETRY;
        stream.write({ read: { id, kind } });
      }
    });
  };

  return {
    message: (bytes) => {
      options.heard(bytes.length);
      const up = decodeStrictly(ForwardUp, bytes, upLimits);
      if (up.propose) propose(up.propose as skep.raft.ForwardedProposal);
      else if (up.read) read(up.read as skep.raft.ForwardedRead);
      else if (up.cancel) giveUp(up.cancel.id ?? 0);
      // Anything else is of a newer release: it gets no answer, which is "unknown" to its asker.
    },
    closed: () => {
      for (const id of pending.keys()) giveUp(id);
    },
  };
}

function outcomeToWire(outcome: Outcome): skep.raft.IForwardedOutcome {
  switch (outcome.kind) {
    case "committed": {
      const result = outcome.result instanceof Uint8Array ? outcome.result : new Uint8Array();
      if (result.length > resultBytesMax) return { kind: OutcomeKind.OUTCOME_UNKNOWN };
      return { kind: OutcomeKind.OUTCOME_COMMITTED, index: outcome.index, term: outcome.term, result };
    }
    case "failed":
      return { kind: OutcomeKind.OUTCOME_FAILED, why: outcome.why.slice(0, 1024) };
    case "unknown":
      return { kind: OutcomeKind.OUTCOME_UNKNOWN };
    case "backpressure": {
      const { why, retryAfterMs } = outcome;
      return { kind: OutcomeKind.OUTCOME_BACKPRESSURE, why, retryAfterMs: Math.ceil(retryAfterMs) };
    }
    case "notLeader":
      return { kind: OutcomeKind.OUTCOME_NOT_LEADER, leader: outcome.leader };
    case "tooLarge": {
      const { sizeBytes, sizeBytesMax } = outcome;
      return { kind: OutcomeKind.OUTCOME_TOO_LARGE, sizeBytes, sizeBytesMax };
    }
    case "stopped":
      return { kind: OutcomeKind.OUTCOME_STOPPED };
  }
}
