/** One core without a network: messages are made by hand, and what it sends is looked at. Its disk is instant unless held. */
import {
  type CoreConfig,
  type Entry,
  type InitialState,
  type MemberId,
  type Message,
  RaftCore,
  type Ready,
  type Status,
  type VoteResponse,
  coreDefaults,
  decodeConfChange,
} from "../../manager/raft/core/index.ts";

export class Lone {
  readonly core: RaftCore;
  readonly id: MemberId;
  /** Sent since the last `take()`. */
  #sent: Message[] = [];
  /** Readies whose writes are held back. */
  held: Ready[] = [];
  holdDisk = false;
  applied: Entry[] = [];
  holdApply = false;
  readonly readies: Ready[] = [];

  constructor(initial: InitialState, config: Partial<CoreConfig> = {}) {
    this.id = config.id ?? 1;
    this.core = new RaftCore(
      { ...coreDefaults, electionTicks: 10, heartbeatTicks: 1, seed: 1, ...config, id: this.id },
      initial,
    );
    this.#drain();
  }

  get status(): Status {
    return this.core.status();
  }

  tick(times = 1): this {
    for (let at = 0; at < times; at++) {
      this.core.tick();
      this.#drain();
    }
    return this;
  }

  step(...messages: Message[]): this {
    for (const message of messages) {
      this.core.step(message);
      this.#drain();
    }
    return this;
  }

  do<T>(act: (core: RaftCore) => T): T {
    const result = act(this.core);
    this.#drain();
    return result;
  }

  /** The oldest writes that were held are durable now. */
  persist(count = Infinity): this {
    for (const ready of this.held.splice(0, count)) {
      this.core.persisted(ready.token);
      this.#sent.push(...ready.messagesAfterPersist);
    }
    this.#drain();
    return this;
  }

  /** What was sent since the last time, of one type if asked. */
  take(): Message[];
  take<Type extends Message["type"]>(type: Type): Extract<Message, { type: Type }>[];
  take(type?: string): Message[] {
    const taken = this.#sent;
    this.#sent = [];
    return type === undefined ? taken : taken.filter((message) => message.type === type);
  }

  /** The answers to votes and pre-votes among them. */
  takeVotes(): VoteResponse[] {
    return this.take().filter(
      (message): message is VoteResponse => message.type === "voteResponse" || message.type === "preVoteResponse",
    );
  }

  /** A voter of `{1,2,3}` with the log of `initial` becomes leader: the others are made up. */
  static leader(initial: InitialState, config: Partial<CoreConfig> = {}): Lone {
    const lone = new Lone(initial, config);
    lone.win();
    return lone;
  }

  /** Campaigns, gets every vote, and leads. What it sent so far is forgotten. */
  win(): this {
    this.do((core) => core.campaign());
    for (let round = 0; round < 2; round++) {
      for (const request of this.take()) {
        if (request.type !== "preVote" && request.type !== "vote") continue;
        if (this.core.status().role === "leader") break;
        const type = request.type === "vote" ? "voteResponse" : "preVoteResponse";
        const { to, term } = request;
        this.step({ type, from: to, to: this.id, term, granted: true, commit: 0, commitTerm: 0 });
      }
    }
    this.take();
    return this;
  }

  /** `from` acknowledges up to `index` in the present term. */
  ack(from: MemberId, index = this.status.lastIndex): this {
    return this.step({
      type: "appendResponse",
      from,
      to: this.id,
      term: this.status.term,
      index,
      rejected: false,
      hintIndex: 0,
      hintTerm: 0,
    });
  }

  reject(from: MemberId, index: number, hintIndex: number, hintTerm: number): this {
    const { term } = this.status;
    return this.step({ type: "appendResponse", from, to: this.id, term, index, rejected: true, hintIndex, hintTerm });
  }

  /** `from` answers a round of heartbeats. */
  beat(from: MemberId, round: number): this {
    return this.step({ type: "heartbeatResponse", from, to: this.id, term: this.status.term, round });
  }

  #drain(): void {
    while (this.core.hasReady()) {
      const ready = this.core.ready();
      this.readies.push(ready);
      this.#sent.push(...ready.messages);
      if (this.holdDisk) this.held.push(ready);
      else {
        this.core.persisted(ready.token);
        this.#sent.push(...ready.messagesAfterPersist);
      }
      for (const entry of ready.committed) {
        this.applied.push(entry);
        if (this.holdApply) continue;
        if (entry.kind === "confChange") this.core.applyConfChange(decodeConfChange(entry.data));
        this.core.applied(entry.index);
      }
    }
  }
}

let nextSerial = 0;

/** A vote request of a stranger, with nothing else of interest. */
export function voteRequest(
  type: "vote" | "preVote",
  fields: { from: MemberId; to?: MemberId; term: number; lastIndex: number; lastTerm: number; transfer?: boolean },
): Message {
  return { type, to: 1, transfer: false, commit: 0, commitTerm: 0, ...fields };
}

export function append(
  fields: { from: MemberId; to?: MemberId; term: number; prevIndex?: number; prevTerm?: number; commit?: number },
  ...terms: number[]
): Message {
  const prevIndex = fields.prevIndex ?? 0;
  const entries = terms.map((term, at): Entry => ({
    term,
    index: prevIndex + 1 + at,
    kind: "normal",
    data: new TextEncoder().encode(`${prevIndex + 1 + at}.${term}`),
  }));
  return { type: "append", to: 1, prevIndex: 0, prevTerm: 0, commit: 0, ...fields, entries };
}

export function heartbeat(fields: {
  from: MemberId;
  term: number;
  to?: MemberId;
  commit?: number;
  round?: number;
}): Message {
  return { type: "heartbeat", to: 1, commit: 0, round: ++nextSerial, ...fields };
}
