/**
 * How long it takes from a task turning healthy until every host routes to it: through the mesh of every host, asked by a
 * machine outside, and by the service's address, asked by a container on every host. Both are measured in the kernel's way:
 * a port that nobody serves refuses at once, so it is asked again and again until somebody answers.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { healthcheck } from "./web.ts";
import { ask, type World } from "./world.ts";

export interface RoutedOptions {
  readonly world: World;
  readonly manager: Host;
  /** Of the machine outside, a file. */
  readonly outside: string;
  /** net-probe on this machine; `web:1` is on the hosts. */
  readonly probe: string;
  readonly networkId: string;
  /** A namespace of a container of that network on each host, a file. */
  readonly containers: readonly string[];
  readonly publishedPort: number;
}

/** In ms after the health check ended that found it healthy, by whoever asked, in the order of the hosts. */
export interface Routed {
  readonly mesh: readonly number[];
  readonly vip: readonly number[];
}

const service = "routed";
const patienceMs = 60_000;

/** One service of one task, scaled to one and back to none, `rounds` times. */
export async function healthyToRouted(options: RoutedOptions, rounds: number): Promise<readonly Routed[]> {
  const { world, manager, networkId, publishedPort } = options;
  const id = await world.create(manager, service, 0, {
    TaskTemplate: {
      ContainerSpec: { Image: "web:1", StopGracePeriod: 1_000_000_000, Healthcheck: healthcheck },
      Networks: [{ Target: networkId }],
    },
    EndpointSpec: { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: publishedPort }] },
  });
  try {
    const vip = await addressOf(options, id);
    const outcomes: Routed[] = [];
    for (let round = 0; round < rounds; round += 1) outcomes.push(await once(options, id, vip));
    return outcomes;
  } finally {
    await ask(manager, "DELETE", `/services/${id}`);
  }
}

async function addressOf({ world, manager, networkId }: RoutedOptions, id: string): Promise<string> {
  let found = "";
  await world.until("the service's address", patienceMs, async () => {
    const { body } = await ask<{ Endpoint?: { VirtualIPs?: { NetworkID: string; Addr: string }[] } }>(
      manager,
      "GET",
      `/services/${id}`,
    );
    const addresses = body.Endpoint?.VirtualIPs ?? [];
    found = addresses.find(({ NetworkID }) => NetworkID === networkId)?.Addr.split("/")[0] ?? "";
    return found !== "";
  });
  return found;
}

async function once(options: RoutedOptions, id: string, vip: string): Promise<Routed> {
  const { world, manager, outside, probe, containers, publishedPort } = options;
  const over = new AbortController();
  const answered = (namespace: string, address: string, port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      const words = [`--net=${namespace}`, "--", probe, "first", address, String(port)];
      execFile("nsenter", words, { timeout: patienceMs, signal: over.signal }, (error, stdout) =>
        error === null ? resolve(Number.parseFloat(stdout)) : reject(error),
      );
    });
  const mesh = Promise.all(world.hosts.map(({ address }) => answered(outside, address, publishedPort)));
  const east = Promise.all(containers.map((namespace) => answered(namespace, vip, 80)));
  try {
    await scale(options, id, 1);
    const [meshMs, vipMs] = await Promise.all([mesh, east]);
    const healthyMs = await healthySince(options);
    const since = (atMs: number): number => atMs - healthyMs;
    return { mesh: meshMs.map(since), vip: vipMs.map(since) };
  } finally {
    over.abort();
    await Promise.allSettled([mesh, east]);
    await scale(options, id, 0);
    await world.until("the task to be gone", patienceMs, async () => {
      const tasks = await world.tasks(manager, service);
      return tasks.every(({ Status }) => Status.State !== "running");
    });
  }
}

async function scale({ world, manager }: RoutedOptions, id: string, replicas: number): Promise<void> {
  await world.update(manager, id, (spec) => (spec["Mode"] = { Replicated: { Replicas: replicas } }));
}

interface Inspected {
  readonly State: { readonly Health?: { readonly Log?: readonly { ExitCode: number; End: string }[] } };
}

/** The end of the first check that found it so, as its node has it. */
async function healthySince({ world, manager }: RoutedOptions): Promise<number> {
  let healthyMs = Number.NaN;
  await world.until("the health of the task", patienceMs, async () => {
    const [task] = await world.running(manager, service);
    const status = task?.Status.ContainerStatus as { readonly ContainerID?: string } | undefined;
    for (const host of world.hosts) {
      if ((await world.nodeIdOf(host)) !== task?.NodeID) continue;
      const { body } = await ask<Inspected>(host, "GET", `/containers/${status?.ContainerID ?? ""}/json`);
      const passed = body.State.Health?.Log?.find(({ ExitCode }) => ExitCode === 0);
      healthyMs = Date.parse(passed?.End ?? "");
    }
    return Number.isFinite(healthyMs);
  });
  assert.ok(healthyMs > 0);
  return healthyMs;
}
