/** Configurations of networks on this node (`network create --config-only`): names for a subnet and options, for other networks to take. */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { LocalNetworkWish } from "../network/index.ts";

export interface ConfigNetwork {
  readonly id: string;
  readonly createdAtMs: number;
  readonly wish: LocalNetworkWish;
}

/** Few and small: one file, written whole. */
export class ConfigNetworks {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #networks = new Map<string, ConfigNetwork>();

  constructor(folder: string, clock: Clock, logger: Logger) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.#path = join(folder, "config-networks.json");
    this.#clock = clock;
    try {
      const found = JSON.parse(readFileSync(this.#path, "utf8")) as readonly ConfigNetwork[];
      for (const network of found) this.#networks.set(network.id, network);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT")
        logger.warn("configurations of networks cannot be read and are dropped", { path: this.#path, error });
    }
  }

  list(): readonly ConfigNetwork[] {
    return [...this.#networks.values()];
  }

  create(wish: LocalNetworkWish): ConfigNetwork {
    const network = { id: randomBytes(32).toString("hex"), createdAtMs: this.#clock.wallMs(), wish };
    this.#networks.set(network.id, network);
    this.#save();
    return network;
  }

  remove(id: string): void {
    this.#networks.delete(id);
    this.#save();
  }

  #save(): void {
    writeFileSync(`${this.#path}.new`, JSON.stringify(this.list()), { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
  }
}
