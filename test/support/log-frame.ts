import { frameHeaderBytes } from "../../worker/containers/core/log-frames.ts";

/** A frame of a container's log as the monitor writes it. `stream`: 1 stdout, 2 stderr, 3 system. */
export function logFrame(stream: number, timeNs: bigint, payload: Buffer): Buffer {
  const header = Buffer.alloc(frameHeaderBytes);
  header.writeUInt32LE(payload.length, 0);
  header.writeUInt8(stream, 4);
  header.writeUInt16LE(0x5ce9, 6);
  header.writeBigUInt64LE(timeNs, 8);
  return Buffer.concat([header, payload]);
}
