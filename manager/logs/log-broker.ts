/** All readers of task output on this manager: watches for tasks that they want, and knows which nodes are connected. */
import type { RpcServer, RpcStream, StreamEvents } from "../../lib/rpc/index.ts";
import { logsMethod, type skep } from "../../proto/index.ts";
import type { ClusterSchema, Store, Watch } from "../store/index.ts";
import { LogStreamUnknown } from "./errors.ts";
import { LogReading } from "./log-reading.ts";

/** The sessions of agents, as the broker needs them. */
export interface AgentSessions {
  subscribeLogs(nodeId: string, subscription: skep.dispatcher.LogSubscription.$Properties): boolean;
  onSessions(listener: { started(nodeId: string): void; ended(nodeId: string): void }): () => void;
}

export interface LogBrokerOptions {
  readonly store: Store<ClusterSchema>;
  readonly sessions: AgentSessions;
  /** Names subscriptions; nobody may guess one. */
  readonly newId: () => string;
}

type Request = skep.control.ILogsRequest;
type Message = skep.control.ILogsMessage;
type Upload = skep.dispatcher.LogUpload.$Properties;
type UploadStream = RpcStream<skep.dispatcher.LogControl.$Properties>;

export class LogBroker {
  readonly #options: LogBrokerOptions;
  readonly #readings = new Map<string, LogReading>();

  constructor(options: LogBrokerOptions) {
    this.#options = options;
    // Whoever leads next has the streams; who reads asks again.
    options.store.onLeadership(({ leading }) => {
      if (!leading) for (const reading of this.#readings.values()) reading.end("this manager does not lead any more");
    });
    options.sessions.onSessions({
      started: (nodeId) => this.#readings.forEach((reading) => reading.nodeStarted(nodeId)),
      ended: (nodeId) => this.#readings.forEach((reading) => reading.nodeEnded(nodeId)),
    });
  }

  get readers(): number {
    return this.#readings.size;
  }

  /**
   * The output of these tasks, and of all tasks of these services, from their nodes. Only the leader can do that, since
   * it has the agents' streams; when it does not lead any more, that is said and the reading ends.
   * @param request  with ids, not names
   * @param signal   ends it; without `follow` it ends by itself when every node has told what it has
   */
  async *read(request: Request, signal: AbortSignal): AsyncGenerator<Message, void> {
    const { store, newId, sessions } = this.#options;
    const stop = new AbortController();
    const leave = (): void => stop.abort(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave, { once: true });
    const host = { ask: sessions.subscribeLogs.bind(sessions) };
    const reading = new LogReading(newId(), request, host, stop.signal);
    this.#readings.set(reading.id, reading);
    const services = new Set(request.services ?? []);
    const tasks = new Set(request.tasks ?? []);
    const watch = store.watch({
      kinds: ["task"],
      signal: stop.signal,
      filter: ({ kind, id, after, before }) =>
        kind === "task" && (tasks.has(id) || services.has((after ?? before)?.serviceId ?? "")),
    });
    try {
      follow(watch, reading, services, tasks);
      yield* reading.messages();
    } finally {
      this.#readings.delete(reading.id);
      reading.close();
      watch.close();
      stop.abort();
      signal.removeEventListener("abort", leave);
    }
  }

  /** A node's stream. @returns what is to be called for it */
  connect(stream: UploadStream, nodeId: string): StreamEvents<Upload> {
    let events: StreamEvents<Upload> | undefined;
    return {
      message: (message) => {
        if (events === undefined) {
          const reading = this.#readings.get(message.subscriptionId ?? "");
          // Its reader has left while the node was on its way.
          if (reading === undefined) throw new LogStreamUnknown(nodeId);
          events = reading.upload(nodeId, stream);
        }
        events.message(message);
      },
      finished: () => stream.end(),
      closed: (error) => events?.closed(error),
    };
  }
}

/** What is there, then what comes. */
function follow(
  watch: Watch<ClusterSchema>,
  reading: LogReading,
  services: ReadonlySet<string>,
  tasks: ReadonlySet<string>,
): void {
  watch.whenReady(() => {
    if (watch.closed) return;
    for (let event = watch.poll(); event !== undefined; event = watch.poll()) {
      if (event.kind === "view") {
        for (const id of services) for (const task of event.view.find("task", "service", id)) reading.add(task);
        for (const id of tasks) {
          const task = event.view.get("task", id);
          if (task !== undefined) reading.add(task);
        }
        reading.allAdded();
      } else
        for (const change of event.changes) {
          if (change.kind !== "task") continue;
          if (change.after === undefined) reading.taskRemoved(change.id);
          else reading.add(change.after);
        }
    }
    follow(watch, reading, services, tasks);
  });
}

export function serveLogs(server: RpcServer, broker: LogBroker): void {
  server.bidi(logsMethod, (stream, { peer }) => broker.connect(stream, peer?.identity.nodeId ?? ""));
}
