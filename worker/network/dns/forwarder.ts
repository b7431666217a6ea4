/** Asks servers outside for names that are not ours, within limits: a container can neither fill memory nor wait for ever. */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";

import type { Clock } from "../../../lib/runtime/index.ts";
import { Frames, framed } from "./core/frames.ts";
import { answersQuery, forwardedQuery, isServerFailure, tcpBytesMax, type Query } from "./core/message.ts";

export interface ForwardLimits {
  /** Queries under way. */
  readonly outstandingMax: number;
  /** Of one asker. */
  readonly perAskerMax: number;
  /** Servers asked for one query, the same one again if there are fewer. */
  readonly attemptsMax: number;
  /** Of one attempt. */
  readonly timeoutMs: number;
}

/** All attempts end before the 5 s after which libc asks again (resolv.conf(5), timeout). */
export const forwardLimits: ForwardLimits = {
  outstandingMax: 1024,
  perAskerMax: 128,
  attemptsMax: 3,
  timeoutMs: 1500,
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
  readonly #perAsker = new Map<string, number>();
  readonly #stop = new AbortController();
  readonly #under = new Set<Promise<Reply>>();
  /** Queries turned away because too many were under way. */
  refused = 0;

  constructor(clock: Clock, limits: ForwardLimits = forwardLimits, port = 53) {
    this.#clock = clock;
    this.#limits = limits;
    this.#port = port;
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

  async #attempts({ packet, query, servers, byTcp }: Foreign): Promise<Reply> {
    let failure: Reply;
    for (let attempt = 0; attempt < this.#limits.attemptsMax && servers.length > 0; attempt++) {
      if (this.#stop.signal.aborted) return undefined;
      const server = servers[attempt % servers.length] ?? "";
      // An id of its own and, by a socket of its own, a port drawn by the kernel: both have to be guessed to forge a reply.
      const sent = forwardedQuery(packet, query, randomInt(0x1_0000));
      const reply = await (byTcp ? this.#byTcp(sent, query, server) : this.#byUdp(sent, query, server));
      if (reply !== undefined && !isServerFailure(reply)) return reply;
      failure = reply ?? failure;
      if (reply !== undefined && attempt + 1 >= servers.length) break;
    }
    return failure;
  }

  #byUdp(sent: Uint8Array, query: Query, server: string): Promise<Reply> {
    return this.#once((done) => {
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

  #byTcp(sent: Uint8Array, query: Query, server: string): Promise<Reply> {
    return this.#once((done) => {
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

  /** One attempt: ends by its first word, its time or the end of the forwarder, and then frees its socket. */
  #once(start: (done: (reply: Reply) => void) => () => void): Promise<Reply> {
    return new Promise((resolve) => {
      let free: (() => void) | undefined;
      let over = false;
      const { signal } = this.#stop;
      const done = (reply: Reply): void => {
        if (over) return;
        over = true;
        timer.cancel();
        signal.removeEventListener("abort", onStop);
        free?.();
        resolve(reply);
      };
      const onStop = (): void => done(undefined);
      const timer = this.#clock.after(this.#limits.timeoutMs, onStop);
      signal.addEventListener("abort", onStop, { once: true });
      free = start(done);
      if (over) free();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#under);
  }
}
