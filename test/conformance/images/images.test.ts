/** Images against a real registry and real tools: Debian's docker-registry, skopeo, GNU tar. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { Random } from "../../../lib/pure/prng.ts";
import { realClock } from "../../../lib/runtime/index.ts";
import { type Credentials, Images, type ImagesOptions } from "../../../worker/images/index.ts";
import { makeTar, type Member } from "../../support/layers.ts";
import {
  registryMissing,
  type RegistryOptions,
  registryUser,
  startRegistry,
  type TestRegistry,
} from "../../support/registry.ts";

const missing = registryMissing();
const skip = process.getuid?.() !== 0 ? "needs root" : missing;
const archiveProgram = join(import.meta.dirname, "../../../native/build/archive");
const platform = { os: "linux", architecture: "amd64", variant: "" };
let top = "";
let registry: TestRegistry;
const registries: TestRegistry[] = [];
let count = 0;

const fresh = (name: string): string => join(top, `${name}-${count++}`);

async function open(folder = fresh("images"), more: Partial<ImagesOptions> = {}): Promise<Images> {
  return Images.open({ folder, archiveProgram, platform, clock: realClock, random: new Random(1), ...more });
}

async function start(options: Omit<RegistryOptions, "folder"> = {}): Promise<TestRegistry> {
  const started = await startRegistry({ folder: fresh("registry"), ...options });
  registries.push(started);
  return started;
}

before(async () => {
  top = mkdtempSync(join(tmpdir(), "skep-images-"));
  if (skip === false) registry = await start();
});
after(async () => {
  for (const one of registries) await one[Symbol.asyncDispose]();
  rmSync(top, { recursive: true, force: true });
});

/** An image of the given layers, as `docker save` of old wrote it. */
async function dockerArchive(layers: readonly (readonly Member[])[], tag: string): Promise<Buffer> {
  const tars = await Promise.all(layers.map((layer) => makeTar(layer)));
  const { sha256 } = await import("../../../worker/images/blobs.ts");
  const config = {
    os: "linux",
    architecture: "amd64",
    created: "2026-01-02T03:04:05.678Z",
    config: { Env: ["PATH=/bin"], Cmd: ["sh"], Labels: { team: "bees" } },
    rootfs: { type: "layers", diff_ids: tars.map((one) => sha256(one)) },
  };
  return makeTar([
    { name: "config.json", content: JSON.stringify(config) },
    ...tars.map((content, at) => ({ name: `${at}/layer.tar`, content })),
    {
      name: "manifest.json",
      content: JSON.stringify([
        { Config: "config.json", RepoTags: [tag], Layers: tars.map((_, at) => `${at}/layer.tar`) },
      ]),
    },
  ]);
}

const twoLayers: readonly (readonly Member[])[] = [
  [
    { name: "bin/", type: "directory" },
    { name: "bin/tool", content: "#!tool", mode: 0o4755 },
    { name: "etc/old", content: "old" },
    { name: "etc/keep", content: "keep" },
  ],
  [
    { name: "etc/.wh.old", content: "" },
    { name: "etc/new", content: "new" },
    { name: "etc/tool", type: "link", link: "bin/tool2" },
  ].filter((member) => member.name !== "etc/tool") as Member[],
];

async function seed(
  reference: string,
  layers = twoLayers,
  credentials?: Credentials,
  more: Partial<ImagesOptions> = {},
): Promise<void> {
  const images = await open(undefined, more);
  await images.load(Readable.from([await dockerArchive(layers, reference)]));
  await images.push(reference, credentials === undefined ? {} : { credentials });
  await images[Symbol.asyncDispose]();
}

function stray(folder: string): readonly string[] {
  const inside = (name: string): string[] =>
    existsSync(join(folder, name)) ? readdirSync(join(folder, name)).map((file) => `${name}/${file}`) : [];
  return [...inside("ingest"), ...inside("layers"), ...inside("blobs/sha256")];
}

test("load, push, pull: the same image by id, its files and whiteouts as overlay wants them", { skip }, async () => {
  const reference = `${registry.host}/bees/app:1`;
  await seed(reference);
  const images = await open();
  const phases = new Set<string>();
  const { image, changed } = await images.pull(reference, { onProgress: (progress) => phases.add(progress.phase) });
  assert.equal(changed, true);
  assert.deepEqual([...phases].sort(), ["done", "download", "unpack", "verified", "waiting"]);
  const prepared = await images.prepare("c1", reference);
  assert.equal(prepared.lowerDirs.length, 2);
  const [upper = "", lower = ""] = prepared.lowerDirs;
  assert.equal(statSync(join(upper, "etc/old")).rdev, 0);
  assert.equal(readFileSync(join(upper, "etc/new"), "utf8"), "new");
  assert.equal(statSync(join(lower, "bin/tool")).mode & 0o7777, 0o4755);
  assert.deepEqual(prepared.config.run.env, ["PATH=/bin"]);
  assert.equal((await images.pull(reference)).changed, false);
  const [listed] = await images.list();
  assert.deepEqual(listed?.repoTags, [reference]);
  assert.match(listed?.repoDigests[0] ?? "", new RegExp(`^${registry.host}/bees/app@sha256:`));
  assert.equal(listed?.createdAtMs, Date.parse("2026-01-02T03:04:05.678Z"));
  assert.equal((await images.inspect(image.id.slice(7, 19))).image.id, image.id);
  await images[Symbol.asyncDispose]();
});

for (const format of ["oci", "v2s2"]) {
  test(`skopeo pushes (${format}), we pull; we save, skopeo reads; we push, skopeo inspects`, { skip }, async () => {
    const archive = fresh("archive.tar");
    writeFileSync(archive, await dockerArchive(twoLayers, "app:1"));
    const name = `${registry.host}/skopeo/${format}:1`;
    skopeo("copy", `--format=${format}`, "--dest-tls-verify=false", `docker-archive:${archive}`, `docker://${name}`);
    const images = await open();
    const { image, digest } = await images.pull(name);
    const saved = fresh("saved.tar");
    await pipeline(await images.save([name]), createWriteStream(saved));
    const seen = JSON.parse(skopeo("inspect", `docker-archive:${saved}`)) as {
      RepoTags: string[];
      Layers: string[];
      Labels: Record<string, string>;
    };
    assert.deepEqual(seen.Labels, { team: "bees" });
    assert.equal(seen.Layers.length, 2);
    if (format === "oci") {
      // In an OCI layout skopeo 1.9 finds OCI manifests only.
      const layout = JSON.parse(skopeo("inspect", `oci-archive:${saved}:1`)) as { Digest: string };
      assert.equal(layout.Digest, image.manifest.digest);
    }
    const other = await open();
    const [loaded] = await other.load(createReadStream(saved));
    assert.equal(loaded?.image.id, image.id);
    assert.deepEqual(loaded?.names, [name]);
    await other.tag(name, `${registry.host}/again/${format}:2`);
    const pushed = await other.push(`${registry.host}/again/${format}:2`);
    const remote = JSON.parse(
      skopeo("inspect", "--tls-verify=false", `docker://${registry.host}/again/${format}:2`),
    ) as { Digest: string };
    assert.equal(remote.Digest, pushed.digest);
    assert.equal(await images.resolve(name), digest);
    await images[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
  });
}

function skopeo(...args: string[]): string {
  return execFileSync("skopeo", ["--insecure-policy", ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
}

for (const auth of ["basic", "token"] as const) {
  test(
    `a registry with ${auth} authentication: right credentials work, wrong and none are refused clearly`,
    { skip },
    async () => {
      const guarded = await start({ auth });
      const reference = `${guarded.host}/private/app:1`;
      await seed(reference, twoLayers, registryUser);
      const images = await open();
      await assert.rejects(images.pull(reference), { code: "REGISTRY_DENIED" });
      await assert.rejects(
        images.pull(reference, { credentials: { ...registryUser, password: "wrong" } }),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, "REGISTRY_DENIED");
          assert.doesNotMatch(`${error.message} ${error.stack}`, /wrong:|honey|d3Jvbmc/, "no password in an error");
          return true;
        },
      );
      const { image } = await images.pull(reference, { credentials: registryUser });
      assert.equal(image.layers.length, 2);
      if (auth === "token") assert.ok(guarded.tokensGiven() >= 2);
      await images[Symbol.asyncDispose]();
    },
  );
}

test(
  "a registry with TLS: trusted by its authority, and refused without it unless it is listed as insecure",
  { skip },
  async () => {
    const secure = await start({ tls: true });
    const reference = `${secure.host}/tls/app:1`;
    await seed(reference); // loopback counts as insecure
    const images = await open(undefined, { registries: { trustOf: () => ({ ca: secure.ca ?? "" }) } });
    assert.equal((await images.pull(reference)).image.layers.length, 2);
    await images[Symbol.asyncDispose]();
  },
);

test("what is not there: unknown names, tags and registries have their own errors", { skip }, async () => {
  const images = await open(undefined, { registries: { attemptsMax: 1, silenceMs: 60_000 } });
  await assert.rejects(images.pull(`${registry.host}/no/such:1`), { code: "REGISTRY_REFUSED", status: 404 });
  await assert.rejects(images.pull("127.0.0.1:1/a:1"), { code: "REGISTRY_UNREACHABLE" });
  await assert.rejects(images.inspect("nothing:1"), { code: "IMAGE_NOT_FOUND" });
  await assert.rejects(images.push("nothing:1"), { code: "IMAGE_NOT_FOUND" });
  await assert.rejects(images.pull("UPPER"), { code: "IMAGE_REFERENCE_INVALID" });
  await images[Symbol.asyncDispose]();
});

/** A registry between us and the real one that behaves as the test says. */
async function between(
  target: string,
  meddle: (incoming: IncomingMessage, outgoing: ServerResponse, answer: IncomingMessage) => boolean | Promise<boolean>,
): Promise<{ host: string; close: () => void }> {
  const server = createServer((incoming, outgoing) => {
    const forward = request(
      `http://${target}${incoming.url}`,
      { method: incoming.method ?? "GET", headers: { ...incoming.headers, host: target } },
      (answer) => {
        void Promise.resolve(meddle(incoming, outgoing, answer)).then((handled) => {
          if (handled) return;
          outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(outgoing);
        });
      },
    );
    incoming.pipe(forward);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => (server.closeAllConnections(), server.close()),
  };
}

const noise = (size: number): Buffer => {
  const random = new Random("noise");
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32LE(random.uint32(), at);
  return bytes;
};

test(
  "a transfer that breaks off goes on where it ended, and a registry that is overloaded is asked again",
  { skip },
  async () => {
    const name = "broken/app:1";
    await seed(`${registry.host}/${name}`, [[{ name: "big", content: noise(3_000_000) }]]);
    const ranges: string[] = [];
    let busy = 1;
    const proxy = await between(registry.host, async (incoming, outgoing, answer) => {
      if (busy-- > 0) {
        answer.resume();
        outgoing.writeHead(503).end();
        return true;
      }
      if (!(incoming.url ?? "").includes("/blobs/") || Number(answer.headers["content-length"]) < 500_000) return false;
      ranges.push(incoming.headers.range ?? "");
      if (ranges.length > 3) return false;
      outgoing.writeHead(answer.statusCode ?? 200, answer.headers);
      let sent = 0;
      for await (const chunk of answer) {
        outgoing.write(chunk);
        sent += (chunk as Buffer).length;
        if (sent > 600_000) break;
      }
      outgoing.socket?.end();
      return true;
    });
    const images = await open();
    const { image } = await images.pull(`${proxy.host}/${name}`);
    proxy.close();
    assert.equal(image.layers.length, 1);
    assert.equal(ranges[0], "");
    assert.equal(ranges.length, 4);
    for (const range of ranges.slice(1)) assert.match(range, /^bytes=\d{6,}-$/);
    await images[Symbol.asyncDispose]();
  },
);

test("bytes that are not what the digest says are refused, and nothing of the image stays", { skip }, async () => {
  const name = "evil/app:1";
  await seed(`${registry.host}/${name}`);
  let evil = "blobs";
  const proxy = await between(registry.host, async (incoming, outgoing, answer) => {
    if (!(incoming.url ?? "").includes(`/${evil}/`) || incoming.method !== "GET") return false;
    const chunks: Buffer[] = [];
    for await (const chunk of answer) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    body[body.length - 5] = (body[body.length - 5] ?? 0) ^ 1;
    outgoing.writeHead(200, { ...answer.headers }).end(body);
    return true;
  });
  const folder = fresh("images");
  const images = await open(folder);
  await assert.rejects(images.pull(`${proxy.host}/${name}`), { code: "IMAGE_CONTENT_INVALID" });
  evil = "manifests";
  const pinned = await images.resolve(`${registry.host}/${name}`);
  await assert.rejects(images.pull(`${proxy.host}/evil/app@${pinned}`), { code: "IMAGE_CONTENT_INVALID" });
  proxy.close();
  assert.deepEqual(await images.list(), []);
  await images.prune();
  assert.deepEqual(stray(folder), []);
  await images[Symbol.asyncDispose]();
});

test("a blob longer than promised is cut off, not stored", { skip }, async () => {
  const name = "long/app:1";
  await seed(`${registry.host}/${name}`);
  const proxy = await between(registry.host, (incoming, outgoing, answer) => {
    if (!(incoming.url ?? "").includes("/blobs/") || incoming.method !== "GET") return false;
    answer.resume();
    outgoing.writeHead(200, { "content-type": "application/octet-stream" });
    const pour = (): void => {
      while (!outgoing.destroyed && outgoing.write(Buffer.alloc(65536)));
      if (!outgoing.destroyed) outgoing.once("drain", pour);
    };
    pour();
    return true;
  });
  const folder = fresh("images");
  const images = await open(folder);
  await assert.rejects(images.pull(`${proxy.host}/${name}`), { code: "IMAGE_CONTENT_INVALID" });
  proxy.close();
  await images.prune();
  assert.deepEqual(stray(folder), []);
  await images[Symbol.asyncDispose]();
});

test("an index leads to the manifest of this platform; another platform is told what there is", { skip }, async () => {
  const name = `${registry.host}/multi/app`;
  await seed(`${name}:amd`);
  const manifest = Buffer.from(
    await (
      await fetch(`http://${registry.host}/v2/multi/app/manifests/amd`, {
        headers: { accept: "application/vnd.docker.distribution.manifest.v2+json" },
      })
    ).arrayBuffer(),
  );
  const { sha256 } = await import("../../../worker/images/blobs.ts");
  const entry = {
    mediaType: "application/vnd.docker.distribution.manifest.v2+json",
    digest: sha256(manifest),
    size: manifest.length,
  };
  const index = {
    schemaVersion: 2,
    mediaType: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifests: [{ ...entry, platform: { os: "linux", architecture: "amd64" } }],
  };
  const put = await fetch(`http://${registry.host}/v2/multi/app/manifests/all`, {
    method: "PUT",
    headers: { "content-type": index.mediaType },
    body: JSON.stringify(index),
  });
  assert.equal(put.status, 201);
  const images = await open();
  assert.equal((await images.pull(`${name}:all`)).image.layers.length, 2);
  await assert.rejects(
    images.pull(`${name}:all`, { platform: { os: "linux", architecture: "riscv64", variant: "" } }),
    { code: "IMAGE_PLATFORM_MISSING", message: /only for linux\/amd64/ },
  );
  await images[Symbol.asyncDispose]();
});

for (const [name, bytes] of [
  ["text", Buffer.from("this is no archive ".repeat(100))],
  ["nothing", Buffer.alloc(0)],
  ["a cut gzip", gzipSync(noise(100_000)).subarray(0, 5000)],
] as const) {
  test(`load refuses ${name}`, { skip }, async () => {
    const folder = fresh("images");
    const images = await open(folder);
    await assert.rejects(images.load(Readable.from(bytes.length === 0 ? [] : [bytes])), {
      code: "IMAGE_CONTENT_INVALID",
    });
    await images.prune();
    assert.deepEqual(stray(folder), []);
    await images[Symbol.asyncDispose]();
  });
}

test("load refuses archives whose parts do not fit together", { skip }, async () => {
  const images = await open();
  const wrong: readonly (readonly Member[])[] = [
    [{ name: "manifest.json", content: "[]" }],
    [{ name: "manifest.json", content: JSON.stringify([{ Config: "../../../etc/passwd", Layers: [] }]) }],
    [
      { name: "manifest.json", content: JSON.stringify([{ Config: "c", Layers: ["l"] }]) },
      { name: "c", content: JSON.stringify({ rootfs: { diff_ids: [`sha256:${"0".repeat(64)}`] } }) },
      { name: "l", content: await makeTar([]) },
    ],
    [
      {
        name: "index.json",
        content: JSON.stringify({
          schemaVersion: 2,
          manifests: [
            { mediaType: "application/vnd.oci.image.manifest.v1+json", digest: `sha256:${"1".repeat(64)}`, size: 2 },
          ],
        }),
      },
    ],
    [{ name: "etc/passwd", content: "x" }],
  ];
  for (const members of wrong) {
    await assert.rejects(
      images.load(Readable.from([await makeTar(members)])),
      { code: "IMAGE_CONTENT_INVALID" },
      JSON.stringify(members[0]?.name),
    );
  }
  assert.deepEqual(await images.list(), []);
  await images[Symbol.asyncDispose]();
});

test("a layer that means harm is refused on pull, and leaves nothing", { skip }, async () => {
  const folder = fresh("images");
  const images = await open(folder, { limits: { layerBytesMax: 2_000_000 } });
  const layers: readonly [readonly Member[], string][] = [
    [[{ name: "../../../outside", content: "x" }], "IMAGE_CONTENT_INVALID"],
    [
      [{ name: "d", type: "directory", pax: { "SCHILY.xattr.trusted.overlay.redirect": "/" } }],
      "IMAGE_CONTENT_INVALID",
    ],
    [[{ name: "bomb", content: Buffer.alloc(3_000_000) }], "IMAGE_TOO_LARGE"],
  ];
  for (const [layer, code] of layers) {
    await assert.rejects(images.load(Readable.from([gzipSync(await dockerArchive([layer], "evil:1"))])), { code });
  }
  await images.prune();
  assert.deepEqual(await images.list(), []);
  assert.deepEqual(stray(folder), []);
  await images[Symbol.asyncDispose]();
});

test(
  "unpacking stops while the file system still has its reserve, and says that the disk is full",
  { skip },
  async () => {
    const folder = fresh("images");
    const images = await open(folder, { limits: { reserveBytes: 2 ** 60 } });
    await assert.rejects(images.load(Readable.from([await dockerArchive(twoLayers, "app:1")])), {
      code: "WORKER_DISK_FULL",
    });
    await images.prune();
    assert.deepEqual(stray(folder), []);
    await images[Symbol.asyncDispose]();
  },
);

test("import makes an image of a plain tar, commit adds a layer to one, and both can be saved", { skip }, async () => {
  const images = await open();
  const base = await images.import(Readable.from([await makeTar([{ name: "a", content: "1" }])]), {
    reference: "base:1",
    changes: { Cmd: ["/a"], Env: ["X=1"] },
  });
  assert.deepEqual((await images.inspect("base:1")).config.run.cmd, ["/a"]);
  const made = await images.commit(
    "base:1",
    Readable.from([
      await makeTar([
        { name: "b", content: "2" },
        { name: ".wh.a", content: "" },
      ]),
    ]),
    { reference: "made:1", comment: "why", changes: { Cmd: ["/b"] } },
  );
  assert.equal(made.layers.length, 2);
  const { config } = await images.inspect("made:1");
  assert.deepEqual([config.run.cmd, config.run.env], [["/b"], ["X=1"]]);
  await assert.rejects(images.import(Readable.from([])), { code: "IMAGE_CONTENT_INVALID" });
  const other = await open();
  await other.load(await images.save(["made:1", "base:1"]));
  assert.deepEqual((await other.list()).flatMap((image) => image.repoTags).sort(), ["base:1", "made:1"]);
  assert.equal((await other.inspect("base:1")).image.id, base.id);
  await images[Symbol.asyncDispose]();
  await other[Symbol.asyncDispose]();
});

test("zstd layers are unpacked", { skip }, async () => {
  const { sha256 } = await import("../../../worker/images/blobs.ts");
  const layer = await makeTar([{ name: "z", content: "zstd" }]);
  const zipped = zstdCompressSync(layer);
  const config = Buffer.from(
    JSON.stringify({ os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [sha256(layer)] } }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: sha256(config), size: config.length },
      layers: [
        { mediaType: "application/vnd.oci.image.layer.v1.tar+zstd", digest: sha256(zipped), size: zipped.length },
      ],
    }),
  );
  const blob = (bytes: Buffer): Member => ({ name: `blobs/sha256/${sha256(bytes).slice(7)}`, content: bytes });
  const index = {
    schemaVersion: 2,
    manifests: [
      {
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        digest: sha256(manifest),
        size: manifest.length,
        annotations: { "org.opencontainers.image.ref.name": "zstd:1" },
      },
    ],
  };
  const images = await open();
  await images.load(
    Readable.from([
      await makeTar([
        blob(zipped),
        blob(config),
        blob(manifest),
        { name: "index.json", content: JSON.stringify(index) },
      ]),
    ]),
  );
  const { lowerDirs } = await images.prepare("c", "zstd:1");
  assert.equal(readFileSync(join(lowerDirs[0] ?? "", "z"), "utf8"), "zstd");
  await images[Symbol.asyncDispose]();
});

test(
  "remove follows Docker's rules: names first, users protect, and what nobody needs is collected",
  { skip },
  async () => {
    const folder = fresh("images");
    const images = await open(folder);
    await images.load(Readable.from([await dockerArchive(twoLayers, "app:1")]));
    await images.tag("app:1", "app:2");
    const { id } = (await images.inspect("app:1")).image;
    await assert.rejects(images.remove(id), { code: "IMAGE_IN_USE", message: /referenced in multiple repositories/u });
    assert.deepEqual(await images.remove("app:2"), { untagged: ["app:2"], removed: [] });
    await images.prepare("c1", "app:1");
    await assert.rejects(images.remove("app:1"), { code: "IMAGE_IN_USE", message: /\(must force\)/u });
    await assert.rejects(images.remove(id), { code: "IMAGE_IN_USE", message: /used by stopped container c1$/u });
    const isRunning = (): boolean => true;
    await assert.rejects(images.remove(id, { force: true, isRunning }), { message: /\(cannot be forced\)/u });
    await images.remove("app:1", { force: true });
    assert.equal((await images.prune({ all: true })).images.length, 0, "a container's image stays");
    assert.equal(
      (await images.prepare("c1", id)).lowerDirs.every((path) => existsSync(path)),
      true,
    );
    await images.release("c1");
    assert.deepEqual((await images.prune()).images, [id]);
    assert.deepEqual(stray(folder), []);
    await images[Symbol.asyncDispose]();
  },
);

test("the collector may run at any time: pulls beside it lose nothing", { skip }, async () => {
  const folder = fresh("images");
  const images = await open(folder);
  const names = Array.from({ length: 6 }, (_, at) => `${registry.host}/gc/app${at}:1`);
  for (const [at, name] of names.entries())
    await seed(name, [...twoLayers, [{ name: `own${at}`, content: String(at) }]]);
  const pulls = Promise.all(names.map((name) => images.pull(name)));
  let collections = 0;
  const progress = { done: false };
  const over = pulls.finally(() => (progress.done = true));
  while (!progress.done) {
    await images.prune();
    collections++;
  }
  await over;
  assert.ok(collections > 0);
  for (const name of names) {
    const { lowerDirs } = await images.prepare(name, name);
    assert.equal(
      lowerDirs.every((path) => existsSync(path)),
      true,
      name,
    );
  }
  await images[Symbol.asyncDispose]();
});

test(
  "kill -9 at any instant of pulling and removing: after opening again all that is listed is whole, and the rest can be collected",
  { skip },
  async () => {
    const name = `${registry.host}/crash/app:1`;
    await seed(name, [...twoLayers, [{ name: "big", content: noise(2_000_000) }]]);
    const folder = fresh("images");
    mkdirSync(folder);
    const random = new Random("crash");
    const child = join(import.meta.dirname, "../../support/pull-forever.ts");
    for (let round = 0; round < 12; round++) {
      const puller = spawn(process.execPath, [child, folder, archiveProgram, name], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const gone = once(puller, "exit");
      // The instant is counted in steps of the puller's progress, so that it falls everywhere on fast and slow machines.
      let steps = random.int(1, 60);
      for await (const chunk of puller.stdout) {
        steps -= (chunk as Buffer).length;
        if (steps <= 0) break;
      }
      puller.kill("SIGKILL");
      await gone;
      const images = await open(folder);
      for (const image of await images.list()) {
        const { lowerDirs } = await images.prepare("check", image.id);
        assert.equal(lowerDirs.length, 3);
        assert.equal(statSync(join(lowerDirs[0] ?? "", "big")).size, 2_000_000);
        await images.release("check");
      }
      await images.prune({ all: true });
      assert.deepEqual(stray(folder), [], `round ${round}`);
      await images[Symbol.asyncDispose]();
    }
  },
);
