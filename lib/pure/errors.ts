/** Operating errors (expected, typed, with a stable code) and broken invariants (our bug: the process stops). */

export interface ClusterErrorOptions {
  /** What the reader can do about it: an instruction, not a diagnosis. */
  readonly fix?: string;
  readonly cause?: unknown;
}

/**
 * An expected failure. Callers branch on `code`, never on text; `docs/errors.md` lists every code.
 * The message says `Cannot <act> <thing>: <what was found>`.
 */
export abstract class ClusterError extends Error {
  abstract readonly code: string;
  readonly fix: string | undefined;

  constructor(message: string, options: ClusterErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.fix = options.fix;
  }
}

/** A broken promise of our own code. Whoever catches one logs its facts and stops the process; restart is the recovery. */
export class InvariantViolation extends Error {
  readonly facts: Readonly<Record<string, unknown>>;

  constructor(claim: string, facts: Readonly<Record<string, unknown>> = {}) {
    super(`Invariant broken: ${claim} ${JSON.stringify(facts)}`);
    this.name = new.target.name;
    this.facts = facts;
  }
}

/** Stays on in production: one claim a call, with its facts. */
export function invariant(
  condition: unknown,
  claim: string,
  facts?: Readonly<Record<string, unknown>>,
): asserts condition {
  if (!condition) throw new InvariantViolation(claim, facts);
}

/** For branches and look-ups that cannot happen. */
export function unreachable(what: string, facts?: Readonly<Record<string, unknown>>): never {
  throw new InvariantViolation(`reached: ${what}`, facts);
}

/** Whether an error only says that its work was cancelled: not a failure, and not logged as one. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === "AbortError" || (error as { code?: string }).code === "ABORT_ERR");
}
