/** The whole room, put together for one node: netplane, the host's side, the model with its engine, names. */
import { join } from "node:path";

import { ClusterError } from "../../lib/pure/errors.ts";
import type { Random } from "../../lib/pure/prng.ts";
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { skep } from "../../proto/index.ts";
import type { DataPlane, NetworkAbilities, NetworkRecords } from "./contract.ts";
import { examine, type DoctorReport } from "./doctor.ts";
import type { Kernel } from "./engine.ts";
import { HostNetwork, type HostNetworkOptions } from "./host-network.ts";
import type { LocalNetworks } from "./local-networks.ts";
import { NameService } from "./name-service.ts";
import { isV6 } from "./core/cidr6.ts";
import type { Dump } from "./netplane-types.ts";
import { Netplane } from "./netplane.ts";
import { isNamespaceFile, Networks } from "./networks.ts";
import type { SandboxKeeper } from "./sandboxes.ts";
import type { TunnelPeer } from "./core/diagnosis.ts";
import { tunnelOverheadBytes } from "./core/tunnel.ts";
import { TunnelKeys } from "./tunnel-keys.ts";

export interface NodeNetworkOptions {
  /** Path of the native program. */
  readonly program: string;
  /** Records that survive a reboot. */
  readonly dataDirectory: string;
  /** Does not have to; namespaces are bound below it. */
  readonly runDirectory: string;
  /** Of the node's identity in its swarm: the key of encrypted networks is kept there. */
  readonly swarmDirectory: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Other than the host's own programs: tests. */
  readonly firewall?: HostNetworkOptions["firewall"];
}

/** What a node is told outside a swarm. */
const nobody: NetworkRecords = { nodeId: "", peers: [], endpoints: [], services: [] };

export class NodeNetwork implements AsyncDisposable {
  readonly #kernel: Kernel;
  readonly #host: HostNetwork;
  readonly #networks: Networks;
  readonly #parts: AsyncDisposableStack;
  readonly #dataPlane: DataPlane;
  readonly #names: NameService;
  readonly #clock: Clock;

  private constructor(
    kernel: Kernel,
    host: HostNetwork,
    networks: Networks,
    names: NameService,
    clock: Clock,
    parts: AsyncDisposableStack,
  ) {
    this.#names = names;
    this.#clock = clock;
    this.#kernel = kernel;
    this.#host = host;
    this.#networks = networks;
    this.#parts = parts;
    this.#dataPlane = host.around(networks);
  }

  /** Takes up what runs. A node that cannot build networks opens as well: whoever asks for one hears why it cannot. */
  static async open(options: NodeNetworkOptions): Promise<NodeNetwork> {
    const { program, dataDirectory, runDirectory, clock, random, logger, firewall } = options;
    const parts = new AsyncDisposableStack();
    try {
      const kernel = await openKernel(options, parts);
      const tunnelKeys = TunnelKeys.open(options.swarmDirectory, logger);
      let networks: Networks | undefined;
      const host = parts.use(
        await HostNetwork.open({
          kernel,
          dataDirectory,
          runDirectory,
          tunnelKey: () => networks?.tunnelKey,
          clock,
          logger,
          ...(firewall === undefined ? {} : { firewall }),
        }),
      );
      const names = parts.use(
        new NameService({
          requestOf: (id) => networks?.sandboxes.request(id),
          bridge: (id) => host.networks.bridge(id),
          clock,
          random,
          logger,
        }),
      );
      networks = parts.use(
        await Networks.open({
          kernel,
          dataDirectory,
          tunnelKeys,
          onTunnelKey: host.onTunnelKey,
          namespaceDirectory: join(runDirectory, "netns"),
          isNamespaceFile,
          parts: [...host.parts, names.make],
          choices: host.choices,
          clock,
          random,
          logger,
        }),
      );
      const { refusal } = networks.abilities;
      host.onTunnelKey();
      if (refusal === undefined) {
        // Outside a swarm nobody else tells what there is: nothing but the networks of this node.
        if (networks.model.self.nodeId === "") await networks.replace(nobody);
        names.start(networks.model.sandboxes);
        await host.start(networks).catch((error: unknown) => logger.warn("the host's network is not ready", { error }));
      } else {
        logger.warn("this node builds no networks", { program, error: refusal });
      }
      return new NodeNetwork(kernel, host, networks, names, clock, parts.move());
    } catch (error) {
      await parts.disposeAsync();
      throw error;
    }
  }

  get abilities(): NetworkAbilities {
    return this.#networks.abilities;
  }

  get sandboxes(): SandboxKeeper {
    return this.#networks.sandboxes;
  }

  /** Networks of this node alone. */
  get local(): LocalNetworks {
    return this.#host.networks;
  }

  /** undefined: this node has none, and nobody waits for it. */
  get dataPlane(): DataPlane | undefined {
    return this.abilities.refusal === undefined ? this.#dataPlane : undefined;
  }

  /**
   * What managers should know of it, as this node of a swarm.
   * @param address  of this node, where frames come to
   */
  async describe(nodeId: string, address: string): Promise<skep.objects.NodeNetwork.$Properties | undefined> {
    if (this.abilities.refusal !== undefined) return undefined;
    const key = this.#networks.enterTunnel(nodeId);
    const addresses = await addressesOf(this.#kernel);
    const addresses6 = addresses.filter((one) => isV6(one));
    // Otherwise frames tell it.
    const addresses4 = isV6(address) ? addresses.filter((one) => !isV6(one)) : [];
    return {
      mtu: await mtuOf(this.#kernel, address),
      dataPathAddr: "",
      capabilities: key === undefined ? ["overlay"] : ["overlay", "encrypted"],
      wireguardPublicKey: Buffer.from(key ?? "", "base64"),
      ...(addresses6.length === 0 ? {} : { addresses6 }),
      ...(addresses4.length === 0 ? {} : { addresses4 }),
    };
  }

  /** The next description has another key; it is used from when managers tell it to all nodes. */
  renewTunnelKey(): void {
    this.#networks.renewTunnelKey();
  }

  /** This node is in no swarm any more. */
  async leave(): Promise<void> {
    await this.dataPlane?.replace(nobody);
    this.#networks.leaveTunnel();
  }

  /** Nodes at the other end of the tunnel of encrypted networks; undefined: nothing needs it here. */
  async tunnel(): Promise<readonly TunnelPeer[] | undefined> {
    return this.abilities.refusal === undefined ? this.#networks.tunnelPeers() : undefined;
  }

  /** Looks at everything, has put right what can be, and says what is wrong and what to do. Takes some seconds at most. */
  async examine(signal: AbortSignal): Promise<DoctorReport> {
    const { refusal } = this.abilities;
    const networks = this.#networks;
    // What it could not put right is among the findings.
    if (refusal === undefined) await this.#host.check(networks).catch(() => undefined);
    return examine(
      {
        self: networks.model.self,
        peers: [...networks.model.peers.values()],
        strangers: [...networks.model.strangers.values()],
        refusal: refusal === undefined ? undefined : { message: refusal.message, fix: refusal.fix ?? "" },
        differences: () => networks.differences(),
        repair: () => networks.repair(),
        linkMtu: (address) => mtuOf(this.#kernel, address),
        refusedPorts: this.#host.refusedPorts,
        firewall: this.#host.firewallFindings,
        unserved: this.#names.unserved,
        tunnel: () => networks.tunnelPeers(),
        meshTunnelBytes: this.#host.isMeshEncrypted ? tunnelOverheadBytes : 0,
        hasMesh6: () => this.#host.hasMesh6,
        clock: this.#clock,
      },
      signal,
    );
  }

  /** Traffic goes on without us. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}

/** The host's own, in an order that does not change: not those of links, of loopback, and of ours. */
async function addressesOf(kernel: Kernel): Promise<string[]> {
  const [found] = (await kernel.run("", [{ op: "dump", what: ["addresses"], all: true }])) as [Dump];
  return (found.addresses ?? [])
    .filter(({ address, link }) => !/^(::1\/|fe80:|127\.|169\.254\.)/u.test(address) && !link.startsWith("skep"))
    .map(({ address }) => address.split("/", 1)[0] ?? "")
    .sort();
}

/** Of the link that has this address; 0: none has. */
async function mtuOf(kernel: Kernel, address: string): Promise<number> {
  const [found] = (await kernel.run("", [{ op: "dump", what: ["links", "addresses"], all: true }])) as [Dump];
  const link = found.addresses?.find((one) => one.address.split("/", 1)[0] === address)?.link;
  return found.links?.find(({ name }) => name === link)?.mtu ?? 0;
}

async function openKernel(
  { program, clock, random, logger }: NodeNetworkOptions,
  parts: AsyncDisposableStack,
): Promise<Kernel> {
  try {
    return parts.use(await Netplane.open({ program, clock, random, logger }));
  } catch (error) {
    if (!(error instanceof ClusterError)) throw error;
    const refuse = (): Promise<never> => Promise.reject(error);
    return { run: refuse, runAll: refuse, onChange: () => undefined };
  }
}
