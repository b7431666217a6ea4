/**
 * Flags of the programs behind the npm scripts: wrong ones are told with the usage and end with 2, where a run that did
 * something else than was meant, or a stack trace, would be the answer.
 */
import { parseArgs, type ParseArgsConfig } from "node:util";

type Options = NonNullable<ParseArgsConfig["options"]>;
type Values<Given extends Options> = ReturnType<typeof parseArgs<{ options: Given }>>["values"];

export interface Program {
  readonly name: string;
  readonly usage: string;
}

/** Ends the process for `--help` (0) and for what is wrong (2). */
export function readFlags<const Given extends Options>(program: Program, options: Given): Values<Given> {
  const given = process.argv.slice(2);
  if (given.includes("--help")) {
    console.log(program.usage);
    process.exit(0);
  }
  try {
    return parseArgs({ args: given, options }).values;
  } catch (error) {
    return wrongUse(program, (error as Error).message);
  }
}

export function wrongUse({ name, usage }: Program, found: string): never {
  console.error(`${name}: ${found}\n${usage}`);
  process.exit(2);
}

/** A whole number from `least` on. */
export function wholeNumber(program: Program, flag: string, text: string, least = 0): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isSafeInteger(value) || value < least) {
    wrongUse(program, `--${flag} wants a whole number${least > 0 ? ` from ${least} on` : ""}, not "${text}"`);
  }
  return value;
}

/** More than nothing, perhaps a fraction. */
export function amount(program: Program, flag: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && value < Infinity)) wrongUse(program, `--${flag} wants a number above 0, not "${text}"`);
  return value;
}
