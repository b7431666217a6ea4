/**
 * An executor without containers, for tests and the simulator. A FakeHost is what a machine keeps when its daemon ends;
 * a FakeExecutor is one life of the daemon. What a task does is scripted.
 */
import { ClusterError } from "../../lib/pure/errors.ts";
import type { Clock, Timer } from "../../lib/runtime/index.ts";
import type { skep } from "../../proto/index.ts";
import type {
  Executor,
  ExitReport,
  Needs,
  TaskController,
  TaskLogLine,
  TaskLogOptions,
  Temporary,
} from "./contract.ts";

type Task = skep.objects.Task;
type Reason = skep.objects.Reason.$Properties;

/** What a task does. Times are milliseconds. */
export interface FakeBehaviour {
  readonly prepareMs?: number;
  /** Until it runs, or is healthy. */
  readonly startMs?: number;
  /** Ends by itself after so long. */
  readonly runMs?: number;
  readonly exitCode?: number;
  /** After the stop signal; a kill takes no time. */
  readonly stopMs?: number;
  /** Cannot be prepared. */
  readonly rejected?: boolean;
  /** Cannot be started. */
  readonly startFails?: boolean;
  /** It is the kernel that ends it, for want of memory. */
  readonly oomKilled?: boolean;
  /** The executor itself has a bug. */
  readonly breaks?: boolean;
  /** So often an act fails for a while first. */
  readonly temporaryFailures?: number;
  /** Lines that it writes when it starts. */
  readonly output?: readonly string[];
  /** Then one every so often, while it runs. */
  readonly outputEveryMs?: number;
}

export class FakeRefused extends ClusterError {
  readonly code = "REFUSED";
  constructor(what: string) {
    super(`Cannot run the task: ${what}`, { fix: "This is a test" });
  }
}

export class FakeBusy extends ClusterError implements Temporary {
  readonly code = "BUSY";
  readonly temporary = true;
  constructor() {
    super("Cannot run the task: the host is busy", { fix: "This is a test" });
  }
}

export interface FakeContainer {
  readonly task: Task;
  state: "prepared" | "starting" | "running" | "exited";
  exitCode: number;
  failuresLeft: number;
  readonly log: TaskLogLine[];
  timer: Timer | undefined;
  writer: Timer | undefined;
  /** Told of each change of state and each line. */
  readonly listeners: Set<() => void>;
}

export interface FakeHostOptions {
  readonly clock: Clock;
  readonly behaviour: (task: Task) => FakeBehaviour;
  readonly description: skep.objects.NodeDescription.$Properties;
  /** Of a task's way out; undefined: the machine does not know its block yet. Unset: it has no data plane. */
  readonly gatewayAddress?: (task: Task) => string | undefined;
  /** A container that runs gets its stop signal. */
  readonly onStop?: (task: Task) => void;
}

/** A machine: its containers go on without the daemon. */
export class FakeHost {
  readonly containers = new Map<string, FakeContainer>();
  readonly options: FakeHostOptions;
  /** Tasks whose program was ever started here; one that was started again is a broken promise. */
  readonly started = new Set<string>();
  readonly startedAgain = new Set<string>();
  description: skep.objects.NodeDescription.$Properties;

  constructor(options: FakeHostOptions) {
    this.options = options;
    this.description = options.description;
  }

  /** Power off and on: nothing runs any more, what was on disk is there. */
  reboot(): void {
    for (const container of this.containers.values()) {
      if (container.state === "running" || container.state === "starting") exited(container, 137);
    }
  }

  /** Stops every timer, so that a test can end. */
  stop(): void {
    for (const container of this.containers.values()) {
      container.timer?.cancel();
      container.writer?.cancel();
    }
  }
}

function exited(container: FakeContainer, exitCode: number): void {
  container.timer?.cancel();
  container.writer?.cancel();
  container.timer = undefined;
  container.writer = undefined;
  container.state = "exited";
  container.exitCode = exitCode;
  tell(container);
}

function tell(container: FakeContainer): void {
  for (const listener of Array.from(container.listeners)) listener();
}

export class FakeExecutor implements Executor {
  readonly #host: FakeHost;

  constructor(host: FakeHost) {
    this.#host = host;
  }

  describe(): Promise<skep.objects.NodeDescription.$Properties> {
    return Promise.resolve(this.#host.description);
  }

  held(): Promise<readonly string[]> {
    return Promise.resolve([...this.#host.containers.keys()]);
  }

  controller(task: Task, needs: Needs): TaskController {
    return new FakeController(task, needs, this.#host);
  }

  forget(taskId: string): Promise<void> {
    const container = this.#host.containers.get(taskId);
    if (container !== undefined) exited(container, 137);
    this.#host.containers.delete(taskId);
    return Promise.resolve();
  }
}

class FakeController implements TaskController {
  readonly #task: Task;
  readonly #needs: Needs;
  readonly #host: FakeHost;
  readonly #does: FakeBehaviour;

  constructor(task: Task, needs: Needs, host: FakeHost) {
    this.#task = task;
    this.#needs = needs;
    this.#host = host;
    this.#does = host.options.behaviour(task);
  }

  get #container(): FakeContainer | undefined {
    return this.#host.containers.get(this.#task.id);
  }

  update(): Promise<void> {
    return Promise.resolve();
  }

  async prepare(signal: AbortSignal, report: (reason: Reason) => void): Promise<void> {
    const image = this.#task.spec?.containerSpec?.image ?? "";
    report({ pulling: { image, bytesDone: 1, bytesTotal: 2 } });
    await this.#pause(this.#does.prepareMs ?? 0, signal);
    for (const { secretId } of this.#task.spec?.containerSpec?.secrets ?? [])
      if (this.#needs.secret(secretId ?? "") === undefined) throw new FakeRefused(`secret ${secretId} is not here`);
    for (const { configId } of this.#task.spec?.containerSpec?.configs ?? [])
      if (this.#needs.config(configId ?? "") === undefined) throw new FakeRefused(`config ${configId} is not here`);
    for (const { networkId } of this.#task.networksAttachments)
      if (this.#needs.network(networkId ?? "") === undefined) throw new FakeRefused(`network ${networkId} is not here`);
    if (this.#does.rejected === true) throw new FakeRefused("there is no such image");
    if (this.#container !== undefined) return;
    this.#host.containers.set(this.#task.id, {
      task: this.#task,
      state: "prepared",
      exitCode: 0,
      failuresLeft: this.#does.temporaryFailures ?? 0,
      log: [],
      timer: undefined,
      writer: undefined,
      listeners: new Set(),
    });
  }

  async start(signal: AbortSignal): Promise<void> {
    const container = this.#container;
    if (container === undefined) throw new FakeRefused("it was never prepared");
    if (container.failuresLeft > 0) {
      container.failuresLeft--;
      throw new FakeBusy();
    }
    const { gatewayAddress } = this.#host.options;
    if (gatewayAddress !== undefined && gatewayAddress(this.#task) === undefined) throw new FakeBusy();
    if (this.#does.breaks === true) throw new TypeError("a bug");
    if (this.#does.startFails === true) throw new FakeRefused("its program does not exist");
    if (container.state === "prepared") this.#launch(container);
    await this.#until(container, () => container.state !== "starting", signal);
  }

  /** The container goes on by itself from here, whoever listens. */
  #launch(container: FakeContainer): void {
    const { clock } = this.#host.options;
    const { startMs, runMs, exitCode, output, outputEveryMs } = this.#does;
    const { id } = this.#task;
    if (this.#host.started.has(id)) this.#host.startedAgain.add(id);
    this.#host.started.add(id);
    container.state = "starting";
    container.timer = clock.after(startMs ?? 0, () => {
      container.state = "running";
      container.timer = runMs === undefined ? undefined : clock.after(runMs, () => exited(container, exitCode ?? 0));
      tell(container);
    });
    const write = (text: string): void => {
      const timeNs = BigInt(Math.floor(clock.wallMs())) * 1_000_000n;
      container.log.push({ stream: "stdout", timeNs, text: Buffer.from(`${text}\n`) });
      tell(container);
    };
    for (const line of output ?? []) write(line);
    let count = 0;
    if (outputEveryMs !== undefined) container.writer = clock.every(outputEveryMs, () => write(`line ${++count}`));
  }

  async wait(signal: AbortSignal): Promise<ExitReport> {
    const container = this.#container;
    if (container === undefined) throw new FakeRefused("its container is gone");
    await this.#until(container, () => container.state === "exited", signal);
    return { exitCode: container.exitCode, oomKilled: this.#does.oomKilled === true };
  }

  async shutdown(signal: AbortSignal): Promise<void> {
    const container = this.#container;
    if (container === undefined || container.state === "exited") return;
    if (container.state !== "prepared") {
      if (container.state === "running") this.#host.options.onStop?.(this.#task);
      await this.#pause(this.#does.stopMs ?? 0, signal);
    }
    await this.terminate();
  }

  terminate(): Promise<void> {
    const container = this.#container;
    if (container !== undefined && container.state !== "exited") exited(container, 137);
    return Promise.resolve();
  }

  async remove(): Promise<void> {
    await this.terminate();
    this.#host.containers.delete(this.#task.id);
  }

  containerStatus(): skep.objects.ContainerStatus.$Properties | undefined {
    const container = this.#container;
    if (container === undefined) return undefined;
    const pid = container.state === "starting" || container.state === "running" ? 1 : 0;
    return { containerId: `fake-${this.#task.id}`, pid, exitCode: container.exitCode };
  }

  portStatus(): skep.objects.PortStatus.$Properties | undefined {
    return undefined;
  }

  networkStatus(): skep.objects.NetworkStatus.$Properties | undefined {
    const address = this.#host.options.gatewayAddress?.(this.#task);
    return address === undefined ? undefined : { gatewayAddresses: [address] };
  }

  async *logs(options: TaskLogOptions, signal: AbortSignal): AsyncIterable<TaskLogLine> {
    const container = this.#container;
    if (container === undefined) return;
    const since = options.sinceNs ?? 0n;
    let at = options.tail === undefined ? 0 : Math.max(0, container.log.length - options.tail);
    for (;;) {
      for (let line = container.log[at]; line !== undefined; line = container.log[++at]) {
        const isAsked = line.stream === "stdout" ? options.stdout : options.stderr;
        if (isAsked && line.timeNs >= since) yield line;
      }
      if (!options.follow || container.state === "exited") return;
      const length = at;
      await this.#until(container, () => container.log.length > length || container.state === "exited", signal);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#host.options;
    await new Promise<void>((resolve, reject) => {
      signal.throwIfAborted();
      const onAbort = (): void => {
        timer.cancel();
        reject(signal.reason as Error);
      };
      const timer = clock.after(ms, () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      });
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  async #until(container: FakeContainer, isSo: () => boolean, signal: AbortSignal): Promise<void> {
    if (isSo()) return;
    await new Promise<void>((resolve, reject) => {
      signal.throwIfAborted();
      const leave = (): void => {
        container.listeners.delete(look);
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = (): void => {
        leave();
        reject(signal.reason as Error);
      };
      const look = (): void => {
        if (!isSo()) return;
        leave();
        resolve();
      };
      container.listeners.add(look);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
