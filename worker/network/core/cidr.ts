/** IPv4 addresses and CIDR as text, from strangers: anything that is not in its one canonical form is none. */

/** @returns 0 to 2^32-1; undefined: not an address */
export function parseAddress(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    // Leading zeros are octal to some programs.
    if (!/^(?:0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

export const formatAddress = (value: number): string =>
  [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff].join(".");

export interface Cidr {
  readonly address: string;
  readonly prefixLength: number;
  /** First and last address of its prefix. */
  readonly first: number;
  readonly last: number;
}

export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf("/");
  const length = text.slice(slash + 1);
  if (slash < 0 || !/^(?:0|[1-9]\d?)$/.test(length) || Number(length) > 32) return undefined;
  const address = text.slice(0, slash);
  const value = parseAddress(address);
  if (value === undefined) return undefined;
  const prefixLength = Number(length);
  const size = 2 ** (32 - prefixLength);
  const first = Math.floor(value / size) * size;
  return { address, prefixLength, first, last: first + size - 1 };
}

/** Without the length of the prefix. */
export const addressOf = (cidr: string): string | undefined => parseCidr(cidr)?.address;

/** The hardware address that goes with an address: nobody has to be asked for it. */
export function macOfAddress(address: string): string {
  const bytes = address.split(".").map((part) => Number(part).toString(16).padStart(2, "0"));
  return `02:42:${bytes.join(":")}`;
}
