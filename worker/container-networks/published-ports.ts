/** What of a container's ports is published where, in the Engine API's words (`-p`, `-P`, EXPOSE). */
import { formatAddress, parseAddress } from "../../proto/index.ts";
import type { ContainerConfig, HostConfig, ImageConfig } from "../containers/index.ts";

export type Protocol = "tcp" | "udp" | "sctp";

export interface ExposedPort {
  readonly port: number;
  readonly protocol: Protocol;
}

export interface PortWish {
  readonly protocol: Protocol;
  readonly targetPort: number;
  /** Empty: every address of the host. */
  readonly hostAddress: string;
  /** One of these, the first that is free; none: any. Ends included. */
  readonly first: number;
  readonly last: number;
}

const portMax = 65_535;

/** `80/tcp`, or `80`; undefined for what is no port. */
export function readPort(text: string): ExposedPort | undefined {
  const [, digits = "", protocol = "tcp"] = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/i.exec(text) ?? [];
  const port = Number(digits);
  if (digits === "" || port < 1 || port > portMax) return undefined;
  return { port, protocol: protocol.toLowerCase() as Protocol };
}

export const portKey = ({ port, protocol }: ExposedPort): string => `${port}/${protocol}`;

/** Ports that the container has, whether or not they are published: its own and the image's, as `PORT/PROTOCOL`. */
export function exposedPorts(config: ContainerConfig, image: ImageConfig, host: HostConfig): readonly string[] {
  const all = [
    ...Object.keys(image.ExposedPorts ?? {}),
    ...Object.keys(config.ExposedPorts ?? {}),
    ...Object.keys(host.PortBindings ?? {}),
  ];
  const read = all.map(readPort).filter((port) => port !== undefined);
  return [...new Set(read.sort((a, b) => a.port - b.port || a.protocol.localeCompare(b.protocol)).map(portKey))];
}

/** @returns the reason when a binding cannot be meant */
export function wrongPorts(config: ContainerConfig, host: HostConfig): string | undefined {
  for (const text of [...Object.keys(config.ExposedPorts ?? {}), ...Object.keys(host.PortBindings ?? {})]) {
    if (readPort(text) === undefined) return `invalid port specification: ${JSON.stringify(text.slice(0, 64))}`;
  }
  for (const bindings of Object.values(host.PortBindings ?? {})) {
    for (const { HostPort = "", HostIp = "" } of bindings ?? []) {
      if (readRange(HostPort) === undefined)
        return `invalid port specification: ${JSON.stringify(HostPort.slice(0, 64))}`;
      if (hostAddressOf(HostIp) === undefined) return `invalid IP address: ${HostIp.slice(0, 64)}`;
    }
  }
  return undefined;
}

/** What a container wants published, checked by `wrongPorts` before. */
export function portWishes(config: ContainerConfig, image: ImageConfig, host: HostConfig): readonly PortWish[] {
  const wishes: PortWish[] = [];
  const bound = new Set<string>();
  for (const [text, bindings] of Object.entries(host.PortBindings ?? {})) {
    const port = readPort(text);
    if (port === undefined) continue;
    bound.add(portKey(port));
    const { port: targetPort, protocol } = port;
    for (const { HostPort = "", HostIp = "" } of bindings === null || bindings.length === 0 ? [{}] : bindings) {
      const { first, last } = readRange(HostPort) ?? { first: 0, last: 0 };
      wishes.push({ protocol, targetPort, hostAddress: hostAddressOf(HostIp) ?? "", first, last });
    }
  }
  if (host.PublishAllPorts !== true) return wishes;
  for (const text of exposedPorts(config, image, {})) {
    const port = readPort(text);
    if (port === undefined || bound.has(text)) continue;
    wishes.push({ protocol: port.protocol, targetPort: port.port, hostAddress: "", first: 0, last: 0 });
  }
  return wishes;
}

/** In the one form that the kernel has; empty: all of IPv4. @returns undefined: it is no address */
function hostAddressOf(text: string): string | undefined {
  if (text === "" || text === "0.0.0.0") return "";
  const address = parseAddress(text);
  return address === undefined ? undefined : formatAddress(address);
}

function readRange(text: string): { readonly first: number; readonly last: number } | undefined {
  if (text === "") return { first: 0, last: 0 };
  const [, low = "", high = low] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const [first, last] = [Number(low), Number(high)];
  return low === "" || first > last || last > portMax ? undefined : { first, last };
}
