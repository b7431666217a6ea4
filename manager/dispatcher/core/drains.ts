/**
 * Tasks that may not be asked to stop yet: some node may still send them connections. Each waits for those who were told
 * that it serves, until they do what they were told since, and never longer than `drainMs`. Time is passed in.
 */
import type { TableReader, Withdrawal } from "./table.ts";

/** Longer than any node takes that is well, and no longer than Swarm's sleep. */
export const drainMs = 2000;

interface Hold {
  readonly untilMs: number;
  /** What each reader has to have applied. */
  readonly waits: Map<TableReader, number>;
  /** Also for every node that this leader has to meet first. */
  forNodes: boolean;
}

export class Drains {
  /** In the order of their ends, since all are equally long. */
  readonly #holds = new Map<string, Hold>();
  /** Withdrawn, and not asked to stop: their node was down, and perhaps is not any more. */
  readonly #noted = new Map<string, readonly Withdrawal[]>();
  readonly #byReader = new Map<TableReader, Set<string>>();
  /** Nodes that have not applied what this leader tells: nobody knows what their tables say. */
  readonly #unmet = new Set<string>();

  get size(): number {
    return this.#holds.size;
  }

  isHeld(taskId: string): boolean {
    return this.#holds.has(taskId);
  }

  /** When the next one has waited long enough. */
  get nextMs(): number | undefined {
    for (const { untilMs } of this.#holds.values()) return untilMs;
    return undefined;
  }

  /** It is not served any more, though nobody has asked it to stop: whoever does later has to wait for that as well. */
  note(taskId: string, withdrawals: readonly Withdrawal[]): void {
    if (withdrawals.length === 0) return;
    const tables = new Set(withdrawals.map(({ table }) => table));
    const others = (this.#noted.get(taskId) ?? []).filter(({ table }) => !tables.has(table));
    this.#noted.set(taskId, [...others, ...withdrawals]);
  }

  /**
   * It is asked to stop, and was withdrawn by that or before.
   * @returns whether anybody has to be waited for
   */
  hold(taskId: string, withdrawals: readonly Withdrawal[], nowMs: number): boolean {
    if (this.#holds.has(taskId)) return true;
    this.note(taskId, withdrawals);
    const noted = this.#noted.get(taskId) ?? [];
    this.#noted.delete(taskId);
    const waits = new Map<TableReader, number>();
    for (const { table, servingSince, version } of noted)
      for (const reader of table.readers)
        // Who was never told that it serves sends it nothing.
        if (reader.heard >= servingSince && reader.applied < version) waits.set(reader, version);
    // Nobody of those is a reader yet, and an earlier leader may have told them that it serves.
    const forNodes = noted.length > 0 && this.#unmet.size > 0;
    if (waits.size === 0 && !forNodes) return false;
    this.#holds.set(taskId, { untilMs: nowMs + drainMs, waits, forNodes });
    for (const reader of waits.keys()) {
      const tasks = this.#byReader.get(reader);
      if (tasks === undefined) this.#byReader.set(reader, new Set([taskId]));
      else tasks.add(taskId);
    }
    return true;
  }

  // --------------------------------------------------------------------------------------------------- a new leader

  /** These nodes go on with what an earlier leader told them, until they have applied what this one tells. */
  expect(nodeIds: Iterable<string>): void {
    for (const nodeId of nodeIds) this.#unmet.add(nodeId);
  }

  /** Was withdrawn under an earlier leader, and nobody knows who has heard of it. @returns as hold() */
  holdForNodes(taskId: string, nowMs: number): boolean {
    if (this.#unmet.size === 0 || this.#holds.has(taskId)) return this.#holds.has(taskId);
    this.#holds.set(taskId, { untilMs: nowMs + drainMs, waits: new Map(), forNodes: true });
    return true;
  }

  /** It has applied a complete state of this leader, or is not waited for any more. @returns tasks that may stop now */
  met(nodeId: string): readonly string[] {
    if (!this.#unmet.delete(nodeId) || this.#unmet.size > 0) return [];
    for (const hold of this.#holds.values()) hold.forNodes = false;
    return this.#endWhere(({ waits }) => waits.size === 0);
  }

  // ------------------------------------------------------------------------------------------------------------ ends

  /** The reader has applied more than before. @returns tasks that may stop now */
  applied(reader: TableReader): readonly string[] {
    return this.#satisfy(reader, (version) => reader.applied >= version);
  }

  /** Its session is over: it is not waited for. @returns tasks that may stop now */
  gone(reader: TableReader): readonly string[] {
    return this.#satisfy(reader, () => true);
  }

  /** It has ended by itself, or is forgotten. @returns whether it was held */
  drop(taskId: string): boolean {
    this.#noted.delete(taskId);
    const hold = this.#holds.get(taskId);
    if (hold === undefined) return false;
    this.#holds.delete(taskId);
    for (const reader of hold.waits.keys()) this.#forget(reader, taskId);
    return true;
  }

  /** @returns tasks that have waited long enough */
  expire(nowMs: number): readonly string[] {
    return this.#endWhere(({ untilMs }) => untilMs <= nowMs);
  }

  #satisfy(reader: TableReader, isEnough: (version: number) => boolean): readonly string[] {
    const free: string[] = [];
    for (const taskId of Array.from(this.#byReader.get(reader) ?? [])) {
      const hold = this.#holds.get(taskId);
      if (hold === undefined || !isEnough(hold.waits.get(reader) ?? 0)) continue;
      hold.waits.delete(reader);
      this.#forget(reader, taskId);
      if (hold.waits.size > 0 || hold.forNodes) continue;
      this.#holds.delete(taskId);
      free.push(taskId);
    }
    return free;
  }

  #endWhere(isOver: (hold: Hold) => boolean): readonly string[] {
    const over = [...this.#holds].filter(([, hold]) => isOver(hold)).map(([taskId]) => taskId);
    for (const taskId of over) this.drop(taskId);
    return over;
  }

  #forget(reader: TableReader, taskId: string): void {
    const tasks = this.#byReader.get(reader);
    tasks?.delete(taskId);
    if (tasks?.size === 0) this.#byReader.delete(reader);
  }
}
