/** What a worker remembers of its containers, in `level`: one value a container, replaced as a whole. */
import { Level, type BatchOperation } from "level";

import { LevelWriter } from "../../lib/runtime/index.ts";
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
  const key = (id: ContainerId): string => containers.prefixKey(id, "utf8");
  // Fifty containers that start at once share a few syncs instead of waiting for one each.
  const writer = new LevelWriter<BatchOperation<typeof db, string, ContainerRecord>>(db);
  return {
    all: async () => {
      const found: ContainerRecord[] = [];
      // A record of a later version was written by a newer daemon, which owns that container.
      for await (const record of containers.values()) if (record.version === 1) found.push(record);
      return found;
    },
    put: (record) => writer.write([{ type: "put", key: key(record.id), value: record }]),
    delete: (id) => writer.write([{ type: "del", key: key(id) }]),
    [Symbol.asyncDispose]: async () => {
      await writer.idle();
      await db.close();
    },
  };
}
