/** What a network shall be, read from the body of `POST /networks/create`. */
import type { skep } from "../../proto/index.ts";
import type { LocalNetworkWish } from "../../worker/network/index.ts";
import { BadRequest, NotOffered, type JsonObject } from "../http/index.ts";
import { checkShape, fields, list, map } from "../local/shapes.ts";
import { fromApi } from "../swarm/mapper.ts";
import { PluginMissing, Predefined } from "./errors.ts";

export type NetworkWish =
  | { readonly kind: "swarm"; readonly spec: skep.objects.NetworkSpec.$Properties }
  | {
      readonly kind: "node";
      readonly wish: LocalNetworkWish;
      readonly configOnly: boolean;
      readonly from: string;
      readonly warning: string;
    };

const shape = fields({
  Name: "string",
  Driver: "string",
  Scope: "string",
  EnableIPv4: "boolean",
  EnableIPv6: "boolean",
  Internal: "boolean",
  Attachable: "boolean",
  Ingress: "boolean",
  ConfigOnly: "boolean",
  ConfigFrom: fields({ Network: "string" }),
  IPAM: fields({
    Driver: "string",
    Options: map("string"),
    Config: list(fields({ Subnet: "string", IPRange: "string", Gateway: "string", AuxiliaryAddresses: map("string") })),
  }),
  Options: map("string"),
  Labels: map("string"),
});

interface Body {
  readonly Name?: string;
  readonly Driver?: string;
  readonly Scope?: string;
  readonly EnableIPv4?: boolean | null;
  readonly EnableIPv6?: boolean | null;
  readonly Internal?: boolean;
  readonly Ingress?: boolean;
  readonly ConfigOnly?: boolean;
  readonly ConfigFrom?: { readonly Network?: string } | null;
  readonly IPAM?: {
    readonly Driver?: string;
    readonly Config?:
      | readonly {
          readonly Subnet?: string;
          readonly IPRange?: string;
          readonly Gateway?: string;
          readonly AuxiliaryAddresses?: Readonly<Record<string, string>> | null;
        }[]
      | null;
  } | null;
  readonly Options?: Readonly<Record<string, string>> | null;
  readonly Labels?: Readonly<Record<string, string>> | null;
}

/** There is no bridge to name: networks of a node are routed. Files for docker often name one, so it is said and let be. */
const bridgeName = "com.docker.network.bridge.name";

/** @throws BadRequest, Predefined, PluginMissing, NotOffered */
export function readWish(json: JsonObject, minor: number): NetworkWish {
  checkShape(json, shape, "NetworkCreateRequest");
  const body = json as Body;
  const driver = (body.Driver ?? "") === "" ? "bridge" : (body.Driver ?? "");
  const name = body.Name ?? "";
  if (body.Scope === "swarm" || driver === "overlay") return { kind: "swarm", spec: specOf(json, driver, minor) };
  if (!["", "local"].includes(body.Scope ?? "")) throw new BadRequest(`invalid scope ${JSON.stringify(body.Scope)}`);
  if (["host", "null"].includes(driver)) throw new Predefined(`only one instance of "${driver}" network is allowed`);
  if (["bridge", "host", "none", "default"].includes(name)) {
    throw new Predefined(`operation is not permitted on predefined ${name} network `);
  }
  if (["macvlan", "ipvlan"].includes(driver)) throw new NotOffered(`a network of driver "${driver}" on one node`);
  if (driver !== "bridge") throw new PluginMissing(driver);
  if (body.Ingress === true) throw new BadRequest("only a network of the swarm can be the ingress network");
  if (body.EnableIPv4 === false) throw new BadRequest("IPv4 cannot be disabled in networks of a node");
  const { [bridgeName]: named, ...options } = body.Options ?? {};
  return {
    kind: "node",
    wish: {
      name,
      driver,
      internal: body.Internal ?? false,
      enableIpv6: body.EnableIPv6 ?? false,
      ipamDriver: body.IPAM?.Driver ?? "",
      ipam: (body.IPAM?.Config ?? []).map(({ Subnet = "", IPRange = "", Gateway = "", AuxiliaryAddresses }) => ({
        subnet: Subnet,
        ipRange: IPRange,
        gateway: Gateway,
        auxiliaryAddresses: AuxiliaryAddresses ?? {},
      })),
      options,
      labels: body.Labels ?? {},
    },
    configOnly: body.ConfigOnly ?? false,
    from: body.ConfigFrom?.Network ?? "",
    warning:
      named === undefined
        ? ""
        : `The option ${bridgeName} has no effect: networks of a node are routed, without a bridge`,
  };
}

function specOf(json: JsonObject, driver: string, minor: number): skep.objects.NetworkSpec.$Properties {
  const { Driver: _driver, ConfigFrom, IPAM, Options, ...rest } = json;
  const spec = fromApi("NetworkSpec", { ...rest, ...(IPAM === null ? {} : { IPAM }) }, minor);
  const options = fromApi("Driver", { Options: Options ?? {} }, minor) as skep.objects.Driver.$Properties;
  return {
    ...(spec as skep.objects.NetworkSpec.$Properties),
    driver: { name: driver, options: options.options ?? {} },
    configFrom: (ConfigFrom as Body["ConfigFrom"])?.Network ?? "",
    scope: "swarm",
  };
}
