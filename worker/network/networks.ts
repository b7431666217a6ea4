/** Introduces the parts of the room to each other: model, engine, netplane, sandboxes. Without netplane it only refuses. */
import { mkdir, statfs } from "node:fs/promises";
import { join } from "node:path";

import type { Random } from "../../lib/pure/prng.ts";
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { DataPlane, NetworkAbilities, NetworkRecords, RecordChange } from "./contract.ts";
import { makeBareSandboxes } from "./core/bare-sandboxes.ts";
import type { Difference, TunnelPeer } from "./core/diagnosis.ts";
import { wrongChange, wrongEndpoint, wrongPeer, wrongService } from "./core/checked.ts";
import { Model } from "./core/model.ts";
import { Overlays } from "./core/overlays.ts";
import type { MakePart, Self } from "./core/part.ts";
import { Engine, type Kernel } from "./engine.ts";
import { NetworkUnavailable } from "./errors.ts";
import { tunnelLink } from "./core/tunnel.ts";
import type { TunnelKey } from "./core/tunnel-key.ts";
import type { Wireguard } from "./netplane-types.ts";
import type { TunnelKeys } from "./tunnel-keys.ts";
import { SandboxRecords } from "./sandbox-records.ts";
import { overlayPath, SandboxKeeper, type HostChoices } from "./sandboxes.ts";

export interface NetworksOptions {
  readonly kernel: Kernel;
  /** Records that outlive a restart. */
  readonly dataDirectory: string;
  readonly tunnelKeys: TunnelKeys;
  /** Others who want something of the tunnel: another key is in use. */
  readonly onTunnelKey?: () => void;
  /** `<exec-root>/netns`. */
  readonly namespaceDirectory: string;
  /** Whether a namespace is bound there, or just a file left over. */
  readonly isNamespaceFile: (path: string) => Promise<boolean>;
  /** What else is wanted of the kernel: the host side. */
  readonly parts: readonly MakePart[];
  readonly choices: HostChoices;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

interface OwnTunnel {
  readonly keys: TunnelKeys;
  /** Another key is in use. */
  readonly onKey: () => void;
}

const nowhere: Self = { nodeId: "", number: 0, addr: "", underlayMtu: 1500 };

export class Networks implements DataPlane, AsyncDisposable {
  readonly sandboxes: SandboxKeeper;
  readonly abilities: NetworkAbilities;
  readonly #kernel: Kernel;
  readonly #model: Model;
  readonly #engine: Engine;
  readonly #records: SandboxRecords;
  readonly #tunnel: OwnTunnel;
  readonly #logger: Logger;
  #remembered: Self | undefined;
  /** Nodes that are told of and cannot be reached, as they were last in the log. */
  #strangers = "";

  private constructor(
    parts: {
      kernel: Kernel;
      model: Model;
      engine: Engine;
      records: SandboxRecords;
      sandboxes: SandboxKeeper;
      tunnel: OwnTunnel;
    },
    abilities: NetworkAbilities,
    logger: Logger,
  ) {
    this.#kernel = parts.kernel;
    this.#model = parts.model;
    this.#engine = parts.engine;
    this.#records = parts.records;
    this.sandboxes = parts.sandboxes;
    this.#tunnel = parts.tunnel;
    this.abilities = abilities;
    this.#logger = logger;
  }

  /** Takes up what is there. Nothing is removed before `replace` has told what is wanted. */
  static async open(options: NetworksOptions): Promise<Networks> {
    const { kernel, dataDirectory, namespaceDirectory: folder, parts, choices, clock, random, logger } = options;
    const records = await SandboxRecords.open(dataDirectory, logger);
    const abilities = await probe(kernel, folder);
    const namespacePath = ({ vni }: { readonly vni: number }): string => overlayPath(folder, vni);
    const tunnelKey = () => (abilities.encryptionRefusal === undefined ? options.tunnelKeys.current : undefined);
    let overlays: Overlays | undefined;
    const make: MakePart = (self, placement) =>
      (overlays = new Overlays({ self, placement, namespacePath, tunnelKey }));
    const model = new Model([...parts, make, makeBareSandboxes], (await records.self()) ?? nowhere);
    const isSandbox = (path: string): boolean => path !== "" && !/\/n-\d+$/.test(path);
    const engine = new Engine({ kernel, model, isSandbox, clock, random, logger });
    const { isNamespaceFile } = options;
    const sandboxes = await SandboxKeeper.open({
      kernel,
      model,
      engine,
      records,
      choices,
      abilities,
      tunnelKey,
      folder,
      isNamespaceFile,
      logger,
    });
    const onKey = (): void => {
      overlays?.tunnelKeyChanged();
      options.onTunnelKey?.();
    };
    const tunnel = { keys: options.tunnelKeys, onKey };
    const networks = new Networks({ kernel, model, engine, records, sandboxes, tunnel }, abilities, logger);
    if (abilities.refusal === undefined) {
      await engine.settle().catch((error: unknown) => logger.warn("networks are not yet as they were", { error }));
    }
    return networks;
  }

  get model(): Model {
    return this.#model;
  }

  async replace(records: NetworkRecords): Promise<void> {
    const keep = <Value>(list: readonly Value[], wrong: (value: Value) => string | undefined): Value[] =>
      list.filter((value) => this.#isRight(wrong(value)));
    this.#model.replace({
      nodeId: records.nodeId,
      peers: keep(records.peers, wrongPeer),
      endpoints: keep(records.endpoints, wrongEndpoint),
      services: keep(records.services, wrongService),
    });
    this.#tellStrangers();
    await this.#apply(true);
  }

  async change(changes: readonly RecordChange[]): Promise<void> {
    this.#model.change(
      changes.map((change) => (this.#isRight(wrongChange(change)) ? change : { ...change, record: undefined })),
    );
    this.#tellStrangers();
    await this.#apply(false);
  }

  #tellStrangers(): void {
    const strangers = [...this.#model.strangers.values()];
    const found = strangers.map(({ nodeId, addr }) => `${nodeId} at ${addr}`).join(", ");
    if (found !== "" && found !== this.#strangers) {
      const { addr } = this.#model.self;
      this.#logger.warn("no network leads to nodes whose frames go by another family of IP", { found, own: addr });
    }
    this.#strangers = found;
  }

  #isRight(wrong: string | undefined): boolean {
    if (wrong !== undefined) this.#logger.warn("a record of a network is left out", { found: wrong });
    return wrong === undefined;
  }

  async #apply(complete: boolean): Promise<void> {
    if (this.abilities.refusal !== undefined) return;
    const { self } = this.#model;
    const { keys, onKey } = this.#tunnel;
    if (keys.told(this.#model.peers.get(self.nodeId)?.publicKey ?? "")) onKey();
    if (self !== this.#remembered) await this.#records.putSelf(self);
    this.#remembered = self;
    if (complete) this.#engine.confirm();
    await this.#engine.settle();
  }

  /** In use; undefined: encrypted networks lead nowhere here. */
  get tunnelKey(): TunnelKey | undefined {
    return this.abilities.encryptionRefusal === undefined ? this.#tunnel.keys.current : undefined;
  }

  /** This node is in a swarm as this node: it has a key from now on. @returns what managers are to be offered; undefined: none */
  enterTunnel(nodeId: string): string | undefined {
    if (this.abilities.encryptionRefusal !== undefined) return undefined;
    const { keys, onKey } = this.#tunnel;
    const before = keys.current;
    keys.ensure(nodeId);
    if (keys.current !== before) onKey();
    return keys.offered?.publicKey;
  }

  /** A new key is offered from now on. @returns as `enterTunnel` does */
  renewTunnelKey(): string | undefined {
    this.#tunnel.keys.renew();
    return this.abilities.encryptionRefusal === undefined ? this.#tunnel.keys.offered?.publicKey : undefined;
  }

  leaveTunnel(): void {
    const { keys, onKey } = this.#tunnel;
    keys.forget();
    onKey();
  }

  /** Nodes at the other end of the tunnel, with what the kernel knows of them; undefined: nothing needs it here. */
  async tunnelPeers(): Promise<readonly TunnelPeer[] | undefined> {
    const wanted = this.#model.namespaces.get("")?.get(`wireguard ${tunnelLink}`);
    if (wanted === undefined) return undefined;
    const [found] = await this.#kernel.run("", [{ op: "wireguard-list", link: tunnelLink, ignore: ["ENODEV"] }]);
    // Of a peer in pieces the first says what is known of it, and the others what it may send from.
    const known = new Map<string, Wireguard["peers"][number]>();
    for (const peer of (found as Wireguard | null)?.peers ?? [])
      if (!known.has(peer.publicKey)) known.set(peer.publicKey, peer);
    const host = this.#model.namespaces.get("");
    return [...this.#model.peers.values()].flatMap(({ nodeId, addr, publicKey }) => {
      if (host?.get(`tunnel-peer ${tunnelLink} ${publicKey}`) === undefined) return [];
      const { handshakeSeconds, receivedBytes = 0, sentBytes = 0 } = known.get(publicKey) ?? {};
      return [{ nodeId, addr, handshakeSeconds, receivedBytes, sentBytes }];
    });
  }

  /** Where the kernel is not as it should be now. */
  async differences(): Promise<readonly Difference[]> {
    return (await this.#engine.differences()).map(({ path, change: { key, before, after } }) => ({
      namespace: path,
      what: after === undefined ? "surplus" : before === undefined ? "missing" : "wrong",
      object: key,
    }));
  }

  /** @throws NetworkNotApplied */
  async repair(): Promise<void> {
    await this.#engine.repair();
  }

  /** For what changes beside records and sandboxes: ports that became free, networks of this node. */
  async settle(): Promise<void> {
    await this.#engine.settle();
  }

  /** Everything goes on without us. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine[Symbol.asyncDispose]();
  }
}

/** linux/magic.h */
const nsfsMagic = 0x6e736673;

/** A namespace's file is one only while it is mounted. */
export async function isNamespaceFile(path: string): Promise<boolean> {
  const found = await statfs(path).catch(() => undefined);
  return found?.type === nsfsMagic;
}

/** Does once, in a namespace of its own, what networks need; so a missing right or module is known before a task comes. */
async function probe(kernel: Kernel, folder: string): Promise<NetworkAbilities> {
  const path = join(folder, "probe");
  try {
    await mkdir(folder, { recursive: true, mode: 0o711 });
    await kernel.run("", [
      { op: "namespace-delete", path, ignore: ["ENOENT", "EINVAL"] },
      { op: "namespace-add", path },
    ]);
    try {
      await kernel.run(path, [
        { op: "link-add", name: "a", kind: "veth", peer: { name: "b" } },
        { op: "link-add", name: "vx", kind: "vxlan", vni: 1, local: "127.0.0.1" },
        {
          op: "ruleset",
          text: "table ip skep {\nchain pre {\ntype nat hook prerouting priority -100; policy accept;\n}\n}\n",
        },
      ]);
      const [wireguard] = await kernel.run(path, [{ op: "wireguard-probe" }]);
      return { refusal: undefined, encryptionRefusal: wireguard === true ? undefined : "its kernel has no WireGuard" };
    } finally {
      await kernel.run("", [{ op: "namespace-delete", path, ignore: ["ENOENT"] }]);
    }
  } catch (error) {
    const refusal =
      error instanceof NetworkUnavailable
        ? error
        : new NetworkUnavailable(error instanceof Error ? error.message : String(error), error);
    return { refusal, encryptionRefusal: refusal.message };
  }
}
