/** What happens to containers, for `GET /events` and for whoever keeps an eye on them. */
import { ResyncQueue, type ResyncItem } from "../../lib/runtime/index.ts";

export interface ContainerEvent {
  readonly action: string;
  readonly id: string;
  readonly timeMs: number;
  /** name, image, labels, and what the action adds: exitCode, signal, execID, ... */
  readonly attributes: Readonly<Record<string, string>>;
}

const historyMax = 256;
const watcherMax = 4096;

export class EventHub {
  readonly #history: ContainerEvent[] = [];
  readonly #watchers = new Set<ResyncQueue<ContainerEvent>>();

  emit(event: ContainerEvent): void {
    this.#history.push(event);
    if (this.#history.length > historyMax) this.#history.shift();
    for (const watcher of this.#watchers) watcher.offer(event);
  }

  /** The last events since a moment; at most 256. */
  since(ms: number): readonly ContainerEvent[] {
    return this.#history.filter(({ timeMs }) => timeMs >= ms);
  }

  /** Events from the moment of the call; one who falls behind is told to resync. */
  watch(signal: AbortSignal): AsyncGenerator<ResyncItem<ContainerEvent>, void, undefined> {
    const queue = new ResyncQueue<ContainerEvent>({ name: "container events", itemsMax: watcherMax });
    this.#watchers.add(queue);
    const watchers = this.#watchers;
    return (async function* () {
      try {
        yield* queue.drain(signal);
      } finally {
        watchers.delete(queue);
      }
    })();
  }
}
