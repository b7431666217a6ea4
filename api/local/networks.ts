/** What the routes of containers know of networks. */
import { createHash } from "node:crypto";

import type { ContainerRecord } from "../../worker/containers/index.ts";
import { exposedPorts, idOf, nameOf } from "../../worker/container-networks/index.ts";
import type { LocalContext } from "./context.ts";
import { labelsOf } from "./core/container-json.ts";
import type { NetworkFacts } from "./core/network-json.ts";

export const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** Of the networks that are only modes, by name: the same on every node and every start. */
export const modeNetworkIds: Readonly<Record<string, string>> = Object.fromEntries(
  ["host", "none"].map((name) => [name, sha256(`network ${name}`)]),
);

/** What is known of a container's networks now. */
export function networkFacts({ local }: LocalContext, record: ContainerRecord): NetworkFacts {
  const { networks } = local;
  return {
    sandbox: networks?.sandboxOf(record.id, labelsOf(record)["com.docker.swarm.task.id"]),
    network: (reference) => {
      const id = modeNetworkIds[reference];
      if (id !== undefined) return { id, name: reference };
      const found = networks?.find(reference);
      return found === undefined ? undefined : { id: idOf(found), name: nameOf(found) };
    },
    exposed: exposedPorts(record.config, record.image, record.hostConfig),
    digest: sha256,
  };
}
