/** The swarm itself: init, join, leave, unlock, and the cluster's settings, tokens and keys. */
import { formatUnlockKey, issuerOf } from "../../lib/pki/index.ts";
import { skep, wrongClusterSpec } from "../../proto/index.ts";
import { BadRequest, type JsonObject, type Route } from "../http/index.ts";
import type { Availability, Swarm } from "../ports.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { fromApi } from "./mapper.ts";
import { clusterToApi } from "./objects.ts";
import { membershipWords, worded } from "./wording.ts";

const defaults = {
  listenAddr: "0.0.0.0:2377",
  dataPathPort: 4789,
  subnetSize: 24,
  pool: "10.0.0.0/8",
};

/** Since 1.39 and 1.40; older clients do not send them on purpose. */
const poolMinor = 39;
const dataPathMinor = 40;

export function swarmRoutes(swarm: Swarm, control: ControlClient): readonly Route[] {
  return [
    {
      method: "POST",
      path: "/swarm/init",
      handle: async (call) => {
        const body = new Body(await call.json());
        const spec = fromApi("ClusterSpec", body.object("Spec"), call.minor) as skep.objects.ClusterSpec.$Properties;
        const autoLockManagers = body.bool("AutoLockManagers") || (spec.encryptionConfig?.autoLockManagers ?? false);
        const pools = call.minor >= poolMinor ? body.texts("DefaultAddrPool") : [];
        const request = {
          listenAddr: body.text("ListenAddr") || defaults.listenAddr,
          advertiseAddr: body.text("AdvertiseAddr"),
          dataPathAddr: body.text("DataPathAddr"),
          dataPathPort: (call.minor >= dataPathMinor ? body.integer("DataPathPort") : 0) || defaults.dataPathPort,
          defaultAddrPool: pools.length > 0 ? pools : [defaults.pool],
          subnetSize: (call.minor >= poolMinor ? body.integer("SubnetSize") : 0) || defaults.subnetSize,
          forceNewCluster: body.bool("ForceNewCluster"),
          autoLockManagers,
          availability: body.availability(),
          spec: skep.objects.ClusterSpec.encode({
            ...spec,
            name: "default",
            encryptionConfig: { autoLockManagers },
          }).finish(),
        };
        checkInit(request, spec);
        return { json: await inWords(swarm.init(request, call.signal)) };
      },
    },
    {
      method: "POST",
      path: "/swarm/join",
      handle: async (call) => {
        const body = new Body(await call.json());
        const remoteAddrs = body.texts("RemoteAddrs");
        const request = {
          listenAddr: body.text("ListenAddr") || defaults.listenAddr,
          advertiseAddr: body.text("AdvertiseAddr"),
          dataPathAddr: body.text("DataPathAddr"),
          remoteAddrs,
          joinToken: body.text("JoinToken"),
          availability: body.availability(),
        };
        if (remoteAddrs.length === 0) throw new BadRequest("at least 1 RemoteAddr is required to join");
        await inWords(swarm.join(request, call.signal));
        return {};
      },
    },
    {
      method: "POST",
      path: "/swarm/leave",
      handle: async ({ query, signal }) => {
        await inWords(swarm.leave(query.bool("force"), signal));
        return {};
      },
    },
    {
      method: "POST",
      path: "/swarm/unlock",
      handle: async (call) => {
        await inWords(swarm.unlock(new Body(await call.json()).text("UnlockKey"), call.signal));
        return {};
      },
    },
    {
      method: "GET",
      path: "/swarm/unlockkey",
      handle: async ({ signal }) => {
        const key = await control.unlockKey(signal);
        return { json: { UnlockKey: key.length === 0 ? "" : formatUnlockKey(key) } };
      },
    },
    {
      method: "GET",
      path: "/swarm",
      handle: async ({ signal }) => {
        const { cluster } = await control.get(ObjectKind.CLUSTER, "", signal);
        return { json: clusterToApi(cluster ?? {}, tlsInfoOf(cluster ?? {}), { joinTokens: true }) };
      },
    },
    {
      method: "POST",
      path: "/swarm/update",
      handle: async (call) => {
        const { query, signal } = call;
        const version = query.version("swarm");
        const cluster = fromApi("ClusterSpec", await call.json(), call.minor) as skep.objects.ClusterSpec.$Properties;
        await control.update(
          {
            kind: ObjectKind.CLUSTER,
            version,
            spec: { cluster },
            rotate: {
              workerToken: query.bool("rotateWorkerToken"),
              managerToken: query.bool("rotateManagerToken"),
              managerUnlockKey: query.bool("rotateManagerUnlockKey"),
            },
          },
          signal,
        );
        return {};
      },
    },
  ];
}

export function tlsInfoOf({ rootCa }: skep.objects.Cluster.$Properties): skep.objects.TlsInfo.$Properties {
  const root = rootCa?.certificate ?? "";
  if (root === "") return {};
  const { subject, publicKey } = issuerOf({ certificatePem: root, rootsPem: root });
  return { trustRoot: root, certIssuerSubject: subject, certIssuerPublicKey: publicKey };
}

async function inWords<T>(act: Promise<T>): Promise<T> {
  try {
    return await act;
  } catch (error) {
    throw worded(error, membershipWords);
  }
}

function checkInit(
  request: { readonly subnetSize: number; readonly dataPathPort: number },
  spec: skep.objects.ClusterSpec.$Properties,
): void {
  const wrong = wrongClusterSpec(spec);
  if (wrong !== undefined) throw new BadRequest(wrong);
  if (request.subnetSize < 1 || request.subnetSize > 29) {
    throw new BadRequest("subnet size is out of range: 1 to 29", "Give a mask length of at most 29");
  }
  if (request.dataPathPort < 1024 || request.dataPathPort > 49_151) {
    throw new BadRequest(`Datapath port number is not in valid range (1024-49151) : ${request.dataPathPort}`);
  }
}

/** A body of a few fields, each checked when it is read. */
class Body {
  readonly #json: JsonObject;

  constructor(json: JsonObject) {
    this.#json = json;
  }

  text(name: string): string {
    const value = this.#json[name] ?? "";
    if (typeof value !== "string") throw wrong(name, "string");
    return value;
  }

  bool(name: string): boolean {
    const value = this.#json[name] ?? false;
    if (typeof value !== "boolean") throw wrong(name, "bool");
    return value;
  }

  integer(name: string): number {
    const value = this.#json[name] ?? 0;
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > 2 ** 32 - 1) {
      throw wrong(name, "uint32");
    }
    return value;
  }

  texts(name: string): readonly string[] {
    const value = this.#json[name] ?? [];
    if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) throw wrong(name, "[]string");
    return value;
  }

  object(name: string): JsonObject {
    const value = this.#json[name] ?? {};
    if (typeof value !== "object" || Array.isArray(value)) throw wrong(name, "object");
    return value as JsonObject;
  }

  availability(): Availability {
    const value = this.text("Availability").toLowerCase() || "active";
    if (value !== "active" && value !== "pause" && value !== "drain") {
      throw new BadRequest(`invalid Availability: ${JSON.stringify(value.slice(0, 64))}`, "Use active, pause or drain");
    }
    return value;
  }
}

const wrong = (name: string, type: string): BadRequest =>
  new BadRequest(`invalid JSON: json: cannot unmarshal value into Go struct field ${name} of type ${type}`);
