/**
 * What the managers have not acknowledged yet of this node's tasks: the newest of each, said until it is. What somebody
 * waits for goes at once; the steps on the way there have time, and most of them are overtaken before they are said.
 */
import type { Clock, Timer } from "../../lib/runtime/index.ts";
import type { skep } from "../../proto/index.ts";
import type { Status } from "./task-memory.ts";

/** Swarm says everything after so long. */
const patienceMs = 100;
const updateMax = 500;
/** Updates that are not acknowledged. What comes meanwhile travels together, with the next. */
const underWayMax = 2;

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
  readonly #urgent = new Set<string>();
  /** Said when `patienceMs` are over since the first of them, unless something newer is urgent. */
  readonly #others = new Set<string>();
  readonly #underWay = new Map<number, readonly string[]>();
  #number = 0;
  #open = false;
  #blocked = false;
  #timer: Timer | undefined;
  #flushing = false;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  get pending(): number {
    return this.#pending.size;
  }

  add(taskId: string, status: Status, isUrgent: boolean): void {
    this.#pending.set(taskId, { status, number: 0 });
    // What was urgent before has still to be known soon.
    if (isUrgent || this.#urgent.has(taskId)) {
      this.#others.delete(taskId);
      this.#urgent.add(taskId);
      this.#soon();
    } else {
      this.#others.add(taskId);
      this.#later();
    }
  }

  forget(taskId: string): void {
    this.#pending.delete(taskId);
    this.#urgent.delete(taskId);
    this.#others.delete(taskId);
  }

  /** A session has begun: everything is said anew. */
  begin(): void {
    this.#open = true;
    this.#blocked = false;
    this.#underWay.clear();
    for (const [taskId, pending] of this.#pending) {
      pending.number = 0;
      this.#urgent.add(taskId);
    }
    this.#others.clear();
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
    this.#later();
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
    this.#soon();
  }

  /** With all that becomes urgent in the same moment. */
  #soon(): void {
    if (this.#flushing || this.#urgent.size === 0) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.#flush();
    });
  }

  #later(): void {
    if (!this.#open || this.#timer !== undefined || this.#others.size === 0) return;
    this.#timer = this.#options.clock.after(patienceMs, () => {
      this.#timer = undefined;
      for (const taskId of this.#others) this.#urgent.add(taskId);
      this.#others.clear();
      this.#soon();
    });
  }

  #flush(): void {
    const toSend = this.#urgent;
    while (toSend.size > 0 && this.#open && !this.#blocked && this.#underWay.size < underWayMax) {
      const taskIds = [...toSend].slice(0, updateMax);
      const number = ++this.#number;
      const tasks = taskIds.flatMap((taskId) => {
        toSend.delete(taskId);
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
