/** A small image from local files, as `docker save` writes one, so that nothing needs a registry. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { pack, type Pack } from "tar-stream";

export interface ImageParts {
  /** `name:tag` */
  readonly name: string;
  readonly command: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** By absolute path. */
  readonly files: Readonly<Record<string, string | Buffer>>;
  readonly platform: string;
}

/** Statically linked, from the Debian package busybox-static. */
const busybox = "/usr/bin/busybox";
const applets = ["cat", "date", "echo", "env", "false", "hostname", "ls", "ps", "sh", "sleep", "true", "wget"];

/** @returns the archive that `skep image load` reads */
export async function imageArchive(parts: ImageParts): Promise<Buffer> {
  const layer = await archive((tar) => {
    for (const directory of ["bin", "etc", "proc", "sys", "dev", "tmp"])
      tar.entry({ name: `${directory}/`, type: "directory" });
    tar.entry({ name: "bin/busybox", mode: 0o755 }, readFileSync(busybox));
    for (const applet of applets) tar.entry({ name: `bin/${applet}`, type: "symlink", linkname: "busybox" });
    tar.entry({ name: "etc/passwd" }, "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    tar.entry({ name: "etc/group" }, "root:x:0:\nnobody:x:65534:\n");
    for (const [path, text] of Object.entries(parts.files)) tar.entry({ name: path.slice(1), mode: 0o755 }, text);
  });
  const config = JSON.stringify({
    architecture: parts.platform,
    os: "linux",
    created: "2026-01-01T00:00:00Z",
    config: { Cmd: parts.command, Env: ["PATH=/bin"], Labels: parts.labels },
    rootfs: { type: "layers", diff_ids: [`sha256:${digest(layer)}`] },
    history: [{ created: "2026-01-01T00:00:00Z", created_by: "files of this machine" }],
  });
  const configName = `${digest(config)}.json`;
  const manifest = JSON.stringify([{ Config: configName, RepoTags: [parts.name], Layers: ["layer.tar"] }]);
  return archive((tar) => {
    tar.entry({ name: configName }, config);
    tar.entry({ name: "layer.tar" }, layer);
    tar.entry({ name: "manifest.json" }, manifest);
  });
}

const digest = (bytes: string | Buffer): string => createHash("sha256").update(bytes).digest("hex");

async function archive(fill: (tar: Pack) => void): Promise<Buffer> {
  const tar = pack();
  fill(tar);
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
