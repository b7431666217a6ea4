/** Work that outlives the call which started it, owned by a group that ends it and waits for its end. */
import { isAbort } from "../pure/errors.ts";

/**
 * `start` hands each piece of work the group's signal; disposing aborts it and waits for all. A failure is reported at
 * once with the name of the work; being cancelled by the group is not a failure.
 */
export class TaskGroup implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #onFailure: (name: string, error: unknown) => void;

  constructor(onFailure: (name: string, error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  /** Aborts when the group is being disposed. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Pieces of work that have not ended. */
  get size(): number {
    return this.#running.size;
  }

  start(name: string, work: (signal: AbortSignal) => Promise<void>): void {
    const guarded = async (): Promise<void> => work(this.#stop.signal); // a throw before the first await is a rejection, too
    const done: Promise<void> = guarded()
      .catch((error: unknown) => {
        if (!(this.#stop.signal.aborted && isAbort(error))) this.#onFailure(name, error);
      })
      .finally(() => this.#running.delete(done));
    this.#running.add(done);
  }

  /** Waits until nothing runs; work started meanwhile is waited for as well. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.idle();
  }
}
