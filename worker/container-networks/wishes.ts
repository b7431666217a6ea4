/** From what a user asked of a container's networks to what is asked of a sandbox; what cannot be meant is refused in the Engine's words. */
import { isIPv6 } from "node:net";

import type { ContainerConfig, ContainerRecord, EndpointSettings, HostConfig } from "../containers/index.ts";

/** Modes in which a container has no networks of its own. */
export function sharesNetwork(mode: string): boolean {
  return mode === "host" || mode === "none" || mode.startsWith("container:") || mode.startsWith("ns:");
}

/** The mode as it is kept: who says nothing means the network `bridge`. */
export function networkMode(asked: string): string {
  return ["", "default"].includes(asked) ? "bridge" : asked;
}

export type Networks = Readonly<Record<string, EndpointSettings>>;

/** Networks as they are kept, the one of the mode first. */
export function networksOf(
  mode: string,
  asked: Networks,
  { MacAddress = "" }: { readonly MacAddress?: string },
): Networks {
  if (sharesNetwork(mode)) return {};
  const named = Object.entries(asked).map(([name, settings]) => [networkMode(name), settings ?? {}] as const);
  const own = named.find(([name]) => name === mode)?.[1] ?? {};
  const mac = (own.MacAddress ?? "") === "" && MacAddress !== "" ? { MacAddress } : {};
  return { [mode]: { ...own, ...mac }, ...Object.fromEntries(named.filter(([name]) => name !== mode)) };
}

/** What of a wish contradicts itself, before any network is looked at. */
export function wrongNetworking(config: ContainerConfig, host: HostConfig, asked: Networks): string | undefined {
  const mode = networkMode(host.NetworkMode ?? "");
  const given = (list: readonly unknown[] | null | undefined): boolean => (list ?? []).length > 0;
  const publishes = Object.keys(host.PortBindings ?? {}).length > 0 || host.PublishAllPorts === true;
  const others = Object.keys(asked)
    .map(networkMode)
    .filter((name) => name !== mode);
  if (mode.startsWith("container:")) {
    if ((config.Hostname ?? "") !== "") return "conflicting options: hostname and the network mode";
    if (given(host.Links)) {
      return "conflicting options: container type network can't be used with links. This would result in undefined behavior";
    }
    if (given(host.Dns)) return "conflicting options: dns and the network mode";
    if (given(host.ExtraHosts)) return "conflicting options: custom host-to-IP mapping and the network mode";
    if (publishes) return "conflicting options: port publishing and the container type network mode";
    if (Object.keys(config.ExposedPorts ?? {}).length > 0) {
      return "conflicting options: port exposing and the container type network mode";
    }
  }
  if (mode === "host" && given(host.Links)) {
    return "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
  }
  if (sharesNetwork(mode) && others.length > 0) {
    return `conflicting options: cannot attach both user-defined and non-user-defined network-modes`;
  }
  for (const [name, settings] of Object.entries(asked)) {
    const wrong = wrongEndpoint(networkMode(name), settings ?? {});
    if (wrong !== undefined) return wrong;
  }
  for (const link of host.Links ?? []) if (readLink(link) === undefined) return `bad format for links: ${link}`;
  return undefined;
}

const macPattern = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

/** What of one network's wish cannot be done, whatever network it is. @param name  as asked for */
export function wrongEndpoint(name: string, settings: EndpointSettings): string | undefined {
  const { IPAMConfig, Aliases, MacAddress = "", Links } = settings;
  const address = IPAMConfig?.IPv4Address ?? "";
  if (name === "bridge") {
    if (address !== "" || (IPAMConfig?.IPv6Address ?? "") !== "")
      return "user specified IP address is supported on user defined networks only";
    if ((Aliases ?? []).length > 0) return "network-scoped aliases are only supported for user-defined networks";
  }
  if (address !== "" && !/^\d{1,3}(\.\d{1,3}){3}$/.test(address))
    return `invalid IPv4 address: ${address.slice(0, 64)}`;
  const address6 = IPAMConfig?.IPv6Address ?? "";
  if (address6 !== "" && !isIPv6(address6)) return `invalid IPv6 address: ${address6.slice(0, 64)}`;
  if ((IPAMConfig?.LinkLocalIPs ?? []).length > 0) return "link-local addresses are not supported by this engine";
  if (MacAddress !== "" && !macPattern.test(MacAddress)) return `invalid MAC address: ${MacAddress.slice(0, 64)}`;
  // The lowest bit of the first byte says that the address is a group's (IEEE 802).
  if (MacAddress !== "" && (Number.parseInt(MacAddress.slice(0, 2), 16) & 1) === 1) {
    return `invalid MAC address: ${MacAddress}: it is a group's`;
  }
  const alias = (Aliases ?? []).find((one) => !isName(one));
  if (alias !== undefined) return `invalid network alias: ${JSON.stringify(alias.slice(0, 64))}`;
  for (const link of Links ?? []) if (readLink(link) === undefined) return `bad format for links: ${link.slice(0, 64)}`;
  return undefined;
}

/** What DNS can say: labels of at most 63, 253 in all. */
const isName = (text: string): boolean =>
  text.length <= 253 && text.split(".").every((label) => /^[a-zA-Z0-9_-]{1,63}$/.test(label));

/** `CONTAINER:ALIAS`, `CONTAINER`; names may have a slash before them. */
export function readLink(text: string): { readonly name: string; readonly alias: string } | undefined {
  const parts = text.split(":").map((part) => part.replace(/^\//, ""));
  const [name = "", alias = name] = parts;
  return parts.length > 2 || !isName(name) || !isName(alias) ? undefined : { name, alias };
}

/** Alias to name, for this container only. */
export function linksOf(settings: readonly EndpointSettings[], host: HostConfig): Readonly<Record<string, string>> {
  const links = [...settings.flatMap(({ Links }) => Links ?? []), ...(host.Links ?? [])].map(readLink);
  return Object.fromEntries(links.flatMap((link) => (link === undefined ? [] : [[link.alias, link.name]])));
}

/** Names of a container in a network beside its own: what was asked for, its host name, the short form of its id. */
export function aliasesOf(
  record: Pick<ContainerRecord, "id" | "config" | "name">,
  settings: EndpointSettings,
): string[] {
  const hostname = record.config.Hostname ?? "";
  const all = [...(settings.Aliases ?? []), record.id.slice(0, 12), ...(hostname === "" ? [] : [hostname])];
  return [...new Set(all)].filter((name) => name !== record.name);
}

/** As the Engine orders the interfaces: the mode's network first, then by priority, then as they were asked for. */
export function ordered(mode: string, networks: Networks): readonly (readonly [string, EndpointSettings])[] {
  const entries = Object.entries(networks);
  const rank = ([name, { GwPriority = 0 }]: readonly [string, EndpointSettings]): number =>
    name === mode && GwPriority === 0 ? 0.5 : GwPriority;
  return entries.toSorted((a, b) => rank(b) - rank(a));
}
