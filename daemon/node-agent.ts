/** The agent of this node as its membership handles it: opened with the identity, told of renewals, gone with it. */

import { hostOf } from "../lib/pure/address.ts";
import type { Random } from "../lib/pure/prng.ts";
import { Channel } from "../lib/rpc/index.ts";
import { removeFolder, sleep, type Clock, type Logger } from "../lib/runtime/index.ts";
import { Agent, LevelMemory } from "../worker/agent/index.ts";
import type { Executor } from "../worker/executor/index.ts";
import type { AgentPlaces } from "../worker/container-networks/index.ts";
import type { NodeNetwork } from "../worker/network/index.ts";
import type { skep } from "../proto/index.ts";
import { frameAddressIn, type SwarmIdentity } from "./identity/index.ts";
import type { AgentEvents, NodeAgent } from "./membership.ts";

/**
 * A leader that is busy for a moment must not lose all its agents: each that comes back is sent its whole state, which
 * makes it busier. Whether it lives is told by the answers to heartbeats.
 */
const managerSilenceMs = 4000;
/**
 * The session asks itself when it hears nothing (AgentSession). This is for the other calls of the channel: at 2 s
 * each, 5,000 nodes would ask their leader 2,500 times a second, whoever of them is heard anyway.
 */
const managerPingMs = 20_000;
/** Between tries to start. */
const startAgainMinMs = 1000;
const startAgainMaxMs = 30_000;

export interface NodeAgentOptions {
  readonly identity: SwarmIdentity;
  readonly events: AgentEvents;
  readonly executor: Executor;
  readonly network: NodeNetwork;
  /** Of containers of the user's in networks of the swarm: told which agent to ask. */
  readonly places: AgentPlaces;
  /** What it remembers of its tasks, and nothing else. */
  readonly folder: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export function openNodeAgent(options: NodeAgentOptions): NodeAgent {
  return new OpenAgent(options);
}

class OpenAgent implements NodeAgent {
  readonly #options: NodeAgentOptions;
  readonly #connected = Promise.withResolvers<void>();
  readonly #started = Promise.withResolvers<Agent>();
  readonly #unwatch: () => void;
  #memory: LevelMemory | undefined;
  #agent: Agent | undefined;
  #described: skep.objects.NodeNetwork.$Properties | undefined;
  #renewKey: () => Promise<void> = () => Promise.resolve();
  readonly #stop = new AbortController();
  #closing: Promise<void> | undefined;

  constructor(options: NodeAgentOptions) {
    this.#options = options;
    this.#unwatch = options.identity.onChange((change) => {
      if (change !== "lock") this.#agent?.reconnect();
      // One secret of the node has ended its life, so the other does.
      if (change === "certificate") {
        this.#renewKey().catch((error: unknown) =>
          options.logger.error("the key of encrypted networks stays", { error }),
        );
      }
    });
    // It ended before it could start; the log has why.
    this.#started.promise.catch(() => undefined);
  }

  start(): void {
    this.#startInTheEnd().then(
      (agent) => this.#started.resolve(agent),
      (error: unknown) => this.#started.reject(error),
    );
  }

  /** A disk that is full, say, has room again later; a node without its agent would be lost until somebody saw to it. */
  async #startInTheEnd(): Promise<Agent> {
    const { clock, logger } = this.#options;
    for (let waitMs = startAgainMinMs; ; waitMs = Math.min(2 * waitMs, startAgainMaxMs)) {
      try {
        return await this.#start();
      } catch (error) {
        logger.error("the agent cannot start yet", { error, waitMs });
      }
      await sleep(clock, waitMs, this.#stop.signal);
    }
  }

  async #start(): Promise<Agent> {
    try {
      return await this.#open();
    } catch (error) {
      // What it had opened would be in the way of the next try.
      await this.#agent?.[Symbol.asyncDispose]();
      this.#agent = undefined;
      await this.#memory?.close();
      this.#memory = undefined;
      throw error;
    }
  }

  async #open(): Promise<Agent> {
    const { identity, events, executor, network, folder, clock, random, logger } = this.#options;
    this.#memory = await LevelMemory.open(folder);
    const self = identity.settings.advertiseAddr;
    const addr = hostOf(self);
    const frameAddr = frameAddressIn(identity.settings);
    const { dataPlane } = network;
    const describeNetwork = async (): Promise<void> => {
      const described = await network.describe(identity.nodeId, frameAddr);
      // What its status says managers need not be told twice.
      if (described !== undefined && frameAddr !== addr) described.dataPathAddr = frameAddr;
      this.#described = described;
    };
    await describeNetwork();
    this.#renewKey = async () => {
      network.renewTunnelKey();
      await describeNetwork();
      this.#agent?.describeNow();
    };
    const known = identity.managers.map(({ addr }) => addr);
    const agent = new Agent({
      nodeId: identity.nodeId,
      memory: this.#memory,
      executor,
      ...(dataPlane === undefined ? {} : { dataPlane }),
      openChannel: (address) =>
        new Channel({
          address,
          tls: identity.tls,
          expect: { role: "manager" },
          pingMs: managerPingMs,
          silenceMs: managerSilenceMs,
        }),
      managers: identity.role === "manager" && !known.includes(self) ? [self, ...known] : known,
      addr,
      clock,
      random,
      logger,
      describe: (description) => ({
        ...description,
        tlsInfo: identity.tlsInfo,
        ...(this.#described === undefined ? {} : { network: this.#described }),
      }),
      onNode: (update) => events.onNode(update),
      onManagers: (managers) =>
        events.onManagers(managers.map(({ nodeId, addr }) => ({ nodeId: nodeId ?? "", addr: addr ?? "" }))),
      onRemoved: () => events.onRemoved("This node was removed from the swarm; leave it with --force to join again"),
      onSession: (connected) => {
        if (connected) this.#connected.resolve();
      },
    });
    this.#agent = agent;
    await agent.open();
    this.#options.places.follow(agent.attacher);
    return agent;
  }

  look(): void {
    if (this.#agent?.isConnected === false) this.#agent.reconnect();
  }

  async joined(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason as Error);
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      void this.#connected.promise.then(() => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      });
    });
  }

  async abandon(signal: AbortSignal): Promise<void> {
    // One that could not start yet does not try again.
    this.#stop.abort();
    const agent = await this.#started.promise.catch(() => undefined);
    await agent?.leave(signal);
    await this[Symbol.asyncDispose]();
    await this.#options.network.leave();
    removeFolder(this.#options.folder);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#unwatch();
    this.#stop.abort();
    const agent = await this.#started.promise.catch(() => undefined);
    this.#options.places.follow(undefined);
    await agent?.[Symbol.asyncDispose]();
    await this.#memory?.close();
  }
}
