/**
 * API: the HTTP API of a node, Engine API 1.50 and /skep/v1, on a unix socket and, with certificates of both sides, on TCP.
 * http/    what is the same for every route     swarm/   objects of the cluster, over the manager of this node
 * Uses: worker, manager's control by proto/control.proto, lib.   Used by: daemon.   Design: docs/design/api.md
 */
import type { Logger } from "../lib/runtime/index.ts";
import { HttpServer, type Route, type UpgradeRoute } from "./http/index.ts";
import type { Swarm } from "./ports.ts";
import { ControlClient, routesOfSwarm } from "./swarm/index.ts";
import { swarmPart, systemRoutes, type Release } from "./system.ts";

export type { Listen } from "./http/index.ts";
export type { Release } from "./system.ts";

export interface ApiOptions {
  readonly swarm: Swarm;
  readonly release: Release;
  readonly logger: Logger;
  /** Routes of what runs on this node. */
  readonly routes?: readonly Route[];
  readonly upgrades?: readonly UpgradeRoute[];
  /** `GET /info` without its member `Swarm`. */
  readonly info: () => Promise<Readonly<Record<string, unknown>>>;
}

/** Ready to listen. */
export function openApi(options: ApiOptions): Promise<HttpServer> {
  const { swarm, release, logger, info } = options;
  const control = new ControlClient(swarm);
  const infoRoute: Route = {
    method: "GET",
    path: "/info",
    handle: async ({ signal }) => {
      const [local, Swarm] = await Promise.all([info(), swarmPart(swarm, control, signal)]);
      return { json: { ...local, Swarm } };
    },
  };
  return HttpServer.open({
    routes: [...systemRoutes(swarm, release), infoRoute, ...routesOfSwarm(swarm, control), ...(options.routes ?? [])],
    upgrades: options.upgrades ?? [],
    logger,
    release: release.version,
  });
}
