/** Ports of the ingress mesh: each is one service's. */

/** The range of Swarm's dynamic ports. */
const dynamicFirst = 30_000;
const dynamicLast = 32_767;

export class PortBook {
  readonly #owners = new Map<string, string>();
  readonly #next = new Map<string, number>();

  owner(protocol: number, port: number): string | undefined {
    return this.#owners.get(`${protocol}/${port}`);
  }

  /** @returns false if it is another service's */
  claim(protocol: number, port: number, owner: string): boolean {
    const key = `${protocol}/${port}`;
    const before = this.#owners.get(key);
    if (before !== undefined) return before === owner;
    this.#owners.set(key, owner);
    return true;
  }

  /** A port of the dynamic range; one that is given back is given out again as late as possible. */
  take(protocol: number, owner: string): number | undefined {
    const first = this.#next.get(String(protocol)) ?? dynamicFirst;
    for (let tried = 0, port = first; tried <= dynamicLast - dynamicFirst; tried++) {
      const next = port === dynamicLast ? dynamicFirst : port + 1;
      if (this.owner(protocol, port) === undefined) {
        this.claim(protocol, port, owner);
        this.#next.set(String(protocol), next);
        return port;
      }
      port = next;
    }
    return undefined;
  }

  release(protocol: number, port: number, owner: string): void {
    const key = `${protocol}/${port}`;
    if (this.#owners.get(key) === owner) this.#owners.delete(key);
  }
}
