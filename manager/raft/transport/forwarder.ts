/**
 * The asking end of the forward stream: requests of callers here that only the leader can serve, many at once on one
 * stream. Each is answered exactly once; what had left when the stream broke is "unknown", what had not is not.
 */
import type { DirectChannel } from "../../../lib/rpc/index.ts";
import type { Clock, Timer } from "../../../lib/runtime/index.ts";
import { skep } from "../../../proto/index.ts";
import { noMember } from "../core/types.ts";
import type { Outcome } from "../proposals.ts";
import type { ReadOutcome } from "../reads.ts";
import type { TransportLimits } from "./limits.ts";
import { forwardMethod } from "./methods.ts";
import { Session } from "./session.ts";

const { ForwardUp, OutcomeKind, ReadOutcomeKind } = skep.raft;

interface Request {
  readonly id: number;
  readonly bytes: number;
  /** Encoded when it leaves, with what is then left of its time. */
  readonly encode: (timeoutMs: number) => Uint8Array;
  readonly untilMs: number;
  readonly timer: Timer;
  /** `left`: it may have arrived. */
  readonly lost: (left: boolean) => void;
  readonly answered: (down: skep.raft.IForwardDown) => void;
  sent: boolean;
}

export interface ForwardLine {
  dial(): DirectChannel;
  hello(): Uint8Array;
  statement(bytes: Uint8Array): void;
}

const backpressure: Outcome = { kind: "backpressure", why: "uncommitted", retryAfterMs: 50 };
/** Never left this member: it can be offered again to whoever leads. */
const notSent: Outcome = { kind: "notLeader", leader: noMember };

export class Forwarder implements Disposable {
  readonly #line: ForwardLine;
  readonly #clock: Clock;
  readonly #limits: TransportLimits;
  readonly #requests = new Map<number, Request>();
  #bytes = 0;
  #nextId = 1;
  #session: Session<skep.raft.IForwardDown> | undefined;
  #idle: Timer | undefined;
  #disposed = false;

  constructor(line: ForwardLine, clock: Clock, limits: TransportLimits) {
    this.#line = line;
    this.#clock = clock;
    this.#limits = limits;
  }

  /** @returns gives it up; `done` is still called, once */
  propose(command: Uint8Array, timeoutMs: number, done: (outcome: Outcome) => void): () => void {
    const id = this.#nextId++;
    const settle = later(done);
    return this.#ask({
      id,
      bytes: command.length,
      timeoutMs,
      encode: (leftMs) => ForwardUp.encode({ propose: { id, command, timeoutMs: leftMs, hops: 1 } }).finish(),
      refused: () => settle(backpressure),
      lost: (left) => settle(left ? { kind: "unknown" } : notSent),
      answered: (down) => {
        if (down.outcome) settle(readOutcome(down.outcome as skep.raft.ForwardedOutcome));
      },
    });
  }

  readIndex(timeoutMs: number, done: (outcome: ReadOutcome) => void): void {
    const id = this.#nextId++;
    const settle = later(done);
    this.#ask({
      id,
      bytes: 16,
      timeoutMs,
      encode: (leftMs) => ForwardUp.encode({ read: { id, timeoutMs: leftMs, hops: 1 } }).finish(),
      refused: () => settle({ kind: "retry" }),
      lost: () => settle({ kind: "retry" }),
      answered: (down) => {
        const read = down.read as skep.raft.ForwardedReadOutcome | null | undefined;
        if (!read) return;
        if (read.kind === ReadOutcomeKind.READ_READY) settle({ kind: "ready", index: read.index });
        // That the leader stops is no news about this member.
        else settle({ kind: "retry" });
      },
    });
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#idle?.cancel();
    this.#session?.[Symbol.dispose]();
    this.#session = undefined;
    this.#loseAll();
  }

  #ask(order: {
    readonly id: number;
    readonly bytes: number;
    readonly timeoutMs: number;
    readonly encode: (timeoutMs: number) => Uint8Array;
    readonly refused: () => void;
    readonly lost: (left: boolean) => void;
    readonly answered: (down: skep.raft.IForwardDown) => void;
  }): () => void {
    const { id, bytes, timeoutMs, encode, refused, lost, answered } = order;
    if (this.#disposed) {
      lost(false);
      return () => {};
    }
    if (this.#requests.size >= this.#limits.forwardedMax || this.#bytes + bytes > this.#limits.forwardedBytesMax) {
      refused();
      return () => {};
    }
    const giveUp = (): void => {
      if (this.#requests.get(id) !== request) return;
      this.#remove(request);
      if (request.sent) this.#session?.write(ForwardUp.encode({ cancel: { id } }).finish());
      lost(request.sent);
    };
    const untilMs = this.#clock.monotonicMs() + timeoutMs;
    const timer = this.#clock.after(timeoutMs, giveUp);
    const request: Request = { id, bytes, encode, untilMs, timer, lost, answered, sent: false };
    this.#requests.set(id, request);
    this.#bytes += bytes;
    if (this.#session?.accepted === true) this.#send(this.#session, request);
    else this.#connect();
    return giveUp;
  }

  #connect(): void {
    if (this.#session !== undefined) return;
    this.#idle?.cancel();
    const session: Session<skep.raft.IForwardDown> = new Session(
      {
        channel: this.#line.dial(),
        method: forwardMethod,
        hello: this.#line.hello(),
        clock: this.#clock,
        handshakeTimeoutMs: this.#limits.handshakeTimeoutMs,
      },
      {
        accepted: () => {
          for (const request of this.#requests.values()) if (!request.sent) this.#send(session, request);
        },
        message: (down) => this.#received(down),
        statement: (bytes) => this.#line.statement(bytes),
        closed: () => {
          this.#session = undefined;
          this.#idle?.cancel();
          // Also those that have not left: their callers know better where to ask next.
          this.#loseAll();
        },
      },
    );
    this.#session = session;
  }

  #send(session: Session<skep.raft.IForwardDown>, request: Request): void {
    request.sent = true;
    const leftMs = Math.max(1, Math.round(request.untilMs - this.#clock.monotonicMs()));
    // What the connection does not take at once is bounded by the bytes of all requests.
    session.write(request.encode(leftMs));
  }

  #received(down: skep.raft.IForwardDown): void {
    const id = (down.outcome ?? down.read)?.id;
    const request = id === null || id === undefined ? undefined : this.#requests.get(id);
    if (request === undefined || !request.sent) return; // given up since, or nonsense
    this.#remove(request);
    request.answered(down);
  }

  #remove(request: Request): void {
    request.timer.cancel();
    this.#requests.delete(request.id);
    this.#bytes -= request.bytes;
    if (this.#requests.size > 0) return;
    this.#idle?.cancel();
    this.#idle = this.#clock.after(this.#limits.forwardIdleMs, () => {
      if (this.#requests.size > 0) return;
      this.#session?.[Symbol.dispose]();
      this.#session = undefined;
    });
  }

  #loseAll(): void {
    for (const request of this.#requests.values()) {
      request.timer.cancel();
      this.#requests.delete(request.id);
      request.lost(request.sent);
    }
    this.#bytes = 0;
  }
}

function readOutcome(wire: skep.raft.ForwardedOutcome): Outcome {
  switch (wire.kind) {
    case OutcomeKind.OUTCOME_COMMITTED:
      return { kind: "committed", index: wire.index, term: wire.term, result: wire.result };
    case OutcomeKind.OUTCOME_FAILED:
      return { kind: "failed", why: wire.why.slice(0, 1024) };
    case OutcomeKind.OUTCOME_BACKPRESSURE: {
      const why = wire.why === "applyLag" || wire.why === "diskLow" ? wire.why : "uncommitted";
      return { kind: "backpressure", why, retryAfterMs: wire.retryAfterMs };
    }
    case OutcomeKind.OUTCOME_NOT_LEADER:
      return { kind: "notLeader", leader: wire.leader };
    case OutcomeKind.OUTCOME_TOO_LARGE:
      return { kind: "tooLarge", sizeBytes: wire.sizeBytes, sizeBytesMax: wire.sizeBytesMax };
    case OutcomeKind.OUTCOME_STOPPED:
      // The leader stops; this member does not. Nothing was appended.
      return notSent;
    case OutcomeKind.OUTCOME_UNKNOWN:
      return { kind: "unknown" };
    default:
      // Of a newer release.
      return { kind: "unknown" };
  }
}

/** Once, and never inside the call that led to it. */
function later<T>(done: (value: T) => void): (value: T) => void {
  let called = false;
  return (value) => {
    if (called) return;
    called = true;
    queueMicrotask(() => done(value));
  };
}
