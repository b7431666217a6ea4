/** The local API on a socket, over real containers: busybox as `bb:1` and `busybox:latest`, everything below one folder. */
import { execFile, execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { Readable } from "node:stream";

import { Api } from "../../../api/index.ts";
import { engineInfo, LocalEvents, localRoutes, type LocalContext } from "../../../api/local/index.ts";
import type { Swarm, SwarmState } from "../../../api/ports.ts";
import { Random } from "../../../lib/pure/prng.ts";
import { ClusterError } from "../../../lib/pure/errors.ts";
import { realClock, silentLogger } from "../../../lib/runtime/index.ts";
import { Images } from "../../../worker/images/index.ts";
import { Volumes } from "../../../worker/volumes/index.ts";
import { ImageRootfs } from "../../../worker/worker.ts";
import { makeImages, native, TestWorker } from "../containers/host.ts";

async function refuse(): Promise<never> {
  throw new NotInSwarm();
}

class NoSwarm implements Swarm {
  ready(): Promise<void> {
    return Promise.resolve();
  }

  state(): SwarmState {
    const nobody = { nodeId: "", clusterId: "", nodeAddr: "", manager: false, error: "", remoteManagers: [] };
    return { state: "inactive", ...nobody };
  }

  readonly init = refuse;
  readonly join = refuse;
  readonly leave = refuse;
  readonly unlock = refuse;

  control(): never {
    throw new NotInSwarm();
  }
}

class NotInSwarm extends ClusterError {
  readonly code = "NOT_IN_SWARM";
  constructor() {
    super("This node is not a swarm manager.");
  }
}

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class LocalWorld {
  readonly folder = mkdtempSync("/var/tmp/sk-api-");
  readonly events = new LocalEvents(realClock, silentLogger);
  images!: Images;
  volumes!: Volumes;
  worker!: TestWorker;
  server!: Api;
  context!: LocalContext;

  static async open(): Promise<LocalWorld> {
    const world = new LocalWorld();
    const { folder, events } = world;
    world.images = await Images.open({
      folder: join(folder, "images"),
      archiveProgram: join(native, "archive"),
      platform: { os: "linux", architecture: "amd64", variant: "" },
      registries: { attemptsMax: 1, silenceMs: 1000 },
      clock: realClock,
      random: new Random(1),
      onEvent: events.image,
    });
    mkdirSync(join(folder, "source"));
    makeImages(join(folder, "source"));
    const root = execFileSync("tar", ["-C", join(folder, "source/busybox/rootfs"), "-cf", "-", "."], {
      maxBuffer: 1 << 28,
    });
    const changes = { Cmd: ["sleep", "1000000"], Env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], Labels: { n: "1" } };
    await world.images.import(Readable.from([root]), { reference: "bb:1", changes });
    await world.images.import(Readable.from([root]), { reference: "busybox", changes: { Cmd: ["sh"] } });
    world.volumes = await Volumes.open({
      folder: join(folder, "volumes"),
      clock: realClock,
      logger: silentLogger,
      onEvent: events.volume,
    });
    world.worker = new TestWorker("builtin", { rootfs: new ImageRootfs(world.images) });
    world.worker.volumes = world.volumes;
    await world.worker.open();
    events.follow(world.worker.containers);
    world.context = {
      local: { containers: world.worker.containers, images: world.images, volumes: world.volumes },
      events,
      engine: {
        id: "test",
        hostname: "bee",
        version: "0.1.0",
        dataRoot: folder,
        labels: { rack: "7" },
        insecureRegistries: [],
        mirrors: [],
        init: true,
        debug: false,
      },
      clock: realClock,
      logger: silentLogger,
    };
    world.server = await Api.open({
      swarm: new NoSwarm(),
      release: { version: "0.1.0", gitCommit: "none", buildTime: "", kernelVersion: "6", architecture: "amd64" },
      logger: silentLogger,
      ...localRoutes(world.context),
      node: world.context.local,
      info: () => engineInfo(world.context),
      emit: (event) => events.emit(event),
      clock: realClock,
    });
    await world.server.listen({ kind: "unix", path: world.socket });
    return world;
  }

  get socket(): string {
    return join(this.folder, "api.sock");
  }

  get environment(): NodeJS.ProcessEnv {
    return { PATH: process.env["PATH"], HOME: this.folder, DOCKER_HOST: `unix://${this.socket}`, NO_COLOR: "1" };
  }

  /** The docker CLI, to its end; bounded. */
  docker(args: readonly string[], input?: string | Buffer): Promise<CliResult> {
    return new Promise((resolve) => {
      const options = {
        env: this.environment,
        timeout: 60_000,
        killSignal: "SIGKILL" as const,
        maxBuffer: 1 << 26,
        cwd: this.folder,
      };
      const child = execFile("docker", args, options, (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
      );
      child.stdin?.on("error", () => undefined); // it may end without reading
      child.stdin?.end(input ?? "");
    });
  }

  /** The docker CLI, left running. */
  dockerSpawn(args: readonly string[]): ChildProcess {
    return spawn("docker", args, { env: this.environment, cwd: this.folder, stdio: ["pipe", "pipe", "pipe"] });
  }

  /** One request; the answer's body as text. */
  ask(
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; text: string }> {
    return new Promise((resolve, reject) => {
      const bytes = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
      const call = request(
        {
          socketPath: this.socket,
          method,
          path,
          headers: { ...(bytes === undefined ? {} : { "content-type": "application/json" }), ...headers },
          timeout: 20_000,
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("error", reject);
          response.on("end", () =>
            resolve({
              status: response.statusCode ?? 0,
              headers: response.headers,
              text: Buffer.concat(chunks).toString("utf8"),
            }),
          );
        },
      );
      call.on("error", reject);
      call.on("timeout", () => call.destroy(new Error("no answer within 20 s")));
      call.end(bytes);
    });
  }

  async close(): Promise<void> {
    await this.server[Symbol.asyncDispose]();
    await this.events[Symbol.asyncDispose]();
    await this.worker.close();
    await this.volumes[Symbol.asyncDispose]();
    await this.images[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
