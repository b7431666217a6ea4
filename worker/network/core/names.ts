/** Names in the host's namespace. All begin with `skep`, so that one pattern tells them in rules of nft and iptables. */
import { parseAddress } from "./cidr.ts";

/** Every link of ours in the host's namespace. */
export const linkPattern = "skep*";
/** Carries the host's own addresses in the blocks and in local networks; no traffic. */
export const gatewayLink = "skep0";
/** The VXLAN of the ingress mesh. */
export const meshLink = "skepmesh";
/** Host ends of gw0, and of interfaces of local networks. */
export const gatewayPattern = "skepg*";
export const localPattern = "skepl*";
export const hostTable = "skep";
/** Of family ip6: who may send frames, where nodes send them by IPv6. */
export const underlayTable = "skepnodes";

/** Where images and scripts expect names inside of a container: Docker's resolver is there. */
export const insideResolver = "127.0.0.11";

/** Of the host's end of every routed veth: one address, since each is alone on its link. */
export const hostRouterMac = "02:fe:ff:ff:ff:01";

/** One name for one address, which is unique on the node: nothing has to be remembered, and nothing can collide. */
export function linkNameOf(kind: "gateway" | "local", address: string): string {
  return `skep${kind === "gateway" ? "g" : "l"}${(parseAddress(address) ?? 0).toString(16).padStart(8, "0")}`;
}
