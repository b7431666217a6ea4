/** A save as it lies in the ring: encoded on the raft thread straight into shared memory, used there by the log's thread. */
import type { Entry } from "../core/types.ts";
import { getUint64, putUint64 } from "../keys/index.ts";
import type { SaveBatch } from "../ports.ts";
import type { EncodedBatch } from "./engine.ts";
import { encodeEntries } from "./format.ts";

/** Kind u8, has-hard-state u8, 2 zero bytes, count u32, first index, last term, term, vote, commit (u64 each). */
const saveHeaderBytes = 48;
const kindSave = 1;
const kindOrder = 2;

/** A message that only says: take the next order from the port. Orders keep their place among the saves that way. */
export const orderMessageBytes = 1;
export function putOrderMessage(bytes: Uint8Array): void {
  bytes[0] = kindOrder;
}

export function isOrderMessage(bytes: Uint8Array): boolean {
  return bytes[0] === kindOrder;
}

export function saveMessageBytes(entriesBytes: number): number {
  return saveHeaderBytes + entriesBytes;
}

export function putSaveMessage(bytes: Uint8Array, view: DataView, { hardState, entries }: SaveBatch): void {
  const first: Entry | undefined = entries[0];
  bytes[0] = kindSave;
  bytes[1] = hardState === undefined ? 0 : 1;
  view.setUint32(4, entries.length, true);
  putUint64(view, 8, first?.index ?? 0);
  putUint64(view, 16, entries.at(-1)?.term ?? 0);
  putUint64(view, 24, hardState?.term ?? 0);
  putUint64(view, 32, hardState?.vote ?? 0);
  putUint64(view, 40, hardState?.commit ?? 0);
  encodeEntries(entries, bytes, saveHeaderBytes);
}

/** The batch in a message; its payload is the shared memory itself. */
export function readSaveMessage(bytes: Uint8Array): EncodedBatch {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const hardState = { term: getUint64(view, 24), vote: getUint64(view, 32), commit: getUint64(view, 40) };
  return {
    hardState: bytes[1] === 0 ? undefined : hardState,
    firstIndex: getUint64(view, 8),
    count: view.getUint32(4, true),
    lastTerm: getUint64(view, 16),
    payload: bytes.subarray(saveHeaderBytes),
  };
}
