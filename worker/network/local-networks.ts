/**
 * Networks of this node alone, Docker's driver bridge: made, listed, removed, and remembered in `level`. What stands on
 * them is known from the sandboxes that run; a network exists in the kernel while a sandbox is on it.
 */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";

import { Level, type BatchOperation } from "level";

import { LevelWriter, type Clock, type Logger } from "../../lib/runtime/index.ts";
import type { BridgeNetwork } from "./core/bridges.ts";
import {
  defaultBridgeName,
  predefinedNames,
  readLocalNetwork,
  type LocalNetworkRecord,
  type LocalNetworkWish,
} from "./core/local-network.ts";
import {
  LocalDriverUnknown,
  LocalNetworkExists,
  LocalNetworkInUse,
  LocalNetworkInvalid,
  LocalNetworkNotFound,
  LocalNetworkOverlaps,
  LocalNetworkPredefined,
  LocalSubnetsExhausted,
} from "./host-errors.ts";

export interface LocalNetworksOptions {
  /** Of the records; absolute, belongs to this process alone. */
  readonly folder: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** CIDR of what the host has addresses and routes for, the default route excepted; nothing chosen overlaps them. */
  readonly hostRanges: () => Promise<readonly string[]>;
  /** Before the first sandbox is on a network with IPv6. */
  readonly onV6: () => Promise<void>;
}

export class LocalNetworks implements AsyncDisposable {
  readonly #options: LocalNetworksOptions;
  readonly #database: Level<string, LocalNetworkRecord>;
  readonly #writer: LevelWriter<BatchOperation<Level<string, LocalNetworkRecord>, string, LocalNetworkRecord>>;
  readonly #records = new Map<string, LocalNetworkRecord>();
  /** Sandboxes on each network, by network id. */
  readonly #users = new Map<string, Set<string>>();
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: LocalNetworksOptions, database: Level<string, LocalNetworkRecord>) {
    this.#options = options;
    this.#database = database;
    this.#writer = new LevelWriter(database);
  }

  /** The network `bridge` is made if it is not there yet. */
  static async open(options: LocalNetworksOptions): Promise<LocalNetworks> {
    await mkdir(options.folder, { recursive: true, mode: 0o700 });
    const database = new Level<string, LocalNetworkRecord>(options.folder, { valueEncoding: "json" });
    await database.open();
    const networks = new LocalNetworks(options, database);
    try {
      // A record of a later version was written by a newer daemon, which owns that network.
      for await (const record of database.values()) {
        if (record.version === 1) networks.#records.set(record.network.id, record);
      }
      if (networks.#named(defaultBridgeName) === undefined) {
        await networks.#create({ name: defaultBridgeName }).catch((error: unknown) => {
          // A host whose routes fill all pools runs what needs no such network.
          if (!(error instanceof LocalSubnetsExhausted)) throw error;
          options.logger.warn("there is no network bridge on this node", { error });
        });
      }
    } catch (error) {
      await database.close();
      throw error;
    }
    return networks;
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => undefined); // the failure is the caller's; the queue only waits for the end
    return mine;
  }

  /**
   * @throws LocalNetworkInvalid, LocalNetworkExists, LocalNetworkOverlaps, LocalNetworkPredefined, LocalDriverUnknown,
   *         LocalSubnetsExhausted
   */
  create(wish: LocalNetworkWish): Promise<LocalNetworkRecord> {
    return this.#exclusively(async () => {
      if (predefinedNames.includes(wish.name)) throw new LocalNetworkPredefined(wish.name, "created");
      return this.#create(wish);
    });
  }

  async #create(wish: LocalNetworkWish): Promise<LocalNetworkRecord> {
    if (this.#named(wish.name) !== undefined) throw new LocalNetworkExists(wish.name);
    const ours = [...this.#records.values()].flatMap(({ network: { subnet, subnet6 } }) =>
      subnet6 === undefined ? [subnet] : [subnet, subnet6],
    );
    const reading = readLocalNetwork(wish, [...ours, ...(await this.#options.hostRanges())], ours);
    if (!reading.ok) {
      switch (reading.kind) {
        case "driver":
          throw new LocalDriverUnknown(reading.why);
        case "overlap":
          throw new LocalNetworkOverlaps(reading.why, reading.other ?? "");
        case "exhausted":
          throw new LocalSubnetsExhausted();
        case "invalid":
          throw new LocalNetworkInvalid(reading.why);
      }
    }
    if (reading.network.subnet6 !== undefined) await this.#options.onV6();
    const record: LocalNetworkRecord = {
      version: 1,
      createdAtMs: this.#options.clock.wallMs(),
      driver: "bridge",
      options: { ...wish.options },
      labels: { ...wish.labels },
      auxiliaryAddresses: { ...wish.ipam?.[0]?.auxiliaryAddresses },
      ...((wish.ipam ?? []).some(({ subnet = "" }) => subnet !== "") ? { hasOwnSubnet: true } : {}),
      network: { ...reading.network, id: randomBytes(32).toString("hex") },
    };
    await this.#writer.write([{ type: "put", key: record.network.id, value: record }]);
    this.#records.set(record.network.id, record);
    return record;
  }

  #named(name: string): LocalNetworkRecord | undefined {
    return [...this.#records.values()].find(({ network }) => network.name === name);
  }

  /** By id, by name, or by the beginning of an id that no other has. */
  find(reference: string): LocalNetworkRecord | undefined {
    const exact = this.#records.get(reference) ?? this.#named(reference);
    if (exact !== undefined || !/^[0-9a-f]{4,64}$/u.test(reference)) return exact;
    const begun = [...this.#records.values()].filter(({ network }) => network.id.startsWith(reference));
    return begun.length === 1 ? begun[0] : undefined;
  }

  /** @throws LocalNetworkNotFound */
  inspect(reference: string): LocalNetworkRecord {
    const record = this.find(reference);
    if (record === undefined) throw new LocalNetworkNotFound(reference);
    return record;
  }

  /** As the host side knows it. */
  bridge(id: string): BridgeNetwork | undefined {
    return this.#records.get(id)?.network;
  }

  /** Oldest first. */
  list(): LocalNetworkRecord[] {
    return [...this.#records.values()].sort((a, b) => a.createdAtMs - b.createdAtMs);
  }

  /** Ids of the sandboxes on it: of containers that run. */
  usedBy(id: string): readonly string[] {
    return [...(this.#users.get(id) ?? [])];
  }

  /** A sandbox is on these from now on, and on no others. */
  setUser(sandboxId: string, networkIds: readonly string[]): void {
    for (const [id, users] of this.#users) {
      if (!networkIds.includes(id) && users.delete(sandboxId) && users.size === 0) this.#users.delete(id);
    }
    for (const id of networkIds) {
      const users = this.#users.get(id) ?? new Set();
      this.#users.set(id, users.add(sandboxId));
    }
  }

  /** @throws LocalNetworkNotFound, LocalNetworkPredefined, LocalNetworkInUse */
  remove(reference: string): Promise<LocalNetworkRecord> {
    return this.#exclusively(() => this.#remove(reference));
  }

  async #remove(reference: string): Promise<LocalNetworkRecord> {
    const record = this.inspect(reference);
    const { id, name } = record.network;
    if (name === defaultBridgeName) throw new LocalNetworkPredefined(name, "removed");
    const users = this.usedBy(id);
    if (users.length > 0) throw new LocalNetworkInUse(name, id, users);
    await this.#writer.write([{ type: "del", key: id }]);
    this.#records.delete(id);
    return record;
  }

  /**
   * Removes those on which nothing runs.
   * @param wanted  also says no for networks that containers which do not run refer to
   */
  prune(wanted: (record: LocalNetworkRecord) => boolean): Promise<readonly LocalNetworkRecord[]> {
    return this.#exclusively(async () => {
      const removed: LocalNetworkRecord[] = [];
      for (const record of this.list()) {
        const { id, name } = record.network;
        if (name === defaultBridgeName || this.usedBy(id).length > 0 || !wanted(record)) continue;
        removed.push(await this.#remove(id));
      }
      return removed;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    await this.#database.close();
  }
}
