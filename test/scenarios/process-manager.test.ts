/** The manager as a process: how it starts, what it refuses, how it forms, grows, shrinks and stops. */
import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import type { ClusterError } from "../../lib/pure/errors.ts";
import { nodeFileSystem } from "../../lib/runtime/file-system.ts";
import { managersMethods } from "../../manager/managers-service.ts";
import { DataFolder } from "../../manager/raft/index.ts";
import { TestAuthority } from "../support/certificates.ts";
import { ManagerCluster, ManagerProcess, type ProcessOptions } from "../support/manager-process.ts";

/** Nobody who leads is deposed since the machine is busy. */
const calm = ["--election-ms", "4000"];

async function startCluster(t: TestContext, managers: number, args: readonly string[] = calm): Promise<ManagerCluster> {
  const cluster = await ManagerCluster.start({ managers, args });
  t.after(() => cluster[Symbol.asyncDispose]());
  return cluster;
}

/** What an operator must be able to watch (docs/design/raft-driver.md). */
const metricNames = (
  "term role is_leader leader_id leader_changes_total proposals_pending proposals_total commit_index applied_index " +
  "first_index last_index apply_lag_entries apply_lag_bytes fsync_seconds persist_seconds batch_entries data_keys " +
  "batch_bytes disk_stall_seconds propose_to_commit_seconds commit_to_apply_seconds peer_match_index peer_next_index " +
  "peer_state peer_inflight_messages peer_inflight_bytes peer_round_trip_seconds peer_last_heard_seconds " +
  "peer_stream_resets snapshot_bytes snapshot_seconds read_index_seconds read_batch elections_total " +
  "event_loop_delay_seconds gc_pause_seconds_max events_total state peer_connected peer_messages_refused " +
  "state_hash_index state_hash_mismatches_total"
).split(" ");

/** Runs a manager that is expected to end by itself. */
async function runToEnd(t: TestContext, options: ProcessOptions): Promise<{ code: number | string; words: string }> {
  const ran = ManagerProcess.spawn(options);
  t.after(() => ran.kill());
  return { code: await ran.exited(), words: ran.stderr };
}

async function aloneIn(t: TestContext): Promise<{ folder: string; options: ProcessOptions; authority: TestAuthority }> {
  const folder = mkdtempSync(join(tmpdir(), "skep-manager-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const authority = await TestAuthority.create("testcluster");
  const files = await authority.issueFiles(join(folder, "m1"), "node1", 1);
  const dataDir = join(folder, "m1", "data");
  return {
    folder,
    authority,
    options: { name: "m1", memberId: 1, dataDir, files, listen: "127.0.0.1:0", args: ["--init", ...calm] },
  };
}

test("wrong use ends with 2, says what is wrong and touches nothing", { timeout: 300_000 }, async (t) => {
  const { options } = await aloneIn(t);
  const cases: [readonly string[], RegExp][] = [
    [["--bogus"], /bogus/u],
    [["--init", "--join", "127.0.0.1:1"], /--init or --join/u],
    [["--join", "nowhere"], /--join "nowhere" is not HOST:PORT/u],
    [["--init", "--election-ms", "100"], /five heartbeats/u],
    [["--init", "--election-ms", "soon"], /not a positive number/u],
    [["--init", "--preset", "moon"], /no preset/u],
    [["--init", "surplus"], /no command "surplus"/u],
    [["--init", "--unlock-key-file", "/nonexistent"], /cannot read the file/u],
    // Standard input is at its end at once.
    [["--init", "--secrets-stdin"], /one line of JSON/u],
  ];
  for (const [args, words] of cases) {
    const ended = await runToEnd(t, { ...options, args });
    assert.equal(ended.code, 2, ended.words);
    assert.match(ended.words, words);
  }
  assert.ok(!existsSync(options.dataDir));
});

test("start-up errors end with 1, a code and what to do", { timeout: 300_000 }, async (t) => {
  const { options, authority, folder } = await aloneIn(t);
  const refused = async (change: Partial<ProcessOptions>, code: string): Promise<void> => {
    const ended = await runToEnd(t, { ...options, ...change });
    assert.equal(ended.code, 1, ended.words);
    assert.match(ended.words, new RegExp(`\\[${code}\\]\nmanager: [A-Z]`, "u"));
  };
  const busy = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => busy.once("listening", resolve));
  t.after(() => busy.close());
  const { port } = busy.address() as { port: number };
  await refused({ listen: `127.0.0.1:${port}` }, "RPC_LISTEN_FAILED");
  await refused({ args: calm }, "RAFT_FOLDER_EMPTY");
  writeFileSync(join(folder, "file"), "");
  await refused({ dataDir: join(folder, "file") }, "RAFT_FOLDER_UNUSABLE");
  await refused({ dataDir: join(folder, "file", "below") }, "RAFT_FOLDER_UNUSABLE");
  mkdirSync(join(folder, "m1", "socket"));
  await refused({ args: ["--init", ...calm, "--socket", join(folder, "m1", "socket")] }, "RPC_LISTEN_FAILED");
  rmSync(options.dataDir, { recursive: true });
  await refused({ args: ["--init", ...calm, "--metrics", "0.0.0.0:9"] }, "METRICS_ADDRESS_REFUSED");
  await refused({ files: await authority.issueFiles(join(folder, "worker"), "worker1", undefined) }, "NOT_A_MANAGER");
  writeFileSync(join(folder, "noise.pem"), "no certificate");
  await refused({ files: { ...options.files, cert: join(folder, "noise.pem") } }, "CERTIFICATE_INVALID");
  const foreign = await TestAuthority.create("othercluster");
  const theirs = await foreign.issueFiles(join(folder, "foreign"), "node1", 1);
  await refused({ files: { ...options.files, ca: theirs.ca } }, "CERTIFICATE_INVALID");
  await refused({ files: { ...options.files, key: theirs.key } }, "CERTIFICATE_INVALID");
  // It was stopped before the cluster had let it in.
  const unfinished = DataFolder.open(join(folder, "unfinished"), nodeFileSystem);
  unfinished.create({ clusterId: "testcluster", nodeId: "node1", memberId: 1 }, "joining", 1);
  unfinished[Symbol.dispose]();
  await refused({ dataDir: unfinished.path, args: calm }, "JOIN_UNFINISHED");
});

test(
  "bad input: a folder of another node, a wrong key, a damaged or foreign file each get their own error",
  { timeout: 300_000 },
  async (t) => {
    const { options, authority, folder } = await aloneIn(t);
    const first = await ManagerProcess.start(options);
    t.after(() => first.kill());
    await first.logged("it leads", ({ message, ready }) => message === "leadership" && ready === true);
    const inUse = await runToEnd(t, options);
    assert.match(inUse.words, /RAFT_FOLDER_IN_USE/u);
    await first.kill();
    const data = options.dataDir;
    const keep = (file: string): (() => void) => {
      const content = readFileSync(join(data, file));
      return () => writeFileSync(join(data, file), content);
    };
    const refused = async (code: string, change: Partial<ProcessOptions> = {}): Promise<void> => {
      const ended = await runToEnd(t, { ...options, args: calm, ...change });
      assert.equal(ended.code, 1, ended.words);
      assert.match(ended.words, new RegExp(`\\[${code}\\]`, "u"));
    };
    // Another node's certificate on this folder.
    await refused("RAFT_FOLDER_OF_ANOTHER", { files: await authority.issueFiles(join(folder, "m2"), "node2", 2) });
    // The key that seals the data keys: another one, none.
    const key = keep("node.key");
    rmSync(join(data, "node.key"));
    await refused("KEY_MISSING");
    key();
    truncateSync(join(data, "node.key"), 20);
    await refused("KEY_FILE_DAMAGED");
    key();
    const keys = keep("keys");
    truncateSync(join(data, "keys"), 100);
    await refused("KEY_FILE_DAMAGED");
    keys();
    const unlock = join(folder, "unlock.key");
    writeFileSync(unlock, "SWMKEY-1-not-a-key");
    await refused("KEY_WRONG", { args: [...calm, "--unlock-key-file", unlock] });
    const member = keep("member.json");
    truncateSync(join(data, "member.json"), 30);
    await refused("RAFT_FOLDER_DAMAGED");
    member();
    // A flipped bit in the middle of the log: never a silent hole.
    const segment = readdirSync(join(data, "log")).find((name) => name.startsWith("segment-")) ?? "";
    const path = join("log", segment);
    const log = keep(path);
    const bytes = readFileSync(join(data, path));
    bytes[600] = (bytes[600] ?? 0) ^ 4;
    writeFileSync(join(data, path), bytes);
    // It stays up to say so, instead of being started again and again.
    const quarantined = ManagerProcess.spawn({ ...options, args: calm });
    t.after(() => quarantined.kill());
    const line = await quarantined.logged("quarantine", ({ message }) => message.startsWith("quarantined: "));
    assert.match(JSON.stringify(line), /LOG_QUARANTINED/u);
    quarantined.signal("SIGTERM");
    assert.equal(await quarantined.exited(), 0);
    log();
    // And all of it is as it was.
    const again = await ManagerProcess.start({ ...options, args: calm });
    t.after(() => again.kill());
    await again.logged("it leads again", ({ message, ready }) => message === "leadership" && ready === true);
  },
);

test(
  "a cluster of three forms, serves on every manager, and its metrics can be read",
  { timeout: 300_000 },
  async (t) => {
    const cluster = await startCluster(t, 3, [...calm, "--metrics", "127.0.0.1:0"]);
    const leader = await cluster.leader();
    const follower = cluster.running.find((manager) => manager !== leader)!;
    assert.equal((await cluster.put(leader, "a", "1")).failure ?? undefined, undefined);
    assert.equal((await cluster.put(follower, "b", "2")).failure ?? undefined, undefined);
    assert.equal(await cluster.get(follower, "a"), "1");
    assert.equal(await cluster.get(leader, "b"), "2");
    const keys = cluster.keys(follower);
    const version = (await keys.ask({ get: { key: "a" } })).items?.[0]?.version ?? 0;
    assert.equal(
      (await keys.ask({ cas: { key: "a", version: version + 1, value: Buffer.from("no") } })).done ?? false,
      false,
    );
    assert.equal((await keys.ask({ cas: { key: "a", version, value: Buffer.from("yes") } })).done, true);
    assert.equal((await keys.ask({ delete: { key: "b" } })).done, true);
    assert.equal((await keys.ask({ delete: { key: "b" } })).done ?? false, false);
    const both = await keys.ask({
      txn: { steps: [{ put: { key: "c", value: Buffer.from("3") } }, { get: { key: "a" } }] },
    });
    assert.equal(Buffer.from(both.items?.[0]?.value ?? []).toString(), "yes");
    assert.equal((await keys.ask({ put: { key: "" } })).failure?.code, "KV_REQUEST_INVALID");
    // What has been passed on once is not passed on again: who does not lead says who does.
    const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
    await assert.rejects(
      cluster.channel(follower).call(managersMethods.transfer, { forwarded: true }, call),
      (error: ClusterError) => error.code === "RAFT_LED_ELSEWHERE" && error.message.includes(leader.address),
    );
    const response = await fetch(`http://127.0.0.1:${leader.metricsPort}/metrics`);
    const metrics = await response.text();
    for (const name of metricNames) assert.match(metrics, new RegExp(`^skep_raft_${name}`, "mu"), name);
    const syncs = Number(/^skep_raft_fsync_seconds_count (\d+)$/mu.exec(metrics)?.[1]);
    const sum = Number(/^skep_raft_fsync_seconds_sum (\S+)$/mu.exec(metrics)?.[1]);
    assert.ok(syncs > 3 && sum > 0, `${syncs} syncs in ${sum} s`);
    assert.match(metrics, new RegExp(`^skep_raft_fsync_seconds_bucket\\{le="\\+Inf"\\} ${syncs}$`, "mu"));
    assert.match(metrics, /^skep_raft_data_keys 1$/mu);
    assert.equal((await fetch(`http://127.0.0.1:${leader.metricsPort}/other`)).status, 404);
  },
);

test("I7: SIGTERM of the leader hands over, long before an election could", { timeout: 300_000 }, async (t) => {
  const cluster = await startCluster(t, 3, ["--election-ms", "4000"]);
  const leader = await cluster.leader();
  await cluster.put(leader, "before", "x");
  const others = cluster.running.filter((manager) => manager !== leader);
  const { term } = await cluster.status(leader);
  leader.signal("SIGTERM");
  const next = await Promise.any(
    others.map((manager) =>
      manager
        .logged("it leads", ({ message, ready }) => message === "leadership" && ready === true)
        .then(() => manager),
    ),
  );
  assert.equal((await cluster.put(next, "after", "y")).failure ?? undefined, undefined);
  // Who campaigns on its own, since nobody leads, asks first; who is handed the office does not.
  for (const { lines } of others) assert.ok(!lines.some(({ role }) => role === "preCandidate"));
  assert.equal((await cluster.status(next)).term, Number(term) + 1);
  assert.equal(await leader.exited(), 0);
});

test(
  "F7: a manager that is removed learns it, ends with 0, keeps its data, and is refused from then on",
  { timeout: 300_000 },
  async (t) => {
    const cluster = await startCluster(t, 3);
    const leader = await cluster.leader();
    const gone = cluster.running.find((manager) => manager !== leader)!;
    const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
    await cluster.channel(leader).call(managersMethods.remove, { memberId: gone.options.memberId }, call);
    assert.equal(await gone.exited(), 0);
    const files = readdirSync(gone.options.dataDir);
    assert.ok(files.includes("log") && files.includes("snapshots"));
    const refused = await runToEnd(t, { ...gone.options, args: calm });
    assert.equal(refused.code, 1);
    assert.match(refused.words, /RAFT_MEMBER_REMOVED/u);
    // Under its old id it is not let in with an empty folder either.
    rmSync(gone.options.dataDir, { recursive: true });
    const again = await runToEnd(t, { ...gone.options, args: ["--join", leader.address, ...calm] });
    assert.match(again.words, /JOIN_FAILED/u);
    assert.match(again.words, /removed from this cluster/u);
  },
);

test(
  "F12: a wiped folder under the same id is refused; a new certificate takes its place",
  { timeout: 300_000 },
  async (t) => {
    const cluster = await startCluster(t, 3);
    const leader = await cluster.leader();
    await cluster.put(leader, "a", "1");
    const lost = cluster.running.find((manager) => manager !== leader)!;
    await lost.kill();
    rmSync(lost.options.dataDir, { recursive: true });
    const refused = await runToEnd(t, { ...lost.options, args: ["--join", leader.address, ...calm] });
    assert.equal(refused.code, 1);
    assert.match(refused.words, /JOIN_FAILED/u);
    assert.match(refused.words, /lost the data folder/u);
    const number = 7;
    const description = await cluster.describe(number, { args: ["--replace", String(lost.options.memberId), ...calm] });
    const taken = await ManagerProcess.start(description);
    cluster.managers.push(taken);
    await cluster.untilVoters(3);
    const status = await cluster.status(leader);
    const ids = new Set(status.managers?.map(({ id }) => Number(id)));
    assert.deepEqual(ids, new Set(cluster.running.map(({ options }) => options.memberId)));
    assert.equal(await cluster.get(taken, "a"), "1");
  },
);

test(
  "K3: a manager in quarantine says with which command it is replaced, and that command does it",
  { timeout: 300_000 },
  async (t) => {
    const cluster = await startCluster(t, 3);
    const leader = await cluster.leader();
    await cluster.put(leader, "a", "1");
    const spoilt = cluster.running.find((manager) => manager !== leader)!;
    const { dataDir, memberId } = spoilt.options;
    await spoilt.kill();
    const segment = readdirSync(join(dataDir, "log")).find((name) => name.startsWith("segment-")) ?? "";
    const path = join(dataDir, "log", segment);
    const bytes = readFileSync(path);
    bytes[600] = (bytes[600] ?? 0) ^ 4;
    writeFileSync(path, bytes);
    const quarantined = ManagerProcess.spawn({ ...spoilt.options, listen: spoilt.address });
    t.after(() => quarantined.kill());
    const line = await quarantined.logged("quarantine", ({ message }) => message.startsWith("quarantined: Cannot"));
    const [, addresses = "", id = ""] = /manager ((?:--join \S+ )+)--replace (\d+) /u.exec(line.message) ?? [];
    assert.equal(id, String(memberId), line.message);
    // It is up to be asked, and nothing but that.
    assert.equal((await cluster.status(spoilt)).state, "quarantined");
    const words = addresses.trim().split(" ");
    const description = await cluster.describe(7);
    const taken = await ManagerProcess.start({ ...description, args: [...words, "--replace", id, ...calm] });
    cluster.managers.push(taken);
    await cluster.untilVoters(3);
    const ids = new Set((await cluster.status(leader)).managers?.map((manager) => Number(manager.id)));
    assert.deepEqual(ids, new Set(cluster.running.map(({ options }) => options.memberId)));
    assert.equal(await cluster.get(taken, "a"), "1");
  },
);

test(
  "F17: force-new-cluster tells first, refuses while a quorum answers, keeps what was acknowledged, and bars the old ones",
  { timeout: 400_000 },
  async (t) => {
    const cluster = await startCluster(t, 3);
    const leader = await cluster.leader();
    await cluster.put(leader, "kept", "1");
    const [survivor, ...others] = cluster.running as [ManagerProcess, ...ManagerProcess[]];
    const { dataDir, files } = survivor.options;
    const force = async (...more: string[]): Promise<{ code: unknown; text: string }> => {
      const { spawnSync } = await import("node:child_process");
      const main = join(import.meta.dirname, "../../manager/main.ts");
      const flags = ["--data-dir", dataDir, "--cert", files.cert, "--key", files.key, "--ca", files.ca, ...more];
      const ran = spawnSync(process.execPath, [main, "force-new-cluster", ...flags], { timeout: 60_000 });
      return { code: ran.status, text: `${ran.stdout.toString()}${ran.stderr.toString()}` };
    };
    await survivor.kill();
    const refused = await force("--yes");
    assert.equal(refused.code, 1, refused.text);
    assert.match(refused.text, /QUORUM_ANSWERS/u);
    await Promise.all(others.map((other) => other.kill()));
    const told = await force();
    assert.equal(told.code, 0, told.text);
    assert.match(told.text, /would become the only one[\s\S]*Nothing was changed/u);
    const did = await force("--yes");
    assert.equal(did.code, 0, did.text);
    assert.ok(existsSync(`${dataDir}.before-incarnation-2`));
    const alone = await cluster.restart(survivor);
    await alone.logged("it leads", ({ message, ready }) => message === "leadership" && ready === true);
    assert.equal(await cluster.get(alone, "kept"), "1");
    assert.equal((await cluster.put(alone, "new", "2")).failure ?? undefined, undefined);
    // An old one comes back: it is refused, and the new cluster goes on.
    const old = await ManagerProcess.start({ ...others[0]!.options, listen: others[0]!.address });
    t.after(() => old.kill());
    await old.logged("it is refused", (line) => JSON.stringify(line).includes("RAFT_WRONG_INCARNATION"));
    assert.equal(await cluster.get(alone, "new"), "2");
  },
);
