/**
 * Linearizability checker: Wing and Gong's search over which pending operation takes effect next, with Lowe's
 * just-in-time order and a memo on (operations already placed, state), so that no pair is explored twice.
 * Sources: Wing, Gong: Testing and Verifying Concurrent Objects (1993); Lowe: Testing for Linearizability (2017).
 */

/** `State` must be comparable by the key that the model gives. */
export interface Model<State, Input, Output> {
  readonly initial: State;
  /** The state after `input`, or undefined if `output` is impossible here. `output` undefined: outcome unknown, anything goes. */
  step(state: State, input: Input, output: Output | undefined): { readonly next: State } | undefined;
  key(state: State): string;
  /**
   * Two operations of unknown outcome with the same kind have the same effect whatever the state; the search then tries
   * only the one that was called first, since whatever the later one can do, it can. Default: all are different.
   */
  kind?(input: Input): string;
}

export interface Operation<Input, Output> {
  /** Logical times: any numbers that grow; equal times count as concurrent. */
  readonly calledAt: number;
  /** Undefined: nobody ever heard; the operation may take effect at any later time, or never. */
  readonly returnedAt: number | undefined;
  readonly input: Input;
  readonly output: Output | undefined;
}

export type Verdict =
  | { readonly kind: "linearizable" }
  /** `stuckAt`: the first operation, in order of return, that no order could place. */
  | { readonly kind: "violation"; readonly stuckAt: number }
  | { readonly kind: "undecided" };

export interface SearchLimits {
  readonly stepsMax: number;
  /** Milliseconds of some monotonic clock; looked at every few thousand steps. */
  readonly clock?: () => number;
  readonly timeMaxMs: number;
}

export const defaultLimits: SearchLimits = { stepsMax: 20_000_000, timeMaxMs: 10_000 };

/** One call or return in the doubly linked list that the search lifts operations out of and puts back into. */
interface Node {
  readonly operation: number;
  readonly isCall: boolean;
  match: Node | undefined;
  prev: Node | undefined;
  next: Node | undefined;
}

export function checkLinearizable<State, Input, Output>(
  model: Model<State, Input, Output>,
  operations: readonly Operation<Input, Output>[],
  limits: SearchLimits = defaultLimits,
): Verdict {
  const known = operations.filter((operation) => operation.returnedAt !== undefined).length;
  if (known === 0) return { kind: "linearizable" };
  const head = listOf(operations);
  const earlier = earlierTwins(model, operations);
  const placed = new Uint32Array(Math.ceil(operations.length / 32));
  const seen = new Set<string>();
  const stack: { readonly call: Node; readonly state: State }[] = [];
  const startMs = limits.clock?.() ?? 0;
  let state = model.initial;
  let knownLeft = known;
  let furthest = -1;
  let steps = 0;
  let at = head.next;
  while (knownLeft > 0) {
    if (++steps > limits.stepsMax) return { kind: "undecided" };
    if ((steps & 4095) === 0 && limits.clock !== undefined && limits.clock() - startMs > limits.timeMaxMs) {
      return { kind: "undecided" };
    }
    if (at?.isCall === true) {
      const operation = operations[at.operation] as Operation<Input, Output>;
      const twin = earlier[at.operation] as number;
      const stepped =
        twin >= 0 && !hasBit(placed, twin) ? undefined : model.step(state, operation.input, operation.output);
      if (stepped !== undefined) {
        setBit(placed, at.operation);
        const key = `${placed.join(".")}|${model.key(stepped.next)}`;
        if (!seen.has(key)) {
          seen.add(key);
          stack.push({ call: at, state });
          state = stepped.next;
          if (operation.returnedAt !== undefined) knownLeft--;
          lift(at);
          at = head.next;
          continue;
        }
        clearBit(placed, at.operation);
      }
      at = at.next;
      continue;
    }
    // A return (or the end): the operation that returned must be placed before it, and no order so far does so.
    if (at !== undefined && at.operation > furthest) furthest = at.operation;
    const last = stack.pop();
    if (last === undefined) return { kind: "violation", stuckAt: furthest };
    state = last.state;
    clearBit(placed, last.call.operation);
    if (operations[last.call.operation]?.returnedAt !== undefined) knownLeft++;
    unlift(last.call);
    at = last.call.next;
  }
  return { kind: "linearizable" };
}

/** For each operation of unknown outcome the one of its kind that was called just before it, or -1. */
function earlierTwins<Input, Output>(
  model: Model<unknown, Input, Output> | Model<never, Input, Output>,
  operations: readonly Operation<Input, Output>[],
): number[] {
  const twins = operations.map(() => -1);
  if (model.kind === undefined) return twins;
  const latest = new Map<string, number>();
  const order = [...operations.keys()].sort(
    (a, b) => (operations[a]?.calledAt ?? 0) - (operations[b]?.calledAt ?? 0) || a - b,
  );
  for (const index of order) {
    const operation = operations[index];
    if (operation === undefined || operation.returnedAt !== undefined) continue;
    const kind = model.kind(operation.input);
    twins[index] = latest.get(kind) ?? -1;
    latest.set(kind, index);
  }
  return twins;
}

function listOf(operations: readonly Operation<unknown, unknown>[]): Node {
  const marks: { readonly at: number; readonly node: Node }[] = [];
  for (const [index, operation] of operations.entries()) {
    const call: Node = { operation: index, isCall: true, match: undefined, prev: undefined, next: undefined };
    marks.push({ at: operation.calledAt, node: call });
    if (operation.returnedAt === undefined) continue;
    const back: Node = { operation: index, isCall: false, match: undefined, prev: undefined, next: undefined };
    call.match = back;
    marks.push({ at: operation.returnedAt, node: back });
  }
  // At equal times calls come first: the two operations overlap, which is the weaker (safe) reading.
  marks.sort((a, b) => a.at - b.at || Number(b.node.isCall) - Number(a.node.isCall));
  const head: Node = { operation: -1, isCall: false, match: undefined, prev: undefined, next: undefined };
  let last = head;
  for (const { node } of marks) {
    node.prev = last;
    last.next = node;
    last = node;
  }
  return head;
}

function lift(call: Node): void {
  unlink(call);
  if (call.match !== undefined) unlink(call.match);
}

/** The reverse of `lift`, in reverse order: the neighbours are where they were. */
function unlift(call: Node): void {
  if (call.match !== undefined) relink(call.match);
  relink(call);
}

function unlink(node: Node): void {
  if (node.prev !== undefined) node.prev.next = node.next;
  if (node.next !== undefined) node.next.prev = node.prev;
}

function relink(node: Node): void {
  if (node.prev !== undefined) node.prev.next = node;
  if (node.next !== undefined) node.next.prev = node;
}

function setBit(bits: Uint32Array, at: number): void {
  bits[at >> 5] = (bits[at >> 5] as number) | (1 << (at & 31));
}

function hasBit(bits: Uint32Array, at: number): boolean {
  return ((bits[at >> 5] as number) & (1 << (at & 31))) !== 0;
}

function clearBit(bits: Uint32Array, at: number): void {
  bits[at >> 5] = (bits[at >> 5] as number) & ~(1 << (at & 31));
}
