/**
 * The simulated network (N3): per-link delay, loss, duplication, reordering, clogging, capacity, cuts in one or both
 * directions, and resets that lose all that is in flight on a link, in order, as a TCP stream does.
 */
import type { MemberId, Message } from "../../manager/raft/core/types.ts";
import type { MarkName } from "./marks.ts";
import type { Random } from "../../lib/pure/prng.ts";

export interface NetworkOptions {
  readonly minUs: number;
  readonly meanUs: number;
  readonly loss: number;
  readonly duplicate: number;
  /** True: each link delivers in order and loses only by reset. False: datagrams, each with a delay of its own. */
  readonly streams: boolean;
  /** Bytes a millisecond; 0 means no limit. */
  readonly bytesPerMs: number;
}

export interface NetworkHost {
  readonly nowUs: number;
  schedule(atUs: number, run: () => void): void;
  deliver(message: Message): void;
  /** The sender learns that its stream to `to` broke. */
  unreachable(from: MemberId, to: MemberId): void;
  mark(name: MarkName): void;
}

interface Link {
  /** How many cuts lie on this link; it carries while there are none. */
  cuts: number;
  /** Grows with each reset: what was in flight before is lost. */
  epoch: number;
  lastArrivalUs: number;
  busyUntilUs: number;
  cloggedUntilUs: number;
}

/** Looks at each message that is about to travel; the first filter that answers other than "pass" decides. */
export type Filter = (message: Message) => "pass" | "drop" | "hold";

export class Network {
  readonly #host: NetworkHost;
  readonly #options: NetworkOptions;
  readonly #random: Random;
  readonly #links = new Map<number, Link>();
  readonly #filters = new Set<Filter>();
  readonly #held: Message[] = [];
  /** Off in the last phase: no loss, no duplicates, short delays. */
  #faulty = true;

  constructor(host: NetworkHost, options: NetworkOptions, random: Random) {
    this.#host = host;
    this.#options = options;
    this.#random = random;
  }

  send(message: Message): void {
    for (const filter of this.#filters) {
      const verdict = filter(message);
      if (verdict === "drop") return;
      if (verdict === "hold") {
        this.#held.push(message);
        return;
      }
    }
    this.#travel(message, messageBytes(message), () => this.#host.deliver(message));
  }

  /** Anything else that has to cross a link: `arrive` runs at the other end, or `lost` at this one. */
  carry(from: MemberId, to: MemberId, bytes: number, arrive: () => void, lost: () => void): void {
    const link = this.#link(from, to);
    if (link.cuts > 0) {
      this.#host.schedule(this.#host.nowUs + 1_000, lost);
      return;
    }
    const atUs = this.#arrivalUs(link, bytes);
    const epoch = link.epoch;
    this.#host.schedule(atUs, () => {
      if (link.cuts > 0 || link.epoch !== epoch) lost();
      else arrive();
    });
  }

  #travel(message: Message, bytes: number, arrive: () => void): void {
    const link = this.#link(message.from, message.to);
    const options = this.#options;
    if (this.#faulty && !options.streams && this.#random.chance(options.loss)) return;
    const copies = this.#faulty && !options.streams && this.#random.chance(options.duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const atUs = this.#arrivalUs(link, bytes);
      const epoch = link.epoch;
      this.#host.schedule(atUs, () => {
        // A cut swallows what arrives while it lasts; a reset what was sent before it.
        if (link.cuts === 0 && link.epoch === epoch) arrive();
      });
    }
  }

  #arrivalUs(link: Link, bytes: number): number {
    const options = this.#options;
    const nowUs = this.#host.nowUs;
    const meanUs = this.#faulty ? options.meanUs : Math.min(options.meanUs, 1_000);
    let atUs = nowUs + options.minUs + Math.floor(this.#random.exponential(meanUs));
    if (options.bytesPerMs > 0 && this.#faulty) {
      link.busyUntilUs = Math.max(link.busyUntilUs, nowUs) + Math.ceil((bytes * 1_000) / options.bytesPerMs);
      atUs += link.busyUntilUs - nowUs;
    }
    if (link.cloggedUntilUs > atUs) atUs = link.cloggedUntilUs + (options.streams ? 0 : this.#random.int(0, 1_000));
    if (options.streams) {
      atUs = Math.max(atUs, link.lastArrivalUs);
      link.lastArrivalUs = atUs;
    }
    return atUs;
  }

  cut(from: MemberId, to: MemberId): void {
    this.#link(from, to).cuts++;
  }

  join(from: MemberId, to: MemberId): void {
    const link = this.#link(from, to);
    link.cuts = Math.max(0, link.cuts - 1);
  }

  isCut(from: MemberId, to: MemberId): boolean {
    return this.#link(from, to).cuts > 0;
  }

  clog(from: MemberId, to: MemberId, untilUs: number): void {
    const link = this.#link(from, to);
    link.cloggedUntilUs = Math.max(link.cloggedUntilUs, untilUs);
    this.#host.mark("link clogged");
  }

  /** Both ends lose what is in flight from one to the other, and the sender is told. */
  reset(from: MemberId, to: MemberId): void {
    this.#link(from, to).epoch++;
    this.#host.mark("stream reset");
    this.#host.unreachable(from, to);
  }

  /** A process died: its streams, in both directions, die with it. */
  resetAll(member: MemberId, others: Iterable<MemberId>): void {
    for (const other of others) {
      if (other === member) continue;
      this.#link(member, other).epoch++;
      this.#link(other, member).epoch++;
    }
  }

  filter(filter: Filter): () => void {
    this.#filters.add(filter);
    return () => void this.#filters.delete(filter);
  }

  /** Sends what filters held back, as the very old messages that they now are. */
  release(): void {
    for (const message of this.#held.splice(0)) {
      this.#travel(message, messageBytes(message), () => this.#host.deliver(message));
    }
  }

  heal(): void {
    this.#faulty = false;
    this.#filters.clear();
    this.release();
    for (const link of this.#links.values()) {
      link.cuts = 0;
      link.cloggedUntilUs = 0;
    }
  }

  #link(from: MemberId, to: MemberId): Link {
    const key = from * 4096 + to;
    let link = this.#links.get(key);
    if (link === undefined) {
      link = { cuts: 0, epoch: 0, lastArrivalUs: 0, busyUntilUs: 0, cloggedUntilUs: 0 };
      this.#links.set(key, link);
    }
    return link;
  }
}

function messageBytes(message: Message): number {
  if (message.type !== "append") return 60;
  let bytes = 80;
  for (const entry of message.entries) bytes += 24 + entry.data.length;
  return bytes;
}
