/**
 * What an agent remembers across its restarts: the tasks of this node, how far each has come, what the managers have not
 * acknowledged yet, and the records of the data plane. No secret is in it: what pulls an image is taken out, secrets and configs are never given here.
 */
import { Level } from "level";

import { LevelWriter } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";

export type Task = Readonly<skep.objects.Task>;
export type Status = skep.objects.TaskStatus.$Properties;

export type RecordItem = skep.dispatcher.Assignment.$Properties;

export interface Remembered {
  readonly task: Task;
  readonly status: Status;
  readonly acknowledged: boolean;
}

export type MemoryChange =
  | { readonly kind: "task"; readonly task: Task }
  | { readonly kind: "status"; readonly taskId: string; readonly status: Status; readonly acknowledged: boolean }
  | { readonly kind: "forget"; readonly taskId: string }
  /** Of the data plane; without `item` it is gone. */
  | { readonly kind: "record"; readonly key: string; readonly item: RecordItem | undefined };

/** Changes are kept in the order of the calls. A crash loses the last ones at most, and never half of a call. */
export interface TaskMemory {
  load(): Promise<readonly Remembered[]>;
  /** Of the data plane, by key. */
  loadRecords(): Promise<readonly (readonly [string, RecordItem])[]>;
  write(changes: readonly MemoryChange[]): Promise<void>;
  close(): Promise<void>;
}

const { Task: TaskMessage, TaskStatus } = skep.objects;
const { Assignment: RecordMessage } = skep.dispatcher;
const recordPrefix = "record/";
type Row =
  | { readonly type: "put"; readonly key: string; readonly value: Uint8Array }
  | { readonly type: "del"; readonly key: string };

export class LevelMemory implements TaskMemory {
  readonly #level: Level<string, Uint8Array>;
  readonly #writer: LevelWriter<Row>;

  private constructor(level: Level<string, Uint8Array>) {
    this.#level = level;
    this.#writer = new LevelWriter(level, { sync: false });
  }

  static async open(folder: string): Promise<LevelMemory> {
    // It is read once, at the start: a cache would keep what nobody asks for again.
    const level = new Level<string, Uint8Array>(folder, {
      keyEncoding: "utf8",
      valueEncoding: "view",
      cacheSize: 64 * 1024,
      writeBufferSize: 512 * 1024,
    });
    await level.open();
    return new LevelMemory(level);
  }

  async load(): Promise<readonly Remembered[]> {
    const tasks = new Map<string, Task>();
    const found: Remembered[] = [];
    for await (const [key, value] of this.#level.iterator({ gte: "task/", lt: "task0" })) {
      const task = readable(() => TaskMessage.decode(value));
      if (task !== undefined) tasks.set(key.slice("task/".length), task);
    }
    for await (const [key, value] of this.#level.iterator({ gte: "status/", lt: "status0" })) {
      const task = tasks.get(key.slice("status/".length));
      const status = readable(() => TaskStatus.decode(value.subarray(1)));
      if (task === undefined || status === undefined) continue;
      tasks.delete(task.id);
      found.push({ task, status, acknowledged: value[0] === 1 });
    }
    for (const task of tasks.values()) found.push({ task, status: task.status ?? {}, acknowledged: true });
    return found;
  }

  async loadRecords(): Promise<readonly (readonly [string, RecordItem])[]> {
    const found: (readonly [string, RecordItem])[] = [];
    for await (const [row, value] of this.#level.iterator({ gte: recordPrefix, lt: "record0" })) {
      const item = readable(() => RecordMessage.decode(value));
      if (item !== undefined) found.push([row.slice(recordPrefix.length), item]);
    }
    return found;
  }

  async write(changes: readonly MemoryChange[]): Promise<void> {
    await this.#writer.write(changes.flatMap(rowsOf));
  }

  async close(): Promise<void> {
    await this.#writer.idle();
    await this.#level.close();
  }
}

function rowsOf(change: MemoryChange): Row[] {
  switch (change.kind) {
    case "task":
      return [
        { type: "put", key: `task/${change.task.id}`, value: TaskMessage.encode(withoutSecrets(change.task)).finish() },
      ];
    case "status": {
      const status = TaskStatus.encode(change.status).finish();
      const value = new Uint8Array(status.length + 1);
      value[0] = change.acknowledged ? 1 : 0;
      value.set(status, 1);
      return [{ type: "put", key: `status/${change.taskId}`, value }];
    }
    case "forget":
      return [
        { type: "del", key: `task/${change.taskId}` },
        { type: "del", key: `status/${change.taskId}` },
      ];
    case "record": {
      const key = `${recordPrefix}${change.key}`;
      if (change.item === undefined) return [{ type: "del", key }];
      return [{ type: "put", key, value: RecordMessage.encode(change.item).finish() }];
    }
  }
}

/** What pulls an image is needed before the task starts only, and a manager tells it again. */
function withoutSecrets(task: Task): skep.objects.Task.$Properties {
  const container = task.spec?.containerSpec;
  if (container?.pullOptions == null) return task;
  return { ...task, spec: { ...task.spec, containerSpec: { ...container, pullOptions: null } } };
}

/** One record that cannot be read is as good as none: the managers tell the task again. */
function readable<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch {
    return undefined;
  }
}

/** For tests and the simulator: what was written is there in the next life. */
export class MapMemory implements TaskMemory {
  readonly #rows = new Map<string, Remembered>();
  readonly #records = new Map<string, RecordItem>();

  load(): Promise<readonly Remembered[]> {
    return Promise.resolve([...this.#rows.values()]);
  }

  loadRecords(): Promise<readonly (readonly [string, RecordItem])[]> {
    return Promise.resolve([...this.#records]);
  }

  write(changes: readonly MemoryChange[]): Promise<void> {
    for (const change of changes) {
      if (change.kind === "forget") this.#rows.delete(change.taskId);
      else if (change.kind === "record") {
        if (change.item === undefined) this.#records.delete(change.key);
        else this.#records.set(change.key, change.item);
      } else if (change.kind === "task") {
        const before = this.#rows.get(change.task.id);
        this.#rows.set(change.task.id, {
          task: change.task,
          status: before?.status ?? change.task.status ?? {},
          acknowledged: before?.acknowledged ?? true,
        });
      } else {
        const before = this.#rows.get(change.taskId);
        if (before === undefined) continue;
        const { status, acknowledged } = change;
        this.#rows.set(change.taskId, { task: before.task, status, acknowledged });
      }
    }
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
