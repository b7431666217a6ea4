/** Puts containers of this node on networks, and takes them off, while they run or not. */
import type { Container, EndpointSettings } from "../../worker/containers/index.ts";
import { sharesNetwork, wrongEndpoint } from "../../worker/container-networks/index.ts";
import { BadRequest, NotOffered, type JsonObject } from "../http/index.ts";
import { checkShape, endpointShape, fields } from "../local/shapes.ts";
import { ConnectionRefused, NetworkMissing } from "./errors.ts";
import type { NodeSide, Shown } from "./shown.ts";

const connectShape = fields({ Container: "string", EndpointConfig: endpointShape });
const disconnectShape = fields({ Container: "string", Force: "boolean" });

/** @param network  undefined: this node knows none of that name */
export async function connect(
  node: NodeSide | undefined,
  network: Shown | undefined,
  reference: string,
  json: JsonObject,
): Promise<void> {
  checkShape(json, connectShape, "ConnectRequest");
  const { Container: wanted = "", EndpointConfig } = json as {
    Container?: string;
    EndpointConfig?: EndpointSettings | null;
  };
  const container = containerOf(node, wanted);
  const settings = EndpointConfig ?? {};
  if (network === undefined) throw new NetworkMissing(reference);
  const { Name: name, Id } = network;
  if (name === "host" || name === "none") {
    throw new ConnectionRefused(
      name === "host"
        ? "container cannot be connected to host network - container must be created in host network mode"
        : "container cannot be connected to multiple networks with one of the networks in private (none) mode",
    );
  }
  if (node?.networks === undefined)
    throw new NotOffered("connecting a container to a network of a node that makes none");
  const wrong = wrongEndpoint(name, settings) ?? node.networks.wrongWish(Id, settings);
  if (wrong !== undefined) throw new BadRequest(wrong);
  await container.changeNetworks((now, { hostConfig, name: called }) => {
    const mode = hostConfig.NetworkMode ?? "none";
    if (mode === "none") {
      throw new ConnectionRefused(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode",
      );
    }
    if (sharesNetwork(mode)) {
      throw new ConnectionRefused(
        "container sharing network namespace with another container or host cannot be connected to any other network",
      );
    }
    if (Object.hasOwn(now, name) || Object.hasOwn(now, Id)) {
      throw new ConnectionRefused(`endpoint with name ${called} already exists in network ${name}`);
    }
    return { ...now, [name]: settings };
  });
}

export async function disconnect(
  node: NodeSide | undefined,
  network: Shown | undefined,
  reference: string,
  json: JsonObject,
): Promise<void> {
  checkShape(json, disconnectShape, "DisconnectRequest");
  const { Container: wanted = "", Force = false } = json as { Container?: string; Force?: boolean };
  const container = containerOf(node, wanted);
  // A network that is gone may still stand in the container's record.
  const names = network === undefined ? [reference] : [network.Name, network.Id];
  if (network?.Name === "host") {
    throw new ConnectionRefused(
      "container cannot be disconnected from host network - container must be created in host network mode",
    );
  }
  const on = Object.keys(container.record.networks ?? {}).filter((name) => names.includes(name));
  if (on.length === 0) {
    if (network === undefined) throw new NetworkMissing(reference);
    if (Force) return;
    throw new ConnectionRefused(`container ${container.record.name} is not connected to network ${network.Name}`);
  }
  await container.changeNetworks((now) =>
    Object.fromEntries(Object.entries(now).filter(([name]) => !on.includes(name))),
  );
}

function containerOf(node: NodeSide | undefined, reference: string): Container {
  if (node === undefined) throw new NotOffered("a container on a daemon that runs none");
  return node.containers.get(reference);
}
