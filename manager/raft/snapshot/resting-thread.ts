/**
 * The snapshots' thread while it is needed. A thread costs some 8 MB, and hours may lie between two snapshots: when nothing
 * is open and nothing was asked for a while it ends, and the next request starts another one, which finds everything in the
 * files. It verifies the newest snapshot again then, before it answers.
 */
import { EventEmitter } from "node:events";
import type { Worker } from "node:worker_threads";
import type { DataKey } from "../keys/index.ts";
import type { Act, Opened } from "./desk.ts";
import type { SnapshotReport, SnapshotRequestMessage, SnapshotWorkerData } from "./snapshot-worker.ts";

/** Long enough that a member that is brought up to date, or writes one snapshot after the other, keeps its thread. */
const restAfterMs = 20_000;

const opening: ReadonlySet<Act> = new Set<Act>(["begin", "openReader", "openReceiver"]);
const closing: ReadonlySet<Act> = new Set<Act>(["finish", "abort", "closeReader", "finishReceive", "suspend"]);

/** What it needs of a worker thread, for tests. */
export type Thread = Pick<Worker, "postMessage" | "on" | "once" | "terminate">;

/** Events as those of a Worker: "message", "error", and "exit" when it has ended for good. */
export class RestingThread extends EventEmitter {
  readonly #make: (data: SnapshotWorkerData) => Thread;
  #data: SnapshotWorkerData;
  #thread: Thread | undefined;
  /** Asked and not answered. */
  readonly #pending = new Map<number, Act>();
  /** Writers, readers and receivers, by their handles. */
  readonly #open = new Set<number>();
  /** Received, and known to this thread only until they are installed. */
  #arrived = 0;
  #hasOpened = false;
  #isOver = false;
  #rest: NodeJS.Timeout | undefined;

  constructor(data: SnapshotWorkerData, make: (data: SnapshotWorkerData) => Thread) {
    super();
    this.#data = data;
    this.#make = make;
    this.#start();
  }

  postMessage(message: SnapshotRequestMessage, transfer: readonly ArrayBuffer[] = []): void {
    const { id, act, argument } = message;
    clearTimeout(this.#rest);
    this.#pending.set(id, act);
    if (closing.has(act)) this.#open.delete((argument as Opened).handle);
    // The next thread has to know it, too.
    if (act === "useKey") this.#learn(argument as DataKey);
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    (this.#thread ?? this.#start()).postMessage(message, transfer);
  }

  async terminate(): Promise<void> {
    clearTimeout(this.#rest);
    const thread = this.#thread;
    if (thread === undefined) this.#end();
    else await thread.terminate();
  }

  #start(): Thread {
    const thread = this.#make(this.#data);
    this.#thread = thread;
    thread.on("message", (report: SnapshotReport) => this.#take(report));
    thread.on("error", (error) => this.emit("error", error));
    thread.once("exit", () => {
      if (this.#thread === thread) this.#end();
    });
    return thread;
  }

  #take(report: SnapshotReport): void {
    if (report.kind === "opened") {
      if (this.#hasOpened) return;
      this.#hasOpened = true;
    }
    if (report.kind === "answer" || report.kind === "refused") this.#settle(report);
    this.emit("message", report);
    if (this.#pending.size > 0 || this.#open.size > 0 || this.#arrived > 0 || this.#isOver) return;
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => {
      const thread = this.#thread;
      this.#thread = undefined;
      void thread?.terminate();
    }, restAfterMs);
    this.#rest.unref();
  }

  #settle(report: Extract<SnapshotReport, { kind: "answer" | "refused" }>): void {
    const act = this.#pending.get(report.id);
    this.#pending.delete(report.id);
    if (report.kind === "refused" || act === undefined) return;
    if (opening.has(act)) this.#open.add((report.answer as Opened).handle);
    if (act === "finishReceive") this.#arrived++;
    // Of two that arrived the older one is not wanted any more.
    if (act === "install") this.#arrived = 0;
  }

  #learn(key: DataKey): void {
    const keys = [...this.#data.keys.filter(({ id }) => id !== key.id), key];
    this.#data = { ...this.#data, keys, activeId: key.id };
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#thread = undefined;
    clearTimeout(this.#rest);
    this.emit("exit");
  }
}
