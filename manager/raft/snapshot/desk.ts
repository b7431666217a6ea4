/**
 * The acts of the snapshot thread as plain requests and answers, so that the thread is a loop around one function and
 * tests call that function directly. Open writers, readers and receivers are known by number.
 */
import type { MemberId, SnapshotMeta } from "../core/types.ts";
import type { DataKey } from "../keys/index.ts";
import { SnapshotAborted } from "./errors.ts";
import type { SnapshotFileReader, SnapshotFiles, SnapshotWriter, SpoolReceiver } from "./files.ts";
import type { SnapshotChunk, SnapshotOffer } from "./transfer.ts";

export interface Opened {
  readonly handle: number;
}

/** Every act with its argument and its answer. */
export interface Acts {
  begin: { argument: SnapshotMeta; answer: Opened };
  write: { argument: Opened & { readonly content: Uint8Array }; answer: undefined };
  /** The size of the file, which is in force now. */
  finish: { argument: Opened; answer: number };
  abort: { argument: Opened; answer: undefined };
  openReader: { argument: SnapshotMeta; answer: Opened & { readonly offer: SnapshotOffer } };
  readChunk: { argument: Opened & { readonly number: number }; answer: SnapshotChunk };
  readContent: { argument: Opened & { readonly number: number }; answer: Uint8Array };
  closeReader: { argument: Opened; answer: undefined };
  openReceiver: {
    argument: { readonly from: MemberId; readonly offer: SnapshotOffer };
    answer: Opened & { readonly nextChunk: number };
  };
  receive: { argument: Opened & { readonly chunk: SnapshotChunk }; answer: undefined };
  finishReceive: { argument: Opened; answer: undefined };
  suspend: { argument: Opened; answer: undefined };
  install: { argument: SnapshotMeta; answer: undefined };
  useKey: { argument: DataKey; answer: undefined };
  keysInUse: { argument: undefined; answer: readonly number[] };
}

export type Act = keyof Acts;

type Handlers = { readonly [A in Act]: (argument: Acts[A]["argument"]) => Acts[A]["answer"] };

export class SnapshotDesk {
  readonly #files: SnapshotFiles;
  readonly #useKey: (key: DataKey) => void;
  readonly #writers = new Map<number, SnapshotWriter>();
  readonly #readers = new Map<number, SnapshotFileReader>();
  readonly #receivers = new Map<number, SpoolReceiver>();
  #handle = 0;

  constructor(files: SnapshotFiles, useKey: (key: DataKey) => void) {
    this.#files = files;
    this.#useKey = useKey;
  }

  handle<A extends Act>(act: A, argument: Acts[A]["argument"]): Acts[A]["answer"] {
    return this.#handlers[act](argument);
  }

  readonly #handlers: Handlers = {
    begin: (meta) => ({ handle: this.#keep(this.#writers, this.#files.begin(meta)) }),
    write: ({ handle, content }) => {
      const writer = held(this.#writers, handle);
      try {
        writer.write(content);
      } catch (error) {
        this.#drop(handle);
        throw error;
      }
      return undefined;
    },
    finish: ({ handle }) => {
      const writer = held(this.#writers, handle);
      try {
        const sizeBytes = writer.finish();
        this.#writers.delete(handle);
        return sizeBytes;
      } catch (error) {
        this.#drop(handle);
        throw error;
      }
    },
    abort: ({ handle }) => this.#drop(handle),
    openReader: (meta) => {
      const reader = this.#files.openReader(meta);
      return { handle: this.#keep(this.#readers, reader), offer: reader.offer };
    },
    readChunk: ({ handle, number }) => held(this.#readers, handle).chunk(number),
    readContent: ({ handle, number }) => new Uint8Array(held(this.#readers, handle).content(number)),
    closeReader: ({ handle }) => {
      this.#readers.get(handle)?.close();
      this.#readers.delete(handle);
      return undefined;
    },
    openReceiver: ({ from, offer }) => {
      const receiver = this.#files.openReceiver(from, offer);
      return { handle: this.#keep(this.#receivers, receiver), nextChunk: receiver.nextChunk };
    },
    receive: ({ handle, chunk }) => {
      held(this.#receivers, handle).write(chunk);
      return undefined;
    },
    finishReceive: ({ handle }) => {
      held(this.#receivers, handle).finish();
      this.#receivers.delete(handle);
      return undefined;
    },
    suspend: ({ handle }) => {
      this.#receivers.get(handle)?.suspend();
      this.#receivers.delete(handle);
      return undefined;
    },
    install: (meta) => {
      this.#files.install(meta);
      return undefined;
    },
    useKey: (key) => {
      this.#useKey(key);
      return undefined;
    },
    keysInUse: () => [...this.#files.keysInUse()],
  };

  #keep<T>(among: Map<number, T>, one: T): number {
    among.set(++this.#handle, one);
    return this.#handle;
  }

  #drop(handle: number): undefined {
    this.#writers.get(handle)?.abort();
    this.#writers.delete(handle);
    return undefined;
  }
}

/** What was opened under that number. It is gone after a failure, which whoever asks has been told of. */
function held<T>(among: ReadonlyMap<number, T>, handle: number): T {
  const one = among.get(handle);
  if (one === undefined) throw new SnapshotAborted("it has failed or been closed before");
  return one;
}
