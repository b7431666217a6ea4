/**
 * Swarm routes: the objects of the cluster in the form of the Engine API, over the manager of this node.
 * mapper, names, objects   messages to JSON and back     client   control of the manager
 * Uses: proto, lib/rpc, api/http.   Used by: api/index.ts.   Design: docs/design/api.md
 */
import type { Route } from "../http/index.ts";
import type { Swarm } from "../ports.ts";
import type { ControlClient } from "./client.ts";
import { dataRoutes } from "./data.ts";
import { logRoutes } from "./logs.ts";
import { nodeRoutes } from "./nodes.ts";
import { serviceRoutes } from "./services.ts";
import { swarmRoutes } from "./swarm.ts";
import { whyRoutes } from "./why.ts";

export { ControlClient } from "./client.ts";
export { SwarmEvents, type SwarmEvent } from "./events.ts";
export { swarmInfo } from "./info.ts";

export function routesOfSwarm(swarm: Swarm, control: ControlClient): readonly Route[] {
  return [
    ...swarmRoutes(swarm, control),
    ...nodeRoutes(control),
    ...serviceRoutes(control),
    ...dataRoutes(control),
    ...logRoutes(control),
    ...whyRoutes(control),
  ];
}
