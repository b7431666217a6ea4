/** The real docker CLI against our socket: what a user types, and what comes back. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";

import { whySkipped } from "../containers/host.ts";
import { LocalWorld } from "./local-world.ts";

function whyNot(): string | false {
  if (whySkipped() !== false) return whySkipped();
  if (spawnSync("docker", ["--version"]).status !== 0) return "needs the docker CLI";
  return false;
}

describe("the docker CLI", { skip: whyNot(), timeout: 240_000 }, () => {
  let world: LocalWorld;
  before(async () => {
    world = await LocalWorld.open();
  });
  after(async () => {
    await world.close();
  });
  afterEach(async () => {
    for (const container of world.worker.containers.list()) await container.remove({ force: true, volumes: true });
  });

  /** Succeeds; standard output without its last newline. */
  const docker = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await world.docker(args);
    assert.equal(code, 0, `docker ${args.join(" ")}: ${stderr}`);
    return stdout.trimEnd();
  };
  /** Fails with this code, and says so. */
  const fails = async (code: number, says: RegExp, ...args: string[]): Promise<void> => {
    const result = await world.docker(args);
    assert.equal(result.code, code, result.stderr);
    assert.match(result.stderr + result.stdout, says);
  };
  /** On a terminal of 30 rows and 100 columns: texts are typed, patterns waited for; everything that was shown. */
  const onTerminal = async (command: string, ...steps: (string | RegExp)[]): Promise<string> => {
    const child = spawn("script", ["-qec", `stty rows 30 cols 100; ${command}`, "/dev/null"], {
      env: { ...world.environment, TERM: "xterm" },
      stdio: ["pipe", "pipe", "ignore"],
      timeout: 60_000,
      killSignal: "SIGKILL",
    });
    let shown = "";
    const closed = once(child, "close");
    child.stdout.on("data", (chunk: Buffer) => (shown += chunk.toString("utf8")));
    for (const step of steps) {
      if (typeof step === "string") child.stdin.write(step);
      else while (!step.test(shown)) await once(child.stdout, "data", { signal: AbortSignal.timeout(20_000) });
    }
    const [, signal] = (await closed) as [number | null, string | null];
    assert.equal(signal, null, `it did not end by itself: ${shown}`);
    return shown;
  };

  test("version, info and network ls know the engine", async () => {
    assert.match(await docker("version", "--format", "{{.Server.APIVersion}}"), /^1\.50$/);
    assert.equal(await docker("info", "--format", "{{.Name}} {{.Images}} {{.Swarm.LocalNodeState}}"), "bee 2 inactive");
    assert.equal(
      await docker("network", "ls", "--format", "{{.Name}}:{{.Driver}}"),
      "bridge:bridge\nhost:host\nnone:null",
    );
    await fails(1, /this node makes no networks of its own/, "network", "create", "br1");
  });

  test("run gives both streams and the exit code, and warns that there is no bridge", async () => {
    const { code, stdout, stderr } = await world.docker([
      "run",
      "--rm",
      "busybox",
      "sh",
      "-c",
      "echo out; echo err >&2; exit 3",
    ]);
    assert.deepEqual([code, stdout], [3, "out\n"]);
    assert.match(stderr, /WARNING: There is no bridge network on this node/);
    assert.match(stderr, /^err$/m);
    assert.equal(await docker("ps", "-aq"), "");
    const quiet = await world.docker(["run", "--rm", "--network", "host", "busybox", "true"]);
    assert.deepEqual([quiet.code, quiet.stderr], [0, ""]);
  });

  test("run -i carries standard input and its end", async () => {
    const text = "x".repeat(200_000);
    const { code, stdout } = await world.docker(
      ["run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c", "cat; echo done"],
      text,
    );
    assert.equal(code, 0);
    assert.ok(stdout === `${text}done\n`, `${stdout.length} characters came back`);
  });

  test("run -it has a terminal of the client's size, and exec -it as well", async () => {
    // Clients that cannot say their size beforehand say it when it runs already.
    const looks = "until stty size | grep 30.100; do sleep 0.1; done";
    const shown = await onTerminal("docker run --rm -it --network none busybox sh", /# /, `${looks}; exit 5\n`);
    assert.match(shown, /30 100/);
    await docker("run", "-d", "--network", "none", "--name", "tty1", "bb:1");
    const inside = await onTerminal(`docker exec -it tty1 sh -c "${looks}"`);
    assert.match(inside, /30 100/);
  });

  test("ctrl-p ctrl-q leaves a terminal, and what runs in it goes on", async () => {
    const shown = await onTerminal(
      "docker run --name left -it --network none busybox sh",
      /# /,
      "echo he''re\n",
      /here/,
      "\u0010\u0011",
    );
    assert.match(shown, /here/);
    assert.equal(await docker("inspect", "left", "--format", "{{.State.Status}}"), "running");
  });

  test("a program that is not there is 127, one that cannot run 126, an image that is not there is pulled for", async () => {
    await fails(127, /executable file not found/, "run", "--rm", "busybox", "nosuchcmd");
    await fails(127, /no such file or directory/, "run", "--rm", "busybox", "/no/such");
    await fails(126, /permission denied/i, "run", "--rm", "busybox", "/etc/passwd");
    const never = ["run", "--rm", "--network", "none", "--pull", "never"];
    const differs = /its platform \(linux\/amd64\) does not match the specified platform \(linux\/s390x\)/;
    await fails(125, differs, ...never, "--platform", "linux/s390x", "busybox", "true");
    await docker(...never, "--platform", "linux/amd64", "--annotation", "a=b", "busybox", "true");
    await fails(125, /range of CPUs is from 0.01 to/, ...never, "--cpus", "100000", "busybox");
    await fails(125, /unknown log opt 'foo' for json-file log driver/, ...never, "--log-opt", "foo=1", "busybox");
    // With 404 the client would look for the image.
    await fails(125, /^docker: Error.*nosuch/, "run", "--rm", "--volume-driver", "nosuch", "-v", "vol:/x", "busybox");
    await fails(125, /Unable to find image '127.0.0.1:1\/nosuch:1' locally/, "run", "127.0.0.1:1/nosuch:1");
    assert.equal(await docker("ps", "-aq"), "");
  });

  test("exec: -i, -d, codes, users and what is missing", async () => {
    await docker("run", "-d", "--network", "none", "--name", "c1", "bb:1");
    assert.equal((await world.docker(["exec", "-i", "c1", "cat"], "hello\n")).stdout, "hello\n");
    assert.equal(
      await docker("exec", "-u", "joe", "-w", "/tmp", "-e", "A=1", "c1", "sh", "-c", "id -un; pwd; echo $A"),
      "joe\n/tmp\n1",
    );
    assert.equal((await world.docker(["exec", "c1", "sh", "-c", "exit 9"])).code, 9);
    await fails(127, /executable file not found/, "exec", "c1", "nosuchcmd");
    await docker("exec", "-d", "c1", "touch", "/tmp/detached");
    await docker("exec", "c1", "sh", "-c", "until [ -e /tmp/detached ]; do sleep 0.05; done");
    await docker("stop", "-t", "0", "c1");
    await fails(1, /is not running/, "exec", "c1", "true");
  });

  test("logs: all, tail, since, timestamps, and -f until the end", async () => {
    await docker(
      "run",
      "-d",
      "--network",
      "none",
      "--name",
      "talker",
      "busybox",
      "sh",
      "-c",
      "echo one; echo two >&2; sleep 0.5; echo three",
    );
    const followed = await world.docker(["logs", "-f", "talker"]);
    assert.deepEqual([followed.stdout, followed.stderr], ["one\nthree\n", "two\n"]);
    assert.equal(await docker("logs", "--tail", "1", "talker"), "three");
    assert.match(await docker("logs", "-t", "--tail", "1", "talker"), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z three$/);
    assert.equal(await docker("logs", "--since", "2099-01-01", "talker"), "");
    assert.equal(await docker("logs", "--until", "2001-01-01", "talker"), "");
  });

  test("ps shows names, states, health and sizes, and filters", async () => {
    await docker(
      "run",
      "-d",
      "--network",
      "none",
      "--name",
      "well",
      "--label",
      "a=b",
      "--health-cmd",
      "true",
      "--health-interval",
      "100ms",
      "bb:1",
    );
    await docker("create", "--network", "none", "--name", "new1", "busybox");
    await docker("run", "--network", "none", "--name", "over", "busybox", "true");
    await docker("exec", "well", "sh", "-c", "echo 12345 > /five");
    const shown = /^well Up .* \((healthy|health: starting)\)$/;
    let health: string | undefined;
    do health = shown.exec(await docker("ps", "--format", "{{.Names}} {{.Status}}"))?.[1];
    while (health === "health: starting");
    assert.equal(health, "healthy");
    const all = await docker("ps", "-a", "--format", "{{.Names}} {{.State}}");
    assert.deepEqual(all.split("\n"), ["over exited", "new1 created", "well running"]);
    const named = async (...filters: string[]): Promise<string> =>
      docker("ps", "-a", "--format", "{{.Names}}", ...filters.flatMap((one) => ["--filter", one]));
    assert.equal(await named("label=a=b"), "well");
    assert.equal(await named("name=^/o"), "over");
    assert.equal(await named("status=created"), "new1");
    assert.equal(await named("exited=0"), "over");
    assert.equal(await named("health=healthy"), "well");
    assert.equal(await named("ancestor=bb:1"), "well");
    assert.equal(await named("since=new1"), "over");
    assert.equal(await named("before=new1"), "well");
    assert.equal(await named("network=none", "is-task=false", "name=new"), "new1");
    assert.match(await docker("ps", "-s", "--format", "{{.Size}}"), /^6B \(virtual /);
    await fails(1, /invalid filter 'foo'/, "ps", "--filter", "foo=bar");
    await fails(1, /invalid filter/, "ps", "--filter", "status=bogus");
  });

  test("cp both ways, into running and stopped containers, and diff sees it", async () => {
    await docker("run", "-d", "--network", "none", "--name", "box", "bb:1");
    writeFileSync(join(world.folder, "in.txt"), "brought\n");
    await docker("cp", "in.txt", "box:/root/in.txt");
    assert.equal(await docker("exec", "box", "cat", "/root/in.txt"), "brought");
    await docker("cp", "box:/root", "out");
    assert.equal(readFileSync(join(world.folder, "out/in.txt"), "utf8"), "brought\n");
    assert.deepEqual((await docker("diff", "box")).split("\n"), ["C /root", "A /root/in.txt"]);
    await docker("stop", "-t", "0", "box");
    await docker("cp", "box:/root/in.txt", "again.txt");
    assert.equal(readFileSync(join(world.folder, "again.txt"), "utf8"), "brought\n");
    await fails(1, /Could not find the file \/nosuch in container/, "cp", "box:/nosuch", ".");
  });

  test("stats, top, pause, update, rename, restart, kill and wait", async () => {
    await docker("run", "-d", "--network", "none", "--name", "c1", "bb:1");
    assert.match(
      await docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}"),
      /^c1 1 .+ \/ .+$/,
    );
    assert.match(await docker("top", "c1", "-o", "pid,comm"), /sleep/);
    await docker("pause", "c1");
    assert.equal(await docker("inspect", "c1", "--format", "{{.State.Status}}"), "paused");
    await docker("unpause", "c1");
    await docker("update", "--memory", "64m", "--memory-swap", "64m", "c1");
    assert.equal(await docker("inspect", "c1", "--format", "{{.HostConfig.Memory}}"), String(64 << 20));
    await docker("rename", "c1", "c2");
    await fails(1, /No such container: c1/, "restart", "c1");
    await docker("restart", "-t", "0", "c2");
    const waiting = docker("wait", "c2");
    await docker("kill", "c2");
    assert.equal(await waiting, "137");
    await fails(1, /is not running/, "kill", "c2");
    await docker("start", "c2");
    await fails(1, /stop the container before removing or force remove/, "rm", "c2");
    await fails(125, /The container name "\/c2" is already in use/, "run", "-d", "--name", "c2", "bb:1");
    await docker("rm", "-f", "c2");
  });

  test("images: tag, history, commit, save, load, import, rmi, prune", async () => {
    await docker("tag", "bb:1", "tagged/x:v1");
    assert.equal(await docker("images", "tagged/x", "--format", "{{.Repository}}:{{.Tag}}"), "tagged/x:v1");
    assert.match(await docker("history", "bb:1"), /Imported from -/);
    await docker("run", "--network", "none", "--name", "made", "busybox", "sh", "-c", "echo new > /new");
    await docker("commit", "-m", "why", "-a", "bee", "-c", 'CMD ["cat","/new"]', "-c", "ENV A=1", "made", "comm:1");
    assert.equal(await docker("run", "--rm", "--network", "none", "comm:1"), "new");
    assert.equal(await docker("image", "inspect", "comm:1", "--format", "{{.Config.Env}} {{.Author}}"), "[A=1] bee");
    await docker("save", "-o", "s.tar", "comm:1", "tagged/x:v1");
    await docker("rmi", "comm:1", "tagged/x:v1");
    assert.match(await docker("load", "-i", "s.tar"), /Loaded image: comm:1/);
    assert.equal(await docker("run", "--rm", "--network", "none", "comm:1"), "new");
    await docker("export", "-o", "e.tar", "made");
    await docker("import", "-c", "CMD cat /new", "-m", "exported", "e.tar", "imp:1");
    assert.equal(await docker("run", "--rm", "--network", "none", "imp:1"), "new");
    const conflict = (words: string): RegExp => new RegExp(`conflict: unable to ${words}`, "u");
    const using = "container [0-9a-f]{12} is using its referenced image [0-9a-f]{12}\\n";
    await fails(1, conflict(`remove repository reference "busybox" \\(must force\\) - ${using}`), "rmi", "busybox");
    await docker("run", "--network", "none", "--name", "ended", "imp:1", "true");
    const id = await docker("image", "inspect", "imp:1", "--format", "{{.Id}}");
    const stopped = "image is being used by stopped container [0-9a-f]{12}\\n";
    await fails(1, conflict(`delete ${id.slice(7, 19)} \\(must be forced\\) - ${stopped}`), "rmi", id);
    await docker("run", "-d", "--network", "none", "--name", "going", "imp:1", "sleep", "600");
    const running = "image is being used by running container [0-9a-f]{12}\\n";
    await fails(1, conflict(`delete ${id.slice(7, 19)} \\(cannot be forced\\) - ${running}`), "rmi", "-f", id);
    await docker("rm", "-f", "going", "ended");
    await docker("tag", "imp:1", "other/imp:1");
    const several = "image is referenced in multiple repositories\\n";
    await fails(1, conflict(`delete ${id.slice(7, 19)} \\(must be forced\\) - ${several}`), "rmi", id);
    assert.equal(await docker("rmi", "other/imp:1"), "Untagged: other/imp:1");
    await fails(1, /No such image: nosuch:latest/, "rmi", "nosuch");
    await docker("rmi", "imp:1", "comm:1", "tagged/x:v1");
    assert.match(await docker("image", "prune", "-f"), /Total reclaimed space/);
    const bad = await world.docker(["load"], "junk\n");
    assert.equal(bad.code, 1);
  });

  test("volumes: create, use, inspect, ls, in use, rm, prune", async () => {
    await docker("volume", "create", "--label", "a=b", "data");
    await docker("run", "--rm", "--network", "none", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/file");
    assert.equal(
      await docker("run", "--network", "none", "--name", "user1", "-v", "data:/d:ro", "busybox", "cat", "/d/file"),
      "kept",
    );
    assert.equal(
      await docker("volume", "inspect", "data", "--format", "{{.Labels.a}} {{.Driver}} {{.Scope}}"),
      "b local local",
    );
    assert.equal(await docker("volume", "ls", "-q", "--filter", "label=a=b"), "data");
    await fails(1, /volume is in use/, "volume", "rm", "data");
    await docker("rm", "user1");
    await docker("run", "--network", "none", "--name", "anon", "-v", "/v", "busybox", "true");
    await docker("rm", "anon");
    assert.equal((await docker("volume", "prune", "-f")).split("\n").length, 4);
    assert.equal(await docker("volume", "ls", "-q"), "data");
    await docker("volume", "rm", "data");
    await fails(1, /get data: no such volume/, "volume", "rm", "data");
    await fails(1, /includes invalid characters/, "volume", "create", "bad/name");
    await fails(1, /plugin "nosuch" not found/, "volume", "create", "-d", "nosuch", "volx");
  });

  test("events tell what happened, with filters", async () => {
    const sinceS = Math.floor(Date.now() / 1000) - 1;
    await docker("run", "--rm", "--network", "none", "--name", "evt", "busybox", "true");
    await docker("volume", "create", "evv");
    await docker("volume", "rm", "evv");
    const seen = async (...more: string[]): Promise<string[]> =>
      (
        await docker(
          "events",
          "--since",
          String(sinceS),
          "--until",
          (Date.now() / 1000).toFixed(3),
          "--format",
          "{{.Type}} {{.Action}}",
          ...more,
        )
      ).split("\n");
    assert.deepEqual(await seen("--filter", "container=evt"), [
      "container create",
      "container start",
      "container die",
      "container destroy",
    ]);
    assert.deepEqual(await seen("--filter", "volume=evv"), ["volume create", "volume destroy"]);
  });

  test("system df, prune, and what is not there is said so", async () => {
    await docker("run", "--network", "none", "--name", "done1", "busybox", "true");
    assert.match(await docker("system", "df"), /^Images +2 /m);
    assert.match(await docker("system", "prune", "-f"), /Deleted Containers/);
    assert.equal(await docker("plugin", "ls", "-q"), "");
    await fails(1, /No such object: nosuch/, "inspect", "nosuch");
    await fails(1, /not supported/, "search", "x");
    await fails(1, /ECONNREFUSED|no answer|not speak/, "login", "-u", "a", "-p", "b", "127.0.0.1:1");
  });
});
