/**
 * Hands the managers' records to the data plane, one call after the other. What comes while a call is under way is put
 * together: a record that changes ten times is handed on once, so what waits is never more than there are records.
 */
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import type { DataPlane, NetworkRecords, RecordChange } from "./core/index.ts";

export interface DataFeedOptions {
  readonly plane: DataPlane;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Everything as it is now. */
  readonly records: () => NetworkRecords;
  /** The data plane does what managers have told up to this revision of the present session. */
  readonly applied: (revision: number) => void;
  /** A call is over: whoever waits for a ticket may look again. */
  readonly settled: () => void;
}

const retryMs = 1000;
const retryMaxMs = 30_000;
const closeMs = 2000;

export class DataFeed {
  readonly #options: DataFeedOptions;
  /** Everything is due, and not only the changes. */
  #complete = false;
  #changes = new Map<string, RecordChange>();
  /** Of what waits: the newest, and where the session stands with it. */
  #ticket = 0;
  #revision: number | undefined;
  #session = 0;
  #settledTicket = 0;
  #running: Promise<void> | undefined;
  /** In a row, of calls with everything. */
  #failures = 0;
  #timer: Timer | undefined;
  #closed = false;

  constructor(options: DataFeedOptions) {
    this.#options = options;
  }

  /** Everything is another now. @returns a ticket for `hasSettled` */
  replace(revision: number | undefined): number {
    this.#complete = true;
    this.#changes.clear();
    return this.#wake(revision);
  }

  /** @returns a ticket for `hasSettled`: of what was handed in last, if there are no changes */
  change(changes: readonly RecordChange[], revision: number): number {
    if (changes.length === 0) return this.#ticket;
    // Whoever takes everything takes these as well.
    if (!this.#complete) for (const change of changes) this.#changes.set(`${change.kind}/${change.key}`, change);
    return this.#wake(revision);
  }

  /** The data plane was told of it. It need not have managed: then it says why when it is asked for more. */
  hasSettled(ticket: number): boolean {
    return ticket <= this.#settledTicket;
  }

  /** Revisions of the next session have nothing to do with those of this one. */
  sessionEnded(): void {
    this.#session++;
    this.#revision = undefined;
  }

  /** A data plane that does not answer does not keep the agent from ending. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    if (this.#running === undefined) return;
    const patience = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(closeMs, () => patience.resolve());
    await Promise.race([this.#running, patience.promise]);
    timer.cancel();
  }

  #wake(revision: number | undefined): number {
    if (revision !== undefined) this.#revision = revision;
    this.#ticket++;
    this.#running ??= this.#run();
    return this.#ticket;
  }

  async #run(): Promise<void> {
    // Not inside the call that began it: more may come with it.
    await Promise.resolve();
    while (!this.#closed && (this.#complete || this.#changes.size > 0)) {
      const { plane, records, settled, applied } = this.#options;
      const [ticket, session, revision] = [this.#ticket, this.#session, this.#revision];
      const [complete, changes] = [this.#complete, this.#changes];
      this.#changes = new Map();
      this.#complete = false;
      try {
        await (complete ? plane.replace(records()) : plane.change([...changes.values()]));
        if (complete) this.#isWhole();
      } catch (error) {
        this.#failed(error);
      }
      this.#settledTicket = ticket;
      settled();
      if (this.#failures === 0 && revision !== undefined && session === this.#session) applied(revision);
    }
    this.#running = undefined;
  }

  /** Nothing is left of what had failed. A call that fails after this is the first again. */
  #isWhole(): void {
    this.#failures = 0;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** What was not done is not known, so everything is said again after a while; changes go on meanwhile. */
  #failed(error: unknown): void {
    const { clock, logger } = this.#options;
    logger.warn("the data plane is not as the managers say; tried again soon", { error });
    if (this.#timer !== undefined || this.#closed) return;
    const waitMs = Math.min(retryMaxMs, retryMs * 2 ** Math.min(this.#failures, 10));
    this.#failures++;
    this.#timer = clock.after(waitMs, () => {
      this.#timer = undefined;
      this.replace(undefined);
    });
  }
}
