/** What a command is, and how many arguments it takes. */
import type { Session } from "../session.ts";
import type { Flags, Values } from "./flags.ts";

export interface ArgCount {
  readonly min: number;
  readonly max: number;
}
export const none: ArgCount = { min: 0, max: 0 };
export const exactly = (count: number): ArgCount => ({ min: count, max: count });
export const atLeast = (min: number): ArgCount => ({ min, max: Infinity });
export const between = (min: number, max: number): ArgCount => ({ min, max });

/** What completion offers for the arguments of a command. */
export type Completes =
  | "services"
  | "nodes"
  | "stacks"
  | "secrets"
  | "configs"
  | "containers"
  | "images"
  | "volumes"
  | "networks"
  | "contexts"
  | "files";

interface Definition<F extends Flags> {
  /** What follows the command's name in the usage line, for example `[OPTIONS] SERVICE`. */
  readonly usage: string;
  readonly args: ArgCount;
  readonly flags: F;
  /** After the first argument the words belong to somebody else (`run IMAGE COMMAND --its-flag`). */
  readonly firstArgEndsFlags?: boolean;
  readonly completes?: Completes;
  /** @returns the exit code; nothing means 0 */
  run(session: Session, flags: Values<F>, args: readonly string[]): Promise<number | void>;
}

/** A command whose flags' types only itself knows. */
export type Command = Definition<Flags>;

export function command<F extends Flags>(definition: Definition<F>): Command {
  // `parse` builds the values from these same flags, so their types agree.
  return definition;
}

/** A line of the table of commands. */
export interface Entry {
  /** The words that lead to it. */
  readonly path: string;
  readonly aliases: readonly string[];
  readonly summary: string;
  load(): Promise<Command>;
}
