/**
 * The HTTP API over control over a store whose log is in memory: everything but consensus and containers, without a
 * cluster. Requests go over a real socket and real gRPC.
 */
import { request as httpRequest } from "node:http";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Api, type SwarmEvent } from "../../api/index.ts";
import type { Swarm, SwarmState } from "../../api/ports.ts";
import { newId } from "../../lib/pure/id.ts";
import { Random } from "../../lib/pure/prng.ts";
import type { TlsIdentity } from "../../lib/pki/index.ts";
import { Channel, RpcServer } from "../../lib/rpc/index.ts";
import { realClock, silentLogger } from "../../lib/runtime/index.ts";
import { Control, serveControl, type LogSource } from "../../manager/control/index.ts";
import { isUpToDate } from "../../manager/up-to-date.ts";
import type { Tx, ClusterSchema } from "../../manager/store/index.ts";
import { skep } from "../../proto/index.ts";
import { createClusterPki, type ClusterPki } from "./cluster-pki.ts";
import { StoreCluster } from "./store-cluster.ts";

const { NodeAvailability, NodeRole, NodeState, Reachability } = skep.objects;

/** Keys take time to make, and no test is about them. */
let made: Promise<{ readonly pki: ClusterPki; readonly tls: TlsIdentity }> | undefined;
const identity = (): NonNullable<typeof made> =>
  (made ??= createClusterPki().then(async (pki) => ({ pki, tls: await pki.manager(1) })));

export interface ApiAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly text: string;
  /** Parsed if it is JSON. */
  readonly body: unknown;
}

export interface Sent {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ApiWorldOptions {
  readonly logs?: LogSource;
  readonly swarm?: Partial<Swarm>;
  readonly state?: Partial<SwarmState>;
}

export class ApiWorld {
  readonly cluster = new StoreCluster();
  readonly socket: string;
  readonly #folder = mkdtempSync(join(tmpdir(), "skep-api-"));
  readonly bugs: unknown[] = [];
  readonly events: SwarmEvent[] = [];
  #api: Api | undefined;
  #server: RpcServer | undefined;
  #channel: Channel | undefined;
  /** Changed by tests that are about where the node stands. */
  state: SwarmState;
  /** Set: `control()` throws it. */
  refusal: Error | undefined;
  nodeId = "";
  port = 0;

  private constructor(state: Partial<SwarmState>) {
    this.socket = join(this.#folder, "skep.sock");
    this.state = {
      state: "active",
      nodeId: "",
      clusterId: "",
      nodeAddr: "10.0.0.1",
      manager: true,
      error: "",
      remoteManagers: [],
      ...state,
    };
  }

  static async open(options: ApiWorldOptions = {}): Promise<ApiWorld> {
    const world = new ApiWorld(options.state ?? {});
    await world.#open(options);
    return world;
  }

  async #open(options: ApiWorldOptions): Promise<void> {
    const { pki, tls } = await identity();
    const random = Random.stream(1, "api world");
    const fill = (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length; at++) bytes[at] = random.int(0, 256);
    };
    const { store } = this.cluster;
    const server = new RpcServer({
      tls,
      wallMs: () => Date.now(),
      onBug: (path, error) => this.bugs.push({ path, error }),
    });
    const control = new Control({
      store,
      isUpToDate,
      newId: () => newId(fill),
      newKey: () => {
        const key = new Uint8Array(32);
        fill(key);
        return key;
      },
    });
    serveControl(server, {
      control,
      store,
      logs: options.logs,
      leader: {
        run: (_method, _request, { signal }, act) => act(signal),
        channel: () => Promise.resolve(undefined),
      },
    });
    const port = await server.listen("127.0.0.1:0");
    this.#server = server;
    const channel = new Channel({ address: `127.0.0.1:${port}`, tls, expect: { role: "manager" } });
    this.#channel = channel;
    this.nodeId = newId(fill);
    this.state = { ...this.state, nodeId: this.nodeId };
    await this.write((tx) => {
      tx.create("cluster", {
        id: newId(fill),
        spec: { name: "default" },
        rootCa: { certificate: pki.rootPem, digest: "d".repeat(50) },
        joinTokens: {
          worker: `SWMTKN-1-${"d".repeat(50)}-${"w".repeat(25)}`,
          manager: `SWMTKN-1-${"d".repeat(50)}-${"m".repeat(25)}`,
        },
        dataPathPort: 4789,
        defaultAddrPool: ["10.0.0.0/8"],
        subnetSize: 24,
      });
      tx.create("node", {
        id: this.nodeId,
        spec: { role: NodeRole.MANAGER, availability: NodeAvailability.ACTIVE },
        role: NodeRole.MANAGER,
        description: {
          hostname: "host-1",
          platform: { os: "linux", architecture: "x86_64" },
          resources: { nanoCpus: 4e9, memoryBytes: 8 * 2 ** 30 },
          engine: { engineVersion: "0.1.0" },
        },
        status: { state: NodeState.NODE_READY, addr: "10.0.0.1" },
        managerStatus: { leader: true, reachability: Reachability.REACHABLE, addr: "10.0.0.1:2377", memberId: 1 },
      });
    });
    const refuse = (): never => {
      throw new Error("not of this test");
    };
    this.#api = await Api.open({
      swarm: {
        state: () => this.state,
        ready: () => Promise.resolve(),
        control: () => {
          if (this.refusal !== undefined) throw this.refusal;
          return channel;
        },
        init: refuse,
        join: refuse,
        leave: refuse,
        unlock: refuse,
        ...options.swarm,
      },
      release: { version: "0.1.0", gitCommit: "", buildTime: "", kernelVersion: "6.1", architecture: "amd64" },
      logger: {
        ...silentLogger,
        error: (text: string, facts: object) => this.bugs.push({ text, ...facts }),
      } as typeof silentLogger,
      routes: [],
      upgrades: [],
      emit: (event) => this.events.push(event),
      clock: realClock,
      info: () => Promise.resolve({ ID: "test", Name: "host-1" }),
    });
    await this.#api.listen({ kind: "unix", path: this.socket });
    this.port = await this.#api.listen({ kind: "loopback", port: 0 });
  }

  async write(change: (tx: Tx<ClusterSchema>) => void): Promise<void> {
    await this.cluster.store.update(change, { actor: "test", cause: "test" });
  }

  async close(): Promise<void> {
    await this.#api?.[Symbol.asyncDispose]();
    this.#channel?.[Symbol.dispose]();
    await this.#server?.[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A body that is no text is sent as JSON. */
  send({ method, path, body, headers = {} }: Sent): Promise<ApiAnswer> {
    const text = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const sent = httpRequest(
        {
          socketPath: this.socket,
          method,
          path,
          agent: false,
          headers: {
            ...(text === undefined
              ? {}
              : { "content-type": "application/json", "content-length": String(Buffer.byteLength(text)) }),
            ...headers,
          },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("error", reject);
          response.on("end", () => {
            const answer = Buffer.concat(chunks).toString("utf8");
            const isJson = (response.headers["content-type"] ?? "").startsWith("application/json") && answer !== "";
            resolve({
              status: response.statusCode ?? 0,
              headers: response.headers,
              text: answer,
              body: isJson ? (JSON.parse(answer) as unknown) : answer,
            });
          });
        },
      );
      sent.on("error", reject);
      sent.end(text);
    });
  }
}
