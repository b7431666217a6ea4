/** The first file system of the machine: busybox, a few modules, and what is done before the real root is there. */
import { gzipSync } from "node:zlib";

export interface InitramfsEntry {
  readonly path: string;
  /** undefined: a folder. */
  readonly content: Uint8Array | undefined;
}

const directoryMode = 0o040755;
const fileMode = 0o100755;

/** The archive that Linux unpacks at boot (Documentation/driver-api/early-userspace/buffer-format.rst): cpio, "newc". */
export function initramfs(entries: readonly InitramfsEntry[]): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  const put = (path: string, mode: number, content: Uint8Array): void => {
    const name = Buffer.from(`${path}\0`);
    const fields = [inode++, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
    parts.push(padded(Buffer.concat([header, name])), padded(Buffer.from(content)));
  };
  for (const { path, content } of entries) {
    put(path, content === undefined ? directoryMode : fileMode, content ?? new Uint8Array());
  }
  put("TRAILER!!!", 0, new Uint8Array());
  return gzipSync(Buffer.concat(parts), { level: 1 });
}

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
