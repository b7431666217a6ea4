/**
 * Ports of the host that lead to containers. Each is claimed among ourselves, then held by a socket, so that no process of
 * the host takes it and none that has it is shadowed: what is sent to a port goes to whoever bound it first.
 */
import { type Logger } from "../../lib/runtime/index.ts";
import { allAddresses6, PortClaims, type HostPort } from "./core/port-claims.ts";
import { nextFree, type Range } from "./core/pools.ts";
import type { PublishedPort } from "./core/records.ts";
import { portText } from "./core/slots.ts";
import { PortInUse, PortRangeFull, ProtocolNotCarried } from "./host-errors.ts";

/** What holds ports in the host's namespace: netplane. */
export interface PortHolder {
  /** @returns false: a process of the host has it. Again for what is held is fine. */
  reserve(port: HostPort): Promise<boolean>;
  /** Whether the kernel rewrites addresses of this protocol's packets. */
  carries(protocol: HostPort["protocol"]): Promise<boolean>;
  /** Again, or of what is not held, is fine. */
  release(port: HostPort): Promise<void>;
}

/** Where ports are chosen: what Linux gives to those who do not care (ip_local_port_range). */
const chosenRange: Range = { first: 32_768, last: 60_999 };
/** Tries before giving up on a port of the range: others of the host take theirs from it, too. */
const triesMax = 64;
const meshOwner = "the ingress mesh";

export class PublishedPorts {
  readonly #holder: PortHolder;
  readonly #logger: Logger;
  readonly #claims = new PortClaims();
  readonly #ofOwner = new Map<string, readonly HostPort[]>();
  readonly #mesh = new Map<string, HostPort>();
  /** Told already that somebody else has it. */
  readonly #warned = new Set<string>();
  #open: ReadonlySet<string> = new Set();
  /** Nobody's any more, and still held: they could not be let go. */
  #lingering: { readonly owner: string; readonly port: HostPort }[] = [];
  #lastChosen: number | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(holder: PortHolder, logger: Logger) {
    this.#holder = holder;
    this.#logger = logger;
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const act = async (): Promise<T> => {
      await this.#letGo(this.#lingering.splice(0));
      return work();
    };
    const mine = this.#turn.then(act, act);
    this.#turn = mine.catch(() => undefined); // the failure is the caller's; the queue only waits for the end
    return mine;
  }

  /**
   * Takes all of them or none.
   * @param owner  said to others who want one of them
   * @param with6  a port of all addresses is one of all addresses of IPv6 as well
   * @returns the ports with those that were chosen
   * @throws PortInUse, PortRangeFull, ProtocolNotCarried
   */
  claim(owner: string, wishes: readonly PublishedPort[], with6 = false): Promise<readonly PublishedPort[]> {
    return this.#exclusively(async () => {
      const taken: PublishedPort[] = [];
      try {
        for (const wish of wishes) taken.push(...(await this.#claimOne(owner, wish, taken, with6)));
      } catch (error) {
        await this.#letGo(taken.map((port) => ({ owner, port: hostPortOf(port) })));
        throw error;
      }
      this.#ofOwner.set(owner, taken.map(hostPortOf));
      return taken;
    });
  }

  async #claimOne(
    owner: string,
    wish: PublishedPort,
    taken: readonly PublishedPort[],
    with6: boolean,
  ): Promise<readonly PublishedPort[]> {
    const each = (port: PublishedPort): readonly PublishedPort[] =>
      with6 && port.hostAddress === "" ? [port, { ...port, hostAddress: allAddresses6 }] : [port];
    if (wish.publishedPort !== 0) {
      return this.#holdAll(owner, each(wish));
    }
    const tried = new Set<number>(taken.map(({ publishedPort }) => publishedPort));
    for (let tries = 0; tries < triesMax; tries += 1) {
      const port = nextFree(chosenRange, this.#lastChosen, (value) => tried.has(value));
      if (port === undefined) break;
      tried.add(port);
      this.#lastChosen = port;
      try {
        return await this.#holdAll(owner, each({ ...wish, publishedPort: port }));
      } catch (error) {
        if (!(error instanceof PortInUse)) throw error;
      }
    }
    throw new PortRangeFull(wish.protocol, chosenRange);
  }

  async #holdAll(owner: string, ports: readonly PublishedPort[]): Promise<readonly PublishedPort[]> {
    const held: HostPort[] = [];
    try {
      for (const port of ports.map(hostPortOf)) {
        await this.#hold(owner, port);
        held.push(port);
      }
      return ports;
    } catch (error) {
      await this.#letGo(held.map((port) => ({ owner, port })));
      throw error;
    }
  }

  async #hold(owner: string, port: HostPort): Promise<void> {
    const other = this.#claims.holds(owner, port) ? owner : this.#claims.conflict(owner, port);
    if (other !== undefined) throw new PortInUse(port, other);
    if (!(await this.#holder.carries(port.protocol))) throw new ProtocolNotCarried(port.port, port.protocol);
    if (!(await this.#holder.reserve(port))) throw new PortInUse(port, "a process of this host");
    this.#claims.claim(owner, port);
  }

  /** Whoever held them does not wait for it: netplane may just be starting again, and takes up what it held. */
  async #letGo(ports: readonly { readonly owner: string; readonly port: HostPort }[]): Promise<void> {
    for (const one of ports) {
      const { owner, port } = one;
      if (!this.#claims.holds(owner, port)) continue;
      try {
        await this.#holder.release(port);
        this.#claims.release(owner, port);
      } catch (error) {
        this.#lingering.push(one);
        this.#logger.warn("a port could not be let go yet", { port: textOf(port), owner, error });
      }
    }
  }

  /** Ports of a sandbox of an earlier life of the daemon. One that somebody else has by now stays ours: connections go on. */
  adopt(owner: string, ports: readonly PublishedPort[]): Promise<void> {
    return this.#exclusively(async () => {
      const held = ports.map(hostPortOf);
      for (const port of held) {
        this.#claims.claim(owner, port);
        // Nor one that cannot be held: a host that had IPv6 when it was chosen, and has none now.
        const found = await this.#holder.reserve(port).catch((error: unknown) => ({ error }));
        if (found === true) continue;
        const why = found === false ? {} : found;
        this.#logger.warn("a port that is published is not held", { port: textOf(port), owner, ...why });
      }
      this.#ofOwner.set(owner, held);
    });
  }

  /** Again is fine. */
  release(owner: string): Promise<void> {
    return this.#exclusively(async () => {
      const ports = this.#ofOwner.get(owner) ?? [];
      this.#ofOwner.delete(owner);
      await this.#letGo(ports.map((port) => ({ owner, port })));
    });
  }

  /**
   * Holds what the mesh wants on all addresses of a family, lets go of what it does not, and tries again what somebody else had.
   * @returns the ports that it may take, by `portText`
   */
  settleMesh(wanted: readonly HostPort[]): Promise<ReadonlySet<string>> {
    return this.#exclusively(async () => {
      const texts = new Map(wanted.map((port) => [textOf(port), port]));
      for (const [text, port] of this.#mesh) {
        if (texts.has(text)) continue;
        this.#mesh.delete(text);
        await this.#letGo([{ owner: meshOwner, port }]);
      }
      for (const text of this.#warned) if (!texts.has(text)) this.#warned.delete(text);
      for (const [text, port] of texts) {
        if (this.#mesh.has(text)) continue;
        try {
          await this.#hold(meshOwner, port);
          this.#mesh.set(text, port);
          this.#warned.delete(text);
        } catch (error) {
          if (!(error instanceof PortInUse || error instanceof ProtocolNotCarried)) throw error;
          if (!this.#warned.has(text)) {
            this.#warned.add(text);
            this.#logger.warn("a published port is not served on this node", { port: text, found: error.message });
          }
        }
      }
      this.#open = new Set(this.#mesh.keys());
      return this.#open;
    });
  }

  /** Whether `settleMesh` would do anything: the mesh wants other ports, or some that somebody else had. */
  isUnsettled(wanted: readonly HostPort[]): boolean {
    const texts = new Set(wanted.map(textOf));
    if (this.#lingering.length > 0) return true;
    return texts.size !== this.#mesh.size || [...texts].some((text) => !this.#mesh.has(text));
  }

  /** What the mesh wants and cannot have on this node. */
  get refused(): readonly string[] {
    return [...this.#warned];
  }
}

const textOf = (port: HostPort): string => portText(port, port.hostAddress === allAddresses6 ? "ip6" : "ip");

const hostPortOf = ({ protocol, publishedPort, hostAddress }: PublishedPort): HostPort => ({
  protocol,
  port: publishedPort,
  hostAddress,
});
