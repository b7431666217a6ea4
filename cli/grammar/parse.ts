/**
 * Reads a command line as Go's pflag does: `--flag value`, `--flag=value`, `-f value`, `-fvalue`, `-abc` for switches,
 * `--` ends the flags, and flags may stand among the arguments unless the command says otherwise (docs/adr/0030).
 */
import { CommandError } from "../errors.ts";
import { invalidArgument, type Flag, type Flags } from "./flags.ts";

export interface Parsed {
  readonly values: Readonly<Record<string, unknown>>;
  readonly args: readonly string[];
  /** `-h` or `--help` was there. */
  readonly help: boolean;
}

export function parse(flags: Flags, words: readonly string[], firstArgEndsFlags = false): Parsed {
  const values: Record<string, unknown> = {};
  const args: string[] = [];
  const byShort = new Map(Object.entries(flags).map(([name, flag]) => [flag.short, name]));
  let help = false;

  const set = (name: string, text: string): void => {
    const flag = flags[name] as Flag<unknown>;
    try {
      values[name] = flag.read(text, values[name]);
    } catch (error) {
      throw invalidArgument(text, name, flag, error instanceof Error ? error.message : String(error));
    }
  };

  let at = 0;
  for (; at < words.length; at++) {
    const word = words[at] ?? "";
    if (word === "--") {
      args.push(...words.slice(at + 1));
      break;
    }
    if (word.startsWith("--")) {
      const equals = word.indexOf("=");
      const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
      const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
      if (flag === undefined) {
        if (name !== "help") throw new CommandError(`unknown flag: --${name}`, 125);
        help = true;
      } else if (equals >= 0) set(name, word.slice(equals + 1));
      else if (flag.bare !== undefined) set(name, flag.bare);
      else {
        const value = words[++at];
        if (value === undefined) throw new CommandError(`flag needs an argument: --${name}`, 125);
        set(name, value);
      }
    } else if (word.startsWith("-") && word.length > 1) {
      for (let letters = word.slice(1); letters !== "";) {
        const letter = letters.charAt(0);
        letters = letters.slice(1);
        const name = byShort.get(letter);
        const flag = name === undefined ? undefined : flags[name];
        if (name === undefined || flag === undefined) {
          if (letter !== "h") throw new CommandError(`unknown shorthand flag: '${letter}' in ${word}`, 125);
          help = true;
        } else if (letters.startsWith("=")) {
          set(name, letters.slice(1));
          letters = "";
        } else if (flag.bare !== undefined) set(name, flag.bare);
        else {
          const value = letters === "" ? words[++at] : letters;
          if (value === undefined) throw new CommandError(`flag needs an argument: '${letter}' in ${word}`, 125);
          set(name, value);
          letters = "";
        }
      }
    } else {
      args.push(word);
      if (firstArgEndsFlags) {
        args.push(...words.slice(at + 1));
        break;
      }
    }
  }
  return { values, args, help };
}
