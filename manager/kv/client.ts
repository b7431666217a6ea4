/** A caller's end: requests of one turn travel in one message, and answers come back in any order. */
import { RpcUnavailable, type Channel, type RpcStream } from "../../lib/rpc/index.ts";
import type { ClusterError } from "../../lib/pure/errors.ts";
import type { skep } from "../../proto/index.ts";
import { failureOf } from "./keys.ts";
import { streamMethod } from "./methods.ts";

type Request = skep.control.IKvRequest;
type Response = skep.control.IKvResponse;

interface Open {
  readonly done: (response: Response) => void;
}

export class KeysClient implements Disposable {
  readonly #channel: Channel;
  #stream: (RpcStream<skep.control.IKvRequests> & { abort(error: ClusterError | undefined): void }) | undefined;
  readonly #open = new Map<number, Open>();
  #gathered: Request[] = [];
  #scheduled = false;
  #nextId = 1;
  #closed = false;

  /** @param channel  stays the caller's: closing the client leaves it open */
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** `done` runs once; a failure with code RPC_UNAVAILABLE after sending leaves open whether a change happened. */
  send(request: Request, done: (response: Response) => void): void {
    const id = this.#nextId++;
    this.#open.set(id, { done });
    this.#gathered.push({ ...request, id });
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#flush());
  }

  /** Opens the stream before there is anything to send, so that the first request does not wait for a handshake. */
  warm(): void {
    if (!this.#closed) this.#stream ??= this.#connect();
  }

  ask(request: Request): Promise<Response> {
    return new Promise((resolve) => this.send(request, resolve));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream?.abort(undefined);
    this.#broken(new RpcUnavailable(this.#channel.address, "this end closed the stream"));
  }

  #flush(): void {
    this.#scheduled = false;
    const requests = this.#gathered;
    this.#gathered = [];
    if (requests.length === 0) return;
    if (this.#closed) {
      this.#broken(new RpcUnavailable(this.#channel.address, "this end closed the stream"));
      return;
    }
    this.#stream ??= this.#connect();
    this.#stream.write({ requests });
  }

  #connect(): RpcStream<skep.control.IKvRequests> & { abort(error: ClusterError | undefined): void } {
    const stream = this.#channel.open(streamMethod, {
      message: ({ responses }) => {
        for (const response of responses ?? []) {
          const id = response.id ?? 0;
          const open = this.#open.get(id);
          this.#open.delete(id);
          open?.done(response);
        }
      },
      closed: (error) => {
        if (this.#stream === stream) this.#stream = undefined;
        this.#broken(error ?? new RpcUnavailable(this.#channel.address, "the other end closed the stream"));
      },
    });
    return stream;
  }

  #broken(error: ClusterError): void {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const { done } of open) done({ failure: failureOf(error) });
  }
}
