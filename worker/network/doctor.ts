/**
 * The doctor: looks at the kernel, the paths to other nodes and the host's firewalls, has put right what can be, and says
 * what is left. It changes nothing but what repair would have changed by itself.
 */
import { readFile } from "node:fs/promises";

import type { Clock } from "../../lib/runtime/index.ts";
import {
  diagnose,
  type Difference,
  type Finding,
  type Observations,
  type PeerProbe,
  type TunnelPeer,
} from "./core/diagnosis.ts";
import { gateway6Of } from "../../lib/pure/node-number.ts";
import { gatewayOf } from "./core/host.ts";
import type { Self } from "./core/part.ts";
import type { PeerRecord } from "./core/records.ts";
import { isReachable } from "./core/tunnel.ts";
import { mtuMin6 } from "./core/underlay.ts";
import { probeGateway, probeHost, probeResolver } from "./probes.ts";

export interface DoctorReport extends Pick<Observations, "nodeId" | "number" | "addr" | "mtu"> {
  readonly peers: readonly PeerProbe[];
  /** undefined: this node is on no encrypted network. */
  readonly tunnel: readonly TunnelPeer[] | undefined;
  readonly findings: readonly Finding[];
}

/** What the doctor looks at. */
export interface DoctorFacts {
  readonly self: Self;
  readonly peers: readonly PeerRecord[];
  /** Those of them that this node's frames cannot go to. */
  readonly strangers: readonly PeerRecord[];
  readonly refusal: Observations["refusal"];
  /** Compares the kernel with what is wanted. */
  differences(): Promise<readonly Difference[]>;
  /** Puts it right, as far as it goes. */
  repair(): Promise<void>;
  linkMtu(address: string): Promise<number>;
  readonly refusedPorts: readonly string[];
  readonly firewall: readonly string[];
  readonly unserved: Observations["unserved"];
  tunnel(): Promise<readonly TunnelPeer[] | undefined>;
  /** What the mesh's frames lose to the tunnel. */
  readonly meshTunnelBytes: number;
  /** Whether the mesh has IPv6 by now: it goes with the last service that publishes a port. */
  hasMesh6(): boolean;
  readonly clock: Clock;
  /** Other than 53: tests. */
  readonly port?: number;
  readonly gatewayOf?: (nodeNumber: number) => string;
  readonly gateway6Of?: (nodeNumber: number) => string;
}

/** Of an outer header of IPv4, as `underlayMtu` is. */
const vxlanBytes = 50;
const smallPacketBytes = 100;
/** Nodes that are asked at a time. */
const atOnceMax = 64;

export async function examine(facts: DoctorFacts, signal: AbortSignal): Promise<DoctorReport> {
  const { self, refusal } = facts;
  const mtu = self.underlayMtu - vxlanBytes - facts.meshTunnelBytes;
  const differences = refusal === undefined ? await facts.differences() : [];
  if (differences.length > 0) await facts.repair().catch(() => undefined); // what it could not do is seen by looking again
  const [unrepaired, peers, linkMtu, connections, tunnel] = await Promise.all([
    differences.length === 0 ? [] : facts.differences(),
    refusal === undefined ? probeAll(facts, mtu, signal) : [],
    self.addr === "" || refusal !== undefined ? 0 : facts.linkMtu(self.addr),
    connectionsOf(),
    refusal === undefined ? facts.tunnel() : undefined,
  ]);
  const { refusedPorts, firewall, unserved } = facts;
  const hasMesh6 = facts.hasMesh6();
  const base = { nodeId: self.nodeId, number: self.number, addr: self.addr, mtu };
  const findings = diagnose({
    ...base,
    hasMesh6,
    linkMtu,
    refusal,
    differences,
    unrepaired,
    peers,
    tunnel,
    keyless: [...facts.peers].filter((peer) => !isReachable(peer)).map(({ nodeId }) => nodeId),
    nowSeconds: Math.floor(facts.clock.wallMs() / 1000),
    refusedPorts,
    firewall,
    unserved,
    strangers: facts.strangers.map(({ nodeId, addr }) => ({ nodeId, addr })),
    connections,
  });
  return { ...base, peers, tunnel, findings };
}

async function probeAll(facts: DoctorFacts, mtu: number, signal: AbortSignal): Promise<readonly PeerProbe[]> {
  const { self } = facts;
  const isOther = (peer: PeerRecord): boolean => peer.nodeId !== self.nodeId && !facts.strangers.includes(peer);
  const others = self.number === 0 ? [] : [...facts.peers].filter(isOther);
  const probed: PeerProbe[] = [];
  for (let at = 0; at < others.length; at += atOnceMax) {
    probed.push(
      ...(await Promise.all(others.slice(at, at + atOnceMax).map((peer) => probe(facts, peer, mtu, signal)))),
    );
  }
  return probed.sort((a, b) => a.number - b.number);
}

async function probe(facts: DoctorFacts, peer: PeerRecord, mtu: number, signal: AbortSignal): Promise<PeerProbe> {
  const { clock, self, port = 53 } = facts;
  const gateway = facts.gatewayOf ?? gatewayOf;
  const [from, to] = [gateway(self.number), gateway(peer.number)];
  const through = (bytes: number): ReturnType<typeof probeResolver> =>
    probeResolver(from, to, bytes, clock, signal, port);
  const six = facts.gateway6Of ?? ((number: number): string => gateway6Of(gatewayOf(number)));
  const [host, small, full, full6] = await Promise.all([
    probeHost(peer.addr, clock, signal),
    through(smallPacketBytes),
    through(mtu),
    facts.hasMesh6() && mtu >= mtuMin6
      ? probeGateway(six(self.number), six(peer.number), mtu, clock, signal)
      : undefined,
  ]);
  return {
    nodeId: peer.nodeId,
    number: peer.number,
    addr: peer.addr,
    underlay: host.answer,
    small: small.answer,
    full: full.answer,
    // Where the mesh has none any more, the other node may have heard of that before it was asked.
    ...(full6 === undefined || !facts.hasMesh6() ? {} : { full6: full6.answer }),
    roundTripMs: small.roundTripMs,
  };
}

/** Of the host's namespace; undefined: the kernel does not track connections. */
async function connectionsOf(): Promise<Observations["connections"]> {
  const read = async (name: string): Promise<number> =>
    Number(await readFile(`/proc/sys/net/netfilter/${name}`, "utf8").catch(() => "NaN"));
  const [count, max] = await Promise.all([read("nf_conntrack_count"), read("nf_conntrack_max")]);
  return Number.isFinite(count) && max > 0 ? { count, max } : undefined;
}
