import assert from "node:assert/strict";
import test from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import { checkLinearizable, defaultLimits, type Model, type Operation } from "./linearizability.ts";
import {
  forgetUnseen,
  registerModel,
  storeModel,
  type RegisterInput,
  type RegisterOutput,
  type TransactionInput,
  type TransactionOutput,
} from "./models.ts";

type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

const done: RegisterOutput = { done: true };
const refused: RegisterOutput = { done: false };
const saw = (value: string | null): RegisterOutput => ({ value });

/** [called, returned (undefined: never), input, output (undefined: unknown)] */
function op(
  calledAt: number,
  returnedAt: number | undefined,
  input: RegisterInput,
  output?: RegisterOutput,
): RegisterOperation {
  return { calledAt, returnedAt, input, output };
}
const put = (value: string): RegisterInput => ({ act: "put", value });
const get: RegisterInput = { act: "get" };
const create = (value: string): RegisterInput => ({ act: "create", value });
const cas = (expected: string | null, value: string | null): RegisterInput => ({ act: "cas", expected, value });
const remove: RegisterInput = { act: "delete" };

const good: Record<string, readonly RegisterOperation[]> = {
  "an empty history": [],
  "a read of nothing": [op(1, 2, get, saw(null))],
  "a read after a write": [op(1, 2, put("a"), done), op(3, 4, get, saw("a"))],
  "a read beside a write may miss it": [op(1, 4, put("a"), done), op(2, 3, get, saw(null))],
  "a read beside a write may see it": [op(1, 4, put("a"), done), op(2, 3, get, saw("a"))],
  "two writes side by side, in either order": [
    op(1, 4, put("a"), done),
    op(2, 3, put("b"), done),
    op(5, 6, get, saw("a")),
  ],
  "an unknown write that is seen later": [op(1, undefined, put("a")), op(5, 6, get, saw("a"))],
  "an unknown write that is never seen": [op(1, undefined, put("a")), op(5, 6, get, saw(null))],
  "an unknown write that takes effect between two reads": [
    op(1, undefined, put("a")),
    op(5, 6, get, saw(null)),
    op(7, 8, get, saw("a")),
  ],
  "one of two creations wins": [op(1, 3, create("a"), done), op(2, 4, create("b"), refused), op(5, 6, get, saw("a"))],
  "a compare-and-set on what was read": [
    op(1, 2, put("a"), done),
    op(3, 4, cas("a", "b"), done),
    op(5, 6, get, saw("b")),
  ],
  "a deletion, then a creation": [
    op(1, 2, put("a"), done),
    op(3, 4, remove, done),
    op(5, 6, create("b"), done),
    op(7, 8, get, saw("b")),
  ],
  "an unknown deletion explains a missing value": [
    op(1, 2, put("a"), done),
    op(3, undefined, remove),
    op(9, 10, get, saw(null)),
  ],
};

const bad: Record<string, readonly RegisterOperation[]> = {
  "a read of a value never written": [op(1, 2, get, saw("a"))],
  "a stale read": [op(1, 2, put("a"), done), op(3, 4, put("b"), done), op(5, 6, get, saw("a"))],
  "a lost write": [op(1, 2, put("a"), done), op(3, 4, get, saw(null))],
  "reads that go back in time": [op(1, 10, put("a"), done), op(2, 3, get, saw("a")), op(4, 5, get, saw(null))],
  "two readers who disagree on the order of two writes": [
    op(1, 2, put("a"), done),
    op(1, 2, put("b"), done),
    op(3, 4, get, saw("a")),
    op(5, 6, get, saw("b")),
    op(7, 8, get, saw("a")),
  ],
  "two creations that both win": [op(1, 2, create("a"), done), op(3, 4, create("b"), done)],
  "a compare-and-set that wins on an old value": [
    op(1, 2, put("a"), done),
    op(3, 4, put("b"), done),
    op(5, 6, cas("a", "c"), done),
  ],
  "a compare-and-set refused although nothing else wrote": [op(1, 2, put("a"), done), op(3, 4, cas("a", "b"), refused)],
  "a write that is seen after it was overwritten for a reader": [
    op(1, undefined, put("a")),
    op(2, 3, get, saw("a")),
    op(4, 5, put("b"), done),
    op(6, 7, get, saw("a")),
  ],
  "an unknown write that is seen before it was called": [op(5, undefined, put("a")), op(1, 2, get, saw("a"))],
  "a write done twice": [op(1, 2, put("a"), done), op(3, 4, remove, done), op(5, 6, get, saw("a"))],
  "a deletion of nothing that reports success": [op(1, 2, remove, done)],
};

for (const [name, history] of Object.entries(good)) {
  test(`N13: the checker accepts ${name}`, () => {
    assert.equal(checkLinearizable(registerModel, history).kind, "linearizable");
  });
}
for (const [name, history] of Object.entries(bad)) {
  test(`N13: the checker refuses ${name}`, () => {
    assert.equal(checkLinearizable(registerModel, history).kind, "violation");
  });
}

test("N13: the checker accepts a transfer between two accounts and refuses a torn one", () => {
  const open: Operation<TransactionInput, TransactionOutput> = {
    calledAt: 1,
    returnedAt: 2,
    input: { expected: {}, writes: { a: "10", b: "0" }, reads: [] },
    output: { done: true, values: {} },
  };
  const move: Operation<TransactionInput, TransactionOutput> = {
    calledAt: 3,
    returnedAt: undefined,
    input: { expected: { a: "10", b: "0" }, writes: { a: "7", b: "3" }, reads: [] },
    output: undefined,
  };
  const look = (a: string, b: string): Operation<TransactionInput, TransactionOutput> => ({
    calledAt: 4,
    returnedAt: 5,
    input: { expected: {}, writes: {}, reads: ["a", "b"] },
    output: { done: true, values: { a, b } },
  });
  assert.equal(checkLinearizable(storeModel, [open, move, look("10", "0")]).kind, "linearizable");
  assert.equal(checkLinearizable(storeModel, [open, move, look("7", "3")]).kind, "linearizable");
  assert.equal(checkLinearizable(storeModel, [open, move, look("7", "0")]).kind, "violation");
});

test("N13: a search that runs out of steps says so instead of passing", () => {
  const history = Array.from({ length: 40 }, (_, i) => op(1, 100, put(`v${i}`), done)).concat(
    op(101, 102, get, saw("x")),
  );
  assert.equal(checkLinearizable(registerModel, history, { ...defaultLimits, stepsMax: 10_000 }).kind, "undecided");
  let nowMs = 0;
  const clock = (): number => (nowMs += 5_000);
  assert.equal(checkLinearizable(registerModel, history, { ...defaultLimits, clock }).kind, "undecided");
});

/** Tries every order of every subset of the unknown operations: slow, plain, and right. */
function bruteForce<S, I, O>(model: Model<S, I, O>, operations: readonly Operation<I, O>[]): boolean {
  const place = (state: S, left: readonly Operation<I, O>[]): boolean => {
    const known = left.filter((operation) => operation.returnedAt !== undefined);
    if (known.length === 0) return true;
    const deadline = Math.min(...known.map((operation) => operation.returnedAt!));
    return left.some((operation, at) => {
      if (operation.calledAt > deadline) return false;
      const stepped = model.step(state, operation.input, operation.output);
      return stepped !== undefined && place(stepped.next, left.toSpliced(at, 1));
    });
  };
  return place(model.initial, operations);
}

test("N13: the checker agrees with brute force on 10,000 random histories of at most 7 operations", () => {
  const random = new Random("histories");
  const seen = { linearizable: 0, violation: 0, undecided: 0 };
  for (let round = 0; round < 10_000; round++) {
    const values: (string | null)[] = [null, "a", "b", "c"];
    const history = Array.from({ length: random.int(1, 8) }, (): RegisterOperation => {
      const calledAt = random.int(0, 20);
      const returnedAt = random.chance(0.2) ? undefined : calledAt + random.int(1, 10);
      const value = random.pick(["a", "b", "c"]);
      const input = random.pick<RegisterInput>([
        put(value),
        get,
        get,
        create(value),
        cas(random.pick(values), random.pick(values)),
        remove,
      ]);
      const output = returnedAt === undefined ? undefined : answer(random, input, values);
      return op(calledAt, returnedAt, input, output);
    });
    const verdict = checkLinearizable(registerModel, history);
    seen[verdict.kind]++;
    assert.equal(verdict.kind === "linearizable", bruteForce(registerModel, history), JSON.stringify(history));
    assert.equal(checkLinearizable(registerModel, forgetUnseen(history)).kind, verdict.kind, JSON.stringify(history));
  }
  assert.ok(seen.linearizable > 1_000 && seen.violation > 1_000, JSON.stringify(seen));
});

function answer(random: Random, input: RegisterInput, values: readonly (string | null)[]): RegisterOutput {
  if (input.act === "get") return saw(random.pick(values));
  return input.act === "put" ? done : random.chance(0.7) ? done : refused;
}
