import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { Random } from "../../lib/pure/prng.ts";
import { nodeFileSystem } from "../../lib/runtime/file-system.ts";
import { FaultDisk } from "../support/fault-disk.ts";
import { fileSystemSuite } from "./file-system.ts";

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

fileSystemSuite("Node's", () => {
  const folder = mkdtempSync(join(tmpdir(), "skep-fs-"));
  folders.push(folder);
  return { files: nodeFileSystem, folder };
});

fileSystemSuite("in memory", () => {
  const files = new FaultDisk(new Random(1));
  files.mkdir("/data");
  return { files, folder: "/data" };
});
