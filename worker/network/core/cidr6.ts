/** IPv6 addresses and prefixes as text, in the one form that the kernel's lists have (RFC 5952). */
import { formatAddress, parseRange } from "../../../proto/index.ts";

export interface Cidr6 {
  /** Plain. */
  readonly address: string;
  readonly prefixLength: number;
  /** First and last address of its prefix. */
  readonly first: bigint;
  readonly last: bigint;
  readonly value: bigint;
}

/** @param text  with the length of its prefix */
export function parseCidr6(text: string): Cidr6 | undefined {
  const range = text.includes("/") ? parseRange(text) : undefined;
  if (range?.address.bits !== 128) return undefined;
  const { value } = range.address;
  const shift = BigInt(128 - range.prefix);
  const first = (value >> shift) << shift;
  const last = first + (1n << shift) - 1n;
  return { address: formatAddress6(value), prefixLength: range.prefix, first, last, value };
}

/** A plain address. */
export const parseAddress6 = (text: string): Cidr6 | undefined =>
  text.includes("/") ? undefined : parseCidr6(`${text}/128`);

export const formatAddress6 = (value: bigint): string => formatAddress({ bits: 128, value });

export const subnetText6 = ({ first, prefixLength }: Pick<Cidr6, "first" | "prefixLength">): string =>
  `${formatAddress6(first)}/${prefixLength}`;

export const isV6 = (text: string): boolean => text.includes(":");
