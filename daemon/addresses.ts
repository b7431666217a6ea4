/** Which address this node tells others: as given, of an interface, or the only one that fits (features.md, moby's rules). */
import { isIP } from "node:net";

import { ClusterError } from "../lib/pure/errors.ts";
import { formatAddress, frameAddress, parseAddress } from "../proto/index.ts";

const defaultPort = 2377;
/** Of VXLAN. */
const framePort = 4789;

/** Of `os.networkInterfaces()`, what is looked at. */
export type Interfaces = Readonly<
  Record<
    string,
    readonly { readonly address: string; readonly family: string; readonly internal: boolean }[] | undefined
  >
>;

/** Where an interface, or the host, has addresses of both, and nobody named one: undefined is IPv4 before IPv6. */
export type Family = "IPv4" | "IPv6" | undefined;

export class AddressRefused extends ClusterError {
  readonly code = "ADDRESS_REFUSED";
}

/** Frames would go where nobody asked for. */
class DataPathRefused extends ClusterError {
  readonly code = "DATA_PATH_REFUSED";
}

const hostPort = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/u;

/** `HOST`, `HOST:PORT`, `[V6]:PORT`, or a bare IPv6 address. */
function split(text: string, what: string): { readonly host: string; readonly port: number | undefined } {
  if (isIP(text) === 6) return { host: canonical(text), port: undefined };
  const [, v6, plain, port] = hostPort.exec(text) ?? [];
  const host = v6 ?? plain;
  if (host === undefined || Number(port ?? 0) > 65_535) {
    throw new AddressRefused(`invalid ${what} "${text}"`, {
      fix: "Give IP, IP:PORT ([IP]:PORT for IPv6) or the name of an interface",
    });
  }
  return { host: canonical(host), port: port === undefined ? undefined : Number(port) };
}

/** The one form of an address, as others compare it. What is none stays as it is. */
function canonical(host: string): string {
  const address = parseAddress(host);
  return address === undefined ? host : formatAddress(address);
}

const join = (host: string, port: number): string => `${host.includes(":") ? `[${host}]` : host}:${port}`;

/** Where a manager is asked to let this node in. @throws AddressRefused */
export function withDefaultPort(text: string): string {
  const { host, port } = split(text, "remote address");
  if (host === "") throw new AddressRefused("a manager's address is missing", { fix: "Give HOST:PORT of a manager" });
  return join(host, port ?? defaultPort);
}

/** Where the manager listens; an interface's name stands for its address. @throws AddressRefused */
export function listenAddress(text: string, interfaces: Interfaces): string {
  const { host, port } = split(text === "" ? "0.0.0.0" : text, "listen address");
  const ip = host === "" ? "0.0.0.0" : isIP(host) === 0 ? ofInterface(host, interfaces, "listen", undefined) : host;
  return join(ip, port ?? defaultPort);
}

/**
 * The same where an address of IPv6 is advertised: 0.0.0.0, which is what clients say if their user says nothing, then stands
 * for all addresses, as it does for Docker's daemon.
 */
export function listenFor(advertise: string, listen: string): string {
  const { host, port } = split(listen, "listen address");
  return host === "0.0.0.0" && advertise.startsWith("[") ? join("::", port ?? defaultPort) : listen;
}

/**
 * @param text       what the user gave for --advertise-addr, or ""
 * @param otherwise  --swarm-default-advertise-addr
 * @param listen     IP:PORT, from `listenAddress`
 * @throws AddressRefused, with Docker's words where there is more than one choice
 */
export function advertiseAddress(
  text: string,
  otherwise: string | undefined,
  listen: string,
  interfaces: Interfaces,
  family?: Family,
): string {
  const listening = split(listen, "listen address");
  const listenPort = listening.port ?? defaultPort;
  const wanted = text === "" ? (otherwise ?? "") : text;
  if (wanted !== "") {
    const { host, port } = split(wanted, "advertise address");
    const ip = isIP(host) === 0 ? ofInterface(host, interfaces, "advertise", family) : host;
    if (ip === "0.0.0.0" || ip === "::") {
      throw new AddressRefused("advertise address must be a non-zero IP address", {
        fix: "Give the address at which the other nodes reach this one",
      });
    }
    if (frameAddress(ip) === undefined) {
      throw new AddressRefused(`other hosts do not reach this one at the address ${ip}`, {
        fix: "Give an address that is more than its link's, such as one of fd00::/8; addresses of fe80::/10 have no meaning elsewhere",
      });
    }
    return join(ip, port ?? listenPort);
  }
  if (listening.host !== "0.0.0.0" && listening.host !== "::") return join(listening.host, listenPort);
  return join(chosen(interfaces, family), listenPort);
}

/** @throws DataPathRefused */
export function checkFramePort(port: number): void {
  if (port === framePort) return;
  throw new DataPathRefused(`Cannot send frames between nodes to UDP port ${port}: they go to ${framePort}`, {
    fix: `Leave --data-path-port out, and open UDP port ${framePort} between the hosts`,
  });
}

/** The reference's words. */
const takes = {
  listen: "listen address must be an IP address or network interface (with optional port number)",
  advertise: "advertise address must be a non-zero IP address or network interface (with optional port number)",
};

const isOfLink = (address: string): boolean => /^fe[89ab]/iu.test(address);

function ofInterface(name: string, interfaces: Interfaces, what: "listen" | "advertise", family: Family): string {
  const addresses = interfaces[name];
  if (addresses === undefined) {
    throw new AddressRefused(`${takes[what]}; ${name} is neither an address nor an interface of this host`, {
      fix: `This host has ${Object.keys(interfaces).join(", ")}`,
    });
  }
  const [only, second] = preferred(
    addresses.filter(({ address }) => !isOfLink(address)),
    family,
  );
  if (only === undefined) throw new AddressRefused(`interface ${name} has no address`, { fix: "Give an address" });
  if (second !== undefined) {
    throw new AddressRefused(
      `interface ${name} has more than one ${only.family} address (${only.address} and ${second.address})`,
      { fix: `Give one of them with --${what}-addr` },
    );
  }
  return canonical(only.address);
}

/** Of one family: the one that is wanted, if there is any of it. */
function preferred<A extends { readonly family: string }>(addresses: readonly A[], family: Family): readonly A[] {
  const [v4, v6] = ["IPv4", "IPv6"].map((one) => addresses.filter((address) => address.family === one));
  const [first = [], second = []] = family === "IPv6" ? [v6, v4] : [v4, v6];
  return first.length > 0 ? first : second;
}

/** The only address of the only interface that has one. Interfaces of containers and tunnels do not count. */
function chosen(interfaces: Interfaces, family: Family): string {
  const found: { name: string; address: string; family: string }[] = [];
  for (const [name, addresses] of Object.entries(interfaces)) {
    if (/^(docker|br-|veth|virbr|skep|vx-|gw)/u.test(name)) continue;
    for (const { address, family: of, internal } of addresses ?? []) {
      if (!internal && !isOfLink(address)) found.push({ name, address, family: of });
    }
  }
  const [only, second] = preferred(found, family);
  const fix = "Specify one with --advertise-addr";
  if (only === undefined) throw new AddressRefused("could not find the system's IP address", { fix });
  if (second !== undefined) {
    const where =
      second.name === only.name
        ? `on interface ${only.name} (${only.address} and ${second.address})`
        : `on different interfaces (${only.address} on ${only.name} and ${second.address} on ${second.name})`;
    throw new AddressRefused(
      `could not choose an IP address to advertise since this system has multiple addresses ${where}`,
      { fix: `${fix}, for example ${only.address}` },
    );
  }
  return canonical(only.address);
}
