/** Output of containers on the wire: framed by stream, or raw from a terminal; and connections that talk both ways. */
import type { Duplex } from "node:stream";
import { once } from "node:events";

import type { OutputChunk } from "../../worker/containers/index.ts";
import { DetachScanner } from "./core/detach-keys.ts";

export const rawStream = "application/vnd.docker.raw-stream";
const multiplexedStream = "application/vnd.docker.multiplexed-stream";

/** Clients before 1.42 know only the one name. */
export function streamType(tty: boolean, minor: number): string {
  return tty || minor < 42 ? rawStream : multiplexedStream;
}

/** `[1|2, 0, 0, 0, length]` before the bytes; from a terminal they come as they are. */
export function frame(stream: "stdout" | "stderr", bytes: Uint8Array, tty: boolean): Uint8Array {
  if (tty) return bytes;
  const out = Buffer.allocUnsafe(8 + bytes.length);
  out.writeUInt32BE(stream === "stderr" ? 0x02000000 : 0x01000000, 0);
  out.writeUInt32BE(bytes.length, 4);
  out.set(bytes, 8);
  return out;
}

/** Waits while the other side does not read. Rejects when it is gone. */
async function send(socket: Duplex, bytes: Uint8Array, gone: AbortSignal): Promise<void> {
  gone.throwIfAborted();
  if (!socket.write(bytes)) await once(socket, "drain", { signal: gone });
}

/** What a client talks to: a container's attachment, or an exec session. */
export interface Conversation {
  output(): AsyncIterable<OutputChunk>;
  write(bytes: Uint8Array): Promise<void>;
  closeStdin(): Promise<void>;
}

export interface TalkOptions {
  readonly tty: boolean;
  /** Whether the client's bytes are input; else they are read and dropped. */
  readonly stdin: boolean;
  /** The end of the client's input is the end of the program's. */
  readonly closesStdin: boolean;
  readonly detachKeys: readonly number[];
}

/**
 * Carries output to the client and input from it, until the output ends, the client goes, or it types the detach keys.
 * The client's half-close ends its input only: output still flows.
 * @returns why it ended
 */
export async function talk(
  socket: Duplex,
  conversation: Conversation,
  options: TalkOptions,
): Promise<"ended" | "detached" | "gone"> {
  const gone = new AbortController();
  let why: "ended" | "detached" | "gone" = "ended";
  const leave = (reason: "detached" | "gone"): void => {
    if (gone.signal.aborted) return;
    why = reason;
    gone.abort();
  };
  socket.on("error", () => leave("gone"));
  socket.on("close", () => leave("gone"));
  const input = pumpInput(socket, conversation, options, () => leave("detached")).catch(() => undefined); // the program's end or the client's
  const left = once(gone.signal, "abort");
  const pump = async (): Promise<void> => {
    for await (const { stream, bytes } of conversation.output()) {
      await send(socket, frame(stream, bytes, options.tty), gone.signal);
    }
  };
  const output = pump();
  try {
    await Promise.race([output, left]);
  } catch (error) {
    if (!gone.signal.aborted) throw error;
  } finally {
    output.catch(() => undefined); // it is over when the conversation is let go
    socket.end();
    void input;
  }
  return why;
}

async function pumpInput(
  socket: Duplex,
  conversation: Conversation,
  options: TalkOptions,
  onDetach: () => void,
): Promise<void> {
  const scanner = options.tty && options.stdin ? new DetachScanner(options.detachKeys) : undefined;
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    if (!options.stdin) continue;
    const { pass, detached } = scanner?.push(chunk) ?? { pass: chunk, detached: false };
    if (pass.length > 0) await conversation.write(pass);
    if (detached) {
      onDetach();
      return;
    }
  }
  if (options.stdin && options.closesStdin) await conversation.closeStdin();
}
