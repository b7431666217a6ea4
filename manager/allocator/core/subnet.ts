/** Subnets, and the addresses in one: who has which. Numbers are bigints, since IPv6 has them. */
import { formatAddress, parseAddress, parseRange } from "../../../proto/index.ts";

export interface Subnet {
  readonly bits: 32 | 128;
  /** The first address, of which the host part is zero. */
  readonly base: bigint;
  readonly prefix: number;
}

export function parseSubnet(text: string): Subnet | undefined {
  const range = parseRange(text);
  if (range === undefined) return undefined;
  const { bits, value } = range.address;
  const shift = BigInt(bits - range.prefix);
  return { bits, base: (value >> shift) << shift, prefix: range.prefix };
}

export const sizeOf = ({ bits, prefix }: Subnet): bigint => 1n << BigInt(bits - prefix);

export const formatSubnet = ({ bits, base, prefix }: Subnet): string =>
  `${formatAddress({ bits, value: base })}/${prefix}`;

export function overlap(a: Subnet, b: Subnet): boolean {
  return a.bits === b.bits && a.base < b.base + sizeOf(b) && b.base < a.base + sizeOf(a);
}

/** @param part  undefined: no subnet, and in none */
export function isInside(part: Subnet | undefined, whole: Subnet): boolean {
  return part !== undefined && part.prefix >= whole.prefix && overlap(part, whole);
}

/**
 * The first subnet of this size in the pools that overlaps none of those taken.
 * @param taken   in any order
 * @param prefix  of the subnet wanted; a pool that is smaller is taken whole
 */
export function freeSubnet(pools: readonly Subnet[], prefix: number, taken: readonly Subnet[]): Subnet | undefined {
  const sorted = [...taken].sort((a, b) => (a.base < b.base ? -1 : a.base > b.base ? 1 : b.prefix - a.prefix));
  for (const pool of pools) {
    const wanted = Math.max(prefix, pool.prefix);
    const step = 1n << BigInt(pool.bits - wanted);
    const end = pool.base + sizeOf(pool);
    let base = pool.base;
    for (const other of sorted) {
      if (base >= end) break;
      const candidate: Subnet = { bits: pool.bits, base, prefix: wanted };
      if (!overlap(candidate, other)) continue;
      // Behind the one in the way, on the grid of this size.
      const behind = other.base + sizeOf(other);
      base = ((behind + step - 1n) / step) * step;
    }
    if (base < end) return { bits: pool.bits, base, prefix: wanted };
  }
  return undefined;
}

/** The addresses of one subnet. An address that is given back is given out again as late as possible. */
export class AddressPool {
  readonly subnet: Subnet;
  /** What is given out without being asked for lies in here, ends included. */
  readonly #low: bigint;
  readonly #high: bigint;
  readonly #owners = new Map<bigint, string>();
  #usedInRange = 0;
  #next: bigint;

  /** @param range  part of the subnet to which what is given out is limited */
  constructor(subnet: Subnet, range: Subnet | undefined) {
    this.subnet = subnet;
    const last = subnet.base + sizeOf(subnet) - 1n;
    // The first and the last address of a v4 subnet are no host's (RFC 1122), and v6's first is any router's (RFC 4291).
    const first = subnet.base + 1n;
    const end = subnet.bits === 32 ? last - 1n : last;
    const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);
    const min = (a: bigint, b: bigint): bigint => (a < b ? a : b);
    this.#low = range === undefined ? first : max(first, range.base);
    this.#high = range === undefined ? end : min(end, range.base + sizeOf(range) - 1n);
    this.#next = this.#low;
  }

  /** Addresses that can be given out. */
  get size(): number {
    return this.#high < this.#low ? 0 : Number(this.#high - this.#low + 1n);
  }

  get used(): number {
    return this.#usedInRange;
  }

  owner(value: bigint): string | undefined {
    return this.#owners.get(value);
  }

  /** Not the first of the subnet, nor the last of a v4 one. */
  isHost(value: bigint): boolean {
    const offset = value - this.subnet.base;
    return offset > 0n && (this.subnet.bits === 128 || offset < sizeOf(this.subnet) - 1n);
  }

  /** @returns false if it is somebody else's, or not of this subnet */
  claim(value: bigint, owner: string): boolean {
    const { base } = this.subnet;
    if (value < base || value >= base + sizeOf(this.subnet)) return false;
    const before = this.#owners.get(value);
    if (before !== undefined) return before === owner;
    this.#owners.set(value, owner);
    if (value >= this.#low && value <= this.#high) this.#usedInRange++;
    // What was claimed after a change of leaders was given out by the last one: go on behind it.
    if (value >= this.#next && value <= this.#high) this.#next = value === this.#high ? this.#low : value + 1n;
    return true;
  }

  take(owner: string): bigint | undefined {
    if (this.#usedInRange >= this.size) return undefined;
    let value = this.#next;
    while (this.#owners.has(value)) value = value >= this.#high ? this.#low : value + 1n;
    this.claim(value, owner);
    return value;
  }

  release(value: bigint, owner: string): void {
    if (this.#owners.get(value) !== owner) return;
    this.#owners.delete(value);
    if (value >= this.#low && value <= this.#high) this.#usedInRange--;
  }

  /** With the subnet's prefix, as it is configured on an interface. */
  format(value: bigint): string {
    return `${this.formatPlain(value)}/${this.subnet.prefix}`;
  }

  formatPlain(value: bigint): string {
    return formatAddress({ bits: this.subnet.bits, value });
  }

  /** @param text  with or without a prefix. @returns undefined if it is not of this subnet */
  parse(text: string): bigint | undefined {
    const slash = text.indexOf("/");
    const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
    if (address?.bits !== this.subnet.bits) return undefined;
    const { base } = this.subnet;
    return address.value >= base && address.value < base + sizeOf(this.subnet) ? address.value : undefined;
  }
}
