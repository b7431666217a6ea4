/**
 * The host of HOST:PORT or [HOST]:PORT, as an address is compared: without brackets, and of IPv4 that came through a socket of
 * IPv6 without its prefix. "" where there is no port, as for a socket of this host.
 */
export function hostOf(address: string): string {
  const host = address.slice(0, Math.max(0, address.lastIndexOf(":"))).replace(/^\[|\]$/gu, "");
  return host.startsWith("::ffff:") ? host.slice("::ffff:".length) : host;
}

/** Of HOST:PORT; NaN where what follows the last colon is no number. */
export const portOf = (address: string): number => Number(address.slice(address.lastIndexOf(":") + 1));
