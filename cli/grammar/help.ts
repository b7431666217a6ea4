/** The help of a command, in the layout of the docker CLI. */
import type { ArgCount } from "./command.ts";
import type { Flags } from "./flags.ts";

/** @param columns the terminal's width */
export function optionsHelp(flags: Flags, columns: number): string {
  const names = Object.keys(flags).toSorted();
  const left = names.map((name) => {
    const flag = flags[name];
    const short = flag === undefined || flag.short === "" ? "    " : `-${flag.short}, `;
    return `  ${short}--${name}${flag === undefined || flag.type === "" ? "" : ` ${flag.type}`}`;
  });
  const indent = Math.max(0, ...left.map((text) => text.length)) + 3;
  const lines = names.map((name, at) => {
    const flag = flags[name];
    const shown = flag === undefined || flag.shownDefault === "" ? "" : ` (default ${flag.shownDefault})`;
    return (left[at] ?? "").padEnd(indent) + wrap(`${flag?.help ?? ""}${shown}`, indent, columns);
  });
  return `Options:\n${lines.join("\n")}\n`;
}

/** Breaks at spaces; the lines after the first are indented. */
function wrap(text: string, indent: number, columns: number): string {
  const width = Math.max(24, columns - indent);
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].join(`\n${" ".repeat(indent)}`);
}

/** One `  name   summary` a line. */
export function commandList(title: string, entries: readonly (readonly [name: string, summary: string])[]): string {
  const width = Math.max(11, ...entries.map(([name]) => name.length + 1));
  return `${title}:\n${entries.map(([name, summary]) => `  ${name.padEnd(width)} ${summary}`).join("\n")}\n`;
}

/** Why this many arguments are wrong, or undefined. The reference's wording. */
export function wrongArgCount(count: number, { min, max }: ArgCount): string | undefined {
  if (count >= min && count <= max) return undefined;
  const words = (n: number): string => `${n} argument${n === 1 ? "" : "s"}`;
  if (max === 0) return "accepts no arguments";
  if (min === max) return `requires ${words(min)}`;
  if (max === Infinity) return `requires at least ${words(min)}`;
  if (min === 0) return `requires at most ${words(max)}`;
  return `requires at least ${min} and at most ${words(max)}`;
}
