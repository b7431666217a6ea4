/** The agent's end of one stream to a manager: says who it is, keeps the heartbeat, hands on what comes. */
import type { ClusterError } from "../../lib/pure/errors.ts";
import type { BidiMethod, RpcStream, StreamEvents } from "../../lib/rpc/index.ts";
import type { Clock, Timer } from "../../lib/runtime/index.ts";
import { sessionMethod, type skep } from "../../proto/index.ts";
import { SessionBroken } from "./errors.ts";

/** What an agent needs of a channel: Channel of lib/rpc has it. */
export interface AgentChannel extends Disposable {
  open<Request, Response>(
    method: BidiMethod<Request, Response>,
    events: StreamEvents<Response>,
  ): RpcStream<Request> & { abort(error: ClusterError | undefined): void };
}

type ManagerMessage = skep.dispatcher.ManagerMessage.$Properties;
type AgentMessage = skep.dispatcher.AgentMessage.$Properties;

export interface SessionHandlers {
  welcome(welcome: skep.dispatcher.Welcome.$Properties): void;
  message(message: ManagerMessage): void;
  drained(): void;
  goodbye(goodbye: skep.dispatcher.Goodbye.$Properties): void;
}

export interface SessionOptions {
  readonly address: string;
  readonly channel: AgentChannel;
  readonly clock: Clock;
  readonly hello: skep.dispatcher.Hello.$Properties;
  readonly handlers: SessionHandlers;
}

/** Swarm's patience for an answer. */
const answerMs = 5000;
const periodDefaultMs = 5000;
/** Heartbeats in a row without an answer until the manager counts as lost, whatever it says besides. */
const unansweredMax = 2;
/** Whoever has heard nothing for so long asks, unless the manager says otherwise. */
const quietDefaultMs = 2000;
/** From the question until the manager counts as lost, if nothing at all is heard: at least so long. */
const silenceMinMs = 4000;
/**
 * Half the time after which a manager wants to be asked is the time that it has for its answer, where that is more: one of
 * 5,000 nodes and 700,000 tasks has turns of 4.2 s on two cores (docs/benchmarks.md), and if all left it for one of them,
 * their coming back would be worse.
 */
const silenceMs = (quietMs: number): number => Math.max(silenceMinMs, quietMs / 2);
/** This process was held up itself: what the manager has said may lie unread. */
const lateMsMax = 500;

export class AgentSession {
  readonly #options: SessionOptions;
  readonly #stream: RpcStream<AgentMessage> & { abort(error: ClusterError | undefined): void };
  readonly #ended = Promise.withResolvers<ClusterError | undefined>();
  #welcomed = false;
  #unanswered = 0;
  #timer: Timer | undefined;
  #quietMs = quietDefaultMs;
  #heardMs = 0;
  /** When the manager was asked whether it is there; undefined: it has been heard since. */
  #askedMs: number | undefined;
  #quiet: Timer | undefined;
  #isOver = false;

  constructor(options: SessionOptions) {
    const { channel, clock, hello, address } = options;
    this.#options = options;
    this.#timer = clock.after(answerMs, () => this.end(new SessionBroken(address, "it does not answer")));
    this.#stream = channel.open(sessionMethod, {
      message: (message) => this.#receive(message),
      drain: () => options.handlers.drained(),
      finished: () => this.end(undefined),
      closed: (error) => this.#over(error),
    });
    this.#stream.write({ hello });
  }

  /** Resolves when the stream is over, with why if it broke. */
  get ended(): Promise<ClusterError | undefined> {
    return this.#ended.promise;
  }

  get welcomed(): boolean {
    return this.#welcomed;
  }

  /** @returns false: wait for `drained` */
  send(message: AgentMessage): boolean {
    return this.#stream.write(message);
  }

  end(error: ClusterError | undefined): void {
    this.#stream.abort(error);
    this.#over(error);
  }

  #over(error: ClusterError | undefined): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#quiet?.cancel();
    this.#quiet = undefined;
    this.#isOver = true;
    this.#ended.resolve(error);
  }

  #receive(message: ManagerMessage): void {
    const { handlers, clock } = this.#options;
    const { welcome, heartbeatAck, goodbye, acks } = message;
    this.#heardMs = clock.monotonicMs();
    this.#askedMs = undefined;
    if (welcome != null) {
      this.#welcomed = true;
      this.#beatIn(welcome.heartbeatPeriod);
      this.#quietMs = welcome.quietMs || quietDefaultMs;
      this.#watchQuiet();
      return handlers.welcome(welcome);
    }
    if (goodbye != null) return handlers.goodbye(goodbye);
    if (heartbeatAck != null) {
      this.#unanswered = 0;
      const isSooner = (heartbeatAck.quietMs || quietDefaultMs) < this.#quietMs;
      this.#quietMs = heartbeatAck.quietMs || quietDefaultMs;
      if (isSooner) this.#watchQuiet();
      this.#beatIn(heartbeatAck.period);
      // They may travel with it.
      if (acks == null || acks.length === 0) return;
    }
    handlers.message(message);
  }

  #beatIn(period: skep.objects.Duration.$Properties | null | undefined): void {
    const { clock, address } = this.#options;
    const ms = (period?.seconds ?? 0) * 1000 + (period?.nanos ?? 0) / 1e6;
    const periodMs = ms > 0 ? ms : periodDefaultMs;
    this.#timer?.cancel();
    this.#timer = clock.after(periodMs, () => {
      if (this.#unanswered >= unansweredMax) return this.end(new SessionBroken(address, "heartbeats are not answered"));
      this.#unanswered++;
      this.#beat();
      this.#beatIn({ seconds: Math.floor(periodMs / 1000), nanos: Math.floor((periodMs % 1000) * 1e6) });
    });
  }

  #beat(): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#stream.write({ heartbeat: { sentAtUs: Math.floor(nowMs * 1000) } });
    if (this.#askedMs !== undefined) return;
    this.#askedMs = nowMs;
    this.#watchQuiet();
  }

  /**
   * Asks whether the manager is there when nothing was heard for a while, and gives it up when nothing is heard then. A ping
   * of every connection did the same, and was the most that a leader of thousands of agents did at rest: what it says
   * anyway is an answer as well, and it says itself how often it may be asked.
   */
  #watchQuiet(): void {
    const { clock, address } = this.#options;
    this.#quiet?.cancel();
    if (this.#isOver) return;
    const nowMs = clock.monotonicMs();
    const dueMs =
      this.#askedMs === undefined ? this.#heardMs + this.#quietMs : this.#askedMs + silenceMs(this.#quietMs);
    if (dueMs > nowMs) {
      const afterMs = dueMs - nowMs;
      this.#quiet = clock.after(afterMs, () => {
        // Once more as long, when it is this process that stood still.
        if (this.#askedMs !== undefined && clock.monotonicMs() - nowMs > afterMs + lateMsMax)
          this.#askedMs = clock.monotonicMs();
        this.#watchQuiet();
      });
    } else if (this.#askedMs === undefined) this.#beat();
    else this.end(new SessionBroken(address, "nothing is heard of it"));
  }
}
