/**
 * The Engine API over what runs on this node: containers, exec sessions, images, volumes, events, the engine.
 * In:    requests from the HTTP kernel.   Out: answers and streams in the shapes of the Engine API 1.50.
 * core/  records as JSON, texts, filters, Dockerfile changes. Pure.
 * Uses:  api/http, the worker's rooms.   Used by: daemon.   Design: docs/design/api-local.md
 */
import type { Route, UpgradeRoute } from "../http/index.ts";
import { containerStreamRoutes } from "./container-streams.ts";
import { containerRoutes } from "./containers.ts";
import type { LocalContext } from "./context.ts";
import { eventRoutes } from "./event-routes.ts";
import { execRoutes } from "./exec.ts";
import { imageRoutes } from "./images.ts";
import { toKernel } from "./kernel.ts";
import { systemRoutes } from "./system.ts";
import { volumeRoutes } from "./volumes.ts";

export type { EngineFacts, LocalContext } from "./context.ts";
export { LocalEvents, type EngineEvent } from "./events.ts";
export { engineInfo } from "./system.ts";

/** All routes of this room. */
export function localRoutes(context: LocalContext): { routes: Route[]; upgrades: UpgradeRoute[] } {
  return toKernel([
    ...containerRoutes(context),
    ...containerStreamRoutes(context),
    ...execRoutes(context),
    ...imageRoutes(context),
    ...volumeRoutes(context),
    ...eventRoutes(context),
    ...systemRoutes(context),
  ]);
}
