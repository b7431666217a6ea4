/** The networks that every node has; their records are shown by api/swarm, beside those of the swarm. */
import { createHash } from "node:crypto";

import { NotOffered } from "../http/index.ts";
import { empty, type Call, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import { NetworkNotFound } from "./errors.ts";

/** By name; the same on every node and every start. */
export const networkIds: Readonly<Record<string, string>> = Object.fromEntries(
  ["bridge", "host", "none"].map((name) => [name, createHash("sha256").update(`network ${name}`).digest("hex")]),
);

export function connectRoutes(context: LocalContext): LocalRoute[] {
  const check = async (call: Call): Promise<void> => {
    const reference = call.params["id"] ?? "";
    const known = Object.entries(networkIds).some(([name, id]) => name === reference || id === reference);
    if (!known) throw new NetworkNotFound(reference);
    const container = (await call.json())["Container"];
    context.local.containers.get(typeof container === "string" ? container : "");
  };
  return [
    {
      method: "POST",
      path: "/networks/:id/connect",
      handle: async (call) => {
        await check(call);
        throw new NotOffered("connecting a container to a network after its creation");
      },
    },
    {
      method: "POST",
      path: "/networks/:id/disconnect",
      handle: async (call) => {
        // From a network that it is not in: the Engine takes that, too.
        await check(call);
        return empty(200);
      },
    },
  ];
}
