/** Who answers here: ping, version, and the part of `GET /info` that concerns the swarm. */
import { descriptionOfSkep } from "./description.ts";
import { newestMinor, oldestMinor, type JsonObject, type Route } from "./http/index.ts";
import type { Swarm } from "./ports.ts";

export interface Release {
  /** "0.1.0" */
  readonly version: string;
  readonly gitCommit: string;
  readonly buildTime: string;
  readonly kernelVersion: string;
  /** As Go calls it: "amd64". */
  readonly architecture: string;
}

const notCached = { "cache-control": "no-cache, no-store, must-revalidate", pragma: "no-cache" };

export function systemRoutes(swarm: Swarm, release: Release): readonly Route[] {
  const ping = { "content-type": "text/plain; charset=utf-8", ...notCached };
  return [
    {
      method: "HEAD",
      path: "/_ping",
      handle: () => ({ headers: { ...ping, swarm: standing(swarm), "content-length": "0" } }),
    },
    { method: "GET", path: "/_ping", handle: () => ({ text: "OK", headers: { ...ping, swarm: standing(swarm) } }) },
    {
      method: "GET",
      path: "/skep/v1/openapi.yaml",
      handle: () => ({ text: descriptionOfSkep(), headers: { "content-type": "application/yaml" } }),
    },
    { method: "GET", path: "/version", handle: () => ({ json: versionOf(release) }) },
  ];
}

/** "active/manager" and so on. */
function standing(swarm: Swarm): string {
  const { state, manager } = swarm.state();
  return state === "active" ? `active/${manager ? "manager" : "worker"}` : state;
}

function versionOf(release: Release): JsonObject {
  const common = {
    ApiVersion: `1.${newestMinor}`,
    MinAPIVersion: `1.${oldestMinor}`,
    GitCommit: release.gitCommit,
    GoVersion: `node-${process.versions.node}`,
    Os: "linux",
    Arch: release.architecture,
    KernelVersion: release.kernelVersion,
    BuildTime: release.buildTime,
  };
  return {
    Platform: { Name: "skep" },
    Components: [{ Name: "Engine", Version: release.version, Details: { ...common, Experimental: "false" } }],
    Version: release.version,
    ...common,
    Experimental: false,
  };
}
