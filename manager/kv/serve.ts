/** Serves keys to callers on the wire: one request a call, many on a stream, changes as they come. */
import type { RpcServer, RpcStream } from "../../lib/rpc/index.ts";
import type { skep } from "../../proto/index.ts";
import type { ClusterSchema, Store, WatchEvent } from "../store/index.ts";
import { RequestInvalid, type Keys } from "./keys.ts";
import { streamMethod, unaryMethods, watchMethod } from "./methods.ts";

type Response = skep.control.IKvResponse;

/** Requests of one stream that may be without an answer; beyond, the stream is not read. */
const openMax = 8192;

export function serveKeys(server: RpcServer, keys: Keys, store: Store<ClusterSchema>): void {
  for (const method of unaryMethods) {
    server.unary(method, (request) => new Promise((resolve) => keys.handle(request, resolve)));
  }
  server.bidi(streamMethod, (stream) => {
    const answers = new Answers(stream);
    return {
      message: ({ requests }) => {
        for (const request of requests ?? []) {
          answers.open();
          keys.handle(request, (response) => answers.add(response));
        }
      },
      drain: () => answers.flush(),
      finished: () => answers.finish(),
      closed: () => {},
    };
  });
  server.bidi(watchMethod, (stream) => {
    const stop = new AbortController();
    let asked = false;
    return {
      message: (request) => {
        if (asked) throw new RequestInvalid("a watch takes one request");
        asked = true;
        // Its failure is the stream's end: the caller opens another one from the last index that it has seen.
        watch(store, request.since ?? 0, stream, stop.signal).then(
          () => stream.end(),
          () => stream.end(),
        );
      },
      finished: () => {},
      closed: () => stop.abort(),
    };
  });
}

/** Gathers the answers of a turn into one message. */
class Answers {
  readonly #stream: RpcStream<skep.control.IKvResponses>;
  #ready: Response[] = [];
  #open = 0;
  #scheduled = false;
  #paused = false;
  #finished = false;

  constructor(stream: RpcStream<skep.control.IKvResponses>) {
    this.#stream = stream;
  }

  open(): void {
    if (++this.#open < openMax || this.#paused) return;
    this.#paused = true;
    this.#stream.pause();
  }

  add(response: Response): void {
    this.#ready.push(response);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  flush(): void {
    if (this.#ready.length === 0 || this.#stream.closed) return;
    const responses = this.#ready;
    this.#ready = [];
    this.#open -= responses.length;
    this.#stream.write({ responses });
    if (this.#paused && this.#open < openMax / 2) {
      this.#paused = false;
      this.#stream.resume();
    }
    if (this.#finished && this.#open === 0) this.#stream.end();
  }

  /** The caller sends no more; what it asked is still answered. */
  finish(): void {
    this.#finished = true;
    if (this.#open === 0) this.#stream.end();
  }
}

async function watch(
  store: Store<ClusterSchema>,
  since: number,
  stream: RpcStream<skep.control.IWatchEvent>,
  signal: AbortSignal,
): Promise<void> {
  const options = { kinds: ["resource" as const], signal, ...(since > 0 ? { since } : {}) };
  // Leaving the loop closes the watch.
  for await (const event of store.watch(options)) {
    if (stream.closed) return;
    if (!stream.write(toWire(event))) await stream.drained(signal);
  }
}

function toWire(event: WatchEvent<ClusterSchema>): skep.control.IWatchEvent {
  if (event.kind === "view") {
    const items = [...event.view.list("resource")].map((object) => ({
      key: object.id,
      found: true,
      value: object.payload,
      version: object.meta?.version ?? 0,
    }));
    return { reset: true, index: event.view.index, items };
  }
  const items = event.changes.flatMap((change) => {
    if (change.kind !== "resource") return [];
    const { id, after, index } = change;
    return [{ key: id, found: after !== undefined, value: after?.payload ?? new Uint8Array(0), version: index }];
  });
  return { reset: false, index: event.index, items };
}
