/** What a command may touch: streams, environment, the daemon. Tests hand in their own. */
import type { Readable, Writable } from "node:stream";
import type { Api } from "./api/client.ts";

export interface Output extends Writable {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
}

export interface Input extends Readable {
  readonly isTTY?: boolean;
  setRawMode?(on: boolean): unknown;
}

export interface Session {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
  /** The folder of contexts and settings. */
  readonly configFolder: string;
  /** The context named by `--context`, or undefined. */
  readonly contextFlag: string | undefined;
  /** Aborted by Ctrl-C, unless a command has taken the signal over. */
  readonly interrupted: AbortSignal;
  /** Hands SIGINT, SIGTERM and the like to `handler` until the returned function is called. */
  onSignals(signals: readonly NodeJS.Signals[], handler: (signal: NodeJS.Signals) => void): () => void;
  /** The daemon, with its API version agreed. */
  api(): Promise<Api>;
  print(line: string): void;
  warn(line: string): void;
}
