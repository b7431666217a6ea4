/**
 * HTTP kernel: what is the same for every route of the API: versions, headers, errors, JSON with exact integers, filters,
 * bounds for bodies, streams, upgraded connections.
 * Uses: lib.   Used by: the other rooms of api/.   Design: docs/design/api.md
 */
export { BadRequest, NotOffered, PageNotFound } from "./errors.ts";
export { jsonBytesMax, readText } from "./body.ts";
export { formatJson, type Json, type JsonObject } from "./json.ts";
export { Query, type Filters } from "./query.ts";
export type { Answer, Call, Outgoing, Route, UpgradeCall, UpgradeRoute } from "./routes.ts";
export { HttpServer, type HttpOptions, type Listen } from "./server.ts";
export { newestMinor, oldestMinor } from "./version.ts";
