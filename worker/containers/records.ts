/** What a worker remembers of its containers, in `level`: one value a container, replaced as a whole. */
import { Level } from "level";

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
  return {
    all: async () => {
      const found: ContainerRecord[] = [];
      // A record of a later version was written by a newer daemon, which owns that container.
      for await (const record of containers.values()) if (record.version === 1) found.push(record);
      return found;
    },
    put: (record) => db.batch([{ type: "put", sublevel: containers, key: record.id, value: record }], { sync: true }),
    delete: (id) => db.batch([{ type: "del", sublevel: containers, key: id }], { sync: true }),
    [Symbol.asyncDispose]: () => db.close(),
  };
}
