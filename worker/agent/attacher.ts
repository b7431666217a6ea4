/**
 * Places of this node's own containers (docker run) in attachable networks of the cluster. The managers make each one a
 * task of this node, so it gets addresses and records as every task does; the container itself is the caller's.
 */
import type { Clock, Timer } from "../../lib/runtime/index.ts";
import type { skep } from "../../proto/index.ts";
import { isAttachment } from "./attachment.ts";
import { TaskState } from "./core/index.ts";
import { AttachmentRefused } from "./errors.ts";
import type { Status, Task } from "./task-memory.ts";

export interface AttachRequest {
  readonly containerId: string;
  /** The container's: a name in the network. */
  readonly name: string;
  /** Id or name of the network. */
  readonly network: string;
  readonly aliases: readonly string[];
  /** Fixed ones; empty: one is chosen. */
  readonly addresses: readonly string[];
}

/** A place: the task that it is, and the network as this node needs to know it. */
export interface Attached {
  readonly taskId: string;
  readonly containerId: string;
  readonly network: skep.objects.Network;
  /** CIDR. */
  readonly addresses: readonly string[];
  readonly aliases: readonly string[];
}

export interface AttacherOptions {
  readonly clock: Clock;
  /** @returns false: no manager is reached */
  readonly send: (message: skep.dispatcher.AgentMessage.$Properties) => boolean;
  readonly tasks: () => readonly { readonly task: Task; readonly status: Status }[];
  readonly network: (id: string) => skep.objects.Network | undefined;
}

/** The managers do not know what became of the request: it is asked again, which finds it. */
const again = "ATTACH_AGAIN";
/** After the answer: why the place is not there yet. */
const waits = "ATTACH_WAITS";
const againMs = 200;

interface Waiting {
  readonly request: AttachRequest;
  /** Of the message under way; 0: none. */
  number: number;
  /** Of the one that was answered with a place. */
  answered: number;
  taskId: string;
  /** Why it is not there yet, as far as managers have said. */
  refusal: AttachmentRefused | undefined;
  readonly resolve: (attached: Attached) => void;
  readonly reject: (error: Error) => void;
}

export class Attacher {
  readonly #options: AttacherOptions;
  readonly #waiting = new Set<Waiting>();
  /** To be given up; said in each session until the managers have taken the task away. */
  readonly #leaving = new Set<string>();
  #number = 0;
  #timer: Timer | undefined;

  constructor(options: AttacherOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the container may be given the addresses: the data plane of this node knows its network. Asked again for
   * the same container and network, also after a restart, the answer is the same place.
   * @param signal  given up, what was got by then is given back
   * @throws AttachmentRefused, also for a place that was waited for in vain; the signal's reason
   */
  attach(request: AttachRequest, signal: AbortSignal): Promise<Attached> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      const leave = (): void => {
        this.#waiting.delete(waiting);
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = (): void => {
        leave();
        const isShared = [...this.#waiting].some(({ taskId }) => taskId === waiting.taskId);
        if (waiting.taskId !== "" && !isShared) this.detach(waiting.taskId);
        waiting.reject(waiting.refusal ?? (signal.reason as Error));
      };
      const waiting: Waiting = {
        request,
        number: 0,
        answered: 0,
        taskId: "",
        refusal: undefined,
        resolve: (attached) => {
          leave();
          resolve(attached);
        },
        reject: (error) => {
          leave();
          reject(error);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(waiting);
      this.#ask(waiting);
    });
  }

  /** The container is gone, or has left the network. Again is harmless. */
  detach(taskId: string): void {
    this.#leaving.add(taskId);
    this.#options.send({ detach: { taskId } });
  }

  /**
   * Every place that this node has, once a manager was reached in this life of the agent. Whoever finds one here whose
   * container is no more detaches it, since nobody else does.
   */
  get attached(): readonly Attached[] {
    return this.#options.tasks().flatMap(({ task, status }) => {
      const isHere = (status.state ?? 0) === TaskState.RUNNING && task.desiredState < TaskState.SHUTDOWN;
      const attached = isHere && !this.#leaving.has(task.id) ? this.#placeOf(task) : undefined;
      return attached === undefined ? [] : [attached];
    });
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  // -------------------------------------------------------------------------------------------------- the agent's calls

  /** A session has begun: whatever is not answered is asked again. */
  begin(): void {
    for (const taskId of this.#leaving) this.#options.send({ detach: { taskId } });
    for (const waiting of this.#waiting) if (waiting.taskId === "") this.#ask(waiting);
  }

  answered({ number, taskId, code, message, fix }: skep.dispatcher.AttachAnswer.$Properties): void {
    if (code === waits) {
      for (const waiting of this.#waiting)
        if (waiting.answered === number) waiting.refusal = new AttachmentRefused(message ?? "", fix ?? "");
      return;
    }
    const waiting = [...this.#waiting].find((each) => each.number !== 0 && each.number === number);
    if (waiting === undefined) {
      // Given up before the answer came.
      if ((taskId ?? "") !== "" && !this.#isWanted(taskId ?? "")) this.detach(taskId ?? "");
      return;
    }
    waiting.number = 0;
    if ((taskId ?? "") !== "") {
      waiting.answered = number ?? 0;
      waiting.taskId = taskId ?? "";
      this.#leaving.delete(waiting.taskId);
      this.look();
    } else if (code === again) this.#askLater();
    else waiting.reject(new AttachmentRefused(message ?? "", fix ?? ""));
  }

  /** Tasks have changed. */
  look(): void {
    if (this.#waiting.size === 0) return;
    const places = new Map(this.attached.map((attached) => [attached.taskId, attached]));
    for (const waiting of Array.from(this.#waiting)) {
      const attached = places.get(waiting.taskId);
      if (attached !== undefined) waiting.resolve(attached);
    }
  }

  /** Nothing is left of the task. A place that was taken away before it was there is asked for anew. */
  gone(taskId: string): void {
    this.#leaving.delete(taskId);
    for (const waiting of this.#waiting) {
      if (waiting.taskId !== taskId) continue;
      waiting.taskId = "";
      this.#ask(waiting);
    }
  }

  #isWanted(taskId: string): boolean {
    return this.#options.tasks().some(({ task }) => task.id === taskId);
  }

  #ask(waiting: Waiting): void {
    const { containerId, name, network, aliases, addresses } = waiting.request;
    const number = ++this.#number;
    const config = { target: network, aliases: [...aliases], addresses: [...addresses] };
    if (this.#options.send({ attach: { number, containerId, name, network: config } })) waiting.number = number;
  }

  #askLater(): void {
    this.#timer ??= this.#options.clock.after(againMs, () => {
      this.#timer = undefined;
      for (const waiting of this.#waiting) if (waiting.taskId === "" && waiting.number === 0) this.#ask(waiting);
    });
  }

  #placeOf(task: Task): Attached | undefined {
    const [attachment] = task.networksAttachments;
    const network = this.#options.network(attachment?.networkId ?? "");
    if (!isAttachment(task) || network === undefined) return undefined;
    return {
      taskId: task.id,
      containerId: task.spec?.networkAttachmentSpec?.containerId ?? "",
      network,
      addresses: attachment?.addresses ?? [],
      aliases: attachment?.aliases ?? [],
    };
  }
}
