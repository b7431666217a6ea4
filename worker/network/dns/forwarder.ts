/** Asks servers outside for names that are not ours, within limits: a container can neither fill memory nor wait for ever. */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";

import type { Clock } from "../../../lib/runtime/index.ts";
import { Frames, framed } from "./core/frames.ts";
import { answersQuery, forwardedQuery, isServerFailure, tcpBytesMax, type Query } from "./core/message.ts";
import { Upstreams, type UpstreamLimits } from "./core/upstreams.ts";

export interface ForwardLimits extends UpstreamLimits {
  /** Queries under way. */
  readonly outstandingMax: number;
  /** Of one asker. */
  readonly perAskerMax: number;
}

/** All ends well before the 5 s after which libc asks again (resolv.conf(5), timeout). */
export const forwardLimits: ForwardLimits = {
  outstandingMax: 1024,
  perAskerMax: 128,
  attemptsMax: 3,
  nextMs: 700,
  answerMs: 3000,
  silentAnswerMs: 1000,
  silentForMs: 5000,
};

/** Packets at one socket that are no answer to what was sent: somebody guesses. */
const strangersMax = 32;

export interface Foreign {
  readonly packet: Uint8Array;
  readonly query: Query;
  /** Whose limit it counts against. */
  readonly asker: string;
  /** Addresses; the port is 53. */
  readonly servers: readonly string[];
  readonly byTcp: boolean;
}

/** A server's reply, under any id; undefined: nobody answered, or too much is under way. */
type Reply = Uint8Array | undefined;

export class Forwarder {
  readonly #clock: Clock;
  readonly #limits: ForwardLimits;
  readonly #port: number;
  readonly #upstreams: Upstreams;
  readonly #perAsker = new Map<string, number>();
  readonly #stop = new AbortController();
  readonly #under = new Set<Promise<Reply>>();
  /** Queries turned away because too many were under way. */
  refused = 0;

  constructor(clock: Clock, limits: ForwardLimits = forwardLimits, port = 53) {
    this.#clock = clock;
    this.#limits = limits;
    this.#port = port;
    this.#upstreams = new Upstreams(limits);
  }

  /** Never rejects. */
  ask(foreign: Foreign): Promise<Reply> {
    const own = this.#perAsker.get(foreign.asker) ?? 0;
    const isFull = this.#under.size >= this.#limits.outstandingMax || own >= this.#limits.perAskerMax;
    if (isFull || this.#stop.signal.aborted) {
      this.refused++;
      return Promise.resolve(undefined);
    }
    this.#perAsker.set(foreign.asker, own + 1);
    const done = this.#attempts(foreign).finally(() => {
      this.#under.delete(done);
      const left = (this.#perAsker.get(foreign.asker) ?? 1) - 1;
      if (left > 0) this.#perAsker.set(foreign.asker, left);
      else this.#perAsker.delete(foreign.asker);
    });
    this.#under.add(done);
    return done;
  }

  /**
   * One server after the other, each while those before it are still listened to; the first good answer ends it, and a
   * failure is the answer if nobody has a better one.
   */
  async #attempts(foreign: Foreign): Promise<Reply> {
    const askedAtMs = this.#clock.monotonicMs();
    const { servers, answerMs } = this.#upstreams.plan(foreign.servers, askedAtMs);
    const over = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, over.signal]);
    const deadline = this.#clock.after(answerMs, () => over.abort());
    const under = new Set<Promise<void>>();
    const asked = new Set<string>();
    /** Those that failed, or are not there: they are not asked again. */
    const ended = new Set<string>();
    let good: Reply;
    let failure: Reply;
    const attempt = async (server: string): Promise<void> => {
      const reply = await this.#ask(foreign, server, signal);
      if (reply === undefined) {
        if (!signal.aborted) ended.add(server);
        return;
      }
      this.#upstreams.spoke(server, this.#clock.monotonicMs());
      if (isServerFailure(reply)) {
        ended.add(server);
        failure = reply;
      } else {
        good ??= reply;
        over.abort();
      }
    };
    for (const server of servers) {
      if (signal.aborted) break;
      if (ended.has(server)) continue;
      asked.add(server);
      const mine = attempt(server);
      under.add(mine);
      await this.#turn(mine);
    }
    await Promise.all(under);
    deadline.cancel();
    // Where another was faster, too: who is slower than a turn comes second for a while.
    const nowMs = this.#clock.monotonicMs();
    if (!this.#stop.signal.aborted) for (const server of asked) this.#upstreams.wasSilent(server, askedAtMs, nowMs);
    return good ?? failure;
  }

  /** Until this attempt is over, or the next may begin. */
  #turn(attempt: Promise<void>): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(this.#limits.nextMs, resolve);
      const done = (): void => {
        timer.cancel();
        resolve();
      };
      attempt.then(done, done);
    });
  }

  #ask({ packet, query, byTcp }: Foreign, server: string, signal: AbortSignal): Promise<Reply> {
    // An id of its own and, by a socket of its own, a port drawn by the kernel: both have to be guessed to forge a reply.
    const sent = forwardedQuery(packet, query, randomInt(0x1_0000));
    return byTcp ? this.#byTcp(sent, query, server, signal) : this.#byUdp(sent, query, server, signal);
  }

  #byUdp(sent: Uint8Array, query: Query, server: string, signal: AbortSignal): Promise<Reply> {
    return once(signal, (done) => {
      const socket = createSocket(isIPv6(server) ? "udp6" : "udp4");
      let strangers = 0;
      // Nobody listens there, or there is no way there.
      socket.on("error", () => done(undefined));
      socket.on("message", (reply) => {
        if (answersQuery(reply, sent, query)) done(reply);
        else if (++strangers > strangersMax) done(undefined);
      });
      socket.on("connect", () => socket.send(sent));
      // Connected, so that the kernel drops what others send, and tells of a port that nobody listens at.
      socket.connect(this.#port, server);
      return () => {
        socket.removeAllListeners("connect");
        socket.close();
      };
    });
  }

  #byTcp(sent: Uint8Array, query: Query, server: string, signal: AbortSignal): Promise<Reply> {
    return once(signal, (done) => {
      const socket = connect({ host: server, port: this.#port });
      const frames = new Frames(tcpBytesMax);
      socket.on("error", () => done(undefined));
      socket.on("close", () => done(undefined));
      socket.on("connect", () => socket.write(framed(sent)));
      socket.on("data", (chunk) => {
        const [reply] = frames.push(chunk);
        if (reply !== undefined) done(answersQuery(reply, sent, query) ? reply : undefined);
        else if (frames.broken) done(undefined);
      });
      return () => socket.destroy();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#under);
  }
}

/** One attempt: ends by its first word or the signal, and then frees its socket. */
function once(signal: AbortSignal, start: (done: (reply: Reply) => void) => () => void): Promise<Reply> {
  return new Promise((resolve) => {
    let free: (() => void) | undefined;
    let over = false;
    const done = (reply: Reply): void => {
      if (over) return;
      over = true;
      signal.removeEventListener("abort", onStop);
      free?.();
      resolve(reply);
    };
    const onStop = (): void => done(undefined);
    signal.addEventListener("abort", onStop, { once: true });
    free = start(done);
    if (over) free();
  });
}
