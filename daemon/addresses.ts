/** Which address this node tells others: as given, of an interface, or the only one that fits (features.md, moby's rules). */
import { isIP } from "node:net";

import { ClusterError } from "../lib/pure/errors.ts";

const defaultPort = 2377;

/** Of `os.networkInterfaces()`, what is looked at. */
export type Interfaces = Readonly<
  Record<
    string,
    readonly { readonly address: string; readonly family: string; readonly internal: boolean }[] | undefined
  >
>;

export class AddressRefused extends ClusterError {
  readonly code = "ADDRESS_REFUSED";
}

const hostPort = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/u;

/** `HOST`, `HOST:PORT`, `[V6]:PORT`, or a bare IPv6 address. */
function split(text: string, what: string): { readonly host: string; readonly port: number | undefined } {
  if (isIP(text) === 6) return { host: text, port: undefined };
  const [, v6, plain, port] = hostPort.exec(text) ?? [];
  const host = v6 ?? plain;
  if (host === undefined || Number(port ?? 0) > 65_535) {
    throw new AddressRefused(`invalid ${what} "${text}"`, { fix: "Give IP, IP:PORT or the name of an interface" });
  }
  return { host, port: port === undefined ? undefined : Number(port) };
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
  const ip = host === "" ? "0.0.0.0" : isIP(host) === 0 ? ofInterface(host, interfaces, "listen") : host;
  return join(ip, port ?? defaultPort);
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
): string {
  const listening = split(listen, "listen address");
  const listenPort = listening.port ?? defaultPort;
  const wanted = text === "" ? (otherwise ?? "") : text;
  if (wanted !== "") {
    const { host, port } = split(wanted, "advertise address");
    const ip = isIP(host) === 0 ? ofInterface(host, interfaces, "advertise") : host;
    if (ip === "0.0.0.0" || ip === "::") {
      throw new AddressRefused("advertise address must be a non-zero IP address", {
        fix: "Give the address at which the other nodes reach this one",
      });
    }
    return join(ip, port ?? listenPort);
  }
  if (listening.host !== "0.0.0.0" && listening.host !== "::") return join(listening.host, listenPort);
  return join(chosen(interfaces), listenPort);
}

/** The reference's words. */
const takes = {
  listen: "listen address must be an IP address or network interface (with optional port number)",
  advertise: "advertise address must be a non-zero IP address or network interface (with optional port number)",
};

function ofInterface(name: string, interfaces: Interfaces, what: "listen" | "advertise"): string {
  const addresses = interfaces[name];
  if (addresses === undefined) {
    throw new AddressRefused(`${takes[what]}; ${name} is neither an address nor an interface of this host`, {
      fix: `This host has ${Object.keys(interfaces).join(", ")}`,
    });
  }
  const v4 = addresses.filter(({ family }) => family === "IPv4");
  const fitting = v4.length > 0 ? v4 : addresses.filter(({ address }) => !address.startsWith("fe80:"));
  const [only, second] = fitting;
  if (only === undefined) throw new AddressRefused(`interface ${name} has no address`, { fix: "Give an address" });
  if (second !== undefined) {
    throw new AddressRefused(
      `interface ${name} has more than one ${v4.length > 0 ? "IPv4" : "IPv6"} address (${only.address} and ${second.address})`,
      { fix: `Give one of them with --${what}-addr` },
    );
  }
  return only.address;
}

/** The only address of the only interface that has one. Interfaces of containers and tunnels do not count. */
function chosen(interfaces: Interfaces): string {
  const found: { name: string; address: string; family: string }[] = [];
  for (const [name, addresses] of Object.entries(interfaces)) {
    if (/^(docker|br-|veth|virbr|skep|vx-|gw)/u.test(name)) continue;
    for (const { address, family, internal } of addresses ?? []) {
      if (!internal && !address.startsWith("fe80:")) found.push({ name, address, family });
    }
  }
  const v4 = found.filter(({ family }) => family === "IPv4");
  const fitting = v4.length > 0 ? v4 : found;
  const [only, second] = fitting;
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
  return only.address;
}
