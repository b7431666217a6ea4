/** The replicated state as the simulated clients see it: rows with a value and a version, and commands under sessions. */

export interface Row {
  readonly id: string;
  readonly value: string;
  /** Log index of the last change. */
  readonly version: number;
}

export interface Command {
  readonly session: string;
  readonly seq: number;
  readonly ackedBelow: number;
  /** Versions that must still hold; 0: must not exist. */
  readonly guards: readonly { readonly id: string; readonly version: number }[];
  /** null deletes. */
  readonly writes: readonly { readonly id: string; readonly value: string | null }[];
}

export interface Reply {
  /** Whether all guards held, and the writes took effect. */
  readonly done: boolean;
  readonly index: number;
  /** The (session, sequence) had been applied before; this is the first answer. */
  readonly repeated: boolean;
}
