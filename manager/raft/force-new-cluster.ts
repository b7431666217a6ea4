/**
 * Starting anew with one survivor when the quorum is lost for good (row 26): offline, on its data folder. Everybody else is
 * taken out, and the cluster counts one incarnation up, so that members of the old one are refused if they come back. A
 * copy of the folder is made first.
 *
 * The whole log is kept. How far it was committed is known on disk only as of some earlier write, so dropping what lies
 * behind that would drop entries that were acknowledged. Keeping an entry that was not committed is what every new leader
 * does with its log (Raft thesis §3.6.2), and its proposer has never been told that it failed.
 */
import { cpSync, renameSync, rmSync } from "node:fs";

import { forceNewCluster as newState, type InitialState, type MemberId } from "./core/index.ts";
import type { DataFolder, Owner } from "./data-folder.ts";
import { DirectStorage } from "./direct-storage.ts";
import { MemberTable, applyCommitted, type MemberRecord } from "./member-table.ts";
import { storageOptions, type StorageAccess } from "./open.ts";
import { TableFromState } from "./snapshot-frame.ts";

export interface NewClusterPlan {
  readonly survivor: MemberId;
  /** Who will be taken out, and where they were reached. */
  readonly lost: readonly MemberRecord[];
  /** Voters at the end of the committed log, the survivor among them if it has a vote. */
  readonly voters: readonly MemberId[];
  readonly lastIndex: number;
  /** Entries at the end of which the disk does not say whether they were committed: they are, from then on. */
  readonly uncertainEntries: number;
  /** Of the new cluster. */
  readonly clusterIncarnation: number;
}

/** A survivor's folder, opened for this and nothing else: `plan` says what would happen, `carryOut` does it. */
export class NewCluster implements Disposable {
  readonly plan: NewClusterPlan;
  readonly #folder: DataFolder;
  readonly #storage: DirectStorage;
  readonly #initial: InitialState;

  /**
   * @param access  its folder is locked by the caller, so that no manager runs on it
   * @throws        what opening a manager's disk throws
   */
  constructor(owner: Owner, access: StorageAccess) {
    this.#folder = access.folder;
    const identity = access.folder.resume(owner);
    this.#storage = DirectStorage.open(storageOptions(access));
    try {
      const { recovered } = this.#storage;
      const { hardState, snapshot, entries } = recovered;
      const lastIndex = Math.max(entries.at(-1)?.index ?? 0, snapshot.index);
      this.#initial = { ...recovered, hardState: { ...hardState, commit: lastIndex }, applied: snapshot.index };
      const { table, conf } = applyCommitted(this.#table(), recovered, lastIndex);
      this.plan = {
        survivor: owner.memberId,
        lost: table.list().filter(({ id }) => id !== owner.memberId),
        voters: conf.voters,
        lastIndex,
        uncertainEntries: lastIndex - Math.max(hardState.commit, snapshot.index),
        clusterIncarnation: identity.clusterIncarnation + 1,
      };
    } catch (error) {
      this.#storage.close();
      throw error;
    }
  }

  /** @param backup  a folder that does not exist: the copy as it was before, whole or not there */
  carryOut(backup: string): void {
    const unfinished = `${backup}.new`;
    rmSync(unfinished, { recursive: true, force: true });
    cpSync(this.#folder.path, unfinished, { recursive: true, errorOnExist: true, force: false });
    renameSync(unfinished, backup);
    const { lastIndex, survivor } = this.plan;
    const { hardState, entries } = newState(this.#initial, survivor);
    // Counted up first: should the rest not happen, this member alone is kept from the others, and can be repeated.
    this.#folder.countNewCluster();
    this.#storage.save({ hardState, entries: entries.filter(({ index }) => index > lastIndex) });
  }

  [Symbol.dispose](): void {
    this.#storage.close();
  }

  #table(): MemberTable {
    const { recovered, snapshots } = this.#storage;
    if (recovered.snapshot.index === 0) return new MemberTable();
    const reader = snapshots.openReader(recovered.snapshot);
    try {
      const sink = new TableFromState({ write: () => {}, finish: () => {} }, () => {});
      for (let chunk = 1; sink.table === undefined; chunk++) sink.write(reader.content(chunk));
      return sink.table;
    } finally {
      reader.close();
    }
  }
}
