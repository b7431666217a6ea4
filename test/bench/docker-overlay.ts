/**
 * Docker's overlay as a peer: two of Debian's dockerd in a swarm, each on a host of its own, and on an attachable overlay a
 * container on each. The programs that measure run in the containers' network namespaces. Its service addresses and its mesh
 * need IPVS in the kernel; where there is none, what dockerd itself says about it is told.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { output, run as execute } from "../conformance/network/world.ts";
import { until } from "./engine.ts";
import { boxImage, DockerSwarm, form } from "./swarms.ts";

const port = 7000;

interface Shown {
  readonly State: { readonly Pid: number };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, { readonly IPAddress: string }>> };
}

export class DockerOverlay {
  readonly #swarm: DockerSwarm;
  #server: ChildProcess | undefined;
  #client = 0;
  #address = "";

  private constructor(swarm: DockerSwarm) {
    this.#swarm = swarm;
  }

  /**
   * @param program  net-load
   * @param server   it as the server of a port, which follows
   * @throws whatever keeps it from working here
   */
  static async open(program: string, server: readonly string[]): Promise<DockerOverlay> {
    const overlay = new DockerOverlay(await DockerSwarm.open("skepnd", 2));
    try {
      await overlay.#start(program, server);
      return overlay;
    } catch (error) {
      const said = overlay.complaints();
      await overlay.close();
      throw new Error(`${(error as Error).message}${said === "" ? "" : `; dockerd: ${said}`}`, { cause: error });
    }
  }

  async #start(program: string, serve: readonly string[]): Promise<void> {
    const swarm = this.#swarm;
    await form(swarm, 1, [await boxImage("1")], 5);
    const [first, second] = swarm.hosts as [Host, Host];
    await swarm.engine(first).done("POST", "/networks/create", {
      Name: "load",
      Driver: "overlay",
      Attachable: true,
      CheckDuplicate: true,
      IPAM: { Config: [{ Subnet: "10.77.0.0/24" }] },
    });
    const client = await this.#container(first);
    const server = await this.#container(second);
    this.#client = client.pid;
    this.#address = server.address;
    this.#server = spawn("nsenter", [`--net=/proc/${server.pid}/ns/net`, "--", ...serve, String(port)]);
    await output(this.#server);
    // Each host learns of the other's containers by gossip.
    await until("Docker's overlay to carry", async () => this.#carries(program), performance.now(), 30_000);
  }

  async #container(host: Host): Promise<{ readonly pid: number; readonly address: string }> {
    const engine = this.#swarm.engine(host);
    const { Id } = await engine.done<{ Id: string }>("POST", "/containers/create", {
      Image: "box:1",
      HostConfig: { NetworkMode: "load" },
    });
    await engine.done("POST", `/containers/${Id}/start`);
    const { State, NetworkSettings } = await engine.done<Shown>("GET", `/containers/${Id}/json`);
    return { pid: State.Pid, address: NetworkSettings.Networks["load"]?.IPAddress ?? "" };
  }

  #carries(program: string): boolean {
    try {
      return Number(this.measure([program, "connect"], "0.05", "1")) > 0;
    } catch {
      return false;
    }
  }

  /** @param program  net-load with its first word. @param words  of it after address and port. @returns what it says */
  measure(program: readonly string[], ...words: readonly string[]): string {
    const inside = [`--net=/proc/${this.#client}/ns/net`, "--", ...program, this.#address, String(port)];
    return execute(["nsenter", ...inside, ...words]);
  }

  /**
   * Whether its service addresses work: a service on the same overlay, asked for by its address.
   * @returns what is lacking, in dockerd's words
   */
  async lacking(program: string): Promise<string | undefined> {
    const [first] = this.#swarm.hosts as [Host, Host];
    const engine = this.#swarm.engine(first);
    // By id: a name would make dockerd ask a registry.
    const { Id: image } = await engine.done<{ Id: string }>("GET", "/images/box:1/json");
    const { ID } = await engine.done<{ ID: string }>("POST", "/services/create", {
      Name: "behind",
      TaskTemplate: { ContainerSpec: { Image: image }, Networks: [{ Target: "load" }] },
      Mode: { Replicated: { Replicas: 1 } },
    });
    await until("a service of dockerd to run", async () =>
      (await engine.tasks(ID)).some(({ Status }) => Status.State === "running"),
    );
    const { Endpoint } = await engine.done<{
      readonly Endpoint: { readonly VirtualIPs: readonly { readonly Addr: string }[] };
    }>("GET", `/services/${ID}`);
    const address = Endpoint.VirtualIPs[0]?.Addr.split("/", 1)[0] ?? "";
    const inside = [`--net=/proc/${this.#client}/ns/net`, "--", program, "connect", address, String(port), "0.05", "1"];
    try {
      execute(["nsenter", ...inside]);
      return undefined;
    } catch (error) {
      // Nobody listens there: a refusal is an answer of the task, and so the address works.
      const found = (error as Error).message;
      return /refused/u.test(found) ? undefined : `${found}; dockerd: ${this.complaints()}`;
    } finally {
      await engine.done("DELETE", `/services/${ID}`);
    }
  }

  /** What the daemons say of what the kernel lacks, each once. */
  complaints(): string {
    const lines = this.#swarm.hosts.flatMap((host) => readFileSync(host.logFile, "utf8").split("\n"));
    const said = lines
      .filter((line) => /ipvs|ip_vs|overlay|vxlan|network/iu.test(line) && /level=(warn|error)/u.test(line))
      .map((line) => /msg=("(?:[^"\\]|\\.)*"|\S+)/u.exec(line)?.[1] ?? line)
      .map((text) => text.replaceAll(/\b[0-9a-z]{25,64}\b/gu, "ID"));
    return [...new Set(said)].slice(0, 5).join("; ").slice(0, 1000);
  }

  async close(): Promise<void> {
    this.#server?.kill("SIGKILL");
    // Asked to end, it would first give its containers their time.
    for (const host of this.#swarm.hosts) await this.#swarm.crash(host);
    await this.#swarm.close();
  }
}
