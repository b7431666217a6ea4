/**
 * Control: what the API may do to the objects. The only door for changes that people ask for.
 * In:    requests of proto/control.proto, from the node's own daemon and from other managers.
 * Out:   objects created, changed and removed, with every field, reference, name and version checked; lists, watches,
 *        logs (which another room fetches), and why something is not as its spec says.
 * core/  rules for specs. Pure.
 * Uses:  store, proto, lib.   Used by: manager.ts, leader-calls.ts.   Design: docs/design/control.md
 */
export { Control, type ControlOptions } from "./control.ts";
export { NoLeader } from "./core/errors.ts";
export type { ListFacts } from "./list.ts";
export type { Leader, LogSource } from "./ports.ts";
export { serveControl, type ControlService } from "./serve.ts";
