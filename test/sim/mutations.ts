/**
 * Planted bugs (N12). Each replaces one snippet of one source file while it is imported, so that no switch and no wrong
 * line stands in the program itself. A snippet that is not there exactly once is an error: the list follows the source.
 */
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

export interface Mutation {
  readonly name: string;
  /** Path below the root of the project. */
  readonly file: string;
  readonly snippet: string;
  readonly replacement: string;
  /** Seeds that are known to kill it, tried first. */
  readonly seeds?: readonly number[];
}

const root = new URL("../../", import.meta.url);

export const mutations: readonly Mutation[] = [];

/** Checks that the snippet is there exactly once. @returns the source with the bug in it */
export function mutatedSource(mutation: Mutation): string {
  const source = readFileSync(new URL(mutation.file, root), "utf8");
  const parts = source.split(mutation.snippet);
  if (parts.length !== 2) {
    throw new Error(
      `Cannot plant "${mutation.name}": its snippet is ${parts.length - 1} times in ${mutation.file}, not once`,
    );
  }
  return parts.join(mutation.replacement);
}

/** From now on, importing the file in this thread gives the changed source. Must run before its first import. */
export function plantMutation(mutation: Mutation): void {
  const source = mutatedSource(mutation);
  const target = pathToFileURL(fileURLToPath(new URL(mutation.file, root))).href;
  registerHooks({
    load(url, context, nextLoad) {
      if (url.split("?")[0] !== target) return nextLoad(url, context);
      return { format: "module-typescript", source, shortCircuit: true };
    },
  });
}
