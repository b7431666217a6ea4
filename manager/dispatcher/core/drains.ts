/**
 * Tasks that may not be asked to stop yet: some node may still send them connections. Each waits for those who were told
 * that it serves, until they do what they were told since, and never longer than `drainMs`. Time is passed in.
 */
import type { Table, TableReader, Withdrawal } from "./table.ts";

/** Longer than any node takes that is well, and no longer than Swarm's sleep. */
export const drainMs = 2000;

/** A session's reader of a table; or a node, by id, whose session broke, and which does what it was told before. */
type Waited = TableReader | string;

interface Hold {
  readonly untilMs: number;
  /** What each reader has to have applied; a node without a session has to come back. */
  readonly waits: Map<Waited, number>;
  /** Also for every node that this leader has to meet first. */
  forNodes: boolean;
}

export class Drains {
  /** In the order of their ends, since all are equally long. */
  readonly #holds = new Map<string, Hold>();
  /** Withdrawn, and not asked to stop: their node was down, and perhaps is not any more. */
  readonly #noted = new Map<string, readonly Withdrawal[]>();
  readonly #byWaited = new Map<Waited, Set<string>>();
  /** Nodes whose session broke, and how far they had heard of each table. */
  readonly #parted = new Map<Table, Map<string, number>>();
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
    const waits = new Map<Waited, number>();
    for (const { table, servingSince, version } of noted) {
      // Who was never told that it serves sends it nothing.
      for (const reader of table.readers)
        if (reader.heard >= servingSince && reader.applied < version) waits.set(reader, version);
      for (const [nodeId, heard] of this.#parted.get(table) ?? [])
        if (heard >= servingSince) waits.set(nodeId, Infinity);
    }
    // Nobody of those is a reader yet, and an earlier leader may have told them that it serves.
    const forNodes = noted.length > 0 && this.#unmet.size > 0;
    if (waits.size === 0 && !forNodes) return false;
    this.#holds.set(taskId, { untilMs: nowMs + drainMs, waits, forNodes });
    for (const waited of waits.keys()) this.#remember(waited, taskId);
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

  /**
   * It has applied a complete state of this leader, in a session that goes on, or is down and not waited for any more.
   * @returns tasks that may stop now
   */
  met(nodeId: string): readonly string[] {
    for (const [table, heard] of this.#parted) if (heard.delete(nodeId) && heard.size === 0) this.#parted.delete(table);
    const free = this.#satisfy(nodeId, () => true);
    if (!this.#unmet.delete(nodeId) || this.#unmet.size > 0) return free;
    for (const hold of this.#holds.values()) hold.forNodes = false;
    return [...free, ...this.#endWhere(({ waits }) => waits.size === 0)];
  }

  // ------------------------------------------------------------------------------------------------------------ ends

  /** The reader has applied more than before. @returns tasks that may stop now */
  applied(reader: TableReader): readonly string[] {
    return this.#satisfy(reader, (version) => reader.applied >= version);
  }

  /** Its node does not use the table any more: it is not waited for. @returns tasks that may stop now */
  gone(reader: TableReader): readonly string[] {
    return this.#satisfy(reader, () => true);
  }

  /** Its session broke: what the node was told it still does, until it is met again. */
  parted(reader: TableReader, nodeId: string): void {
    const { table, heard } = reader;
    const nodes = this.#parted.get(table) ?? new Map<string, number>();
    this.#parted.set(table, nodes.set(nodeId, Math.max(heard, nodes.get(nodeId) ?? 0)));
    for (const taskId of this.#byWaited.get(reader) ?? []) {
      const waits = this.#holds.get(taskId)?.waits;
      waits?.delete(reader);
      waits?.set(nodeId, Infinity);
      this.#remember(nodeId, taskId);
    }
    this.#byWaited.delete(reader);
  }

  /** It has ended by itself, or is forgotten. @returns whether it was held */
  drop(taskId: string): boolean {
    this.#noted.delete(taskId);
    const hold = this.#holds.get(taskId);
    if (hold === undefined) return false;
    this.#holds.delete(taskId);
    for (const waited of hold.waits.keys()) this.#forget(waited, taskId);
    return true;
  }

  /** @returns tasks that have waited long enough */
  expire(nowMs: number): readonly string[] {
    return this.#endWhere(({ untilMs }) => untilMs <= nowMs);
  }

  #satisfy(waited: Waited, isEnough: (version: number) => boolean): readonly string[] {
    const free: string[] = [];
    for (const taskId of Array.from(this.#byWaited.get(waited) ?? [])) {
      const hold = this.#holds.get(taskId);
      if (hold === undefined || !isEnough(hold.waits.get(waited) ?? 0)) continue;
      hold.waits.delete(waited);
      this.#forget(waited, taskId);
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

  #remember(waited: Waited, taskId: string): void {
    const tasks = this.#byWaited.get(waited);
    if (tasks === undefined) this.#byWaited.set(waited, new Set([taskId]));
    else tasks.add(taskId);
  }

  #forget(waited: Waited, taskId: string): void {
    const tasks = this.#byWaited.get(waited);
    tasks?.delete(taskId);
    if (tasks?.size === 0) this.#byWaited.delete(waited);
  }
}
