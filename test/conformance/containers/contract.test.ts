/** What a container does, whatever runtime is below: the same tests with the built-in one, runc and crun. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { pipeline } from "node:stream/promises";

import { pack } from "tar-stream";

import {
  ContainerNotRunning,
  ContainerStartFailed,
  ContainerStateConflict,
  type Container,
} from "../../../worker/containers/index.ts";
import { realClock, type Clock } from "../../../lib/runtime/index.ts";
import { anyRuntime, runtimes, TestWorker } from "./host.ts";

const soon = (): AbortSignal => AbortSignal.timeout(120_000);

/** Waits for something that has no event; bounded. */
async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 2400; i++) {
    if (await holds()) return;
    await delay(25);
  }
  assert.fail(`not within 60 s: ${what}`);
}

async function logText(
  container: Container,
  options: { tail?: number; sinceNs?: bigint; untilNs?: bigint } = {},
): Promise<string> {
  let text = "";
  for await (const line of container.logs({ stdout: true, stderr: true, follow: false, ...options }, soon()))
    text += line.text.toString("utf8");
  return text;
}

for (const runtime of runtimes()) {
  describe(`containers with ${runtime.name}`, { skip: runtime.skip, timeout: 600_000 }, () => {
    let worker: TestWorker;
    before(async () => {
      worker = await new TestWorker(runtime.path).open();
    });
    after(async () => {
      await worker.close();
      assert.deepEqual(worker.remains(), []);
    });

    test("run gives output on both streams and the exit code", async () => {
      const { container, code, stdout, stderr } = await worker.run(["sh", "-c", "echo out; echo err >&2; exit 7"]);
      assert.deepEqual([code, stdout, stderr], [7, "out\n", "err\n"]);
      assert.equal(container.record.state.status, "exited");
      assert.equal(container.record.state.exit?.code, 7);
      assert.equal(await logText(container), "out\nerr\n");
      await container.remove();
      assert.ok(!existsSync(container.directory));
    });

    test("the image's environment, the user's, hostname, HOME and working directory arrive", async () => {
      const { container, stdout } = await worker.run(
        ["sh", "-c", "echo $FROM_IMAGE $MINE $HOME $HOSTNAME; hostname; pwd; cat /etc/hostname; id -u; id -G"],
        {},
        { Env: ["MINE=1"], User: "joe", WorkingDir: "/a/b", Hostname: "bee" },
      );
      assert.equal(stdout, "yes 1 /home/joe bee\nbee\n/a/b\nbee\n1000\n1000 77\n");
      await container.remove();
    });

    test("users are those of the image, also for the second container, and the container's own once it has changed them", async () => {
      for (let time = 0; time < 2; time++) {
        const { container, stdout } = await worker.run(["sh", "-c", "id -u; id -G"], {}, { User: "joe" });
        assert.equal(stdout, "1000\n1000 77\n");
        await container.remove();
      }
      const changed = await worker.create(["sh", "-c", "id -u"], {}, { User: "ann" });
      const tar = pack();
      tar.entry({ name: "passwd", mode: 0o644 }, "root:x:0:0::/:/bin/sh\nann:x:2000:2000::/:/bin/sh\n");
      tar.finalize();
      await changed.copyIn("/etc", tar as unknown as NodeJS.ReadableStream as never);
      const ended = changed.wait("next-exit", AbortSignal.timeout(120_000));
      await changed.start();
      await ended;
      assert.equal(await logText(changed), "2000\n");
      await changed.remove();
      const stranger = await worker.create(["true"], {}, { User: "ann" });
      await assert.rejects(stranger.start(), /unable to find user ann/u);
      await stranger.remove();
    });

    test("a program that does not exist fails the start with 127 and leaves the container created", async () => {
      const container = await worker.create(["/no/such/program"]);
      await assert.rejects(
        container.start(),
        (error) => error instanceof ContainerStartFailed && error.exitCode === 127,
      );
      assert.equal(container.record.state.status, "created");
      assert.equal(container.record.state.exit?.code, 127);
      assert.match(container.record.state.error, /no such file|not found/i);
      await container.remove();
    });

    test("stop sends the stop signal, and SIGKILL after the grace period", async () => {
      const polite = await worker.create(["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"]);
      await polite.start();
      await until("it is ready", async () => (await logText(polite)).includes("ready"));
      assert.equal(await polite.stop({ seconds: 10 }), true);
      assert.equal(polite.record.state.exit?.code, 5);
      assert.equal(await polite.stop(), false);
      const deaf = await worker.create(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
      await deaf.start();
      await deaf.stop({ seconds: 0 });
      assert.equal(deaf.record.state.exit?.code, 137);
      assert.equal(deaf.record.state.exit?.signal, 9);
      await polite.remove();
      await deaf.remove();
    });

    test("kill sends any signal, and refuses what does not run", async () => {
      const container = await worker.create([
        "sh",
        "-c",
        "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done",
      ]);
      await assert.rejects(container.kill(), ContainerNotRunning);
      await container.start();
      await until("it is ready", async () => (await logText(container)).includes("ready"));
      await container.kill("USR1");
      await until("the trap ran", async () => (await logText(container)).includes("usr1"));
      const ended = container.wait("not-running", soon());
      await container.kill("SIGKILL");
      assert.equal((await ended).code, 137);
      await container.remove();
    });

    test("pause freezes and unpause thaws", async () => {
      const container = await worker.create(["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"]);
      await container.start();
      await until("it counts", async () => (await logText(container)).includes("3\n"));
      await container.pause();
      assert.equal(container.record.state.status, "paused");
      assert.throws(() => container.createExec({ Cmd: ["true"] }), ContainerStateConflict);
      // What was in the pipe may still be on its way to the log; running it would say something fifty times in this time.
      let frozen = await logText(container);
      await until("its output ends", async () => {
        await delay(1000);
        const before = frozen;
        frozen = await logText(container);
        return frozen === before;
      });
      await container.unpause();
      await until("it counts on", async () => (await logText(container)).length > frozen.length);
      await container.remove({ force: true });
    });

    test("one that is paused may be killed, stopped and removed by force at the same time", async () => {
      for (const act of ["kill", "stop", "remove"] as const) {
        const container = await worker.create(["sleep", "1000"]);
        await container.start();
        await container.pause();
        const other = {
          kill: () => container.kill("KILL"),
          stop: () => container.stop({ seconds: 0 }),
          remove: () => container.remove({ force: true }),
        }[act]();
        await Promise.all([other, container.remove({ force: true })]);
        assert.ok(!existsSync(container.directory), act);
      }
    });

    test("one that is started in the same moment is not removed under its processes", async () => {
      const container = await worker.create(["sleep", "1000"]);
      const started = container.start();
      await assert.rejects(container.remove(), ContainerStateConflict);
      assert.equal(await started, true);
      assert.equal(container.record.state.status, "running");
      await container.stop({ seconds: 0 });
      const again = container.start();
      const pruned = worker.containers.prune(({ id }) => id !== container.id);
      assert.equal(await again, true);
      assert.deepEqual(await pruned, []);
      await container.stop({ seconds: 0 });
      const last = container.start();
      const removed = container.remove({ force: true });
      assert.equal(await last, true);
      const { pid } = container.record.state;
      await removed;
      assert.ok(!existsSync(`/proc/${pid}`));
      assert.ok(!existsSync(container.directory));
    });

    test("of two new names in the same moment the first is free again", async () => {
      const named = (name: string): Promise<Container> =>
        worker.containers.create({
          name,
          config: { Image: "busybox", Cmd: ["true"] },
          hostConfig: { NetworkMode: "none" },
        });
      const container = await named("twice");
      const { id } = container;
      await Promise.all([worker.containers.rename(id, "twice-a"), worker.containers.rename(id, "twice-b")]);
      assert.equal(container.record.name, "twice-b");
      for (const name of ["twice", "twice-a"]) {
        assert.throws(() => worker.containers.get(name), { code: "CONTAINER_NOT_FOUND" });
        await (await named(name)).remove();
      }
      await container.remove();
    });

    test("who waited while it was removed does not write it anew", async () => {
      const container = await worker.create(["true"]);
      const removed = container.remove();
      await assert.rejects(container.rename("late"), ContainerStateConflict);
      await removed;
      await worker.reopen();
      assert.ok(!worker.containers.list().some(({ id }) => id === container.id));
    });

    test("attach carries standard input, and its end", async () => {
      const container = await worker.create(["cat"], {}, { OpenStdin: true, StdinOnce: true });
      const attachment = await container.attach({ stdin: true, stdout: true, stderr: true });
      const ended = container.wait("next-exit", soon());
      await container.start();
      const sent = Buffer.alloc(300_000, "0123456789abcdef\n");
      const writing = attachment.write(sent).then(() => attachment.closeStdin());
      const got: Buffer[] = [];
      for await (const { bytes } of attachment.output()) got.push(bytes);
      await writing;
      assert.ok(Buffer.concat(got).equals(sent));
      assert.equal((await ended).code, 0);
      attachment[Symbol.dispose]();
      await container.remove();
    });

    test("a terminal has a size, echoes, and merges the streams", async () => {
      const container = await worker.create(["sh"], { ConsoleSize: [24, 80] }, { Tty: true, OpenStdin: true });
      const attachment = await container.attach({ stdin: true, stdout: true, stderr: true });
      const ended = container.wait("next-exit", soon());
      await container.start();
      await container.resize(33, 99);
      await attachment.write(Buffer.from("stty size; echo err >&2; tty; exit 3\n"));
      let text = "";
      for await (const { stream, bytes } of attachment.output()) {
        assert.equal(stream, "stdout");
        text += bytes.toString("utf8");
      }
      assert.match(text, /33 99\r\n/);
      assert.match(text, /err\r\n/);
      assert.match(text, /\/dev\/(pts\/0|console)\r\n/);
      assert.equal((await ended).code, 3);
      attachment[Symbol.dispose]();
      await container.remove();
    });

    test("exec runs beside it: output, exit code, user, environment, directory, input, terminal", async () => {
      const container = await worker.create(["sleep", "1000"]);
      await container.start();
      assert.deepEqual(await worker.exec(container, ["sh", "-c", "echo hi; exit 9"]), { code: 9, output: "hi\n" });
      const options = { User: "joe", Env: ["A=b"], WorkingDir: "/tmp" };
      assert.deepEqual(await worker.exec(container, ["sh", "-c", "id -u; echo $A $FROM_IMAGE $HOME; pwd"], options), {
        code: 0,
        output: "1000\nb yes /home/joe\n/tmp\n",
      });
      const session = worker.containers.createExec(container.id, {
        Cmd: ["cat"],
        AttachStdin: true,
        AttachStdout: true,
      });
      const stream = await container.startExec(session, { detach: false });
      await stream.write(Buffer.from("through"));
      await stream.closeStdin();
      assert.equal((await stream.drain(100)).toString(), "through");
      assert.deepEqual([session.status, session.exitCode], ["exited", 0]);
      const tty = worker.containers.createExec(container.id, {
        Cmd: ["sh", "-c", "stty size; test -t 0"],
        Tty: true,
        ConsoleSize: [20, 70],
      });
      const terminal = await container.startExec(tty, { detach: false });
      assert.match((await terminal.drain(100)).toString(), /20 70/);
      assert.equal(await terminal.exit, 0);
      await assert.rejects(worker.exec(container, ["/nope"]), { code: "EXEC_FAILED", exitCode: 127 });
      const detached = worker.containers.createExec(container.id, { Cmd: ["sh", "-c", "touch /tmp/detached; exit 4"] });
      await container.startExec(detached, { detach: true });
      await until("the detached session ends", () => detached.status === "exited");
      assert.equal(detached.exitCode, 4);
      await container.remove({ force: true });
      await assert.rejects(worker.exec(container, ["true"]));
    });

    test("logs: tail, since, until, follow", async () => {
      // What is written in one moment may be stored in one: it goes on when its first line is there.
      const script = "echo a; read x; echo b; echo c; printf end";
      const container = await worker.create(["sh", "-c", script], {}, { OpenStdin: true });
      const attachment = await container.attach({ stdin: true, stdout: false, stderr: false });
      await container.start();
      let followed = "";
      let bTime = 0n;
      for await (const line of container.logs({ stdout: true, stderr: true, follow: true }, soon())) {
        followed += line.text.toString();
        if (line.text.toString() === "a\n") await attachment.write(Buffer.from("go on\n"));
        if (line.text.toString() === "b\n") bTime = line.timeNs;
      }
      attachment[Symbol.dispose]();
      assert.equal(followed, "a\nb\nc\nend");
      assert.equal(await logText(container, { tail: 2 }), "c\nend");
      assert.equal(await logText(container, { tail: 0 }), "");
      assert.equal(await logText(container, { sinceNs: bTime }), "b\nc\nend");
      assert.equal(await logText(container, { untilNs: bTime - 1n }), "a\n");
      await container.remove();
    });

    test("limits are set, changed while it runs, and told by stats", async () => {
      const container = await worker.create(["sleep", "1000"], {
        Memory: 64 << 20,
        PidsLimit: 50,
        NanoCpus: 500_000_000,
      });
      await container.start();
      const stats = await container.stats();
      assert.equal(stats?.memory_stats.limit, 64 << 20);
      assert.equal(stats?.pids_stats.limit, 50);
      assert.ok((stats?.cpu_stats.cpu_usage.total_usage ?? 0) > 0);
      await container.update({ Memory: 96 << 20, MemorySwap: 192 << 20, PidsLimit: 60 });
      const changed = await container.stats();
      assert.equal(changed?.memory_stats.limit, 96 << 20);
      assert.equal(changed?.pids_stats.limit, 60);
      await container.remove({ force: true });
    });

    test("running out of memory is told as such", async () => {
      const container = await worker.create(["sh", "-c", "x=a; while :; do x=$x$x; done"], {
        Memory: 16 << 20,
        MemorySwap: 16 << 20,
      });
      const ended = container.wait("next-exit", soon());
      await container.start();
      const exit = await ended;
      assert.equal(exit.oomKilled, true);
      assert.notEqual(exit.code, 0);
      await container.remove();
    });

    test("bind, volume, tmpfs and read-only root", async () => {
      const shared = join(worker.base, `shared-${runtime.name}`);
      mkdirSync(shared);
      writeFileSync(join(shared, "given"), "from the host");
      const script =
        "cat /in/given; echo x > /in/y || echo refused; echo z > /vol/z; touch /t/f && echo tmpfs; touch /root/f || echo read-only";
      const { container, stdout } = await worker.run(["sh", "-c", script], {
        Binds: [`${shared}:/in:ro`, `data-${runtime.name}:/vol`],
        Tmpfs: { "/t": "size=1m" },
        ReadonlyRootfs: true,
      });
      assert.equal(stdout, "from the hostrefused\ntmpfs\nread-only\n");
      const again = await worker.run(["cat", "/vol/z"], { Binds: [`data-${runtime.name}:/vol`] });
      assert.equal(again.stdout, "z\n");
      await container.remove();
      await again.container.remove();
    });

    test("an unnamed volume starts with what the image has there, and goes when asked", async () => {
      const { container, stdout } = await worker.run(["ls", "/home"], {
        Mounts: [{ Type: "volume", Target: "/home" }],
      });
      assert.equal(stdout, "joe\n");
      const [volume] = container.record.anonymousVolumes;
      assert.ok(volume !== undefined);
      await container.remove({ volumes: true });
      assert.ok(!existsSync(join(worker.settings.dataDirectory, "volumes", volume)));
    });

    test("capabilities, seccomp and masked paths are the Engine's defaults", async () => {
      const script =
        "grep -E 'CapEff|CapInh|CapAmb|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null || echo no-mount; " +
        "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; echo 1 > /proc/sysrq-trigger || echo ro";
      const { container, stdout } = await worker.run(["sh", "-c", script]);
      assert.match(stdout, /CapInh:\t0{16}\nCapEff:\t00000000a80425fb\nCapAmb:\t0{16}\nSeccomp:\t2\nno-mount\n0\nro\n/);
      await container.remove();
      const more = await worker.run(["grep", "CapEff", "/proc/self/status"], {
        CapAdd: ["NET_ADMIN"],
        CapDrop: ["ALL"],
      });
      assert.match(more.stdout, /0000000000001000/);
      await more.container.remove();
      const all = await worker.run(
        ["sh", "-c", "grep Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted"],
        { Privileged: true },
      );
      assert.match(all.stdout, /Seccomp:\t0\nmounted\n/);
      await all.container.remove();
    });

    test("restart policies: on-failure gives up after its count, always goes on until it is stopped", async () => {
      const failing = await worker.create(["sh", "-c", "exit 1"], {
        RestartPolicy: { Name: "on-failure", MaximumRetryCount: 2 },
      });
      await failing.start();
      await failing.wait("not-running", soon());
      assert.equal(failing.record.state.restartCount, 2);
      assert.equal(failing.record.state.status, "exited");
      await failing.remove();
      const always = await worker.create(["sh", "-c", "echo once"], { RestartPolicy: { Name: "always" } });
      await always.start();
      await until("it came back", () => always.record.state.restartCount >= 2);
      await always.stop();
      const count = always.record.state.restartCount;
      await delay(1000);
      assert.deepEqual([always.record.state.restartCount, always.record.state.status], [count, "exited"]);
      await always.remove();
    });

    test("health: starting, healthy, unhealthy with the probe's output; a probe that hangs is killed", async () => {
      const container = await worker.create(
        ["sleep", "1000"],
        {},
        {
          Healthcheck: { Test: ["CMD-SHELL", "cat /tmp/ok"], Interval: 1e8, Timeout: 2e9, Retries: 2 },
        },
      );
      await container.start();
      assert.equal(container.record.state.health.status, "starting");
      await worker.exec(container, ["touch", "/tmp/ok"]);
      await until("it is healthy", () => container.record.state.health.status === "healthy");
      await worker.exec(container, ["rm", "/tmp/ok"]);
      await until("it is unhealthy", () => container.record.state.health.status === "unhealthy");
      assert.match(container.record.state.health.log.at(-1)?.output ?? "", /No such file/);
      await container.remove({ force: true });
      const slow = await worker.create(
        ["sleep", "1000"],
        {},
        { Healthcheck: { Test: ["CMD", "sleep", "77"], Interval: 5e7, Timeout: 2e8, Retries: 1 } },
      );
      await slow.start();
      await until("it is unhealthy", () => slow.record.state.health.status === "unhealthy");
      assert.match(slow.record.state.health.log[0]?.output ?? "", /exceeded timeout/);
      const { processes } = await slow.top();
      assert.ok(processes.filter((fields) => fields.at(-1)?.includes("sleep 77")).length <= 1);
      await slow.remove({ force: true });
    });

    test("wait: next-exit and removed; a removed container takes its name along", async () => {
      const container = await worker.create(["sleep", "1000"]);
      await worker.containers.rename(container.id, `named-${runtime.name}`);
      await container.start();
      const exit = container.wait("next-exit", soon());
      const removed = container.wait("removed", soon());
      await assert.rejects(container.remove(), ContainerStateConflict);
      await container.remove({ force: true });
      assert.equal((await exit).code, 137);
      assert.equal((await removed).code, 137);
      assert.throws(() => worker.containers.get(`named-${runtime.name}`), { code: "CONTAINER_NOT_FOUND" });
    });

    test("AutoRemove leaves nothing but the exit code", async () => {
      const container = await worker.create(["sh", "-c", "exit 6"], { AutoRemove: true });
      const removed = container.wait("removed", soon());
      await container.start();
      assert.equal((await removed).code, 6);
      assert.ok(!worker.containers.list().includes(container));
    });

    test("copy in and out, of a running and of a stopped container; links stay inside", async () => {
      const outside = join(worker.base, `outside-${runtime.name}`);
      mkdirSync(outside);
      const container = await worker.create(["sh", "-c", `ln -s ${outside} /escape; ln -s / /slash; sleep 1000`]);
      await container.start();
      await until("the links are there", async () => (await worker.exec(container, ["ls", "/slash"])).code === 0);
      for (const state of ["running", "stopped"]) {
        const tar = pack();
        tar.entry({ name: `file-${state}`, mode: 0o640 }, "content");
        tar.finalize();
        await container.copyIn("/slash/root", tar as unknown as NodeJS.ReadableStream as never);
        const hostile = pack();
        hostile.entry({ name: "../../../../escaped" }, "x");
        hostile.finalize();
        await container.copyIn("/tmp", hostile as unknown as NodeJS.ReadableStream as never).catch(() => undefined);
        const out = await container.copyOut(`/root/file-${state}`);
        const chunks: Buffer[] = [];
        await pipeline(out.stdout, async (source) => {
          for await (const chunk of source) chunks.push(chunk as Buffer);
        });
        await out.done;
        assert.match(Buffer.concat(chunks).toString("latin1"), new RegExp(`^file-${state}.*content`, "s"));
        await assert.rejects(container.statPath("/nothing"), { code: "CONTAINER_PATH_NOT_FOUND" });
        if (state === "running") await container.stop({ seconds: 0 });
      }
      const followed = pack();
      followed.entry({ name: "y" }, "y");
      followed.finalize();
      // The link leads to a path that only the host has: inside the container it does not exist.
      await assert.rejects(container.copyIn("/escape", followed as unknown as NodeJS.ReadableStream as never));
      assert.deepEqual([existsSync(join(outside, "y")), existsSync("/escaped")], [false, false]);
      await container.remove();
    });

    test("changes, export and commit show what the container did", async () => {
      const { container } = await worker.run(["sh", "-c", "echo n > /root/new; rm /etc/group; echo >> /etc/passwd"]);
      const changes = (await container.changes()).map(({ kind, path }) => `${"CAD"[kind]} ${path}`).sort();
      assert.deepEqual(changes, ["A /root/new", "C /etc", "C /etc/passwd", "C /root", "D /etc/group"]);
      const image = await container.commit({ pause: true, author: "", comment: "" });
      const again = await worker.run(["sh", "-c", "cat /root/new; ls /etc/group"], {}, { Image: image });
      assert.equal(again.stdout, "n\n");
      const exported = await container.export();
      let bytes = 0;
      for await (const chunk of exported.stdout) bytes += (chunk as Buffer).length;
      await exported.done;
      assert.ok(bytes > 1_000_000);
      await container.remove();
      await again.container.remove();
    });

    test("namespaces of the host and of another container", async () => {
      const first = await worker.create(["sleep", "1000"], { NetworkMode: "none" });
      await first.start();
      const link = "readlink /proc/self/ns/net";
      const own = (await worker.exec(first, ["sh", "-c", link])).output;
      const joined = await worker.run(["sh", "-c", link], { NetworkMode: `container:${first.id}` });
      assert.equal(joined.stdout, own);
      const host = await worker.run(["sh", "-c", link], { NetworkMode: "host" });
      assert.notEqual(host.stdout, own);
      const groups = await worker.run(["grep", "-c", "skep-test", "/proc/self/cgroup"], { CgroupnsMode: "host" });
      assert.notEqual(groups.stdout, "0\n");
      await groups.container.remove();
      for (const { container } of [joined, host]) await container.remove();
      await first.remove({ force: true });
    });

    test("the daemon may be replaced: it finds the container, its output goes on, its end is known", async () => {
      const container = await worker.create([
        "sh",
        "-c",
        "i=0; while [ ! -e /tmp/enough ]; do i=$((i+1)); echo $i; sleep 0.02; done; exit 8",
      ]);
      const leave = join(worker.base, `leave-${runtime.name}`);
      mkdirSync(leave);
      const short = await worker.create(["sh", "-c", "until [ -e /leave/now ]; do sleep 0.02; done; exit 9"], {
        Binds: [`${leave}:/leave:ro`],
      });
      await container.start();
      await short.start();
      await worker.containers[Symbol.asyncDispose]();
      writeFileSync(join(leave, "now"), "");
      await until("the short one has ended", () => existsSync(join(short.stateDirectory, "exit.json")));
      await worker.open();
      assert.deepEqual(worker.containers.recovery.adopted, [container.id]);
      assert.deepEqual(worker.containers.recovery.ended, [short.id]);
      assert.equal(worker.containers.get(short.id).record.state.exit?.code, 9);
      const adopted = worker.containers.get(container.id);
      const lines = async (): Promise<number> => (await logText(adopted)).split("\n").length - 1;
      const before = await lines();
      await until("its output goes on", async () => (await lines()) > before);
      const ended = adopted.wait("not-running", soon());
      await worker.exec(adopted, ["touch", "/tmp/enough"]);
      assert.equal((await ended).code, 8);
      const count = await lines();
      assert.equal(await logText(adopted), Array.from({ length: count }, (_, i) => `${i + 1}\n`).join(""));
      await adopted.remove();
      await worker.containers.get(short.id).remove();
    });

    test("an init process reaps and forwards signals", { skip: false }, async (context) => {
      if (worker.settings.programs.init === undefined) return context.skip("native/build/init is not built");
      const container = await worker.create(
        ["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"],
        { Init: true },
      );
      await container.start();
      await until("it is ready", async () => (await logText(container)).includes("ready"));
      const { output } = await worker.exec(container, ["cat", "/proc/1/comm"]);
      assert.match(output, /init/);
      await container.stop({ seconds: 5 });
      assert.equal(container.record.state.exit?.code, 5);
      await container.remove();
    });
  });
}

test("who asks how it ended while that is being written down hears it", { skip: anyRuntime().skip }, async () => {
  let ofWhat: Container | undefined;
  let told: ReturnType<Container["wait"]> | undefined;
  const clock: Clock = {
    wallMs: () => realClock.wallMs(),
    after: (ms, callback) => realClock.after(ms, callback),
    every: (ms, callback) => realClock.every(ms, callback),
    // How long it lived is asked for when its life is over and its record does not say so yet.
    monotonicMs: () => {
      if (ofWhat?.running === false) told ??= ofWhat.wait("not-running", soon());
      return realClock.monotonicMs();
    },
  };
  const worker = await new TestWorker(anyRuntime().path, { clock }).open();
  try {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    ofWhat = container;
    assert.equal(container.record.state.exit, undefined);
    await container.kill();
    await container.wait("not-running", soon());
    assert.equal((await told)?.code, 137);
  } finally {
    await worker.close();
  }
});

test("a link in place of the log file is refused", { skip: runtimes()[1]?.skip }, async () => {
  const worker = await new TestWorker("/usr/sbin/runc").open();
  try {
    const container = await worker.create(["echo", "x"]);
    symlinkSync("/etc/passwd", container.logPath);
    const before = readFileSync("/etc/passwd", "utf8");
    await assert.rejects(container.start(), ContainerStartFailed);
    assert.equal(readFileSync("/etc/passwd", "utf8"), before);
  } finally {
    await worker.close();
  }
});
