/** What one run says about itself, as plain data that crosses threads. */
import type { SimOptions } from "./options.ts";

export interface RunFailure {
  readonly check: string;
  readonly message: string;
  readonly stack: string;
}

export interface RunResult {
  readonly options: SimOptions;
  readonly failure: RunFailure | undefined;
  /** Calls into a core: ticks, messages, proposals, durability notices, applied notices. */
  readonly coreEvents: number;
  readonly events: number;
  readonly virtualUs: number;
  readonly operations: number;
  /** Equal for equal runs; anything that happened in another order changes it. */
  readonly traceHash: string;
  readonly marks: Readonly<Record<string, number>>;
  /** The last events as text; filled only when the run was asked to trace. */
  readonly trace: readonly string[];
}
