/**
 * A real cluster for tests: `skepd` on several hosts (network namespaces), real managers, real containers. What happens is
 * awaited by asking the API, each wait with a bound; faults are processes killed and links cut.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

import { build, tearDown, type Host, type Site } from "../../deploy/quickstart/hosts.ts";
import { imageArchive } from "../../deploy/quickstart/image.ts";

const root = join(import.meta.dirname, "../..");

/** Of the daemon: a bundle (`npm run build`) where the sources take too long to be read; else these. */
const daemon = process.env["SKEP_DAEMON"] ?? join(root, "daemon/main.ts");
/** How much longer than usual everything may take: in a machine that is emulated (test/vm). */
const slowness = Number(process.env["SKEP_SLOWNESS"] ?? 1);
/** Who asks too often keeps a slow machine from what it waits for. */
const pollMs = 50 * slowness;
const answerMs = 60_000 * slowness;

/** Why these tests cannot run here, if so. */
export const hindrance =
  process.getuid?.() !== 0
    ? "hosts are network namespaces, which need root"
    : existsSync(join(root, "native/build/isolate"))
      ? false
      : "native/ is not built";

export interface Answer<T = unknown> {
  readonly status: number;
  readonly body: T;
}

export interface TaskShape {
  readonly ID: string;
  readonly NodeID: string;
  readonly Slot: number;
  readonly DesiredState: string;
  readonly Status: {
    readonly State: string;
    readonly Err?: string;
    readonly ContainerStatus?: { readonly PID: number };
  };
  readonly Spec: { readonly ContainerSpec: { readonly Image: string } };
}

export interface ServiceShape {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: Record<string, unknown> & { readonly Labels?: Record<string, string> };
  readonly UpdateStatus?: { readonly State: string };
}

interface NodeShape {
  readonly ID: string;
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability: string };
}

/** One request of the Engine API to a host's daemon. */
export function ask<T = unknown>(host: Host, method: string, path: string, body?: unknown): Promise<Answer<T>> {
  const raw = Buffer.isBuffer(body);
  const bytes = body === undefined ? undefined : raw ? body : Buffer.from(JSON.stringify(body));
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        socketPath: host.socket,
        method,
        // What is ours alone has a version of its own.
        path: path.startsWith("/skep/") ? path : `/v1.50${path}`,
        timeout: answerMs,
        headers: {
          "content-type": raw ? "application/x-tar" : "application/json",
          ...(bytes === undefined ? {} : { "content-length": bytes.length }),
        },
      },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => (text += chunk));
        response.on("end", () => {
          let found: unknown = text;
          try {
            found = text === "" ? undefined : JSON.parse(text);
          } catch {
            // Lines of progress, or plain text.
          }
          resolve({ status: response.statusCode ?? 0, body: found as T });
        });
        response.on("error", reject);
      },
    );
    asked.on("error", reject);
    asked.on("timeout", () =>
      asked.destroy(new Error(`${method} ${path} on ${host.name}: no answer in ${answerMs / 1000} s`)),
    );
    asked.end(bytes);
  });
}

export class World {
  readonly site: Site;
  readonly managers: readonly Host[];
  readonly workers: readonly Host[];

  private constructor(site: Site, hosts: readonly Host[], managers: number) {
    this.site = site;
    this.managers = hosts.slice(0, managers);
    this.workers = hosts.slice(managers);
  }

  get hosts(): readonly Host[] {
    return [...this.managers, ...this.workers];
  }

  /**
   * Hosts with their daemons, in no swarm yet.
   * @param prepare  what a host has before its daemon starts
   */
  static async open(
    name: string,
    managers: number,
    workers: number,
    network: Pick<Site, "subnet" | "only6"> = { subnet: "10.78.0" },
    prepare: (host: Host) => void = () => undefined,
  ): Promise<World> {
    const site: Site = {
      name,
      ...network,
      skepd: [process.execPath, daemon],
      env: { NODE_COMPILE_CACHE: join(root, "build/compile-cache") },
    };
    await tearDown(site);
    const world = new World(site, build(site, managers + workers), managers);
    for (const host of world.hosts) {
      prepare(host);
      host.start();
    }
    await Promise.all(world.hosts.map((host) => host.answers(slowness * 30_000)));
    return world;
  }

  /** One swarm of all hosts, or of those wanted, with short heartbeats, and the images hello:1 and hello:2 on each. */
  async form(isWanted: (host: Host) => boolean = () => true, heartbeatSeconds = 1): Promise<void> {
    const [first, ...rest] = this.hosts.filter(isWanted) as [Host, ...Host[]];
    await this.init(first, heartbeatSeconds);
    const { body } = await ask<{ JoinTokens: { Worker: string; Manager: string } }>(first, "GET", "/swarm");
    for (const host of rest) {
      await this.join(host, this.managers.includes(host) ? body.JoinTokens.Manager : body.JoinTokens.Worker);
    }
    for (const version of ["1", "2"]) {
      const image = await helloImage(version);
      for (const host of this.hosts) {
        const { status } = await ask(host, "POST", "/images/load?quiet=1", image);
        assert.equal(status, 200, `image load on ${host.name}`);
      }
    }
  }

  async init(host: Host, heartbeatSeconds = 1): Promise<string> {
    const { status, body } = await ask<string>(host, "POST", "/swarm/init", {
      ListenAddr: "0.0.0.0:2377",
      AdvertiseAddr: host.address,
      Spec: { Dispatcher: { HeartbeatPeriod: heartbeatSeconds * 1_000_000_000 } },
    });
    assert.equal(status, 200, JSON.stringify(body));
    return body;
  }

  async join(host: Host, token: string): Promise<void> {
    const { status, body } = await ask<{ code?: string } | undefined>(host, "POST", "/swarm/join", {
      ListenAddr: "0.0.0.0:2377",
      AdvertiseAddr: host.address,
      RemoteAddrs: this.managers.filter((manager) => manager !== host).map(({ endpoint }) => endpoint),
      JoinToken: token,
    });
    if (slowness > 1 && body?.code === "JOIN_TIMED_OUT") {
      // It goes on in the background.
      await this.until(`${host.name} in the swarm`, 20_000, async () => {
        const { body: found } = await ask<{ Swarm: { LocalNodeState: string } }>(host, "GET", "/info");
        return found.Swarm.LocalNodeState === "active";
      });
      return;
    }
    assert.equal(status, 200, JSON.stringify(body));
  }

  /** @returns its id */
  async create(at: Host, name: string, replicas: number, extra: Record<string, unknown> = {}): Promise<string> {
    const spec = {
      Name: name,
      TaskTemplate: {
        ContainerSpec: { Image: "hello:1", StopGracePeriod: 2_000_000_000 },
        RestartPolicy: { Condition: "any", Delay: 100_000_000 },
      },
      Mode: { Replicated: { Replicas: replicas } },
      ...extra,
    };
    return (await this.led(() => ask<{ ID: string }>(at, "POST", "/services/create", spec))).body.ID;
  }

  async service(at: Host, id: string): Promise<ServiceShape> {
    return (await this.led(() => ask<ServiceShape>(at, "GET", `/services/${id}`))).body;
  }

  /** Asks again while nobody leads, as is for a moment whenever a leader is late. @returns the answer, which is a good one */
  async led<T>(asks: () => Promise<Answer<T>>): Promise<Answer<T>> {
    let answer!: Answer<T>;
    await this.until("an answer of a leader", 60_000, async () => (answer = await asks()).status < 500);
    assert.ok(answer.status < 300, `${answer.status} ${JSON.stringify(answer.body)}`);
    return answer;
  }

  /** Reads, changes, writes; again while somebody else was faster or nobody leads. */
  async update(
    at: Host,
    id: string,
    change: (spec: Record<string, unknown>) => void,
    patienceMs = 60_000,
  ): Promise<void> {
    await this.until(`an update of ${id}`, patienceMs, async () => {
      const before = await ask<ServiceShape>(at, "GET", `/services/${id}`);
      if (before.status !== 200) return false;
      const spec = structuredClone(before.body.Spec);
      change(spec);
      const { status } = await ask(at, "POST", `/services/${id}/update?version=${before.body.Version.Index}`, spec);
      return status === 200;
    });
  }

  async tasks(at: Host, service: string): Promise<readonly TaskShape[]> {
    const filters = encodeURIComponent(JSON.stringify({ service: { [service]: true } }));
    const { status, body } = await ask<TaskShape[]>(at, "GET", `/tasks?filters=${filters}`);
    return status === 200 ? body : [];
  }

  async running(at: Host, service: string): Promise<readonly TaskShape[]> {
    const tasks = await this.tasks(at, service);
    return tasks.filter(({ DesiredState, Status }) => DesiredState === "running" && Status.State === "running");
  }

  async nodes(at: Host): Promise<readonly NodeShape[]> {
    const { status, body } = await ask<NodeShape[]>(at, "GET", "/nodes");
    return status === 200 ? body : [];
  }

  async nodeIdOf(host: Host): Promise<string> {
    const { body } = await ask<{ Swarm: { NodeID: string } }>(host, "GET", "/info");
    return body.Swarm.NodeID;
  }

  /** All of them, `count`, are ready, as a manager that answers tells it. */
  async areReady(at: Host, count: number): Promise<boolean> {
    const nodes = await this.nodes(at);
    return nodes.length === count && nodes.every(({ Status }) => Status.State === "ready");
  }

  async leader(from: Host = this.managers[0] as Host): Promise<Host> {
    let found: Host | undefined;
    await this.until("a leader", 60_000, async () => {
      const nodes = await this.nodes(from);
      const name = nodes.find(({ ManagerStatus }) => ManagerStatus?.Leader === true)?.Description.Hostname;
      found = this.managers.find((host) => host.name === name);
      return found !== undefined;
    });
    return found as Host;
  }

  /** Containers of tasks that really run on a host, by the processes in its cgroup. */
  containersOn(host: Host): number {
    return host.containerProcesses("/bin/hello").length;
  }

  /** Those that hold output and exit status of this host's containers. */
  monitorsOn(host: Host): number[] {
    const held = `${host.execRoot}/c/`;
    const commandOf = (pid: string): string => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8");
      } catch {
        return ""; // it has ended
      }
    };
    const pids = readdirSync("/proc").filter((name) => /^[0-9]+$/u.test(name));
    return pids.filter((pid) => commandOf(pid).includes(held)).map(Number);
  }

  /** @returns how long it took, in ms */
  async until(what: string, usualMs: number, holds: () => Promise<boolean> | boolean): Promise<number> {
    const patienceMs = usualMs * slowness;
    const startedMs = performance.now();
    for (;;) {
      let held = false;
      try {
        held = await holds();
      } catch (error) {
        // A daemon that is down refuses connections; whatever else is a finding.
        if (!/ECONNREFUSED|ECONNRESET|EPIPE|ENOENT|socket hang up|no answer/u.test(String(error))) throw error;
      }
      if (held) return performance.now() - startedMs;
      if (performance.now() - startedMs > patienceMs) {
        assert.fail(`${what}: not within ${patienceMs / 1000} s\n${this.#logs()}`);
      }
      await wait(pollMs);
    }
  }

  /** Ends everything, and says if anything is left. */
  async close(): Promise<void> {
    await tearDown(this.site);
  }

  #logs(): string {
    return this.hosts
      .map((host) => {
        const log = existsSync(host.logFile) ? readFileSync(host.logFile, "utf8") : "";
        return `--- ${host.name}\n${log.trim().split("\n").slice(-6).join("\n").slice(-3000)}`;
      })
      .join("\n");
  }
}

/** Prints its version and ends at once when it is asked to. */
export function helloImage(version: string): Promise<Buffer> {
  const script = `#!/bin/sh\ntrap 'exit 0' TERM\necho "hello from version ${version}"\nwhile :; do sleep 3600 & wait $!; done\n`;
  return imageArchive({
    name: `hello:${version}`,
    command: ["/bin/hello"],
    labels: { version },
    files: { "/bin/hello": script },
    platform: process.arch === "arm64" ? "arm64" : "amd64",
  });
}
