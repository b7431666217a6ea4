/** hostname, hosts and resolv.conf: files of ours that are bound over the image's. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { HostConfig } from "./core/types.ts";

const hostsHead = [
  "127.0.0.1\tlocalhost",
  "::1\tlocalhost ip6-localhost ip6-loopback",
  "fe00::0\tip6-localnet",
  "ff00::0\tip6-mcastprefix",
  "ff02::1\tip6-allnodes",
  "ff02::2\tip6-allrouters",
];

export function hostsText(
  extra: readonly string[],
  own: { readonly address: string; readonly names: string } | undefined,
): string {
  const lines = extra.flatMap((entry) => {
    const colon = entry.search(/[:=]/);
    return colon < 0 ? [] : [`${entry.slice(colon + 1).replace(/^\[|\]$/g, "")}\t${entry.slice(0, colon)}`];
  });
  const self = own === undefined ? [] : [`${own.address}\t${own.names}`];
  return `${[...hostsHead, ...lines, ...self].join("\n")}\n`;
}

/** The host's own, with what the container sets in place of it. A resolver on the host's loopback cannot be reached from inside. */
export function resolvText(host: string, config: HostConfig, sharesNetwork: boolean): string {
  const lines = host.split("\n");
  const of = (word: string): string[] =>
    lines.filter((line) => line.startsWith(`${word} `) || line.startsWith(`${word}\t`));
  const inherited = of("nameserver").filter((line) => sharesNetwork || !/^nameserver\s+(127\.|::1\b)/.test(line));
  const servers =
    (config.Dns ?? []).length > 0 ? (config.Dns ?? []).map((server) => `nameserver ${server}`) : inherited;
  const search = (config.DnsSearch ?? []).length > 0 ? [`search ${(config.DnsSearch ?? []).join(" ")}`] : of("search");
  const options =
    (config.DnsOptions ?? []).length > 0 ? [`options ${(config.DnsOptions ?? []).join(" ")}`] : of("options");
  return [...search, ...servers, ...options].map((line) => `${line}\n`).join("");
}

export interface NetworkFilesInput {
  readonly directory: string;
  readonly hostname: string;
  readonly domainname: string;
  readonly hostConfig: HostConfig;
  readonly sharesHostNetwork: boolean;
}

/** Writes the three files; gives the binds: destination to host path. */
export async function writeNetworkFiles(input: NetworkFilesInput): Promise<Record<string, string>> {
  const { directory, hostConfig } = input;
  const hostname = join(directory, "hostname");
  const hosts = join(directory, "hosts");
  const resolv = join(directory, "resolv.conf");
  const full = input.domainname === "" ? input.hostname : `${input.hostname}.${input.domainname}`;
  const names = full === input.hostname ? full : `${full} ${input.hostname}`;
  const hostHosts = input.sharesHostNetwork ? await readFile("/etc/hosts", "utf8").catch(() => undefined) : undefined;
  const extra = hostConfig.ExtraHosts ?? [];
  await writeFile(hostname, `${input.hostname}\n`);
  await writeFile(
    hosts,
    hostHosts ?? hostsText(extra, input.sharesHostNetwork ? undefined : { address: "127.0.1.1", names }),
  );
  await writeFile(
    resolv,
    resolvText(await readFile("/etc/resolv.conf", "utf8").catch(() => ""), hostConfig, input.sharesHostNetwork),
  );
  return { "/etc/hostname": hostname, "/etc/hosts": hosts, "/etc/resolv.conf": resolv };
}
