/**
 * The docker CLI 28 and skep beside each other: the same command, the same answers, the same output and requests. Lists
 * and pretty printing are compared on the recorded answers, updates of a service flag by flag on a full specification.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { readRecording, RecordedServer, type RecordedRequest } from "../../support/recorded-server.ts";
import { runDocker, runSkep, type Outcome } from "../../support/run-cli.ts";

const folder = join(import.meta.dirname, "../api/recorded");
const skip = missing();

function missing(): string | false {
  try {
    const version = execFileSync("docker", ["--version"], { encoding: "utf8" });
    return /version 28\./.test(version) ? false : `the docker CLI is not 28: ${version.trim()}`;
  } catch {
    return "no docker CLI";
  }
}

/** Recordings whose output both must print alike. */
const printed: Readonly<Record<string, readonly string[]>> = {
  "config-inspect-pretty": ["config", "inspect", "--pretty", "cfg1"],
  "config-ls": ["config", "ls"],
  "container-ps": ["ps"],
  "container-ps-a": ["ps", "-a", "--no-trunc", "-s", "-n", "2"],
  "container-stats": ["stats", "--no-stream", "cl", "c1"],
  "container-top": ["top", "cl"],
  "image-history": ["history", "bb:1"],
  "image-ls": ["images"],
  "image-ls-all": [
    "images",
    "-a",
    "--digests",
    "--no-trunc",
    "--filter",
    "dangling=false",
    "--filter",
    "reference=bb:*",
  ],
  "network-ls": ["network", "ls"],
  "node-inspect-pretty": ["node", "inspect", "--pretty", "self"],
  "node-ls": ["node", "ls"],
  "node-ls-filter2": ["node", "ls", "--filter", "name=v", "--filter", "label=a", "--format", "{{json .}}"],
  "secret-inspect-pretty": ["secret", "inspect", "--pretty", "sec1"],
  "secret-ls": ["secret", "ls"],
  "service-inspect-pretty": ["service", "inspect", "--pretty", "full"],
  "service-ls": ["service", "ls"],
  "service-ps": ["service", "ps", "web"],
  "stack-ls": ["stack", "ls"],
  "stack-services": ["stack", "services", "st"],
  "swarm-unlock-key": ["swarm", "unlock-key"],
  "swarm-join-token-worker": ["swarm", "join-token", "worker"],
  "system-df": ["system", "df"],
  "volume-ls": ["volume", "ls"],
};

const ours = (text: string): string => text.replaceAll("docker", "skep").replaceAll("Docker", "skep").trimEnd();

for (const [name, words] of Object.entries(printed)) {
  test(`prints as docker does: ${words.join(" ")}`, { skip }, async () => {
    const { requests } = readRecording(folder, name);
    // Ages grow while both print: what docker says alike before and after is what has to be said in between.
    for (let tries = 0; ; tries++) {
      const before = await alone(runDocker, words, requests);
      const skep = await alone(runSkep, words, requests);
      const docker = await alone(runDocker, words, requests);
      if (before.stdout !== docker.stdout && tries < 10) continue;
      assert.equal(ours(skep.stdout), ours(docker.stdout));
      assert.equal(skep.exit, docker.exit);
      return;
    }
  });
}

async function alone(
  run: typeof runSkep,
  words: readonly string[],
  requests: readonly RecordedRequest[],
): Promise<Outcome> {
  const server = await RecordedServer.start(requests);
  try {
    return await run(words, { host: server.host });
  } finally {
    await server.close();
  }
}

async function pair(words: readonly string[], requests: readonly RecordedRequest[]) {
  const [one, other] = [await RecordedServer.start(requests), await RecordedServer.start(requests)];
  try {
    const [docker, skep] = await Promise.all([
      runDocker(words, { host: one.host }),
      runSkep(words, { host: other.host }),
    ]);
    return { docker, skep, asked: one.seen, sent: other.seen };
  } finally {
    await one.close();
    await other.close();
  }
}

/** As `service-create-all` made it, with everything that an update can change. */
const spec = (readRecording(folder, "service-create-all").requests.at(-1)?.body ?? {}) as Record<string, unknown>;

// docker sorts the mounts in every update, we only in one of mounts.
const { ContainerSpec: container } = spec["TaskTemplate"] as { ContainerSpec: { Mounts: { Source?: string }[] } };
container.Mounts.sort((a, b) => ((a.Source ?? "") < (b.Source ?? "") ? -1 : 1));

const updates: readonly (readonly string[])[] = [
  ["--cap-add", "SYS_TIME", "--cap-drop", "NET_ADMIN"],
  ["--cap-add", "ALL"],
  ["--cap-add", "CHOWN"],
  ["--cap-add", "KILL", "--cap-drop", "KILL"],
  ["--cap-drop", "ALL"],
  ["--cap-drop", "RESET", "--cap-drop", "KILL"],
  ["--constraint-rm", "node.role==manager", "--constraint-add", "node.id!=x"],
  ["--container-label-add", "a=b", "--container-label-rm", "cl"],
  ["--credential-spec", "file://x"],
  ["--dns-add", "9.9.9.9", "--dns-option-rm", "ndots:2", "--dns-search-add", "a.b"],
  ["--entrypoint", "sh -c 'echo hi'", "--args", "a 'b c'"],
  ["--env-add", "A=2", "--env-rm", "B"],
  ["--generic-resource-add", "gpu=2"],
  ["--group-add", "7", "--group-rm", "1000"],
  ["--health-cmd", "false", "--health-retries", "9", "--health-interval", "1m"],
  ["--no-healthcheck"],
  ["--host-add", "h9:10.9.9.9", "--host-rm", "h1:10.1.1.1"],
  ["--hostname", "x", "--user", "u", "--workdir", "/w", "--init=false", "--tty=false", "--read-only=false"],
  ["--label-add", "x=y", "--label-rm", "sl"],
  [
    "--limit-cpu",
    "1.5",
    "--limit-memory",
    "1g",
    "--limit-pids",
    "9",
    "--reserve-cpu",
    "0.25",
    "--reserve-memory",
    "9m",
  ],
  ["--log-driver", "syslog", "--log-opt", "tag=x"],
  ["--mount-add", "type=bind,src=/a,dst=/b,ro", "--mount-rm", "/v"],
  ["--oom-score-adj", "5", "--isolation", "default", "--stop-signal", "SIGTERM", "--stop-grace-period", "1m"],
  ["--placement-pref-add", "spread=node.labels.rack", "--placement-pref-rm", "spread=node.labels.zone"],
  ["--endpoint-mode", "vip", "--publish-add", "8090:90", "--publish-add", "published=1,target=2,mode=host"],
  ["--replicas", "7", "--replicas-max-per-node", "3"],
  ["--restart-condition", "any", "--restart-delay", "1s", "--restart-max-attempts", "0", "--restart-window", "2s"],
  ["--rollback-delay", "2s", "--rollback-order", "stop-first", "--rollback-parallelism", "0"],
  ["--sysctl-add", "a=b", "--sysctl-rm", "net.core.somaxconn"],
  ["--ulimit-add", "nproc=1:2", "--ulimit-rm", "nofile"],
  ["--update-delay", "0s", "--update-failure-action", "continue", "--update-max-failure-ratio", "0.5", "--force"],
  ["--update-order", "stop-first", "--update-monitor", "9s", "--update-parallelism", "0"],
  ["--with-registry-auth"],
  ["--image", "bb:2"],
];

for (const flags of updates) {
  test(`changes a service as docker does: ${flags.join(" ")}`, { skip }, async () => {
    const requests: RecordedRequest[] = [
      {
        method: "GET",
        path: "/services/full",
        query: { insertDefaults: "false" },
        response: { body: { ID: "svc", Version: { Index: 9 }, CreatedAt: "2026-11-21T10:00:00Z", Spec: spec } },
      },
      {
        method: "POST",
        path: "/services/svc/update",
        query: { version: "9", registryAuthFrom: "spec" },
        response: { body: {} },
      },
      { method: "POST", path: "/services/svc/update", query: { version: "9" }, response: { body: {} } },
    ];
    const words = ["service", "update", "-d", "--no-resolve-image", ...flags, "full"];
    const { docker, skep, asked, sent } = await pair(words, requests);
    assert.equal(skep.exit, docker.exit, skep.stderr + docker.stderr);
    const last = (seen: typeof asked): object => {
      const { path, query, body } = seen.at(-1) ?? { path: "", query: {}, body: undefined };
      return { path, query, body };
    };
    assert.deepEqual(last(sent), last(asked));
  });
}
