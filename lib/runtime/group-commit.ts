/**
 * What comes while a write is under way goes into the next one. So many callers share one sync of the disk, and one who
 * comes alone does not wait for others.
 */
export class GroupCommit<T> {
  readonly #write: (items: readonly T[]) => Promise<void>;
  #waiting: T[] = [];
  /** Takes what waits, when the write under way is over. */
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();

  /** @param write  all of them or none; called for one group after the other, in the order of `add` */
  constructor(write: (items: readonly T[]) => Promise<void>) {
    this.#write = write;
  }

  /**
   * @param items  stay together
   * @returns      settles when they are written; a failure is told to everybody of the group
   */
  add(...items: readonly T[]): Promise<void> {
    this.#waiting.push(...items);
    this.#next ??= this.#last.then(
      () => this.#flush(),
      () => this.#flush(), // a failure is its own group's
    );
    this.#last = this.#next;
    return this.#next;
  }

  /** When nothing is under way any more. */
  async idle(): Promise<void> {
    await this.#last.catch(() => undefined); // who asked for it has heard
  }

  #flush(): Promise<void> {
    const items = this.#waiting;
    this.#waiting = [];
    this.#next = undefined;
    return this.#write(items);
  }
}
