/**
 * Who the members are and where they are reached, as of the last applied entry, and who has been removed for good.
 * Replicated: it changes only by applied configuration changes and travels as the first frame of every snapshot.
 */
import { ClusterError } from "../../lib/pure/errors.ts";
import { skep } from "../../proto/index.ts";
import {
  changeConf,
  decodeConfChange,
  type ConfChange,
  type ConfState,
  type Entry,
  type MemberId,
  type SnapshotMeta,
} from "./core/index.ts";

export interface MemberRecord {
  readonly id: MemberId;
  /** HOST:PORT at which the others reach it. */
  readonly address: string;
  readonly nodeId: string;
  readonly labels: Readonly<Record<string, string>>;
  /** As a learner it becomes a voter by itself as soon as it has caught up. */
  readonly autoPromote: boolean;
  readonly featureLevel: number;
  /** One life of its data folder, 32 hexadecimal digits: another folder under the same id is not let in (F12). */
  readonly dataIncarnation: string;
}

export interface ChangeContext {
  readonly members: readonly MemberRecord[];
  readonly requestId: number;
}

/** Removed ids are remembered so that their owners can be told; ids are random and never reused, so forgetting is safe. */
const removedMax = 10_000;
const recordsMax = 1_000;

export class MemberTableDamaged extends ClusterError {
  readonly code = "RAFT_MEMBER_TABLE_DAMAGED";
  constructor(found: string, cause?: unknown) {
    super(`Cannot read the table of members: ${found}`, {
      fix: "Remove this manager from the cluster and let it join again with an empty data folder",
      cause,
    });
  }
}

export class MemberTable {
  readonly #members = new Map<MemberId, MemberRecord>();
  readonly #removed = new Set<MemberId>();

  constructor(records: Iterable<MemberRecord> = [], removed: Iterable<MemberId> = []) {
    for (const record of records) this.#members.set(record.id, record);
    for (const id of removed) this.#removed.add(id);
  }

  get(id: MemberId): MemberRecord | undefined {
    return this.#members.get(id);
  }

  /** In the order of their ids. */
  list(): MemberRecord[] {
    return [...this.#members.values()].sort((a, b) => a.id - b.id);
  }

  isRemoved(id: MemberId): boolean {
    return this.#removed.has(id);
  }

  /**
   * Takes in an applied change. Who is a member is decided by `conf`, which results from it; `change` only brings the
   * records, so that an update of an address never changes who votes.
   */
  apply(change: ConfChange, conf: ConfState): void {
    for (const record of decodeContext(change.context).members) {
      if (change.steps.some((step) => step.member === record.id && step.act !== "remove")) {
        this.#members.set(record.id, record);
      }
    }
    const present = new Set([...conf.voters, ...conf.votersOutgoing, ...conf.learners, ...conf.learnersNext]);
    for (const id of this.#members.keys()) {
      if (present.has(id)) continue;
      this.#members.delete(id);
      this.#bury(id);
    }
    for (const step of change.steps) {
      if (step.act === "remove" && !present.has(step.member)) this.#bury(step.member);
    }
    for (const id of present) this.#removed.delete(id);
  }

  encode(): Uint8Array {
    const table = { members: this.list().map(toWire), removed: [...this.#removed] };
    return skep.raft.MemberTable.encode(table).finish();
  }

  /** @throws MemberTableDamaged */
  static decode(bytes: Uint8Array): MemberTable {
    let wire: skep.raft.MemberTable;
    try {
      wire = skep.raft.MemberTable.decode(bytes);
    } catch (error) {
      throw new MemberTableDamaged("its bytes are not a table", error);
    }
    if (wire.members.length > recordsMax) throw new MemberTableDamaged(`it lists ${wire.members.length} members`);
    if (wire.removed.length > removedMax)
      throw new MemberTableDamaged(`it lists ${wire.removed.length} removed members`);
    return new MemberTable(wire.members.map(fromWire), wire.removed);
  }

  #bury(id: MemberId): void {
    this.#removed.delete(id);
    this.#removed.add(id);
    for (const oldest of this.#removed) {
      if (this.#removed.size <= removedMax) break;
      this.#removed.delete(oldest);
    }
  }
}

/** What the table and the configuration become when the committed configuration changes of a log are applied. */
export function applyCommitted(
  table: MemberTable,
  log: { readonly snapshot: SnapshotMeta; readonly entries: readonly Entry[] },
  committedIndex: number,
): { readonly table: MemberTable; readonly conf: ConfState } {
  let { conf } = log.snapshot;
  for (const entry of log.entries) {
    if (entry.kind !== "confChange" || entry.index <= log.snapshot.index || entry.index > committedIndex) continue;
    const change = decodeConfChange(entry.data);
    const changed = changeConf(conf, change);
    if (changed.valid) conf = changed.conf;
    table.apply(change, conf);
  }
  return { table, conf };
}

export function encodeContext(context: ChangeContext): Uint8Array {
  return skep.raft.ConfChangeContext.encode({
    members: context.members.map(toWire),
    requestId: context.requestId,
  }).finish();
}

/** An empty context, as of the change that leaves a joint configuration, names nobody. @throws MemberTableDamaged */
export function decodeContext(bytes: Uint8Array): ChangeContext {
  try {
    const wire = skep.raft.ConfChangeContext.decode(bytes);
    return { members: wire.members.map(fromWire), requestId: wire.requestId };
  } catch (error) {
    throw new MemberTableDamaged("the context of a configuration change is malformed", error);
  }
}

function toWire(record: MemberRecord): skep.raft.IMemberRecord {
  return { ...record, labels: { ...record.labels } };
}

function fromWire(wire: skep.raft.IMemberRecord): MemberRecord {
  const id = wire.id ?? 0;
  if (!Number.isSafeInteger(id) || id <= 0) throw new MemberTableDamaged(`${id} is not the id of a member`);
  return {
    id,
    address: wire.address ?? "",
    nodeId: wire.nodeId ?? "",
    labels: { ...wire.labels },
    autoPromote: wire.autoPromote ?? false,
    featureLevel: wire.featureLevel ?? 0,
    dataIncarnation: wire.dataIncarnation ?? "",
  };
}
