/**
 * The host's side of the room, put together: its part of the model, what is chosen for sandboxes, networks of this node,
 * ports of the host, and peace with other firewalls. `Networks` builds what it wants; after records changed it holds or
 * lets go of the mesh's ports.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { TaskGroup, type Clock, type Logger, type Timer } from "../../lib/runtime/index.ts";
import { AddressBook } from "./address-book.ts";
import type { DataPlane, NetworkRecords, RecordChange } from "./contract.ts";
import { HostSide, type MeshKind } from "./core/host-side.ts";
import { portsOfMesh } from "./core/mesh.ts";
import { isV6 } from "./core/cidr6.ts";
import type { MakePart } from "./core/part.ts";
import type { TunnelKey } from "./core/tunnel-key.ts";
import type { HostPort } from "./core/port-claims.ts";
import type { ServiceRecord } from "./core/records.ts";
import type { Kernel } from "./engine.ts";
import { Firewall, type FirewallOptions } from "./firewall.ts";
import { HostChooser } from "./host-choices.ts";
import { LocalNetworks } from "./local-networks.ts";
import type { Dump } from "./netplane-types.ts";
import { PublishedPorts, type PortHolder } from "./published-ports.ts";

export interface HostNetworkOptions {
  readonly kernel: Kernel;
  /** Records that outlive a reboot. */
  readonly dataDirectory: string;
  /** What is true until the next boot. */
  readonly runDirectory: string;
  /** As of now; undefined: this node has no tunnel. */
  readonly tunnelKey: () => TunnelKey | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Other than the host's own programs: tests. */
  readonly firewall?: Omit<FirewallOptions, "logger">;
}

/** UDP port of VXLAN (RFC 7348). */
const dataPort = 4789;
const checkMs = 60_000;
/** How the host was when we came. */
interface Before {
  readonly routed: boolean;
  readonly routed6: boolean;
  readonly has6: boolean;
  readonly mesh: MeshKind;
}

/** Files that are there while the mesh is so: after a restart it begins as it was. */
const meshFiles = { encrypted: "mesh-encrypted", has6: "mesh-ipv6" } as const;
const forwarding6 = "net/ipv6/conf/all/forwarding";

export class HostNetwork implements AsyncDisposable {
  readonly networks: LocalNetworks;
  readonly choices: HostChooser;
  readonly #kernel: Kernel;
  readonly #side: HostSide;
  readonly #ports: PublishedPorts;
  readonly #firewall: Firewall;
  readonly #tasks: TaskGroup;
  readonly #clock: Clock;
  readonly #folder: string;
  #keptAdvertisements: Promise<void> | undefined;
  #routed = true;
  #firewallFindings: readonly string[] = [];
  #timer: Timer | undefined;
  #isChecking = false;
  /** Ports of services that are being told: held before the model knows that they are wanted. */
  #told: readonly HostPort[] = [];

  private constructor(options: HostNetworkOptions, networks: LocalNetworks, { routed, routed6, has6, mesh }: Before) {
    const { kernel, clock, logger } = options;
    this.networks = networks;
    this.#kernel = kernel;
    this.#folder = options.dataDirectory;
    this.#clock = clock;
    this.#routed = routed;
    this.#side = new HostSide({
      dataPort,
      forwardsForOthers6: routed6,
      bridge: (id) => networks.bridge(id),
      tunnelKey: options.tunnelKey,
      has6,
      was: mesh,
    });
    this.#side.setForwardsForOthers(routed);
    this.#ports = new PublishedPorts(new KernelPorts(kernel), logger);
    this.choices = new HostChooser({
      book: new AddressBook(),
      ports: this.#ports,
      networks,
      nodeNumber: () => this.#side.number,
      hasGateway6: (overlays) => this.#side.hasGateway6(overlays),
      onV6: () => this.#onV6(),
    });
    this.#firewall = new Firewall({ ...options.firewall, logger });
    this.#tasks = new TaskGroup((name, error) =>
      logger.error("work on the host's network failed", { work: name, error }),
    );
  }

  static async open(options: HostNetworkOptions): Promise<HostNetwork> {
    const { kernel, clock, logger, dataDirectory, runDirectory } = options;
    const routed = await routedBefore(kernel, join(runDirectory, "routed-before"), "net/ipv4/ip_forward");
    const file6 = join(runDirectory, "routed6-before");
    const routed6 = await routedBefore(kernel, file6, forwarding6);
    const has6 = await kernel.run("", [{ op: "sysctl-read", name: forwarding6 }]).then(
      () => true,
      () => false,
    );
    const networks = await LocalNetworks.open({
      folder: join(dataDirectory, "local"),
      clock,
      logger,
      hostRanges: () => hostRanges(kernel),
      onV6: () => keepAdvertisements(kernel),
    });
    if (networks.list().some(({ network }) => network.subnet6 !== undefined)) await keepAdvertisements(kernel);
    const mesh = {
      encrypted: existsSync(join(dataDirectory, meshFiles.encrypted)),
      has6: existsSync(join(dataDirectory, meshFiles.has6)),
    };
    return new HostNetwork(options, networks, { routed, routed6, has6, mesh });
  }

  /** For `Networks`. */
  get parts(): readonly MakePart[] {
    return [this.#side.make];
  }

  /** For `Networks`: this node says with another key from now on, or has none any more. */
  readonly onTunnelKey = (): void => this.#side.tunnelKeyChanged();

  get isMeshEncrypted(): boolean {
    return this.#side.isMeshEncrypted;
  }

  get hasMesh6(): boolean {
    return this.#side.hasMesh6;
  }

  /** Ports of services that this node does not serve, since a process of the host has them. */
  get refusedPorts(): readonly string[] {
    return this.#ports.refused;
  }

  /** What of other firewalls stood in the way when they were last looked at. */
  get firewallFindings(): readonly string[] {
    return this.#firewallFindings;
  }

  /**
   * Records go through it. A port of the mesh is held before anything is sent to it, and let go when nothing is; with what
   * was held before a restart nothing changes in between.
   */
  around(plane: DataPlane): DataPlane {
    const around = async (
      services: readonly (ServiceRecord | undefined)[],
      act: () => Promise<void>,
    ): Promise<void> => {
      const has6 = services.some((service) => service?.has6 === true);
      // After a restart it begins as what this says: on disk before it is so, and until after it is so no more.
      if (services.some((service) => service?.encrypted === true)) await this.#note("encrypted", true);
      if (has6) await this.#note("has6", true);
      if (has6) await this.#onV6();
      this.#told = services.flatMap((service) => portsOfMesh(service?.ports ?? [], service?.has6 === true));
      try {
        await this.#settlePorts();
        await act();
      } finally {
        this.#told = [];
      }
      if (!this.#side.isMeshEncrypted) await this.#note("encrypted", false);
      if (!this.#side.hasMesh6) await this.#note("has6", false);
      await this.#settlePorts();
    };
    return {
      replace: (records: NetworkRecords) =>
        around(records.services, async () => {
          const applied = plane.replace(records);
          this.#side.told();
          await applied;
          await plane.change([]);
        }),
      change: (changes: readonly RecordChange[]) => {
        const services = changes.flatMap((change) => (change.kind === "service" ? [change.record] : []));
        return services.length === 0 ? plane.change(changes) : around(services, () => plane.change(changes));
      },
    };
  }

  async #note(kind: keyof MeshKind, isSo: boolean): Promise<void> {
    const file = join(this.#folder, meshFiles[kind]);
    await (isSo ? writeFile(file, "", { mode: 0o600 }) : rm(file, { force: true }));
  }

  /** Before anything has the host forward IPv6; once is enough. */
  #onV6(): Promise<void> {
    this.#keptAdvertisements ??= keepAdvertisements(this.#kernel).catch((error: unknown) => {
      this.#keptAdvertisements = undefined;
      throw error;
    });
    return this.#keptAdvertisements;
  }

  async #settlePorts(): Promise<void> {
    const wanted = [...this.#side.wantedPorts(), ...this.#told];
    if (this.#ports.isUnsettled(wanted)) this.#side.setOpen(await this.#ports.settleMesh(wanted));
  }

  /** Looks at other firewalls and at ports that somebody had, now and every minute. */
  async start(plane: { settle(): Promise<void> }): Promise<void> {
    this.#timer = this.#clock.every(checkMs, () => {
      // A firewall's program that takes its time is not asked again meanwhile.
      if (this.#isChecking) return;
      this.#isChecking = true;
      this.#tasks.start("check of the host's network", () =>
        this.check(plane).finally(() => (this.#isChecking = false)),
      );
    });
    await this.check(plane);
  }

  async check(plane: { settle(): Promise<void> }): Promise<void> {
    const { number, underlay } = this.#side;
    const family = isV6(underlay) ? "ip6" : "ip";
    const cluster =
      number === 0 ? undefined : ({ dataPort, link: await linkOf(this.#kernel, underlay), family } as const);
    const report = await this.#firewall.settle(cluster);
    this.#firewallFindings = report.findings;
    this.#side.setForwardsForOthers(this.#routed || report.policesForwarding);
    await this.#settlePorts();
    await plane.settle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer?.cancel();
    await this.#tasks[Symbol.asyncDispose]();
    await this.networks[Symbol.asyncDispose]();
  }
}

/**
 * Whether the host routed for others before we switched forwarding on, remembered until the next boot. If it did not,
 * nobody expects it to, and what is not ours is dropped as before.
 */
async function routedBefore(kernel: Kernel, file: string, sysctl: string): Promise<boolean> {
  const known = await readFile(file, "utf8").catch(() => undefined);
  if (known !== undefined) return known.trim() === "1";
  const [value] = await kernel
    .run("", [{ op: "sysctl-read", name: sysctl }])
    // Without netplane nothing is built, and nothing needs to be known.
    .catch(() => ["1"]);
  const routed = value === "1";
  await mkdir(dirname(file), { recursive: true, mode: 0o711 });
  await writeFile(file, routed ? "1\n" : "0\n", { mode: 0o600 });
  return routed;
}

/** That has this address; empty: none, or it cannot be known. */
async function linkOf(kernel: Kernel, address: string): Promise<string> {
  const [found] = await kernel.run("", [{ op: "dump", what: ["addresses"], all: true }]).catch(() => [{}]);
  const { addresses = [] } = found as Dump;
  return addresses.find((one) => one.address.split("/", 1)[0] === address)?.link ?? "";
}

/**
 * A host that forwards IPv6 takes no router's advertisements, by which it may have its own default route, unless a link is
 * told to take them all the same (ip-sysctl, accept_ra).
 */
async function keepAdvertisements(kernel: Kernel): Promise<void> {
  const [found] = await kernel.run("", [{ op: "dump", what: ["links"], all: true }]).catch(() => [{}]); // as above
  const names = ((found as Dump).links ?? []).map(({ name }) => name).filter((name) => !name.startsWith("skep"));
  const settings = names.map((name) => `net/ipv6/conf/${name}/accept_ra`);
  const values = await kernel.run(
    "",
    settings.map((name) => ({ op: "sysctl-read", name, ignore: ["ENOENT"] }) as const),
  );
  const taking = settings.filter((_, at) => String(values[at]).trim() === "1");
  if (taking.length === 0) return;
  await kernel.run(
    "",
    taking.map((name) => ({ op: "sysctl-write", name, value: "2", ignore: ["ENOENT"] }) as const),
  );
}

async function hostRanges(kernel: Kernel): Promise<readonly string[]> {
  const [found] = await kernel
    .run("", [{ op: "dump", what: ["addresses", "routes"], all: true }])
    // As above; a subnet is chosen as if nothing were in its way.
    .catch(() => [{}]);
  const { addresses = [], routes = [] } = found as Dump;
  return [...addresses.map(({ address }) => address), ...routes.map(({ destination }) => destination)].filter(
    (range) => !/^(0\.0\.0\.0\/0|127\.|::\/0|::1\/|fe80:|ff00:)/u.test(range),
  );
}

const trackedSctp = "net/netfilter/nf_conntrack_sctp_timeout_established";

/** Ports of the host's namespace, held by netplane. */
class KernelPorts implements PortHolder {
  readonly #kernel: Kernel;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  async reserve(port: HostPort): Promise<boolean> {
    try {
      await this.#kernel.run("", [{ op: "port-reserve", ...reservedPort(port) }]);
      return true;
    } catch (error) {
      const { errno } = error as { errno?: unknown };
      if (errno === "EADDRINUSE") return false;
      // A host without sockets of SCTP: no process of it can have the port.
      if (errno === "EPROTONOSUPPORT" && port.protocol === "sctp") return true;
      throw error;
    }
  }

  /** Tracking SCTP can be left out of a kernel (CONFIG_NF_CT_PROTO_SCTP), and rewriting it with that. */
  async carries(protocol: HostPort["protocol"]): Promise<boolean> {
    if (protocol !== "sctp") return true;
    const [found] = await this.#kernel.run("", [{ op: "sysctl-read", name: trackedSctp, ignore: ["ENOENT"] }]);
    return typeof found === "string";
  }

  async release(port: HostPort): Promise<void> {
    await this.#kernel.run("", [{ op: "port-release", ...reservedPort(port), ignore: ["ENOENT"] }]);
  }
}

const reservedPort = ({ protocol, port, hostAddress }: HostPort) => ({
  protocol,
  port,
  ...(hostAddress === "" ? {} : { address: hostAddress }),
});
