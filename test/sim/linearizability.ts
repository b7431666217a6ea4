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
  /** Whether an operation with this answer has changed nothing, in whatever state: a read, or a condition that did not hold. */
  isIdle(input: Input, output: Output): boolean;
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

/** A state on the way, and what may take effect next in it. */
interface Frame<State> {
  readonly state: State;
  /** Those called before the first return that is still open, best first. */
  readonly candidates: readonly Node[];
  next: number;
  /** The first open return: it cannot be passed until its operation is placed. */
  readonly blockedBy: Node | undefined;
  /** What led to the frame above this one. */
  placed: Node | undefined;
}

/**
 * Three rules keep the search short, and lose nothing:
 * - An operation whose answer tells that it changed nothing is placed as soon as it fits, alone: whatever order places it
 *   later can place it now.
 * - One of unknown outcome is placed only where it changes the state: left out, it disturbs nobody.
 * - Those with an answer come first, the one that returned first at the head. Unknown ones gather at the front of the
 *   history and would otherwise be tried first everywhere.
 */
export function checkLinearizable<State, Input, Output>(
  model: Model<State, Input, Output>,
  operations: readonly Operation<Input, Output>[],
  limits: SearchLimits = defaultLimits,
): Verdict {
  let knownLeft = operations.filter((operation) => operation.returnedAt !== undefined).length;
  if (knownLeft === 0) return { kind: "linearizable" };
  const head = listOf(operations);
  const earlier = earlierTwins(model, operations);
  const placed = new Uint32Array(Math.ceil(operations.length / 32));
  const seen = new Set<string>();
  const startMs = limits.clock?.() ?? 0;
  let furthest = -1;
  let steps = 0;

  const frameOf = (state: State): Frame<State> => {
    const key = model.key(state);
    const known: Node[] = [];
    const unknown: Node[] = [];
    let at = head.next;
    for (; at?.isCall === true; at = at.next) {
      const operation = operations[at.operation] as Operation<Input, Output>;
      const twin = earlier[at.operation] as number;
      if (twin >= 0 && !hasBit(placed, twin)) continue;
      const stepped = model.step(state, operation.input, operation.output);
      if (stepped === undefined) continue;
      if (operation.output !== undefined && model.isIdle(operation.input, operation.output)) {
        return { state, candidates: [at], next: 0, blockedBy: undefined, placed: undefined };
      }
      if (operation.returnedAt !== undefined) known.push(at);
      else if (model.key(stepped.next) !== key) unknown.push(at);
    }
    known.sort((a, b) => (operations[a.operation]?.returnedAt ?? 0) - (operations[b.operation]?.returnedAt ?? 0));
    return { state, candidates: [...known, ...unknown], next: 0, blockedBy: at, placed: undefined };
  };

  const stack = [frameOf(model.initial)];
  while (knownLeft > 0) {
    if (++steps > limits.stepsMax) return { kind: "undecided" };
    if ((steps & 1023) === 0 && limits.clock !== undefined && limits.clock() - startMs > limits.timeMaxMs) {
      return { kind: "undecided" };
    }
    const frame = stack.at(-1);
    if (frame === undefined) return { kind: "violation", stuckAt: furthest };
    const back = frame.placed;
    if (back !== undefined) {
      // What was tried here led nowhere.
      frame.placed = undefined;
      clearBit(placed, back.operation);
      if (operations[back.operation]?.returnedAt !== undefined) knownLeft++;
      unlift(back);
    }
    const call = frame.candidates[frame.next++];
    if (call === undefined) {
      const { blockedBy } = frame;
      if (blockedBy !== undefined && blockedBy.operation > furthest) furthest = blockedBy.operation;
      stack.pop();
      continue;
    }
    const operation = operations[call.operation] as Operation<Input, Output>;
    const stepped = model.step(frame.state, operation.input, operation.output);
    if (stepped === undefined) continue;
    setBit(placed, call.operation);
    const key = `${placed.join(".")}|${model.key(stepped.next)}`;
    if (seen.has(key)) {
      clearBit(placed, call.operation);
      continue;
    }
    seen.add(key);
    frame.placed = call;
    if (operation.returnedAt !== undefined) knownLeft--;
    lift(call);
    if (knownLeft > 0) stack.push(frameOf(stepped.next));
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
