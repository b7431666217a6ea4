/** Packets to other nodes, by which the doctor tells a host that is gone from a port that is closed from a path that is narrow. */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";

import type { Clock } from "../../lib/runtime/index.ts";
import { isV6 } from "./core/cidr6.ts";
import type { Answer } from "./core/diagnosis.ts";

/** Of one packet; the path to a node of one cluster is far shorter. */
const answerMs = 1000;
const attemptsMax = 2;
const udpHeaders = { ip4: 28, ip6: 48 } as const;
/** Where traceroute begins: nobody serves there, and firewalls know it. */
const closedPort = 33_434;

interface Probe {
  /** Of this node; empty: whichever. */
  readonly from: string;
  readonly to: string;
  readonly port: number;
  /** In bytes, with the headers of IP and UDP. */
  readonly packetBytes: number;
}

export interface Answered {
  readonly answer: Answer;
  readonly roundTripMs: number | undefined;
}

/** Whether a host is there: its kernel says that nobody has the port. */
export function probeHost(to: string, clock: Clock, signal: AbortSignal): Promise<Answered> {
  return attempts({ from: "", to, port: closedPort, packetBytes: 64 }, clock, signal);
}

/** The same of a node's gateway address, which is reached through the mesh: for IPv6, by which nobody asks for names. */
export function probeGateway(
  from: string,
  to: string,
  packetBytes: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<Answered> {
  return attempts({ from, to, port: closedPort, packetBytes }, clock, signal);
}

/**
 * Whether a packet of this size comes through to the resolver of another node: it refuses to answer a node, and that is
 * an answer.
 */
export function probeResolver(
  from: string,
  to: string,
  packetBytes: number,
  clock: Clock,
  signal: AbortSignal,
  port = 53,
): Promise<Answered> {
  return attempts({ from, to, port, packetBytes }, clock, signal);
}

async function attempts(probe: Probe, clock: Clock, signal: AbortSignal): Promise<Answered> {
  for (let attempt = 0; attempt < attemptsMax && !signal.aborted; attempt++) {
    const startedMs = clock.monotonicMs();
    if (await once(probe, clock, signal)) {
      return { answer: "answers", roundTripMs: clock.monotonicMs() - startedMs };
    }
  }
  return { answer: "silent", roundTripMs: undefined };
}

/** A query for the root's name, padded: a resolver reads what it knows and leaves the rest. */
function packet(payloadBytes: number): Uint8Array {
  const id = randomInt(0x1_0000);
  const query = Uint8Array.of(id >> 8, id & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1);
  const out = new Uint8Array(Math.max(query.length, payloadBytes));
  out.set(query);
  return out;
}

function once({ from, to, port, packetBytes }: Probe, clock: Clock, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const has6 = isV6(to);
    const socket = createSocket(has6 ? "udp6" : "udp4");
    let over = false;
    const done = (answered: boolean): void => {
      if (over) return;
      over = true;
      timer.cancel();
      signal.removeEventListener("abort", onAbort);
      socket.removeAllListeners("connect");
      socket.close();
      resolve(answered);
    };
    const onAbort = (): void => done(false);
    const timer = clock.after(answerMs, onAbort);
    signal.addEventListener("abort", onAbort, { once: true });
    const sent = packet(packetBytes - (has6 ? udpHeaders.ip6 : udpHeaders.ip4));
    // A kernel that says that nobody has the port has answered; one that knows no way there has not.
    socket.on("error", (error: NodeJS.ErrnoException) => done(error.code === "ECONNREFUSED"));
    socket.on("message", (reply) => done(reply[0] === sent[0] && reply[1] === sent[1]));
    socket.on("connect", () => socket.send(sent));
    if (from === "") socket.connect(port, to);
    else socket.bind(0, from, () => socket.connect(port, to));
  });
}
