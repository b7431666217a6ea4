/** The streams of one channel that have not ended: they end with it. */
import type { ClusterError } from "../pure/errors.ts";
import type { StreamEvents } from "./stream.ts";

interface Abortable {
  abort(error: ClusterError | undefined): void;
}

export class OpenStreams {
  readonly #streams = new Set<Abortable>();

  /** @param make  is given what the stream has to tell its events to: it is forgotten when it has closed */
  add<In, Opened extends Abortable>(events: StreamEvents<In>, make: (watched: StreamEvents<In>) => Opened): Opened {
    const stream = make({
      message: (message) => events.message(message),
      drain: () => events.drain?.(),
      finished: () => events.finished?.(),
      closed: (error) => {
        this.#streams.delete(stream);
        events.closed(error);
      },
    });
    this.#streams.add(stream);
    return stream;
  }

  abort(error: ClusterError): void {
    for (const stream of this.#streams) stream.abort(error);
  }
}
