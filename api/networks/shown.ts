/** Networks as the Engine API shows them: those of the swarm, of this node, and the two that are only modes. */
import type { skep } from "../../proto/index.ts";
import {
  configLabel,
  idOf,
  nameOf,
  type ContainerNetworks,
  type NodeNetwork,
} from "../../worker/container-networks/index.ts";
import type { Containers } from "../../worker/containers/index.ts";
import type { OverlayNetwork } from "../../worker/network/index.ts";
import { BadRequest, type Filters, type JsonObject } from "../http/index.ts";
import { zeroTime, isoTime, labelsOf } from "../local/core/container-json.ts";
import { modeNetworkIds, sha256 } from "../local/networks.ts";
import { networkToApi } from "../swarm/objects.ts";
import type { Doctor } from "./doctor.ts";

export const filterKeys = ["dangling", "driver", "id", "label", "name", "scope", "type"];

export type Shown = JsonObject & {
  readonly Name: string;
  readonly Id: string;
  readonly Created: string;
  readonly Scope: string;
  readonly Driver: string;
  readonly Ingress: boolean;
};

/** What this node knows itself; absent in a daemon that runs nothing. */
export interface NodeSide {
  readonly networks?: ContainerNetworks | undefined;
  readonly network?: Doctor | undefined;
  readonly containers: Containers;
}

const plain = {
  EnableIPv4: true,
  EnableIPv6: false,
  IPAM: { Driver: "default", Options: {}, Config: [] as JsonObject[] },
  Internal: false,
  Attachable: false,
  Ingress: false,
  ConfigFrom: { Network: "" },
  ConfigOnly: false,
  Containers: {},
  Options: {},
  Labels: {},
};

const mode = (Name: string, Driver: string): Shown => ({
  Name,
  Id: modeNetworkIds[Name] ?? sha256(`network ${Name}`),
  Created: zeroTime,
  Scope: "local",
  Driver,
  ...plain,
});

const modes = [mode("host", "host"), mode("none", "null")];
/** Where this node makes no networks, the name is there all the same. */
const noBridge = mode("bridge", "bridge");

export const ofSwarm = (network: skep.objects.Network.$Properties): Shown => networkToApi(network) as Shown;

const bridgeOptions = {
  "com.docker.network.bridge.default_bridge": "true",
  "com.docker.network.bridge.enable_icc": "true",
  "com.docker.network.bridge.enable_ip_masquerade": "true",
  "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
  "com.docker.network.driver.mtu": "1500",
};

export function ofNode(network: NodeNetwork): Shown {
  const { Labels: labels, ...own } =
    network.kind === "bridge" ? bridgeJson(network.record) : configJson(network.config);
  const { [configLabel]: from = "", ...Labels } = labels;
  const { Created, ...shown } = own;
  return {
    Name: nameOf(network),
    Id: idOf(network),
    Created,
    Scope: "local",
    Driver: "bridge",
    ...plain,
    ...shown,
    ConfigFrom: { Network: from },
    Labels,
  };
}

type Own = JsonObject & { readonly Created: string; readonly Labels: Readonly<Record<string, string>> };

function bridgeJson({
  createdAtMs,
  options,
  labels,
  auxiliaryAddresses,
  network,
}: (NodeNetwork & { kind: "bridge" })["record"]): Own {
  const { subnet, ipRange, gateway, subnet6, gateway6, internal, name } = network;
  const config = {
    Subnet: subnet,
    ...(ipRange === "" ? {} : { IPRange: ipRange }),
    Gateway: gateway,
    ...(Object.keys(auxiliaryAddresses).length === 0 ? {} : { AuxiliaryAddresses: auxiliaryAddresses }),
  };
  return {
    Created: isoTime(createdAtMs),
    EnableIPv6: subnet6 !== undefined,
    IPAM: { Driver: "default", Options: {}, Config: [config, ...configs6(subnet6, gateway6)] },
    Internal: internal,
    Options: name === "bridge" ? { ...bridgeOptions, ...options } : options,
    Labels: labels,
  };
}

const configs6 = (Subnet: string | undefined, Gateway: string | undefined): JsonObject[] =>
  Subnet === undefined || Gateway === undefined ? [] : [{ Subnet, Gateway }];

function configJson({ createdAtMs, wish }: (NodeNetwork & { kind: "config" })["config"]): Own {
  const configs = (wish.ipam ?? []).map(({ subnet, ipRange, gateway, auxiliaryAddresses = {} }) => ({
    ...((subnet ?? "") === "" ? {} : { Subnet: subnet }),
    ...((ipRange ?? "") === "" ? {} : { IPRange: ipRange }),
    ...((gateway ?? "") === "" ? {} : { Gateway: gateway }),
    ...(Object.keys(auxiliaryAddresses).length === 0 ? {} : { AuxiliaryAddresses: auxiliaryAddresses }),
  }));
  return {
    Created: isoTime(createdAtMs),
    Driver: wish.driver === undefined || wish.driver === "" ? "bridge" : wish.driver,
    EnableIPv6: wish.enableIpv6 ?? false,
    IPAM: { Driver: "default", Options: {}, Config: configs },
    Internal: wish.internal ?? false,
    ConfigOnly: true,
    Options: wish.options ?? {},
    Labels: wish.labels ?? {},
  };
}

/** Networks of this node, the predefined ones first. */
export function nodeNetworks(node: NodeSide | undefined): readonly Shown[] {
  const own = (node?.networks?.list() ?? []).map(ofNode);
  return [...(own.some(({ Name }) => Name === "bridge") ? [] : [noBridge]), ...own, ...modes];
}

/** Networks of the swarm that a container of this node is on: all that a worker knows of them. */
export function overlaysHere(node: NodeSide | undefined): readonly Shown[] {
  const found = new Map<string, OverlayNetwork>();
  for (const container of node?.containers.list() ?? []) {
    const taskId = labelsOf(container.record)["com.docker.swarm.task.id"];
    for (const network of node?.networks?.overlaysOf(container.id, taskId) ?? []) found.set(network.id, network);
  }
  return [...found.values()].map(({ id, name, subnet, gateway, subnet6, gateway6, internal, vni, encrypted }) => ({
    Name: name,
    Id: id,
    Created: zeroTime,
    Scope: "swarm",
    Driver: "overlay",
    ...plain,
    EnableIPv6: subnet6 !== undefined,
    IPAM: {
      Driver: "default",
      Options: {},
      Config: [{ Subnet: subnet, Gateway: gateway }, ...configs6(subnet6, gateway6)],
    },
    Internal: internal,
    Options: {
      "com.docker.network.driver.overlay.vxlanid_list": String(vni),
      ...(encrypted ? { encrypted: "" } : {}),
    },
  }));
}

/** Containers of this node on the network, by id, as inspect shows them. */
export function membersOf(node: NodeSide | undefined, networkId: string): Readonly<Record<string, JsonObject>> {
  const members: Record<string, JsonObject> = {};
  for (const { id, record } of node?.containers.list() ?? []) {
    const sandbox = node?.networks?.sandboxOf(id, labelsOf(record)["com.docker.swarm.task.id"]);
    const end = sandbox?.endpoints.find((one) => one.networkId === networkId);
    if (end === undefined) continue;
    members[id] = {
      Name: record.name,
      EndpointID: sha256(`endpoint ${networkId} ${id}`),
      MacAddress: end.macAddress,
      IPv4Address: `${end.address}/${end.prefixLength}`,
      IPv6Address: end.v6 === undefined ? "" : `${end.v6.address}/${end.v6.prefixLength}`,
    };
  }
  return members;
}

/** A whole id, else a whole name, else the beginning of one id only; the node's own first. @returns undefined: there is none */
export function find(wanted: string, own: readonly Shown[], swarms: readonly Shown[]): Shown | undefined {
  if (wanted === "") return undefined;
  const all = [...own, ...swarms];
  const tests = [
    ({ Id }: Shown) => Id === wanted,
    ({ Name }: Shown) => Name === wanted,
    ({ Id }: Shown) => Id.startsWith(wanted),
  ];
  for (const [at, test] of tests.entries()) {
    // A record that stands for a network of the nodes is not a second one of that name.
    const found = all
      .filter(test)
      .filter(
        ({ Name, Scope }, _place, them) =>
          Scope === "local" || !them.some((other) => other.Name === Name && other.Scope === "local"),
      );
    if (found.length > 1) {
      const by = at === 1 ? "name" : "ID prefix";
      throw new BadRequest(
        `network ${wanted} is ambiguous (${found.length} matches found based on ${by})`,
        "Give the whole id",
      );
    }
    if (found[0] !== undefined) return found[0];
  }
  return undefined;
}

export const isPredefined = ({ Name, Scope }: Shown): boolean =>
  Scope === "local" && ["bridge", "host", "none"].includes(Name);

/** @param inUse  ids of networks that a container or service is on; undefined where nobody asks for it */
export function matches(network: Shown, filters: Filters, inUse: ReadonlySet<string>): boolean {
  const labels = (network["Labels"] ?? {}) as Readonly<Record<string, string>>;
  const test = (key: string, is: (value: string) => boolean): boolean => {
    const values = filters.get(key);
    return values === undefined || values.some(is);
  };
  const builtin = isPredefined(network) || network.Ingress;
  const dangling = !builtin && !inUse.has(network.Id);
  return (
    test("name", (value) => network.Name.includes(value)) &&
    test("id", (value) => network.Id.includes(value)) &&
    test("driver", (value) => network.Driver === value) &&
    test("scope", (value) => network.Scope === value) &&
    test("type", (value) => (value === "builtin") === builtin) &&
    test("dangling", (value) => ["1", "true"].includes(value.toLowerCase()) === dangling) &&
    fitsLabels(labels, filters)
  );
}

/** `KEY` or `KEY=VALUE`, all of them; `label!`: none of them. */
export function fitsLabels(labels: Readonly<Record<string, string>>, filters: Filters): boolean {
  const has = (value: string): boolean => {
    const at = value.indexOf("=");
    return at < 0 ? Object.hasOwn(labels, value) : labels[value.slice(0, at)] === value.slice(at + 1);
  };
  return (filters.get("label") ?? []).every(has) && !(filters.get("label!") ?? []).some(has);
}
