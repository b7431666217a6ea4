/** A container's networks and ports in the shapes of the Engine API. Pure. */
import type { ContainerRecord, EndpointSettings } from "../../../worker/containers/core/types.ts";
import type { PublishedPort } from "../../../worker/network/core/records.ts";

/** What is shown of a sandbox and its ends (worker/network/contract.ts). */
interface SandboxEndpoint {
  readonly networkId: string;
  readonly networkName: string;
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly v6?: { readonly address: string; readonly prefixLength: number; readonly gateway: string };
  readonly macAddress: string;
  readonly aliases: readonly string[];
}
interface Sandbox {
  readonly id: string;
  readonly namespacePath: string;
  readonly endpoints: readonly SandboxEndpoint[];
  readonly ports: readonly PublishedPort[];
}

/** What is known of a container's networks beside its record. */
export interface NetworkFacts {
  /** While it runs on networks of its own. */
  readonly sandbox: Sandbox | undefined;
  /** Id and name of a network as the record names it; undefined: there is none, or only managers know it. */
  readonly network: (reference: string) => { readonly id: string; readonly name: string } | undefined;
  /** `PORT/PROTOCOL`, whether published or not. */
  readonly exposed: readonly string[];
  /** Made of texts: the same for the same. */
  readonly digest: (text: string) => string;
}

const noEndpoint = {
  IPAMConfig: null,
  Links: null,
  Aliases: null,
  MacAddress: "",
  DriverOpts: null,
  GwPriority: 0,
  NetworkID: "",
  EndpointID: "",
  Gateway: "",
  IPAddress: "",
  IPPrefixLen: 0,
  IPv6Gateway: "",
  GlobalIPv6Address: "",
  GlobalIPv6PrefixLen: 0,
  DNSNames: null,
};

const v6Json = (end: SandboxEndpoint | undefined): Record<string, unknown> => ({
  IPv6Gateway: end?.v6?.gateway ?? "",
  GlobalIPv6Address: end?.v6?.address ?? "",
  GlobalIPv6PrefixLen: end?.v6?.prefixLength ?? 0,
});

function endpointJson(
  record: ContainerRecord,
  settings: EndpointSettings,
  end: SandboxEndpoint | undefined,
  { network, digest }: NetworkFacts,
  reference: string,
): Record<string, unknown> {
  const id = end?.networkId ?? network(reference)?.id ?? "";
  const names = end === undefined ? null : [...new Set([record.name, ...end.aliases])];
  return {
    ...noEndpoint,
    IPAMConfig: settings.IPAMConfig ?? null,
    Links: settings.Links ?? null,
    Aliases: settings.Aliases ?? null,
    DriverOpts: settings.DriverOpts ?? null,
    GwPriority: settings.GwPriority ?? 0,
    NetworkID: id,
    ...(end === undefined
      ? {}
      : {
          EndpointID: digest(`endpoint ${id} ${record.id}`),
          Gateway: end.gateway,
          IPAddress: end.address,
          IPPrefixLen: end.prefixLength,
          ...v6Json(end),
          MacAddress: end.macAddress,
          DNSNames: names,
        }),
  };
}

/** Networks by name: as asked for, and what else it is on. */
export function networksJson(record: ContainerRecord, facts: NetworkFacts): Record<string, unknown> {
  const ends = facts.sandbox?.endpoints ?? [];
  const mode = record.hostConfig.NetworkMode ?? "none";
  // `default` is what a task's says, which is on its service's networks and no other.
  const own = /^(container|ns):|^default$/.test(mode) ? {} : { [mode]: {} };
  const out: Record<string, unknown> = {};
  const shown = new Set<SandboxEndpoint>();
  for (const [reference, settings] of Object.entries(record.networks ?? own)) {
    const known = facts.network(reference);
    const end = ends.find(({ networkId, networkName }) => [networkId, networkName].includes(known?.id ?? reference));
    if (end !== undefined) shown.add(end);
    out[end?.networkName ?? known?.name ?? reference] = endpointJson(record, settings, end, facts, reference);
  }
  for (const end of ends) {
    if (!shown.has(end))
      out[end.networkName] = endpointJson(record, { Aliases: end.aliases }, end, facts, end.networkId);
  }
  return out;
}

/** By `PORT/PROTOCOL`: where it is published; null: it is only exposed. */
export function portsJson({ sandbox, exposed }: NetworkFacts): Record<string, unknown> {
  if (sandbox === undefined) return {};
  const out: Record<string, { HostIp: string; HostPort: string }[] | null> = {};
  for (const port of exposed) out[port] = null;
  for (const { protocol, targetPort, publishedPort, hostAddress } of sandbox.ports) {
    const shown = { HostIp: hostAddress === "" ? "0.0.0.0" : hostAddress, HostPort: String(publishedPort) };
    (out[`${targetPort}/${protocol}`] ??= []).push(shown);
  }
  return out;
}

/** As lists of containers have them. */
export function portRows({ sandbox, exposed }: NetworkFacts): Record<string, unknown>[] {
  if (sandbox === undefined) return [];
  const published = new Set(sandbox.ports.map(({ targetPort, protocol }) => `${targetPort}/${protocol}`));
  const rows = sandbox.ports.map(({ protocol, targetPort, publishedPort, hostAddress }) => ({
    IP: hostAddress === "" ? "0.0.0.0" : hostAddress,
    PrivatePort: targetPort,
    PublicPort: publishedPort,
    Type: protocol as string,
  }));
  const only = exposed
    .filter((port) => !published.has(port))
    .map((port) => ({ PrivatePort: Number.parseInt(port, 10), Type: port.split("/")[1] ?? "tcp" }));
  return [...rows, ...only];
}

/** `NetworkSettings` of inspect. */
export function networkSettingsJson(record: ContainerRecord, facts: NetworkFacts): Record<string, unknown> {
  const { sandbox, digest } = facts;
  // What older clients look for: of the network bridge only.
  const first = sandbox?.endpoints.find(({ networkName }) => networkName === "bridge");
  return {
    Bridge: "",
    SandboxID: sandbox === undefined ? "" : digest(`sandbox ${sandbox.id}`),
    SandboxKey: sandbox?.namespacePath ?? "",
    Ports: portsJson(facts),
    HairpinMode: false,
    LinkLocalIPv6Address: "",
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: first === undefined ? "" : digest(`endpoint ${first.networkId} ${record.id}`),
    Gateway: first?.gateway ?? "",
    ...v6Json(first),
    IPAddress: first?.address ?? "",
    IPPrefixLen: first?.prefixLength ?? 0,
    MacAddress: first?.macAddress ?? "",
    Networks: networksJson(record, facts),
  };
}
