/** Networks of the swarm, as records, beside those that each node has by itself. */
import { createHash } from "node:crypto";

import { ClusterError } from "../../lib/pure/errors.ts";
import type { skep } from "../../proto/index.ts";
import { BadRequest, NotOffered, type Filters, type JsonObject, type Route } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { fromApi } from "./mapper.ts";
import { networkToApi } from "./objects.ts";
import { Worded } from "./wording.ts";

const filterKeys = ["dangling", "driver", "id", "label", "name", "scope", "type"];

type Spec = skep.objects.NetworkSpec.$Properties;

/** As the API shows it. */
type Shown = JsonObject & {
  readonly Name: string;
  readonly Id: string;
  readonly Scope: string;
  readonly Driver: string;
  readonly Ingress: boolean;
};

const shown = (network: skep.objects.Network.$Properties): Shown => networkToApi(network) as Shown;

/** Those of every node. */
const builtin: readonly Shown[] = [
  ["bridge", "bridge"],
  ["host", "host"],
  ["none", "null"],
].map(([name = "", driver = ""]) => ({
  Name: name,
  Id: createHash("sha256").update(`network ${name}`).digest("hex"),
  Created: "0001-01-01T00:00:00Z",
  Scope: "local",
  Driver: driver,
  EnableIPv4: true,
  EnableIPv6: false,
  IPAM: { Driver: "default", Options: {}, Config: [] },
  Internal: false,
  Attachable: false,
  Ingress: false,
  ConfigFrom: { Network: "" },
  ConfigOnly: false,
  Containers: {},
  Options: {},
  Labels: {},
}));

/** Where this node is no manager, only its own networks are known. */
const noManager = new Set(["NOT_IN_SWARM", "NOT_A_SWARM_MANAGER", "SWARM_LOCKED"]);

export function networkRoutes(control: ControlClient): readonly Route[] {
  /** Records of node-local networks stand for the nodes' own: they are shown only to those who ask for the swarm's. */
  const swarmNetworks = async (signal: AbortSignal): Promise<readonly skep.objects.Network.$Properties[]> => {
    try {
      const { objects } = await control.list(ObjectKind.NETWORK, [], signal);
      return objects.map(({ network }) => network ?? {});
    } catch (error) {
      if (error instanceof ClusterError && noManager.has(error.code)) return [];
      throw error;
    }
  };
  return [
    {
      method: "GET",
      path: "/networks",
      handle: async ({ query, signal }) => {
        const filters = query.filters(filterKeys);
        const ofSwarm = (await swarmNetworks(signal)).filter((network) => network.spec?.scope !== "local");
        return { json: [...builtin, ...ofSwarm.map(shown)].filter((network) => matches(network, filters)) };
      },
    },
    {
      method: "GET",
      path: "/networks/:id",
      handle: async ({ params, query, signal }) => {
        const scope = query.text("scope");
        const wanted = params["id"] ?? "";
        const network = find(
          wanted,
          scope === "swarm" ? [] : builtin,
          scope === "local" ? [] : await swarmNetworks(signal),
        );
        if (!query.bool("verbose")) return { json: network };
        return { json: { ...network, ...(await verbose(control, network, signal)) } };
      },
    },
    {
      method: "POST",
      path: "/networks/create",
      handle: async (call) => {
        const body = await call.json();
        const network = specOf(body, call.minor);
        try {
          const { id } = await control.create({ network }, call.signal);
          return { status: 201, json: { Id: id, Warning: "" } };
        } catch (error) {
          if (!(error instanceof ClusterError) || error.code !== "NOT_A_SWARM_MANAGER") throw error;
          const text =
            "Cannot create a multi-host network from a worker node. Please create the network from a manager node.";
          throw new Worded(error.code, text, error, 403);
        }
      },
    },
    {
      method: "DELETE",
      path: "/networks/:id",
      handle: async ({ params, signal }) => {
        const wanted = params["id"] ?? "";
        const own = builtin.find(({ Name, Id }) => Name === wanted || Id === wanted);
        if (own !== undefined) {
          throw new Predefined(`${own.Name} is a pre-defined network and cannot be removed`);
        }
        const found = find(wanted, [], await swarmNetworks(signal));
        await control.remove(ObjectKind.NETWORK, found.Id, signal);
        return { status: 204 };
      },
    },
    {
      method: "POST",
      path: "/networks/prune",
      handle: async ({ signal, query }) => {
        query.filters(["label", "label!", "until"]);
        // As in the reference, networks of the swarm are not pruned, and the nodes' own are always there.
        await Promise.resolve(signal);
        return { json: { NetworksDeleted: [] } };
      },
    },
  ];
}

class Predefined extends ClusterError {
  readonly code = "OBJECT_PREDEFINED";
  constructor(found: string) {
    super(found, { fix: "Create a network of your own instead" });
  }
}

class NetworkMissing extends ClusterError {
  readonly code = "NO_SUCH_OBJECT";
  constructor(reference: string) {
    super(`network ${reference} not found`, { fix: "List the networks for their ids and names" });
  }
}

/** A whole id, else a whole name, else the beginning of one id only; the node's own first. */
function find(wanted: string, own: readonly Shown[], ofSwarm: readonly skep.objects.Network.$Properties[]): Shown {
  const all = [...own, ...ofSwarm.map(shown)];
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
    if (found[0] !== undefined && wanted !== "") return found[0];
  }
  throw new NetworkMissing(wanted);
}

function matches(network: Shown, filters: Filters): boolean {
  const labels = (network["Labels"] ?? {}) as Readonly<Record<string, string>>;
  const test = (key: string, is: (value: string) => boolean): boolean => {
    const values = filters.get(key);
    return values === undefined || values.some(is);
  };
  const builtinName = builtin.some(({ Name }) => Name === network.Name) || network.Ingress;
  return (
    test("name", (value) => network.Name.includes(value)) &&
    test("id", (value) => network.Id.includes(value)) &&
    test("driver", (value) => network.Driver === value) &&
    test("scope", (value) => network.Scope === value) &&
    test("type", (value) => (value === "builtin") === builtinName) &&
    test("dangling", (value) => ["1", "true"].includes(value.toLowerCase()) === !builtinName) &&
    (filters.get("label") ?? []).every((value) => {
      const at = value.indexOf("=");
      return at < 0 ? Object.hasOwn(labels, value) : labels[value.slice(0, at)] === value.slice(at + 1);
    })
  );
}

/** @throws BadRequest, NotOffered for networks of one node, which are not there yet */
function specOf(body: JsonObject, minor: number): Spec {
  const text = (name: string): string => {
    const value = body[name] ?? "";
    if (typeof value !== "string")
      throw new BadRequest(
        `invalid JSON: json: cannot unmarshal value into Go struct field NetworkCreateRequest.${name} of type string`,
      );
    return value;
  };
  const driver = text("Driver") || "bridge";
  const swarmScope = text("Scope") === "swarm" || driver === "overlay";
  if (!swarmScope) {
    if (["bridge", "macvlan", "ipvlan", "host", "null"].includes(driver))
      throw new NotOffered(`a network of driver "${driver}" on one node`);
    throw new PluginMissing(driver);
  }
  const { Driver: _driver, ConfigFrom, IPAM, Options, ...rest } = body;
  const spec = fromApi("NetworkSpec", { ...rest, ...(IPAM === null ? {} : { IPAM }) }, minor) as Spec;
  const options = fromApi("Driver", { Options: Options ?? {} }, minor) as skep.objects.Driver.$Properties;
  const from = typeof ConfigFrom === "object" && ConfigFrom !== null ? (ConfigFrom as JsonObject)["Network"] : "";
  return {
    ...spec,
    driver: { name: driver, options: options.options ?? {} },
    configFrom: typeof from === "string" ? from : "",
    scope: "swarm",
  };
}

class PluginMissing extends ClusterError {
  readonly code = "NO_SUCH_PLUGIN";
  readonly status = 404;
  constructor(name: string) {
    super(`plugin ${JSON.stringify(name.slice(0, 64))} not found`, { fix: "Use the driver overlay" });
  }
}

/** Who is on the network: services with their addresses, and their tasks. */
async function verbose(control: ControlClient, network: Shown, signal: AbortSignal): Promise<JsonObject> {
  if (network.Scope !== "swarm") return { Services: {} };
  const id = network.Id;
  const [services, tasks, nodes] = await Promise.all([
    control.list(ObjectKind.SERVICE, [], signal),
    control.list(ObjectKind.TASK, [["desired-state", ["running"]]], signal),
    control.list(ObjectKind.NODE, [], signal),
  ]);
  const addresses = new Map(nodes.objects.map(({ node }) => [node?.id ?? "", node?.status?.addr ?? ""]));
  const found: Record<string, JsonObject> = {};
  for (const { service } of services.objects) {
    const vip = (service?.endpoint?.virtualIps ?? []).find(({ networkId }) => networkId === id);
    const attached = tasks.objects.flatMap(({ task }) => {
      if (task?.serviceId !== service?.id) return [];
      const attachment = (task?.networksAttachments ?? []).find(({ networkId }) => networkId === id);
      if (attachment === undefined) return [];
      return [
        {
          Name: task?.name ?? "",
          EndpointID: task?.id ?? "",
          EndpointIP: (attachment.addresses?.[0] ?? "").split("/")[0] ?? "",
          Info: { "Host IP": addresses.get(task?.nodeId ?? "") ?? "" },
        },
      ];
    });
    if (vip === undefined && attached.length === 0) continue;
    found[service?.spec?.name ?? ""] = {
      VIP: (vip?.addr ?? "").split("/")[0] ?? "",
      Ports: (service?.endpoint?.ports ?? []).map(
        ({ targetPort, publishedPort }) => `Target: ${targetPort ?? 0}, Publish: ${publishedPort ?? 0}`,
      ),
      LocalLBIndex: 0,
      Tasks: attached,
    };
  }
  return { Services: found };
}
