/** What many commands share: an act for each name, and `inspect`. */
import { isAbort } from "../../lib/pure/errors.ts";
import { CommandError, throwAll } from "../errors.ts";
import * as flag from "../grammar/flags.ts";
import type { Session } from "../session.ts";
import { printFound } from "./list.ts";

/**
 * Acts on each name and prints it; a failure does not keep the others from their turn.
 * @param act may return what to print instead of the name; null prints nothing
 */
export async function forEachName(
  session: Session,
  names: readonly string[],
  act: (name: string) => Promise<unknown>,
): Promise<void> {
  const errors: unknown[] = [];
  for (const name of names) {
    try {
      const shown = await act(name);
      if (shown !== null) session.print(typeof shown === "string" ? shown : name);
    } catch (error) {
      if (isAbort(error)) throw error;
      errors.push(error);
    }
  }
  throwAll(errors);
}

export const inspectFlags = {
  format: flag.text("Print through a Go template, or 'json'", { short: "f" }),
};
export const prettyFlags = { ...inspectFlags, pretty: flag.bool("Print for people") };

/**
 * Reads each object and prints all of them; a missing one ends the reading, and is told after what was found.
 * @param pretty prints them for people, when asked to
 */
export async function inspectEach<T>(
  session: Session,
  names: readonly string[],
  flags: { readonly format?: string | undefined; readonly pretty?: boolean | undefined },
  read: (name: string) => Promise<T>,
  pretty?: (found: readonly T[]) => Promise<string> | string,
): Promise<void> {
  if (flags.pretty === true && flags.format !== undefined) {
    throw new CommandError("--format is incompatible with human friendly format");
  }
  const found: T[] = [];
  const errors: unknown[] = [];
  for (const name of names) {
    try {
      found.push(await read(name));
    } catch (error) {
      errors.push(error);
      break;
    }
  }
  if (flags.pretty === true && pretty !== undefined) session.stdout.write(await pretty(found));
  else printFound(session, found, flags.format);
  throwAll(errors);
}

/** Asks before something is lost. @returns whether the answer was yes */
export async function confirm(session: Session, warning: string): Promise<boolean> {
  // Most commands ask nothing, and it takes a millisecond to load.
  const { createInterface } = process.getBuiltinModule("node:readline/promises");
  const lines = createInterface({ input: session.stdin, output: session.stdout });
  try {
    const answer = await lines.question(`${warning} [y/N] `, { signal: session.interrupted });
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

/** `--force` of the prune commands. */
export const forceFlag = (): flag.Flag<boolean> => flag.bool("Do not ask", { short: "f" });
