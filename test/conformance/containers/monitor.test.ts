/** The monitor's own promises (docs/design/monitor.md, points 1 to 13), with real processes. M1 to M13 are those points. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { type Container } from "../../../worker/containers/index.ts";
import { readFramesAfter } from "../../../worker/containers/log-reader.ts";
import { anyRuntime, native, TestWorker } from "./host.ts";

const runtime = anyRuntime();
const faults = join(native, "faults", "isolate");
const soon = (): AbortSignal => AbortSignal.timeout(120_000);

async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  for (let waited = 0; waited < ms; waited += 25) {
    if (await holds()) return;
    await delay(25);
  }
  assert.fail(`not within ${ms} ms: ${what}`);
}

function alive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false; // there is none, or it ended while it was looked at
  }
}

function readStatus(pid: number, key: string): string {
  return new RegExp(`^${key}:\\s*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
}

interface StateFile {
  readonly pid: number;
  readonly monitorPid: number;
}

const stateOf = (container: Container): StateFile =>
  JSON.parse(readFileSync(join(container.stateDirectory, "state.json"), "utf8")) as StateFile;

describe("the monitor", { skip: runtime.skip, timeout: 900_000 }, () => {
  let worker: TestWorker;
  before(async () => {
    worker = await new TestWorker(runtime.path).open();
  });
  after(async () => {
    await worker.close();
    assert.deepEqual(worker.remains(), []);
  });

  test("M1: it is a small daemon of its own: session, one thread, no descriptor of ours, memory within its budget", async () => {
    const leak = openSync("/etc/passwd", constants.O_RDONLY);
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    closeSync(leak);
    const { monitorPid: pid } = stateOf(container);
    assert.notEqual(readStatus(pid, "PPid"), String(process.pid));
    assert.equal(readStatus(pid, "NSsid").split("\t").at(-1), String(pid));
    assert.equal(readStatus(pid, "Threads"), "1");
    assert.equal(readlinkSync(`/proc/${pid}/cwd`), "/");
    const links = readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return []; // closed since
      }
    });
    assert.ok(
      !links.some((link) => link.includes("passwd") || link.includes("level") || link.includes("/db/")),
      links.join(" "),
    );
    const memory = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    const privateKb = [...memory.matchAll(/^Private_(?:Clean|Dirty):\s+([0-9]+) kB$/gm)].reduce(
      (sum, match) => sum + Number(match[1]),
      0,
    );
    const anonymousKb = Number(/^Anonymous:\s+([0-9]+) kB$/m.exec(memory)?.[1]);
    // Clean file pages are private only as long as this is the one monitor of the machine.
    assert.ok(anonymousKb <= 128, `${anonymousKb} KiB of anonymous memory, ${privateKb} KiB private`);
    // CVE-2016-9962: not dumpable, so its files belong to root and nobody else may look at it.
    assert.equal(statSync(`/proc/${pid}/environ`).uid, 0);
    await container.remove({ force: true });
  });

  test("M2, M3: the container's process is the monitor's child", async () => {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    const { pid, monitorPid } = stateOf(container);
    assert.equal(readStatus(pid, "PPid"), String(monitorPid));
    await container.remove({ force: true });
  });

  test("M4: a container that is created and never started goes away after its time, with its monitor", async () => {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    const bundle = join(worker.base, "bundle");
    cpSync(container.bundle, bundle, { recursive: true, filter: (path) => !/ctl$|stream$/.test(path) });
    await container.stop({ seconds: 0 });
    const state = join(worker.settings.runDirectory, "c", "0".repeat(64));
    const rootfs = join(worker.base, "images/busybox/rootfs");
    const text = readFileSync(join(bundle, "config.json"), "utf8").replaceAll(container.bundle, bundle);
    const spec = JSON.parse(text) as {
      root: { path: string };
      linux: { cgroupsPath: string };
    };
    spec.root.path = rootfs;
    spec.linux.cgroupsPath = `${worker.settings.cgroupParent}/ttl`;
    writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
    const options = [
      "--id",
      "ttl",
      "--bundle",
      bundle,
      "--state-dir",
      state,
      "--runtime",
      runtime.path,
      "--runtime-root",
      join(worker.settings.runDirectory, "r"),
    ];
    const started = spawnSync(worker.settings.programs.isolate, [
      "monitor",
      ...options,
      "--created-ttl",
      "1",
      "--auto-cleanup",
    ]);
    assert.equal(started.status, 0);
    await until("it is created", () => existsSync(join(state, "state.json")));
    const { pid } = JSON.parse(readFileSync(join(state, "state.json"), "utf8")) as StateFile;
    await until("it is gone", () => !alive(pid) && worker.monitors().length === 0);
    assert.equal((JSON.parse(readFileSync(join(state, "exit.json"), "utf8")) as { signal: number }).signal, 9);
    spawnSync("rm", ["-r", state]);
    await container.remove();
  });

  const producer = join(native, "producer");
  const needsProducer = existsSync(producer) ? false : "needs `make -C native faults`";
  /** Digest of what the producer writes, taken without a container. */
  const produced = async (bytes: number): Promise<string> => {
    const child = spawn(producer, [String(bytes)], { stdio: ["ignore", "pipe", "inherit"] });
    const hash = createHash("sha256");
    for await (const chunk of child.stdout) hash.update(chunk as Buffer);
    return hash.digest("hex");
  };
  const logged = async (container: Container): Promise<{ bytes: number; digest: string }> => {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const frame of readFramesAfter(container.logPath, 0n)) {
      assert.notEqual(frame.stream, "system", frame.payload.toString());
      hash.update(frame.payload);
      bytes += frame.payload.length;
    }
    return { bytes, digest: hash.digest("hex") };
  };
  const produce = (command: readonly string[], config: Readonly<Record<string, string>>): Promise<Container> =>
    worker.create(command, {
      Binds: [`${producer}:/producer:ro`],
      LogConfig: { Type: "json-file", Config: config },
    });

  test(
    "M5, M6: 200 MB as fast as they can be made come through rotation, byte for byte",
    { skip: needsProducer },
    async () => {
      const container = await produce(["/producer", "200000000"], { "max-size": "20m", "max-file": "20" });
      const ended = container.wait("next-exit", AbortSignal.timeout(240_000));
      await container.start();
      assert.equal((await ended).code, 0);
      assert.deepEqual(await logged(container), { bytes: 200_000_000, digest: await produced(200_000_000) });
      assert.ok(readdirSync(container.directory).filter((name) => name.startsWith("container.log")).length >= 10);
      await container.remove();
    },
  );

  test(
    "M7: a container that writes faster than its log takes waits, and nothing is dropped",
    { skip: needsProducer },
    async () => {
      // The pause is for the monitor to be stopped before the first byte; later would do as well.
      const container = await produce(["sh", "-c", "sleep 0.3; exec /producer 100000000"], {});
      const ended = container.wait("next-exit", AbortSignal.timeout(240_000));
      await container.start();
      const { pid, monitorPid } = stateOf(container);
      // A monitor that is stopped is a disk that does not answer.
      process.kill(monitorPid, "SIGSTOP");
      try {
        await until("the monitor stands still", () => /\) T /.test(readFileSync(`/proc/${monitorPid}/stat`, "utf8")));
        const written = (): string => /^wchar: .*$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[0] ?? "";
        // Asleep is one that waits for its reader; who waits for a processor or a disk is not.
        await until("the producer waits", () => /\(producer\) S /.test(readFileSync(`/proc/${pid}/stat`, "utf8")));
        const before = written();
        await delay(300);
        assert.equal(written(), before);
      } finally {
        process.kill(monitorPid, "SIGCONT");
      }
      assert.equal((await ended).code, 0);
      assert.deepEqual(await logged(container), { bytes: 100_000_000, digest: await produced(100_000_000) });
      await container.remove();
    },
  );

  test("M7: a client that does not read, and one that is stopped, slow nobody; what they missed is in the log", async () => {
    const command = ["sh", "-c", "read go; head -c 30000000 /dev/zero"];
    const container = await worker.create(command, {}, { OpenStdin: true });
    const lazy = await container.attach({ stdin: true, stdout: true, stderr: true });
    const ended = container.wait("next-exit", AbortSignal.timeout(120_000));
    await container.start();
    // A raw connection that attaches and never reads: a stopped process looks just like it.
    const stopped = connect(join(container.stateDirectory, "stream"));
    stopped.on("error", () => undefined); // who does not read may be hung up on
    await new Promise((resolve) => stopped.once("connect", resolve));
    stopped.pause();
    stopped.write(Buffer.from([13, 0, 0, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]));
    await lazy.write(Buffer.from("go\n"));
    await ended;
    stopped.destroy();
    let bytes = 0;
    for await (const chunk of lazy.output()) bytes += chunk.bytes.length;
    assert.equal(bytes, 30_000_000);
    lazy[Symbol.dispose]();
    await container.remove();
  });

  test("M7: a slow reader of logs --follow slows nobody and loses nothing", async () => {
    const container = await worker.create(["sh", "-c", "seq 1 200000"], {
      LogConfig: { Config: { "max-size": "100k", "max-file": "40" } },
    });
    const ended = container.wait("next-exit", AbortSignal.timeout(120_000));
    await container.start();
    const lines = container.logs({ stdout: true, stderr: true, follow: true }, soon());
    const first = await lines.next();
    await ended; // the reader has had one line, and the container is done
    assert.equal(first.done === true ? undefined : first.value.text.toString(), "1\n");
    let count = 1;
    for await (const line of lines) assert.equal(line.text.toString(), `${++count}\n`);
    assert.equal(count, 200_000);
    await container.remove();
  });

  test("M7: a disk that is full costs bytes, which are counted, and not the container", async () => {
    const container = await worker.create(
      ["sh", "-c", "read go; head -c 3000000 /dev/zero; exit 3"],
      {},
      { OpenStdin: true },
    );
    const attachment = await container.attach({ stdin: true, stdout: false, stderr: false });
    const ended = container.wait("next-exit", soon());
    await container.start();
    // A limit on the size of its files is what the monitor alone can feel of a full disk.
    const { monitorPid } = stateOf(container);
    assert.equal(spawnSync("/usr/bin/prlimit", ["--pid", String(monitorPid), "--fsize=1000000"]).status, 0);
    await attachment.write(Buffer.from("go\n"));
    assert.equal((await ended).code, 3);
    attachment[Symbol.dispose]();
    const { size } = statSync(container.logPath);
    assert.ok(size > 900_000 && size <= 1_000_000, `${size} bytes are stored`);
    let frames = 0;
    for await (const frame of readFramesAfter(container.logPath, 0n)) frames += frame.payload.length;
    assert.ok(frames > 900_000, "what is stored is whole frames");
    await container.remove();
  });

  test("M8: the control sockets are for root alone", async () => {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    assert.equal(statSync(container.stateDirectory).mode & 0o777, 0o700);
    const script = `require("net").connect(${JSON.stringify(join(container.stateDirectory, "stream"))}).on("error", (e) => { console.log(e.code); process.exit(3); }).on("connect", () => process.exit(0))`;
    const nobody = spawnSync(process.execPath, ["-e", script], { uid: 65534, gid: 65534, encoding: "utf8" });
    assert.deepEqual([nobody.status, nobody.stdout.trim()], [3, "EACCES"]);
    await container.remove({ force: true });
  });

  test("M8: garbage on the control socket closes that connection and harms nothing", async () => {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    for (const bytes of [
      [0xff, 0xff, 0xff, 0x7f],
      [1, 0, 0, 0, 9],
      [8, 0, 0, 0, 6, 0, 1, 0, 0xff, 0xff, 0, 0],
    ]) {
      const socket = connect(join(container.stateDirectory, "stream"));
      socket.on("error", () => undefined);
      socket.write(Buffer.from(bytes));
      await new Promise((resolve) => socket.once("close", resolve));
    }
    assert.equal((await worker.exec(container, ["echo", "fine"])).output, "fine\n");
    await container.remove({ force: true });
  });

  test("M9: sixteen exec sessions at once each get their own output and code", async () => {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    const results = await Promise.all(
      Array.from({ length: 16 }, (_, i) => worker.exec(container, ["sh", "-c", `echo ${i}; exit ${i}`])),
    );
    assert.deepEqual(
      results,
      Array.from({ length: 16 }, (_, i) => ({ code: i, output: `${i}\n` })),
    );
    await container.remove({ force: true });
  });

  test("M9: output of exec is whole although the monitor hardly runs between its end and the last byte", async () => {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    const { monitorPid } = stateOf(container);
    // Stopped for longer than the drain time again and again, as on a machine that has something better to do.
    const pace = { over: false };
    const stutter = (async (): Promise<void> => {
      while (!pace.over) {
        process.kill(monitorPid, "SIGSTOP");
        await delay(250);
        process.kill(monitorPid, "SIGCONT");
        await delay(2);
      }
    })();
    try {
      const results = await Promise.all(
        Array.from({ length: 12 }, () => worker.exec(container, ["head", "-c", "65536", "/dev/zero"])),
      );
      assert.deepEqual(
        results.map(({ code, output }) => [code, output.length]),
        Array.from({ length: 12 }, () => [0, 65_536]),
      );
    } finally {
      pace.over = true;
      await stutter;
    }
    await container.remove({ force: true });
  });

  test("M11: something that inherited the pipes delays the end by no more than the drain time", async () => {
    const container = await worker.create(["sh", "-c", "echo before; sleep 1000 & exit 4"], { PidMode: "host" });
    const ended = container.wait("next-exit", soon());
    await container.start();
    // It comes while the one that holds the pipes lives: for that one to end there would be no waiting.
    assert.equal((await ended).code, 4);
    await container.remove();
  });

  const points = [
    "before-create",
    "before-state",
    "before-answer",
    "after-answer",
    "started",
    "init-ended",
    "before-exit-json",
    "after-exit-json",
  ];
  for (const point of points) {
    test(
      `M13: kill -9 of the monitor at "${point}" leaves nothing behind and no record in a wrong state`,
      { skip: existsSync(faults) ? false : "needs `make -C native faults`" },
      async () => {
        const injured = new TestWorker(runtime.path, {
          programs: { ...worker.settings.programs, isolate: faults },
          monitorEnvironment: { MONITOR_FAULT: `${point}:kill` },
          restartAtBoot: false,
        });
        await injured.open();
        try {
          const container = await injured.create(["sh", "-c", "sleep 0.3; exit 5"]);
          const started = await container.start().then(
            () => true,
            () => false,
          );
          if (started) await container.wait("not-running", soon());
          // What the daemon saw is one thing; what the next one finds must be clean in any case.
          await injured.reopen();
          const found = injured.containers.get(container.id);
          assert.ok(["created", "exited"].includes(found.record.state.status), found.record.state.status);
          assert.deepEqual(injured.remains(), []);
          if (point === "after-exit-json") assert.equal(found.record.state.exit?.code, 5);
          await found.remove();
        } finally {
          await injured.close();
        }
      },
    );
  }

  test("M12: kill -9 of a monitor under a running container: it is taken down, and told lost", async () => {
    const container = await worker.create(["sleep", "1000"]);
    await container.start();
    const { pid, monitorPid } = stateOf(container);
    await worker.containers[Symbol.asyncDispose]();
    process.kill(monitorPid, "SIGKILL");
    await until("the monitor is gone", () => !alive(monitorPid));
    await worker.open();
    const found = worker.containers.get(container.id);
    await until("it is ended", () => found.record.state.status === "exited");
    assert.equal(found.record.state.exit?.code, 255);
    assert.ok(!alive(pid));
    await found.remove();
  });
});
