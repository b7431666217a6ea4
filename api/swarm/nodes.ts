/** Nodes. */
import type { skep } from "../../proto/index.ts";
import { BadRequest, type Route } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { fromApi } from "./mapper.ts";
import { nodeToApi } from "./objects.ts";

const filterKeys = ["id", "label", "membership", "name", "node.label", "role"];
const memberships = new Set(["accepted", "pending"]);
const roles = new Set(["manager", "worker"]);

export function nodeRoutes(control: ControlClient): readonly Route[] {
  return [
    {
      method: "GET",
      path: "/nodes",
      handle: async ({ query, signal }) => {
        const filters = query.filters(filterKeys);
        check("role", filters.get("role"), roles);
        check("membership", filters.get("membership"), memberships);
        const { objects } = await control.list(ObjectKind.NODE, filters, signal);
        return { json: objects.map(({ node }) => nodeToApi(node ?? {})) };
      },
    },
    {
      method: "GET",
      path: "/nodes/:id",
      handle: async ({ params, signal }) => {
        const { node } = await control.get(ObjectKind.NODE, params["id"] ?? "", signal);
        return { json: nodeToApi(node ?? {}) };
      },
    },
    {
      method: "POST",
      path: "/nodes/:id/update",
      handle: async (call) => {
        const version = call.query.version("node");
        // A role that is not said would demote the node.
        const body = { Role: "", Availability: "", ...(await call.json()) };
        const node = fromApi("NodeSpec", body, call.minor) as skep.objects.NodeSpec.$Properties;
        await control.update(
          { kind: ObjectKind.NODE, reference: call.params["id"] ?? "", version, spec: { node } },
          call.signal,
        );
        return {};
      },
    },
    {
      method: "DELETE",
      path: "/nodes/:id",
      handle: async ({ params, query, signal }) => {
        await control.remove(ObjectKind.NODE, params["id"] ?? "", signal, query.bool("force"));
        return {};
      },
    },
  ];
}

function check(key: string, values: readonly string[] | undefined, known: ReadonlySet<string>): void {
  for (const value of values ?? []) {
    if (!known.has(value)) {
      throw new BadRequest(`Invalid ${key} filter: '${value.slice(0, 64)}'`, `Use ${[...known].join(" or ")}`);
    }
  }
}
