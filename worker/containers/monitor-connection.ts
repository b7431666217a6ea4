/** One connection to a container's monitor, over its stream socket. Answers go to who asked; the rest is a stream of events. */
import { open } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";

import { decodeAnswer, encodeRequest, MessageSplitter, type CtlAnswer, type CtlRequest } from "./core/ctl-messages.ts";
import { MonitorFailed } from "./errors.ts";

/** Bytes of events that are held for a slow consumer; beyond that the socket is not read, and the monitor lets us lag. */
const queueBytesMax = 1 << 20;
/** unix(7): sun_path has 108 bytes with its NUL. */
const socketPathMax = 107;

export type MonitorEvent = Extract<CtlAnswer, { type: "data" | "end" | "execData" | "execExit" | "oom" | "exit" }>;
type Reply = Exclude<CtlAnswer, MonitorEvent> | Extract<CtlAnswer, { type: "oom" }>;

interface Asked {
  readonly resolve: (answer: Reply) => void;
  readonly reject: (error: Error) => void;
}

export class MonitorConnection implements Disposable {
  readonly #socket: Socket;
  readonly #splitter = new MessageSplitter();
  readonly #asked = new Map<number, Asked>();
  readonly #events: MonitorEvent[] = [];
  #eventBytes = 0;
  #wake: (() => void) | undefined;
  #tag = 0;
  #over: Error | undefined;
  readonly closed: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => this.#receive(chunk));
    socket.on("error", (error) => this.#end(error));
    this.closed = new Promise((resolve) => {
      socket.on("close", () => {
        this.#end(new Error("the connection was closed"));
        resolve();
      });
    });
  }

  /** Rejects with the error of connect(2): ENOENT and ECONNREFUSED mean that no monitor lives there. */
  static async open(stateDirectory: string): Promise<MonitorConnection> {
    const path = join(stateDirectory, "stream");
    if (Buffer.byteLength(path) <= socketPathMax) return new MonitorConnection(await dial(path));
    // A long path is reached through a descriptor of its directory.
    const directory = await open(stateDirectory, "r");
    try {
      return new MonitorConnection(await dial(`/proc/self/fd/${directory.fd}/stream`));
    } finally {
      await directory.close();
    }
  }

  /** Asks and waits for the answer. Throws MonitorFailed with what the monitor says, or when it is gone. */
  async request<T extends Reply["type"]>(request: CtlRequest, wanted: T): Promise<Extract<Reply, { type: T }>> {
    const answer = await new Promise<Reply>((resolve, reject) => {
      if (this.#over !== undefined) {
        reject(this.#over);
        return;
      }
      const tag = this.#nextTag();
      this.#asked.set(tag, { resolve, reject });
      this.#socket.write(encodeRequest(request, tag));
    }).catch((error: unknown) => {
      throw new MonitorFailed(request.type, error instanceof Error ? error.message : String(error), error);
    });
    if (answer.type === "error") throw new MonitorFailed(request.type, answer.text);
    if (answer.type !== wanted) throw new MonitorFailed(request.type, `an answer of the wrong kind (${answer.type})`);
    return answer as Extract<Reply, { type: T }>;
  }

  /** Sends what has no answer, or one that comes as an event. Resolves when the socket has room for more. */
  async send(request: CtlRequest): Promise<void> {
    if (this.#over !== undefined) throw new MonitorFailed(request.type, this.#over.message, this.#over);
    if (this.#socket.write(encodeRequest(request, this.#nextTag()))) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#socket.off("drain", done);
        this.#socket.off("close", done);
        resolve();
      };
      this.#socket.on("drain", done);
      this.#socket.on("close", done);
    });
  }

  /** Events in order, until the connection ends. One consumer. */
  async *events(): AsyncGenerator<MonitorEvent, void, undefined> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) {
        this.#eventBytes -= sizeOf(event);
        if (this.#eventBytes < queueBytesMax) this.#socket.resume();
        yield event;
      } else if (this.#over !== undefined) {
        return;
      } else {
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #nextTag(): number {
    this.#tag = (this.#tag + 1) & 0xffff;
    return this.#tag;
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#splitter.push(chunk)) this.#route(decodeAnswer(message));
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(String(error)));
      this.#socket.destroy();
    }
  }

  #route(answer: CtlAnswer): void {
    const asked = this.#asked.get(answer.tag);
    switch (answer.type) {
      case "data":
      case "end":
      case "execData":
      case "execExit":
      case "exit":
        this.#queue(answer);
        return;
      case "oom":
        if (asked === undefined) {
          this.#queue(answer);
          return;
        }
        break;
      case "ok":
      case "error":
      case "hello":
      case "attached":
      case "execOk":
      case "text":
        break;
      case "unknown":
        return;
    }
    this.#asked.delete(answer.tag);
    asked?.resolve(answer);
  }

  #queue(event: MonitorEvent): void {
    this.#events.push(event);
    this.#eventBytes += sizeOf(event);
    if (this.#eventBytes >= queueBytesMax) this.#socket.pause();
    this.#wake?.();
    this.#wake = undefined;
  }

  #end(error: Error): void {
    this.#over ??= error;
    for (const asked of this.#asked.values()) asked.reject(this.#over);
    this.#asked.clear();
    this.#wake?.();
    this.#wake = undefined;
  }
}

function sizeOf(event: MonitorEvent): number {
  return event.type === "data" || event.type === "execData" ? event.bytes.length + 64 : 64;
}

function dial(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}
