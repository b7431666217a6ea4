/** The routes of networks, of the swarm and of this node alike. */
import { ClusterError } from "../../lib/pure/errors.ts";
import { parseDurationMs } from "../../lib/pure/duration.ts";
import type { Clock } from "../../lib/runtime/index.ts";
import { idOf } from "../../worker/container-networks/index.ts";
import { BadRequest, type Call, type Filters, type Route } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "../swarm/client.ts";
import { Worded } from "../swarm/wording.ts";
import { connect, disconnect } from "./connect.ts";
import { readWish } from "./create.ts";
import { doctorRoute, tunnelJson } from "./doctor.ts";
import { NetworkMissing, NetworkNameTaken, Predefined } from "./errors.ts";
import {
  filterKeys,
  find,
  fitsLabels,
  isPredefined,
  matches,
  membersOf,
  nodeNetworks,
  ofSwarm,
  overlaysHere,
  type NodeSide,
  type Shown,
} from "./shown.ts";
import { peers, verbose } from "./verbose.ts";

/** Where this node is no manager, only networks that it has to do with are known. */
const noManager = new Set(["NOT_IN_SWARM", "NOT_A_SWARM_MANAGER", "SWARM_LOCKED"]);

/** @param node  absent: the daemon runs no containers */
export function networkRoutes(control: ControlClient, node: NodeSide | undefined, clock: Clock): readonly Route[] {
  /** Undefined: here is no manager. */
  const told = async (signal: AbortSignal): Promise<readonly Shown[] | undefined> => {
    try {
      const { objects } = await control.list(ObjectKind.NETWORK, [], signal);
      return objects
        .filter(({ network }) => network?.spec?.scope !== "local")
        .map(({ network }) => ofSwarm(network ?? {}));
    } catch (error) {
      if (error instanceof ClusterError && noManager.has(error.code)) return undefined;
      throw error;
    }
  };
  const swarms = async (signal: AbortSignal): Promise<readonly Shown[]> => (await told(signal)) ?? overlaysHere(node);
  /** Records of networks of the nodes' own are shown to those who ask for the swarm's. */
  const records = async (signal: AbortSignal): Promise<readonly Shown[]> => {
    const { objects } = await control.list(ObjectKind.NETWORK, [], signal);
    return objects.map(({ network }) => ofSwarm(network ?? {}));
  };
  const lookUp = async ({ params, query, signal }: Call): Promise<Shown | undefined> => {
    const scope = query.text("scope");
    const all = scope === "swarm" ? await records(signal) : scope === "local" ? [] : await swarms(signal);
    return find(params["id"] ?? "", scope === "swarm" ? [] : nodeNetworks(node), all);
  };
  const inUse = async (filters: Filters, signal: AbortSignal): Promise<ReadonlySet<string>> =>
    filters.has("dangling") ? await usedNetworks(control, node, signal) : new Set();
  return [
    doctorRoute(node?.network),
    {
      method: "GET",
      path: "/networks",
      handle: async ({ query, signal }) => {
        const filters = query.filters(filterKeys);
        const used = await inUse(filters, signal);
        const all = [...nodeNetworks(node), ...(await swarms(signal))];
        return { json: all.filter((network) => matches(network, filters, used)) };
      },
    },
    {
      method: "GET",
      path: "/networks/:id",
      handle: async (call) => {
        const network = await lookUp(call);
        if (network === undefined) throw new NetworkMissing(call.params["id"] ?? "");
        const members = membersOf(node, network.Id);
        const isHere = Object.keys(members).length > 0 && network.Scope === "swarm";
        const others = isHere ? await peers(control, network, call.signal).catch(() => undefined) : undefined;
        const isEncrypted = isHere && "encrypted" in (network["Options"] as object);
        const tunnel = isEncrypted ? await node?.network?.tunnel?.() : undefined;
        const shown = {
          ...network,
          Containers: members,
          ...(others === undefined ? {} : { Peers: others }),
          ...(tunnel === undefined ? {} : { Tunnel: tunnel.map(tunnelJson) }),
        };
        if (!call.query.bool("verbose")) return { json: shown };
        return { json: { ...shown, ...(await verbose(control, network, call.signal)) } };
      },
    },
    {
      method: "POST",
      path: "/networks/create",
      handle: async (call) => {
        const wish = readWish(await call.json(), call.minor);
        if (wish.kind === "swarm") {
          if (node?.networks?.find(wish.spec.name ?? "") !== undefined)
            throw new NetworkNameTaken(wish.spec.name ?? "");
          return { status: 201, json: { Id: await createInSwarm(control, wish.spec, call.signal), Warning: "" } };
        }
        if (node?.networks === undefined) {
          throw new BadRequest("this node makes no networks of its own", "Use the network host or none");
        }
        // One name for one network, wherever it is: else a container could not say which it means.
        if ((await swarms(call.signal)).some(({ Name }) => Name === wish.wish.name))
          throw new NetworkNameTaken(wish.wish.name);
        const made = await node.networks.create(wish.wish, { configOnly: wish.configOnly, from: wish.from });
        return { status: 201, json: { Id: idOf(made), Warning: wish.warning } };
      },
    },
    {
      method: "DELETE",
      path: "/networks/:id",
      handle: async (call) => {
        const network = await lookUp(call);
        if (network === undefined) throw new NetworkMissing(call.params["id"] ?? "");
        if (isPredefined(network))
          throw new Predefined(`${network.Name} is a pre-defined network and cannot be removed`);
        const own = network.Scope === "local" ? node?.networks?.find(network.Id) : undefined;
        if (own !== undefined) await node?.networks?.remove(own);
        else await control.remove(ObjectKind.NETWORK, network.Id, call.signal);
        return { status: 204 };
      },
    },
    {
      method: "POST",
      path: "/networks/prune",
      handle: async ({ signal, query }) => {
        const filters = query.filters(["label", "label!", "until"]);
        const fits = pruneTest(filters, clock.wallMs());
        const deleted: string[] = [];
        // As in the reference: a network of the swarm that is in use refuses to go, and stays.
        for (const network of (await told(signal)) ?? []) {
          if (network.Ingress || !fits(network)) continue;
          try {
            await control.remove(ObjectKind.NETWORK, network.Id, signal);
            deleted.push(network.Name);
          } catch (error) {
            if (
              !(error instanceof ClusterError) ||
              !["OBJECT_IN_USE", "OBJECT_PREDEFINED", "NO_SUCH_OBJECT"].includes(error.code)
            )
              throw error;
          }
        }
        const own = new Map(nodeNetworks(node).map((network) => [network.Id, network]));
        const removed = await node?.networks?.prune(({ network }) => {
          const shown = own.get(network.id);
          return shown === undefined || !fits(shown);
        });
        deleted.push(...(removed ?? []));
        return { json: { NetworksDeleted: deleted.length === 0 ? null : deleted } };
      },
    },
    {
      method: "POST",
      path: "/networks/:id/connect",
      handle: async (call) => {
        await connect(node, await lookUp(call), call.params["id"] ?? "", await call.json());
        return { status: 200 };
      },
    },
    {
      method: "POST",
      path: "/networks/:id/disconnect",
      handle: async (call) => {
        await disconnect(node, await lookUp(call), call.params["id"] ?? "", await call.json());
        return { status: 200 };
      },
    },
  ];
}

async function createInSwarm(
  control: ControlClient,
  network: Parameters<ControlClient["create"]>[0]["network"],
  signal: AbortSignal,
): Promise<string> {
  try {
    return (await control.create({ network: network ?? {} }, signal)).id;
  } catch (error) {
    if (!(error instanceof ClusterError) || error.code !== "NOT_A_SWARM_MANAGER") throw error;
    const text =
      "Cannot create a multi-host network from a worker node. Please create the network from a manager node.";
    throw new Worded(error.code, text, error, 403);
  }
}

/** Networks that a container of this node runs on, or a service or task of the swarm uses. */
async function usedNetworks(
  control: ControlClient,
  node: NodeSide | undefined,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const used = new Set<string>();
  for (const { Id } of nodeNetworks(node)) if (Object.keys(membersOf(node, Id)).length > 0) used.add(Id);
  try {
    const { objects } = await control.list(ObjectKind.TASK, [["desired-state", ["running"]]], signal);
    for (const { task } of objects)
      for (const { networkId } of task?.networksAttachments ?? []) used.add(networkId ?? "");
    for (const { service } of (await control.list(ObjectKind.SERVICE, [], signal)).objects) {
      for (const { networkId } of service?.endpoint?.virtualIps ?? []) used.add(networkId ?? "");
    }
  } catch (error) {
    if (!(error instanceof ClusterError) || !noManager.has(error.code)) throw error;
    for (const { Id } of overlaysHere(node)) used.add(Id);
  }
  return used;
}

/** `until` is a moment or how long ago. @throws BadRequest */
function pruneTest(filters: Filters, nowMs: number): (network: Shown) => boolean {
  const untils = (filters.get("until") ?? []).map((text) => momentMs(text, nowMs));
  return (network) =>
    fitsLabels((network["Labels"] ?? {}) as Readonly<Record<string, string>>, filters) &&
    untils.every((until) => Date.parse(network.Created) < until);
}

function momentMs(text: string, nowMs: number): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  if (!Number.isNaN(date) && /^\d{4}-/.test(text)) return date;
  try {
    return nowMs - parseDurationMs(text);
  } catch {
    throw new BadRequest(`failed to parse value as time or duration: ${JSON.stringify(text.slice(0, 64))}`);
  }
}
