/** Stores of several members over one in-memory log, and short ways to write and read resources. */
import { ClusterError } from "../../lib/pure/errors.ts";
import {
  ObjectStore,
  clusterSchema,
  type ClusterSchema,
  type MachineLimits,
  type View,
} from "../../manager/store/index.ts";
import { MemoryLogGroup, type MemoryLog } from "./memory-log.ts";

export interface Member {
  readonly store: ObjectStore<ClusterSchema>;
  readonly log: MemoryLog;
  /** What made the member stop, as its process would. */
  stopped: Error | undefined;
  /** Set: changes what this member applies, as a bug that only it has. */
  alter: ((index: number, data: Uint8Array) => Uint8Array) | undefined;
}

export interface ClusterOptions {
  readonly members?: number;
  readonly auto?: boolean;
  readonly limits?: Partial<MachineLimits>;
  readonly supportedLevel?: number;
  readonly onHashDisputed?: (member: number) => void;
  readonly watchLimits?: { readonly changesMax: number; readonly bytesMax: number };
}

export class StoreCluster {
  readonly group: MemoryLogGroup;
  readonly members: Member[] = [];
  readonly #options: ClusterOptions;
  /** The wall clock, which a test moves. */
  nowUs = 1_700_000_000_000_000;

  constructor(options: ClusterOptions = {}) {
    this.#options = options;
    this.group = new MemoryLogGroup({ auto: options.auto ?? true });
    for (let count = 0; count < (options.members ?? 1); count++) this.join();
    this.group.elect(this.first.log);
  }

  get first(): Member {
    return this.members[0]!;
  }

  get store(): ObjectStore<ClusterSchema> {
    return this.first.store;
  }

  /** A new member with an empty state, which will apply the whole log; or `from` a snapshot of another. */
  join(from?: Member, options: Partial<ClusterOptions> = {}): Member {
    const { limits, supportedLevel, watchLimits, onHashDisputed } = { ...this.#options, ...options };
    const number = this.members.length + 1;
    const store = new ObjectStore({
      schema: clusterSchema,
      nowUs: () => this.nowUs,
      member: number,
      onHashDisputed: () => onHashDisputed?.(number),
      ...(limits === undefined ? {} : { limits }),
      ...(supportedLevel === undefined ? {} : { supportedLevel }),
      ...(watchLimits === undefined ? {} : { watchLimits }),
    });
    if (from !== undefined) copyState(from.store, store);
    const log = this.group.join(
      {
        apply: (index, data) => {
          try {
            return store.machine.apply(index, member.alter?.(index, data) ?? data);
          } catch (error) {
            if (!(error instanceof ClusterError)) throw error;
            member.stopped = error;
            log.stopped = true;
            return undefined;
          }
        },
      },
      store.machine.index,
    );
    store.attach(log);
    const member: Member = { store, log, stopped: undefined, alter: undefined };
    log.catchUp();
    this.members.push(member);
    return member;
  }

  /** Replaces a member's state by a snapshot of another's, as an install does. */
  install(from: Member, to: Member): void {
    copyState(from.store, to.store);
    to.log.skipTo(to.store.machine.index);
  }
}

export function copyState(from: ObjectStore<ClusterSchema>, to: ObjectStore<ClusterSchema>, chunkBytes = 256): void {
  const source = from.machine.snapshot();
  const sink = to.machine.restore();
  for (let chunk = source.next(chunkBytes); chunk !== undefined; chunk = source.next(chunkBytes)) sink.write(chunk);
  sink.finish(source.index);
}

export const by = { actor: "test", cause: "test" };

/** A resource whose payload is text. */
export const item = (
  id: string,
  value: string,
  options: { readonly kind?: string; readonly name?: string } = {},
): { id: string; kind: string; annotations: { name: string }; payload: Uint8Array } => ({
  id,
  kind: options.kind ?? "item",
  annotations: { name: options.name ?? "" },
  payload: Buffer.from(value),
});

export function valueOf(view: View<ClusterSchema>, id: string): string | undefined {
  const found = view.get("resource", id);
  return found === undefined ? undefined : Buffer.from(found.payload).toString();
}

/** Everything, as plain data. */
export function contents(view: View<ClusterSchema>): Record<string, string> {
  return Object.fromEntries([...view.list("resource")].map((each) => [each.id, Buffer.from(each.payload).toString()]));
}

/** Lets everything that waits for the end of the turn happen. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
