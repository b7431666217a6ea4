/** Streams of the API: framed output, and lines of JSON. */
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { CommandError } from "../errors.ts";
import { parseJson } from "./json.ts";

/** A frame's payload and where it was written: 1 standard output, 2 standard error. */
export interface Frame {
  readonly stream: number;
  readonly data: Buffer;
}

/** Takes frames of `[stream, 0, 0, 0, length as 4 bytes, big end first]` apart. */
export async function* frames(source: Readable): AsyncGenerator<Frame> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    rest = rest.length === 0 ? (chunk as Buffer) : Buffer.concat([rest, chunk as Buffer]);
    while (rest.length >= 8) {
      const end = 8 + rest.readUInt32BE(4);
      if (rest.length < end) break;
      yield { stream: rest.readUInt8(0), data: rest.subarray(8, end) };
      rest = rest.subarray(end);
    }
  }
  if (rest.length > 0) throw new CommandError("the daemon ended its answer inside a frame");
}

/** One value a line. */
export async function* jsonLines<T>(source: Readable): AsyncGenerator<T> {
  source.setEncoding("utf8");
  let rest = "";
  for await (const chunk of source) {
    const lines = (rest + (chunk as string)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") yield parseJson(line) as T;
  }
  if (rest.trim() !== "") yield parseJson(rest) as T;
}

/** Waits while the receiver is full. */
export async function write(to: Writable, data: Buffer | string): Promise<void> {
  if (!to.write(data)) await once(to, "drain");
}

/** Copies output to where it belongs: framed by its number, otherwise all to standard output. */
export async function copyOutput(
  source: Readable,
  framed: boolean,
  to: { readonly stdout: Writable; readonly stderr: Writable },
): Promise<void> {
  if (framed) {
    for await (const { stream, data } of frames(source)) await write(stream === 2 ? to.stderr : to.stdout, data);
    return;
  }
  for await (const chunk of source) await write(to.stdout, chunk as Buffer);
}
