/** Choosing addresses and subnets, which are given again as late as possible: caches and conntrack may know the former holder. */
import { formatAddress, type Cidr } from "./cidr.ts";

/** Ends included. */
export interface Range {
  readonly first: number;
  readonly last: number;
}

export const overlaps = (a: Range, b: Range): boolean => a.first <= b.last && b.first <= a.last;

export const contains = (range: Range, value: number): boolean => value >= range.first && value <= range.last;

/**
 * The next free number of a range, going round from the last one given.
 * @param last  undefined: none was given yet
 */
export function nextFree(
  { first, last: end }: Range,
  last: number | undefined,
  taken: (value: number) => boolean,
): number | undefined {
  const size = end - first + 1;
  if (size <= 0) return undefined;
  const start = last === undefined || last < first || last >= end ? first : last + 1;
  for (let step = 0; step < size; step += 1) {
    const value = first + ((start - first + step) % size);
    if (!taken(value)) return value;
  }
  return undefined;
}

export const subnetText = ({ first, prefixLength }: Pick<Cidr, "first" | "prefixLength">): string =>
  `${formatAddress(first)}/${prefixLength}`;

/** The first subnet of this size in the pools that overlaps nothing of what is taken. */
export function freeSubnet(
  pools: readonly { readonly range: Range; readonly prefixLength: number }[],
  taken: readonly Range[],
): string | undefined {
  for (const { range, prefixLength } of pools) {
    const size = 2 ** (32 - prefixLength);
    for (let first = range.first; first + size - 1 <= range.last; first += size) {
      const candidate = { first, last: first + size - 1 };
      if (!taken.some((other) => overlaps(candidate, other))) return subnetText({ first, prefixLength });
    }
  }
  return undefined;
}
