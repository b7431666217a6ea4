/**
 * A second judge: Debian's dockerd with isolate as one of its runtimes. What docker's own users do every day has to work
 * unchanged. The daemon gets folders, a mount and a network namespace of its own, and no bridge.
 */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { bareUnifiedTree, type Ended, execute, isolatePath, removeGroups, until, whyNot } from "./oci/harness.ts";

// On demand: it starts a Docker daemon, which not every machine that runs the tests should have to bear.
const absent =
  whyNot() ??
  (process.env["SKEP_DOCKERD"] !== "1" ? "starts a Docker daemon: run on demand with SKEP_DOCKERD=1" : undefined) ??
  (existsSync("/usr/sbin/dockerd") && existsSync("/usr/bin/docker")
    ? undefined
    : "needs docker.io (node deploy/setup.mjs --for bench)");

const group = `skep-dockerd-${process.pid}`;
/** The container of runc stands elsewhere: under load it gives up on removing its groups. */
const peerGroup = `${group}-peer`;
let folder = "";
let socket = "";
let daemon: ChildProcess | undefined;
let bare: AsyncDisposable | undefined;

async function docker(...args: string[]): Promise<Ended> {
  return await execute("/usr/bin/docker", ["--host", `unix://${socket}`, ...args]);
}

/** docker that must succeed. */
async function done(...args: string[]): Promise<string> {
  const ended = await docker(...args);
  assert.equal(ended.code, 0, `docker ${args.join(" ")}: ${ended.stderr}`);
  return ended.stdout.trim();
}

const run = (...args: string[]): Promise<Ended> =>
  docker("run", "--rm", "--runtime", "isolate", "--network", "none", ...args);

async function makeImage(): Promise<void> {
  const root = join(folder, "image");
  for (const name of ["bin", "dev", "proc", "sys", "tmp", "etc", "root"])
    mkdirSync(join(root, name), { recursive: true });
  cpSync("/bin/busybox", join(root, "bin/busybox"));
  for (const name of [
    "sh",
    "true",
    "false",
    "cat",
    "id",
    "sleep",
    "echo",
    "ls",
    "ps",
    "kill",
    "test",
    "tty",
    "grep",
    "hostname",
    "touch",
    "head",
    "nproc",
    "ulimit",
    "wc",
    "stty",
    "mount",
  ])
    symlinkSync("busybox", join(root, "bin", name));
  const packed = await execute("/bin/tar", ["-C", root, "-cf", join(folder, "image.tar"), "."]);
  assert.equal(packed.code, 0, packed.stderr);
  await done("import", "--change", 'CMD ["/bin/sh"]', "--change", "ENV PATH=/bin", join(folder, "image.tar"), "box");
}

describe("dockerd with isolate as its runtime", { skip: absent ?? false, timeout: 180_000 }, () => {
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "skep-dockerd-"));
    socket = join(folder, "docker.sock");
    bare = await bareUnifiedTree();
    const options = [
      ["--host", `unix://${socket}`],
      ["--data-root", join(folder, "data")],
      ["--exec-root", join(folder, "exec")],
      ["--pidfile", join(folder, "pid")],
      ["--bridge", "none"],
      ["--cgroup-parent", `/${group}`],
      ["--add-runtime", `isolate=${isolatePath}`],
    ].flat();
    daemon = spawn(
      "/usr/bin/unshare",
      [
        "--net",
        "--mount",
        "--propagation",
        "private",
        "/usr/sbin/dockerd",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
        ...options,
      ],
      { stdio: "ignore" },
    );
    await until(async () => existsSync(socket) && (await docker("version")).code === 0, "dockerd answers");
    await makeImage();
  });

  after(async () => {
    const left = await docker("ps", "--all", "--quiet");
    for (const id of left.stdout.split("\n").filter((line) => line !== "")) await docker("rm", "--force", id);
    if (daemon !== undefined && daemon.exitCode === null) {
      const ended = once(daemon, "exit");
      daemon.kill("SIGTERM");
      await ended;
    }
    // A shim that lost its daemon in the middle of a removal stays; ours are known by our folder.
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      try {
        if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(folder)) process.kill(Number(pid), "SIGKILL");
      } catch {
        // Ended since the listing.
      }
    }
    removeGroups(group);
    removeGroups(peerGroup);
    await bare?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test("run gives output and exit status", async () => {
    const ended = await run("box", "sh", "-c", "echo out; echo err >&2; exit 7");
    assert.equal(ended.stdout, "out\n");
    assert.match(ended.stderr, /^err\n/);
    assert.equal(ended.code, 7);
  });

  test("a program that is not there ends with 127, one that may not run with 126", async () => {
    assert.equal((await run("box", "nothing-of-that-name")).code, 127);
    assert.equal((await run("box", "/etc")).code, 126);
  });

  test("user, working directory, environment, hostname and limits arrive", async () => {
    const ended = await run(
      "--user",
      "12:34",
      "--workdir",
      "/made/here",
      "--env",
      "WORD=w",
      "--hostname",
      "named",
      "--ulimit",
      "nofile=77:88",
      "box",
      "sh",
      "-c",
      "id -u; id -g; pwd; echo $WORD; hostname; ulimit -n",
    );
    assert.equal(ended.stdout, "12\n34\n/made/here\nw\nnamed\n77\n", ended.stderr);
  });

  test("resources become limits of the container's groups", async () => {
    const id = await done(
      "run",
      "--detach",
      "--runtime",
      "isolate",
      "--network",
      "none",
      "--memory",
      "64m",
      "--cpus",
      "0.5",
      "--pids-limit",
      "33",
      "box",
      "sleep",
      "100",
    );
    const read = (controller: string, file: string): string =>
      readFileSync(join("/sys/fs/cgroup", controller, group, id, file), "utf8").trim();
    if (existsSync("/sys/fs/cgroup/memory/tasks")) {
      assert.equal(read("memory", "memory.limit_in_bytes"), String(64 << 20));
      assert.equal(read("cpu", "cpu.cfs_quota_us"), "50000");
      assert.equal(read("pids", "pids.max"), "33");
    }
    await done("update", "--pids-limit", "44", id);
    if (existsSync("/sys/fs/cgroup/pids/tasks")) assert.equal(read("pids", "pids.max"), "44");
    await done("rm", "--force", id);
  });

  test("exec, top, stats, pause, unpause, kill and restart work", async () => {
    const id = await done("run", "--detach", "--runtime", "isolate", "--network", "none", "box", "sleep", "100");
    assert.equal(await done("exec", "--env", "A=b", id, "sh", "-c", "echo $A"), "b");
    assert.equal((await docker("exec", id, "sh", "-c", "exit 9")).code, 9);
    assert.match(await done("top", id), /sleep 100/);
    // Hosts differ in what containerd finds; what it tells of a container of runc it has to tell of ours.
    const stats = async (name: string): Promise<string> =>
      await done("stats", "--no-stream", "--format", "{{.PIDs}}", name);
    const peer = await done(
      "run",
      "--detach",
      "--network",
      "none",
      "--cgroup-parent",
      `/${peerGroup}`,
      "box",
      "sleep",
      "100",
    );
    assert.equal(await stats(id), await stats(peer));
    await done("rm", "--force", peer);
    await done("pause", id);
    assert.equal(await done("inspect", "--format", "{{.State.Status}}", id), "paused");
    await done("unpause", id);
    await done("restart", "--time", "0", id);
    assert.equal(await done("inspect", "--format", "{{.State.Status}}", id), "running");
    await done("kill", id);
    await until(
      async () => (await done("inspect", "--format", "{{.State.ExitCode}}", id)) === "137",
      "exit status 137",
    );
    await done("rm", id);
  });

  test("a terminal is one", async () => {
    const ended = await run("--tty", "box", "sh", "-c", "test -t 0 && test -t 1 && tty");
    assert.match(ended.stdout, /\/dev\/(pts\/0|console)/);
  });

  test("volumes, tmpfs, a read-only root and dropped capabilities hold", async () => {
    const volume = mkdtempSync(join(folder, "volume-"));
    const ended = await run(
      "--volume",
      `${volume}:/v`,
      "--volume",
      `${volume}:/r:ro`,
      "--tmpfs",
      "/t:size=64k",
      "--read-only",
      "--cap-drop",
      "ALL",
      "box",
      "sh",
      "-c",
      "touch /v/x; touch /r/y || echo ro; touch /z || echo root; touch /t/a && echo tmp; grep CapEff /proc/self/status",
    );
    assert.match(ended.stdout, /^ro\nroot\ntmp\nCapEff:\s0+\n$/, ended.stderr);
    assert.ok(existsSync(join(volume, "x")));
  });

  test("privileged and the namespaces of the host or of another container work", async () => {
    assert.equal(
      (await run("--privileged", "box", "sh", "-c", "mount -t tmpfs x /tmp && echo mounted")).stdout,
      "mounted\n",
    );
    const id = await done("run", "--detach", "--runtime", "isolate", "--network", "none", "box", "sleep", "100");
    const other = await docker(
      "run",
      "--rm",
      "--runtime",
      "isolate",
      "--network",
      `container:${id}`,
      "--pid",
      `container:${id}`,
      "box",
      "ps",
    );
    assert.match(other.stdout, /sleep 100/, other.stderr);
    assert.equal((await run("--pid", "host", "box", "sh", "-c", "test $$ -gt 1 && echo host")).stdout, "host\n");
    await done("rm", "--force", id);
  });

  test("the out-of-memory killer is told", async () => {
    const id = await done(
      "run",
      "--detach",
      "--runtime",
      "isolate",
      "--network",
      "none",
      "--memory",
      "16m",
      "--memory-swap",
      "16m",
      "box",
      "sh",
      "-c",
      "x=$(head -c 60000000 /dev/zero | cat -v); echo survived",
    );
    await until(async () => (await done("inspect", "--format", "{{.State.Running}}", id)) === "false", "it ended");
    assert.equal((await docker("logs", id)).stdout, "");
    await done("rm", id);
  });

  test("nothing of the containers remains", async () => {
    assert.equal(await done("ps", "--all", "--quiet"), "");
    for (const controller of ["memory", "pids", "unified"]) {
      const path = join("/sys/fs/cgroup", controller, group);
      // docker rm answers before its last step.
      const empty = async (): Promise<boolean> =>
        (await execute("/usr/bin/find", [path, "-mindepth", "1", "-type", "d"])).stdout === "";
      if (existsSync(path)) await until(empty, `${path} is empty`);
    }
  });
});
