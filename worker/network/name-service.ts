/**
 * Names on this node: a part of the model that fills the table of names, and the resolver that answers from it. It serves at
 * the addresses by which containers reach this node, as soon as the node has them.
 */
import { Backoff } from "../../lib/pure/backoff.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { sleep, TaskGroup, type Clock, type Logger } from "../../lib/runtime/index.ts";
import type { SandboxRequest } from "./contract.ts";
import type { BridgeNetwork } from "./core/bridges.ts";
import { gatewayOf } from "./core/host.ts";
import type { MakePart, Part, SandboxFacts } from "./core/part.ts";
import { NameTable, Resolver, type ResolverFigures } from "./dns/index.ts";

export interface NameServiceOptions {
  /** What was asked for a sandbox that is known. */
  readonly requestOf: (id: string) => SandboxRequest | undefined;
  readonly bridge: (id: string) => BridgeNetwork | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Other than 53, and other addresses than the node's: tests. */
  readonly port?: number;
  readonly gatewayOf?: (nodeNumber: number) => string;
}

const retryMinMs = 50;
const retryMaxMs = 5_000;

export class NameService implements AsyncDisposable {
  readonly #options: NameServiceOptions;
  readonly #table = new NameTable();
  readonly #resolver: Resolver;
  readonly #tasks: TaskGroup;
  /** Where it serves or tries to. */
  readonly #serving = new Map<string, AbortController>();
  /** Of those at which it does not serve yet, why. */
  readonly #failures = new Map<string, string>();
  /** Sandboxes on each network of the swarm, by which the node knows its name. */
  readonly #users = new Map<string, Set<string>>();
  #isOn = false;
  #wanted: readonly string[] = [];

  constructor(options: NameServiceOptions) {
    const { clock, random, logger, port } = options;
    this.#options = options;
    this.#resolver = new Resolver({ names: this.#table, clock, random, ...(port === undefined ? {} : { port }) });
    this.#tasks = new TaskGroup((work, error) => logger.error("work on names failed", { work, error }));
  }

  /** For the model: hears of every fact, and forgets none before it is told otherwise. */
  readonly make: MakePart = (self) => {
    const gateway = this.#options.gatewayOf ?? gatewayOf;
    this.#wanted = [...new Set([gateway(0), gateway(self.number)])];
    this.#serve();
    this.#table.replace([], []);
    const part: Part = {
      peer: () => undefined,
      endpoint: (_key, after, before) => {
        const told = after ?? before;
        if (told !== undefined) this.#table.setEndpoint(told.networkId, told.taskId, after);
      },
      service: (_key, after, before) => {
        const told = after ?? before;
        if (told !== undefined) this.#table.setService(told.networkId, told.serviceId, after);
      },
      sandbox: (id, after, before) => this.#sandbox(id, after, before),
    };
    return part;
  };

  /** From now on it serves; before, sandboxes that are known are told again with what was asked for them. */
  start(sandboxes: Iterable<readonly [string, SandboxFacts]>): void {
    for (const [id, facts] of sandboxes) this.#sandbox(id, facts, facts);
    this.#isOn = true;
    this.#serve();
  }

  /** Addresses at which it ought to serve and does not. */
  get unserved(): readonly { readonly address: string; readonly why: string }[] {
    return [...this.#failures].map(([address, why]) => ({ address, why }));
  }

  get figures(): ResolverFigures {
    return this.#resolver.figures;
  }

  #sandbox(id: string, after: SandboxFacts | undefined, before: SandboxFacts | undefined): void {
    for (const { wish } of before?.bridges ?? []) {
      this.#table.setLocal(wish.networkId, id, undefined);
      this.#leave(wish.networkId, id);
    }
    for (const { wish } of before?.overlays ?? []) this.#leave(wish.network.id, id);
    if (after === undefined) {
      this.#table.removeAsker(id);
      return;
    }
    const request = this.#options.requestOf(id);
    for (const { wish } of after.overlays) {
      const { id: networkId, name, subnet, subnet6 } = wish.network;
      this.#table.setNetwork({ id: networkId, name, subnets: subnet6 === undefined ? [subnet] : [subnet, subnet6] });
      this.#join(networkId, id);
    }
    for (const { wish, address, address6 } of after.bridges) {
      const { networkId, networkName, aliases } = wish;
      const { subnet, subnet6 } = this.#options.bridge(networkId) ?? {};
      const subnets = [subnet, subnet6].filter((one) => one !== undefined);
      this.#table.setNetwork({ id: networkId, name: networkName, subnets });
      this.#join(networkId, id);
      const names = [request?.containerName ?? "", ...aliases, request?.hostname ?? ""].filter((name) => name !== "");
      const addresses = address6 === undefined ? [address] : [address, address6];
      this.#table.setLocal(networkId, id, { addresses, names });
    }
    this.#table.setAsker({
      id,
      addresses: [
        ...(after.gatewayAddress === "" ? [] : [after.gatewayAddress]),
        ...after.bridges.map(({ address }) => address),
      ],
      networks: (request?.networks ?? []).map((wish) => (wish.kind === "overlay" ? wish.network.id : wish.networkId)),
      forwards: this.#reachesOutside(after),
      dns: request?.dns ?? [],
      links: new Map(Object.entries(request?.links ?? {})),
    });
  }

  #join(networkId: string, id: string): void {
    const users = this.#users.get(networkId) ?? new Set();
    this.#users.set(networkId, users.add(id));
  }

  /** A network's name goes with the last sandbox that is on it. */
  #leave(networkId: string, id: string): void {
    const users = this.#users.get(networkId);
    users?.delete(id);
    if (users?.size !== 0) return;
    this.#users.delete(networkId);
    this.#table.removeNetwork(networkId);
  }

  #reachesOutside({ overlays, bridges }: SandboxFacts): boolean {
    if (overlays.length === 0 && bridges.length === 0) return true;
    return (
      overlays.some(({ wish }) => !wish.network.internal) ||
      bridges.some(({ wish }) => this.#options.bridge(wish.networkId)?.internal !== true)
    );
  }

  #serve(): void {
    if (!this.#isOn) return;
    for (const [address, stop] of this.#serving) {
      if (this.#wanted.includes(address)) continue;
      stop.abort();
      this.#serving.delete(address);
      this.#failures.delete(address);
      this.#tasks.start(`leave ${address}`, () => this.#resolver.leave(address));
    }
    for (const address of this.#wanted) {
      if (this.#serving.has(address)) continue;
      const stop = new AbortController();
      this.#serving.set(address, stop);
      this.#tasks.start(`listen at ${address}`, (signal) =>
        this.#listen(address, AbortSignal.any([signal, stop.signal])),
      );
    }
  }

  /** The address may not be there yet; a server of somebody else's may be in the way, and told of once. */
  async #listen(address: string, signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#options;
    const backoff = new Backoff(random, { minMs: retryMinMs, maxMs: retryMaxMs });
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        await this.#resolver.listen(address);
        this.#failures.delete(address);
        return;
      } catch (error) {
        // It is to be served there no more, or by another attempt.
        if (signal.aborted) return;
        this.#failures.set(address, error instanceof Error ? error.message : String(error));
        if (attempt === 5) logger.warn("names are not served yet", { address, error });
      }
      await sleep(clock, backoff.next(), signal).catch(() => undefined); // it is over, and the loop sees it
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tasks[Symbol.asyncDispose]();
    await this.#resolver[Symbol.asyncDispose]();
  }
}
