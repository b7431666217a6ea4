/** /skep/v1/network/doctor: what is wrong with this node's network, and what to do. */
import type { DoctorReport } from "../../worker/network/index.ts";
import { NotOffered, type JsonObject, type Route } from "../http/index.ts";

/** What examines the network of this node: worker/network. */
export interface Doctor {
  examine(signal: AbortSignal): Promise<DoctorReport>;
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

function reportToApi({ nodeId, number, addr, mtu, peers, findings }: DoctorReport): JsonObject {
  return {
    node: { id: nodeId, number, addr, mtu },
    healthy: !findings.some(({ severity }) => severity === "error"),
    findings: findings.map((finding) => ({ ...finding })),
    peers: peers.map(({ roundTripMs, ...peer }) => ({
      ...peer,
      ...(roundTripMs === undefined ? {} : { roundTripMs: Math.round(roundTripMs * 1000) / 1000 }),
    })),
  };
}
