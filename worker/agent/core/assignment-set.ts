/**
 * What the manager has told this node: a complete state, then numbered changes. A gap in the numbers is noticed, and
 * nothing of a complete state counts before its last part is there.
 */
import { skep } from "../../../proto/index.ts";

type Assignments = skep.dispatcher.Assignments.$Properties;
type Assignment = skep.dispatcher.Assignment.$Properties;
type Task = skep.objects.Task;

/** What an assignments message means for the tasks of this node. */
export type Told =
  /** Not all of it is here yet, or it was known. */
  | { readonly kind: "nothing" }
  /** Ask for a complete state. */
  | { readonly kind: "gap" }
  /** `tasks` are all: others are to be stopped. */
  | { readonly kind: "complete"; readonly tasks: readonly Task[] }
  | { readonly kind: "changes"; readonly tasks: readonly Task[]; readonly removed: readonly string[] };

const { AssignmentsKind } = skep.dispatcher;
const nothing: Told = { kind: "nothing" };

interface Held {
  readonly tasks: Map<string, Task>;
  readonly secrets: Map<string, skep.objects.Secret>;
  readonly configs: Map<string, skep.objects.Config>;
  readonly networks: Map<string, skep.objects.Network>;
  readonly volumes: Map<string, skep.objects.Volume>;
}

const empty = (): Held => ({
  tasks: new Map(),
  secrets: new Map(),
  configs: new Map(),
  networks: new Map(),
  volumes: new Map(),
});

export class AssignmentSet {
  #held = empty();
  #revision: number | undefined;
  #coming: { readonly revision: number; readonly held: Held } | undefined;

  secret(id: string): skep.objects.Secret | undefined {
    return this.#held.secrets.get(id);
  }

  config(id: string): skep.objects.Config | undefined {
    return this.#held.configs.get(id);
  }

  network(id: string): skep.objects.Network | undefined {
    return this.#held.networks.get(id);
  }

  volume(id: string): skep.objects.Volume | undefined {
    return this.#held.volumes.get(id);
  }

  /** The session is over: numbers of the next one have nothing to do with those of this one. What is known stays. */
  sessionEnded(): void {
    this.#revision = undefined;
    this.#coming = undefined;
  }

  take(message: Assignments): Told {
    return message.kind === AssignmentsKind.COMPLETE ? this.#takePart(message) : this.#takeChanges(message);
  }

  #takePart({ revision, changes, last }: Assignments): Told {
    const number = revision ?? 0;
    if (this.#coming?.revision !== number) this.#coming = { revision: number, held: empty() };
    const { held } = this.#coming;
    for (const change of changes ?? []) put(held, change);
    if (last !== true) return nothing;
    this.#held = held;
    this.#revision = number;
    this.#coming = undefined;
    return { kind: "complete", tasks: [...held.tasks.values()] };
  }

  #takeChanges({ appliesTo, revision, changes }: Assignments): Told {
    if (this.#revision !== undefined && (revision ?? 0) <= this.#revision) return nothing;
    if (this.#revision === undefined || appliesTo !== this.#revision) return { kind: "gap" };
    this.#revision = revision ?? 0;
    const tasks: Task[] = [];
    const removed: string[] = [];
    for (const change of changes ?? []) {
      const task = put(this.#held, change);
      if (task === undefined) continue;
      if (change.removed === true) removed.push(task.id);
      else tasks.push(task);
    }
    return { kind: "changes", tasks, removed };
  }
}

/** @returns the task, if it is one */
function put(held: Held, { removed, task, secret, config, network, volume }: Assignment): Task | undefined {
  // Decoded messages are whole: their fields are there.
  if (task != null) {
    set(held.tasks, task as Task, removed === true);
    return task as Task;
  }
  if (secret != null) set(held.secrets, secret as skep.objects.Secret, removed === true);
  else if (config != null) set(held.configs, config as skep.objects.Config, removed === true);
  else if (network != null) set(held.networks, network as skep.objects.Network, removed === true);
  else if (volume != null) set(held.volumes, volume as skep.objects.Volume, removed === true);
  return undefined;
}

function set<T extends { readonly id: string }>(into: Map<string, T>, object: T, removed: boolean): void {
  if (removed) into.delete(object.id);
  else into.set(object.id, object);
}
