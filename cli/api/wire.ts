/**
 * HTTP/1.1 to a daemon over a plain connection, as much of it as the Engine API's answers take. Node's own client costs 15 ms
 * of processor to load and use, which is a third of what a short command needs besides starting Node (docs/benchmarks.md).
 */
import { connect, type Socket } from "node:net";
import { Readable } from "node:stream";
import { CommandError } from "../errors.ts";

/** What is asked. The body goes whole. */
export interface WireRequest {
  readonly method: string;
  /** With its query; without spaces or what is not ASCII. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
  readonly signal: AbortSignal | undefined;
}

/** An answer whose head has come; its body is read as it comes. IncomingMessage of node:http is one, too. */
export interface Answer extends Readable {
  readonly statusCode?: number | undefined;
  readonly statusMessage?: string | undefined;
  /** By names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** The connection is the caller's now: the daemon has agreed to another protocol. */
interface Upgraded {
  readonly socket: Socket;
  /** What came behind the answer's head. */
  readonly rest: Buffer;
}

type Address = { readonly socketPath: string } | { readonly host: string; readonly port: number };

const headBytesMax = 64 * 1024;
/** Connections that rest: a command has no more than three requests under way. */
const idleMax = 3;
/** A chunk's length in hexadecimal, and its extensions. */
const chunkLineMax = 256;

/** Connections to one daemon; one that has carried an answer to its end carries the next. */
export class Wire {
  readonly #address: Address;
  readonly #sockets = new Set<Socket>();
  /** The one that rests for longest is taken first. */
  readonly #idle: { readonly socket: Socket; readonly take: () => void }[] = [];

  constructor(address: Address) {
    this.#address = address;
  }

  /** @throws the error of the connection; AbortError */
  ask(request: WireRequest): Promise<Answer> {
    return this.#send(request).then((found) => {
      if (found instanceof WireAnswer) return found;
      found.socket.destroy();
      throw broken("Parse Error: an upgrade that was not asked for");
    });
  }

  /** @returns the upgraded connection, or the answer of a daemon that does not agree */
  upgrade(request: WireRequest): Promise<Upgraded | Answer> {
    return this.#send(request);
  }

  /** So many requests will be under way at once: their connections are opened now. */
  expect(count: number): void {
    for (let at = this.#idle.length; at < Math.min(count, idleMax); at++) this.#rest(this.#connect());
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #send(request: WireRequest): Promise<Upgraded | WireAnswer> {
    const text = textOf(request);
    return new Promise((resolve, reject) => {
      const { signal } = request;
      signal?.throwIfAborted();
      const socket = this.#socket();
      const exchange = new Exchange(socket, request.method === "HEAD", {
        answered: resolve,
        failed: reject,
        done: (isKept) => {
          signal?.removeEventListener("abort", abort);
          if (isKept) this.#rest(socket);
          else if (!exchange.isUpgraded) socket.destroy();
        },
      });
      const abort = (): void => exchange.fail(signal?.reason as Error);
      signal?.addEventListener("abort", abort, { once: true });
      socket.write(text);
    });
  }

  #socket(): Socket {
    const idle = this.#idle.shift();
    if (idle === undefined) return this.#connect();
    idle.take();
    return idle.socket;
  }

  #connect(): Socket {
    const socket = "socketPath" in this.#address ? connect(this.#address.socketPath) : connect(this.#address);
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    // Who asks hears of it; what breaks when nobody does is told to nobody.
    socket.on("error", () => undefined);
    return socket;
  }

  /** Until the next request; nothing is waited for meanwhile. */
  #rest(socket: Socket): void {
    if (this.#idle.length >= idleMax || socket.destroyed) {
      socket.destroy();
      return;
    }
    // The daemon lets go of it, or says what nobody has asked for.
    const events = ["end", "close", "data"] as const;
    const drop = (): void => {
      const at = this.#idle.findIndex((idle) => idle.socket === socket);
      if (at >= 0) this.#idle.splice(at, 1);
      socket.destroy();
    };
    const take = (): void => {
      for (const event of events) socket.off(event, drop);
      socket.ref();
    };
    this.#idle.push({ socket, take });
    for (const event of events) socket.on(event, drop);
    socket.unref();
    socket.resume();
  }
}

interface Hearer {
  answered(found: Upgraded | WireAnswer): void;
  failed(error: Error): void;
  /** @param isKept  the connection can carry another request */
  done(isKept: boolean): void;
}

/** One request and its answer on one connection. */
class Exchange {
  readonly #socket: Socket;
  readonly #hearer: Hearer;
  readonly #hasNoBody: boolean;
  #head: Buffer = Buffer.alloc(0);
  #coming: { readonly answer: WireAnswer; readonly body: Body } | undefined;
  #keeps = true;
  #isOver = false;
  isUpgraded = false;

  constructor(socket: Socket, hasNoBody: boolean, hearer: Hearer) {
    this.#socket = socket;
    this.#hasNoBody = hasNoBody;
    this.#hearer = hearer;
    socket.on("data", this.#take);
    socket.on("error", this.fail);
    socket.on("end", this.#ended);
    socket.on("close", this.#ended);
    socket.resume();
  }

  readonly fail = (error: Error): void => {
    if (this.#isOver) return;
    this.#leave(false);
    if (this.#coming === undefined) this.#hearer.failed(error);
    else this.#coming.answer.destroy(error);
  };

  /** The daemon says no more. */
  readonly #ended = (): void => {
    if (this.#isOver) return;
    if (this.#coming?.body.endsWithConnection !== true)
      return this.fail(broken(this.#coming === undefined ? "socket hang up" : "aborted"));
    this.#leave(false);
    this.#coming.answer.push(null);
  };

  readonly #take = (chunk: Buffer): void => {
    try {
      if (this.#coming === undefined) this.#takeHead(chunk);
      else this.#takeBody(this.#coming, chunk);
    } catch (error) {
      this.fail(error as Error);
    }
  };

  #takeHead(chunk: Buffer): void {
    this.#head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
    const end = this.#head.indexOf("\r\n\r\n");
    if (end > headBytesMax || (end < 0 && this.#head.length > headBytesMax))
      throw broken("Parse Error: Header overflow");
    if (end < 0) return;
    const head = parseHead(this.#head.toString("latin1", 0, end));
    const { statusCode, headers } = head;
    const rest = this.#head.subarray(end + 4);
    this.#head = Buffer.alloc(0);
    if (statusCode === 101) {
      this.isUpgraded = true;
      this.#leave(false);
      this.#hearer.answered({ socket: this.#socket, rest });
      return;
    }
    // Interim: the answer is still to come.
    if (statusCode < 200) {
      if (rest.length > 0) this.#takeHead(rest);
      return;
    }
    this.#keeps = !head.isOld && headers["connection"]?.toLowerCase() !== "close";
    const body = bodyOf(statusCode, headers, this.#hasNoBody);
    const answer = new WireAnswer(head, {
      wanted: () => {
        if (!this.#isOver) this.#socket.resume();
      },
      left: () => {
        if (!this.#isOver) this.#leave(false);
      },
    });
    this.#coming = { answer, body };
    this.#hearer.answered(answer);
    this.#takeBody(this.#coming, rest);
  }

  #takeBody({ answer, body }: { readonly answer: WireAnswer; readonly body: Body }, chunk: Buffer): void {
    const { parts, isWhole, isFollowed } = body.take(chunk);
    let hasRoom = true;
    for (const part of parts) hasRoom = answer.push(part);
    if (isWhole) {
      // What nobody has asked for may go on in the middle of the next answer.
      this.#leave(this.#keeps && !isFollowed);
      answer.push(null);
    } else if (!hasRoom) this.#socket.pause();
  }

  #leave(isKept: boolean): void {
    this.#isOver = true;
    this.#socket.off("data", this.#take);
    this.#socket.off("error", this.fail);
    this.#socket.off("end", this.#ended);
    this.#socket.off("close", this.#ended);
    if (this.isUpgraded) this.#socket.pause();
    this.#hearer.done(isKept);
  }
}

interface BodyReader {
  readonly wanted: () => void;
  readonly left: () => void;
}

class WireAnswer extends Readable implements Answer {
  readonly statusCode: number;
  readonly statusMessage: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly #reader: BodyReader;

  constructor({ statusCode, statusMessage, headers }: Head, reader: BodyReader) {
    super();
    this.statusCode = statusCode;
    this.statusMessage = statusMessage;
    this.headers = headers;
    this.#reader = reader;
    // It may break before anybody reads it. Whoever does then hears of it, and nobody else has to.
    this.on("error", () => undefined);
  }

  override _read(): void {
    this.#reader.wanted();
  }

  /** Whoever does not want the rest of it does not want its connection. */
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#reader.left();
    done(error);
  }
}

// ------------------------------------------------------------------------------------------------------------------- text

function textOf({ method, path, headers, body }: WireRequest): string {
  // A space or a line's end in them would be another request.
  if (/[^\x21-\x7e]/.test(path)) throw new CommandError(`the path ${JSON.stringify(path)} cannot be asked for`);
  const lines = [`${method} ${path} HTTP/1.1`];
  for (const [name, value] of Object.entries(headers)) {
    if (/[\r\n\0]/.test(value)) throw new CommandError(`the header ${name} has a line's end in it`);
    lines.push(`${name}: ${value}`);
  }
  if (headers["Connection"] === undefined) lines.push("Connection: keep-alive");
  if (body !== undefined || method === "POST" || method === "PUT")
    lines.push(`Content-Length: ${Buffer.byteLength(body ?? "")}`);
  return `${lines.join("\r\n")}\r\n\r\n${body ?? ""}`;
}

interface Head {
  readonly statusCode: number;
  readonly statusMessage: string;
  readonly headers: Readonly<Record<string, string>>;
  /** HTTP/1.0: the connection ends with the answer. */
  readonly isOld: boolean;
}

function parseHead(text: string): Head {
  const [first = "", ...lines] = text.split("\r\n");
  const match = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: (.*))?$/.exec(first);
  if (match === null) throw broken("Parse Error: Expected HTTP/1.1");
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    if (colon <= 0) throw broken("Parse Error: Invalid header");
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  return { statusCode: Number(match[2]), statusMessage: match[3] ?? "", headers, isOld: match[1] === "0" };
}

/** How much of what comes belongs to an answer (RFC 9112 §6.3). */
interface Body {
  readonly endsWithConnection: boolean;
  take(chunk: Buffer): Taken;
}

interface Taken {
  readonly parts: readonly Buffer[];
  readonly isWhole: boolean;
  /** More than the answer has come. */
  readonly isFollowed: boolean;
}

function bodyOf(statusCode: number, headers: Readonly<Record<string, string>>, hasNone: boolean): Body {
  if (hasNone || statusCode === 204 || statusCode === 304) return counted(0);
  const coding = headers["transfer-encoding"]?.toLowerCase();
  if (coding === "chunked") return new Chunks();
  const length = headers["content-length"];
  if (coding === undefined && length !== undefined) {
    if (!/^\d{1,15}$/.test(length)) throw broken("Parse Error: Invalid Content-Length");
    return counted(Number(length));
  }
  return { endsWithConnection: true, take: (chunk) => ({ parts: some(chunk), isWhole: false, isFollowed: false }) };
}

function counted(bytes: number): Body {
  let left = bytes;
  return {
    endsWithConnection: false,
    take: (chunk) => {
      const part = chunk.subarray(0, left);
      left -= part.length;
      return { parts: some(part), isWhole: left === 0, isFollowed: part.length < chunk.length };
    },
  };
}

const some = (part: Buffer): readonly Buffer[] => (part.length > 0 ? [part] : []);

/** RFC 9112 §7.1. */
class Chunks implements Body {
  readonly endsWithConnection = false;
  /** Of the chunk that is coming. */
  #left = 0;
  /** A line that is not whole yet. */
  #line = "";
  #state: "length" | "data" | "end of data" | "trailer" = "length";

  take(chunk: Buffer): Taken {
    const parts: Buffer[] = [];
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#state === "data") {
        const part = rest.subarray(0, this.#left);
        rest = rest.subarray(part.length);
        this.#left -= part.length;
        parts.push(part);
        if (this.#left === 0) this.#state = "end of data";
        continue;
      }
      const newline = rest.indexOf(0x0a);
      this.#line += rest.toString("latin1", 0, newline < 0 ? rest.length : newline);
      if (this.#line.length > chunkLineMax) throw broken("Parse Error: Invalid character in chunk size");
      if (newline < 0) break;
      rest = rest.subarray(newline + 1);
      const line = this.#line.replace(/\r$/, "");
      this.#line = "";
      if (this.#takeLine(line)) return { parts, isWhole: true, isFollowed: rest.length > 0 };
    }
    return { parts, isWhole: false, isFollowed: false };
  }

  /** @returns whether it was the last */
  #takeLine(line: string): boolean {
    switch (this.#state) {
      case "length": {
        const match = /^([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?$/.exec(line);
        if (match === null) throw broken("Parse Error: Invalid character in chunk size");
        this.#left = Number.parseInt(match[1] ?? "0", 16);
        this.#state = this.#left === 0 ? "trailer" : "data";
        return false;
      }
      case "end of data":
        if (line !== "") throw broken("Parse Error: Expected LF after chunk data");
        this.#state = "length";
        return false;
      case "trailer":
        return line === "";
      case "data":
        return false;
    }
  }
}

/** As node:http says it. */
function broken(message: string): Error {
  return Object.assign(new Error(message), { code: "ECONNRESET" });
}
