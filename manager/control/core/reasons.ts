/** A typed cause (objects.Reason) as a sentence, with what would change it. */
import { skep } from "../../../proto/index.ts";

type Reason = skep.objects.Reason.$Properties;

/** How objects are called for people. */
export interface Names {
  readonly node: (id: string) => string;
  readonly network: (id: string) => string;
  readonly nowUs: number;
}

export interface Explanation {
  readonly cause: string;
  readonly summary: string;
  readonly fix: string;
  readonly facts: Readonly<Record<string, string>>;
}

const { PortProtocol } = skep.objects;

/** Undefined for a reason of a newer release. */
export function explain(reason: Reason, names: Names): Explanation | undefined {
  if (reason.noSuitableNode != null) return noSuitableNode(reason.noSuitableNode, names);
  if (reason.addressPoolFull != null) {
    const { networkId, subnet, size, used } = reason.addressPoolFull;
    const network = names.network(networkId ?? "");
    return {
      cause: "address_pool_full",
      summary: `no address is free in network ${network}: ${used ?? 0} of ${size ?? 0} of ${subnet ?? ""} are taken`,
      fix: `Remove tasks or services from ${network}, or use a network with a larger subnet`,
      facts: { network, subnet: subnet ?? "", size: String(size ?? 0), used: String(used ?? 0) },
    };
  }
  if (reason.restartDelay != null) {
    const { untilUs, attempt, attemptsMax } = reason.restartDelay;
    const left = secondsLeft(untilUs ?? 0, names.nowUs);
    const of = (attemptsMax ?? 0) > 0 ? ` of ${attemptsMax}` : "";
    return {
      cause: "restart_delay",
      summary: `its predecessor ended; it starts in ${left} s (attempt ${attempt ?? 0}${of})`,
      fix: "See why the predecessor ended, or shorten the restart delay",
      facts: {
        seconds_left: String(left),
        attempt: String(attempt ?? 0),
        ...(of === "" ? {} : { attempts_max: String(attemptsMax ?? 0) }),
      },
    };
  }
  if (reason.waitingForOldTask != null) {
    const { taskId, untilUs } = reason.waitingForOldTask;
    if ((untilUs ?? 0) === 0) {
      return {
        cause: "waiting_for_old_task",
        summary: `it is prepared while task ${taskId ?? ""} still runs, which is stopped once it is ready`,
        fix: "",
        facts: { task: taskId ?? "" },
      };
    }
    const left = secondsLeft(untilUs ?? 0, names.nowUs);
    return {
      cause: "waiting_for_old_task",
      summary: `it waits until task ${taskId ?? ""} has stopped, for ${left} s at most`,
      fix: "A shorter stop grace period makes old tasks stop sooner",
      facts: { task: taskId ?? "", seconds_left: String(left) },
    };
  }
  if (reason.pulling != null) {
    const { image, bytesDone, bytesTotal } = reason.pulling;
    return {
      cause: "pulling",
      summary: `its node pulls the image ${image ?? ""}${progress(bytesDone ?? 0, bytesTotal ?? 0)}`,
      fix: "",
      facts: { image: image ?? "", bytes_done: String(bytesDone ?? 0), bytes_total: String(bytesTotal ?? 0) },
    };
  }
  if (reason.unhealthy != null) {
    const { failingStreak, exitCode, output } = reason.unhealthy;
    return {
      cause: "unhealthy",
      summary: `its health check failed ${failingStreak ?? 0} times, last with exit code ${exitCode ?? 0}`,
      fix: "See the output of the check; a longer start period gives a slow start more time",
      facts: {
        failing_streak: String(failingStreak ?? 0),
        exit_code: String(exitCode ?? 0),
        output: (output ?? "").slice(0, 4096),
      },
    };
  }
  if (reason.portInUse != null) {
    const { port, usedBy } = reason.portInUse;
    const text = `${port?.publishedPort ?? 0}/${(PortProtocol[port?.protocol ?? 0] ?? "TCP").toLowerCase()}`;
    return {
      cause: "port_in_use",
      summary: `port ${text} is taken${(usedBy ?? "") === "" ? "" : ` by ${usedBy}`}`,
      fix: "Publish another port, or none to have one chosen",
      facts: { port: text, used_by: usedBy ?? "" },
    };
  }
  if (reason.networkNotReady != null) {
    const { networkId, detail } = reason.networkNotReady;
    const network = names.network(networkId ?? "");
    return {
      cause: "network_not_ready",
      summary: `network ${network} is not ready: ${detail ?? ""}`,
      fix: "",
      facts: { network, detail: detail ?? "" },
    };
  }
  if (reason.volumeNotReady != null) {
    const { volumeId, detail } = reason.volumeNotReady;
    return {
      cause: "volume_not_ready",
      summary: `volume ${volumeId ?? ""} is not ready: ${detail ?? ""}`,
      fix: "",
      facts: { volume: volumeId ?? "", detail: detail ?? "" },
    };
  }
  if (reason.failure != null) {
    const { code, detail, fix, exitCode, oomKilled } = reason.failure;
    return {
      cause: "failure",
      summary: oomKilled === true ? `it was killed for lack of memory: ${detail ?? ""}` : (detail ?? ""),
      fix: fix || (oomKilled === true ? "Raise the memory limit" : ""),
      facts: { code: code ?? "", exit_code: String(exitCode ?? 0), oom_killed: String(oomKilled ?? false) },
    };
  }
  if (reason.nodeLost != null) {
    const { nodeId, lastSeenUs } = reason.nodeLost;
    const node = names.node(nodeId ?? "");
    return {
      cause: "node_lost",
      summary: `nothing is heard of its node ${node}`,
      fix: `Bring ${node} back; the task is replaced elsewhere meanwhile`,
      facts: { node, last_seen_us: String(lastSeenUs ?? 0) },
    };
  }
  if (reason.dependencyMissing != null) {
    const { kind, reference } = reason.dependencyMissing;
    return {
      cause: "dependency_missing",
      summary: `${kind ?? "an object"} ${reference ?? ""} that it needs is not there`,
      fix: `Create it, or update the service to do without`,
      facts: { kind: kind ?? "", reference: reference ?? "" },
    };
  }
  return undefined;
}

function noSuitableNode(
  { nodes, refusals, nearestNodeId, nearestMiss, nearestFix }: skep.objects.NoSuitableNode.$Properties,
  names: Names,
): Explanation {
  const counts = (refusals ?? []).map(({ filter, nodes: count, detail }) => {
    const one = (detail ?? "") === "" ? "" : ` (${detail})`;
    return `${filter ?? ""}: ${count ?? 0}${one}`;
  });
  const facts: Record<string, string> = { nodes: String(nodes ?? 0) };
  for (const { filter, nodes: count } of refusals ?? []) facts[`refused_by_${filter ?? ""}`] = String(count ?? 0);
  const miss = (nearestMiss ?? []).join("; ");
  const nearest = (nearestNodeId ?? "") === "" ? "" : names.node(nearestNodeId ?? "");
  if (nearest !== "") facts["nearest_node"] = nearest;
  if (miss !== "") facts["nearest_miss"] = miss;
  return {
    cause: "no_suitable_node",
    summary:
      (nodes ?? 0) === 0
        ? "no node is suitable: there is none"
        : `none of ${nodes ?? 0} nodes is suitable; refused by ${counts.join(", ")}`,
    fix:
      nearest === ""
        ? "Add a node, or make the service ask for less"
        : nearestText(
            { nearest, miss, fixes: nearestFix ?? [] },
            (refusals ?? []).map(({ filter }) => filter ?? ""),
          ),
    facts,
  };
}

/** What helps where no single command does, by the filter that refused. */
const remedies: Readonly<Record<string, string>> = {
  resource:
    "Reserve less (service update --reserve-memory, --reserve-cpu, --generic-resource-rm), or add a node with more",
  maxReplicas: "Raise --replicas-max-per-node, run fewer replicas, or add nodes",
  hostPort: "Publish the port in mode ingress, run fewer replicas, or add nodes",
  platform: "Use an image that is made for the nodes' platform",
  encryption: "Use a network without encryption, or nodes whose kernel has WireGuard",
};

function nearestText(
  { nearest, miss, fixes }: { readonly nearest: string; readonly miss: string; readonly fixes: readonly string[] },
  filters: readonly string[],
): string {
  const commands = fixes.map((command) => `${command} ${nearest}`).join(", ");
  const known = filters.flatMap((filter) => remedies[filter] ?? []);
  const help = commands === "" ? known.join("; ") : `To change that: ${commands}`;
  return `${nearest} comes nearest: ${miss}${help === "" ? "" : `. ${help}`}`;
}

function progress(done: number, total: number): string {
  return total > 0 ? `, ${Math.floor((100 * done) / total)} % so far` : "";
}

/** Never negative: what is due is on its way. */
function secondsLeft(untilUs: number, nowUs: number): number {
  return Math.max(0, Math.ceil((untilUs - nowUs) / 1e6));
}
