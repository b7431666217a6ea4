/** One service as this member has seen it: its facts, its tasks, and the specs that they were made from. */
import { skep } from "../../proto/index.ts";
import {
  differenceOf,
  noDifference,
  serviceFacts,
  taskFacts,
  TaskState,
  UpdateState,
  type Difference,
  type ServiceFacts,
  type SpecPair,
  type TaskFacts,
} from "./core/index.ts";

type Service = skep.objects.Service.$Properties;
type Task = skep.objects.Task.$Properties;

interface KeptSpec extends SpecPair {
  /** Tasks that have it. */
  users: number;
  difference: Difference | undefined;
  readonly bytes: number;
}

export class ServiceBook {
  readonly id: string;
  /** Undefined when there are only tasks left of it. */
  facts: ServiceFacts | undefined;
  readonly #tasks = new Map<string, TaskFacts>();
  readonly #specs = new Map<number, KeptSpec>();
  #now: SpecPair = { spec: undefined, endpoint: undefined };
  #nowBytes = 0;

  constructor(id: string) {
    this.id = id;
  }

  get tasks(): ReadonlyMap<string, TaskFacts> {
    return this.#tasks;
  }

  get isEmpty(): boolean {
    return this.facts === undefined && this.#tasks.size === 0;
  }

  /** What one task of it may take in an entry. */
  get taskBytes(): number {
    let bytes = this.#nowBytes;
    for (const kept of this.#specs.values()) bytes = Math.max(bytes, kept.bytes);
    return bytes + 1024;
  }

  setService(service: Service | undefined): void {
    this.facts = service === undefined ? undefined : serviceFacts(service);
    this.#now = { spec: service?.spec?.taskTemplate, endpoint: service?.spec?.endpointSpec };
    this.#nowBytes = sizeOf(this.#now.spec);
    for (const kept of this.#specs.values()) kept.difference = undefined;
  }

  /** @returns whether something may have to be done about it */
  setTask(task: Task, nowUs: number, isView: boolean, nodeId = task.nodeId ?? ""): boolean {
    const id = task.id ?? "";
    const before = this.#tasks.get(id);
    const state = task.status?.state ?? TaskState.NEW;
    const seenUs = isView ? Math.min(nowUs, task.meta?.updatedAtUs ?? nowUs) : nowUs;
    const stateSinceUs = before?.state === state ? before.stateSinceUs : seenUs;
    const runningSinceUs = before?.runningSinceUs ?? (state === TaskState.RUNNING ? seenUs : undefined);
    const facts = taskFacts(task, { stateSinceUs, runningSinceUs }, nodeId);
    this.#tasks.set(id, facts);
    if (before === undefined) this.#keepSpec(task);
    return this.#matters(before, facts);
  }

  removeTask(id: string): boolean {
    const task = this.#tasks.get(id);
    if (task === undefined) return false;
    this.#tasks.delete(id);
    const kept = this.#specs.get(task.specVersion);
    if (kept !== undefined && --kept.users === 0) this.#specs.delete(task.specVersion);
    return true;
  }

  differenceFrom(specVersion: number): Difference {
    const kept = this.#specs.get(specVersion);
    if (kept === undefined) return noDifference;
    kept.difference ??= differenceOf(kept, this.#now);
    return kept.difference;
  }

  /** Most of what an agent reports on the way to RUNNING asks for nothing here. */
  #matters(before: TaskFacts | undefined, now: TaskFacts): boolean {
    if (before === undefined || before.desired !== now.desired || before.updateId !== now.updateId) return true;
    if (before.state === now.state) return false;
    if (now.state > TaskState.RUNNING) return true;
    // A held task waits for READY; an update, and an old task beside a new one, for RUNNING.
    return now.desired === TaskState.READY || this.#isUpdating || this.#specs.size > 1;
  }

  get #isUpdating(): boolean {
    const state = this.facts?.status?.state;
    return state === UpdateState.UPDATING || state === UpdateState.ROLLBACK_STARTED;
  }

  #keepSpec(task: Task): void {
    const version = task.specVersion ?? 0;
    const kept = this.#specs.get(version);
    if (kept !== undefined) kept.users++;
    else
      this.#specs.set(version, {
        spec: task.spec,
        endpoint: task.endpoint?.spec,
        users: 1,
        difference: undefined,
        bytes: sizeOf(task.spec),
      });
  }
}

function sizeOf(spec: skep.objects.TaskSpec.$Properties | null | undefined): number {
  return spec == null ? 0 : skep.objects.TaskSpec.encode(spec).finish().length;
}
