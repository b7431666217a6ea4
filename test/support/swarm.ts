/**
 * Nodes of a swarm as their daemons would run them, as far as identity goes: files on disk, a renewer, and a manager where
 * the certificate says so. What the dispatcher tells nodes is told by hand (`tell`).
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join as pathOf } from "node:path";

import { IdentityFolder, Renewer, found, join, type Founded, type SwarmIdentity } from "../../daemon/identity/index.ts";
import { Random } from "../../lib/pure/prng.ts";
import { Channel } from "../../lib/rpc/index.ts";
import { createLogger, realClock, silentLogger, type Clock, type Logger } from "../../lib/runtime/index.ts";
import { Manager, type ManagerOptions, type Start } from "../../manager/manager.ts";
import { lanTimings } from "../../manager/raft/index.ts";
import { theCluster, type ClusterSchema, type Tx } from "../../manager/store/index.ts";
import { skep, trustedRoots } from "../../proto/index.ts";

export interface JoinAs {
  readonly token: string;
  readonly addresses?: readonly string[];
  readonly patienceMs?: number;
  /** Where frames go; left out: where it is advertised. */
  readonly frameAddr?: string;
}

const patienceMs = 60_000;
/** Others keep the machine or its disk busy for longer than the default allows before a leader gives up, or a process. */
const timings = { ...lanTimings, electionMs: 2000 };

export class SwarmNode {
  readonly name: string;
  readonly folder: IdentityFolder;
  readonly address: string;
  readonly dataDir: string;
  readonly renewer: Renewer;
  /** Codes of renewals that failed. */
  readonly failures: string[] = [];
  /** "removed" and the like, when its manager said so. */
  readonly out: string[] = [];
  identity: SwarmIdentity;
  manager: Manager | undefined;
  readonly #waiting = new Set<() => void>();
  readonly #swarm: Swarm;

  constructor(swarm: Swarm, name: string, identity: SwarmIdentity) {
    this.#swarm = swarm;
    this.name = name;
    this.folder = identity.folder;
    this.dataDir = pathOf(swarm.base, name, "raft");
    this.identity = identity;
    this.address = identity.settings.advertiseAddr;
    identity.onChange(() => this.reload());
    this.renewer = new Renewer({
      identity,
      clock: swarm.clock,
      random: new Random(name),
      logger: silentLogger,
      addresses: () => swarm.managers().map(({ address }) => address),
      onFailure: ({ code }) => this.failures.push(code),
    });
  }

  get nodeId(): string {
    return this.identity.nodeId;
  }

  async startManager(start: Start, more: Partial<ManagerOptions> = {}): Promise<Manager> {
    const options: ManagerOptions = {
      dataDir: this.dataDir,
      listen: this.address,
      tls: this.#material(),
      start,
      timings,
      logger: this.#swarm.logger,
      onFatal: (error) => {
        throw error;
      },
      onOut: (state) => this.out.push(state),
      daemon: {
        lock: (unlockKey) => {
          this.identity.lock(unlockKey);
          this.reload();
        },
        lockSettled: () => {
          this.identity.settleLock();
          for (const look of this.#waiting) look();
        },
        renewed: ({ certificatePem, rootsPem }) => this.identity.adoptForSameKey(certificatePem, rootsPem),
      },
      ...more,
    };
    this.manager = await Manager.open(options, AbortSignal.timeout(patienceMs));
    return this.manager;
  }

  /** Its manager reads its files again. */
  reload(): void {
    this.manager?.replaceTls(this.#material());
  }

  async stopManager(): Promise<void> {
    const { manager } = this;
    this.manager = undefined;
    await manager?.[Symbol.asyncDispose]();
  }

  /** As the dispatcher would tell it: the node object and the roots, as the leader has them now. */
  async tell(): Promise<void> {
    const { store } = await this.#swarm.leader();
    const node = store.current().get("node", this.nodeId) ?? null;
    this.renewer.heard({ node, roots: trustedRoots(theCluster(store.current())?.rootCa) });
  }

  /** Resolves when its manager next says that its log is locked as its key is, with this. */
  untilLocked(unlockKey: string | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (this.identity.unlockKey !== unlockKey) return;
        clearTimeout(limit);
        this.#waiting.delete(look);
        resolve();
      };
      const limit = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`${this.name}: its lock is not settled`));
      }, patienceMs);
      this.#waiting.add(look);
    });
  }

  channel(address = this.address): Channel {
    return this.#swarm.keep(new Channel({ address, tls: this.identity.tls, expect: { role: "manager" } }));
  }

  #material(): ManagerOptions["tls"] {
    const read = (file: string): string => readFileSync(file, "utf8");
    return {
      certificatePem: read(this.folder.certificateFile),
      privateKeyPem: read(this.folder.keyFile),
      rootsPem: read(this.folder.rootsFile),
    };
  }
}

export class Swarm implements AsyncDisposable {
  readonly base = mkdtempSync(pathOf(tmpdir(), "skep-swarm-"));
  readonly nodes: SwarmNode[] = [];
  readonly clock: Clock = realClock;
  /** What the managers of the swarm said. */
  readonly logs: { readonly message: string; readonly facts: Readonly<Record<string, unknown>> }[] = [];
  readonly #waiting = new Set<() => void>();
  readonly logger: Logger = createLogger({
    level: "info",
    destination: {
      write: (line: string) => {
        const { message, ...facts } = JSON.parse(line) as { message: string };
        this.logs.push({ message, facts });
        for (const look of this.#waiting) look();
      },
    },
  });
  readonly #channels: Channel[] = [];
  #founded: Founded | undefined;

  /** @param more  where frames to its first node go; left out: where it is advertised */
  static async found(
    spec: skep.objects.ClusterSpec.$Properties = {},
    more: Pick<JoinAs, "frameAddr"> = {},
  ): Promise<Swarm> {
    const swarm = new Swarm();
    try {
      const address = await freeAddress();
      const founded = await found({
        folder: swarm.folder("n1"),
        clock: swarm.clock,
        settings: { listenAddr: address, advertiseAddr: address, dataPathAddr: "", ...more },
        spec: skep.objects.ClusterSpec.encode({ name: "default", ...spec }).finish(),
        defaultAddrPool: ["10.0.0.0/8"],
        subnetSize: 24,
        dataPathPort: 4789,
        hostname: "host-n1",
        availability: "active",
      });
      swarm.#founded = founded;
      const { bootstrap, unlockKey } = founded;
      const first = new SwarmNode(swarm, "n1", founded.identity);
      swarm.nodes.push(first);
      await first.startManager({ kind: "init" }, { bootstrap, ...(unlockKey === undefined ? {} : { unlockKey }) });
      await swarm.until("the cluster is made", (view) => theCluster(view) !== undefined);
      founded.keep();
      return swarm;
    } catch (error) {
      await swarm[Symbol.asyncDispose]();
      throw error;
    }
  }

  get founded(): Founded {
    return this.#founded!;
  }

  get first(): SwarmNode {
    return this.nodes[0]!;
  }

  folder(name: string): IdentityFolder {
    return new IdentityFolder(pathOf(this.base, name, "swarm"));
  }

  managers(): SwarmNode[] {
    return this.nodes.filter(({ manager }) => manager !== undefined);
  }

  node(name: string): SwarmNode {
    return this.nodes.find((node) => node.name === name)!;
  }

  /** The manager that leads, when it is ready to. */
  async leader(): Promise<Manager> {
    const signal = AbortSignal.timeout(patienceMs);
    const leads = async ({ manager }: SwarmNode): Promise<Manager> => {
      await manager!.raft.whenLeadership(({ leading }) => leading, signal);
      return manager!;
    };
    return Promise.any(this.managers().map(leads));
  }

  cluster(): Readonly<skep.objects.Cluster> {
    return theCluster(this.managers()[0]!.manager!.store.current())!;
  }

  /** The join tokens in force. */
  tokens(): { readonly worker: string; readonly manager: string } {
    const { worker, manager } = this.cluster().joinTokens ?? {};
    return { worker: worker ?? "", manager: manager ?? "" };
  }

  async update(change: (tx: Tx<ClusterSchema>) => void): Promise<void> {
    const { store } = await this.leader();
    await store.update(change, { actor: "test", cause: "test" });
  }

  /** Sees every change of a manager's objects; a node's own, or the first that runs. */
  async until(
    what: string,
    holds: (view: ReturnType<Manager["store"]["current"]>) => boolean,
    by = this.managers()[0]!,
  ): Promise<void> {
    const { store } = by.manager!;
    const limit = AbortSignal.timeout(patienceMs);
    const watch = store.watch({ signal: limit });
    try {
      for await (const _ of watch) if (holds(store.current())) return;
    } finally {
      watch.close();
    }
    throw new Error(`not within ${patienceMs} ms: ${what}`);
  }

  async join(name: string, as: JoinAs): Promise<SwarmNode> {
    const address = await freeAddress();
    const identity = await join(
      {
        folder: this.folder(name),
        clock: this.clock,
        settings: {
          listenAddr: address,
          advertiseAddr: address,
          dataPathAddr: "",
          ...(as.frameAddr === undefined ? {} : { frameAddr: as.frameAddr }),
        },
        addresses: as.addresses ?? [this.managers()[0]!.address],
        token: as.token,
        availability: "active",
        description: { hostname: `host-${name}` },
        ...(as.patienceMs === undefined ? {} : { patienceMs: as.patienceMs }),
      },
      AbortSignal.timeout(patienceMs),
    );
    const node = new SwarmNode(this, name, identity);
    this.nodes.push(node);
    if (identity.role === "manager") await this.startJoined(node);
    return node;
  }

  /** Has consensus let the node's manager in. */
  async startJoined(node: SwarmNode): Promise<void> {
    const addresses = this.managers().map(({ address }) => address);
    await node.startManager({ kind: "join", addresses, replaces: 0 });
  }

  async untilVoters(count: number): Promise<void> {
    const has = (node: SwarmNode): Promise<void> =>
      new Promise((resolve, reject) => {
        const { raft } = node.manager!;
        const look = (): void => {
          if (raft.conf.voters.length !== count) return;
          clearTimeout(limit);
          stop();
          resolve();
        };
        const stop = raft.onMembers(look);
        const limit = setTimeout(() => {
          stop();
          reject(new Error(`${node.name}: not ${count} voters but ${raft.conf.voters.join()}`));
        }, patienceMs);
        look();
      });
    await Promise.all(this.managers().map(has));
  }

  /** Waits for a line with this text, from line number `from` on. */
  logged(text: string, from = 0): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (!this.logs.slice(from).some(({ message }) => message.includes(text))) return;
        clearTimeout(limit);
        this.#waiting.delete(look);
        resolve();
      };
      const limit = setTimeout(() => {
        this.#waiting.delete(look);
        const last = this.logs.slice(-5).map((line) => JSON.stringify(line));
        reject(new Error(`nobody said "${text}": ${last.join("\n")}`));
      }, patienceMs);
      this.#waiting.add(look);
      look();
    });
  }

  keep(channel: Channel): Channel {
    this.#channels.push(channel);
    return channel;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes) node.renewer.stop();
    for (const channel of this.#channels) channel[Symbol.dispose]();
    // Not one after the other with hand-overs in between: the test is over.
    await Promise.all(this.nodes.map((node) => node.stopManager()));
    rmSync(this.base, { recursive: true, force: true });
  }
}

/** Nobody else takes the port in the moment until it is listened on again, on a machine where ports go round. */
async function freeAddress(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}
