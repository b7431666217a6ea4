/** What ought to happen to a service's tasks, as plain data; the shell writes it down. */
import type { skep } from "../../../proto/index.ts";
import type { Hold } from "./facts.ts";

export type Step =
  | { readonly kind: "create"; readonly task: NewTask }
  /** The desired state only grows; without `hold` the task keeps the one it has. */
  | { readonly kind: "desire"; readonly taskId: string; readonly state: skep.objects.TaskState; readonly hold?: Hold }
  /** Its failure was counted by the update that made it. */
  | { readonly kind: "counted"; readonly taskId: string }
  | { readonly kind: "remove"; readonly taskId: string }
  | { readonly kind: "updateStatus"; readonly status: UpdateChange }
  /** The first of the previous specs takes the place of the one that failed; the others are kept. */
  | { readonly kind: "rollBack"; readonly message: string }
  | { readonly kind: "removeService" };

export interface NewTask {
  readonly slot: number;
  /** Of global services; elsewhere the scheduler chooses. */
  readonly nodeId: string;
  readonly desired: skep.objects.TaskState;
  readonly updateId: number;
  readonly hold: Hold | undefined;
}

export interface UpdateChange {
  readonly state: skep.objects.UpdateState;
  readonly failed: number;
  readonly total: number;
  readonly message: string;
}

/** Steps that happen together or not at all: one slot's, or the service's own. */
export interface Move {
  readonly cause: string;
  readonly steps: readonly Step[];
}

export interface Decision {
  readonly moves: readonly Move[];
  /** When something is due without anything having changed. */
  readonly wakeAtUs: number | undefined;
}
