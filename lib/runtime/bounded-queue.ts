/**
 * Queues between a producer and one consumer. Each has a bound and says what happens when it is full:
 * BoundedQueue waits (`push`) or refuses (`offer`); ResyncQueue forgets everything and tells the consumer to start over.
 */
import { ClusterError } from "../pure/errors.ts";

export class QueueClosed extends ClusterError {
  readonly code = "QUEUE_CLOSED";
  constructor(name: string) {
    super(`Cannot add to queue "${name}": it is closed`, { fix: "Stop the producer before its consumer" });
  }
}

export interface QueueOptions<T> {
  /** For errors and traces. */
  readonly name: string;
  /** Most items held. */
  readonly itemsMax: number;
  /** Most weight held. An item heavier than that is accepted alone, when the queue is empty. */
  readonly weightMax?: number;
  /** Weight of an item, usually its bytes. */
  readonly weigh?: (item: T) => number;
}

interface Waiter {
  readonly wake: () => void;
}

export class BoundedQueue<T> {
  readonly #options: QueueOptions<T>;
  #items: T[] = [];
  /** Index of the first item in #items: shift() of a long array would be linear. */
  #head = 0;
  #weight = 0;
  #closed = false;
  #error: unknown;
  readonly #producers: Waiter[] = [];
  #consumer: Waiter | undefined;

  constructor(options: QueueOptions<T>) {
    this.#options = options;
  }

  get size(): number {
    return this.#items.length - this.#head;
  }

  get weight(): number {
    return this.#weight;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Adds the item, or answers false when there is no room for it. */
  offer(item: T): boolean {
    if (this.#closed) throw new QueueClosed(this.#options.name);
    // Those who wait for room came first.
    if (this.#producers.length > 0 || !this.#fits(item)) return false;
    this.#add(item);
    return true;
  }

  /** Adds the item as soon as there is room; those who wait are served in their order. */
  async push(item: T, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#closed) throw new QueueClosed(this.#options.name);
    if (this.#producers.length === 0 && this.#fits(item)) {
      this.#add(item);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        signal.removeEventListener("abort", onAbort);
        this.#producers.splice(this.#producers.indexOf(waiter), 1);
      };
      const onAbort = (): void => {
        leave();
        reject(signal.reason as Error);
        this.#wakeProducers();
      };
      const waiter: Waiter = {
        wake: () => {
          if (this.#closed) {
            leave();
            reject(new QueueClosed(this.#options.name));
          } else if (this.#fits(item)) {
            leave();
            this.#add(item);
            resolve();
          }
        },
      };
      this.#producers.push(waiter);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** The next item without waiting. */
  take(): T | undefined {
    if (this.size === 0) return undefined;
    const item = this.#items[this.#head] as T;
    this.#items[this.#head++] = undefined as T;
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    this.#weight -= this.#options.weigh?.(item) ?? 0;
    this.#wakeProducers();
    return item;
  }

  /** Items in order until the queue is closed and empty. One consumer at a time. */
  async *drain(signal: AbortSignal): AsyncGenerator<T, void, undefined> {
    for (;;) {
      signal.throwIfAborted();
      if (this.size > 0) yield this.take() as T;
      else if (this.#error !== undefined) throw this.#error;
      else if (this.#closed) return;
      else await this.#readable(signal);
    }
  }

  /** No more items; what is there can still be taken. Closing twice is fine. With an error, `drain` ends by throwing it. */
  close(error?: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    while (this.#producers.length > 0) this.#producers[0]?.wake(); // each leaves the list when it sees the queue closed
    this.#consumer?.wake();
  }

  /** Forgets all items. */
  clear(): void {
    this.#items = [];
    this.#head = 0;
    this.#weight = 0;
    this.#wakeProducers();
  }

  #fits(item: T): boolean {
    if (this.size === 0) return true;
    if (this.size >= this.#options.itemsMax) return false;
    const weightMax = this.#options.weightMax;
    return weightMax === undefined || this.#weight + (this.#options.weigh?.(item) ?? 0) <= weightMax;
  }

  #add(item: T): void {
    this.#items.push(item);
    this.#weight += this.#options.weigh?.(item) ?? 0;
    this.#consumer?.wake();
  }

  #wakeProducers(): void {
    for (let before = -1; before !== this.#producers.length && this.#producers.length > 0;) {
      before = this.#producers.length;
      this.#producers[0]?.wake();
    }
  }

  #readable(signal: AbortSignal): Promise<void> {
    if (this.#consumer !== undefined) throw new TypeError(`Queue "${this.#options.name}" has a consumer already`);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#consumer = undefined;
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#consumer = {
        wake: () => {
          this.#consumer = undefined;
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
    });
  }
}

/** What a consumer of a ResyncQueue sees: an item, or the news that some were dropped and it has to start over. */
export type ResyncItem<T> = { readonly kind: "item"; readonly item: T } | { readonly kind: "resync" };

/** For watchers: memory does not grow for one that falls behind; it is told to read the whole state again. */
export class ResyncQueue<T> {
  readonly #queue: BoundedQueue<T>;
  #dropped = false;
  #resyncs = 0;
  readonly #wake = new BoundedQueue<undefined>({ name: "resync wake-up", itemsMax: 1 });

  constructor(options: QueueOptions<T>) {
    this.#queue = new BoundedQueue(options);
  }

  get size(): number {
    return this.#queue.size;
  }

  /** How often the consumer was told to start over. */
  get resyncs(): number {
    return this.#resyncs;
  }

  /** Never waits. On overflow all items are dropped; those offered before the consumer has seen the resync are, too. */
  offer(item: T): void {
    if (this.#dropped) return;
    if (!this.#queue.offer(item)) {
      this.#queue.clear();
      this.#dropped = true;
      this.#resyncs++;
    }
    this.#wake.offer(undefined);
  }

  async *drain(signal: AbortSignal): AsyncGenerator<ResyncItem<T>, void, undefined> {
    for (;;) {
      signal.throwIfAborted();
      if (this.#dropped) {
        this.#dropped = false;
        yield { kind: "resync" };
      } else if (this.#queue.size > 0) {
        yield { kind: "item", item: this.#queue.take() as T };
      } else {
        // Every offer leaves a wake-up behind, so one that comes between the checks above and here is not lost.
        const { done } = await this.#wake.drain(signal).next();
        if (done === true) return;
      }
    }
  }

  close(): void {
    this.#queue.close();
    this.#wake.close();
  }
}
