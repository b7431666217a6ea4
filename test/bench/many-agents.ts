/**
 * A process with thousands of simulated agents: each a connection with a certificate of its own, a session and its
 * heartbeats. What it is given to run it says to run, in one batch a message, as the real one does; it starts nothing.
 * They share the machine with the managers that are measured, so they speak gRPC by hand: the same bytes, for a third of
 * the processor time.
 */
import { connect, type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import { createSecureContext, type SecureContext } from "node:tls";

import { sessionMethod, skep } from "../../proto/index.ts";

export interface AgentsOrder {
  readonly address: string;
  readonly rootsPem: string;
  readonly privateKeyPem: string;
  readonly agents: readonly { readonly nodeId: string; readonly certificatePem: string }[];
}

export interface AgentsWord {
  readonly welcomed: number;
  readonly sessions: number;
  /** Sessions that ended, and why the last one did. */
  readonly lost: number;
  readonly lastLoss: string;
  readonly told: number;
  readonly rssBytes: number;
}

const { TaskState } = skep.objects;
type AgentMessage = skep.dispatcher.AgentMessage.$Properties;
type ManagerMessage = skep.dispatcher.ManagerMessage.$Properties;

/** Opened so many at a time: a handshake takes a core of each side for some milliseconds. */
const openingMax = 40;
const reconnectMs = 2000;
/** As the real agent: a manager of which nothing is heard for so long after a question is left. */
const silenceMs = (quietMs: number): number => Math.max(4000, quietMs / 2);
const frameHeaderBytes = 5;

let welcomed = 0;
let sessions = 0;
let lost = 0;
let lastLoss = "";
let told = 0;

interface Door {
  readonly address: string;
  readonly context: SecureContext;
}

class LeanAgent {
  readonly #nodeId: string;
  readonly #door: Door;
  readonly #onWelcome: () => void;
  #session: ClientHttp2Session | undefined;
  #stream: ClientHttp2Stream | undefined;
  #timer: NodeJS.Timeout | undefined;
  #quiet: NodeJS.Timeout | undefined;
  #quietMs = 0;
  #heardMs = 0;
  #askedMs: number | undefined;
  #received: Buffer = Buffer.alloc(0);
  #number = 0;
  #address: string;
  #managers: readonly string[] = [];
  #redirect: string | undefined;

  constructor(nodeId: string, door: Door, onWelcome: () => void) {
    this.#nodeId = nodeId;
    this.#door = door;
    this.#address = door.address;
    this.#onWelcome = onWelcome;
  }

  open(): void {
    sessions++;
    this.#received = Buffer.alloc(0);
    // Who answers is known: this is the bench's own cluster.
    const session = connect(`https://${this.#address}`, {
      secureContext: this.#door.context,
      servername: "swarm-manager",
      checkServerIdentity: () => undefined,
    });
    this.#session = session;
    session.on("error", (error) => (lastLoss = error.message));
    session.on("close", () => this.#lost(session));
    const stream = session.request(
      { ":method": "POST", ":path": sessionMethod.path, "content-type": "application/grpc", te: "trailers" },
      { endStream: false },
    );
    this.#stream = stream;
    stream.on("data", (bytes: Buffer) => this.#take(bytes));
    stream.on("error", () => {});
    stream.on("close", () => session.destroy());
    const description: skep.objects.NodeDescription.$Properties = {
      hostname: this.#nodeId,
      platform: { os: "linux", architecture: "x86_64" },
      resources: { nanoCpus: 64e9, memoryBytes: 256 * 2 ** 30 },
    };
    this.#write({ hello: { protocol: 1, description, addr: "10.0.0.1", featureLevel: 1, takesAcks: true } });
  }

  #lost(session: ClientHttp2Session): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    clearTimeout(this.#timer);
    clearTimeout(this.#quiet);
    lost++;
    // Another one may lead by now, and any of them knows who.
    this.#address = this.#redirect ?? this.#managers[lost % Math.max(1, this.#managers.length)] ?? this.#door.address;
    this.#redirect = undefined;
    setTimeout(() => this.open(), reconnectMs * (0.5 + Math.random()));
  }

  #write(message: AgentMessage): void {
    const bytes = sessionMethod.request.encode(message);
    const frame = Buffer.allocUnsafe(frameHeaderBytes + bytes.length);
    frame[0] = 0;
    frame.writeUInt32BE(bytes.length, 1);
    frame.set(bytes, frameHeaderBytes);
    this.#stream?.write(frame);
  }

  #take(bytes: Buffer): void {
    let rest = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    while (rest.length >= frameHeaderBytes) {
      const end = frameHeaderBytes + rest.readUInt32BE(1);
      if (rest.length < end) break;
      this.#receive(sessionMethod.response.decode(rest.subarray(frameHeaderBytes, end)));
      rest = rest.subarray(end);
    }
    this.#received = rest;
  }

  #beat(): void {
    const nowMs = performance.now();
    this.#write({ heartbeat: { sentAtUs: Math.floor(nowMs * 1000) } });
    if (this.#askedMs !== undefined) return;
    this.#askedMs = nowMs;
    this.#watchQuiet();
  }

  /** As the real one does. */
  #watchQuiet(): void {
    clearTimeout(this.#quiet);
    const nowMs = performance.now();
    const dueMs =
      this.#askedMs === undefined ? this.#heardMs + this.#quietMs : this.#askedMs + silenceMs(this.#quietMs);
    if (dueMs > nowMs) this.#quiet = setTimeout(() => this.#watchQuiet(), dueMs - nowMs);
    else if (this.#askedMs === undefined) this.#beat();
    else {
      lastLoss = "nothing was heard of the manager";
      this.#session?.destroy();
    }
  }

  #beatIn(period: skep.objects.Duration.$Properties): void {
    clearTimeout(this.#timer);
    const ms = (period.seconds ?? 0) * 1000 + (period.nanos ?? 0) / 1e6;
    this.#timer = setTimeout(() => {
      this.#beat();
      this.#beatIn(period);
    }, ms);
  }

  #receive({ welcome, assignments, goodbye, managers, heartbeatAck }: ManagerMessage): void {
    this.#heardMs = performance.now();
    this.#askedMs = undefined;
    if (heartbeatAck != null) {
      this.#quietMs = heartbeatAck.quietMs ?? 0;
      this.#beatIn(heartbeatAck.period ?? {});
    }
    if (managers != null) this.#managers = (managers.managers ?? []).flatMap(({ addr }) => addr ?? []);
    if (goodbye != null) {
      lastLoss = `${goodbye.code}: ${goodbye.message}`;
      this.#redirect = (goodbye.leaderAddr ?? "") === "" ? undefined : goodbye.leaderAddr!;
    }
    if (welcome != null) {
      welcomed++;
      this.#onWelcome();
      this.#beatIn(welcome.heartbeatPeriod ?? {});
      this.#quietMs = welcome.quietMs ?? 0;
      this.#watchQuiet();
    }
    if (assignments == null) return;
    const tasks: skep.dispatcher.TaskStatusChange.$Properties[] = [];
    const timestampUs = Date.now() * 1000;
    for (const { removed, task } of assignments.changes ?? []) {
      if (removed === true || task == null) continue;
      const wanted = task.desiredState ?? 0;
      if (wanted > TaskState.RUNNING || (task.status?.state ?? 0) >= TaskState.RUNNING) continue;
      const state = wanted === TaskState.RUNNING ? TaskState.RUNNING : TaskState.READY;
      const containerStatus = { containerId: `c${task.id}`.repeat(2), pid: 4242 };
      tasks.push({ taskId: task.id ?? "", status: { state, timestampUs, message: "started", containerStatus } });
    }
    if (tasks.length === 0) return;
    told += tasks.length;
    this.#write({ statusUpdate: { number: ++this.#number, tasks } });
  }
}

process.on("disconnect", () => process.exit(0));
process.on("message", ({ address, rootsPem, privateKeyPem, agents }: AgentsOrder) => {
  const waiting = agents.map(({ nodeId, certificatePem }) => () => {
    const context = createSecureContext({ cert: certificatePem, key: privateKeyPem, ca: rootsPem });
    let first = true;
    new LeanAgent(nodeId, { address, context }, () => {
      if (first) waiting.shift()?.();
      first = false;
    }).open();
  });
  for (const open of waiting.splice(0, openingMax)) open();
});
setInterval(() => {
  const word: AgentsWord = { welcomed, sessions, lost, lastLoss, told, rssBytes: process.memoryUsage.rss() };
  process.send?.({ word });
}, 1000);
