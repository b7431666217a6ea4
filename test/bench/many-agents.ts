/**
 * A process with thousands of simulated agents: each a connection with a certificate of its own, a session and its
 * heartbeats. What it is given to run it says to run, in one batch a message, as the real one does; it starts nothing.
 */
import { TlsIdentity } from "../../lib/pki/index.ts";
import { Channel, type RpcStream } from "../../lib/rpc/index.ts";
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
const periodMs = 5000;
const reconnectMs = 2000;

let welcomed = 0;
let sessions = 0;
let lost = 0;
let lastLoss = "";
let told = 0;

class LeanAgent {
  readonly #nodeId: string;
  readonly #channel: Channel;
  #stream: RpcStream<AgentMessage> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #number = 0;
  readonly #onWelcome: () => void;

  constructor(nodeId: string, channel: Channel, onWelcome: () => void) {
    this.#nodeId = nodeId;
    this.#channel = channel;
    this.#onWelcome = onWelcome;
  }

  open(): void {
    sessions++;
    this.#stream = this.#channel.open(sessionMethod, {
      message: (message: ManagerMessage) => this.#receive(message),
      drain: () => {},
      finished: () => {},
      closed: (error) => {
        clearInterval(this.#timer);
        lost++;
        lastLoss = error?.message ?? lastLoss;
        setTimeout(() => this.open(), reconnectMs * (0.5 + Math.random()));
      },
    });
    const description: skep.objects.NodeDescription.$Properties = {
      hostname: this.#nodeId,
      platform: { os: "linux", architecture: "x86_64" },
      resources: { nanoCpus: 64e9, memoryBytes: 256 * 2 ** 30 },
    };
    this.#stream.write({ hello: { protocol: 1, description, addr: "10.0.0.1", featureLevel: 1 } });
  }

  #receive({ welcome, assignments, goodbye }: ManagerMessage): void {
    if (goodbye != null) lastLoss = `${goodbye.code}: ${goodbye.message}`;
    if (welcome != null) {
      welcomed++;
      this.#onWelcome();
      clearInterval(this.#timer);
      this.#timer = setInterval(() => {
        this.#stream?.write({ heartbeat: { sentAtUs: Math.floor(performance.now() * 1000) } });
      }, periodMs);
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
    this.#stream?.write({ statusUpdate: { number: ++this.#number, tasks } });
  }
}

process.on("disconnect", () => process.exit(0));
process.on("message", ({ address, rootsPem, privateKeyPem, agents }: AgentsOrder) => {
  const waiting = agents.map(({ nodeId, certificatePem }) => () => {
    const tls = new TlsIdentity({ certificatePem, privateKeyPem, rootsPem });
    // As the real agent opens it.
    const channel = new Channel({ address, tls, expect: { role: "manager" }, pingMs: 5000, silenceMs: 4000 });
    let first = true;
    new LeanAgent(nodeId, channel, () => {
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
