/**
 * The real object store of one simulated member over its log, with a kind of object of the simulator's own: a text under
 * an id. Follows the store's changes through a watch and compares them with what the log says (L8).
 */
import { skep } from "../../proto/index.ts";
import type { SnapshotSink, SnapshotSource } from "../../manager/raft/ports.ts";
import { sessionId, type ApplyResult } from "../../manager/store/core/machine.ts";
import {
  ObjectStore,
  type Leadership,
  type Meta,
  type ProposeOutcome,
  type View,
  type Watch,
} from "../../manager/store/index.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { SimFailure } from "./failure.ts";
import type { Command, Reply, Row } from "./machine.ts";
import type { MarkName } from "./marks.ts";

interface TextObject {
  readonly id: string;
  readonly value: string;
  readonly meta: Meta;
}

const text = new TextEncoder();
const plain = new TextDecoder();
const textKind = 1;

const schema = {
  text: {
    number: textKind,
    codec: {
      encode: (object: { readonly id: string; readonly value: string }) => text.encode(object.value),
      decode: (bytes: Uint8Array, id: string, meta: Meta): TextObject => ({ id, value: plain.decode(bytes), meta }),
    },
    indexes: {
      /** The first letter tells what sort of object it is. */
      sort: { unique: false, keys: (object: TextObject) => object.id.slice(0, 1) },
    },
    sinceLevel: 1,
  },
} as const;

type TextSchema = typeof schema;

/** What entry `index` changed, as the log tells it: id to value, null where it was removed. */
export type EntryChanges = ReadonlyMap<string, string | null>;

export interface StoreWorld {
  /** Wall clock of this member in microseconds. */
  wallUs(): number;
  propose(data: Uint8Array, done: (outcome: ProposeOutcome) => void): void;
  forward(data: Uint8Array): void;
  mark(name: MarkName): void;
  /** Changes by index that any member has seen, for watches to be compared with; shared by all members. */
  readonly history: Map<number, EntryChanges>;
  /** Few changes kept for watches, so that slow ones fall behind. */
  readonly watchChangesMax: number;
  readonly hashEvery: number;
  /** What the program of this member understands. */
  readonly supportedLevel: number;
}

/** Nobody asks for it, so that nobody is told wrong when a bit of it flips. */
const ballastId = "~ballast";

/** How a command ended here. */
export type CommandOutcome =
  | { readonly kind: "done"; readonly reply: Reply }
  /** Never entered the log by this attempt. */
  | { readonly kind: "refused"; readonly code: string }
  | { readonly kind: "sessionGone" }
  | { readonly kind: "unknown" };

export class SimStore {
  readonly #store: ObjectStore<TextSchema>;
  readonly #world: StoreWorld;
  readonly #watch: Watch<TextSchema>;
  #leadership: Leadership = { leading: false, term: 0, leader: undefined };
  readonly #listeners = new Set<(leadership: Leadership) => void>();
  /** Set while a command is turned into an entry: hears what became of it. */
  #capture: ((result: ApplyResult) => void) | undefined;
  #watchedTo = 0;
  #seen = new Map<string, string>();

  constructor(member: number, world: StoreWorld) {
    this.#world = world;
    this.#store = new ObjectStore({
      schema,
      nowUs: () => world.wallUs(),
      member,
      supportedLevel: world.supportedLevel,
      limits: { hashEvery: world.hashEvery, decodedMax: 32 },
      watchLimits: { changesMax: world.watchChangesMax, bytesMax: 1 << 20 },
    });
    this.#store.attach({
      propose: (data, done) => {
        const capture = this.#capture;
        world.propose(data, (outcome) => {
          if (outcome.kind === "committed") capture?.(outcome.result as ApplyResult);
          done(outcome);
        });
      },
      readIndex: (done) => done({ kind: "stopped" }),
      forward: (data) => world.forward(data),
      leadership: () => this.#leadership,
      onLeadership: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    });
    this.#watch = this.#store.watch();
  }

  leads(leadership: Leadership): void {
    this.#leadership = leadership;
    for (const listener of this.#listeners) listener(leadership);
  }

  // ---- What the log asks of it

  apply(index: number, data: Uint8Array): ApplyResult {
    const result = this.#store.machine.apply(index, data);
    if (!this.#world.history.has(index)) this.#world.history.set(index, changesOf(data, result));
    return result;
  }

  snapshot(): SnapshotSource {
    return this.#store.machine.snapshot();
  }

  restore(): SnapshotSink {
    return this.#store.machine.restore();
  }

  stateHash(): string {
    return this.#store.machine.stateHash();
  }

  get featureLevel(): number {
    return this.#store.featureLevel;
  }

  /** Members on record with the level that they understand. */
  recordedMembers(): number[] {
    return this.#store.machine.recordedMembers();
  }

  /** Flips one bit of an object in memory. @returns false if there is none that may be spoilt */
  flip(random: Random): boolean {
    const bytes = this.#store.machine.freeze().table(textKind).rows.get(ballastId)?.bytes();
    if (bytes === undefined) return false;
    const at = random.int(0, bytes.length);
    bytes[at] = (bytes[at] as number) ^ (1 << random.int(0, 8));
    return true;
  }

  get index(): number {
    return this.#store.machine.index;
  }

  // ---- What clients ask of it

  rows(prefix: string): Row[] {
    return this.reader()(prefix);
  }

  /** What is there now, to be looked at later. */
  reader(): (prefix: string) => Row[] {
    const view = this.#store.current();
    return (prefix) => rowsOf(view, prefix);
  }

  execute(command: Command, done: (outcome: CommandOutcome) => void): void {
    const { session, seq, ackedBelow } = command;
    let applied: ApplyResult | undefined;
    const known = this.#store.machine.replyTo(session, seq);
    this.#capture = (result) => (applied = result);
    this.#store.transact(
      (tx) => {
        for (const { id, version } of command.guards) {
          if (version > 0) tx.expectVersion("text", id, version);
          else if (tx.has("text", id)) throw new GuardBroken(id);
          else tx.guard("text", id);
        }
        for (const { id, value } of command.writes) {
          if (value === null) tx.remove("text", id);
          else tx.put("text", { id, value });
        }
      },
      { actor: "client", cause: "simulated", session: { id: session, seq, ackedBelow } },
      (outcome) => {
        const result = applied ?? known;
        if (outcome.kind === "committed") {
          done({ kind: "done", reply: { done: true, index: outcome.index, repeated: outcome.repeated } });
        } else if (outcome.kind === "unknown") done({ kind: "unknown" });
        else if (result?.refusal?.code === "conflict") {
          done({ kind: "done", reply: { done: false, index: result.index, repeated: result.repeated } });
        } else if (result?.refusal !== undefined) done({ kind: "sessionGone" });
        else done({ kind: "refused", code: codeOf(outcome.error) });
      },
    );
    this.#capture = undefined;
  }

  static openSession(ttlUs: number, timeUs: number): Uint8Array {
    return skep.store.Entry.encode({
      level: 1,
      timeUs,
      actor: "client",
      cause: "simulated",
      openSession: { ttlUs },
    }).finish();
  }

  static sessionOf(result: unknown): string | undefined {
    const { index, refusal } = result as ApplyResult;
    return refusal === undefined ? sessionId(index) : undefined;
  }

  // What managers say themselves.

  static reportMember(member: number, level: number): Uint8Array {
    return ownEntry({ memberReport: { member, level } });
  }

  static removeMember(member: number): Uint8Array {
    return ownEntry({ removeMember: { member } });
  }

  static raiseLevel(level: number): Uint8Array {
    return ownEntry({ raiseLevel: { level } });
  }

  /** Refused, without effect, when it is there already. */
  static ballast(timeUs: number): Uint8Array {
    const change = { kind: textKind, id: ballastId, body: text.encode("nobody asks for this") };
    return ownEntry({ transaction: { changes: [change] } }, timeUs);
  }

  // ---- The watch

  /** Takes what the watch has and checks it: every change once, in the order of the log, none left out. */
  follow(): void {
    for (let event = this.#watch.poll(); event !== undefined; event = this.#watch.poll()) {
      if (event.kind === "view") {
        if (event.reason !== "start") this.#world.mark("watch resync");
        this.#watchedTo = event.view.index;
        this.#seen = new Map();
        for (const object of event.view.list("text"))
          if (object.id !== ballastId) this.#seen.set(object.id, object.value);
        continue;
      }
      this.#world.mark("watch delivered");
      for (const change of event.changes) {
        if (change.index < this.#watchedTo) {
          throw new SimFailure("L8", "a watch went back", { index: change.index, watchedTo: this.#watchedTo });
        }
        if (change.index > this.#watchedTo) this.#skipTo(change.index);
        // It may have changed in memory, and a slow watch reads it late.
        if (change.id === ballastId) continue;
        const value = change.after?.value ?? null;
        const told = this.#world.history.get(change.index);
        if (told?.get(change.id) !== value) {
          throw new SimFailure("L8", "a watch told another change than the log", {
            index: change.index,
            id: change.id,
            value,
          });
        }
        if ((change.before?.value ?? null) !== (this.#seen.get(change.id) ?? null)) {
          throw new SimFailure("L8", "a watch left out a change or told it twice", {
            index: change.index,
            id: change.id,
          });
        }
        if (value === null) this.#seen.delete(change.id);
        else this.#seen.set(change.id, value);
      }
    }
  }

  /** When it has told everything, what it built up must be the state. */
  checkWatched(): void {
    this.follow();
    const rows = this.rows("").filter(({ id }) => id !== ballastId);
    const differs = rows.find((row) => this.#seen.get(row.id) !== row.value);
    if (differs !== undefined || rows.length !== this.#seen.size) {
      throw new SimFailure("L8", "what a watch told does not add up to the state", {
        differs,
        rows: rows.length,
        seen: this.#seen.size,
      });
    }
  }

  #skipTo(index: number): void {
    for (let skipped = this.#watchedTo + 1; skipped < index; skipped++) {
      if ((this.#world.history.get(skipped)?.size ?? 0) === 0) continue;
      throw new SimFailure("L8", "a watch left out an entry", { skipped, next: index });
    }
    this.#watchedTo = index;
  }
}

/** For a founding state: nobody asks anything of it. */
export const noWorld: StoreWorld = {
  wallUs: () => 0,
  propose: (_data, done) => done({ kind: "stopped" }),
  forward: () => {},
  mark: () => {},
  history: new Map(),
  watchChangesMax: 1,
  hashEvery: 1024,
  supportedLevel: 2,
};

function ownEntry(body: skep.store.Entry.$Properties, timeUs = 0): Uint8Array {
  return skep.store.Entry.encode({ level: 1, timeUs, actor: "manager", cause: "simulated", ...body }).finish();
}

function rowsOf(view: View<TextSchema>, prefix: string): Row[] {
  const found = prefix === "" ? view.list("text") : view.find("text", "sort", prefix.slice(0, 1));
  const rows: Row[] = [];
  for (const { id, value, meta } of found) if (id.startsWith(prefix)) rows.push({ id, value, version: meta.version });
  return rows;
}

class GuardBroken extends Error {
  readonly code = "GUARD_BROKEN";
  constructor(id: string) {
    super(`"${id}" exists`);
  }
}

function codeOf(error: unknown): string {
  const { code } = error as { code?: unknown };
  // Whatever else an update function throws is a bug, of the store or of the simulator.
  if (typeof code !== "string") throw error;
  return code;
}

function changesOf(data: Uint8Array, result: ApplyResult): EntryChanges {
  const changes = new Map<string, string | null>();
  const { transaction } = skep.store.Entry.decode(data);
  if (transaction === undefined || transaction === null || result.refusal !== undefined || result.repeated)
    return changes;
  for (const { id, remove, body } of transaction.changes ?? []) {
    changes.set(id ?? "", remove === true ? null : plain.decode(body ?? new Uint8Array()));
  }
  return changes;
}
