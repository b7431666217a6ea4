/** What control needs of the rooms around it; manager.ts hands it over. */
import type { CallContext, Channel, UnaryMethod } from "../../lib/rpc/index.ts";
import type { skep } from "../../proto/index.ts";

export interface Leader {
  /** Makes the change here if this manager leads, or has the leader make it. @throws NO_LEADER */
  run<Request extends { forwarded?: boolean | null }, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    context: Pick<CallContext, "signal" | "timeoutMs">,
    act: (signal: AbortSignal) => Promise<Response>,
  ): Promise<Response>;
  /** To the manager that leads; undefined if it is this one. @throws NO_LEADER */
  channel(signal: AbortSignal): Promise<Channel | undefined>;
}

/** Output of tasks, from their nodes; only the leader has it, since it has the agents' streams. */
export interface LogSource {
  /**
   * @param request  with ids, not names
   * @param signal   ends it; without `follow` it ends by itself when every node has told what it has
   */
  read(request: skep.control.ILogsRequest, signal: AbortSignal): AsyncIterable<skep.control.ILogsMessage>;
}
