/** Progress of pull, push, load and import: JSON lines, redrawn by layer on a terminal. */
import { CommandError } from "../errors.ts";
import type { Session } from "../session.ts";
import { characters, decimalSize } from "./human.ts";

export interface ProgressLine {
  readonly status?: string;
  readonly stream?: string;
  readonly id?: string;
  readonly progressDetail?: { readonly current?: number; readonly total?: number };
  readonly error?: string;
  readonly errorDetail?: { readonly message?: string };
  readonly aux?: unknown;
}

/** @throws CommandError when a line tells of an error */
export async function printProgress(
  session: Session,
  lines: AsyncIterable<ProgressLine>,
  quiet = false,
  onAux?: (aux: unknown) => void,
): Promise<void> {
  const { stdout } = session;
  const rows = new Map<string, number>();
  for await (const line of lines) {
    const failure = line.errorDetail?.message ?? line.error;
    if (failure !== undefined) throw new CommandError(failure);
    if (line.aux !== undefined) {
      onAux?.(line.aux);
      continue;
    }
    if (line.stream !== undefined) {
      stdout.write(line.stream);
      continue;
    }
    if (quiet || line.status === undefined) continue;
    if (line.id === undefined || line.id === "") {
      // Rows above it stay as they are.
      rows.clear();
      session.print(line.status);
    } else if (stdout.isTTY === true) redraw(session, rows, line.id, `${line.id}: ${line.status}${amount(line)}`);
    else if (line.progressDetail?.current === undefined) session.print(`${line.id}: ${line.status}`);
  }
}

function redraw({ stdout }: Session, rows: Map<string, number>, id: string, text: string): void {
  let row = rows.get(id);
  if (row === undefined) {
    row = rows.size;
    rows.set(id, row);
    stdout.write("\n");
  }
  const up = rows.size - row;
  const shown = characters(text)
    .slice(0, (stdout.columns ?? 80) - 1)
    .join("");
  stdout.write(`\x1b[${up}A\x1b[2K\r${shown}\x1b[${up}B\r`);
}

function amount({ progressDetail: detail }: ProgressLine): string {
  if (detail?.current === undefined || detail.current === 0) return "";
  const total = detail.total === undefined || detail.total <= 0 ? "" : `/${decimalSize(detail.total)}`;
  return ` ${decimalSize(detail.current)}${total}`;
}
