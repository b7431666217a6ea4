/**
 * What the manager has told this node: a complete state, then numbered changes. A gap in the numbers is noticed, and
 * nothing of a complete state counts before its last part is there.
 */
import { skep } from "../../../proto/index.ts";
import { networkOfRecord, recordKey } from "./records.ts";

type Assignments = skep.dispatcher.Assignments.$Properties;
type Assignment = skep.dispatcher.Assignment.$Properties;
type Task = skep.objects.Task;

/** What an assignments message means for the tasks of this node. */
export type Told =
  /** Not all of it is here yet, or it was known. */
  | { readonly kind: "nothing" }
  /** Ask for a complete state. */
  | { readonly kind: "gap" }
  /** `tasks` are all: others are to be stopped. `records` are those that differ from what was known before. */
  | { readonly kind: "complete"; readonly tasks: readonly Task[]; readonly records: readonly RecordNews[] }
  | {
      readonly kind: "changes";
      readonly tasks: readonly Task[];
      readonly removed: readonly string[];
      readonly records: readonly RecordNews[];
    };

/** A record of the data plane; without `item` it is gone. */
export interface RecordNews {
  readonly key: string;
  readonly item: Assignment | undefined;
}

const { AssignmentsKind } = skep.dispatcher;
const nothing: Told = { kind: "nothing" };

interface Held {
  readonly tasks: Map<string, Task>;
  readonly secrets: Map<string, skep.objects.Secret>;
  readonly configs: Map<string, skep.objects.Config>;
  readonly networks: Map<string, skep.objects.Network>;
  readonly volumes: Map<string, skep.objects.Volume>;
  /** Of the data plane, by recordKey. */
  readonly records: Map<string, Assignment>;
}

const empty = (): Held => ({
  tasks: new Map(),
  secrets: new Map(),
  configs: new Map(),
  networks: new Map(),
  volumes: new Map(),
  records: new Map(),
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

  /** Of the data plane, by key. */
  get records(): ReadonlyMap<string, Assignment> {
    return this.#held.records;
  }

  /** What was remembered from an earlier life. */
  restore(records: Iterable<readonly [string, Assignment]>): void {
    for (const [key, item] of records) this.#held.records.set(key, item);
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
    for (const change of changes ?? []) put(held, change, []);
    if (last !== true) return nothing;
    const before = this.#held.records;
    this.#held = held;
    this.#revision = number;
    this.#coming = undefined;
    return { kind: "complete", tasks: [...held.tasks.values()], records: difference(before, held.records) };
  }

  #takeChanges({ appliesTo, revision, changes }: Assignments): Told {
    if (this.#revision !== undefined && (revision ?? 0) <= this.#revision) return nothing;
    if (this.#revision === undefined || appliesTo !== this.#revision) return { kind: "gap" };
    this.#revision = revision ?? 0;
    const tasks: Task[] = [];
    const removed: string[] = [];
    const records: RecordNews[] = [];
    for (const change of changes ?? []) {
      const task = put(this.#held, change, records);
      if (task === undefined) continue;
      if (change.removed === true) removed.push(task.id);
      else tasks.push(task);
    }
    return { kind: "changes", tasks, removed, records };
  }
}

/**
 * @param news  gets what has changed of the records
 * @returns     the task, if it is one
 */
function put(held: Held, change: Assignment, news: RecordNews[]): Task | undefined {
  const { task, secret, config, network, volume } = change;
  const removed = change.removed === true;
  // Decoded messages are whole: their fields are there.
  if (task != null) {
    set(held.tasks, task as Task, removed);
    return task as Task;
  }
  if (secret != null) set(held.secrets, secret as skep.objects.Secret, removed);
  else if (config != null) set(held.configs, config as skep.objects.Config, removed);
  else if (volume != null) set(held.volumes, volume as skep.objects.Volume, removed);
  else if (network != null) {
    set(held.networks, network as skep.objects.Network, removed);
    if (removed) dropRecords(held, network.id ?? "", news);
  }
  const key = recordKey(change);
  if (key === undefined) return undefined;
  if (!removed) held.records.set(key, change);
  else if (!held.records.delete(key)) return undefined;
  news.push({ key, item: removed ? undefined : change });
  return undefined;
}

/** With a network go its records: managers do not name each of them. */
function dropRecords({ records }: Held, networkId: string, news: RecordNews[]): void {
  for (const [key, item] of records) {
    if (networkOfRecord(item) !== networkId) continue;
    records.delete(key);
    news.push({ key, item: undefined });
  }
}

function difference(before: Held["records"], now: Held["records"]): readonly RecordNews[] {
  const news: RecordNews[] = [];
  for (const key of before.keys()) if (!now.has(key)) news.push({ key, item: undefined });
  for (const [key, item] of now) {
    const known = before.get(key);
    if (known === undefined || !isSame(known, item)) news.push({ key, item });
  }
  return news;
}

function isSame(a: Assignment, b: Assignment): boolean {
  const { Assignment } = skep.dispatcher;
  return Buffer.compare(Assignment.encode(a).finish(), Assignment.encode(b).finish()) === 0;
}

function set<T extends { readonly id: string }>(into: Map<string, T>, object: T, removed: boolean): void {
  if (removed) into.delete(object.id);
  else into.set(object.id, object);
}
