/**
 * Changes happen on the leader: a manager that is asked for one makes it itself if it leads, and otherwise passes the
 * request on, one hop and no further. Used by every service of a manager that changes something.
 */
import { ClusterError } from "../lib/pure/errors.ts";
import type { CallContext, Channel, UnaryMethod } from "../lib/rpc/index.ts";
import { NoLeader } from "./control/index.ts";
import type { Leadership } from "./store/index.ts";

export interface LeaderCallsOptions {
  /** Resolves as soon as it is known who leads; rejects with the signal's reason. */
  readonly whenLeader: (signal: AbortSignal) => Promise<Leadership>;
  /** A channel to the manager at this address, which stays the manager's. */
  readonly channelTo: (address: string) => Channel;
}

/** A change waits so long at most, whatever its caller's patience. */
const changeMsMax = 10_000;
/** An election takes less than a second; who is not there after this does not come soon. */
const leaderMsMax = 3000;

export class LeaderCalls {
  readonly #options: LeaderCallsOptions;

  constructor(options: LeaderCallsOptions) {
    this.#options = options;
  }

  /**
   * @param act  makes the change here; its signal aborts when the caller has gone or has waited long enough
   * @throws NoLeader, and what `act` or the leader throws
   */
  async run<Request extends { forwarded?: boolean | null }, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    context: Pick<CallContext, "signal" | "timeoutMs">,
    act: (signal: AbortSignal) => Promise<Response>,
  ): Promise<Response> {
    const timeoutMs = Math.min(context.timeoutMs, changeMsMax);
    const signal = AbortSignal.any([context.signal, AbortSignal.timeout(timeoutMs)]);
    const { leading, leader } = await this.whenLeader(signal);
    const pass = (address: string): Promise<Response> =>
      this.#options.channelTo(address).call(method, { ...request, forwarded: true }, { timeoutMs, signal });
    if (!leading && leader !== undefined && request.forwarded !== true) return pass(leader);
    try {
      return await act(signal);
    } catch (error) {
      const elsewhere = (error as { leader?: string }).leader;
      if (error instanceof ClusterError && elsewhere !== undefined && request.forwarded !== true) {
        return pass(elsewhere);
      }
      throw error;
    }
  }

  /** To the manager that leads; undefined if it is this one. @throws NoLeader */
  async channel(signal: AbortSignal): Promise<Channel | undefined> {
    const { leading, leader } = await this.whenLeader(signal);
    return leading || leader === undefined ? undefined : this.#options.channelTo(leader);
  }

  /** @throws NoLeader when nobody leads for longer than an election takes */
  async whenLeader(signal: AbortSignal): Promise<Leadership> {
    const patience = AbortSignal.timeout(leaderMsMax);
    try {
      return await this.#options.whenLeader(AbortSignal.any([signal, patience]));
    } catch (error) {
      if (!signal.aborted && patience.aborted) throw new NoLeader(error);
      throw error;
    }
  }
}
