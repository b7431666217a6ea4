/** Running the native programs: the monitor, the OCI runtime's verbs, the archive program. */
import { spawn } from "node:child_process";
import { PassThrough, type Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";

import { withStreams } from "../../lib/runtime/index.ts";

/** More than this of a program's standard error says nothing new. */
const errorTextMax = 16 * 1024;
const outputMax = 4 << 20;

export interface ProgramResult {
  /** null: ended by a signal. */
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs a program to its end and gathers what it printed, bounded. */
export function runProgram(
  command: string,
  args: readonly string[],
  options: { readonly input?: string | Buffer; readonly signal?: AbortSignal; readonly timeoutMs?: number } = {},
): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    const child = withStreams(
      spawn(command, args, {
        stdio: ["pipe", "pipe", "pipe"],
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        timeout: options.timeoutMs ?? 120_000,
        killSignal: "SIGKILL",
      }),
    );
    const out: Buffer[] = [];
    let outBytes = 0;
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      outBytes += chunk.length;
      if (outBytes > outputMax) child.kill("SIGKILL");
      else out.push(chunk);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      if (stderr.length < errorTextMax) stderr += chunk.toString("utf8");
    });
    child.stdin.on("error", () => undefined); // it may end without reading; its exit code says whether that matters
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout: Buffer.concat(out), stderr }));
    child.stdin.end(options.input ?? "");
  });
}

export interface StreamedProgram {
  readonly stdin: Writable;
  /** Whole or broken: it ends only after the program did, with exit code 0, and else fails with the error of `done`. */
  readonly stdout: Readable;
  /** Resolves when the program has ended well; rejects with the typed failure, or when it could not be started. */
  readonly done: Promise<void>;
  kill(): void;
}

/**
 * Runs a program whose input or output is a stream of any length.
 * @param failure  the error for a program that ended with another code than 0, from what it wrote to standard error
 * @throws         Node's error where no descriptors or no memory are left to start it
 */
export function streamProgram(
  command: string,
  args: readonly string[],
  failure: (stderr: string) => Error,
): StreamedProgram {
  const child = withStreams(spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] }));
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => {
    if (stderr.length < errorTextMax) stderr += chunk.toString("utf8");
  });
  child.stdin.on("error", () => undefined); // as above
  // A stream of ours: when a process ends, Node.js throws away what nobody has begun to read of its own (flushStdio).
  const stdout = new PassThrough();
  stdout.on("error", () => undefined); // `done` tells it too, to whoever does not read
  // A reader that leaves closes the pipe, and the program ends of it.
  const drained = pipeline(child.stdout, stdout, { end: false }).catch(() => undefined);
  const done = new Promise<void>((resolve, reject) => {
    child.on("error", reject);
    const errorsRead = new Promise<void>((read) => child.stderr.on("close", () => setImmediate(read)));
    // Not "close", which would wait for whoever reads the output.
    child.on("exit", (code, signal) => {
      void errorsRead.then(() => {
        if (code === 0) resolve();
        else reject(failure(signal === null ? stderr : `${stderr}it was ended by ${signal}`));
      });
    });
  });
  done.then(
    () => void drained.then(() => stdout.end()),
    (error: Error) => stdout.destroy(error),
  );
  return { stdin: child.stdin, stdout, done, kill: () => child.kill("SIGKILL") };
}

/** A runtime's log line is JSON with `msg`; anything else is taken as it is. */
export function runtimeMessage(line: string): string {
  try {
    const parsed = JSON.parse(line) as { msg?: unknown };
    return typeof parsed.msg === "string" ? parsed.msg : line;
  } catch {
    return line; // not JSON: a message of the monitor's own
  }
}
