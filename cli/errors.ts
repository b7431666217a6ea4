/** How a command ends badly. */

/** A refusal of the command line, or a result that is a failure: printed as it is, then exit with `exitCode`. */
export class CommandError extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode = 1) {
    super(message);
    this.name = "CommandError";
    this.exitCode = exitCode;
  }
}

/** The daemon answered with an error status. */
export class ApiError extends Error {
  readonly status: number;
  /** The daemon's own words, without the prefix. */
  readonly reason: string;
  constructor(status: number, reason: string) {
    super(`Error response from daemon: ${reason}`);
    this.name = "ApiError";
    this.status = status;
    this.reason = reason;
  }
}

export const isNotFound = (error: unknown): boolean => error instanceof ApiError && error.status === 404;

/** Several failures of one command (of `rm a b c`), one a line. */
export function throwAll(errors: readonly unknown[], exitCode = 1): void {
  if (errors.length > 0) throw new CommandError(errors.map(messageOf).join("\n"), exitCode);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
