/**
 * The native `archive` program against archives that mean harm, and against what real tools write.
 * Whatever an archive says, nothing outside the target may appear or change.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  watch,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { makeTar, rawHeader } from "../../support/layers.ts";

const program = join(import.meta.dirname, "../../../native/build/archive");
const skip = process.getuid?.() !== 0 ? "needs root" : false;
let top = "";
before(() => {
  top = mkdtempSync(join(tmpdir(), "skep-archive-"));
});
after(() => rmSync(top, { recursive: true, force: true }));

let count = 0;
interface Outcome {
  readonly status: number | null;
  readonly code: string;
  readonly message: string;
  readonly folder: string;
}

/** Unpacks into a fresh folder `N/target`; beside it lies `N/secret`, which must stay as it is. */
function unpack(archive: Uint8Array, args: readonly string[] = ["--layer"]): Outcome {
  const place = join(top, String(count++));
  const folder = join(place, "target");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(place, "secret"), "untouched");
  const done = spawnSync(program, ["unpack", "--root", folder, ...args], { input: archive, timeout: 120_000 });
  assert.equal(readFileSync(join(place, "secret"), "utf8"), "untouched");
  assert.deepEqual(readdirSync(place).sort(), ["secret", "target"]);
  const line = done.stderr.toString("utf8").trim();
  const error = line === "" ? { code: "", message: "" } : (JSON.parse(line) as { code: string; message: string });
  return { status: done.status, ...error, folder };
}

const refusals: readonly { name: string; make: () => Promise<Buffer> | Buffer; code: string }[] = [
  {
    name: "a name that climbs out by ..",
    make: () => makeTar([{ name: "a/../../secret", content: "x" }]),
    code: "TAR_ESCAPES",
  },
  {
    name: "a hard link whose target climbs out",
    make: () => Buffer.concat([rawHeader({ name: "h", typeflag: "1", linkname: "../secret" })]),
    code: "TAR_ESCAPES",
  },
  { name: "a whiteout of the parent", make: () => makeTar([{ name: ".wh...", content: "" }]), code: "TAR_ESCAPES" },
  {
    name: "overlayfs's own mark as a device",
    make: () => makeTar([{ name: "w", type: "character-device", device: [0, 0] }]),
    code: "TAR_UNSAFE",
  },
  {
    name: "an attribute that redirects overlayfs",
    make: () => makeTar([{ name: "d", type: "directory", pax: { "SCHILY.xattr.trusted.overlay.redirect": "/etc" } }]),
    code: "TAR_UNSAFE",
  },
  {
    name: "a file shorter than its header says",
    make: () => Buffer.concat([rawHeader({ name: "f", size: "00000010000\0" }), Buffer.alloc(512)]),
    code: "TAR_TRUNCATED",
  },
  {
    name: "a header with a wrong checksum",
    make: () => Buffer.concat([Buffer.alloc(511), Buffer.from("x")]),
    code: "TAR_MALFORMED",
  },
  { name: "text instead of tar", make: () => Buffer.from("hello ".repeat(200)), code: "TAR_MALFORMED" },
  { name: "a size below zero", make: () => rawHeader({ name: "f", size: "\xff".repeat(12) }), code: "TAR_MALFORMED" },
  {
    name: "a size of 2^80",
    make: () => rawHeader({ name: "f", size: `\x80\x01${"\0".repeat(10)}` }),
    code: "TAR_MALFORMED",
  },
  {
    name: "an extended header of 1 GiB",
    make: () => rawHeader({ name: "x", typeflag: "x", size: "10000000000\0" }),
    code: "TAR_MALFORMED",
  },
  {
    name: "seventeen extended headers in a row",
    make: () => Buffer.concat(Array.from({ length: 17 }, () => rawHeader({ name: "x", typeflag: "x" }))),
    code: "TAR_MALFORMED",
  },
  { name: "a pax record that lies about its length", make: () => pax("99 path=x\n"), code: "TAR_MALFORMED" },
  { name: "a NUL byte in a pax path", make: () => pax("14 path=a\0b/c\n"), code: "TAR_MALFORMED" },
  {
    name: "a sparse map that leaves its file",
    make: () =>
      pax("22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n24 GNU.sparse.size=1000\n26 GNU.sparse.map=900,200\n"),
    code: "TAR_MALFORMED",
  },
  {
    name: "an entry type nobody defined",
    make: () => rawHeader({ name: "f", typeflag: "Z" }),
    code: "TAR_UNSUPPORTED",
  },
  { name: "an entry without a name", make: () => rawHeader({ name: "" }), code: "TAR_MALFORMED" },
  {
    name: "directories 600 deep and then a file in their place",
    make: async () =>
      makeTar([
        { name: `${"d/".repeat(600)}f`, content: "x" },
        { name: "d", content: "x" },
      ]),
    code: "TAR_MALFORMED",
  },
];

function pax(records: string): Buffer {
  const body = Buffer.from(records, "latin1");
  const size = `${body.length.toString(8).padStart(11, "0")}\0`;
  return Buffer.concat([
    rawHeader({ name: "x", typeflag: "x", size }),
    body,
    Buffer.alloc((512 - (body.length % 512)) % 512),
    rawHeader({ name: "f" }),
    Buffer.alloc(1024),
  ]);
}

for (const { name, make, code } of refusals) {
  test(`unpack refuses ${name}`, { skip }, async () => {
    const outcome = unpack(await make());
    assert.equal(outcome.status, 1);
    assert.equal(outcome.code, code, outcome.message);
  });
}

test(
  "an absolute symbolic link is followed inside the target, so writing through it stays there",
  { skip },
  async () => {
    const outcome = unpack(
      await makeTar([
        { name: "out", type: "symlink", link: "/" },
        { name: "up", type: "symlink", link: "../.." },
        { name: "out/secret", content: "mine" },
        { name: "up/secret2", content: "mine" },
      ]),
    );
    assert.equal(outcome.status, 0, outcome.message);
    assert.deepEqual(readdirSync(outcome.folder).sort(), ["out", "secret", "secret2", "up"]);
  },
);

test("a hard link to an absolute path means that path in the target", { skip }, async () => {
  const outcome = unpack(
    await makeTar([
      { name: "f", content: "mine" },
      { name: "h", type: "link", link: "/f" },
    ]),
  );
  assert.equal(outcome.status, 0, outcome.message);
  assert.equal(statSync(join(outcome.folder, "h")).nlink, 2);
});

test("a symbolic link that a file replaces is replaced, not written through", { skip }, async () => {
  const outcome = unpack(
    await makeTar([
      { name: "f", type: "symlink", link: "../secret" },
      { name: "f", content: "mine" },
    ]),
  );
  assert.equal(outcome.status, 0, outcome.message);
  assert.equal(lstatSync(join(outcome.folder, "f")).isFile(), true);
});

test("unpack stops at the limit of bytes, and at the limit of entries", { skip }, async () => {
  const big = await makeTar([{ name: "f", content: Buffer.alloc(100_000, 1) }]);
  assert.equal(unpack(big, ["--layer", "--max-bytes", "50000"]).code, "TAR_TOO_LARGE");
  const many = await makeTar(Array.from({ length: 20 }, (_, at) => ({ name: `f${at}`, content: "" })));
  assert.equal(unpack(many, ["--layer", "--max-entries", "10"]).code, "TAR_TOO_MANY");
});

test("whiteouts become overlayfs's, and mean lower layers only, wherever they stand", { skip }, async () => {
  const outcome = unpack(
    await makeTar([
      { name: "d/.wh.gone", content: "" },
      { name: "o/.wh..wh..opq", content: "" },
      { name: "kept", content: "x" },
      { name: ".wh.kept", content: "" },
      { name: "again", type: "directory" },
      { name: ".wh.again", content: "" },
      { name: ".wh..wh.plnk", content: "" },
    ]),
  );
  assert.equal(outcome.status, 0, outcome.message);
  const gone = lstatSync(join(outcome.folder, "d/gone"));
  assert.equal(gone.isCharacterDevice() && gone.rdev === 0, true);
  assert.equal(lstatSync(join(outcome.folder, "kept")).isFile(), true);
  const listed = execFileSync(program, ["pack", "--root", outcome.folder, "--path", "/", "--layer"]);
  const names = execFileSync("tar", ["tf", "-"], { input: listed }).toString().trim().split("\n");
  assert.deepEqual(names.sort(), ["again/", "again/.wh..wh..opq", "d/", "d/.wh.gone", "kept", "o/", "o/.wh..wh..opq"]);
});

test("without --layer a whiteout is a file like any other (copying into a container)", { skip }, async () => {
  const outcome = unpack(await makeTar([{ name: ".wh.f", content: "x" }]), []);
  assert.equal(readFileSync(join(outcome.folder, ".wh.f"), "utf8"), "x");
});

test("file capabilities, set-user-ID, times, sparse files and hard links survive GNU tar both ways", { skip }, () => {
  const source = join(top, "source");
  mkdirSync(join(source, "d"), { recursive: true });
  writeFileSync(join(source, "f"), "hello", { mode: 0o644 });
  execFileSync("ln", [join(source, "f"), join(source, "h")]);
  symlinkSync("../../etc/passwd", join(source, "s"));
  execFileSync("truncate", ["-s", "300M", join(source, "sparse")]);
  execFileSync("sh", [
    "-c",
    `printf end >> "${join(source, "sparse")}"; chmod 4755 "${join(source, "f")}"; setcap cap_net_raw+ep "${join(source, "f")}"; touch -d 2001-02-03T04:05:06.5 "${join(source, "d")}"; mkfifo "${join(source, "p")}"`,
  ]);
  for (const format of ["gnu", "pax"]) {
    const archive = execFileSync("tar", [
      `--format=${format}`,
      "-S",
      ...(format === "pax" ? ["--xattrs", "--xattrs-include=*"] : []),
      "-C",
      source,
      "-cf",
      "-",
      ".",
    ]);
    assert.ok(archive.length < 1_000_000, "GNU tar writes holes, not zeros");
    const outcome = unpack(archive, []);
    assert.equal(outcome.status, 0, outcome.message);
    const { folder } = outcome;
    assert.equal(statSync(join(folder, "sparse")).size, 300 * 1024 * 1024 + 3);
    assert.ok(statSync(join(folder, "sparse")).blocks < 100);
    assert.equal(statSync(join(folder, "f")).mode & 0o7777, 0o4755);
    assert.equal(statSync(join(folder, "f")).ino, statSync(join(folder, "h")).ino);
    assert.equal(readlinkSync(join(folder, "s")), "../../etc/passwd");
    assert.equal(
      Math.floor(statSync(join(folder, "d")).mtimeMs / 1000),
      Math.floor(statSync(join(source, "d")).mtimeMs / 1000),
    );
    if (format === "pax") {
      assert.match(execFileSync("/sbin/getcap", [join(folder, "f")]).toString(), /cap_net_raw=ep/);
      rmSync(join(folder, "sparse"));
      const packed = execFileSync(program, ["pack", "--root", folder, "--path", "/"]);
      const back = join(top, "back");
      mkdirSync(back);
      execFileSync("tar", ["--xattrs", "--xattrs-include=*", "-C", back, "-xpf", "-"], { input: packed });
      assert.match(execFileSync("/sbin/getcap", [join(back, "f")]).toString(), /cap_net_raw=ep/);
      assert.equal(statSync(join(back, "f")).ino, statSync(join(back, "h")).ino);
    }
  }
});

test("pack names the top as asked, long names and odd owners go into pax headers", { skip }, () => {
  const source = join(top, "long");
  const deep = `${"x".repeat(120)}/${"y".repeat(120)}`;
  mkdirSync(join(source, "in", deep), { recursive: true });
  writeFileSync(join(source, "in", deep, "ümlaut"), "z");
  execFileSync("chown", ["3000000:3000000", join(source, "in", deep, "ümlaut")]);
  const packed = execFileSync(program, ["pack", "--root", source, "--path", "/in", "--name", "renamed"]);
  const names = execFileSync("tar", ["--numeric-owner", "-tvf", "-"], {
    input: packed,
    env: { LC_ALL: "C.UTF-8", PATH: process.env["PATH"] },
  }).toString();
  assert.match(names, new RegExp(`3000000/3000000 .* renamed/${deep}/ümlaut`));
});

test("stat tells of a link without following it, and a path cannot leave the root", { skip }, () => {
  const source = join(top, "stat");
  mkdirSync(source);
  symlinkSync("/etc/passwd", join(source, "s"));
  const answer = JSON.parse(execFileSync(program, ["stat", "--root", source, "--path", "/../s"]).toString()) as {
    linkTarget: string;
  };
  assert.equal(answer.linkTarget, "/etc/passwd");
  symlinkSync("../../../../etc", join(source, "e"));
  const outside = spawnSync(program, ["stat", "--root", source, "--path", "/e/passwd"]);
  assert.equal(outside.status, 1);
  assert.equal((JSON.parse(outside.stderr.toString()) as { code: string }).code, "ARCHIVE_NOT_FOUND");
});

test("changes lists what an upper directory adds, changes and removes", { skip }, async () => {
  const lower = unpack(
    await makeTar([
      { name: "same", content: "1" },
      { name: "gone", content: "2" },
      { name: "d/old", content: "3" },
    ]),
  ).folder;
  const upper = unpack(
    await makeTar([
      { name: "same", content: "9" },
      { name: "new", content: "8" },
      { name: ".wh.gone", content: "" },
      { name: ".wh.never", content: "" },
      { name: "d/fresh", content: "7" },
    ]),
  ).folder;
  const lines = execFileSync(program, [
    "changes",
    "--root",
    top,
    "--upper",
    upper.slice(top.length),
    "--lower",
    lower.slice(top.length),
  ])
    .toString()
    .trim()
    .split("\n");
  const changes = lines
    .map((line) => JSON.parse(line) as { kind: number; path: string })
    .map(({ kind, path }) => `${"CAD"[kind]} ${path}`);
  assert.deepEqual(changes.sort(), ["A /d/fresh", "A /new", "C /d", "C /same", "D /gone"]);
});

test("wrong usage ends with exit code 2 and says how to use it", () => {
  for (const args of [
    [],
    ["explode"],
    ["unpack"],
    ["unpack", "--root", "/x", "--max-bytes", "-1"],
    ["pack", "--root", "/x"],
  ]) {
    const done = spawnSync(program, args);
    assert.equal(done.status, 2, args.join(" "));
    assert.match(done.stderr.toString(), /usage: archive/);
  }
});

test(
  "while it parses, it has a filter, eight capabilities, no new privileges, and the target as its root",
  { skip },
  async () => {
    const folder = join(top, "confined");
    mkdirSync(folder);
    const child = spawn(program, ["unpack", "--layer", "--root", folder], { stdio: ["pipe", "ignore", "ignore"] });
    // The header is consumed only after confinement: once its file exists, the process is confined and waits for data.
    const header = rawHeader({ name: "f", size: "00000200000\0" });
    child.stdin.write(Buffer.concat([header, Buffer.alloc(512)]));
    const watcher = watch(folder);
    if (!existsSync(join(folder, "f"))) await once(watcher, "change", { signal: AbortSignal.timeout(60_000) });
    watcher.close();
    const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
    const capabilities = BigInt(`0x${/CapEff:\s+(\w+)/.exec(status)?.[1]}`);
    assert.match(status, /Seccomp:\s+2/);
    assert.match(status, /NoNewPrivs:\s+1/);
    // CHOWN 0, DAC_OVERRIDE 1, DAC_READ_SEARCH 2, FOWNER 3, FSETID 4, SYS_ADMIN 21 (trusted.overlay.*), MKNOD 27, SETFCAP 31
    assert.equal(
      capabilities,
      [0n, 1n, 2n, 3n, 4n, 21n, 27n, 31n].reduce((sum, bit) => sum | (1n << bit), 0n),
    );
    assert.deepEqual(readdirSync(`/proc/${child.pid}/root`), ["f"]);
    const gone = once(child, "exit");
    child.stdin.end();
    assert.deepEqual(await gone, [1, null], "a truncated archive fails");
  },
);
