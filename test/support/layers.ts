/** Tar archives for tests of images: well-formed ones by tar-stream, hostile ones header by header. */
import tar from "tar-stream";

export interface Member {
  readonly name: string;
  readonly type?: "file" | "directory" | "symlink" | "link" | "fifo" | "character-device";
  readonly content?: string | Uint8Array;
  readonly link?: string;
  readonly mode?: number;
  readonly pax?: Record<string, string>;
  readonly device?: readonly [number, number];
}

export async function makeTar(members: readonly Member[]): Promise<Buffer> {
  const pack = tar.pack();
  for (const member of members) {
    const type = member.type ?? "file";
    const content = member.content === undefined ? Buffer.alloc(0) : Buffer.from(member.content as string);
    const header: Record<string, unknown> = {
      name: member.name,
      type,
      mode: member.mode ?? (type === "directory" ? 0o755 : 0o644),
      mtime: new Date(1_000_000_000_000),
      size: type === "file" ? content.length : 0,
    };
    if (member.link !== undefined) header["linkname"] = member.link;
    if (member.pax !== undefined) header["pax"] = member.pax;
    if (member.device !== undefined) [header["devmajor"], header["devminor"]] = member.device;
    if (type === "file") pack.entry(header as unknown as tar.Header, content);
    else pack.entry(header as unknown as tar.Header);
  }
  pack.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of pack) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** One header block with a right checksum, whatever its fields say. */
export function rawHeader(fields: {
  name: string;
  size?: string;
  typeflag?: string;
  linkname?: string;
  magic?: string;
}): Buffer {
  const block = Buffer.alloc(512);
  block.write(fields.name, 0, 100, "latin1");
  block.write("0000644\0", 100);
  block.write("0000000\0", 108);
  block.write("0000000\0", 116);
  block.write(fields.size ?? "00000000000\0", 124, 12, "latin1");
  block.write("00000000000\0", 136);
  block.write(fields.typeflag ?? "0", 156);
  block.write(fields.linkname ?? "", 157, 100, "latin1");
  block.write(fields.magic ?? "ustar\x0000", 257, 8, "latin1");
  block.fill(" ", 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
