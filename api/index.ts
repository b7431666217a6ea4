/**
 * API: the HTTP API of a node, Engine API 1.50 and /skep/v1, on a unix socket and, with certificates of both sides, on TCP.
 * http/    what is the same for every route     swarm/     objects of the cluster, over the manager of this node
 * local/   what runs on this node                networks/  networks of both
 * Uses: worker, manager's control by proto/control.proto, lib.   Used by: daemon.   Design: docs/design/api.md
 */
import type { Clock, Logger } from "../lib/runtime/index.ts";
import { HttpServer, type Listen, type Route, type UpgradeRoute } from "./http/index.ts";
import { networkRoutes, type NodeSide } from "./networks/index.ts";
import type { Swarm } from "./ports.ts";
import { ControlClient, SwarmEvents, routesOfSwarm, swarmInfo, type SwarmEvent } from "./swarm/index.ts";
import { systemRoutes, type Release } from "./system.ts";

export type { Listen } from "./http/index.ts";
export type { SwarmEvent } from "./swarm/index.ts";
export type { Release } from "./system.ts";

export interface ApiOptions {
  readonly swarm: Swarm;
  readonly release: Release;
  /** `GET /info` without its member `Swarm`. */
  readonly info: () => Promise<Readonly<Record<string, unknown>>>;
  /** For networks; absent: the daemon runs no containers. */
  readonly node?: NodeSide;
  /** Of what runs on this node. */
  readonly routes: readonly Route[];
  readonly upgrades: readonly UpgradeRoute[];
  /** Takes the swarm's events among the node's own, for `GET /events`. */
  readonly emit: (event: SwarmEvent) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class Api implements AsyncDisposable {
  readonly #server: HttpServer;
  readonly #events: SwarmEvents;

  private constructor(server: HttpServer, events: SwarmEvents) {
    this.#server = server;
    this.#events = events;
  }

  /** Ready to listen. */
  static async open(options: ApiOptions): Promise<Api> {
    const { swarm, release, logger, clock, emit, info } = options;
    const control = new ControlClient(swarm);
    const infoRoute: Route = {
      method: "GET",
      path: "/info",
      handle: async ({ signal }) => {
        const [local, part] = await Promise.all([info(), swarmInfo(swarm, control, signal)]);
        return { json: { ...local, Swarm: part } };
      },
    };
    const server = new HttpServer({
      routes: [
        ...systemRoutes(swarm, release),
        infoRoute,
        ...routesOfSwarm(swarm, control),
        ...networkRoutes(control, options.node, clock),
        ...options.routes,
      ],
      upgrades: options.upgrades,
      logger,
      release: release.version,
    });
    const events = new SwarmEvents({ swarm, control, emit, clock, logger });
    events.start();
    return new Api(server, events);
  }

  /** @returns the port, or 0 for a socket */
  listen(where: Listen): Promise<number> {
    return this.#server.listen(where);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#events[Symbol.asyncDispose]();
    await this.#server[Symbol.asyncDispose]();
  }
}
