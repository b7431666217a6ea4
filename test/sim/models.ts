/** What a client may observe: sequential models for the linearizability checker. */
import { unreachable } from "../../lib/pure/errors.ts";
import type { Model, Operation } from "./linearizability.ts";

/** Values are unique for each write, so that a compare-and-set by version is one by value. null: no such object. */
export type RegisterInput =
  | { readonly act: "put"; readonly value: string }
  | { readonly act: "get" }
  | { readonly act: "create"; readonly value: string }
  | { readonly act: "cas"; readonly expected: string | null; readonly value: string | null }
  | { readonly act: "delete" };

/** `value` for a get; `done` tells whether a conditional write took effect. */
export type RegisterOutput = { readonly value: string | null } | { readonly done: boolean };

/** One object. */
export const registerModel: Model<string | null, RegisterInput, RegisterOutput> = {
  initial: null,
  key: (state) => state ?? "",
  kind: (input) => JSON.stringify(input),
  isIdle: (input, output) => input.act === "get" || ("done" in output && !output.done),
  step(state, input, output) {
    switch (input.act) {
      case "get":
        return output === undefined || ("value" in output && output.value === state) ? { next: state } : undefined;
      case "put":
        return output === undefined || ("done" in output && output.done) ? { next: input.value } : undefined;
      case "create":
        return conditional(state, state === null, input.value, output);
      case "cas":
        return conditional(state, state === input.expected, input.value, output);
      case "delete":
        return conditional(state, state !== null, null, output);
      default:
        return unreachable("an act that no register knows", { input });
    }
  },
};

/**
 * The same history, in which every value that was written with unknown outcome and never met again is called "?":
 * nobody can tell such writes apart, so the search need not.
 */
export function forgetUnseen(
  history: readonly Operation<RegisterInput, RegisterOutput>[],
): Operation<RegisterInput, RegisterOutput>[] {
  const met = new Set<string | null>();
  for (const { input, output } of history) {
    if (output !== undefined && "value" in output) met.add(output.value);
    if (input.act === "cas") met.add(input.expected);
  }
  return history.map((operation) => {
    const { input, output } = operation;
    if (output !== undefined || !("value" in input) || input.value === null || met.has(input.value)) return operation;
    return { ...operation, input: { ...input, value: "?" } };
  });
}

function conditional(
  state: string | null,
  holds: boolean,
  value: string | null,
  output: RegisterOutput | undefined,
): { next: string | null } | undefined {
  if (output !== undefined && !("done" in output && output.done === holds)) return undefined;
  return { next: holds ? value : state };
}

/** Several objects at once; a transaction takes effect wholly or not at all. Keys absent from the record do not exist. */
export type StoreState = Readonly<Record<string, string>>;

export interface TransactionInput {
  /** What must be there for the transaction to take effect; null: must not exist. */
  readonly expected: Readonly<Record<string, string | null>>;
  readonly writes: Readonly<Record<string, string | null>>;
  /** Keys whose values the client saw, at one point in time. */
  readonly reads: readonly string[];
}

export interface TransactionOutput {
  readonly done: boolean;
  readonly values: Readonly<Record<string, string | null>>;
}

/** Transactions over several objects: not to be partitioned by key; use on at most about 200 operations. */
export const storeModel: Model<StoreState, TransactionInput, TransactionOutput> = {
  initial: {},
  key: (state) =>
    Object.keys(state)
      .sort()
      .map((name) => `${name}=${state[name]}`)
      .join(","),
  isIdle: (input, output) => !output.done || Object.keys(input.writes).length === 0,
  step(state, input, output) {
    const holds = Object.entries(input.expected).every(([name, value]) => (state[name] ?? null) === value);
    if (output !== undefined) {
      if (output.done !== holds) return undefined;
      if (holds && !input.reads.every((name) => (output.values[name] ?? null) === (state[name] ?? null))) {
        return undefined;
      }
    }
    if (!holds) return { next: state };
    const next: Record<string, string> = { ...state };
    for (const [name, value] of Object.entries(input.writes)) {
      if (value === null) delete next[name];
      else next[name] = value;
    }
    return { next };
  },
};
