/**
 * Errors on their way between threads. A structured clone would turn a typed error into a plain one; callers branch on
 * `code` and `instanceof`, so it is taken apart and put together again.
 */
import { InvariantViolation } from "../../lib/pure/errors.ts";
import * as keys from "./keys/index.ts";
import * as snapshots from "./snapshot/index.ts";
import * as wal from "./wal/errors.ts";

export interface PackedError {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  /** Own fields: code, fix, and what the class adds. */
  readonly fields: Readonly<Record<string, unknown>>;
  readonly cause: PackedError | undefined;
}

const classes: readonly (abstract new (...args: never) => Error)[] = [
  InvariantViolation,
  keys.KeyFileDamaged,
  keys.KeyFileUnusable,
  keys.KeyMissing,
  keys.KeyWrong,
  keys.StorageForeign,
  keys.StorageLocked,
  keys.StorageNewer,
  snapshots.SnapshotAborted,
  snapshots.SnapshotDamaged,
  snapshots.SnapshotNotFound,
  snapshots.SnapshotTransferInvalid,
  snapshots.SnapshotWriteFailed,
  wal.LogClosed,
  wal.LogDiskFull,
  wal.LogQuarantined,
  wal.LogReadFailed,
  wal.LogWriteFailed,
];
const prototypes = new Map(classes.map((one) => [one.name, one.prototype]));

export function packError(thrown: unknown): PackedError {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const fields: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(error)) {
    if (["string", "number", "boolean", "undefined"].includes(typeof value) || name === "facts") fields[name] = value;
  }
  const cause = error.cause === undefined ? undefined : packError(error.cause);
  return { name: error.name, message: error.message, stack: error.stack, fields, cause };
}

export function unpackError({ name, message, stack, fields, cause }: PackedError): Error {
  const prototype = prototypes.get(name) ?? Error.prototype;
  const error = Object.create(prototype) as Error;
  const hidden = { configurable: true, writable: true, enumerable: false };
  Object.defineProperties(error, {
    message: { ...hidden, value: message },
    stack: { ...hidden, value: stack },
    ...(cause === undefined ? {} : { cause: { ...hidden, value: unpackError(cause) } }),
  });
  return Object.assign(error, fields, { name });
}
