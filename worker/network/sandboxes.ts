/**
 * Sandboxes: the network namespaces of containers. What is decided about one (addresses, links, ports) is on disk before
 * anybody hears of it, and is taken up after a restart of skepd without touching what runs.
 */
import { randomBytes } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";

import type { Logger } from "../../lib/runtime/index.ts";
import type {
  BridgeWish,
  NetworkAbilities,
  OverlayWish,
  PublishedPort,
  Sandbox,
  SandboxEndpoint,
  Sandboxes,
  SandboxRequest,
} from "./contract.ts";
import { macOfAddress, parseAddress, parseCidr } from "./core/cidr.ts";
import { parseCidr6 } from "./core/cidr6.ts";
import type { Model } from "./core/model.ts";
import type { BridgeEndpoint, OverlayEndpoint, SandboxFacts } from "./core/part.ts";
import type { TunnelKey } from "./core/tunnel-key.ts";
import type { Engine, Kernel } from "./engine.ts";
import { EncryptionUnavailable, NetworkNotReady, SandboxInvalid } from "./errors.ts";
import { isSandboxId, type SandboxRecord, type SandboxRecords } from "./sandbox-records.ts";

/** What of a sandbox is chosen and held on this host: the host side does (bridges, ports, the node's block of addresses). */
export interface HostChoices {
  /**
   * @param wishes  bridges with the names of their interfaces
   * @param held    what the sandbox had already: kept where it still fits
   * @throws        PortTaken, GatewayAddressesUsedUp and others
   */
  choose(
    id: string,
    request: SandboxRequest,
    wishes: readonly { readonly wish: BridgeWish; readonly interfaceName: string }[],
    held: SandboxFacts | undefined,
  ): Promise<{
    readonly bridges: readonly BridgeEndpoint[];
    readonly ports: readonly PublishedPort[];
    /** Of gw0; empty: it needs none. */
    readonly gatewayAddress: string;
  }>;
  /** What was chosen in an earlier life is held again. */
  hold(facts: SandboxFacts): Promise<void>;
  release(id: string): Promise<void>;
  /** Where the sandbox asks for names; undefined: of the host's servers. */
  resolverOf(facts: SandboxFacts): string | undefined;
  /** By which it reaches this host; undefined: by none. */
  hostAddressOf(facts: SandboxFacts): string | undefined;
}

export interface SandboxKeeperOptions {
  readonly kernel: Kernel;
  readonly model: Model;
  readonly engine: Engine;
  readonly records: SandboxRecords;
  readonly choices: HostChoices;
  readonly abilities: NetworkAbilities;
  readonly tunnelKey: () => TunnelKey | undefined;
  /** `<exec-root>/netns`. */
  readonly folder: string;
  readonly isNamespaceFile: (path: string) => Promise<boolean>;
  readonly logger: Logger;
}

const interfacesMax = 64;

export class SandboxKeeper implements Sandboxes {
  readonly #options: SandboxKeeperOptions;
  readonly #records = new Map<string, SandboxRecord>();
  /** What is under way with a sandbox, so that acts on one follow each other. */
  readonly #acts = new Map<string, Promise<unknown>>();

  private constructor(options: SandboxKeeperOptions) {
    this.#options = options;
  }

  /** Takes up sandboxes whose namespaces are there, and clears away namespaces that are nobody's. */
  static async open(options: SandboxKeeperOptions): Promise<SandboxKeeper> {
    const keeper = new SandboxKeeper(options);
    const { folder, records, model, choices, abilities } = options;
    const live = new Set<string>();
    // Without a folder there is nothing that could be taken up.
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name);
      if (await options.isNamespaceFile(path)) live.add(name);
      else await rm(path, { force: true });
    }
    for (const record of await records.all()) {
      const { facts } = record;
      keeper.#records.set(facts.id, record);
      if (abilities.refusal !== undefined) continue;
      await choices.hold(facts);
      // Without its namespace (after a reboot) it keeps what was chosen, and is built when its container starts again.
      if (live.has(facts.id)) model.sandbox(facts.id, facts);
    }
    if (abilities.refusal === undefined) await keeper.#prune(live);
    return keeper;
  }

  async #prune(live: ReadonlySet<string>): Promise<void> {
    const { kernel, model, folder, logger } = this.#options;
    for (const name of live) {
      const path = join(folder, name);
      if (this.#records.has(name) || model.namespaces.has(path)) continue;
      try {
        // The number of a VXLAN is free only when its link is gone, and the kernel takes namespaces down when it likes.
        await kernel.run(path, [{ op: "link-delete", name: "vx", ignore: ["ENODEV"] }]);
        await kernel.run("", [{ op: "namespace-delete", path, ignore: ["ENOENT"] }]);
      } catch (error) {
        logger.warn("a network namespace that is nobody's stays", { path, error });
      }
    }
  }

  async attach(id: string, request: SandboxRequest, signal: AbortSignal): Promise<Sandbox> {
    return this.#inTurn(id, async () => {
      signal.throwIfAborted();
      const { model, engine, records, abilities } = this.#options;
      if (abilities.refusal !== undefined) throw abilities.refusal;
      const before = this.#records.get(id)?.facts;
      const record: SandboxRecord = { version: 1, request, facts: await this.#decide(id, request) };
      this.#records.set(id, record);
      model.sandbox(id, record.facts);
      // Those of networks that it has left, too.
      const namespaces = new Set([
        ...this.#namespaces(record.facts),
        ...(before === undefined ? [] : this.#namespaces(before)),
      ]);
      // Both at once: what is built and has no record, because all ended in between, is cleared away at the next start.
      const building = engine.settle([...namespaces]);
      // Once the kernel has been asked, so that it works meanwhile.
      const writing = turn().then(() => records.put(record));
      const [written, built] = await Promise.allSettled([writing, building]);
      for (const part of [written, built]) if (part.status === "rejected") throw part.reason;
      signal.throwIfAborted();
      return this.#sandbox(record);
    });
  }

  /** Namespaces that a sandbox is connected in. */
  #namespaces({ namespacePath, overlays }: SandboxFacts): string[] {
    return ["", ...overlays.map(({ wish }) => overlayPath(this.#options.folder, wish.network.vni)), namespacePath];
  }

  async #decide(id: string, request: SandboxRequest): Promise<SandboxFacts> {
    if (!isSandboxId(id)) throw new SandboxInvalid(`"${id}" names no task or container`);
    if (request.networks.length > interfacesMax)
      throw new SandboxInvalid(`it wants more than ${interfacesMax} networks`);
    const held = this.#records.get(id)?.facts;
    const overlays: OverlayEndpoint[] = [];
    const bridges: { wish: BridgeWish; interfaceName: string }[] = [];
    const ids = new Set<string>();
    const interfaceNames = interfaceNamesOf(request, held);
    request.networks.forEach((wish, at) => {
      const networkId = networkIdOf(wish);
      if (ids.has(networkId)) throw new SandboxInvalid(`it wants network ${networkId} twice`);
      ids.add(networkId);
      const interfaceName = interfaceNames[at] ?? `eth${at}`;
      if (wish.kind === "bridge") bridges.push({ wish, interfaceName });
      else overlays.push({ wish, interfaceName, macAddress: this.#checkedMac(wish) });
    });
    const { choices, folder } = this.#options;
    const chosen = await choices.choose(id, request, bridges, held);
    return {
      id,
      // Of this life of the sandbox: links of the one before may still be on their way out.
      tag: held?.tag ?? randomBytes(5).toString("hex"),
      namespacePath: join(folder, id),
      gatewayAddress: chosen.gatewayAddress,
      internal: overlays.length > 0 && overlays.every(({ wish }) => wish.network.internal),
      overlays,
      bridges: chosen.bridges,
      ports: chosen.ports,
    };
  }

  #checkedMac({ network, address, address6 }: OverlayWish): string {
    const { self } = this.#options.model;
    const { encryptionRefusal } = this.#options.abilities;
    if (network.encrypted && encryptionRefusal !== undefined) {
      throw new EncryptionUnavailable(network.name, self.nodeId, encryptionRefusal);
    }
    if (self.number === 0 || self.addr === "") throw new NetworkNotReady(network.name, "this node has no number yet");
    if (network.encrypted && this.#options.tunnelKey() === undefined) {
      throw new NetworkNotReady(network.name, "this node has no key for encrypted networks yet");
    }
    const cidr = parseCidr(address);
    const subnet = parseCidr(network.subnet);
    const gateway = parseAddress(network.gateway);
    if (
      cidr === undefined ||
      subnet === undefined ||
      gateway === undefined ||
      network.vni < 1 ||
      network.vni > 0xffffff
    ) {
      throw new NetworkNotReady(network.name, "it has no addresses yet");
    }
    const value = parseAddress(cidr.address) ?? 0;
    if (value < subnet.first || value > subnet.last || value === gateway) {
      throw new SandboxInvalid(`the address ${address} is none of network ${network.name} (${network.subnet})`);
    }
    if (address6 !== undefined) {
      const value6 = parseCidr6(address6)?.value ?? -1n;
      const range6 = parseCidr6(network.subnet6 ?? "");
      if (
        range6 === undefined ||
        value6 <= range6.first ||
        value6 > range6.last ||
        parseCidr6(`${network.gateway6}/128`)?.value === value6
      ) {
        throw new SandboxInvalid(`the address ${address6} is none of network ${network.name} (${network.subnet6})`);
      }
    }
    return macOfAddress(cidr.address);
  }

  get(id: string): Sandbox | undefined {
    const record = this.#records.get(id);
    return record === undefined || !this.#options.model.sandboxes.has(id) ? undefined : this.#sandbox(record);
  }

  /** Requests of the sandboxes that are attached, for names. */
  request(id: string): SandboxRequest | undefined {
    return this.#records.get(id)?.request;
  }

  #sandbox({ request, facts }: SandboxRecord): Sandbox {
    const ends = new Map<string, SandboxEndpoint>();
    for (const { wish, interfaceName, macAddress } of facts.overlays) {
      const { id: networkId, name: networkName, gateway, gateway6 } = wish.network;
      ends.set(networkId, {
        kind: "overlay",
        networkId,
        networkName,
        interfaceName,
        ...split(wish.address),
        gateway,
        ...split6(wish.address6, gateway6),
        macAddress,
        aliases: wish.aliases,
      });
    }
    for (const { wish, interfaceName, macAddress, address, gateway, address6, gateway6 } of facts.bridges) {
      const { networkId, networkName, aliases } = wish;
      ends.set(networkId, {
        kind: "bridge",
        networkId,
        networkName,
        interfaceName,
        ...split(address),
        gateway,
        ...split6(address6, gateway6),
        macAddress,
        aliases,
      });
    }
    const order = request.networks.map((wish) => ends.get(networkIdOf(wish)));
    return {
      id: facts.id,
      namespacePath: facts.namespacePath,
      resolver: this.#options.choices.resolverOf(facts),
      hostAddress: this.#options.choices.hostAddressOf(facts),
      gatewayAddress: facts.gatewayAddress === "" ? undefined : facts.gatewayAddress,
      endpoints: order.filter((end) => end !== undefined),
      ports: facts.ports,
    };
  }

  async release(id: string): Promise<void> {
    await this.#inTurn(id, async () => {
      const { model, engine, records, choices } = this.#options;
      const record = this.#records.get(id);
      if (record === undefined) return;
      if (model.sandboxes.has(id)) {
        model.sandbox(id, undefined);
        await engine.settle(this.#namespaces(record.facts));
      }
      await choices.release(id);
      await records.remove(id);
      this.#records.delete(id);
    });
  }

  async held(): Promise<readonly string[]> {
    return [...this.#records.keys()].sort();
  }

  async #inTurn<Result>(id: string, act: () => Promise<Result>): Promise<Result> {
    const before = this.#acts.get(id) ?? Promise.resolve();
    const mine = before.catch(() => undefined).then(act); // who asked for the one before has heard
    this.#acts.set(id, mine);
    try {
      return await mine;
    } finally {
      if (this.#acts.get(id) === mine) this.#acts.delete(id);
    }
  }
}

export const overlayPath = (folder: string, vni: number): string => join(folder, `n-${vni}`);

const networkIdOf = (wish: OverlayWish | BridgeWish): string =>
  wish.kind === "overlay" ? wish.network.id : wish.networkId;

/** eth0, eth1, ... in the order of the request; what runs keeps the names that it has, whatever joins and leaves. */
function interfaceNamesOf(request: SandboxRequest, held: SandboxFacts | undefined): string[] {
  const known = new Map<string, string>();
  for (const { wish, interfaceName } of held?.overlays ?? []) known.set(wish.network.id, interfaceName);
  for (const { wish, interfaceName } of held?.bridges ?? []) known.set(wish.networkId, interfaceName);
  const kept = request.networks.map((wish) => known.get(networkIdOf(wish)));
  const taken = new Set(kept);
  let next = 0;
  return kept.map((name) => {
    if (name !== undefined) return name;
    while (taken.has(`eth${next}`)) next += 1;
    taken.add(`eth${next}`);
    return `eth${next}`;
  });
}

function split6(cidr: string | undefined, gateway: string | undefined): Pick<SandboxEndpoint, "v6"> {
  const parsed = parseCidr6(cidr ?? "");
  if (parsed === undefined || gateway === undefined) return {};
  return { v6: { address: parsed.address, prefixLength: parsed.prefixLength, gateway } };
}

function split(cidr: string): { address: string; prefixLength: number } {
  const parsed = parseCidr(cidr);
  return { address: parsed?.address ?? "", prefixLength: parsed?.prefixLength ?? 0 };
}
