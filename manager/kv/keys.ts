/**
 * What the requests do. Keys are objects of kind "resource" with their bytes as payload; a request may name another kind,
 * and then its value is such an object, encoded.
 */
import { ClusterError } from "../../lib/pure/errors.ts";
import { skep } from "../../proto/index.ts";
import { clusterSchema, type ClusterSchema, type Store, type Tx, type UpdateOptions } from "../store/index.ts";

const { control } = skep;

type Request = skep.control.IKvRequest;
type Response = skep.control.IKvResponse;
type Item = skep.control.IKvItem;
type Kind = keyof ClusterSchema;

/** Hands a request to the manager at `leader`; `done` runs once. */
export type Forward = (leader: string, request: Request, done: (response: Response) => void) => void;

export class RequestInvalid extends ClusterError {
  readonly code = "KV_REQUEST_INVALID";
  constructor(found: string) {
    super(`Cannot take the request: ${found}`, { fix: "See proto/control.proto for the form of a request" });
  }
}

const keyBytesMax = 512;
const stepsMax = 1000;
const plain: Kind = "resource";
const noMeta = { version: 0, createdAtUs: 0, updatedAtUs: 0 };
const changes: Omit<UpdateOptions, "session"> = { actor: "kv", cause: "request" };

export class Keys {
  readonly #store: Store<ClusterSchema>;
  readonly #forward: Forward;

  constructor(store: Store<ClusterSchema>, forward: Forward) {
    this.#store = store;
    this.#forward = forward;
  }

  /** `done` runs once, never inside the call. */
  handle(request: Request, done: (response: Response) => void): void {
    const id = request.id ?? 0;
    const answer = (response: Response): void => done({ ...response, id });
    const fail = (error: unknown): void => {
      const leader = leaderOf(error);
      if (leader === undefined || request.forwarded === true) answer({ failure: failureOf(error) });
      else this.#forward(leader, { ...request, forwarded: true }, answer);
    };
    try {
      if (request.get) this.#get(request.get, answer, fail);
      else if (request.openSession) this.#openSession(request.openSession, answer, fail);
      else this.#change(request, answer, fail);
    } catch (error) {
      queueMicrotask(() => fail(error));
    }
  }

  #get(get: skep.control.IGet, answer: (response: Response) => void, fail: (error: unknown) => void): void {
    const key = keyOf(get);
    const kind = kindOf(get);
    const look = (): Response =>
      this.#store.view((view) => ({ index: view.index, items: [itemOf(kind, key, view.get(kind, key))] }));
    if (get.stale === true) queueMicrotask(() => answer(look()));
    else this.#store.read(look).then(answer, fail);
  }

  #openSession(
    open: skep.control.IOpenSession,
    answer: (response: Response) => void,
    fail: (e: unknown) => void,
  ): void {
    this.#store.openSession({ ttlMs: open.ttlMs || 60_000 }).then((session) => answer({ session }), fail);
  }

  #change(request: Request, answer: (response: Response) => void, fail: (error: unknown) => void): void {
    const steps = stepsOf(request);
    const { session } = request;
    const numbered = session !== undefined && session !== null;
    const options: UpdateOptions = numbered
      ? { ...changes, session: { id: session.id ?? "", seq: session.seq ?? 0, ackedBelow: session.ackedBelow ?? 0 } }
      : changes;
    let items: Item[] = [];
    this.#store.transact(
      (tx) => {
        items = [];
        for (const step of steps) run(tx, step, items);
        // Kept with the session, so that a repeated request is answered as the first one was (L1).
        return numbered ? control.KvResponse.encode({ items }).finish() : undefined;
      },
      options,
      (outcome) => {
        if (outcome.kind === "committed") {
          const { index, repeated, reply } = outcome;
          const first = repeated && reply !== undefined ? control.KvResponse.decode(reply).items : items;
          answer({ index, items: first, done: true, repeated });
        } else if (conditionFailed.has(codeOf(outcome.error)) && (request.cas || request.delete)) {
          answer({ done: false });
        } else fail(outcome.error);
      },
    );
  }
}

/** The condition of a Cas or a Delete did not hold: an answer, not a failure. */
const conditionFailed = new Set(["VERSION_CONFLICT", "OBJECT_EXISTS", "OBJECT_NOT_FOUND"]);

function codeOf(error: Error): string {
  return error instanceof ClusterError ? error.code : "";
}

export function failureOf(error: unknown): skep.control.IFailure {
  if (error instanceof ClusterError) {
    const { retryAfterMs } = error as { retryAfterMs?: number };
    return {
      code: error.code,
      message: error.message,
      fix: error.fix ?? "",
      leader: leaderOf(error) ?? "",
      retryAfterMs: retryAfterMs ?? 0,
    };
  }
  return { code: "INTERNAL", message: "Cannot do this: an error of our own", fix: "See the log of the manager asked" };
}

function leaderOf(error: unknown): string | undefined {
  if (!(error instanceof ClusterError)) return undefined;
  const { leader } = error as { leader?: string };
  return error.code === "NOT_LEADER" || error.code === "RAFT_LED_ELSEWHERE" ? leader : undefined;
}

function stepsOf(request: Request): readonly skep.control.ITxnStep[] {
  if (request.put) return [{ put: request.put }];
  if (request.delete) return [{ delete: request.delete }];
  if (request.cas) return [{ cas: request.cas }];
  const steps = request.txn?.steps ?? [];
  if (steps.length === 0) throw new RequestInvalid("it asks for nothing");
  if (steps.length > stepsMax) throw new RequestInvalid(`${steps.length} steps, at most ${stepsMax}`);
  return steps;
}

function run(tx: Tx<ClusterSchema>, step: skep.control.ITxnStep, items: Item[]): void {
  if (step.put) {
    const key = keyOf(step.put);
    const kind = kindOf(step.put);
    const value = step.put.value ?? new Uint8Array(0);
    if (kind === plain) tx.put(plain, { id: key, kind: "kv", payload: value });
    else put(tx, kind, key, value);
  } else if (step.delete) {
    tx.remove(kindOf(step.delete), keyOf(step.delete));
  } else if (step.cas) {
    const key = keyOf(step.cas);
    const object = { id: key, kind: "kv", payload: step.cas.value ?? new Uint8Array(0) };
    if (!step.cas.version) tx.create(plain, object);
    else {
      tx.expectVersion(plain, key, step.cas.version);
      tx.put(plain, object);
    }
  } else if (step.get) {
    const key = keyOf(step.get);
    const kind = kindOf(step.get);
    tx.guard(kind, key);
    items.push(itemOf(kind, key, tx.get(kind, key)));
  } else throw new RequestInvalid("one of its steps is empty");
}

function put(tx: Tx<ClusterSchema>, kind: Kind, key: string, value: Uint8Array): void {
  let object: { id: string };
  try {
    object = clusterSchema[kind].codec.decode(value, key, noMeta);
  } catch {
    throw new RequestInvalid(`its value is not an object of kind ${kind}`);
  }
  // The kind and the object's type belong together by construction, which the compiler cannot see through a variable.
  tx.put(kind as "task", object);
}

function itemOf(kind: Kind, key: string, object: { meta?: { version?: number | null } | null } | undefined): Item {
  if (object === undefined) return { key, found: false };
  const value = kind === plain ? (object as skep.objects.IResource).payload : clusterSchema[kind].codec.encode(object);
  return { key, found: true, value: value ?? new Uint8Array(0), version: object.meta?.version ?? 0 };
}

function keyOf(message: { key?: string | null }): string {
  const key = message.key ?? "";
  if (key === "") throw new RequestInvalid("its key is empty");
  if (Buffer.byteLength(key) > keyBytesMax) throw new RequestInvalid(`its key has more than ${keyBytesMax} bytes`);
  return key;
}

function kindOf(message: { kind?: string | null }): Kind {
  const kind = message.kind || plain;
  if (!Object.hasOwn(clusterSchema, kind)) throw new RequestInvalid(`there is no kind "${kind.slice(0, 40)}"`);
  return kind as Kind;
}
