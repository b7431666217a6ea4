/** `skep network`: networks of the swarm and of the daemon's node. */
import { filtersQuery, inPath } from "./api/client.ts";
import type { Labels, Network } from "./api/types.ts";
import { CommandError, isNotFound, messageOf } from "./errors.ts";
import { atLeast, command, exactly, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { confirm, forceFlag, inspectEach, inspectFlags } from "./output/each.ts";
import { goTime, shortId } from "./output/human.ts";
import { printList, printObjects } from "./output/list.ts";
import { keyValues, split } from "./service/read.ts";
import type { Session } from "./session.ts";

const strings = (help: string): flag.Flag<string[]> => flag.list(help, { type: "strings" });
const map = (help: string, short = ""): flag.Flag<string[]> => flag.list(help, { type: "map", short });
const commas = (values: readonly string[] | undefined): string[] => (values ?? []).flatMap((value) => value.split(","));

export const create = command({
  usage: "[OPTIONS] NETWORK",
  args: exactly(1),
  flags: {
    attachable: flag.bool("Let containers attach that belong to no service"),
    "aux-address": map("Addresses of the network that are taken (NAME=IP)"),
    "config-from": flag.text("Network whose configuration to use"),
    "config-only": flag.bool("Keep a configuration for other networks only"),
    driver: flag.text("Driver of the network", { short: "d", shownDefault: '"bridge"' }),
    gateway: strings("Gateway of the subnet"),
    ingress: flag.bool("Make the swarm's routing mesh of it"),
    internal: flag.bool("Give no way out of the network"),
    "ip-range": strings("Part of the subnet to take addresses from"),
    "ipam-driver": flag.text("Driver of addresses", { shownDefault: '"default"' }),
    "ipam-opt": map("Option of the driver of addresses"),
    ipv4: flag.bool("Hand out IPv4 addresses", { shownDefault: "true" }),
    ipv6: flag.bool("Hand out IPv6 addresses"),
    label: flag.list("Label of the network"),
    opt: map("Option of the driver", "o"),
    scope: flag.choice("Scope of the network", ["local", "swarm"]),
    subnet: strings("Subnet in CIDR form"),
  },
  async run(session, flags, [name = ""]) {
    const api = await session.api();
    const made = await api.post<{ Id: string; Warning?: string }>("/networks/create", {
      body: {
        Name: name,
        Driver: flags.driver ?? "bridge",
        Scope: flags.scope ?? "",
        ...(flags.ipv4 === undefined ? {} : { EnableIPv4: flags.ipv4 }),
        ...(flags.ipv6 === undefined ? {} : { EnableIPv6: flags.ipv6 }),
        IPAM: {
          Driver: flags["ipam-driver"] ?? "default",
          Options: keyValues(flags["ipam-opt"] ?? []),
          Config: ipamConfig(flags),
        },
        Internal: flags.internal ?? false,
        Attachable: flags.attachable ?? false,
        Ingress: flags.ingress ?? false,
        ConfigOnly: flags["config-only"] ?? false,
        ConfigFrom: flags["config-from"] === undefined ? null : { Network: flags["config-from"] },
        Options: keyValues(flags.opt ?? []),
        Labels: keyValues(flags.label ?? []),
      },
    });
    if (made.Warning) session.warn(`WARNING: ${made.Warning}`);
    session.print(made.Id);
  },
});

interface Pool {
  Subnet?: string;
  IPRange?: string;
  Gateway?: string;
  AuxiliaryAddresses?: Record<string, string>;
}

/** Each range, gateway and taken address goes to the subnet that holds it. */
function ipamConfig(flags: {
  readonly subnet?: string[] | undefined;
  readonly gateway?: string[] | undefined;
  readonly "ip-range"?: string[] | undefined;
  readonly "aux-address"?: string[] | undefined;
}): Pool[] {
  const subnets = commas(flags.subnet);
  const ranges = commas(flags["ip-range"]);
  const gateways = commas(flags.gateway);
  if (subnets.length < ranges.length || subnets.length < gateways.length) {
    throw new CommandError("every ip-range or gateway must have a corresponding subnet");
  }
  const pools: Pool[] = subnets.map((Subnet) => ({ Subnet }));
  const holding = (address: string, what: string): Pool => {
    const pool = pools.find(({ Subnet = "" }) => contains(Subnet, address));
    if (pool === undefined) throw new CommandError(`no matching subnet for ${what} ${address}`);
    return pool;
  };
  for (const range of ranges) holding(range, "range").IPRange = range;
  for (const gateway of gateways) holding(gateway, "gateway").Gateway = gateway;
  for (const aux of commas(flags["aux-address"])) {
    const [host, address = ""] = split(aux);
    (holding(address, "aux-address").AuxiliaryAddresses ??= {})[host] = address;
  }
  return pools;
}

/** Whether an address, or the first one of a CIDR, lies in a subnet. */
function contains(subnet: string, address: string): boolean {
  const [base = "", length = ""] = subnet.split("/");
  const [left, right] = [bits(base), bits(address.split("/")[0] ?? "")];
  return left !== undefined && right !== undefined && left.slice(0, Number(length)) === right.slice(0, Number(length));
}

/** An address as zeros and ones; undefined when it is none. */
function bits(address: string): string | undefined {
  const binary = (part: string, radix: number, width: number): string =>
    Number.parseInt(part, radix).toString(2).padStart(width, "0");
  if (/^\d+(\.\d+){3}$/.test(address)) {
    return address
      .split(".")
      .map((part) => binary(part, 10, 8))
      .join("");
  }
  if (!/^[0-9a-f:]+$/i.test(address) || !address.includes(":")) return undefined;
  const [head = "", tail] = address.split("::");
  const groups = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const [before, after] = [groups(head), groups(tail ?? "")];
  const zeros = Array.from({ length: tail === undefined ? 0 : 8 - before.length - after.length }, () => "0");
  return [...before, ...zeros, ...after].map((group) => binary(group, 16, 16)).join("");
}

export const ls = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { filter: flag.filters(), format: flag.format(), "no-trunc": flag.noTrunc(), quiet: flag.quiet() },
  async run(session, flags) {
    const api = await session.api();
    const networks = await api.get<Network[] | null>("/networks", { query: { filters: filtersQuery(flags.filter) } });
    const sorted = (networks ?? []).toSorted((a, b) => a.Name.localeCompare(b.Name, "en", { numeric: true }));
    const labels = (labels: Labels | null | undefined): string =>
      Object.entries(labels ?? {})
        .map(([key, value]) => `${key}=${value}`)
        .join(",");
    printList(session, sorted, {
      columns: {
        ID: ["NETWORK ID", ({ Id }) => (flags["no-trunc"] === true ? Id : shortId(Id))],
        Name: ["NAME", ({ Name }) => Name],
        Driver: ["DRIVER", ({ Driver }) => Driver],
        Scope: ["SCOPE", ({ Scope }) => Scope],
        IPv4: ["IPV4", ({ EnableIPv4 }) => String(EnableIPv4 ?? false)],
        IPv6: ["IPV6", ({ EnableIPv6 }) => String(EnableIPv6 ?? false)],
        Internal: ["INTERNAL", ({ Internal }) => String(Internal ?? false)],
        CreatedAt: ["CREATED AT", ({ Created }) => goTime(Created, "UTC")],
        Labels: ["LABELS", (network) => labels(network.Labels)],
      },
      shown: ["ID", "Name", "Driver", "Scope"],
      id: "ID",
      format: flags.format,
      quiet: flags.quiet,
    });
  },
});

export const inspect = command({
  usage: "[OPTIONS] NETWORK [NETWORK...]",
  args: atLeast(1),
  flags: { ...inspectFlags, verbose: flag.bool("Show services and tasks too", { short: "v" }) },
  completes: "networks",
  async run(session, flags, names) {
    const api = await session.api();
    await inspectEach(session, names, flags, (name) =>
      api.get(`/networks/${inPath(name)}`, { query: { verbose: flags.verbose === true ? "true" : undefined } }),
    );
  },
});

export const rm = command({
  usage: "NETWORK [NETWORK...]",
  args: atLeast(1),
  flags: { force: flag.bool("A network that is not there is no error", { short: "f" }) },
  completes: "networks",
  async run(session, flags, names) {
    const failed: string[] = [];
    for (const name of names) {
      try {
        await removeOne(session, name);
      } catch (error) {
        if (flags.force === true && isNotFound(error)) continue;
        session.warn(messageOf(error));
        failed.push(name);
      }
    }
    if (failed.length > 0) throw new CommandError("exit status 1");
  },
});

async function removeOne(session: Session, name: string): Promise<void> {
  const api = await session.api();
  const network = await api.get<Network>(`/networks/${inPath(name)}`).catch(() => undefined);
  if (network?.Ingress === true) {
    const warning = `WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same docker engine version. Otherwise, removal may not be effective and functionality of newly create ingress networks will be impaired.\nAre you sure you want to continue?`;
    if (!(await confirm(session, warning))) return;
  }
  await api.delete(`/networks/${inPath(name)}`);
  session.print(name);
}

export const connect = command({
  usage: "[OPTIONS] NETWORK CONTAINER",
  args: exactly(2),
  flags: {
    alias: strings("Further name of the container in the network"),
    "driver-opt": strings("Option of the driver"),
    "gw-priority": flag.int("The highest one gives the default gateway"),
    ip: flag.text("IPv4 address of the container"),
    ip6: flag.text("IPv6 address of the container"),
    link: flag.list("Container to know by name"),
    "link-local-ip": strings("Link-local address of the container"),
  },
  completes: "networks",
  async run(session, flags, [network = "", container = ""]) {
    const api = await session.api();
    const linkLocal = commas(flags["link-local-ip"]);
    await api.post(`/networks/${inPath(network)}/connect`, {
      body: {
        Container: container,
        EndpointConfig: {
          IPAMConfig: {
            ...(flags.ip === undefined ? {} : { IPv4Address: flags.ip }),
            ...(flags.ip6 === undefined ? {} : { IPv6Address: flags.ip6 }),
            ...(linkLocal.length === 0 ? {} : { LinkLocalIPs: linkLocal }),
          },
          Links: flags.link ?? null,
          Aliases: flags.alias === undefined ? null : commas(flags.alias),
          DriverOpts: keyValues(flags["driver-opt"] ?? []),
          GwPriority: flags["gw-priority"] ?? 0,
        },
      },
    });
  },
});

export const disconnect = command({
  usage: "[OPTIONS] NETWORK CONTAINER",
  args: exactly(2),
  flags: { force: flag.bool("Disconnect whatever the container says", { short: "f" }) },
  completes: "networks",
  async run(session, flags, [network = "", container = ""]) {
    const api = await session.api();
    await api.post(`/networks/${inPath(network)}/disconnect`, {
      body: { Container: container, Force: flags.force ?? false },
    });
  },
});

export const prune = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { filter: flag.filters({}), force: forceFlag() },
  async run(session, flags) {
    const warning =
      "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?";
    if (flags.force !== true && !(await confirm(session, warning))) return;
    const api = await session.api();
    const { NetworksDeleted: deleted } = await api.post<{ NetworksDeleted?: string[] | null }>("/networks/prune", {
      query: { filters: filtersQuery(flags.filter) },
    });
    if (deleted?.length) session.print(`Deleted Networks:\n${deleted.join("\n")}\n`);
  },
});

/** POST /skep/v1/network/doctor */
interface Examination {
  readonly node: { readonly id: string; readonly number: number; readonly addr: string; readonly mtu: number };
  readonly healthy: boolean;
  readonly findings: readonly {
    readonly severity: string;
    readonly kind: string;
    readonly found: string;
    readonly fix: string;
  }[];
  readonly peers: readonly {
    readonly nodeId: string;
    readonly addr: string;
    readonly underlay: string;
    readonly small: string;
    readonly full: string;
    readonly full6?: string;
    readonly roundTripMs?: number;
  }[];
  readonly tunnel?: readonly {
    readonly nodeId: string;
    readonly addr: string;
    readonly lastHandshake?: string;
    readonly receivedBytes: number;
    readonly sentBytes: number;
  }[];
}

export const doctor = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { format: flag.text("Print through a Go template, or 'json'", { short: "f" }) },
  async run(session, flags) {
    const api = await session.api();
    const report = await api.post<Examination>("/skep/v1/network/doctor");
    if (flags.format === undefined) printExamination(session, report);
    else printObjects(session, [report], flags.format);
    return report.healthy ? 0 : 1;
  },
});

function printExamination(session: Session, { node, healthy, findings, peers, tunnel = [] }: Examination): void {
  const where = node.number === 0 ? "outside a swarm" : `number ${node.number}, ${node.addr}, MTU ${node.mtu}`;
  session.print(`This node: ${where}`);
  for (const { nodeId, addr, underlay, small, full, full6, roundTripMs } of peers) {
    const by6 = full6 === undefined ? "" : full6 === "answers" ? ", by IPv6 too" : ", not by IPv6";
    const path =
      full === "answers"
        ? `reached in ${(roundTripMs ?? 0).toFixed(1)} ms${by6}`
        : `small packets: ${small}, full: ${full}, host: ${underlay}`;
    session.print(`Node ${shortId(nodeId)} (${addr}): ${path}`);
  }
  for (const { nodeId, addr, lastHandshake, receivedBytes, sentBytes } of tunnel) {
    const when = lastHandshake === undefined ? "no handshake yet" : `last handshake ${lastHandshake}`;
    session.print(`Tunnel to ${shortId(nodeId)} (${addr}): ${when}, ${receivedBytes} bytes in, ${sentBytes} out`);
  }
  for (const { severity, found, fix } of findings) session.print(`\n${severity.toUpperCase()}: ${found}\n  ${fix}`);
  if (findings.length === 0) session.print("\nNothing is wrong.");
  else if (healthy) session.print("\nNothing is wrong now.");
}
