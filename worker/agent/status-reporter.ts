/** What the managers have not acknowledged yet of this node's tasks: the newest of each, said until it is. */
import type { Clock, Timer } from "../../lib/runtime/index.ts";
import type { skep } from "../../proto/index.ts";
import type { Status } from "./task-memory.ts";

/** Several changes of one moment travel together. */
const gatherMs = 2;
const updateMax = 500;

interface Pending {
  status: Status;
  /** Of the update that it was last sent with, in this session; 0: not yet. */
  number: number;
}

export interface ReporterOptions {
  readonly clock: Clock;
  /** @returns false: wait until `drained` is called */
  readonly send: (update: skep.dispatcher.StatusUpdate.$Properties) => boolean;
  readonly acknowledged: (taskId: string, status: Status) => void;
}

export class StatusReporter {
  readonly #options: ReporterOptions;
  readonly #pending = new Map<string, Pending>();
  readonly #toSend = new Set<string>();
  readonly #underWay = new Map<number, readonly string[]>();
  #number = 0;
  #open = false;
  #blocked = false;
  #timer: Timer | undefined;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  get pending(): number {
    return this.#pending.size;
  }

  add(taskId: string, status: Status): void {
    this.#pending.set(taskId, { status, number: 0 });
    this.#toSend.add(taskId);
    this.#soon();
  }

  forget(taskId: string): void {
    this.#pending.delete(taskId);
    this.#toSend.delete(taskId);
  }

  /** A session has begun: everything is said anew. */
  begin(): void {
    this.#open = true;
    this.#blocked = false;
    this.#underWay.clear();
    for (const [taskId, pending] of this.#pending) {
      pending.number = 0;
      this.#toSend.add(taskId);
    }
    this.#soon();
  }

  end(): void {
    this.#open = false;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  drained(): void {
    this.#blocked = false;
    this.#soon();
  }

  acknowledge(number: number): void {
    const taskIds = this.#underWay.get(number);
    this.#underWay.delete(number);
    for (const taskId of taskIds ?? []) {
      const pending = this.#pending.get(taskId);
      // What has changed since is still to be said.
      if (pending?.number !== number) continue;
      this.#pending.delete(taskId);
      this.#options.acknowledged(taskId, pending.status);
    }
  }

  #soon(): void {
    if (!this.#open || this.#blocked || this.#timer !== undefined || this.#toSend.size === 0) return;
    this.#timer = this.#options.clock.after(gatherMs, () => {
      this.#timer = undefined;
      this.#flush();
    });
  }

  #flush(): void {
    while (this.#toSend.size > 0 && this.#open && !this.#blocked) {
      const taskIds = [...this.#toSend].slice(0, updateMax);
      const number = ++this.#number;
      const tasks = taskIds.flatMap((taskId) => {
        this.#toSend.delete(taskId);
        const pending = this.#pending.get(taskId);
        if (pending === undefined) return [];
        pending.number = number;
        return [{ taskId, status: pending.status }];
      });
      this.#underWay.set(number, taskIds);
      if (!this.#options.send({ number, tasks })) this.#blocked = true;
    }
  }
}
