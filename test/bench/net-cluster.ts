/**
 * W9: five daemons in a swarm, three of them managers. A service with a published port goes from no task to one; from the
 * moment that its node says RUNNING until each of the five hosts has the port answered, as processes of those hosts see it.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { imageArchive } from "../../deploy/quickstart/image.ts";
import { run as execute } from "../conformance/network/world.ts";
import { until, type Versioned } from "./engine.ts";
import { median, quantile, type BenchOptions, type Report } from "./report.ts";
import { buildAll, form, SkepSwarm } from "./swarms.ts";

const published = 8080;
const limitMs = 200;

interface StartedTask {
  readonly DesiredState: string;
  readonly Status: { readonly State: string; readonly Timestamp: string };
}

/** Asks one host's published port again and again: first refused, then answered. */
class Watcher {
  readonly #lines: string[] = [];
  readonly #ended: Promise<void>;

  constructor(host: Host, program: string) {
    const [command, args] = host.command([program, "await", "127.0.0.1", String(published), "60"]);
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (text: string) => this.#lines.push(...text.split("\n").filter((line) => line !== "")));
    this.#ended = new Promise((resolve) => child.once("close", () => resolve()));
  }

  get isRefused(): boolean {
    return this.#lines[0] === "refused";
  }

  /** @returns when it was first answered, in ms since 1970 */
  async answered(): Promise<number> {
    await this.#ended;
    const line = this.#lines[1];
    if (line === undefined) throw new Error("a published port was not answered on every host");
    return Number(line) / 1000;
  }
}

export async function run({ rounds, quick }: BenchOptions, report: Report): Promise<void> {
  buildAll();
  const folder = mkdtempSync(join(tmpdir(), "skepnc-"));
  const swarm = await SkepSwarm.open("skepnc", 5);
  try {
    const program = join(folder, "net-load");
    execute(["cc", "-O2", "-static", "-o", program, join(import.meta.dirname, "net-load.c")]);
    const image = await imageArchive({
      name: "load:1",
      command: ["/bin/net-load", "serve", "7000"],
      labels: {},
      files: { "/bin/net-load": readFileSync(program) },
      platform: process.arch === "arm64" ? "arm64" : "amd64",
    });
    await form(swarm, 3, [image], 5);
    const took: number[] = [];
    const first = swarm.hosts[0] as Host;
    const engine = swarm.engine(first);
    const { ID: id } = await engine.done<{ ID: string }>("POST", "/services/create", {
      Name: "load",
      TaskTemplate: { ContainerSpec: { Image: "load:1", StopSignal: "SIGKILL" } },
      Mode: { Replicated: { Replicas: 0 } },
      EndpointSpec: { Ports: [{ Protocol: "tcp", TargetPort: 7000, PublishedPort: published }] },
    });
    const scale = async (replicas: number): Promise<void> => {
      const { Version, Spec } = await engine.done<Versioned>("GET", `/services/${id}`);
      const spec = { ...Spec, Mode: { Replicated: { Replicas: replicas } } };
      await engine.done("POST", `/services/${id}/update?version=${Version.Index}`, spec);
    };
    const running = async (): Promise<readonly StartedTask[]> => {
      const tasks = (await engine.tasks(id)) as readonly unknown[] as readonly StartedTask[];
      return tasks.filter(({ DesiredState, Status }) => DesiredState === "running" && Status.State === "running");
    };
    for (let round = 0; round < (quick ? 1 : rounds * 5); round += 1) {
      const watchers = swarm.hosts.map((host) => new Watcher(host, program));
      await until("every host to refuse", async () => watchers.every(({ isRefused }) => isRefused));
      await scale(1);
      const answeredMs = await Promise.all(watchers.map((watcher) => watcher.answered()));
      await until("the task to be shown", async () => (await running()).length === 1);
      const [task] = (await running()) as [StartedTask];
      took.push(Math.max(...answeredMs) - Date.parse(task.Status.Timestamp));
      await scale(0);
      await until("the task to go", async () =>
        (await engine.tasks(id)).every(({ Status }) => Status.State !== "running"),
      );
    }
    const ours = median(took);
    report.note(
      `net: W9 ${took.map((ms) => ms.toFixed(0)).join(", ")} ms; the slowest tenth ${quantile(took, 0.9).toFixed(0)}`,
    );
    report.add({
      name: "W9 from RUNNING until five hosts route to it",
      unit: "ms",
      ours,
      peer: undefined,
      ratio: undefined,
      gate: `<= ${limitMs}`,
      pass: ours <= limitMs,
    });
  } finally {
    await swarm.close();
    rmSync(folder, { recursive: true, force: true });
  }
}
