/** Draws the progress of a service: bars that are redrawn on a terminal, one line for each change otherwise. */
import { characters } from "../output/human.ts";
import type { Session } from "../session.ts";

export interface Row {
  readonly name: string;
  readonly state: string;
  /** Why the task is not running; takes the place of the bar. */
  readonly error: string;
  readonly done: number;
  readonly of: number;
}

/** More rows than this would scroll; then only the summary is drawn. */
const rowsMax = 20;
const barWidth = 50;

export class ProgressDisplay {
  readonly #session: Session;
  readonly #quiet: boolean;
  readonly #onTerminal: boolean;
  #lines: readonly string[] = [];
  #summary = "";
  #rows: readonly Row[] = [];
  #notes = new Map<string, string>();
  /** Of each kind of line, what was said last: the summary and its notes come in turns. */
  readonly #said = new Map<string, string>();

  constructor(session: Session, quiet: boolean) {
    this.#session = session;
    this.#quiet = quiet;
    this.#onTerminal = session.stdout.isTTY === true;
  }

  show(summary: string, rows: readonly Row[]): void {
    this.#summary = summary;
    this.#rows = rows;
    this.#draw();
    if (!this.#onTerminal) this.#line("", summary);
  }

  /** A line below the bars; a later note of the same kind takes its place. */
  note(kind: string, message: string): void {
    this.#notes.set(kind, message);
    this.#draw();
    // The countdown is for people who watch.
    if (!this.#onTerminal) this.#line(kind, `${kind}: ${message.replace(/^Waiting \d+ seconds/, "Waiting")}`);
  }

  close(): void {
    this.#lines = [];
  }

  #line(kind: string, text: string): void {
    if (this.#quiet || text === this.#said.get(kind)) return;
    this.#said.set(kind, text);
    this.#session.print(text);
  }

  #draw(): void {
    if (this.#quiet || !this.#onTerminal) return;
    // A terminal that does not know says 0.
    const columns = this.#session.stdout.columns || 80;
    const rows = this.#rows.length > rowsMax ? [] : this.#rows;
    const lines = [
      this.#summary,
      ...rows.map(drawn),
      ...[...this.#notes].map(([kind, message]) => `${kind}: ${message}`),
    ].map((line) =>
      characters(line)
        .slice(0, columns - 1)
        .join(""),
    );
    if (lines.join("\n") === this.#lines.join("\n")) return;
    const up = this.#lines.length === 0 ? "" : `\x1b[${this.#lines.length}A`;
    this.#session.stdout.write(`${up}${lines.map((line) => `\x1b[2K${line}\n`).join("")}\x1b[J`);
    this.#lines = lines;
  }
}

function drawn({ name, state, error, done, of }: Row): string {
  if (error !== "") return `${name}: ${error}`;
  const filled = Math.round((done / of) * barWidth);
  const bar = `${"=".repeat(Math.max(0, filled - 1))}>`.padEnd(barWidth);
  return `${name}: ${state.padEnd(9)} [${bar}]`;
}
