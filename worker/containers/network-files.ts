/** hostname, hosts and resolv.conf: files of ours that are bound over the image's. */
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { HostConfig } from "./core/types.ts";
import type { ContainerNetwork } from "./settings.ts";

const hostsHead = [
  "127.0.0.1\tlocalhost",
  "::1\tlocalhost ip6-localhost ip6-loopback",
  "fe00::0\tip6-localnet",
  "ff00::0\tip6-mcastprefix",
  "ff02::1\tip6-allnodes",
  "ff02::2\tip6-allrouters",
];

/** @param hostAddress  what `host-gateway` stands for; entries with it are left out where there is none */
export function hostsText(
  extra: readonly string[],
  own: { readonly addresses: readonly string[]; readonly names: string } | undefined,
  hostAddress?: string,
): string {
  const lines = extra.flatMap((entry) => {
    const colon = entry.search(/[:=]/);
    const told = entry.slice(colon + 1).replace(/^\[|\]$/g, "");
    const address = told === "host-gateway" ? hostAddress : told;
    return colon < 0 || address === undefined ? [] : [`${address}\t${entry.slice(0, colon)}`];
  });
  const self = (own?.addresses ?? []).map((address) => `${address}\t${own?.names ?? ""}`);
  return `${[...hostsHead, ...lines, ...self].join("\n")}\n`;
}

/**
 * The host's own, with what the container sets in place of it. A resolver on the host's loopback cannot be reached from inside.
 * @param resolver  the node's, which asks the container's servers or the host's itself
 */
export function resolvText(
  host: string,
  config: HostConfig,
  { sharesHost, resolver }: { readonly sharesHost: boolean; readonly resolver: string | undefined },
): string {
  const lines = host.split("\n");
  const of = (word: string): string[] =>
    lines.filter((line) => line.startsWith(`${word} `) || line.startsWith(`${word}\t`));
  const inherited = of("nameserver").filter((line) => sharesHost || !/^nameserver\s+(127\.|::1\b)/.test(line));
  const own = (config.Dns ?? []).map((server) => `nameserver ${server}`);
  const servers = resolver !== undefined ? [`nameserver ${resolver}`] : own.length > 0 ? own : inherited;
  const wanted = config.DnsSearch ?? [];
  // A dot alone: none at all (resolv.conf(5) has no other way to say so).
  const search = wanted.length === 0 ? of("search") : wanted.includes(".") ? [] : [`search ${wanted.join(" ")}`];
  const asked = config.DnsOptions ?? [];
  const options = asked.length > 0 ? [`options ${asked.join(" ")}`] : of("options");
  // Names of services have no dot, and are to be tried as they are before the search list.
  const ndots = options.some((line) => /\bndots:/.test(line)) || resolver === undefined ? [] : ["options ndots:0"];
  return [...search, ...servers, ...options, ...ndots].map((line) => `${line}\n`).join("");
}

const destinations = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"] as const;

/** Where a container's three files are: destination to host path. */
export function networkFilesOf(directory: string): Record<(typeof destinations)[number], string> {
  return {
    "/etc/hostname": join(directory, "hostname"),
    "/etc/hosts": join(directory, "hosts"),
    "/etc/resolv.conf": join(directory, "resolv.conf"),
  };
}

export interface NetworkFilesInput {
  readonly directory: string;
  readonly hostname: string;
  readonly domainname: string;
  readonly hostConfig: HostConfig;
  readonly sharesHostNetwork: boolean;
  /** Undefined: it is on no network that was made for it. */
  readonly network: Omit<ContainerNetwork, "namespacePath"> | undefined;
}

/** One of the three: bound to `destination`. */
export interface NetworkFile {
  readonly destination: string;
  readonly path: string;
  readonly text: string;
}

/** What is to be in the three files. */
export function planNetworkFiles(input: NetworkFilesInput): readonly NetworkFile[] {
  const { directory, hostConfig, network } = input;
  const sharesHost = input.sharesHostNetwork;
  const full = input.domainname === "" ? input.hostname : `${input.hostname}.${input.domainname}`;
  const names = full === input.hostname ? full : `${full} ${input.hostname}`;
  const addresses = network === undefined || network.addresses.length === 0 ? ["127.0.1.1"] : network.addresses;
  const extra = [...(hostConfig.ExtraHosts ?? []), ...(network?.hosts ?? [])];
  const own = sharesHost ? undefined : { addresses, names };
  const hostHosts = sharesHost ? ofHost("/etc/hosts") : undefined;
  const hostResolv = ofHost("/etc/resolv.conf") ?? "";
  const texts = {
    "/etc/hostname": `${input.hostname}\n`,
    "/etc/hosts": hostHosts ?? hostsText(extra, own, network?.hostAddress),
    "/etc/resolv.conf": resolvText(hostResolv, hostConfig, { sharesHost, resolver: network?.resolver }),
  };
  const paths = networkFilesOf(directory);
  return destinations.map((destination) => ({ destination, path: paths[destination], text: texts[destination] }));
}

/** In place, since they may be bound into a container. */
export async function writeNetworkFiles(files: readonly NetworkFile[]): Promise<void> {
  for (const { path, text } of files) await writeFile(path, text);
}

/** Read at each start, since it changes; at once, since four trips to the thread pool cost ten times as much. */
function ofHost(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // a host without it is as good as one where it is empty
  }
}
