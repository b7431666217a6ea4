/**
 * One reader of task output: which tasks it wants, what their nodes were asked, what is still to come. Lines wait in a
 * bounded queue; when it is full the nodes are not read, and they stop reading their logs in turn.
 */
import { BoundedQueue } from "../../lib/runtime/index.ts";
import type { RpcStream, StreamEvents } from "../../lib/rpc/index.ts";
import type { skep } from "../../proto/index.ts";

type Request = skep.control.ILogsRequest;
type Message = skep.control.ILogsMessage;
type Upload = skep.dispatcher.LogUpload.$Properties;
type Subscription = skep.dispatcher.LogSubscription.$Properties;
type Duration = skep.objects.Duration.$Properties;

/** What a reading asks of the broker. */
export interface ReadingHost {
  /** @returns whether the node is connected */
  ask(nodeId: string, subscription: Subscription): boolean;
}

type UploadStream = Pick<RpcStream<skep.dispatcher.LogControl.$Properties>, "pause" | "resume" | "end" | "closed">;

const queuedBytesMax = 1024 * 1024;
const queuedMax = 256;

interface Wanted {
  readonly serviceId: string;
  readonly nodeId: string;
  /** It came while its output was read: all of it is new. */
  readonly isLate: boolean;
  state: "asked" | "absent" | "ended";
  /** Of the last line that came. */
  last: bigint | undefined;
}

export class LogReading {
  readonly id: string;
  readonly #request: Request;
  readonly #host: ReadingHost;
  readonly #tasks = new Map<string, Wanted>();
  readonly #warned = new Set<string>();
  readonly #queue = new BoundedQueue<Message>({
    name: "task output",
    itemsMax: queuedMax,
    weightMax: queuedBytesMax,
    weigh: ({ lines }) => (lines ?? []).reduce((sum, { text }) => sum + 64 + (text?.length ?? 0), 0),
  });
  readonly #streams = new Set<UploadStream>();
  readonly #stop: AbortSignal;
  readonly #until: bigint | undefined;
  #closed = false;
  #areAllAdded = false;

  constructor(id: string, request: Request, host: ReadingHost, signal: AbortSignal) {
    this.id = id;
    this.#request = request;
    this.#host = host;
    this.#stop = signal;
    this.#until = nanosecondsOf(request.until);
  }

  messages(): AsyncIterable<Message> {
    return this.#queue.drain(this.#stop);
  }

  /** A task whose output is wanted; again is harmless. */
  add(task: Readonly<skep.objects.Task>): void {
    const { id, serviceId, nodeId } = task;
    if (this.#closed || nodeId === "" || this.#tasks.has(id)) return;
    const wanted: Wanted = {
      serviceId,
      nodeId,
      isLate: this.#areAllAdded,
      state: "asked",
      last: undefined,
    };
    this.#tasks.set(id, wanted);
    this.#ask(id, wanted);
  }

  /** Every task that is wanted by now has been named. */
  allAdded(): void {
    this.#areAllAdded = true;
    this.#endIfDone();
  }

  /** A node has come, or come again: it is asked for what has not come yet. */
  nodeStarted(nodeId: string): void {
    if (this.#closed) return;
    for (const [taskId, wanted] of this.#tasks)
      if (wanted.nodeId === nodeId && wanted.state === "absent") this.#ask(taskId, wanted);
  }

  nodeEnded(nodeId: string): void {
    if (this.#closed) return;
    for (const wanted of this.#tasks.values()) {
      if (wanted.nodeId !== nodeId || wanted.state !== "asked") continue;
      wanted.state = "absent";
      this.#warn(`node ${nodeId} is not reached any more: output of its tasks may be missing`);
    }
    this.#endIfDone();
  }

  taskRemoved(taskId: string): void {
    const wanted = this.#tasks.get(taskId);
    if (wanted === undefined || wanted.state === "ended") return;
    wanted.state = "ended";
    this.#endIfDone();
  }

  /** A node's stream for this reading. @returns what is to be called for it */
  upload(nodeId: string, stream: UploadStream): StreamEvents<Upload> {
    this.#streams.add(stream);
    return {
      message: (message) => {
        const wanted = this.#tasks.get(message.taskId ?? "");
        // A node speaks for its own tasks only.
        if (wanted === undefined || wanted.nodeId !== nodeId || this.#closed) return;
        const lines = this.#linesOf(message, wanted);
        if (lines.length > 0) this.#offer({ lines }, stream);
        if ((message.error ?? "") !== "")
          this.#warn(`output of task ${message.taskId} cannot be read: ${message.error?.slice(0, 1024)}`);
        if (message.ended !== true) return;
        wanted.state = "ended";
        this.#endIfDone();
      },
      finished: () => stream.end(),
      closed: () => this.#streams.delete(stream),
    };
  }

  /** Nothing more can come, and why. What has come can still be read. */
  end(why: string): void {
    this.#warn(why);
    this.#queue.close();
  }

  /** Nobody reads any more: the nodes are told. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue.close();
    const nodes = new Set([...this.#tasks.values()].map(({ nodeId }) => nodeId));
    for (const nodeId of nodes) this.#host.ask(nodeId, { id: this.id, close: true });
    for (const stream of this.#streams) stream.end();
  }

  #ask(taskId: string, wanted: Wanted): void {
    const { stdout, stderr, follow, tail, since } = this.#request;
    const { last, isLate } = wanted;
    const from: skep.dispatcher.LogTask.$Properties =
      last === undefined
        ? { taskId, since: since ?? null, ...(tail == null || isLate ? {} : { tail }) }
        : { taskId, since: durationOf(last + 1n) };
    const options = { stdout: stdout ?? false, stderr: stderr ?? false, follow: follow ?? false };
    const isThere = this.#host.ask(wanted.nodeId, { id: this.id, tasks: [from], options });
    wanted.state = isThere ? "asked" : "absent";
    if (!isThere) this.#warn(`node ${wanted.nodeId} is not reached: output of its tasks is missing`);
  }

  #linesOf({ taskId, lines }: Upload, wanted: Wanted): skep.control.ILogLine[] {
    const { serviceId, nodeId } = wanted;
    return (lines ?? []).flatMap(({ stderr, time, text }) => {
      const at = nanosecondsOf(time) ?? 0n;
      wanted.last = at;
      if (this.#until !== undefined && at > this.#until) return [];
      const stream = stderr === true ? 2 : 1;
      return [{ serviceId, taskId: taskId ?? "", nodeId, stream, time: time ?? null, text: text ?? new Uint8Array() }];
    });
  }

  #offer(message: Message, from: UploadStream): void {
    if (this.#queue.closed || this.#queue.offer(message)) return;
    from.pause();
    this.#queue.push(message, this.#stop).then(
      () => from.resume(),
      () => {
        // Nobody reads any more; close() says so.
      },
    );
  }

  #warn(text: string): void {
    if (this.#warned.has(text) || this.#closed || this.#queue.closed) return;
    this.#warned.add(text);
    // Dropped when the reader is far behind: it is only a hint.
    this.#queue.offer({ warnings: [text] });
  }

  /** Without `follow`, and for single tasks, there is an end. */
  #endIfDone(): void {
    if (this.#closed) return;
    const follows = this.#request.follow === true;
    if (follows && (this.#request.services ?? []).length > 0) return;
    for (const { state } of this.#tasks.values()) if (state === "asked" || (follows && state === "absent")) return;
    this.#queue.close();
  }
}

const perSecond = 1_000_000_000n;

function nanosecondsOf(time: Duration | null | undefined): bigint | undefined {
  if (time === null || time === undefined) return undefined;
  return BigInt(time.seconds ?? 0) * perSecond + BigInt(time.nanos ?? 0);
}

function durationOf(ns: bigint): Duration {
  return { seconds: Number(ns / perSecond), nanos: Number(ns % perSecond) };
}
