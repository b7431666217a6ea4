/**
 * Lists: a table by default, ids with `-q`, or what `--format` asks for. A list is described by its columns; the default
 * table, a custom table's headers and the JSON form all come from them.
 */
import { stringifyJson } from "../api/json.ts";
import type { Session } from "../session.ts";
import { characters } from "./human.ts";
import { compileTemplate } from "./template.ts";

/** By the name that templates use: the header and the cell. */
export type Columns<T> = Readonly<Record<string, readonly [header: string, cell: (row: T) => string | boolean]>>;

export interface ListOptions<T> {
  readonly columns: Columns<T>;
  /** Names of the columns of the default table. */
  readonly shown: readonly string[];
  /** The one that `-q` prints. */
  readonly id: string;
  readonly format?: string | undefined;
  readonly quiet?: boolean | undefined;
}

export function printList<T>(session: Session, rows: readonly T[], options: ListOptions<T>): void {
  const { columns, shown, id, quiet = false } = options;
  const format = options.format ?? "";
  const cells = (row: T): Record<string, string | boolean> =>
    Object.fromEntries(
      Object.entries(columns)
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, [, cell]]) => [name, cell(row)]),
    );
  if (format === "json") {
    for (const row of rows) session.print(stringifyJson(cells(row)));
    return;
  }
  const asTable = format === "" || format === "table" || format.startsWith("table ");
  if (quiet && asTable) {
    for (const row of rows) session.print(String(columns[id]?.[1](row) ?? ""));
    return;
  }
  if (asTable) {
    const body = format.slice("table".length).trim();
    const template = compileTemplate(
      body === "" ? shown.map((name) => `{{.${name}}}`).join("\t") : unescape(body),
      true,
    );
    const headers = Object.fromEntries(Object.entries(columns).map(([name, [header]]) => [name, header]));
    session.stdout.write(table([template(headers), ...rows.map((row) => template(cells(row)))]));
    return;
  }
  const template = compileTemplate(unescape(format), true);
  for (const row of rows) session.print(template(cells(row)));
}

/** `inspect`: JSON, or each object through a template. */
export function printFound(session: Session, objects: readonly unknown[], format: string | undefined): void {
  if (format === "json") session.print(stringifyJson(objects));
  else printObjects(session, objects, format);
}

/** Of one thing, whose form in JSON is no list. */
export function printObjects(session: Session, objects: readonly unknown[], format: string | undefined): void {
  if (format === undefined || format === "") {
    session.print(objects.length === 0 ? "[]" : stringifyJson(objects, 4));
    return;
  }
  const template = compileTemplate(format === "json" ? "{{json .}}" : unescape(format));
  for (const object of objects) session.print(template(object));
}

/** A shell passes `\t` and `\n` as they stand. */
export const unescape = (format: string): string => format.replaceAll("\\t", "\t").replaceAll("\\n", "\n");

/**
 * Lines whose cells are parted by tabs, aligned as Go's tabwriter does with a least width of 10 and 3 blanks between.
 * A cell's own line breaks start a new line.
 */
export function table(lines: readonly string[]): string {
  const rows = lines.flatMap((line) => line.split("\n")).map((line) => line.split("\t"));
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.slice(0, -1).entries()) {
      widths[at] = Math.max(widths[at] ?? 10, characters(cell).length + 3);
    }
  }
  return rows
    .map((row) =>
      row
        .map((cell, at) =>
          at === row.length - 1 ? cell : cell + " ".repeat((widths[at] ?? 0) - characters(cell).length),
        )
        .join(""),
    )
    .map((line) => `${line}\n`)
    .join("");
}
