/** The host's own nameservers, read anew when /etc/resolv.conf has changed. */
import { readFileSync, statSync } from "node:fs";
import { isIP } from "node:net";

import type { Clock } from "../../../lib/runtime/index.ts";

/** As libc (resolv.conf(5), MAXNS). */
const serversMax = 3;
/** So long an answer of stat is believed. */
const believedMs = 1000;
const bytesMax = 65_536;

export class HostServers {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #isSelf: (address: string) => boolean;
  #servers: readonly string[] = [];
  #stamp = "";
  #readAtMs = -Infinity;

  /** @param isSelf  the resolver's own addresses: it would ask itself for ever */
  constructor(path: string, clock: Clock, isSelf: (address: string) => boolean) {
    this.#path = path;
    this.#clock = clock;
    this.#isSelf = isSelf;
  }

  /** In the order of the file; those on the host's loopback can be reached from where the resolver is. */
  get(): readonly string[] {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#readAtMs < believedMs) return this.#servers;
    this.#readAtMs = nowMs;
    try {
      const { mtimeMs, size, ino } = statSync(this.#path);
      const stamp = `${mtimeMs} ${size} ${ino}`;
      if (stamp === this.#stamp) return this.#servers;
      this.#servers = size > bytesMax ? [] : nameservers(readFileSync(this.#path, "utf8"), this.#isSelf);
      this.#stamp = stamp;
    } catch {
      // Without the file there are no servers; it may come with the network.
      this.#servers = [];
      this.#stamp = "";
    }
    return this.#servers;
  }
}

function nameservers(text: string, isSelf: (address: string) => boolean): readonly string[] {
  return text
    .split("\n")
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? "")
    .filter((address) => isIP(address) !== 0 && !isSelf(address))
    .slice(0, serversMax);
}
