/** Results as one JSON object a line for programs, and as a table for people on a terminal. */

export interface BenchOptions {
  readonly rounds: number;
  /** Names of single measurements; all of them if it is empty. */
  readonly only: ReadonlySet<string>;
  /** Short runs, to see that everything works: their figures say nothing. */
  readonly quick: boolean;
  /** Of X3. */
  readonly agents: number;
  readonly tasks: number;
  /** Where a profile of the busiest process goes; empty: none is made. */
  readonly profile: string;
}

export interface Result {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  /** The peer's figure in the same run; undefined where there is no peer. */
  readonly peer: number | undefined;
  /** ours / peer: the median of the rounds' ratios. */
  readonly ratio: number | undefined;
  /** Between which lie the half of the rounds' ratios that are nearest to it. */
  readonly middleHalf?: readonly [number, number];
  /** As it is demanded, for example ">= 18000" or "<= 1.0x". */
  readonly gate: string;
  readonly pass: boolean;
}

export class Report {
  readonly #results: Result[] = [];
  readonly #forPeople: boolean;

  constructor(forPeople: boolean) {
    this.#forPeople = forPeople;
  }

  get passed(): boolean {
    return this.#results.every(({ pass }) => pass);
  }

  add(result: Result): void {
    this.#results.push(result);
    if (!this.#forPeople)
      console.log(JSON.stringify({ ...result, peer: result.peer ?? null, ratio: result.ratio ?? null }));
  }

  /** A measurement that cannot be taken here, and why; no gate is missed by it. */
  absent(name: string, reason: string): void {
    if (this.#forPeople) console.error(`${name}: not measured: ${reason}`);
    else console.log(JSON.stringify({ name, absent: reason }));
  }

  /** What goes on meanwhile: never among the results. */
  note(text: string): void {
    console.error(text);
  }

  end(): void {
    if (!this.#forPeople) return;
    const rows = this.#results.map((result) => [
      result.name,
      shortNumber(result.ours),
      result.peer === undefined ? "-" : shortNumber(result.peer),
      result.unit,
      ratioText(result),
      result.gate,
      result.pass ? "pass" : "MISSED",
    ]);
    const table = [["name", "ours", "peer", "unit", "ratio", "gate", ""], ...rows];
    const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
    for (const row of table)
      console.log(
        row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join("  ")
          .trimEnd(),
      );
  }
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** By the nearest rank. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

function ratioText({ ratio, middleHalf }: Result): string {
  if (ratio === undefined) return "-";
  return `${ratio.toFixed(2)}x${middleHalf === undefined ? "" : ` (${middleHalf.map((one) => one.toFixed(2)).join(" to ")})`}`;
}

function shortNumber(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}
