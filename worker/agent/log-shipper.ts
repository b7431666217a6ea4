/** Sends the output of tasks to a manager that asks for it, at the pace at which it is read there. */
import { ClusterError, isAbort } from "../../lib/pure/errors.ts";
import type { RpcStream } from "../../lib/rpc/index.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { logsMethod, type skep } from "../../proto/index.ts";
import type { TaskController, TaskLogLine } from "../executor/index.ts";
import type { AgentChannel } from "./session.ts";

type Upload = skep.dispatcher.LogUpload.$Properties;
type Duration = skep.objects.Duration.$Properties;

export interface ShipperHost {
  readonly clock: Clock;
  readonly logger: Logger;
  /**
   * The controller of a task that has output.
   * @param wait  until it has; otherwise undefined is answered when it has none now
   */
  started(taskId: string, wait: boolean, signal: AbortSignal): Promise<TaskController | undefined>;
}

interface Shipment {
  readonly stop: AbortController;
  readonly stream: RpcStream<Upload> & { abort(error: ClusterError | undefined): void };
  readonly tasks: Set<string>;
}

/** Of one message, roughly. */
const messageBytes = 32 * 1024;
/** Lines of one moment travel together. */
const gatherMs = 2;
const shipmentsMax = 256;

export class LogShipper {
  readonly #host: ShipperHost;
  readonly #shipments = new Map<string, Shipment>();

  constructor(host: ShipperHost) {
    this.#host = host;
  }

  take(subscription: skep.dispatcher.LogSubscription.$Properties, channel: AgentChannel): void {
    const id = subscription.id ?? "";
    if (subscription.close === true) return this.#end(id);
    let shipment = this.#shipments.get(id);
    if (shipment === undefined) {
      if (this.#shipments.size >= shipmentsMax) return;
      shipment = this.#open(id, channel);
      this.#shipments.set(id, shipment);
    }
    for (const { taskId, tail, since } of subscription.tasks ?? []) {
      if (taskId == null || shipment.tasks.has(taskId)) continue;
      shipment.tasks.add(taskId);
      const options = {
        stdout: subscription.options?.stdout ?? false,
        stderr: subscription.options?.stderr ?? false,
        follow: subscription.options?.follow ?? false,
        ...(tail == null ? {} : { tail }),
        ...(since == null ? {} : { sinceNs: nanosecondsOf(since) }),
      };
      this.#ship(shipment, taskId, options).catch((error: unknown) => {
        if (!isAbort(error)) this.#host.logger.warn("output of a task could not be sent", { taskId, error });
      });
    }
  }

  /** The session is over, and with it everything that was asked for in it. */
  endAll(): void {
    for (const id of this.#shipments.keys()) this.#end(id);
  }

  #open(id: string, channel: AgentChannel): Shipment {
    const stop = new AbortController();
    const stream = channel.open(logsMethod, {
      message: () => {},
      finished: () => this.#end(id),
      closed: () => this.#end(id),
    });
    stream.write({ subscriptionId: id });
    return { stop, stream, tasks: new Set() };
  }

  #end(id: string): void {
    const shipment = this.#shipments.get(id);
    if (shipment === undefined) return;
    this.#shipments.delete(id);
    shipment.stop.abort();
    shipment.stream.abort(undefined);
  }

  async #ship(
    { stop, stream }: Shipment,
    taskId: string,
    options: Parameters<TaskController["logs"]>[0],
  ): Promise<void> {
    const { signal } = stop;
    let error = "";
    try {
      const controller = await this.#host.started(taskId, options.follow, signal);
      let lines: skep.dispatcher.LogLine.$Properties[] = [];
      let bytes = 0;
      let flushing: Timer | undefined;
      const flush = (): boolean => {
        flushing?.cancel();
        flushing = undefined;
        if (lines.length === 0) return true;
        const message = { taskId, lines };
        lines = [];
        bytes = 0;
        return stream.write(message);
      };
      for await (const line of controller?.logs(options, signal) ?? []) {
        lines.push(wireOf(line));
        bytes += line.text.length + 32;
        if (bytes >= messageBytes) {
          if (!flush()) await stream.drained(signal);
        } else flushing ??= this.#host.clock.after(gatherMs, flush);
      }
      flush();
    } catch (failure) {
      if (signal.aborted) return;
      error = failure instanceof Error ? failure.message : String(failure);
      if (!(failure instanceof ClusterError))
        this.#host.logger.error("reading logs failed", { taskId, error: failure });
    }
    stream.write({ taskId, ended: true, error });
  }
}

const perSecond = 1_000_000_000n;

function wireOf({ stream, timeNs, text }: TaskLogLine): skep.dispatcher.LogLine.$Properties {
  const time = { seconds: Number(timeNs / perSecond), nanos: Number(timeNs % perSecond) };
  return { stderr: stream === "stderr", time, text };
}

function nanosecondsOf({ seconds, nanos }: Duration): bigint {
  return BigInt(seconds ?? 0) * perSecond + BigInt(nanos ?? 0);
}
