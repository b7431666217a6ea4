/** The shell: passes tasks on from NEW to PENDING. */
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import type { ClusterSchema, Store, Tx, Watch } from "../store/index.ts";

export interface AllocatorOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  readonly logger: Logger;
}

const { TaskState } = skep.objects;
const batchMax = 200;
const retryMs = 1000;

export class Allocator {
  readonly #options: AllocatorOptions;
  #watch: Watch<ClusterSchema> | undefined;
  readonly #new = new Set<string>();

  constructor(options: AllocatorOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#watch !== undefined) return;
    this.#watch = this.#options.store.watch({ kinds: ["task"] });
    this.#listen();
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    this.#new.clear();
  }

  #listen(): void {
    const watch = this.#watch;
    watch?.whenReady(() => {
      if (watch !== this.#watch || watch.closed) return;
      for (let event = watch.poll(); event !== undefined; event = watch.poll()) {
        if (event.kind === "view") {
          for (const task of event.view.find("task", "state", String(TaskState.NEW))) this.#new.add(task.id);
        } else
          for (const change of event.changes)
            if (change.kind === "task" && change.after?.status?.state === TaskState.NEW) this.#new.add(change.id);
      }
      this.#pass();
      this.#listen();
    });
  }

  #pass(): void {
    const ids = [...this.#new];
    this.#new.clear();
    for (let at = 0; at < ids.length; at += batchMax) this.#commit(ids.slice(at, at + batchMax));
  }

  #commit(ids: readonly string[]): void {
    const { store, clock } = this.#options;
    const watch = this.#watch;
    const change = (tx: Tx<ClusterSchema>): void => {
      for (const id of ids) {
        const task = tx.get("task", id);
        if (task?.status?.state !== TaskState.NEW) continue;
        tx.edit("task", id, (draft) => {
          draft.status = {
            ...draft.status,
            state: TaskState.PENDING,
            timestampUs: tx.timeUs,
            message: "pending task scheduling",
          };
        });
      }
    };
    store.transact(change, { actor: "allocator", cause: "tasks may be placed" }, (outcome) => {
      if (outcome.kind === "committed" || watch !== this.#watch) return;
      clock.after(retryMs, () => {
        if (watch !== this.#watch) return;
        for (const id of ids) this.#new.add(id);
        this.#pass();
      });
    });
  }
}
