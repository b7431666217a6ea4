/** What a member's disk says without anybody else: its snapshot and the entries behind it that it knows to be committed. */
import { DirectStorage } from "./direct-storage.ts";
import { MemberTable, applyCommitted, type MemberRecord } from "./member-table.ts";
import { storageOptions, type StorageAccess } from "./open.ts";
import type { StateMachine } from "./ports.ts";
import { TableFromState } from "./snapshot-frame.ts";

/**
 * Brings an empty state machine to what is committed on this disk. It may be long out of date.
 * @param access  the folder is locked by the caller, so that no manager runs on it
 * @returns       the members as of then
 * @throws        what opening a manager's disk throws
 */
export function readCommitted(access: StorageAccess, machine: StateMachine): readonly MemberRecord[] {
  const storage = DirectStorage.open(storageOptions(access));
  try {
    const { recovered, snapshots } = storage;
    const { snapshot, entries, hardState } = recovered;
    let table = new MemberTable();
    if (snapshot.index > 0) {
      const reader = snapshots.openReader(snapshot);
      try {
        const sink = new TableFromState(machine.restore(), (found) => (table = found));
        for (let chunk = 1; chunk < reader.offer.chunks; chunk++) sink.write(reader.content(chunk));
        sink.finish(snapshot.index);
      } finally {
        reader.close();
      }
    }
    for (const { index, kind, data } of entries) {
      if (kind === "normal" && index > snapshot.index && index <= hardState.commit) machine.apply(index, data);
    }
    return applyCommitted(table, recovered, hardState.commit).table.list();
  } finally {
    storage.close();
  }
}
