/** IP addresses and ranges as numbers: v4 and v6, without a library, since a core has none. */

export interface Address {
  readonly bits: 32 | 128;
  readonly value: bigint;
}

export function isAddressOrRange(text: string): boolean {
  return parseRange(text) !== undefined;
}

/** Whether `text` is an address inside `range` (`10.0.0.0/8`), or equal to it when it has no prefix. */
export function addressInRange(text: string, range: string): boolean {
  const address = parseAddress(text);
  const parsed = parseRange(range);
  if (address === undefined || parsed === undefined || address.bits !== parsed.address.bits) return false;
  const shift = BigInt(parsed.address.bits - parsed.prefix);
  return address.value >> shift === parsed.address.value >> shift;
}

/** @param text  an address with or without a prefix; bits below the prefix are kept */
export function parseRange(text: string): { readonly address: Address; readonly prefix: number } | undefined {
  const slash = text.indexOf("/");
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) return undefined;
  if (slash < 0) return { address, prefix: address.bits };
  const prefix = text.slice(slash + 1);
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > address.bits) return undefined;
  return { address, prefix: Number(prefix) };
}

export function parseAddress(text: string): Address | undefined {
  return text.includes(":") ? parseV6(text) : parseV4(text);
}

/**
 * Where frames between nodes can go: an address of one host, which other hosts reach.
 * @returns  in its one form; undefined: it is none, such as one of a link or of many hosts
 */
export function frameAddress(text: string): string | undefined {
  const address = parseAddress(text);
  if (address === undefined) return undefined;
  if (address.bits === 128 && !reachesHosts(address.value)) return undefined;
  return formatAddress(address);
}

/** Not those of ::/32 but loopback (of no host, with one of IPv4 inside), of a link (fe80::/10), of many hosts (ff00::/8). */
const reachesHosts = (value: bigint): boolean =>
  value === 1n || (value >> 96n !== 0n && value >> 118n !== 0x3fan && value >> 120n !== 0xffn);

function parseV4(text: string): Address | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256))
    return undefined;
  return { bits: 32, value: parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n) };
}

function parseV6(text: string): Address | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  const [head = [], tail = []] = groups;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...Array.from({ length: missing }, () => "0"), ...tail];
  if (!all.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  return { bits: 128, value: all.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n) };
}

/** As RFC 5952 has it: lower case, the longest run of zeros shortened. */
export function formatAddress({ bits, value }: Address): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 0xffn)).join(".");
  const groups = Array.from({ length: 8 }, (_, at) => ((value >> BigInt(112 - 16 * at)) & 0xffffn).toString(16));
  let best = { at: 0, length: 0 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (groups[at + length] === "0") length++;
    if (length > best.length) best = { at, length };
  }
  if (best.length < 2) return groups.join(":");
  return `${groups.slice(0, best.at).join(":")}::${groups.slice(best.at + best.length).join(":")}`;
}
