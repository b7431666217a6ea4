/** The sockets of the resolver: UDP and TCP at the node's gateway address, where each asker is known by its own. */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";

import type { Random } from "../../../lib/pure/prng.ts";
import type { Clock, Timer } from "../../../lib/runtime/index.ts";
import { answer } from "./core/answer.ts";
import { Frames, framed } from "./core/frames.ts";
import { passedReply, readQuery, replyBytesMax, replyCode, writeReply, type Query } from "./core/message.ts";
import type { Asker, Names } from "./core/names.ts";
import { ResolverNotBound } from "./errors.ts";
import { Forwarder, forwardLimits, type ForwardLimits } from "./forwarder.ts";
import { HostServers } from "./host-servers.ts";

/** Connections in all and of one asker, queries under way on one, and how long one may be silent. */
const connectionsMax = 256;
const connectionsPerAskerMax = 16;
const queriesPerConnectionMax = 32;
const idleMs = 10_000;
/** Of a query by TCP; one with every record that a query may have is far below it. */
const queryBytesMax = 4096;
/** Ports that the kernel chooses are tried so often again. */
const chosenTries = 20;
/** UDP packets wait in the kernel while a tick takes long: about a thousand. */
const receiveBufferBytes = 1 << 20;

export interface ResolverOptions {
  readonly names: Names;
  /** resolv.conf of the host. */
  readonly hostServers?: string;
  /** Of the resolver and of the servers outside; another one only in tests, 0 to have one chosen. */
  readonly port?: number;
  readonly serversPort?: number;
  readonly limits?: ForwardLimits;
  readonly clock: Clock;
  readonly random: Random;
}

export interface ResolverFigures {
  readonly queries: number;
  /** From addresses that are nobody's. */
  readonly strangers: number;
  readonly forwarded: number;
  /** Not forwarded, since too many were under way. */
  readonly turnedAway: number;
}

/** The sockets of one address. */
interface Door {
  readonly udp: UdpSocket;
  readonly tcp: Server;
}

/**
 * Serves at the addresses that it is told until it is disposed. A query for a name of ours is answered in the turn of the
 * loop that brings it, and the loop takes some thirty packets of a socket at a time: a flood delays others by a millisecond.
 */
export class Resolver implements AsyncDisposable {
  readonly #names: Names;
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #port: number;
  readonly #forwarder: Forwarder;
  readonly #hostServers: HostServers;
  readonly #doors = new Map<string, Promise<Door>>();
  readonly #connections = new Map<Socket, { readonly asker: string; readonly at: string }>();
  #queries = 0;
  #strangers = 0;
  #forwarded = 0;

  constructor({ names, hostServers, port, serversPort, limits, clock, random }: ResolverOptions) {
    this.#names = names;
    this.#random = random;
    this.#clock = clock;
    this.#port = port ?? 53;
    this.#forwarder = new Forwarder(clock, limits ?? forwardLimits, serversPort ?? 53);
    this.#hostServers = new HostServers(hostServers ?? "/etc/resolv.conf", clock, (address) =>
      this.#doors.has(address),
    );
  }

  /**
   * Serves at this address of the node from now on; again is harmless.
   * @returns the port
   * @throws ResolverNotBound
   */
  async listen(address: string): Promise<number> {
    let door = this.#doors.get(address);
    if (door === undefined) {
      door = this.#open(address);
      this.#doors.set(address, door);
      const mine = door;
      // Another attempt is a new one, and may be under way already.
      door.catch(() => this.#doors.get(address) === mine && this.#doors.delete(address));
    }
    return (await door).udp.address().port;
  }

  /** Serves there no longer; connections there end. */
  async leave(address: string): Promise<void> {
    const door = this.#doors.get(address);
    this.#doors.delete(address);
    for (const [socket, { at }] of this.#connections) if (at === address) socket.destroy();
    const opened = await door?.catch(() => undefined); // it was told to whoever asked for it
    if (opened !== undefined) await close(opened);
  }

  get figures(): ResolverFigures {
    return {
      queries: this.#queries,
      strangers: this.#strangers,
      forwarded: this.#forwarded,
      turnedAway: this.#forwarder.refused,
    };
  }

  async #open(address: string, triesLeft = chosenTries): Promise<Door> {
    const udp = createSocket({ type: "udp4", recvBufferSize: receiveBufferBytes });
    const door: Door = { udp, tcp: createServer((socket) => this.#accept(socket, address)) };
    try {
      await bound(udp, () => udp.bind(this.#port, address));
      // A port that was chosen by the kernel is the same for both.
      await bound(door.tcp, () => door.tcp.listen(udp.address().port, address));
    } catch (error) {
      await close(door);
      // It was chosen for UDP, and may be somebody's by TCP.
      const isTaken = this.#port === 0 && (error as NodeJS.ErrnoException).code === "EADDRINUSE";
      if (isTaken && triesLeft > 0) return this.#open(address, triesLeft - 1);
      throw new ResolverNotBound(address, this.#port, error);
    }
    udp.on("message", (packet, from) => this.#receive(udp, packet, from));
    // Of a reply that could not be sent: whoever asked asks again.
    udp.on("error", () => undefined);
    door.tcp.on("error", () => undefined);
    return door;
  }

  #receive(udp: UdpSocket, packet: Buffer, { address, port }: RemoteInfo): void {
    const reply = this.#handle(packet, address, false);
    const send = (bytes: Uint8Array | undefined): void => {
      // A reply that cannot leave (the asker has gone) is nobody's loss.
      if (bytes !== undefined) udp.send(bytes, port, address, () => undefined);
    };
    if (!(reply instanceof Promise)) send(reply);
    // The socket may have been closed meanwhile.
    else reply.then(send).catch(() => undefined);
  }

  /** @returns the reply; undefined: none is due. Promises never reject. */
  #handle(packet: Uint8Array, address: string, byTcp: boolean): Uint8Array | undefined | Promise<Uint8Array> {
    this.#queries++;
    const reading = readQuery(packet);
    if (reading.kind === "ignored") return undefined;
    const { query } = reading;
    const bytesMax = replyBytesMax(query, byTcp);
    const asker = this.#names.asker(address);
    if (asker === undefined) this.#strangers++;
    if (reading.kind === "refused") {
      const code = asker === undefined ? replyCode.REFUSED : reading.code;
      return writeReply(packet, query, { code, ours: false, answers: [] }, bytesMax);
    }
    const verdict = answer(reading.query, asker, this.#random);
    if (verdict.kind === "reply") return writeReply(packet, query, verdict, bytesMax);
    return this.#forward(packet, reading.query, asker, byTcp);
  }

  async #forward(packet: Uint8Array, query: Query, asker: Asker | undefined, byTcp: boolean): Promise<Uint8Array> {
    this.#forwarded++;
    const own = asker?.dns ?? [];
    const servers = own.length > 0 ? own : this.#hostServers.get();
    const reply = await this.#forwarder.ask({ packet, query, asker: asker?.id ?? "", servers, byTcp });
    // By UDP a client takes what it said it would, however long that is on its way from a server to us.
    const bytesMax = byTcp ? replyBytesMax(query, true) : query.udpBytesMax;
    if (reply !== undefined) return passedReply(reply, query, bytesMax);
    return writeReply(packet, query, { code: replyCode.SERVFAIL, ours: false, answers: [] }, bytesMax);
  }

  #accept(socket: Socket, at: string): void {
    socket.on("error", () => socket.destroy());
    const address = socket.remoteAddress ?? "";
    const own = [...this.#connections.values()].filter(({ asker }) => asker === address).length;
    const isKnown = this.#names.asker(address) !== undefined;
    if (!isKnown || own >= connectionsPerAskerMax || this.#connections.size >= connectionsMax) {
      if (!isKnown) this.#strangers++;
      socket.destroy();
      return;
    }
    this.#connections.set(socket, { asker: address, at });
    const frames = new Frames(queryBytesMax);
    let idle: Timer | undefined;
    let under = 0;
    const rearm = (): void => {
      idle?.cancel();
      idle = this.#clock.after(idleMs, () => socket.destroy());
    };
    /** Who does not read what was answered is not asked for more. */
    const steer = (): void => {
      if (under >= queriesPerConnectionMax || socket.writableNeedDrain) socket.pause();
      else socket.resume();
    };
    const finish = (reply: Uint8Array | undefined): void => {
      if (socket.destroyed) return;
      if (reply !== undefined) socket.write(framed(reply));
      under--;
      rearm();
      steer();
    };
    socket.on("drain", steer);
    socket.on("close", () => {
      idle?.cancel();
      this.#connections.delete(socket);
    });
    socket.on("data", (chunk) => {
      rearm();
      for (const message of frames.push(chunk)) {
        under++;
        const reply = this.#handle(message, address, true);
        if (reply instanceof Promise) void reply.then(finish);
        else finish(reply);
      }
      if (frames.broken) socket.destroy();
      else steer();
    });
    rearm();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#doors.keys()].map((address) => this.leave(address)));
    await this.#forwarder[Symbol.asyncDispose]();
  }
}

async function close({ udp, tcp }: Door): Promise<void> {
  await new Promise<void>((resolve) => udp.close(() => resolve()));
  // Calls back with an error when it has never listened.
  await new Promise<void>((resolve) => tcp.close(() => resolve()));
}

/** Until it is bound; rejects with what hindered it. */
function bound(socket: UdpSocket | Server, bind: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      socket.removeListener("error", failed);
      resolve();
    };
    const failed = (error: Error): void => {
      socket.removeListener("listening", done);
      reject(error);
    };
    socket.once("listening", done);
    socket.once("error", failed);
    bind();
  });
}
