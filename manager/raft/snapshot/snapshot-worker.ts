/** The snapshots' thread: packing, sealing, digests and files. One request after the other; answers keep their order. */
import { randomBytes } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { nodeFileSystem } from "../../../lib/runtime/file-system.ts";
import type { SnapshotMeta } from "../core/types.ts";
import type { DataKey, DataKeys, StorageIdentity } from "../keys/index.ts";
import { packError, type PackedError } from "../thread-errors.ts";
import { SnapshotDesk, type Act, type Acts } from "./desk.ts";
import { SnapshotFiles } from "./files.ts";

export interface SnapshotWorkerData {
  /** The folder of the snapshots. */
  readonly folder: string;
  readonly identity: StorageIdentity;
  readonly keys: readonly DataKey[];
  readonly activeId: number;
  readonly compress: boolean;
}

export interface SnapshotRequestMessage {
  readonly id: number;
  readonly act: Act;
  readonly argument: unknown;
}

export type SnapshotReport =
  | { readonly kind: "opened"; readonly metas: readonly SnapshotMeta[]; readonly damaged: readonly PackedError[] }
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "refused"; readonly id: number; readonly error: PackedError }
  | { readonly kind: "failed"; readonly error: PackedError };

class KeyTable implements DataKeys {
  readonly #keys: Map<number, DataKey>;
  active: DataKey;

  constructor(keys: readonly DataKey[], activeId: number) {
    this.#keys = new Map(keys.map((key) => [key.id, key]));
    this.active = this.#keys.get(activeId) as DataKey;
  }

  get(id: number): DataKey | undefined {
    return this.#keys.get(id);
  }

  use(key: DataKey): void {
    this.#keys.set(key.id, key);
    this.active = key;
  }
}

const { folder, identity, keys, activeId, compress } = workerData as SnapshotWorkerData;
const table = new KeyTable(keys, activeId);
const files = new SnapshotFiles({
  files: nodeFileSystem,
  folder,
  identity,
  keys: table,
  compress,
  randomBytes: (count) => new Uint8Array(randomBytes(count)),
});
const desk = new SnapshotDesk(files, (key) => table.use(key));

function answer({ id, act, argument }: SnapshotRequestMessage): void {
  try {
    const result = desk.handle(act, argument as Acts[typeof act]["argument"]);
    tell({ kind: "answer", id, answer: result }, transferable(result));
  } catch (error) {
    tell({ kind: "refused", id, error: packError(error) });
  }
}

/** Bytes of ours move instead of being copied, where they own their memory. */
function transferable(result: unknown): ArrayBuffer[] {
  if (result instanceof Uint8Array) return [result.buffer as ArrayBuffer];
  const data = (result as { data?: unknown } | undefined)?.data;
  return data instanceof Uint8Array ? [data.buffer as ArrayBuffer] : [];
}

function tell(report: SnapshotReport, transfer: readonly ArrayBuffer[] = []): void {
  parentPort?.postMessage(report, transfer);
}

try {
  files.open();
  tell({ kind: "opened", metas: files.metas, damaged: files.damaged.map(({ error }) => packError(error)) });
  parentPort?.on("message", answer);
} catch (error) {
  tell({ kind: "failed", error: packError(error) });
}
