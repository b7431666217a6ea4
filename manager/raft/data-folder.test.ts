import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import { ClusterError } from "../../lib/pure/errors.ts";
import { Random } from "../../lib/pure/prng.ts";
import { nodeFileSystem, type FileSystem } from "../../lib/runtime/file-system.ts";
import { DataFolder, type Owner } from "./data-folder.ts";

const owner: Owner = { clusterId: "c1", nodeId: "n1", memberId: 7 };

function folderOf(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "skep-folder-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function open(t: TestContext, path: string): DataFolder {
  const folder = DataFolder.open(path, nodeFileSystem);
  t.after(() => folder[Symbol.dispose]());
  return folder;
}

const coded = (code: string) => (error: unknown) => (error as { code: string }).code === code;

test("a folder remembers whose it is and counts its starts", (t) => {
  const path = folderOf(t);
  const first = DataFolder.open(path, nodeFileSystem);
  assert.equal(first.identity, undefined);
  assert.throws(() => first.resume(owner), coded("RAFT_FOLDER_EMPTY"));
  assert.equal(first.create(owner, "joining", 3).starts, 1);
  assert.equal(first.joined().standing, "member");
  first[Symbol.dispose]();
  const folder = open(t, path);
  assert.equal(folder.resume(owner).starts, 2);
  assert.match(folder.identity?.incarnation ?? "", /^[0-9a-f]{32}$/u);
});

test("the folder of another node, cluster or member is refused and stays as it is", (t) => {
  const path = folderOf(t);
  const folder = open(t, path);
  folder.create(owner, "member", 1);
  const before = readFileSync(join(path, "member.json"), "utf8");
  for (const other of [
    { ...owner, nodeId: "n2" },
    { ...owner, clusterId: "c2" },
    { ...owner, memberId: 8 },
  ]) {
    assert.throws(() => folder.resume(other), coded("RAFT_FOLDER_OF_ANOTHER"));
  }
  assert.equal(readFileSync(join(path, "member.json"), "utf8"), before);
});

test("F7: the folder of a removed member is refused and nothing in it is deleted", (t) => {
  const path = folderOf(t);
  const folder = open(t, path);
  folder.create(owner, "member", 1);
  writeFileSync(join(path, "precious"), "data");
  folder.markRemoved();
  assert.throws(() => folder.resume(owner), coded("RAFT_MEMBER_REMOVED"));
  assert.ok(readdirSync(path).includes("precious"));
});

test("a folder in use is refused with the process that uses it; one left by a dead process is taken over", async (t) => {
  const path = folderOf(t);
  const holder = spawn(process.execPath, [
    "--input-type=module",
    "-e",
    `import { DataFolder } from ${JSON.stringify(join(import.meta.dirname, "data-folder.ts"))};
     import { nodeFileSystem } from ${JSON.stringify(join(import.meta.dirname, "../../lib/runtime/file-system.ts"))};
     DataFolder.open(${JSON.stringify(path)}, nodeFileSystem);
     console.log("locked");
     setInterval(() => {}, 1000);`,
  ]);
  t.after(() => holder.kill("SIGKILL"));
  await once(holder.stdout, "data", { signal: t.signal });
  assert.throws(
    () => DataFolder.open(path, nodeFileSystem),
    (error) => coded("RAFT_FOLDER_IN_USE")(error) && String(error).includes(`process ${holder.pid}`),
  );
  holder.kill("SIGKILL");
  await once(holder, "exit", { signal: t.signal });
  const folder = open(t, path);
  assert.equal(folder.identity, undefined);
  assert.deepEqual(
    readdirSync(path).filter((name) => name.startsWith("lock")),
    ["lock"],
  );
});

test("a holder that was killed and whose parent has not looked yet holds nothing any more", async (t) => {
  const path = folderOf(t);
  // The shell puts its child's number where the lock is, and never waits for it.
  const script = `sleep 1000 & echo "$! $(cut -d' ' -f22 /proc/$!/stat)" > "$0/lock"; echo locked $!; exec sleep 1000`;
  const parent = spawn("sh", ["-c", script, path]);
  t.after(() => parent.kill("SIGKILL"));
  const [said] = (await once(parent.stdout, "data", { signal: t.signal })) as [Buffer];
  const child = Number(String(said).split(" ")[1]);
  // As long as it is a shell it may still look after its child.
  while (readFileSync(`/proc/${parent.pid}/comm`, "utf8") !== "sleep\n") await new Promise((go) => setImmediate(go));
  assert.throws(() => DataFolder.open(path, nodeFileSystem), coded("RAFT_FOLDER_IN_USE"));
  process.kill(child, "SIGKILL");
  const state = (): string => /^State:\s*(\S)/mu.exec(readFileSync(`/proc/${child}/status`, "utf8"))?.[1] ?? "";
  while (state() !== "Z") await new Promise((resolve) => setImmediate(resolve));
  open(t, path);
});

test("closing gives the folder up, twice is fine", (t) => {
  const path = folderOf(t);
  const folder = DataFolder.open(path, nodeFileSystem);
  assert.throws(() => DataFolder.open(path, nodeFileSystem), coded("RAFT_FOLDER_IN_USE"));
  folder[Symbol.dispose]();
  folder[Symbol.dispose]();
  DataFolder.open(path, nodeFileSystem)[Symbol.dispose]();
});

test("a damaged description of the folder is refused, whatever the damage", (t) => {
  const path = folderOf(t);
  const whole = JSON.stringify({
    format: 1,
    ...owner,
    incarnation: "0".repeat(32),
    clusterIncarnation: 1,
    starts: 1,
    standing: "member",
  });
  for (const content of [
    "",
    "{",
    "null",
    "[]",
    whole.slice(0, -9),
    whole.replace('"format":1', '"format":2'),
    whole.replace('"starts":1', '"starts":-1'),
    whole.replace('"nodeId":"n1"', '"nodeId":7'),
    whole.replace("}", ',"quarantined":null}'),
    whole.replace("}", ',"quarantined":{"reason":"x","through":[7]}}'),
    whole.replace("}", ',"checksum":"00000000"}'),
    whole.padEnd(65 * 1024),
  ]) {
    writeFileSync(join(path, "member.json"), content);
    assert.throws(() => DataFolder.open(path, nodeFileSystem), coded("RAFT_FOLDER_DAMAGED"), content);
  }
  writeFileSync(join(path, "member.json"), whole);
  DataFolder.open(path, nodeFileSystem)[Symbol.dispose]();
});

test("a flipped bit or a cut in member.json is refused, or changes nothing that is read", (t) => {
  const path = folderOf(t);
  const first = DataFolder.open(path, nodeFileSystem);
  first.create(owner, "member", 3);
  first.markQuarantined({ reason: "its state differs from that of the majority", through: ["10.0.0.1:2377"] });
  const { identity } = first;
  first[Symbol.dispose]();
  const file = join(path, "member.json");
  const whole = readFileSync(file);
  const random = new Random("member.json");
  const damaged = [
    ...Array.from(whole.keys(), (at) => {
      const flipped = Buffer.from(whole);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << random.int(0, 8));
      return flipped;
    }),
    ...Array.from({ length: 60 }, () => whole.subarray(0, random.int(0, whole.length - 1))),
  ];
  let refused = 0;
  for (const content of damaged) {
    writeFileSync(file, content);
    try {
      const folder = DataFolder.open(path, nodeFileSystem);
      folder[Symbol.dispose]();
      assert.deepEqual(folder.identity, identity, content.toString("latin1"));
    } catch (error) {
      assert.ok(error instanceof ClusterError, `${String(error)} at ${content.toString("latin1")}`);
      assert.equal(error.code, "RAFT_FOLDER_DAMAGED");
      refused++;
    }
  }
  assert.ok(refused > damaged.length / 2, `${refused} of ${damaged.length}`);
});

test("a disk that refuses is told as such, with the remedy for what it said: RAFT_FOLDER_UNUSABLE", (t) => {
  const path = folderOf(t);
  writeFileSync(join(path, "file"), "");
  const unusable = (words: RegExp) => (error: unknown) =>
    error instanceof ClusterError &&
    error.code === "RAFT_FOLDER_UNUSABLE" &&
    error.message.startsWith("Cannot use the data folder ") &&
    words.test(error.fix ?? "");
  // Something else is where the folder, or one above it, ought to be.
  for (const name of ["file", "file/below"]) {
    assert.throws(() => DataFolder.open(join(path, name), nodeFileSystem), unusable(/path of a folder/u), name);
  }
  const failing = (act: "mkdir" | "open", code: string): FileSystem => {
    const fail = (): never => {
      throw Object.assign(new Error(`${code}: simulated, ${act}`), { code });
    };
    return { ...nodeFileSystem, [act]: fail };
  };
  for (const [code, words] of [
    ["EACCES", /belong to the user/u],
    ["EROFS", /for writing/u],
    ["ENOSPC", /Free space/u],
    ["EDQUOT", /Free space/u],
    ["EIO", /Check the disk/u],
  ] as const) {
    assert.throws(() => DataFolder.open(path, failing("mkdir", code)), unusable(words), code);
    assert.throws(() => DataFolder.open(path, failing("open", code)), unusable(words), code);
    // Nothing holds the folder afterwards.
    assert.deepEqual(readdirSync(path), ["file"]);
  }
});
