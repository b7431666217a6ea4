/** Published ports as the Engine API has them (`-p`, `-P`, `--expose`), read. */
import { parseAddress } from "./cidr.ts";
import type { PublishedPort } from "./records.ts";

export interface PortWishes {
  /** `80/tcp`, as keys. */
  readonly exposed: readonly string[];
  /** By `80/tcp`; HostPort may be empty, a port or a range. */
  readonly bindings: Readonly<
    Record<string, readonly { readonly HostIp?: string; readonly HostPort?: string }[] | null>
  >;
  /** Every port that is exposed gets one of the host's. */
  readonly publishAll: boolean;
}

export type PortReading =
  { readonly ok: true; readonly ports: readonly PublishedPort[] } | { readonly ok: false; readonly why: string };

/** More than this in one container is a mistake, and each costs a socket and two elements. */
const portsMax = 10_000;

export function readPorts({ exposed, bindings, publishAll }: PortWishes): PortReading {
  const ports: PublishedPort[] = [];
  const refuse = (why: string): PortReading => ({ ok: false, why });
  for (const [name, places] of Object.entries(bindings)) {
    const inside = readContainerPort(name);
    if (inside === undefined) return refuse(`invalid port specification: "${name.slice(0, 64)}"`);
    for (const { HostIp = "", HostPort = "" } of (places ?? []).length === 0 ? [{}] : (places ?? [])) {
      const hostAddress = HostIp === "0.0.0.0" ? "" : HostIp;
      if (hostAddress !== "" && parseAddress(hostAddress) === undefined) {
        return refuse(`invalid host address "${HostIp.slice(0, 64)}": ports are published on IPv4 addresses`);
      }
      const range = HostPort === "" ? { first: 0, last: 0 } : readRange(HostPort);
      if (range === undefined) return refuse(`invalid host port "${HostPort.slice(0, 64)}"`);
      ports.push({
        ...inside,
        hostAddress,
        publishedPort: range.first,
        ...(range.last === range.first ? {} : { publishedPortLast: range.last }),
      });
    }
  }
  if (publishAll) {
    for (const name of exposed) {
      const inside = readContainerPort(name);
      if (inside === undefined) return refuse(`invalid port specification: "${name.slice(0, 64)}"`);
      const known = ports.some(
        ({ protocol, targetPort }) => protocol === inside.protocol && targetPort === inside.targetPort,
      );
      if (!known) ports.push({ ...inside, hostAddress: "", publishedPort: 0 });
    }
  }
  return ports.length > portsMax ? refuse(`more than ${portsMax} ports`) : { ok: true, ports };
}

function readContainerPort(text: string): Pick<PublishedPort, "protocol" | "targetPort"> | undefined {
  const [port = "", protocol = "tcp", ...more] = text.toLowerCase().split("/");
  const targetPort = readPort(port);
  if (targetPort === undefined || targetPort === 0 || more.length > 0) return undefined;
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp") return undefined;
  return { protocol, targetPort };
}

function readRange(text: string): { readonly first: number; readonly last: number } | undefined {
  const [low = "", high = low, ...more] = text.split("-");
  const first = readPort(low);
  const last = readPort(high);
  if (first === undefined || last === undefined || more.length > 0 || last < first) return undefined;
  if (first === 0 && last > 0) return undefined;
  return { first, last };
}

function readPort(text: string): number | undefined {
  return /^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}
