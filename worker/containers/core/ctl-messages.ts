/**
 * The protocol between the agent and a monitor, as native/monitor/ctl.h has it: `u8 type | u8 zero | u16 tag | fields`,
 * little-endian, a string is `u16 length | bytes`. It only grows; unknown types and trailing bytes are ignored.
 */
/** An attach answer carries up to 64 KiB of frames and its header; nothing larger is sent. */
export const answerMax = 128 * 1024;
export const fromNow = 0xffffffffffffffffn;

export const requestType = {
  hello: 1,
  start: 2,
  kill: 3,
  resize: 4,
  attach: 5,
  exec: 6,
  execResize: 7,
  stats: 8,
  oomState: 9,
  wait: 10,
  detach: 11,
  stdin: 12,
  closeStdin: 13,
  execKill: 14,
} as const;

export type CtlRequest =
  | { readonly type: "hello" | "start" | "stats" | "oomState" | "wait" | "detach" | "closeStdin" }
  | { readonly type: "kill"; readonly signal: number; readonly all: boolean }
  | { readonly type: "resize"; readonly rows: number; readonly columns: number }
  | { readonly type: "attach"; readonly offset: bigint; readonly stdin: boolean; readonly output: boolean }
  | {
      readonly type: "exec";
      readonly id: string;
      readonly tty: boolean;
      readonly stdin: boolean;
      readonly relay: boolean;
      readonly rows: number;
      readonly columns: number;
      /** JSON of an OCI process; empty when it lies in the state directory already. */
      readonly process: Uint8Array;
    }
  | { readonly type: "execResize"; readonly id: string; readonly rows: number; readonly columns: number }
  | { readonly type: "execKill"; readonly id: string; readonly signal: number }
  | { readonly type: "stdin"; readonly bytes: Uint8Array };

export type CtlAnswer =
  | { readonly type: "ok" | "attached" | "unknown"; readonly tag: number }
  | { readonly type: "error"; readonly tag: number; readonly errno: number; readonly text: string }
  | {
      readonly type: "hello";
      readonly tag: number;
      readonly protocol: number;
      readonly pid: number;
      readonly startTime: bigint;
      readonly bootId: string;
      readonly state: "created" | "running" | "exited";
      readonly logOffset: bigint;
      readonly logInode: bigint;
    }
  | { readonly type: "data"; readonly tag: number; readonly bytes: Buffer }
  | { readonly type: "end"; readonly tag: number; readonly reason: string }
  | { readonly type: "execOk"; readonly tag: number; readonly pid: number }
  | { readonly type: "execData"; readonly tag: number; readonly stream: number; readonly bytes: Buffer }
  | { readonly type: "execExit"; readonly tag: number; readonly code: number; readonly signal: number }
  | { readonly type: "text"; readonly tag: number; readonly text: string }
  | { readonly type: "oom"; readonly tag: number; readonly count: bigint }
  | {
      readonly type: "exit";
      readonly tag: number;
      readonly code: number;
      readonly signal: number;
      readonly oomKilled: boolean;
    };

function header(type: number, tag: number, length: number): Buffer {
  const out = Buffer.alloc(8 + length);
  out.writeUInt32LE(4 + length, 0);
  out.writeUInt8(type, 4);
  out.writeUInt16LE(tag, 6);
  return out;
}

/** A request with its length before it, ready for the stream socket. */
export function encodeRequest(request: CtlRequest, tag: number): Buffer {
  const type = requestType[request.type];
  switch (request.type) {
    case "hello":
    case "start":
    case "stats":
    case "oomState":
    case "wait":
    case "detach":
    case "closeStdin":
      return header(type, tag, 0);
    case "kill": {
      const out = header(type, tag, 5);
      out.writeUInt32LE(request.signal, 8);
      out.writeUInt8(request.all ? 1 : 0, 12);
      return out;
    }
    case "resize": {
      const out = header(type, tag, 4);
      out.writeUInt16LE(request.rows, 8);
      out.writeUInt16LE(request.columns, 10);
      return out;
    }
    case "attach": {
      const out = header(type, tag, 9);
      out.writeBigUInt64LE(request.offset, 8);
      out.writeUInt8((request.stdin ? 1 : 0) | (request.output ? 2 : 0), 16);
      return out;
    }
    case "exec": {
      const id = Buffer.from(request.id);
      const out = header(type, tag, 2 + id.length + 9 + request.process.length);
      let at = out.writeUInt16LE(id.length, 8);
      at += id.copy(out, at);
      at = out.writeUInt8((request.tty ? 1 : 0) | (request.stdin ? 2 : 0) | (request.relay ? 4 : 0), at);
      at = out.writeUInt16LE(request.rows, at);
      at = out.writeUInt16LE(request.columns, at);
      at = out.writeUInt32LE(request.process.length, at);
      out.set(request.process, at);
      return out;
    }
    case "execResize":
    case "execKill": {
      const id = Buffer.from(request.id);
      const out = header(type, tag, 2 + id.length + 4);
      let at = out.writeUInt16LE(id.length, 8);
      at += id.copy(out, at);
      if (request.type === "execKill") {
        out.writeUInt32LE(request.signal, at);
      } else {
        out.writeUInt16LE(request.rows, at);
        out.writeUInt16LE(request.columns, at + 2);
      }
      return out;
    }
    case "stdin": {
      const out = header(type, tag, request.bytes.length);
      out.set(request.bytes, 8);
      return out;
    }
  }
}

const states = ["created", "created", "running", "exited"] as const;

/** Decodes one message (without the length before it). Throws RangeError on bytes that end too soon. */
export function decodeAnswer(bytes: Buffer): CtlAnswer {
  const tag = bytes.readUInt16LE(2);
  let at = 4;
  const string = (): string => {
    const length = bytes.readUInt16LE(at);
    const from = at + 2;
    if (from + length > bytes.length) throw new RangeError("a string of the monitor ends too soon");
    at = from + length;
    return bytes.toString("utf8", from, at);
  };
  switch (bytes.readUInt8(0)) {
    case 128:
      return { type: "ok", tag };
    case 129: {
      const errno = bytes.readUInt32LE(at);
      at += 4;
      return { type: "error", tag, errno, text: string() };
    }
    case 130: {
      const protocol = bytes.readUInt32LE(4);
      const pid = bytes.readUInt32LE(8);
      const startTime = bytes.readBigUInt64LE(12);
      at = 20;
      const bootId = string();
      const state = states[bytes.readUInt8(at)] ?? "running";
      return {
        type: "hello",
        tag,
        protocol,
        pid,
        startTime,
        bootId,
        state,
        logOffset: bytes.readBigUInt64LE(at + 1),
        logInode: bytes.readBigUInt64LE(at + 9),
      };
    }
    case 131:
      return { type: "attached", tag };
    case 132:
      return { type: "data", tag, bytes: bytes.subarray(4) };
    case 133:
      return { type: "end", tag, reason: string() };
    case 134:
      return { type: "execOk", tag, pid: bytes.readUInt32LE(4) };
    case 135:
      return { type: "execData", tag, stream: bytes.readUInt8(4), bytes: bytes.subarray(5) };
    case 136:
      return { type: "execExit", tag, code: bytes.readUInt32LE(4), signal: bytes.readUInt32LE(8) };
    case 137:
      return { type: "text", tag, text: string() };
    case 138:
      return { type: "oom", tag, count: bytes.readBigUInt64LE(4) };
    case 139:
      return {
        type: "exit",
        tag,
        code: bytes.readUInt32LE(4),
        signal: bytes.readUInt32LE(8),
        oomKilled: bytes.readUInt8(12) !== 0,
      };
    default:
      return { type: "unknown", tag };
  }
}

/** Cuts a byte stream into messages. Holds at most one unfinished message. */
export class MessageSplitter {
  #rest: Buffer = Buffer.alloc(0);

  /** Throws RangeError when the peer cannot be a monitor. */
  push(chunk: Buffer): Buffer[] {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const messages: Buffer[] = [];
    while (bytes.length >= 4) {
      const length = bytes.readUInt32LE(0);
      if (length < 4 || length > answerMax) throw new RangeError(`a message of ${length} bytes`);
      if (bytes.length < 4 + length) break;
      messages.push(bytes.subarray(4, 4 + length));
      bytes = bytes.subarray(4 + length);
    }
    this.#rest = bytes;
    return messages;
  }
}
