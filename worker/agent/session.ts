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
/** Heartbeats in a row without an answer until the manager counts as lost. */
const unansweredMax = 2;

export class AgentSession {
  readonly #options: SessionOptions;
  readonly #stream: RpcStream<AgentMessage> & { abort(error: ClusterError | undefined): void };
  readonly #ended = Promise.withResolvers<ClusterError | undefined>();
  #welcomed = false;
  #unanswered = 0;
  #timer: Timer | undefined;

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
    this.#ended.resolve(error);
  }

  #receive(message: ManagerMessage): void {
    const { handlers } = this.#options;
    const { welcome, heartbeatAck, goodbye } = message;
    if (welcome != null) {
      this.#welcomed = true;
      this.#beatIn(welcome.heartbeatPeriod);
      return handlers.welcome(welcome);
    }
    if (goodbye != null) return handlers.goodbye(goodbye);
    if (heartbeatAck != null) {
      this.#unanswered = 0;
      return this.#beatIn(heartbeatAck.period);
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
      this.#stream.write({ heartbeat: { sentAtUs: Math.floor(clock.monotonicMs() * 1000) } });
      this.#beatIn({ seconds: Math.floor(periodMs / 1000), nanos: Math.floor((periodMs % 1000) * 1e6) });
    });
  }
}
