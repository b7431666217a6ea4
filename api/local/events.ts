/** What happens on this node (and, on managers, in the swarm), for `GET /events`: the last thousand, and all from now on. */
import { ResyncQueue, TaskGroup, type Clock, type Logger } from "../../lib/runtime/index.ts";
import type { NetworkEvent } from "../../worker/container-networks/index.ts";
import type { Containers } from "../../worker/containers/index.ts";
import type { ImageEvent } from "../../worker/images/index.ts";
import type { VolumeEvent } from "../../worker/volumes/index.ts";

export interface EngineEvent {
  /** container, image, volume, network, service, node, secret, config, ... */
  readonly type: string;
  readonly action: string;
  readonly id: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly scope: "local" | "swarm";
  readonly timeNs: bigint;
}

const historyMax = 1000;
const watcherMax = 4096;

/** Made before the rooms whose events it takes. */
export class LocalEvents implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #tasks: TaskGroup;
  readonly #history: EngineEvent[] = [];
  readonly #watchers = new Set<ResyncQueue<EngineEvent>>();
  #lastNs = 0n;

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#tasks = new TaskGroup((name, error) => logger.error("events are no longer passed on", { of: name, error }));
  }

  /** Of any kind; the swarm's come in here. */
  emit(event: Omit<EngineEvent, "timeNs"> & { readonly timeMs?: number }): void {
    const { timeMs = this.#clock.wallMs(), ...rest } = event;
    const wall = BigInt(Math.floor(timeMs)) * 1_000_000n;
    // No two of one moment: clients tell events apart by it, and go on after the last that they saw.
    this.#lastNs = wall > this.#lastNs ? wall : this.#lastNs + 1n;
    const timed = { ...rest, timeNs: this.#lastNs };
    this.#history.push(timed);
    if (this.#history.length > historyMax) this.#history.shift();
    for (const watcher of this.#watchers) watcher.offer(timed);
  }

  /** For `ImagesOptions.onEvent`. */
  readonly image = ({ action, id, name }: ImageEvent): void =>
    this.emit({ type: "image", action, id, attributes: { name }, scope: "local" });

  /** For `VolumesOptions.onEvent`. */
  readonly volume = ({ action, name, attributes }: VolumeEvent): void =>
    this.emit({ type: "volume", action, id: name, attributes, scope: "local" });

  /** For `WorkerSettings.onNetwork`. */
  readonly network = ({ action, networkId, name, driver, container }: NetworkEvent): void => {
    const attributes = { name, type: driver, ...(container === undefined ? {} : { container }) };
    this.emit({ type: "network", action, id: networkId, attributes, scope: "local" });
  };

  /** Takes the events of these containers from now on. */
  follow(containers: Containers): void {
    this.#tasks.start("containers", async (signal) => {
      for await (const item of containers.events(signal)) {
        // One that fell behind has lost events, which nobody can give back.
        if (item.kind !== "item") continue;
        const { action, id, timeMs, attributes } = item.item;
        this.emit({ type: "container", action, id, attributes, scope: "local", timeMs });
      }
    });
  }

  since(ns: bigint): readonly EngineEvent[] {
    return this.#history.filter(({ timeNs }) => timeNs >= ns);
  }

  /** From the moment of the call until the signal aborts. One that falls behind misses what it had no time for. */
  watch(signal: AbortSignal): AsyncGenerator<EngineEvent, void, undefined> {
    const queue = new ResyncQueue<EngineEvent>({ name: "events", itemsMax: watcherMax });
    this.#watchers.add(queue);
    // Not in a `finally` of the generator: one that nobody has begun to read ends without it.
    signal.addEventListener("abort", () => this.#watchers.delete(queue), { once: true });
    if (signal.aborted) this.#watchers.delete(queue);
    return (async function* () {
      for await (const one of queue.drain(signal)) if (one.kind === "item") yield one.item;
    })();
  }

  get watching(): number {
    return this.#watchers.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tasks[Symbol.asyncDispose]();
  }
}
