/** Writes to a database of `level`, on which a full disk leaves nothing behind that what is written later could be lost with. */
import { GroupCommit } from "./group-commit.ts";

/** Of `level`, what is used here. */
interface Database<Operation> {
  batch(operations: Operation[], options: { readonly sync: boolean }): Promise<void>;
  open(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Many writers share one sync. After a write that failed the database is opened anew before the next one: LevelDB goes on
 * behind a record that the disk took in part as if it were whole (log_writer.cc), and all that it acknowledges from then on
 * is dropped with that record when the database is opened the next time. Opened at once, the torn record is the log's last,
 * and nothing but it goes.
 */
export class LevelWriter<Operation> {
  readonly #group: GroupCommit<readonly Operation[]>;
  #isTorn = false;

  /** @param sync  whether what is written outlives a crash of the machine, not only one of this process */
  constructor(database: Database<Operation>, { sync = true }: { readonly sync?: boolean } = {}) {
    this.#group = new GroupCommit(async (groups) => {
      if (this.#isTorn) {
        await database.close();
        await database.open();
        this.#isTorn = false;
      }
      try {
        await database.batch(groups.flat(), { sync });
      } catch (error) {
        this.#isTorn = true;
        throw error;
      }
    });
  }

  /**
   * @param operations  all of them or none, behind those of earlier calls
   * @returns           settles when they are on disk
   */
  write(operations: readonly Operation[]): Promise<void> {
    return this.#group.add(operations);
  }

  /** When nothing is under way any more. */
  async idle(): Promise<void> {
    await this.#group.idle();
  }
}
