/**
 * One task on this node, from its assignment until nothing is left of it. Asks the core what is next, has the executor do
 * it, and says what came of it. Whatever is under way is given up as soon as something else is wanted of the task.
 */
import { ClusterError, isAbort } from "../../lib/pure/errors.ts";
import { sleep, type Clock, type Logger } from "../../lib/runtime/index.ts";
import { isTemporary, type ExitReport, type TaskController } from "../executor/index.ts";
import type { skep } from "../../proto/index.ts";
import { desiredOf, failedState, messageOf, nextAct, reached, TaskState } from "./core/index.ts";
import { TaskActFailed, TaskExited, TaskOutOfMemory } from "./errors.ts";
import type { Status, Task } from "./task-memory.ts";

export interface RunnerHost {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Whether a manager has told, in this life, what tasks need. */
  informed(): boolean;
  /** Whether the data plane was told who is in the task's networks. */
  routed(taskId: string): boolean;
  controller(task: Task): TaskController;
  /** The task's status is another one now. @returns when it is remembered */
  report(taskId: string, status: Status): Promise<void>;
  /** Nothing is left of it. */
  gone(taskId: string): Promise<void>;
}

/** Swarm's: a temporary error is tried again after so long. */
const retryMs = 1000;
/** What does not go away (a mount, say) is tried less and less often. */
const removeRetryMaxMs = 30_000;

type Reason = skep.objects.Reason.$Properties;

export class TaskRunner {
  readonly #host: RunnerHost;
  #task: Task;
  #status: Status;
  #controller: TaskController | undefined;
  #dropped = false;
  #closed = false;
  /** Stops the act under way. */
  #interrupt = new AbortController();
  /** A stop that is under way is not begun again: its grace period would begin again, too. */
  #stopping = false;
  #wake: (() => void) | undefined;
  readonly #done: Promise<void>;

  /** @param status  where it stands: of the assignment, or remembered */
  constructor(task: Task, status: Status, host: RunnerHost) {
    this.#host = host;
    this.#task = task;
    this.#status = status;
    this.#done = this.#run();
  }

  get task(): Task {
    return this.#task;
  }

  get status(): Status {
    return this.#status;
  }

  /** For those who only look: nothing is done with the task by it. */
  reader(): TaskController {
    return this.#ready();
  }

  /** The assignment has changed: what it desires, or its networks. */
  setTask(task: Task): void {
    const before = desiredOf(this.#task);
    this.#task = task;
    this.#controller?.update(task).catch((error: unknown) => this.#warn("update", error));
    const desired = desiredOf(task);
    if (desired !== before && desired >= TaskState.SHUTDOWN && !this.#stopping) this.#interrupt.abort();
    this.#wake?.();
  }

  /** The node does not have it any more: it is stopped, and what is here of it removed. */
  drop(): void {
    if (this.#dropped) return;
    this.#dropped = true;
    if (!this.#stopping) this.#interrupt.abort();
    this.#wake?.();
  }

  /** What it needs is told, or the data plane knows its networks: it may go on. */
  lookAgain(): void {
    this.#wake?.();
  }

  /** Leaves the task as it is. @returns when nothing is done with it any more */
  close(): Promise<void> {
    this.#closed = true;
    this.#interrupt.abort();
    this.#wake?.();
    return this.#done;
  }

  get #observed(): TaskState {
    return this.#status.state ?? TaskState.NEW;
  }

  async #run(): Promise<void> {
    // Not inside the call that made it.
    await Promise.resolve();
    let retries = 0;
    while (!this.#closed) {
      const act = nextAct({
        observed: this.#observed,
        desired: desiredOf(this.#task),
        dropped: this.#dropped,
        informed: this.#host.informed(),
        routed: this.#host.routed(this.#task.id),
      });
      if (act.kind === "hold") {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        continue;
      }
      if (act.kind === "move") {
        await this.#move(act.state);
        continue;
      }
      // Only what was said before counts as an interruption of this act: a second word may come while it goes on.
      this.#interrupt = new AbortController();
      const { signal } = this.#interrupt;
      this.#stopping = act.kind === "stop" || act.kind === "remove";
      try {
        if (act.kind === "wait") await this.#ended(await this.#ready().wait(signal));
        else if (act.kind === "stop") await this.#stop(retries, signal);
        else if (act.kind === "remove") {
          await this.#ready().remove(signal);
          await this.#host.gone(this.#task.id);
          return;
        } else {
          const report = (reason: Reason): void => this.#progress(reason);
          await (act.kind === "prepare" ? this.#ready().prepare(signal, report) : this.#ready().start(signal, report));
          // What ended while the signal came is judged anew.
          await this.#move(reached(act.kind));
        }
        retries = 0;
      } catch (error) {
        if (this.#closed) return;
        if (signal.aborted && (isAbort(error) || error === signal.reason)) continue;
        retries++;
        await this.#failed(act.kind, error, retries);
      }
    }
  }

  /** A stop that fails is not taken for a stop: the task may run. It is killed then, again and again. */
  async #stop(retries: number, signal: AbortSignal): Promise<void> {
    const controller = this.#ready();
    if (retries === 0) await controller.shutdown(signal);
    else await controller.terminate(signal);
    await this.#move(reached("stop"));
  }

  async #ended({ exitCode, oomKilled, error, reason }: ExitReport): Promise<void> {
    if (exitCode === 0 && error === undefined) return await this.#move(TaskState.COMPLETE, { exitCode });
    const why = error ?? (oomKilled ? new TaskOutOfMemory(exitCode) : new TaskExited(exitCode));
    await this.#move(TaskState.FAILED, {
      exitCode,
      err: why.message,
      reason: reason ?? this.#reason(why, exitCode, oomKilled),
    });
  }

  async #failed(act: string, error: unknown, retries: number): Promise<void> {
    const why = error instanceof ClusterError ? error : new TaskActFailed(act, error);
    if (!(error instanceof ClusterError)) this.#warn(act, error);
    const again = act === "stop" || act === "remove" || isTemporary(error);
    if (!again) {
      const state = failedState(this.#observed);
      return await this.#move(state, { err: why.message, reason: this.#reason(why, 0, false) });
    }
    if (act === "remove") this.#warn(act, error);
    else await this.#say({ ...this.#status, err: why.message, reason: this.#reason(why, 0, false) });
    const waitMs = act === "remove" ? Math.min(removeRetryMaxMs, retryMs * 2 ** Math.min(retries - 1, 5)) : retryMs;
    await sleep(this.#host.clock, waitMs, this.#interrupt.signal).catch(() => {
      // Something else is wanted of the task now.
    });
  }

  async #move(
    state: TaskState,
    more: { readonly err?: string; readonly reason?: Reason; readonly exitCode?: number } = {},
  ): Promise<void> {
    if (state <= this.#observed) return;
    const container = this.#controller?.containerStatus();
    const { exitCode } = more;
    const remembered = this.#say({
      state,
      timestampUs: this.#nowUs,
      message: messageOf(state) === "" ? (this.#status.message ?? "") : messageOf(state),
      err: more.err ?? "",
      reason: more.reason ?? null,
      containerStatus:
        container === undefined ? null : { ...container, ...(exitCode === undefined ? {} : { exitCode }) },
      portStatus: this.#controller?.portStatus() ?? null,
      networkStatus: this.#controller?.networkStatus() ?? null,
    });
    // What comes before may be done again after a crash, and is found done: only a start must not be forgotten.
    if (state >= TaskState.STARTING) await remembered;
  }

  #progress(reason: Reason): void {
    if (this.#closed || this.#observed > TaskState.RUNNING) return;
    const status = { ...this.#status, timestampUs: this.#nowUs, reason };
    this.#say(status).catch((error: unknown) => this.#warn("report", error));
  }

  /** @returns when it is remembered */
  #say(status: Status): Promise<void> {
    this.#status = status;
    return this.#host.report(this.#task.id, status);
  }

  #ready(): TaskController {
    this.#controller ??= this.#host.controller(this.#task);
    return this.#controller;
  }

  #reason(error: ClusterError, exitCode: number, oomKilled: boolean): Reason {
    const { code, message, fix } = error;
    return { sinceUs: this.#nowUs, failure: { code, detail: message, fix: fix ?? "", exitCode, oomKilled } };
  }

  get #nowUs(): number {
    return Math.floor(this.#host.clock.wallMs() * 1000);
  }

  #warn(act: string, error: unknown): void {
    if (isAbort(error)) return;
    this.#host.logger.warn("an act on a task failed", { act, taskId: this.#task.id, error });
  }
}
