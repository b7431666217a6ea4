/**
 * Which room may import which (docs/architecture.md).
 * lib < proto < rooms of manager/ or worker/ < manager.ts, worker.ts < api < daemon; cli and web know only lib and the
 * HTTP API; test/ may use everything and nothing uses test/.
 */
const tests = "(^test/|\\.test\\.ts$|/testing/|^proto/generate\\.mjs$)";
const forbid = (name, comment, from, to) => ({ name, comment, severity: "error", from, to });

/** @type {import("dependency-cruiser").IConfiguration} */
export default {
  forbidden: [
    forbid("no-circular", "A cycle has no first page to read.", {}, { circular: true }),
    forbid("not-to-unresolvable", "The import does not exist.", {}, { couldNotResolve: true }),
    forbid(
      "not-to-dev-dependency",
      "What runs in production must not need a development package.",
      { path: "^(lib|proto|manager|worker|api|daemon|cli)/", pathNot: tests },
      { dependencyTypes: ["npm-dev"] },
    ),
    forbid(
      "nothing-uses-test",
      "test/ may use everything; nothing uses test/.",
      { pathNot: tests },
      { path: "^test/" },
    ),
    forbid(
      "lib-is-the-floor",
      "lib imports nothing of ours.",
      { path: "^lib/", pathNot: tests },
      { path: "^(proto|manager|worker|api|daemon|cli|web|deploy)/" },
    ),
    forbid(
      "lib-pure-is-pure",
      "lib/pure has no I/O.",
      { path: "^lib/pure/", pathNot: tests },
      { pathNot: "^lib/pure/" },
    ),
    forbid(
      "proto-knows-lib-only",
      "proto imports lib only.",
      { path: "^proto/", pathNot: tests },
      { path: "^(manager|worker|api|daemon|cli|web|deploy)/" },
    ),
    forbid(
      "manager-not-worker",
      "manager and worker meet on the wire, never in memory.",
      { path: "^manager/", pathNot: tests },
      { path: "^(worker|api|daemon|cli|web|deploy)/" },
    ),
    forbid(
      "worker-not-manager",
      "manager and worker meet on the wire, never in memory.",
      { path: "^worker/", pathNot: tests },
      { path: "^(manager|api|daemon|cli|web|deploy)/" },
    ),
    forbid(
      "api-below-daemon",
      "api does not know daemon.",
      { path: "^api/", pathNot: tests },
      { path: "^(daemon|cli|web|deploy)/" },
    ),
    forbid(
      "cli-is-a-client",
      "cli and web use lib and the HTTP API, as any client would.",
      { path: "^(cli|web)/", pathNot: tests },
      { path: "^(proto|manager|worker|api|daemon|deploy)/" },
    ),
    forbid(
      "raft-knows-bytes-only",
      "raft replicates bytes and does not know objects.",
      { path: "^manager/raft/", pathNot: tests },
      { path: "^(manager/(?!raft/)|proto/(?!raft|gen|index))" },
    ),
    forbid(
      "store-does-not-know-raft",
      "the store is handed a log; it does not know raft.",
      { path: "^manager/store/", pathNot: tests },
      { path: "^manager/(?!store/)" },
    ),
    forbid(
      "manager-rooms-meet-in-the-store",
      "manager rooms meet in the store and nowhere else.",
      { path: "^manager/([^/]+)/", pathNot: tests },
      { path: "^manager/[^/]+/", pathNot: "^manager/($1|store)/" },
    ),
    forbid(
      "rooms-have-one-door",
      "Another room is entered by its index.ts.",
      { path: "^(manager|worker)/([^/]+)/", pathNot: tests },
      { path: "^(manager|worker)/[^/]+/.+", pathNot: ["^$1/$2/", "^(manager|worker)/[^/]+/(index|core/index)\\.ts$"] },
    ),
    forbid(
      "core-is-pure",
      "a core imports only cores, lib/pure and proto.",
      { path: "/core/", pathNot: tests },
      { pathNot: "(/core/|^lib/pure/|^proto/)" },
    ),
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    exclude: { path: "^(node_modules|build|proto/gen|native)/" },
    parser: "swc",
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: [".ts", ".mjs", ".js"] },
  },
};
