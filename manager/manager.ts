/**
 * One manager: introduces the log to the store, serves its callers, and lets itself into a cluster. The log does not know
 * objects and the store does not know consensus; they meet here.
 */
import { randomBytes, randomFillSync } from "node:crypto";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

import { hostOf, portOf } from "../lib/pure/address.ts";
import { ClusterError, invariant, isAbort } from "../lib/pure/errors.ts";
import { Random } from "../lib/pure/prng.ts";
import {
  checkCurrent,
  NodeKeyLocked,
  openPrivateKey,
  readUnlockKey,
  TlsIdentity,
  type TlsMaterial,
} from "../lib/pki/index.ts";
import { Channel, ListenFailed, RpcServer, type UnaryMethod } from "../lib/rpc/index.ts";
import { nodeFileSystem } from "../lib/runtime/file-system.ts";
import { fillFromPool, listening, realClock, sleep, TurnClock, type Logger } from "../lib/runtime/index.ts";
import { caMethods } from "../proto/ca-methods.ts";
import { controlMethods, logsMethod, sessionMethod, type skep } from "../proto/index.ts";
import { newId } from "../lib/pure/id.ts";
import { Allocator } from "./allocator/index.ts";
import { Dispatcher, serveDispatcher } from "./dispatcher/index.ts";
import {
  AuthorityService,
  Founder,
  LockKeeper,
  Revocations,
  RoleManager,
  Rotator,
  checkMember,
  makeRoot,
  type Bootstrap,
  type Lock,
  type Members,
} from "./ca/index.ts";
import { Control, serveControl } from "./control/index.ts";
import { Keys, KeysClient, keysMethods, serveKeys } from "./kv/index.ts";
import { LeaderLoops, type Loop } from "./leadership.ts";
import { LogBroker, serveLogs } from "./logs/index.ts";
import { LeaderCalls } from "./leader-calls.ts";
import { managersMethods, serveManagers } from "./managers-service.ts";
import { Orchestrator } from "./orchestrator/index.ts";
import {
  DataFolder,
  FolderUnusable,
  GrpcTransport,
  MemberQuarantined,
  Raft,
  RaftMetrics,
  changeLock,
  foundCluster,
  limitsOfDistance,
  openStorage,
  raftMethods,
  type Identity,
  type MemberLimits,
  type MemberRecord,
  type MemberTimings,
  type Owner,
  type Storage,
} from "./raft/index.ts";
import { Scheduler } from "./scheduler/index.ts";
import { addStateMetrics } from "./state-metrics.ts";
import { ObjectStore, clusterSchema, supportedLevel, type ClusterSchema } from "./store/index.ts";
import { renewOwn } from "./own-renewal.ts";
import { isUpToDate } from "./up-to-date.ts";

export type Start =
  /** Go on with what is in the data folder. */
  | { readonly kind: "resume" }
  /** Form a cluster of one, unless the folder holds a member of this cluster already. */
  | { readonly kind: "init" }
  /** Be let in by the cluster that the manager at one of `addresses` belongs to, unless that has happened already. */
  | { readonly kind: "join"; readonly addresses: readonly string[]; readonly replaces: number };

export interface ManagerOptions {
  readonly dataDir: string;
  /** HOST:PORT; port 0 takes a free one. */
  readonly listen: string;
  /** HOST:PORT at which the others reach this manager; what it listens on, unless said. */
  readonly advertise?: string;
  /** Its private key may be sealed with the unlock key. */
  readonly tls: TlsMaterial;
  readonly start: Start;
  readonly timings: MemberTimings;
  readonly limits?: Partial<MemberLimits>;
  readonly leaseReads?: boolean;
  /** Runs none of the loops of a leader: to measure consensus and store alone, with objects that nobody brings to order. */
  readonly consensusOnly?: boolean;
  /** Opens the log when it is locked (autolock), instead of the node's own key. */
  readonly unlockKey?: string;
  /** The daemon that keeps the node's key; absent, nobody does. See LockKeeper. */
  readonly daemon?: {
    lock(lock: Lock): void;
    lockSettled(): void;
    /** The certificate on disk was out of date, and this one is in force, for the same key. */
    renewed(material: Pick<TlsMaterial, "certificatePem" | "rootsPem">): void;
  };
  /** Of the cluster that this manager founds; needed until the cluster object is there. */
  readonly bootstrap?: Bootstrap;
  /** Path of a unix socket for the daemon of this node, which shows its certificate there as everybody does. */
  readonly socket?: string;
  /** HOST:PORT for Prometheus; without encryption, so loopback only. */
  readonly metrics?: string;
  readonly logger: Logger;
  /** The process must end with this code. */
  readonly onFatal: (error: Error, exitCode: number) => void;
  /** It has been removed, or must be replaced; it stays up to say so. */
  readonly onOut?: (state: "removed" | "quarantined", reason: string) => void;
}

export class MetricsAddressRefused extends ClusterError {
  readonly code = "METRICS_ADDRESS_REFUSED";
  constructor(address: string, found: string) {
    super(`Cannot serve metrics on ${address}: ${found}`, {
      fix: "Give a loopback address and a free port, such as 127.0.0.1:9090",
    });
  }
}

export class JoinFailed extends ClusterError {
  readonly code = "JOIN_FAILED";
  constructor(addresses: readonly string[], cause: unknown) {
    super(
      `Cannot join the cluster through ${addresses.join(", ")}: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        fix:
          cause instanceof ClusterError && cause.fix !== undefined
            ? cause.fix
            : "Check the address and that a majority of managers is up",
        cause,
      },
    );
  }
}

export class JoinUnfinished extends ClusterError {
  readonly code = "JOIN_UNFINISHED";
  constructor(folder: string) {
    super(`Cannot open the data folder ${folder}: its member was never let into the cluster`, {
      fix: "Start with --join ADDRESS to finish that",
    });
  }
}

export class NotAManager extends ClusterError {
  readonly code = "NOT_A_MANAGER";
  constructor(nodeId: string) {
    super(`Cannot run a manager as node ${nodeId}: its certificate is not a manager's`, {
      fix: "Promote the node first, or give the certificate of a manager",
    });
  }
}

/** All that the port of a manager answers. */
const served = [
  ...raftMethods,
  ...keysMethods,
  ...[managersMethods, controlMethods, caMethods].flatMap((methods) => Object.values(methods)),
  sessionMethod,
  logsMethod,
];

const joinPatienceMs = 60_000;
const joinRetryMs = 200;
const callTimeoutMs = 10_000;
const loopback = /^(127(\.\d{1,3}){3}|localhost|\[::1\]):\d+$/u;

export class Manager implements AsyncDisposable {
  readonly store: ObjectStore<ClusterSchema>;
  readonly raft: Raft;
  /** The port that it listens on. */
  readonly port: number;
  /** The port of the metrics, if they are served. */
  metricsPort: number | undefined;
  readonly #options: ManagerOptions;
  readonly #folder: DataFolder;
  readonly #disk: Storage;
  readonly #server: RpcServer;
  readonly #channels: Channels;
  readonly #tls: TlsIdentity;
  readonly #revocations: Revocations;
  #lockKeeper: LockKeeper | undefined;
  #loops: LeaderLoops | undefined;
  readonly #dispatcher: Dispatcher;
  readonly #logs: LogBroker;
  #metrics: Server | undefined;
  #closing: Promise<void> | undefined;
  readonly #stop = new AbortController();
  /** Of the loops that have much to do at a time: none of them makes the others' turns longer. */
  readonly #turns = new TurnClock(realClock);

  private constructor(parts: {
    options: ManagerOptions;
    folder: DataFolder;
    disk: Storage;
    server: RpcServer;
    channels: Channels;
    tls: TlsIdentity;
    port: number;
    store: ObjectStore<ClusterSchema>;
    revocations: Revocations;
    raft: Raft;
  }) {
    this.#options = parts.options;
    this.#folder = parts.folder;
    this.#disk = parts.disk;
    this.#server = parts.server;
    this.#channels = parts.channels;
    this.#tls = parts.tls;
    this.port = parts.port;
    this.store = parts.store;
    this.#revocations = parts.revocations;
    this.raft = parts.raft;
    this.#dispatcher = new Dispatcher({
      store: parts.store,
      clock: this.#turns,
      random: new Random(randomBytes(6).readUIntBE(0, 6)),
      logger: parts.options.logger,
      newId: () => newId(fillFromPool),
      managers: () => this.#addresses(),
    });
    this.#logs = new LogBroker({
      store: parts.store,
      sessions: this.#dispatcher,
      newId: () => newId(fillFromPool),
    });
  }

  /**
   * Opens the folder, forms, resumes or joins, and serves. Resolves when the manager serves and, if it joins, when the
   * cluster has let it in; who leads is known some time later (`raft.whenLeader`).
   * @throws typed errors of the folder, the disk, the keys, the certificate, the address, and JoinFailed
   */
  static async open(options: ManagerOptions, signal: AbortSignal): Promise<Manager> {
    const privateKeyPem = openPrivateKey(options.tls.privateKeyPem, options.unlockKey);
    const tls = new TlsIdentity({ ...options.tls, privateKeyPem });
    await keepCurrent(options, tls, privateKeyPem, signal);
    const { identity } = tls.certificate;
    const { clusterId, nodeId, role, memberId } = identity;
    if (role !== "manager" || memberId === undefined) throw new NotAManager(nodeId);
    if (options.metrics !== undefined && !loopback.test(options.metrics)) {
      throw new MetricsAddressRefused(options.metrics, "it is not a loopback address");
    }
    const opened = new AsyncDisposableStack();
    try {
      return await Manager.#open(options, { tls, clusterId, nodeId, memberId }, opened, signal);
    } catch (error) {
      await opened.disposeAsync().catch((closing: unknown) => {
        options.logger.warn("what was opened cannot be closed", { error: closing });
      });
      throw FolderUnusable.of(options.dataDir, error);
    }
  }

  static async #open(
    options: ManagerOptions,
    { tls, ...owner }: Owner & { readonly tls: TlsIdentity },
    opened: AsyncDisposableStack,
    signal: AbortSignal,
  ): Promise<Manager> {
    const folder = opened.use(DataFolder.open(options.dataDir, nodeFileSystem));
    const distance = limitsOfDistance(options.timings);
    // Filled below: the server is there first, since a member's port must be known before it has a store.
    const admission: { revocations: Revocations | undefined; raft: Raft | undefined } = {
      revocations: undefined,
      raft: undefined,
    };
    const standing = { why: "this manager is opening its log, and serves in a moment" };
    const server = opened.use(
      new RpcServer({
        tls,
        wallMs: () => realClock.wallMs(),
        windowBytes: distance.windowBytes,
        admit: (caller) => admission.revocations?.admit(caller),
        goesFirst: (host) => admission.raft?.members.some((member) => hostOf(member.address) === host) === true,
        opening: { methods: served, reason: () => standing.why },
        onBug: (path, error) => options.logger.error("a handler failed", { path, error }),
      }),
    );
    const channels = opened.use(new Channels(tls));
    const port = await server.listen(options.listen);
    const address = options.advertise ?? `${options.listen.slice(0, options.listen.lastIndexOf(":"))}:${port}`;
    let disputes = 0;
    const store = opened.use(
      new ObjectStore({
        schema: clusterSchema,
        nowUs: () => realClock.wallMs() * 1000,
        member: owner.memberId,
        onHashDisputed: (report) => {
          disputes++;
          options.logger.error("the managers' states differ", { ...report });
        },
      }),
    );
    const revocations = opened.use(new Revocations(store));
    admission.revocations = revocations;
    const joining = await enter(folder, owner, address, channels, options, signal);
    const quarantined = async (reason: string, through: readonly string[], cause?: unknown): Promise<never> => {
      const error = new MemberQuarantined(owner.memberId, reason, through, cause);
      standing.why = "this manager is quarantined, and must be replaced";
      if (options.metrics !== undefined) {
        const { registry } = RaftMetrics.ofQuarantined();
        const metrics = await serveMetrics(options.metrics, registry, options.logger);
        opened.defer(() => void metrics.close());
      }
      return stayQuarantined(error, folder, server, options, signal);
    };
    const kept = folder.identity?.quarantined;
    if (kept !== undefined) await quarantined(kept.reason, kept.through);
    const access = { folder, ...(options.unlockKey === undefined ? {} : { unlockKey: options.unlockKey }) };
    const onFull = (error: ClusterError): void => options.logger.error("its log waits for room on the disk", { error });
    const storage = opened.use(
      await openStorage(access, { signal, onFull }).catch((error: unknown) => {
        if (!(error instanceof ClusterError) || error.code !== "LOG_QUARANTINED") throw error;
        // Who the others are stands in the snapshot, which is not read any more.
        return quarantined(error.message, options.start.kind === "join" ? options.start.addresses : [], error);
      }),
    );
    const raft = opened.use(
      Raft.open({
        folder,
        storage,
        openTransport: (handlers, local) =>
          new GrpcTransport({
            local: { ...local, address },
            tls,
            server,
            handlers,
            snapshots: storage.snapshots,
            clock: realClock,
            limits: distance.transport,
            random: new Random(randomBytes(6).readUIntBE(0, 6)),
            logger: options.logger,
          }),
        stateMachine: store.machine,
        timings: options.timings,
        ...(options.limits === undefined ? {} : { limits: options.limits }),
        leaseReads: options.leaseReads ?? false,
        clock: realClock,
        logger: options.logger,
        peers: joining?.peers ?? [],
        onFatal: options.onFatal,
        onOut: (state, reason) => options.onOut?.(state, reason),
      }),
    );
    for (const error of storage.damaged) {
      options.logger.error("a snapshot is damaged; an older one is used", { error });
      raft.metrics.noticed("snapshotDamaged", {});
    }
    addStateMetrics(raft.metrics.registry, { hashedIndex: () => store.machine.hashedIndex, disputes: () => disputes });
    admission.raft = raft;
    store.attach(raft);
    const parts = { options, folder, disk: storage, server, channels, tls, port, store, revocations, raft };
    const manager = new Manager(parts);
    manager.#serve();
    invariant(server.awaited.length === 0, "what was announced is served", { awaited: server.awaited });
    // Only now: the daemon takes an answer of this socket for the manager's last word.
    if (options.socket !== undefined) await listenOnSocket(server, options.socket);
    if (options.metrics !== undefined) {
      manager.#metrics = await serveMetrics(options.metrics, raft.metrics.registry, options.logger);
      manager.metricsPort = (manager.#metrics.address() as AddressInfo).port;
    }
    // Only now, when the leader's first word can be taken.
    if (joining !== undefined) {
      const dataIncarnation = folder.identity?.incarnation ?? "";
      const request = { address, dataIncarnation, featureLevel: supportedLevel, replaces: joining.replaces };
      await ask(managersMethods.join, request, joining.addresses, channels, signal);
      folder.joined();
    }
    opened.move();
    return manager;
  }

  get folder(): Identity | undefined {
    return this.#folder.identity;
  }

  status(): skep.control.IStatusResponse {
    const identity = this.#folder.identity;
    const status = this.raft.status();
    return {
      clusterId: identity?.clusterId ?? "",
      memberId: identity?.memberId ?? 0,
      clusterIncarnation: identity?.clusterIncarnation ?? 0,
      state: this.raft.state,
      role: status?.role ?? "follower",
      term: status?.term ?? 0,
      leaderId: status?.leader ?? 0,
      leaderAddress: this.raft.leadership().leader ?? "",
      commit: status?.commit ?? 0,
      applied: status?.applied ?? 0,
      firstIndex: status?.firstIndex ?? 0,
      lastIndex: status?.lastIndex ?? 0,
      snapshotIndex: status?.snapshotIndex ?? 0,
      featureLevel: this.store.featureLevel,
      stateHash: this.store.machine.stateHash(),
      managers: this.#managers(),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /**
   * The node's certificate was renewed, others are trusted now, or its key was sealed or opened.
   * @throws CertificateInvalid, PrivateKeyInvalid, UnlockKeyWrong; then everything is as before
   */
  replaceTls(material: TlsMaterial): void {
    const privateKeyPem = openWithAny(material.privateKeyPem, this.#lockKeeper?.candidates ?? []);
    this.#tls.replace({ ...material, privateKeyPem });
    this.#channels.renew();
    this.#lockKeeper?.keyFileWritten(material.privateKeyPem);
  }

  /** In reverse: callers first get their answers from who takes over, the disk is closed last. */
  async #close(): Promise<void> {
    await this.#loops?.[Symbol.asyncDispose]();
    await this.raft[Symbol.asyncDispose]();
    await this.#disk[Symbol.asyncDispose]();
    this.#stop.abort();
    this.#metrics?.close();
    this.#lockKeeper?.[Symbol.dispose]();
    this.#revocations[Symbol.dispose]();
    await this.store[Symbol.asyncDispose]();
    this.#channels[Symbol.dispose]();
    await this.#server[Symbol.asyncDispose]();
    this.#folder[Symbol.dispose]();
  }

  #serve(): void {
    const keys = new Keys(this.store, (leader, request, done) => this.#channels.keys(leader).send(request, done));
    serveKeys(this.#server, keys, this.store);
    const leader = new LeaderCalls({
      whenLeader: (signal) => this.raft.whenLeader(signal),
      channelTo: (address) => this.#channels.to(address),
    });
    const control = new Control({
      store: this.store,
      isUpToDate,
      newId: () => newId(fillFromPool),
      newKey: () => randomBytes(32),
    });
    serveControl(this.#server, { control, store: this.store, leader, logs: this.#logs });
    serveManagers(this.#server, {
      raft: this.raft,
      status: () => this.status(),
      leader,
      checkMember: (nodeId, memberId) => checkMember(this.store.current(), nodeId, memberId),
      reportLevel: (member, level, signal) => this.#reportLevel(member, level, signal),
      forgetLevel: (member, signal) => this.store.removeMember(member, signal),
    });
    const logger = this.#options.logger.child("ca");
    const { store } = this;
    new AuthorityService({ store, clock: realClock, logger, random: fillRandomly, leader }).serve(this.#server);
    const { daemon, unlockKey } = this.#options;
    this.#lockKeeper = new LockKeeper({
      store,
      clock: realClock,
      random: new Random(randomBytes(6).readUIntBE(0, 6)),
      logger,
      inForce: this.#disk.locked ? unlockKey : undefined,
      keyPem: this.#options.tls.privateKeyPem,
      locks: {
        announce: daemon === undefined ? undefined : (lock) => daemon.lock(lock),
        settled: () => daemon?.lockSettled(),
        change: (lock, done) => {
          changeLock(this.#folder, this.#disk, lock).then(
            () => {
              done(undefined);
              if (lock !== undefined) this.#rotateDataKey();
            },
            (error: unknown) => done(error as Error),
          );
        },
      },
    });
    // Whoever may lead next is connected to already, so that a fail-over does not wait for a handshake.
    const warm = (): void => {
      const addresses = this.raft.members.filter(({ id }) => id !== this.raft.memberId).map((member) => member.address);
      for (const address of addresses) if (address !== "") this.#channels.keys(address).warm();
      this.#channels.keepOnly(new Set(addresses));
    };
    this.raft.onMembers(warm);
    this.raft.onLeadership(warm);
    serveDispatcher(this.#server, this.#dispatcher);
    serveLogs(this.#server, this.#logs);
    this.raft.onMembers(() => this.#dispatcher.managersChanged());
    warm();
    this.#loops = new LeaderLoops(this.store, this.#options.consensusOnly === true ? [] : this.#leaderLoops());
    this.#loops.open();
    // A leader answers for its own program too, and lets the cluster use what all of them understand.
    this.raft.onLeadership(({ leading }) => {
      if (leading) this.#raiseLevel().catch((error: unknown) => this.#quietly("feature level", error));
    });
  }

  /** In the order in which a leader starts them: what a loop makes, a later one takes up. */
  #leaderLoops(): readonly Loop[] {
    const { store } = this;
    const { logger, bootstrap, unlockKey } = this.#options;
    const parts = { store, clock: realClock, logger };
    const draw = (count: number): Uint8Array => new Uint8Array(randomBytes(count));
    const key = unlockKey === undefined ? undefined : readUnlockKey(unlockKey);
    return [
      ...(bootstrap === undefined ? [] : [new Founder({ ...parts, bootstrap, unlockKey: key, draw })]),
      new Rotator({ ...parts, draw, makeRoot }),
      new RoleManager({ ...parts, members: this.#membersPort(), seed: randomBytes(8).toString("hex") }),
      new Allocator({ ...parts, clock: this.#turns, newId: () => newId(fillFromPool) }),
      new Orchestrator({ ...parts, clock: this.#turns, newId: () => newId(fillFromPool) }),
      new Scheduler({ ...parts, clock: this.#turns, seed: randomBytes(8).toString("hex") }),
      this.#dispatcher,
    ];
  }

  /** Consensus as the role manager needs it. */
  #membersPort(): Members {
    const { raft } = this;
    const settle = (act: Promise<unknown>, done: (error: Error | undefined) => void): void => {
      act.then(
        () => done(undefined),
        (error: unknown) => done(error as Error),
      );
    };
    return {
      self: raft.memberId,
      list: () =>
        this.#managers().map(({ id, nodeId, address, leader, reachable }) => ({
          id: id ?? 0,
          nodeId: nodeId ?? "",
          address: address ?? "",
          leader: leader ?? false,
          reachable: id === raft.memberId || (reachable ?? false),
        })),
      wasRemoved: (memberId) => raft.wasRemoved(memberId),
      remove: (memberId, done) => {
        const remove = async (): Promise<void> => {
          await raft.remove(memberId, false, this.#stop.signal);
          await this.store.removeMember(memberId, this.#stop.signal);
        };
        settle(remove(), done);
      },
      handOver: (done) => settle(raft.transfer(), done),
      onChange: (listener) => raft.onMembers(listener),
    };
  }

  /** It counts before the member does, so that no level is raised that the member does not understand. */
  async #reportLevel(member: number, level: number, signal: AbortSignal): Promise<void> {
    await this.store.reportMember({ member, level }, signal);
  }

  async #raiseLevel(): Promise<void> {
    await this.#reportLevel(this.raft.memberId, supportedLevel, this.#stop.signal);
    // A leader that removed itself could not forget itself: it would count for levels and in votes on hashes for ever.
    for (const member of this.store.machine.recordedMembers()) {
      if (this.raft.wasRemoved(member)) await this.store.removeMember(member, this.#stop.signal);
    }
    if (this.store.featureLevel < supportedLevel) await this.store.raiseLevel(supportedLevel, this.#stop.signal);
  }

  /** Who knew the lock of before, or had the disk before there was one, reads nothing that is written from now on. */
  #rotateDataKey(): void {
    this.raft.rotateKey(this.#stop.signal).catch((error: unknown) => this.#quietly("data key", error));
  }

  #quietly(what: string, error: unknown): void {
    if (isAbort(error)) return;
    const code = error instanceof ClusterError ? error.code : "";
    // Another leads by now and does it, or a manager is older: both pass by themselves.
    this.#options.logger.info("not now", { what, code });
    if (!(error instanceof ClusterError)) this.#options.logger.error("failed", { what, error });
  }

  /** Of all managers, as agents reach them. */
  #addresses(): skep.dispatcher.ManagerAddress.$Properties[] {
    const { leader } = this.raft.leadership();
    return this.raft.members.map(({ nodeId, address }) => ({ nodeId, addr: address, leader: address === leader }));
  }

  #managers(): skep.control.IManager[] {
    const { leader, peers, commit } = this.raft.status() ?? { leader: 0, peers: new Map(), commit: 0 };
    const { voters } = this.raft.conf;
    return this.raft.members.map(({ id, nodeId, address }) => {
      const progress = peers.get(id) as { match: number; recentActive: boolean } | undefined;
      return {
        id,
        nodeId,
        address,
        voter: voters.includes(id),
        leader: id === leader,
        behind: progress === undefined ? 0 : Math.max(0, commit - progress.match),
        reachable: progress?.recentActive ?? false,
      };
    });
  }
}

/** @throws MetricsAddressRefused */
async function serveMetrics(address: string, registry: RaftMetrics["registry"], logger: Logger): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.method !== "GET" || request.url !== "/metrics") {
      response.writeHead(404).end("only GET /metrics is served here\n");
      return;
    }
    registry.metrics().then(
      (text) => response.writeHead(200, { "content-type": registry.contentType }).end(text),
      (error: unknown) => {
        logger.error("metrics failed", { error });
        response.writeHead(500).end();
      },
    );
  });
  try {
    await listening(server, { host: hostOf(address), port: portOf(address) }, () => {}); // it is asked again
  } catch (error) {
    throw new MetricsAddressRefused(address, (error as Error).message);
  }
  server.unref();
  return server;
}

/** @throws CertificateExpired, CertificateNotYetValid, and what the other managers answer (own-renewal.ts) */
async function keepCurrent(
  { dataDir, unlockKey, logger, daemon, ...options }: ManagerOptions,
  tls: TlsIdentity,
  privateKeyPem: string,
  signal: AbortSignal,
): Promise<void> {
  const nowMs = realClock.wallMs();
  try {
    checkCurrent(tls, nowMs);
  } catch (error) {
    if (daemon === undefined || !(error instanceof ClusterError)) throw error;
    const material = { ...options.tls, privateKeyPem };
    const renewed = await renewOwn({ dataDir, tls, material, unlockKey, nowMs, logger }, error, signal);
    tls.replace(renewed);
    daemon.renewed({ certificatePem: renewed.certificatePem, rootsPem: renewed.rootsPem });
  }
}

/** @throws UnlockKeyWrong, NodeKeyLocked when none of them fits */
function openWithAny(keyPem: string, locks: readonly Lock[]): string {
  let failure: unknown;
  for (const lock of locks) {
    try {
      return openPrivateKey(keyPem, lock);
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure ?? new NodeKeyLocked();
}

const fillRandomly = (bytes: Uint8Array): void => void randomFillSync(bytes);

/**
 * A socket of that name that a killed process left is in the way, and nobody's any more: the data folder is locked.
 * @throws ListenFailed
 */
async function listenOnSocket(server: RpcServer, path: string): Promise<void> {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    throw new ListenFailed(`unix:${path}`, (error as Error).message);
  }
  await server.listen(`unix:${path}`);
  chmodSync(path, 0o600);
}

/** One channel and one stream of requests to each manager that was ever asked. */
class Channels implements Disposable {
  readonly #tls: TlsIdentity;
  readonly #open = new Map<string, { readonly channel: Channel; keys: KeysClient | undefined }>();

  constructor(tls: TlsIdentity) {
    this.#tls = tls;
  }

  to(address: string): Channel {
    return this.#at(address).channel;
  }

  /** Connections of before would go on with the old certificate whenever they are made anew. */
  renew(): void {
    this[Symbol.dispose]();
  }

  keys(address: string): KeysClient {
    const at = this.#at(address);
    at.keys ??= new KeysClient(at.channel);
    return at.keys;
  }

  /** Closes streams to managers that are no more, or elsewhere now; what was only asked now and then stays open. */
  keepOnly(addresses: ReadonlySet<string>): void {
    for (const [address, { channel, keys }] of this.#open) {
      if (keys === undefined || addresses.has(address)) continue;
      this.#open.delete(address);
      keys[Symbol.dispose]();
      channel[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    for (const { channel, keys } of this.#open.values()) {
      keys?.[Symbol.dispose]();
      channel[Symbol.dispose]();
    }
    this.#open.clear();
  }

  #at(address: string): { readonly channel: Channel; keys: KeysClient | undefined } {
    let found = this.#open.get(address);
    if (found === undefined) {
      const channel = new Channel({ address, tls: this.#tls, expect: { role: "manager" } });
      found = { channel, keys: undefined };
      this.#open.set(address, found);
    }
    return found;
  }
}

/**
 * This member's log or state cannot be trusted (row 31): it takes no part, and does not end either, since it would only be
 * started again. It stays up to tell so until it is stopped.
 */
async function stayQuarantined(
  error: MemberQuarantined,
  folder: DataFolder,
  server: RpcServer,
  options: ManagerOptions,
  signal: AbortSignal,
): Promise<never> {
  const { clusterId, memberId } = folder.identity ?? { clusterId: "", memberId: 0 };
  server.unary(managersMethods.status, () => Promise.resolve({ clusterId, memberId, state: "quarantined" }));
  options.logger.error("quarantined: this manager must be replaced", { error });
  options.onOut?.("quarantined", `${error.message}. ${error.fix}`);
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    else signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}

interface Joining {
  readonly addresses: readonly string[];
  readonly replaces: number;
  /** Who is a manager by now, so that the new one knows whom it may meet before it has any log. */
  readonly peers: readonly { readonly id: number; readonly address: string }[];
}

/** Makes the folder this member's. @returns what is left to do for one that joins */
async function enter(
  folder: DataFolder,
  owner: Owner,
  address: string,
  channels: Channels,
  options: ManagerOptions,
  signal: AbortSignal,
): Promise<Joining | undefined> {
  const { start } = options;
  const isNew = folder.identity === undefined;
  if (start.kind === "resume" || !isNew) {
    const { standing } = folder.resume(owner);
    if (standing === "member") return undefined;
    if (start.kind !== "join") throw new JoinUnfinished(options.dataDir);
  } else if (start.kind === "init") {
    const { incarnation } = folder.create(owner, "member", 1);
    const founder: MemberRecord = {
      id: owner.memberId,
      address,
      nodeId: owner.nodeId,
      labels: {},
      autoPromote: true,
      featureLevel: supportedLevel,
      dataIncarnation: incarnation,
    };
    const empty = new ObjectStore({ schema: clusterSchema, nowUs: () => 0, member: owner.memberId });
    const access = { folder, ...(options.unlockKey === undefined ? {} : { unlockKey: options.unlockKey }) };
    foundCluster(access, founder, empty.machine);
    return undefined;
  }
  const { addresses, replaces } = start;
  const { managers, clusterIncarnation } = await ask(managersMethods.status, {}, addresses, channels, signal);
  if (isNew) folder.create(owner, "joining", clusterIncarnation ?? 1);
  const peers = (managers ?? []).map((manager) => ({ id: manager.id ?? 0, address: manager.address ?? "" }));
  return { addresses, replaces, peers };
}

/** Asks one after the other, and again while none is reachable or no leader is known. @throws JoinFailed */
async function ask<Request, Response>(
  method: UnaryMethod<Request, Response>,
  request: Request,
  addresses: readonly string[],
  channels: Channels,
  signal: AbortSignal,
): Promise<Response> {
  const untilMs = realClock.monotonicMs() + joinPatienceMs;
  for (;;) {
    let last: unknown;
    for (const address of addresses) {
      try {
        return await channels.to(address).call(method, request, { timeoutMs: callTimeoutMs, signal });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof ClusterError) || !passing.has(error.code)) throw new JoinFailed(addresses, error);
        last = error;
      }
    }
    if (realClock.monotonicMs() > untilMs) throw new JoinFailed(addresses, last);
    await sleep(realClock, joinRetryMs, signal);
  }
}

/** What may be otherwise in a moment. */
const passing = new Set([
  "RPC_UNAVAILABLE",
  "RPC_DEADLINE_EXCEEDED",
  "RPC_FAILED",
  "NOT_LEADER",
  "NO_LEADER",
  "RAFT_NO_LEADER",
  "RAFT_LED_ELSEWHERE",
  "RAFT_CONF_CHANGE_PENDING",
  "RAFT_TERM_UNCOMMITTED",
  "RAFT_CHANGE_UNKNOWN",
  "OUTCOME_UNKNOWN",
]);
