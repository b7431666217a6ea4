/** An executor over real containers: busybox as an image, everything below one folder. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";

import { Random } from "../../../lib/pure/prng.ts";
import { realClock, silentLogger } from "../../../lib/runtime/index.ts";
import type { skep } from "../../../proto/index.ts";
import { ContainerExecutor } from "../../../worker/executor/index.ts";
import { Images } from "../../../worker/images/index.ts";
import { ImageRootfs } from "../../../worker/worker.ts";
import { makeImages, native, TestWorker } from "../containers/host.ts";
import type { Behaviour, ExecutorWorld } from "./contract.ts";

export class RealWorld implements ExecutorWorld {
  readonly folder = mkdtempSync("/var/tmp/sk-exec-");
  images!: Images;
  worker!: TestWorker;
  executor!: ContainerExecutor;

  static async open(): Promise<RealWorld> {
    const world = new RealWorld();
    world.images = await Images.open({
      folder: join(world.folder, "images"),
      archiveProgram: join(native, "archive"),
      platform: { os: "linux", architecture: "amd64", variant: "" },
      // Registries answer, or nobody listens; on a busy machine an answer may take its time.
      registries: { attemptsMax: 1, silenceMs: 60_000 },
      clock: realClock,
      random: new Random(1),
    });
    mkdirSync(join(world.folder, "source"));
    makeImages(join(world.folder, "source"));
    const root = execFileSync("tar", ["-C", join(world.folder, "source/busybox/rootfs"), "-cf", "-", "."], {
      maxBuffer: 1 << 28,
    });
    await world.images.import(Readable.from([root]), {
      reference: "127.0.0.1:1/busybox:1",
      changes: { Cmd: ["sh"], Env: ["FROM_IMAGE=yes"] },
    });
    world.worker = await new TestWorker("builtin", { rootfs: new ImageRootfs(world.images) }).open();
    await world.#openExecutor();
    return world;
  }

  get secretsDirectory(): string {
    return join(this.worker.base, "run", "secrets");
  }

  async #openExecutor(): Promise<void> {
    this.executor = await ContainerExecutor.open({
      containers: this.worker.containers,
      images: this.images,
      secretsDirectory: this.secretsDirectory,
      labels: () => ({ rack: "7" }),
      genericResources: [],
      engineVersion: "0.1.0",
      preferOfflineImage: false,
      clock: realClock,
      logger: silentLogger,
    });
  }

  spec(behaviour: Behaviour): skep.objects.ContainerSpec.$Properties {
    const image = "127.0.0.1:1/busybox:1";
    const sh = (text: string): skep.objects.ContainerSpec.$Properties => ({ image, command: ["sh", "-c", text] });
    const idle = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    const check = (command: string): skep.objects.ContainerSpec.$Properties => ({
      ...sh(idle),
      healthCheck: { test: ["CMD-SHELL", command], interval: { nanos: 100e6 }, retries: 2 },
    });
    switch (behaviour.kind) {
      case "runs":
        return sh(idle);
      case "exits":
        return sh(`exit ${behaviour.code}`);
      case "writes":
        return sh(behaviour.lines.map((line) => `echo ${line}`).join("; "));
      case "healthy":
        return check("true");
      case "unhealthy":
        return check("echo bad; exit 1");
      case "image missing":
        return { image: "127.0.0.1:1/nothing:1", command: ["true"] };
    }
  }

  settle<T>(act: Promise<T>): Promise<T> {
    return act;
  }

  async restart(): Promise<void> {
    await this.worker.reopen();
    await this.#openExecutor();
  }

  get secretsMounted(): boolean {
    return readFileSync("/proc/self/mountinfo", "utf8").includes(` ${this.secretsDirectory} `);
  }

  /** As a reboot does it to all of them. */
  async dropSecrets(taskId: string): Promise<void> {
    await rm(join(this.secretsDirectory, taskId), { recursive: true });
  }

  async close(): Promise<void> {
    for (const taskId of await this.executor.held()) await this.executor.forget(taskId);
    await this.executor[Symbol.asyncDispose]();
    assert.equal(this.secretsMounted, false, "no task, no tmpfs");
    await this.worker.close();
    await this.images[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
