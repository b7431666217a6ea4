/**
 * Services of one task each, pinned to hosts and asked by everybody: who they are, where, and by which addresses they are
 * seen. For tests of networks on a real cluster.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { buildOutsider, type Host, type Outsider, type Site } from "../../deploy/quickstart/hosts.ts";
import { askAll, buildProbe, healthcheck, webImage, type Question } from "./web.ts";
import { ask, World, type TaskShape } from "./world.ts";

const execute = promisify(execFile);
const patienceMs = 60_000;

export interface NetworkedTask extends TaskShape {
  readonly NetworksAttachments?: readonly {
    readonly Network: { readonly ID: string };
    readonly Addresses: readonly string[];
  }[];
}

/** A service of one task, and that task. */
export interface Placed {
  readonly name: string;
  readonly host: Host;
  readonly pid: number;
  /** A file. */
  readonly namespace: string;
  /** Of gw0. */
  readonly gateway: string;
  /** Its own, by network id. */
  readonly addresses: ReadonlyMap<string, string>;
  /** The service's, by network id. */
  readonly vips: ReadonlyMap<string, string>;
}

export interface SpecOptions {
  readonly networks: readonly string[];
  /** Where it runs; undefined: anywhere. */
  readonly on?: Host;
  readonly ports?: readonly object[];
  readonly endpointMode?: "vip" | "dnsrr";
}

export class NetworkRig {
  readonly world: World;
  readonly manager: Host;
  readonly client: Outsider;
  /** Folder and program on this machine. */
  readonly folder: string;
  readonly probe: string;
  readonly #hostOf = new Map<string, Host>();

  private constructor(world: World, folder: string) {
    this.world = world;
    this.manager = world.managers[0] as Host;
    this.client = buildOutsider(world.site);
    this.folder = folder;
    this.probe = join(folder, "net-probe");
  }

  /** A swarm of these hosts with the image `web:1`, and a machine outside. */
  static async open(
    site: string,
    managers: number,
    workers: number,
    heartbeatSeconds: number,
    {
      form = (world): Promise<void> => world.form(undefined, heartbeatSeconds),
      addresses,
    }: { readonly form?: (world: World) => Promise<void>; readonly addresses?: Pick<Site, "subnet" | "only6"> } = {},
  ): Promise<NetworkRig> {
    const folder = mkdtempSync(join(tmpdir(), `${site}-`));
    const built = buildProbe();
    const world = await World.open(site, managers, workers, addresses);
    const rig = new NetworkRig(world, folder);
    writeFileSync(rig.probe, built);
    chmodSync(rig.probe, 0o755);
    await form(world);
    const image = await webImage("web:1", built, addresses?.only6 === undefined ? undefined : "both");
    for (const host of world.hosts) {
      assert.equal((await ask(host, "POST", "/images/load?quiet=1", image)).status, 200);
      rig.#hostOf.set(await world.nodeIdOf(host), host);
    }
    return rig;
  }

  async close(): Promise<void> {
    await this.world.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  get hosts(): readonly Host[] {
    return this.world.hosts;
  }

  hostOf({ NodeID }: TaskShape): Host {
    return this.#hostOf.get(NodeID) ?? assert.fail(`no host is node ${NodeID}`);
  }

  /** @returns its id */
  async network(name: string, more: object = {}): Promise<string> {
    const wish = { Name: name, Driver: "overlay", ...more };
    const { status, body } = await ask<{ Id: string }>(this.manager, "POST", "/networks/create", wish);
    assert.equal(status, 201, JSON.stringify(body));
    return body.Id;
  }

  spec({ networks, on, ports = [], endpointMode = "vip" }: SpecOptions): Record<string, unknown> {
    return {
      TaskTemplate: {
        ContainerSpec: {
          Image: "web:1",
          // A task ends with its last connection, however late its client is.
          StopGracePeriod: 20_000_000_000,
          Hostname: "{{.Service.Name}}",
          Healthcheck: healthcheck,
        },
        RestartPolicy: { Condition: "any", Delay: 100_000_000 },
        Networks: networks.map((Target) => ({ Target })),
        ...(on === undefined ? {} : { Placement: { Constraints: [`node.hostname==${on.name}`] } }),
      },
      EndpointSpec: { Mode: endpointMode, Ports: ports },
    };
  }

  async running(service: string, count: number): Promise<readonly NetworkedTask[]> {
    let found: readonly NetworkedTask[] = [];
    await this.world.until(`${count} tasks of ${service}`, patienceMs, async () => {
      found = await this.world.running(this.manager, service);
      return found.length === count;
    });
    return found;
  }

  /** Its task once that runs. */
  async placed(name: string): Promise<Placed> {
    const [task] = (await this.running(name, 1)) as [NetworkedTask];
    return { name, ...(await this.where(task)), vips: await this.vips(name) };
  }

  async where(task: NetworkedTask): Promise<Omit<Placed, "name" | "vips">> {
    const pid = task.Status.ContainerStatus?.PID ?? 0;
    const namespace = namespaceOfTask(task);
    const shown = await this.run(namespace, "ip", "-o", "-4", "address", "show", "dev", "gw0");
    const gateway = /inet ([\d.]+)/.exec(shown)?.[1] ?? assert.fail(`${task.ID} has no gateway address: ${shown}`);
    const addresses = new Map(
      (task.NetworksAttachments ?? []).map(({ Network, Addresses }) => [Network.ID, plain(Addresses[0])]),
    );
    return { host: this.hostOf(task), pid, namespace, gateway, addresses };
  }

  /** Of a service, by network id. */
  async vips(name: string): Promise<ReadonlyMap<string, string>> {
    const { body } = await ask<{ Endpoint: { VirtualIPs?: { NetworkID: string; Addr: string }[] } }>(
      this.manager,
      "GET",
      `/services/${name}`,
    );
    return new Map((body.Endpoint.VirtualIPs ?? []).map(({ NetworkID, Addr }) => [NetworkID, plain(Addr)]));
  }

  /** A command in a network namespace; it must succeed. */
  async run(namespace: string, ...command: readonly string[]): Promise<string> {
    const { stdout } = await execute("nsenter", [`--net=${namespace}`, "--", ...command], { timeout: patienceMs });
    return stdout;
  }

  /** The addresses of a name as a container is told them, in order, or `?` where there is none. */
  async lookUp(asker: Placed, ...name: readonly string[]): Promise<string> {
    const words = ["-t", String(asker.pid), "-n", "-m", "-r", "--", "/bin/busybox", "nslookup", "-type=a", ...name];
    const said = await execute("nsenter", words, { timeout: 20_000 }).then(
      ({ stdout }) => stdout,
      (error: { stdout?: string }) => error.stdout ?? "",
    );
    const answer = said.split("\n").slice(2).join("\n");
    const addresses = [...answer.matchAll(/Address: (\S+)/g)].map(([, address]) => address ?? "");
    return addresses.length === 0 ? "?" : addresses.toSorted().join(" ");
  }

  askAll(namespace: string, questions: readonly Question[], waitMs?: number): Promise<readonly string[]> {
    return askAll(namespace, this.probe, questions, waitMs);
  }

  /** The node's own in its block. */
  gatewayOf(host: Host, placed: Iterable<Placed>): string {
    for (const one of placed) {
      if (one.host !== host) continue;
      const [a, b, c] = one.gateway.split(".").map(Number) as [number, number, number];
      return `${a}.${b}.${c & 252}.1`;
    }
    return assert.fail(`no task on ${host.name}`);
  }
}

export const namespaceOf = ({ namespace }: { readonly namespace: string }): string => `/run/netns/${namespace}`;
const namespaceOfTask = (task: TaskShape): string => `/proc/${task.Status.ContainerStatus?.PID}/ns/net`;
const plain = (cidr: string | undefined): string => cidr?.split("/")[0] ?? "";
