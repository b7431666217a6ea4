/**
 * Networks: one list of the swarm's networks and this node's, as clients know it; containers are put on them and taken off.
 * shown   records as JSON, look-up, filters     create, connect   what is asked for     verbose   who is on a network
 * Uses: worker/container-networks, control of the manager, api/http.   Used by: api/index.ts.   Design: docs/design/api.md
 */
export { networkRoutes } from "./routes.ts";
export type { NodeSide } from "./shown.ts";
