/**
 * The tunnel of encrypted networks: one WireGuard link a node, in the host's namespace. VXLAN of such a network goes from
 * tunnel address to tunnel address, so what is outside of the host is WireGuard's UDP alone. Each node takes from a peer
 * only what comes from that peer's tunnel address, so nobody speaks for another. The link is there while something needs it.
 * Decision: docs/adr/0041-encrypted-networks-by-wireguard.md.
 */
import { nodeAddresses } from "../../../lib/pure/node-number.ts";
import type { NetObject } from "./objects.ts";
import type { Self } from "./part.ts";
import type { PeerRecord } from "./records.ts";
import { isTunnelKey, type TunnelKey } from "./tunnel-key.ts";

/** Begins as our other links do, so that guards and other firewalls treat it as one of them. */
export const tunnelLink = "skepwg";
/** UDP: as the managers' TCP port, so that an operator opens one number. */
export const tunnelPort = 2377;
/**
 * UDP port of VXLAN inside the tunnel. A VXLAN socket takes frames from any link, and one port has one socket: with a port
 * of its own, what comes to it by another link can be dropped, and no network in clear text shares it. Nobody's in IANA's list.
 */
export const tunnelDataPort = 4793;
/** Outer IPv4 and UDP headers, WireGuard's header and its tag. */
export const tunnelOverheadBytes = 60;
/** Sessions are there before somebody needs them, and who has a new key is greeted at once (the WireGuard paper, §6.5). */
const keepaliveSeconds = 25;

/** This node's end. */
export function tunnelObjects(self: Self, key: TunnelKey): NetObject[] {
  const { tunnelAddress } = nodeAddresses(self.number);
  return [
    {
      type: "link",
      name: tunnelLink,
      how: { kind: "wireguard" },
      owner: "tunnel",
      mac: "",
      mtu: self.underlayMtu - tunnelOverheadBytes,
      master: "",
    },
    { type: "wireguard", link: tunnelLink, port: tunnelPort, key },
    { type: "address", link: tunnelLink, address: `${tunnelAddress}/32` },
  ];
}

/** Whether a node can be spoken to in secret. */
export const isReachable = (peer: PeerRecord): boolean => isTunnelKey(peer.publicKey);

/** Another node's end; nothing for one that has no key, since nothing may be sent to it. */
export function tunnelPeerObjects(peer: PeerRecord): NetObject[] {
  if (!isReachable(peer)) return [];
  const allowed = `${nodeAddresses(peer.number).tunnelAddress}/32`;
  return [
    {
      type: "tunnel-peer",
      link: tunnelLink,
      publicKey: peer.publicKey,
      endpoint: peer.addr,
      port: tunnelPort,
      allowed,
      keepaliveSeconds,
    },
    { type: "route", table: 254, destination: allowed, link: tunnelLink, via: "", onlink: false, source: "" },
  ];
}
