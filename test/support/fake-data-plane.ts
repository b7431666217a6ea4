/**
 * A data plane without a kernel. A FakeKernel is what a machine routes by, whatever becomes of its daemon; a FakeDataPlane
 * is one life of the daemon. What is asked takes a while, and may fail half-way.
 */
import type { Random } from "../../lib/pure/prng.ts";
import { sleep, type Clock } from "../../lib/runtime/index.ts";
import type { DataPlane, NetworkRecords, RecordChange } from "../../worker/agent/index.ts";

export class FakeKernel {
  readonly peers = new Map<string, NetworkRecords["peers"][number]>();
  readonly endpoints = new Map<string, NetworkRecords["endpoints"][number]>();
  readonly services = new Map<string, NetworkRecords["services"][number]>();

  /** Power off and on. */
  reboot(): void {
    for (const map of [this.peers, this.endpoints, this.services]) map.clear();
  }

  apply(change: RecordChange): void {
    const map = { peer: this.peers, endpoint: this.endpoints, service: this.services }[change.kind];
    if (change.record === undefined) map.delete(change.key);
    else (map as Map<string, unknown>).set(change.key, change.record);
  }

  replace({ peers, endpoints, services }: NetworkRecords): void {
    this.reboot();
    for (const record of peers) this.peers.set(record.nodeId, record);
    for (const record of endpoints) this.endpoints.set(`${record.networkId}/${record.taskId}`, record);
    for (const record of services) this.services.set(`${record.networkId}/${record.serviceId}`, record);
  }
}

export interface FakePlaneOptions {
  readonly kernel: FakeKernel;
  readonly clock: Clock;
  readonly random: Random;
  /** Each call takes at most so long. */
  readonly applyMs: number;
  /** Of calls that fail, 0 to 1. */
  readonly failures: number;
}

export class FakeDataPlane implements DataPlane {
  readonly #options: FakePlaneOptions;
  #busy = false;
  readonly #dead = new AbortController();
  /** Nothing that is asked from now on is ever done. */
  hangs = false;
  /** Calls at once, which there must never be. */
  overlapped = false;
  replaced = 0;

  constructor(options: FakePlaneOptions) {
    this.#options = options;
  }

  /** The daemon that it is part of is gone: what is under way is not done. */
  die(): void {
    this.#dead.abort();
  }

  replace(records: NetworkRecords): Promise<void> {
    this.replaced++;
    return this.#act([() => this.#options.kernel.replace(records)]);
  }

  change(changes: readonly RecordChange[]): Promise<void> {
    return this.#act(changes.map((change) => () => this.#options.kernel.apply(change)));
  }

  async #act(steps: readonly (() => void)[]): Promise<void> {
    const { clock, random, applyMs, failures } = this.#options;
    this.overlapped ||= this.#busy;
    this.#busy = true;
    const fails = random.chance(failures);
    try {
      await sleep(clock, this.hangs ? foreverMs : random.float() * applyMs, this.#dead.signal);
      const done = fails ? steps.slice(0, random.int(0, steps.length)) : steps;
      for (const step of done) step();
      if (fails) throw new Error("the kernel refused something");
    } finally {
      this.#busy = false;
    }
  }
}

const foreverMs = 1e12;
