/** hostname, hosts and resolv.conf: files of ours that are bound over the image's. */
import { readFile, writeFile } from "node:fs/promises";
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

/** Where a container's three files are: destination to host path. */
export function networkFilesOf(directory: string): Record<"/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf", string> {
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

/** Writes the three files, in place where they are; gives the binds: destination to host path. */
export async function writeNetworkFiles(input: NetworkFilesInput): Promise<Record<string, string>> {
  const { directory, hostConfig, network } = input;
  const sharesHost = input.sharesHostNetwork;
  const files = networkFilesOf(directory);
  const full = input.domainname === "" ? input.hostname : `${input.hostname}.${input.domainname}`;
  const names = full === input.hostname ? full : `${full} ${input.hostname}`;
  const hostHosts = sharesHost ? await readFile("/etc/hosts", "utf8").catch(() => undefined) : undefined;
  const addresses = network === undefined || network.addresses.length === 0 ? ["127.0.1.1"] : network.addresses;
  await writeFile(files["/etc/hostname"], `${input.hostname}\n`);
  const extra = [...(hostConfig.ExtraHosts ?? []), ...(network?.hosts ?? [])];
  const own = sharesHost ? undefined : { addresses, names };
  await writeFile(files["/etc/hosts"], hostHosts ?? hostsText(extra, own, network?.hostAddress));
  const hostResolv = await readFile("/etc/resolv.conf", "utf8").catch(() => "");
  await writeFile(
    files["/etc/resolv.conf"],
    resolvText(hostResolv, hostConfig, { sharesHost, resolver: network?.resolver }),
  );
  return files;
}
