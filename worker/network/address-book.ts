/** Who has which address on this node: gateway addresses and those of local networks, one book for all of them. */
import { formatAddress, parseAddress } from "./core/cidr.ts";
import { contains, nextFree, type Range } from "./core/pools.ts";

/** Ranges of which it is remembered: networks of a node come and go. */
const rangesMax = 1024;

export class AddressBook {
  readonly #owners = new Map<number, string>();
  /** Given last, by the name of the range. */
  readonly #last = new Map<string, number>();

  ownerOf(address: string): string | undefined {
    const value = parseAddress(address);
    return value === undefined ? undefined : this.#owners.get(value);
  }

  /** @returns undefined: all of the range are taken */
  choose(owner: string, rangeName: string, range: Range, reserved: readonly string[]): string | undefined {
    const value = nextFree(
      range,
      this.#last.get(rangeName),
      (one) => this.#owners.has(one) || reserved.includes(formatAddress(one)),
    );
    if (value === undefined) return undefined;
    this.#owners.set(value, owner);
    this.#remember(rangeName, value);
    return formatAddress(value);
  }

  /** A fixed one. @returns false: it is another's */
  take(owner: string, address: string): boolean {
    const value = parseAddress(address);
    if (value === undefined) return false;
    const other = this.#owners.get(value);
    if (other !== undefined && other !== owner) return false;
    this.#owners.set(value, owner);
    return true;
  }

  /** One of an earlier life of the daemon; what is chosen goes on after the highest of them. */
  adopt(owner: string, rangeName: string, range: Range, address: string): void {
    const value = parseAddress(address);
    if (value === undefined || !this.take(owner, address)) return;
    const last = this.#last.get(rangeName);
    if (contains(range, value) && (last === undefined || value > last)) this.#remember(rangeName, value);
  }

  /** Those of which nothing was given for longest go. */
  #remember(rangeName: string, value: number): void {
    this.#last.delete(rangeName);
    this.#last.set(rangeName, value);
    const [oldest] = this.#last.keys();
    if (this.#last.size > rangesMax && oldest !== undefined) this.#last.delete(oldest);
  }

  release(owner: string, address: string): void {
    const value = parseAddress(address);
    if (value !== undefined && this.#owners.get(value) === owner) this.#owners.delete(value);
  }
}
