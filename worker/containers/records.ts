/** What a worker remembers of its containers, in `level`: one value a container, replaced as a whole. */
import { Level } from "level";

import { GroupCommit } from "../../lib/runtime/index.ts";
import type { ContainerId, ContainerRecord } from "./core/types.ts";

export interface RecordStore extends AsyncDisposable {
  all(): Promise<ContainerRecord[]>;
  /** Durable when it resolves. */
  put(record: ContainerRecord): Promise<void>;
  delete(id: ContainerId): Promise<void>;
}

export async function openRecords(directory: string): Promise<RecordStore> {
  const db = new Level<string, ContainerRecord>(directory, { valueEncoding: "json" });
  await db.open();
  const containers = db.sublevel<string, ContainerRecord>("containers", { valueEncoding: "json" });
  type Row =
    | { readonly type: "put"; readonly key: string; readonly value: ContainerRecord }
    | { readonly type: "del"; readonly key: string };
  // Fifty containers that start at once share a few syncs instead of waiting for one each.
  const writes = new GroupCommit<Row>((rows) =>
    db.batch(
      rows.map((row) => ({ ...row, sublevel: containers })),
      { sync: true },
    ),
  );
  return {
    all: async () => {
      const found: ContainerRecord[] = [];
      // A record of a later version was written by a newer daemon, which owns that container.
      for await (const record of containers.values()) if (record.version === 1) found.push(record);
      return found;
    },
    put: (record) => writes.add({ type: "put", key: record.id, value: record }),
    delete: (id) => writes.add({ type: "del", key: id }),
    [Symbol.asyncDispose]: async () => {
      await writes.idle();
      await db.close();
    },
  };
}
