/**
 * What one node is to know, and what it has been told. Only keys are kept here: whoever sends reads each object as it is
 * at that moment. So a slow node costs no more memory than a fast one: a thing that changes ten times is due once.
 */
import { skep } from "../../../proto/index.ts";

const { TaskState } = skep.objects;
type Task = Readonly<skep.objects.Task>;

export type NeedKind = "secret" | "config" | "network" | "volume";

/** An object by kind and id; removed: the node is to forget it. */
export interface Due {
  readonly kind: "task" | NeedKind;
  readonly id: string;
  readonly removed: boolean;
}

/** Is told to its node: placed there by the scheduler, and not forgotten by the store. */
export const isAssigned = (task: Task): boolean =>
  task.nodeId !== "" && (task.status?.state ?? TaskState.NEW) >= TaskState.ASSIGNED;

/** What the node must have to run the task. A task that has ended needs nothing, so its secrets are taken away. */
export function needsOf(task: Task): readonly string[] {
  if ((task.status?.state ?? TaskState.NEW) > TaskState.RUNNING) return [];
  const keys = new Set<string>();
  const add = (kind: NeedKind, id: string | null | undefined): void => {
    if (id !== null && id !== undefined && id !== "") keys.add(`${kind}/${id}`);
  };
  const container = task.spec?.containerSpec;
  for (const { secretId } of container?.secrets ?? []) add("secret", secretId);
  for (const { configId } of container?.configs ?? []) add("config", configId);
  add("config", container?.privileges?.credentialSpec?.config);
  for (const { target } of task.spec?.networks ?? []) add("network", target);
  for (const { networkId } of task.networksAttachments) add("network", networkId);
  for (const { id } of task.volumes) add("volume", id);
  return keys.size === 0 ? nothing : [...keys];
}

/** Most tasks of a large cluster are alike in this, and are kept for each session. */
const nothing: readonly string[] = [];
const plainFingerprints = new Map<number, string>();
const statesMax = 1024;

/** Changes when the node has to hear of the task again; what the node said itself is not news to it. */
function fingerprintOf(task: Task): string {
  const state = task.status?.state ?? TaskState.NEW;
  const ended = state > TaskState.RUNNING ? state : 0;
  if (task.networksAttachments.length === 0 && task.volumes.length === 0) return plainFingerprint(task, ended);
  const addresses = task.networksAttachments.map(({ networkId, addresses }) => `${networkId}=${addresses?.join(",")}`);
  const volumes = task.volumes.map(({ id, source, target }) => `${id}=${source}:${target}`);
  return `${task.desiredState} ${ended} ${addresses.join(" ")} ${volumes.join(" ")}`;
}

function plainFingerprint({ desiredState }: Task, ended: number): string {
  const key = desiredState * statesMax + ended;
  let text = plainFingerprints.get(key);
  if (text === undefined) {
    text = `${desiredState} ${ended}`;
    plainFingerprints.set(key, text);
  }
  return text;
}

interface Wanted {
  readonly fingerprint: string;
  readonly needs: readonly string[];
  /** The node was told of it, and perhaps not of the newest. */
  readonly told: boolean;
}

const plainWanted = new Map<string, readonly [untold: Wanted, told: Wanted]>();
const plainMax = 1024;

/** Those that need nothing are kept once for all sessions: there may be a million of them. */
function wantedOf(fingerprint: string, needs: readonly string[], told: boolean): Wanted {
  if (needs.length > 0) return { fingerprint, needs, told };
  let both = plainWanted.get(fingerprint);
  if (both === undefined) {
    const base = { fingerprint, needs: nothing };
    both = [
      { ...base, told: false },
      { ...base, told: true },
    ];
    if (plainWanted.size < plainMax) plainWanted.set(fingerprint, both);
  }
  return both[told ? 1 : 0];
}

export class NodeAssignments {
  readonly #tasks = new Map<string, Wanted>();
  /** How many tasks need it. */
  readonly #uses = new Map<string, number>();
  /** Needs that the node was told. */
  readonly #told = new Set<string>();
  readonly #due = new Set<string>();
  readonly #isHeld: (taskId: string) => boolean;

  /** @param isHeld  of this task the node is not told now what has changed: it becomes due when that is over */
  constructor(isHeld: (taskId: string) => boolean = () => false) {
    this.#isHeld = isHeld;
  }

  /** Things that the node has to hear of. */
  get due(): number {
    return this.#due.size;
  }

  get tasks(): number {
    return this.#tasks.size;
  }

  /** Tasks that the node shall have; who reads them may change what is known of each. */
  taskIds(): readonly string[] {
    return [...this.#tasks.keys()];
  }

  /** @param task  as it is now; undefined: there is no such task, or it is not this node's */
  setTask(id: string, task: Task | undefined): void {
    const before = this.#tasks.get(id);
    const key = `${taskPrefix}${id}`;
    if (task === undefined || !isAssigned(task)) {
      if (before === undefined) return;
      this.#tasks.delete(id);
      this.#release(before.needs);
      if (before.told) this.#due.add(key);
      else this.#due.delete(key);
      return;
    }
    const fingerprint = fingerprintOf(task);
    if (before?.fingerprint === fingerprint) return;
    const needs = needsOf(task);
    // First the new ones, so that what both need is not taken away in between.
    for (const need of needs) this.#use(need);
    if (before !== undefined) this.#release(before.needs);
    // Gone and here again before the node heard of it: it has what it was told.
    const told = before?.told ?? this.#due.has(key);
    this.#tasks.set(id, wantedOf(fingerprint, needs, told));
    this.#due.add(key);
  }

  /** An object has changed, or is gone. @returns whether the node has to hear of it */
  touch(kind: NeedKind, id: string): boolean {
    const key = `${kind}/${id}`;
    if (!this.#uses.has(key)) return false;
    this.#due.add(key);
    return true;
  }

  /** Any of them may have changed. */
  touchNeeds(): void {
    for (const key of this.#uses.keys()) this.#due.add(key);
  }

  /** The node shall have this, whatever its tasks need. */
  keep(kind: NeedKind, id: string): void {
    this.#use(`${kind}/${id}`);
  }

  /** The other of keep(). */
  unkeep(kind: NeedKind, id: string): void {
    this.#release([`${kind}/${id}`]);
  }

  /** Everything, needs before the tasks that need them; all of it counts as told. */
  complete(): readonly Due[] {
    this.#told.clear();
    this.#due.clear();
    const all: Due[] = [];
    for (const key of this.#uses.keys()) {
      this.#told.add(key);
      all.push(dueOf(key, false));
    }
    for (const [id, wanted] of this.#tasks) {
      this.#tasks.set(id, wantedOf(wanted.fingerprint, wanted.needs, true));
      all.push({ kind: "task", id, removed: false });
      // Told as it was, and to be told again.
      if (this.#isHeld(id)) this.#due.add(`${taskPrefix}${id}`);
    }
    return all;
  }

  /** What tasks need and the node does not have yet, at most `max` things. It goes before everything else. */
  takeNeeds(max: number): readonly Due[] {
    const taken: Due[] = [];
    for (const key of this.#due) {
      if (taken.length >= max) break;
      if (!isTask(key) && this.#uses.has(key)) taken.push(dueOf(key, false));
    }
    return this.#taken(taken);
  }

  /** Tasks, then what is to be forgotten, tasks first: at most `max` things. */
  takeRest(max: number): readonly Due[] {
    const tasks: Due[] = [];
    const goneTasks: Due[] = [];
    const goneNeeds: Due[] = [];
    let held = false;
    for (const key of this.#due) {
      if (!isTask(key)) {
        if (!this.#uses.has(key)) goneNeeds.push(dueOf(key, true));
        continue;
      }
      const id = key.slice(taskPrefix.length);
      if (this.#isHeld(id)) {
        held = true;
        continue;
      }
      if (this.#tasks.has(id)) tasks.push(dueOf(key, false));
      else goneTasks.push(dueOf(key, true));
    }
    // One that is held goes on with what it has, also if the managers have ended it already.
    return this.#taken([...tasks, ...goneTasks, ...(held ? [] : goneNeeds)].slice(0, max));
  }

  #taken(taken: readonly Due[]): readonly Due[] {
    for (const { kind, id, removed } of taken) {
      const key = `${kind}/${id}`;
      this.#due.delete(key);
      if (kind === "task") {
        const wanted = this.#tasks.get(id);
        if (wanted?.told === false && !removed) this.#tasks.set(id, wantedOf(wanted.fingerprint, wanted.needs, true));
      } else if (removed) this.#told.delete(key);
      else this.#told.add(key);
    }
    return taken;
  }

  #use(need: string): void {
    const uses = this.#uses.get(need) ?? 0;
    this.#uses.set(need, uses + 1);
    if (uses > 0) return;
    // Taken away and needed again before the node heard of it: it may have changed in between.
    this.#due.add(need);
  }

  #release(needs: readonly string[]): void {
    for (const need of needs) {
      const uses = (this.#uses.get(need) ?? 1) - 1;
      if (uses > 0) this.#uses.set(need, uses);
      else {
        this.#uses.delete(need);
        this.#forget(need);
      }
    }
  }

  #forget(key: string): void {
    if (this.#told.has(key)) this.#due.add(key);
    else this.#due.delete(key);
  }
}

const taskPrefix = "task/";
const isTask = (key: string): boolean => key.startsWith(taskPrefix);

function dueOf(key: string, removed: boolean): Due {
  const slash = key.indexOf("/");
  return { kind: key.slice(0, slash) as Due["kind"], id: key.slice(slash + 1), removed };
}
