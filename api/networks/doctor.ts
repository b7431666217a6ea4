/** /skep/v1/network/doctor: what is wrong with this node's network, and what to do. */
import type { DoctorReport, TunnelPeer } from "../../worker/network/index.ts";
import { isoTime } from "../local/core/container-json.ts";
import { NotOffered, type JsonObject, type Route } from "../http/index.ts";

/** What examines the network of this node: worker/network. */
export interface Doctor {
  examine(signal: AbortSignal): Promise<DoctorReport>;
  /** undefined: this node is on no encrypted network. */
  tunnel?(): Promise<readonly TunnelPeer[] | undefined>;
}

export function doctorRoute(doctor: Doctor | undefined): Route {
  return {
    method: "POST",
    path: "/skep/v1/network/doctor",
    handle: async ({ signal }) => {
      if (doctor === undefined) throw new NotOffered("examining the network of a node that has none");
      return { json: reportToApi(await doctor.examine(signal)) };
    },
  };
}

function reportToApi({ nodeId, number, addr, mtu, peers, tunnel, findings }: DoctorReport): JsonObject {
  return {
    node: { id: nodeId, number, addr, mtu },
    healthy: !findings.some(({ severity }) => severity === "error"),
    findings: findings.map((finding) => ({ ...finding })),
    peers: peers.map(({ roundTripMs, ...peer }) => ({
      ...peer,
      ...(roundTripMs === undefined ? {} : { roundTripMs: Math.round(roundTripMs * 1000) / 1000 }),
    })),
    ...(tunnel === undefined
      ? {}
      : {
          tunnel: tunnel.map(tunnelJson),
        }),
  };
}

/** A node at the other end of the tunnel, as inspect and the doctor show it. */
export const tunnelJson = ({ handshakeSeconds, ...peer }: TunnelPeer): JsonObject => ({
  ...peer,
  ...(handshakeSeconds === undefined ? {} : { lastHandshake: isoTime(handshakeSeconds * 1000) }),
});
