/**
 * The manager of this node, as a process of its own and not root: started, watched, started again. It ends with this
 * process, whatever becomes of it, since its standard input closes then.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";

import { Backoff } from "../lib/pure/backoff.ts";
import { ClusterError } from "../lib/pure/errors.ts";
import type { Random } from "../lib/pure/prng.ts";
import { withStreams, type Clock, type Logger, type Timer } from "../lib/runtime/index.ts";

/**
 * How Node keeps a manager's memory. V8 gives back next to nothing of what it once took (what is free stays in a pool, and the
 * collection that would empty that waits for ever in a process that only beats), so what counts is the peak.
 * - The young generation: by itself it grows to 134 MB on a machine of 24 GB, and a scavenge stops the process the longer.
 * - The old one is collected when it is so much larger than what was alive the last time; by itself up to four times as large.
 */
export const managerNodeOptions = ["--max-semi-space-size=16", "--heap-growing-percent=75"] as const;

/** libc keeps what is free apart for each of a dozen threads (mallopt(3)), of which two allocate. Saves 3 MB. */
export const managerEnvironment: Readonly<Record<string, string>> = { MALLOC_ARENA_MAX: "2" };

export interface ManagerChildOptions {
  /** Program and first arguments: node with its options and manager/main.ts, or the bundle. */
  readonly command: readonly [string, ...string[]];
  readonly args: readonly string[];
  /** Handed over on its standard input, each time that it is started. */
  readonly secrets: () => Readonly<Record<string, unknown>>;
  /** Whom it runs as; absent: as this process. */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** It serves, for the first time or again. */
  readonly onServing: () => void;
  /** The cluster wants the node's key locked with this, or with nothing; `reload` tells that it is. */
  readonly onLock: (unlockKey: string | undefined) => void;
  /** The log has the same lock as the node's key. */
  readonly onLockSettled: () => void;
  /** The certificate was out of date, and it goes on with this one, for the same key. */
  readonly onRenewed: (material: { readonly certificatePem: string; readonly rootsPem: string }) => void;
  /** Its log cannot be opened with the unlock key that it was given, or without one. It is not started again. */
  readonly onLocked: () => void;
  /** The cluster does not want it any more; it ended by itself and is not started again. */
  readonly onRemoved: () => void;
}

export type ChildState =
  | { readonly kind: "starting"; readonly failure: ManagerFailed | undefined }
  | { readonly kind: "serving" }
  | { readonly kind: "stopped" };

/** What the manager said of why it cannot start or go on. */
export class ManagerFailed extends ClusterError {
  readonly code = "MANAGER_FAILED";
  /** Of docs/errors.md, as the manager told it. */
  readonly managerCode: string;
  constructor(managerCode: string, message: string, fix: string | undefined) {
    super(message, fix === undefined ? {} : { fix });
    this.managerCode = managerCode;
  }
}

const seeLog = "Look at the daemon's log";
/** What the manager says when somebody has to bring the unlock key. */
const lockedCodes: ReadonlySet<string> = new Set([
  "STORAGE_LOCKED",
  "KEY_WRONG",
  "NODE_KEY_LOCKED",
  "UNLOCK_KEY_WRONG",
]);
const inUseCode = "RAFT_FOLDER_IN_USE";
/** With the waits between them about six seconds. */
const inUseMax = 6;
const patienceMs = 15_000;
const backoffMs = { minMs: 100, maxMs: 10_000 };
/** One that ran so long has a fresh start with the next. */
const soundMs = 30_000;

export class ManagerChild implements AsyncDisposable {
  readonly #options: ManagerChildOptions;
  readonly #backoff: Backoff;
  #child: ChildProcess | undefined;
  #state: ChildState = { kind: "starting", failure: undefined };
  #startedAtMs = 0;
  /** How often in a row another process had the data folder. */
  #inUse = 0;
  #retry: Timer | undefined;
  #stopping = false;
  #ended: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #waiters = new Set<() => void>();

  constructor(options: ManagerChildOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.random, backoffMs);
  }

  get state(): ChildState {
    return this.#state;
  }

  start(): void {
    this.#spawn();
  }

  /** Resolves when it serves. @throws ManagerFailed when it says that it cannot, or the signal's reason */
  async serving(signal: AbortSignal): Promise<void> {
    for (;;) {
      const state = this.#state;
      if (state.kind === "serving") return;
      if (state.kind === "stopped") throw new ManagerFailed("STOPPED", "The manager was stopped", undefined);
      if (state.failure !== undefined) throw state.failure;
      await this.#changed(signal);
    }
  }

  /** Resolves when it serves or was stopped, however often it has to be started for that. @throws the signal's reason */
  async settled(signal: AbortSignal): Promise<void> {
    while (this.#state.kind === "starting") await this.#changed(signal);
  }

  /** It reads its certificate anew. */
  reload(): void {
    this.#child?.kill("SIGHUP");
  }

  /** Asks it to end, which hands leadership over, and insists after a while. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    this.#retry?.cancel();
    if (this.#child === undefined) this.#become({ kind: "stopped" });
    if (this.#state.kind === "stopped") return;
    this.#child?.kill("SIGTERM");
    const insist = this.#options.clock.after(patienceMs, () => this.#child?.kill("SIGKILL"));
    await this.#ended.promise;
    insist.cancel();
  }

  #spawn(): void {
    const { command, args, secrets, user, clock, logger } = this.#options;
    const [program, ...first] = command;
    this.#startedAtMs = clock.monotonicMs();
    this.#ended = Promise.withResolvers();
    let child: ChildProcess;
    try {
      child = withStreams(
        spawn(program, [...first, ...args, "--secrets-stdin"], {
          stdio: ["pipe", "pipe", "inherit"],
          env: { ...managerEnvironment, ...process.env },
          ...(user === undefined ? {} : user),
        }),
      );
    } catch (error) {
      // Out of descriptors or memory, for now.
      this.#gone(undefined, null, notStarted(error as Error));
      return;
    }
    this.#child = child;
    // A child that ends at once breaks the pipe; its exit tells.
    child.stdin?.on("error", () => undefined);
    child.stdin?.write(`${JSON.stringify(secrets())}\n`);
    let failure: ManagerFailed | undefined;
    if (child.stdout !== null) {
      createInterface({ input: child.stdout }).on("line", (line) => {
        const said = parse(line);
        if (said?.serving !== undefined) {
          this.#become({ kind: "serving" });
          this.#options.onServing();
        }
        if (said?.failed !== undefined) failure = said.failed;
        if (said?.lock !== undefined) this.#options.onLock(said.lock ?? undefined);
        if (said?.lockSettled === true) this.#options.onLockSettled();
        if (said?.renewed !== undefined) this.#options.onRenewed(said.renewed);
      });
    }
    child.once("error", (error) => {
      failure = notStarted(error);
      if (child.pid === undefined) this.#gone(child, null, failure);
    });
    // "close" comes when its output has been read to the end, too.
    child.once("close", (code) => this.#gone(child, code, failure));
    logger.info("manager started", { pid: child.pid });
  }

  #gone(child: ChildProcess | undefined, code: number | null, failure: ManagerFailed | undefined): void {
    if (child !== this.#child) return;
    this.#child = undefined;
    const { clock, logger } = this.#options;
    if (this.#stopping) {
      this.#become({ kind: "stopped" });
      this.#ended.resolve();
      return;
    }
    if (code === 0) {
      this.#become({ kind: "stopped" });
      this.#ended.resolve();
      this.#options.onRemoved();
      return;
    }
    if (failure !== undefined && lockedCodes.has(failure.managerCode)) {
      this.#become({ kind: "starting", failure });
      this.#ended.resolve();
      this.#stopping = true;
      this.#options.onLocked();
      return;
    }
    if (clock.monotonicMs() - this.#startedAtMs > soundMs) this.#backoff.reset();
    // The manager of a daemon that was killed ends by itself, a moment after it.
    this.#inUse = failure?.managerCode === inUseCode ? this.#inUse + 1 : 0;
    const passes = this.#inUse > 0 && this.#inUse <= inUseMax;
    const waitMs = this.#backoff.next();
    logger.error("the manager ended; it is started again", { exitCode: code, waitMs, code: failure?.managerCode });
    // Whatever it was, it will be the same the next time.
    const hopeless =
      code === 1 || code === 2
        ? new ManagerFailed("", `The manager cannot start (exit code ${code})`, seeLog)
        : undefined;
    this.#become({ kind: "starting", failure: passes ? undefined : (failure ?? hopeless) });
    this.#retry = clock.after(waitMs, () => this.#spawn());
  }

  #become(state: ChildState): void {
    this.#state = state;
    for (const waiter of this.#waiters) waiter();
  }

  #changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (): void => {
        this.#waiters.delete(done);
        signal.removeEventListener("abort", done);
        if (signal.aborted) reject(signal.reason as Error);
        else resolve();
      };
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      this.#waiters.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}

/** Runs a command of the manager's program to its end. @throws ManagerFailed */
export function runManagerCommand(
  options: Pick<ManagerChildOptions, "command" | "args" | "user"> & {
    readonly secrets: Readonly<Record<string, unknown>>;
  },
  signal: AbortSignal,
): Promise<void> {
  const { command, args, secrets, user } = options;
  const [program, ...first] = command;
  return new Promise((resolve, reject) => {
    const child = withStreams(
      spawn(program, [...first, ...args, "--secrets-stdin"], {
        stdio: ["pipe", "pipe", "inherit"],
        signal,
        ...(user === undefined ? {} : user),
      }),
    );
    child.stdin.on("error", () => undefined);
    child.stdin.end(`${JSON.stringify(secrets)}\n`);
    let failure: ManagerFailed | undefined;
    createInterface({ input: child.stdout }).on("line", (line) => (failure = parse(line)?.failed ?? failure));
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) resolve();
      else
        reject(failure ?? new ManagerFailed("MANAGER_FAILED", `The manager's command ended with ${code}`, undefined));
    });
  });
}

const notStarted = ({ message }: Error): ManagerFailed =>
  new ManagerFailed("MANAGER_NOT_STARTED", `The manager cannot be started: ${message}`, undefined);

interface Said {
  readonly serving?: number;
  readonly failed?: ManagerFailed;
  readonly lock?: string | null;
  readonly lockSettled?: boolean;
  readonly renewed?: { readonly certificatePem: string; readonly rootsPem: string };
}

function parse(line: string): Said | undefined {
  try {
    const { serving, failed, lock, lockSettled, renewed } = JSON.parse(line) as Omit<Said, "failed"> & {
      failed?: { code: string; message: string; fix?: string };
    };
    return {
      ...(serving === undefined ? {} : { serving }),
      ...(lock === undefined ? {} : { lock }),
      ...(lockSettled === undefined ? {} : { lockSettled }),
      ...(renewed === undefined ? {} : { renewed }),
      ...(failed === undefined ? {} : { failed: new ManagerFailed(failed.code, failed.message, failed.fix) }),
    };
  } catch {
    return undefined;
  }
}
