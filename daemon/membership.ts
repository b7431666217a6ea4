/**
 * This node's life in a swarm: in none, entering one, in it as worker or manager, locked, or shut out. It owns the
 * identity, the manager's process and the agent, and starts and stops them as the role says.
 */
import { chmodSync, chownSync, mkdirSync } from "node:fs";

import { hostOf } from "../lib/pure/address.ts";
import { ClusterError, isAbort } from "../lib/pure/errors.ts";
import type { Random } from "../lib/pure/prng.ts";
import { UnlockKeyWrong } from "../lib/pki/index.ts";
import { Channel } from "../lib/rpc/index.ts";
import { deadline, removeFolder, sleep, type Clock, type Logger } from "../lib/runtime/index.ts";
import type { Bootstrap } from "../manager/ca/index.ts";
import type { skep } from "../proto/index.ts";
import type { InitRequest, JoinRequest, Swarm, SwarmState } from "../api/ports.ts";
import {
  advertiseAddress,
  checkFramePort,
  listenAddress,
  listenFor,
  withDefaultPort,
  type Family,
  type Interfaces,
} from "./addresses.ts";
import {
  found,
  frameAddressIn,
  IdentityFolder,
  join,
  Renewer,
  SwarmIdentity,
  type SwarmSettings,
} from "./identity/index.ts";
import { ManagerChild, ManagerFailed, runManagerCommand } from "./manager-child.ts";

type Addresses = Pick<InitRequest, "listenAddr" | "advertiseAddr" | "dataPathAddr">;

export class AlreadyInSwarm extends ClusterError {
  readonly code = "ALREADY_IN_SWARM";
  constructor() {
    super('This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.', {
      fix: "Leave first: skep swarm leave",
    });
  }
}

export class NotInSwarm extends ClusterError {
  readonly code = "NOT_IN_SWARM";
  constructor() {
    super("This node is not part of a swarm", { fix: "Make one with `skep swarm init`, or join one" });
  }
}

export class NotASwarmManager extends ClusterError {
  readonly code = "NOT_A_SWARM_MANAGER";
  constructor() {
    super("This node is not a swarm manager", { fix: "Ask a manager, or promote this node" });
  }
}

export class SwarmLocked extends ClusterError {
  readonly code = "SWARM_LOCKED";
  constructor() {
    super("Swarm is encrypted and needs to be unlocked before it can be used", { fix: "Use `skep swarm unlock`" });
  }
}

export class NotLocked extends ClusterError {
  readonly code = "NOT_LOCKED";
  constructor() {
    super("swarm is not locked", { fix: "There is nothing to unlock" });
  }
}

export class LeaveNeedsForce extends ClusterError {
  readonly code = "LEAVE_NEEDS_FORCE";
  constructor(managers: number) {
    const last = managers <= 1;
    super(
      "You are attempting to leave the swarm on a node that is participating as a manager. " +
        (last
          ? "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
          : `Removing this node leaves ${managers - 1} managers out of ${managers}. ` +
            (managers - 1 <= managers / 2 ? "Without a Raft quorum your swarm will be inaccessible. " : "") +
            "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. " +
            "Use `--force` to suppress this message."),
      { fix: "Demote the node first, or leave with --force" },
    );
  }
}

export class JoinTimedOut extends ClusterError {
  readonly code = "JOIN_TIMED_OUT";
  constructor() {
    super(
      "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. " +
        'Use the "docker info" command to see the current swarm status of your node.',
      { fix: "Look at `skep info` for the state, and at the daemon's log for the reason" },
    );
  }
}

export class ManagerStartTimedOut extends ClusterError {
  readonly code = "MANAGER_START_TIMED_OUT";
  constructor() {
    super(`Cannot start this node's manager: it was not done within ${startMs / 1000} s, and all is as it was before`, {
      fix: "Look at the daemon's log for what it waits for, and try again",
    });
  }
}

/** The agent, as this room needs it. */
export interface NodeAgent extends AsyncDisposable {
  start(): void;
  /** A manager may be there now: it looks at once, unless it is in touch with one already. */
  look(): void;
  /** Resolves when the node is ready in the cluster. */
  joined(signal: AbortSignal): Promise<void>;
  /** Stops, and removes every task of this node: it is no node any more. */
  abandon(signal: AbortSignal): Promise<void>;
}

export interface AgentEvents {
  readonly onNode: (update: skep.dispatcher.NodeUpdate.$Properties) => void;
  /** The cluster does not know this node any more. */
  readonly onRemoved: (message: string) => void;
  readonly onManagers: (managers: readonly { readonly nodeId: string; readonly addr: string }[]) => void;
}

export interface MembershipOptions {
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly defaultAdvertiseAddr: string | undefined;
  readonly hostname: string;
  readonly interfaces: () => Interfaces;
  readonly managerCommand: readonly [string, ...string[]];
  readonly managerUser: { readonly uid: number; readonly gid: number } | undefined;
  readonly managerArgs: readonly string[];
  readonly openAgent: (identity: SwarmIdentity, events: AgentEvents) => NodeAgent;
  /** Resolves when the cluster that the manager behind this channel leads has been made. */
  readonly clusterExists: (channel: Channel, signal: AbortSignal) => Promise<boolean>;
  readonly countManagers: (channel: Channel, signal: AbortSignal) => Promise<number>;
  readonly describe: () => Promise<skep.objects.NodeDescription.$Properties>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Docker's patience with `swarm join`, which goes on in the background. */
const enterMs = 20_000;
/** Of what is undone when it is not done by then: a manager on a machine that is slow or busy takes a minute to start. */
const startMs = 120_000;
const pollMs = 10;
/** What `info` shows of a certificate that could not be renewed. */
const tellingCodes: ReadonlySet<string> = new Set([
  "CERTIFICATE_EXPIRED",
  "REINSTATEMENT_REFUSED",
  "NODE_REVOKED",
  "NODE_UNKNOWN",
]);
/** How long after a refusal of the disk it is tried again. */
const persistAgainMs = 1000;
/** What this node's files are told by its manager, and what to say while it cannot be written. */
const persistProblems = {
  lock: "the key of this node could not be locked otherwise yet",
  "settled lock": "the unlock key of before could not be forgotten yet",
  certificate: "the certificate of this node could not be written yet",
  managers: "who the managers are could not be written yet",
} as const;
type Persisted = keyof typeof persistProblems;
/** How long a request waits for a manager that is starting. */
const readyMs = 10_000;

/** What the manager is told when it starts, and nobody else. */
interface Secrets {
  readonly bootstrap?: Bootstrap;
  readonly unlockKey?: string | undefined;
}

type Phase = "inactive" | "pending" | "active" | "locked" | "error";

export class Membership implements Swarm, AsyncDisposable {
  readonly #options: MembershipOptions;
  readonly #folder: IdentityFolder;
  #phase: Phase = "inactive";
  #error = "";
  /** Why this node's certificate, which has ended, was not renewed. */
  #certificateError = "";
  #identity: SwarmIdentity | undefined;
  #child: ManagerChild | undefined;
  /** The consensus member that it is. */
  #childMemberId: number | undefined;
  #agent: NodeAgent | undefined;
  #renewer: Renewer | undefined;
  #channel: Channel | undefined;
  #unwatch: (() => void) | undefined;
  /** What the manager had written last, of each kind: only the last word counts. */
  readonly #persisted = new Map<Persisted, () => void>();
  /** One of init, join, leave, unlock and role changes at a time. */
  #turn: Promise<void> = Promise.resolve();
  /** The daemon ends. */
  readonly #stop = new AbortController();

  constructor(options: MembershipOptions) {
    this.#options = options;
    const { managerUser } = options;
    this.#folder = new IdentityFolder(`${options.dataRoot}/swarm`, {
      prepare: (path) => {
        // The manager reads its key itself; root reads everything anyway.
        if (managerUser !== undefined) chownSync(path, managerUser.uid, managerUser.gid);
      },
    });
  }

  /** Takes up what this node was before. @throws IdentityDamaged */
  resume(): void {
    const standing = this.#folder.standing();
    if (standing === "locked") this.#phase = "locked";
    if (standing !== "ready") return;
    const identity = SwarmIdentity.open(this.#folder);
    if (identity !== undefined) this.#enter(identity, { start: this.#joinArgs(identity), secrets: {} });
  }

  state(): SwarmState {
    const identity = this.#identity;
    return {
      state: this.#phase,
      nodeId: identity?.nodeId ?? "",
      clusterId: identity?.clusterId ?? "",
      nodeAddr: identity === undefined ? "" : hostOf(identity.settings.advertiseAddr),
      manager: this.#child !== undefined,
      error: this.#error || this.#childFailure() || this.#certificateError,
      remoteManagers: identity?.managers ?? [],
    };
  }

  init(request: InitRequest, signal: AbortSignal): Promise<string> {
    return this.#exclusively(async () => {
      if (request.forceNewCluster) return this.#forceNewCluster(request, signal);
      if (this.#phase !== "inactive") throw new AlreadyInSwarm();
      const settings = this.#settingsOf(request);
      checkFramePort(request.dataPathPort);
      this.#wipeManager();
      const { clock, hostname } = this.#options;
      const founded = await found({
        folder: this.#folder,
        clock,
        settings,
        spec: request.spec,
        defaultAddrPool: request.defaultAddrPool,
        subnetSize: request.subnetSize,
        dataPathPort: request.dataPathPort,
        hostname,
        availability: request.availability,
      });
      const { identity, bootstrap, unlockKey } = founded;
      const limit = deadline(clock, startMs, signal, () => new ManagerStartTimedOut());
      try {
        this.#enter(identity, { start: ["--init"], secrets: { bootstrap, unlockKey } });
        await this.#clusterServes(limit.signal);
        founded.keep();
        await this.#agent?.joined(limit.signal);
      } catch (error) {
        await this.#exit();
        identity.wipe();
        this.#wipeManager();
        this.#phase = "inactive";
        throw error;
      } finally {
        limit[Symbol.dispose]();
      }
      this.#phase = "active";
      return identity.nodeId;
    });
  }

  join(request: JoinRequest, signal: AbortSignal): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#phase !== "inactive") throw new AlreadyInSwarm();
      const { clock } = this.#options;
      const settings = this.#settingsOf(request);
      this.#wipeManager();
      this.#phase = "pending";
      const limit = deadline(clock, enterMs, signal, () => new JoinTimedOut());
      try {
        let identity;
        try {
          const about = {
            folder: this.#folder,
            settings,
            addresses: request.remoteAddrs.map(withDefaultPort),
            token: request.joinToken,
            availability: request.availability,
            description: await this.#options.describe(),
            clock,
          };
          identity = await join(about, limit.signal).catch((error: unknown) => {
            const otherwise = this.#settingsOfOtherFamily(error, request, settings);
            return join({ ...about, settings: otherwise }, limit.signal);
          });
        } catch (error) {
          this.#phase = "inactive";
          throw error;
        }
        // From here on this node is in the cluster, whatever its patience.
        this.#enter(identity, { start: this.#joinArgs(identity), secrets: {} });
        await this.#child?.serving(limit.signal);
        await this.#agent?.joined(limit.signal);
        this.#phase = "active";
      } finally {
        limit[Symbol.dispose]();
      }
    });
  }

  leave(force: boolean, signal: AbortSignal): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#phase === "inactive") throw new NotInSwarm();
      if (this.#phase === "locked" && !force) throw new SwarmLocked();
      if (this.#child !== undefined && !force) throw new LeaveNeedsForce(await this.#managerCount(signal));
      // First the tasks, while their names and networks are known; then everything else. Its tasks are lost once that has
      // begun, so it goes on when whoever asked has gone: half left, the node would take no task, and never come back.
      await this.#agent?.abandon(this.#stop.signal);
      await this.#exit();
      this.#folder.wipe();
      this.#wipeManager();
      removeFolder(this.#backupsFolder);
      this.#phase = "inactive";
      this.#error = "";
      this.#options.logger.info("left the swarm");
    });
  }

  unlock(key: string, signal: AbortSignal): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#phase !== "locked") throw new NotLocked();
      const identity = SwarmIdentity.open(this.#folder, key);
      if (identity === undefined) throw new NotInSwarm();
      this.#enter(identity, { start: this.#joinArgs(identity), secrets: { unlockKey: key } });
      const limit = deadline(this.#options.clock, startMs, signal, () => new ManagerStartTimedOut());
      try {
        await this.#child?.serving(limit.signal);
      } catch (error) {
        await this.#exit();
        this.#phase = "locked";
        throw error instanceof ManagerFailed && error.managerCode === "KEY_WRONG" ? new UnlockKeyWrong() : error;
      } finally {
        limit[Symbol.dispose]();
      }
    });
  }

  control(): Channel {
    if (this.#phase === "inactive") throw new NotInSwarm();
    if (this.#phase === "locked") throw new SwarmLocked();
    const identity = this.#identity;
    if (identity === undefined || this.#child === undefined) throw new NotASwarmManager();
    this.#channel ??= new Channel({
      address: `unix:${this.#socket}`,
      tls: identity.tls,
      expect: { role: "manager", nodeId: identity.nodeId },
    });
    return this.#channel;
  }

  async ready(signal: AbortSignal): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const limit = deadline(this.#options.clock, readyMs, signal, () => new JoinTimedOut());
    try {
      await child.settled(limit.signal);
    } catch (error) {
      // It takes too long: then the call itself tells what is wrong.
      if (!(error instanceof JoinTimedOut)) throw error;
    } finally {
      limit[Symbol.dispose]();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#turn;
    await this.#exit();
  }

  // ------------------------------------------------------------------------------------------------- starting, stopping

  get #socket(): string {
    return `${this.#options.execRoot}/manager/control.sock`;
  }

  get #raftFolder(): string {
    return `${this.#options.dataRoot}/swarm/raft`;
  }

  /** Copies of the raft folder from before it was made a cluster of its own; they go when the node leaves. */
  get #backupsFolder(): string {
    return `${this.#options.dataRoot}/swarm/backups`;
  }

  /** Everything that a node in a swarm runs. */
  #enter(identity: SwarmIdentity, manager: { readonly start: readonly string[]; readonly secrets: Secrets }): void {
    const { logger } = this.#options;
    this.#identity = identity;
    this.#phase = "pending";
    this.#error = "";
    this.#certificateError = "";
    if (identity.role === "manager") this.#startManager(identity, manager.start, manager.secrets);
    const agent = this.#options.openAgent(identity, {
      onNode: (update) => this.#renewer?.heard(update),
      onRemoved: (message) => {
        this.#phase = "error";
        this.#error = message;
        logger.error("this node was removed from the swarm", { message });
      },
      onManagers: (managers) => this.#persist("managers", identity, () => identity.remember(managers)),
    });
    this.#agent = agent;
    agent.start();
    const { clock, random } = this.#options;
    this.#renewer = new Renewer({
      identity,
      clock,
      random,
      logger,
      // A manager that is starting sees to its own certificate.
      reinstates: () => this.#child === undefined || this.#child.state.kind === "serving",
      onFailure: (error) => {
        if (this.#identity === identity && tellingCodes.has(error.code)) this.#certificateError = error.message;
      },
      addresses: () => [
        ...(this.#child === undefined ? [] : [`unix:${this.#socket}`]),
        ...identity.managers.map(({ addr }) => addr),
      ],
    });
    this.#renewer.start();
    this.#unwatch = identity.onChange((change) => {
      this.#certificateError = "";
      if (change === "certificate") this.#followSoon(identity);
      else this.#child?.reload();
    });
    // Nobody waits for this one: a node that starts is "pending" until it is in touch with the cluster.
    const gone = new AbortController();
    const before = this.#unwatch;
    this.#unwatch = () => {
      gone.abort();
      before();
    };
    agent.joined(gone.signal).then(
      () => {
        if (this.#identity === identity && this.#phase === "pending") this.#phase = "active";
      },
      (error: unknown) => {
        if (!isAbort(error) && !gone.signal.aborted) logger.error("the agent ended", { error });
      },
    );
  }

  #startManager(identity: SwarmIdentity, start: readonly string[], secrets: Secrets): void {
    const { managerUser, managerCommand, managerArgs, clock, random, logger, execRoot } = this.#options;
    // The manager finds its files in it, and cannot list it.
    chmodSync(this.#folder.path, 0o711);
    for (const folder of [this.#raftFolder, `${execRoot}/manager`]) this.#makeForManager(folder);
    const { folder, settings } = identity;
    const named = {
      "data-dir": this.#raftFolder,
      socket: this.#socket,
      listen: settings.listenAddr,
      advertise: settings.advertiseAddr,
      cert: folder.certificateFile,
      key: folder.keyFile,
      ca: folder.rootsFile,
    };
    this.#child = new ManagerChild({
      command: managerCommand,
      args: [...Object.entries(named).flatMap(([name, value]) => [`--${name}`, value]), ...start, ...managerArgs],
      // The lock may have changed since it was started the first time.
      secrets: () => {
        const unlockKey = identity.unlockKey ?? secrets.unlockKey ?? identity.unlockKeyBefore;
        return { ...secrets, ...(unlockKey === undefined ? {} : { unlockKey }) };
      },
      user: managerUser,
      clock,
      random,
      logger,
      onLock: (unlockKey) =>
        this.#persist("lock", identity, () => {
          identity.lock(unlockKey);
          this.#child?.reload();
        }),
      onLockSettled: () => this.#persist("settled lock", identity, () => identity.settleLock()),
      onRenewed: ({ certificatePem, rootsPem }) =>
        this.#persist("certificate", identity, () => identity.adoptForSameKey(certificatePem, rootsPem)),
      onLocked: () => {
        this.#exclusively(async () => {
          if (identity !== this.#identity) return;
          await this.#exit();
          this.#phase = "locked";
          logger.warn("this manager is locked, and waits for `swarm unlock`");
        }).catch((error: unknown) => logger.error("a locked manager could not be left in order", { error }));
      },
      // The agent may have come too early, and would wait for its next turn.
      onServing: () => {
        // A channel that was refused meanwhile would go on refusing for a second.
        this.#closeChannel();
        this.#agent?.look();
      },
      // The role says what comes next; until then there is no manager here.
      onRemoved: () => {
        logger.info("the cluster has let this manager go");
        this.#closeChannel();
        this.#child = undefined;
      },
    });
    this.#childMemberId = identity.memberId;
    this.#child.start();
  }

  /** Again while it fails: a disk that is full, say. */
  #followSoon(identity: SwarmIdentity): void {
    this.#exclusively(() => this.#follow(identity)).catch((error: unknown) => {
      this.#options.logger.error("this node is not yet what its certificate says", { error });
      this.#options.clock.after(persistAgainMs, () => this.#followSoon(identity));
    });
  }

  /** A renewed certificate: the same role again, or another one. What was done of it before does no harm. */
  async #follow(identity: SwarmIdentity): Promise<void> {
    if (identity !== this.#identity) return;
    this.#closeChannel();
    if (identity.role === "manager") {
      if (this.#child !== undefined && identity.memberId === this.#childMemberId) return this.#child.reload();
      // A manager anew, or another member: the one before has left consensus for good.
      const before = this.#child;
      this.#child = undefined;
      await before?.[Symbol.asyncDispose]();
      this.#wipeManager();
      this.#startManager(identity, this.#joinArgs(identity), { unlockKey: identity.unlockKey });
      return;
    }
    const child = this.#child;
    this.#child = undefined;
    await child?.[Symbol.asyncDispose]();
    this.#wipeManager();
    // Only managers are locked; what the lock was good for is gone.
    identity.lock(undefined);
    identity.settleLock();
  }

  /** Writes to this node's files because its manager said so, and again while the disk refuses. */
  #persist(what: Persisted, identity: SwarmIdentity, write: () => void): void {
    this.#persisted.set(what, write);
    // That the log has the lock before says nothing of this one: the key before may be the only one that opens it.
    if (what === "lock") this.#persisted.delete("settled lock");
    try {
      write();
    } catch (error) {
      this.#options.logger.error(persistProblems[what], { error });
      this.#options.clock.after(persistAgainMs, () => {
        // Unless the manager has said something else of it meanwhile, as one that was started again does.
        if (identity === this.#identity && this.#persisted.get(what) === write) this.#persist(what, identity, write);
      });
    }
  }

  /** Stops everything; what is on disk stays, and so do the containers. */
  async #exit(): Promise<void> {
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#renewer?.stop();
    this.#renewer = undefined;
    await this.#agent?.[Symbol.asyncDispose]();
    this.#agent = undefined;
    this.#closeChannel();
    const child = this.#child;
    this.#child = undefined;
    await child?.[Symbol.asyncDispose]();
    this.#identity = undefined;
  }

  #makeForManager(folder: string): void {
    const { managerUser } = this.#options;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (managerUser !== undefined) chownSync(folder, managerUser.uid, managerUser.gid);
  }

  #closeChannel(): void {
    this.#channel?.[Symbol.dispose]();
    this.#channel = undefined;
  }

  /** By which a manager is let in, unless that has happened already: its daemon may have ended right before. */
  #joinArgs(identity: SwarmIdentity): string[] {
    const self = identity.settings.advertiseAddr;
    return identity.managers.filter(({ addr }) => addr !== self).flatMap(({ addr }) => ["--join", addr]);
  }

  #wipeManager(): void {
    removeFolder(this.#raftFolder);
  }

  // ------------------------------------------------------------------------------------------------------------- the rest

  /** The quorum is lost for good: this manager goes on alone, with what it has. */
  async #forceNewCluster(request: InitRequest, signal: AbortSignal): Promise<string> {
    const identity = this.#identity;
    if (identity === undefined || identity.role !== "manager") throw new NotASwarmManager();
    const asked = request.advertiseAddr !== "" || request.listenAddr !== "";
    const { settings: before } = identity;
    // Other nodes go on sending frames to where they did, unless that is asked for, too.
    const isKept = request.dataPathAddr === "" && before.frameAddr !== undefined;
    const wanted = isKept ? { ...request, dataPathAddr: before.dataPathAddr } : request;
    const family = frameAddressIn(before).includes(":") ? "IPv6" : undefined;
    const settings = asked ? this.#settingsOf(wanted, family) : before;
    const child = this.#child;
    this.#child = undefined;
    this.#closeChannel();
    await child?.[Symbol.asyncDispose]();
    const { clock, managerCommand, managerUser } = this.#options;
    const { folder, unlockKey } = identity;
    const files = ["--cert", folder.certificateFile, "--key", folder.keyFile, "--ca", folder.rootsFile];
    // It may write into folders of its own only.
    this.#makeForManager(this.#backupsFolder);
    const backups = ["--backups", this.#backupsFolder];
    const args = ["force-new-cluster", "--data-dir", this.#raftFolder, ...backups, ...files, "--yes"];
    try {
      await runManagerCommand({ command: managerCommand, args, secrets: { unlockKey }, user: managerUser }, signal);
      identity.resettle(settings);
    } finally {
      // Refused, for example because a quorum answers: then everything goes on as before.
      this.#startManager(identity, [], { unlockKey });
    }
    const limit = deadline(clock, enterMs, signal, () => new JoinTimedOut());
    try {
      await this.#clusterServes(limit.signal);
    } finally {
      limit[Symbol.dispose]();
    }
    return identity.nodeId;
  }

  async #clusterServes(signal: AbortSignal): Promise<void> {
    await this.#child?.serving(signal);
    while (!(await this.#options.clusterExists(this.control(), signal))) {
      await sleep(this.#options.clock, pollMs, signal);
    }
  }

  async #managerCount(signal: AbortSignal): Promise<number> {
    try {
      return await this.#options.countManagers(this.control(), signal);
    } catch {
      // Without a leader nobody counts; the ones known last are the best guess.
      return this.#identity?.managers.length ?? 1;
    }
  }

  #settingsOf(request: Addresses, family?: Family): Required<SwarmSettings> {
    const interfaces = this.#options.interfaces();
    const listen = listenAddress(request.listenAddr, interfaces);
    const { defaultAdvertiseAddr } = this.#options;
    const advertiseAddr = advertiseAddress(request.advertiseAddr, defaultAdvertiseAddr, listen, interfaces, family);
    const dataPathAddr =
      request.dataPathAddr === ""
        ? ""
        : hostOf(advertiseAddress(request.dataPathAddr, undefined, listen, interfaces, family));
    const frameAddr = dataPathAddr === "" ? hostOf(advertiseAddr) : dataPathAddr;
    return { listenAddr: listenFor(advertiseAddr, listen), advertiseAddr, dataPathAddr, frameAddr };
  }

  /**
   * What the user left open was chosen of the family that the cluster's frames do not go by, and this host has the other one.
   * @throws the error, if it is not that
   */
  #settingsOfOtherFamily(error: unknown, request: Addresses, settings: SwarmSettings): SwarmSettings {
    if (!(error instanceof ClusterError) || error.code !== "DATA_PATH_FAMILY") throw error;
    const is6 = frameAddressIn(settings).includes(":");
    let otherwise: SwarmSettings | undefined;
    try {
      otherwise = this.#settingsOf(request, is6 ? "IPv4" : "IPv6");
    } catch {
      throw error; // there are several of the other family: what the manager said tells what to do
    }
    if (frameAddressIn(otherwise).includes(":") === is6) throw error;
    return otherwise;
  }

  #childFailure(): string {
    const state = this.#child?.state;
    const failure: ManagerFailed | undefined = state?.kind === "starting" ? state.failure : undefined;
    return failure === undefined ? "" : failure.message;
  }

  /** Runs `act` when whatever came before has ended, well or badly. */
  #exclusively<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(act);
    this.#turn = turn.then(
      () => undefined,
      () => undefined,
    );
    return turn;
  }
}
