import assert from "node:assert/strict";
import { connect as connectHttp2, constants } from "node:http2";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { once } from "node:events";
import { after, before, test } from "node:test";

import { createClusterPki, type ClusterPki } from "../../test/support/cluster-pki.ts";
import { TlsIdentity } from "../pki/index.ts";
import { ClusterError } from "../pure/errors.ts";
import { DirectChannel } from "./direct-client.ts";
import { AcceptedStream } from "./direct-server.ts";
import { RpcUnavailable } from "./errors.ts";
import { Channel, RpcServer, pump, rawCodec, type BidiMethod, type Codec, type RpcStream } from "./index.ts";

class TextUnreadable extends ClusterError {
  readonly code = "MESSAGE_UNREADABLE";
}

class Full extends ClusterError {
  readonly code = "STORE_FULL";
}

const text: Codec<string> = {
  encode: (message) => Buffer.from(message),
  decode: (bytes) => {
    if (bytes.includes(0)) throw new TextUnreadable("Cannot read a text: it has a NUL");
    return bytes.toString("utf8");
  },
};

type Chat = BidiMethod<string, string>;
const direct: Chat = { kind: "bidi", direct: true, path: "/t.T/Direct", caller: "node", request: text, response: text };
const layered: Chat = { ...direct, direct: false, path: "/t.T/Layered" };
const managersOnly: Chat = { ...direct, path: "/t.T/Managers", caller: "manager" };
const broken: Chat = { ...direct, path: "/t.T/Broken" };
const missing: Chat = { ...direct, path: "/t.T/Missing" };
const bytesEcho: BidiMethod<Uint8Array, Uint8Array> = {
  ...direct,
  path: "/t.T/Bytes",
  request: rawCodec,
  response: rawCodec,
};

const messageBytesMax = 256 * 1024;
let pki: ClusterPki;
let managerTls: TlsIdentity;
let workerTls: TlsIdentity;
let server: RpcServer;
let address: string;
const bugs: unknown[] = [];
const endings: (string | undefined)[] = [];
const served: RpcStream<string>[] = [];

function talk(stream: RpcStream<string>) {
  served.push(stream);
  return {
    message: (message: string) => {
      if (message === "refuse") throw new Full("Cannot chat: full; 100 % of it", { fix: "Go away" });
      if (message === "bug") throw new TypeError("secret detail");
      stream.write(`you said ${message}`);
    },
    finished: () => stream.end(),
    closed: (error: ClusterError | undefined) => endings.push(error?.code),
  };
}

before(async () => {
  pki = await createClusterPki();
  managerTls = await pki.manager(1);
  workerTls = await pki.worker();
  server = new RpcServer({ tls: managerTls, wallMs: Date.now, messageBytesMax, onBug: (_path, bug) => bugs.push(bug) });
  for (const method of [direct, layered, managersOnly]) server.bidi(method, talk);
  server.bidi(broken, () => {
    throw new TypeError("secret detail");
  });
  server.bidi(bytesEcho, (stream) => ({
    message: (message) => stream.write(message),
    finished: () => stream.end(),
    closed: () => {},
  }));
  address = `127.0.0.1:${await server.listen("127.0.0.1:0")}`;
});

after(() => server[Symbol.asyncDispose]());

const dials = {
  "by hand": (tls: TlsIdentity, to = address) => new DirectChannel({ address: to, tls, expect: { role: "manager" } }),
  "by grpc-js": (tls: TlsIdentity, to = address) => new Channel({ address: to, tls, expect: { role: "manager" } }),
};

interface Ended {
  readonly heard: string[];
  readonly error: ClusterError | undefined;
}

/** Says `messages` and no more, and hears until the stream ends. */
async function say(channel: Channel | DirectChannel, method: Chat, messages: readonly string[]): Promise<Ended> {
  try {
    return await new Promise((resolve) => {
      const heard: string[] = [];
      const stream = channel.open(method, {
        message: (message) => heard.push(message),
        closed: (error) => resolve({ heard, error }),
      });
      for (const message of messages) stream.write(message);
      stream.end();
    });
  } finally {
    channel[Symbol.dispose]();
  }
}

for (const [dialled, dial] of Object.entries(dials)) {
  for (const method of [direct, layered]) {
    const title = `dialled ${dialled}, served ${method === direct ? "by hand" : "by grpc-js"}`;
    if (dialled === "by grpc-js" && method === layered) continue; // rpc.test.ts

    test(`${title}: what is said arrives in order, and so does the end`, async () => {
      served.length = endings.length = 0;
      const long = "x".repeat(100_000);
      const { heard, error } = await say(dial(workerTls), method, ["a", "", long, "b"]);
      assert.equal(error, undefined);
      assert.deepEqual(heard, ["you said a", "you said ", `you said ${long}`, "you said b"]);
      assert.equal(served[0]?.peer?.identity.nodeId, workerTls.certificate.identity.nodeId);
      assert.equal(served[0] instanceof AcceptedStream, method === direct);
      while (endings.length === 0) await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual(endings, [undefined]);
    });

    test(`${title}: errors keep code, message and fix; a bug tells nothing`, async () => {
      const refused = await say(dial(workerTls), method, ["a", "refuse", "b"]);
      assert.deepEqual(
        [refused.error?.code, refused.error?.message, refused.error?.fix],
        ["STORE_FULL", "Cannot chat: full; 100 % of it", "Go away"],
      );
      assert.equal((await say(dial(workerTls), method, ["\0"])).error?.code, "MESSAGE_UNREADABLE");
      bugs.length = 0;
      const bug = await say(dial(workerTls), method, ["bug"]);
      assert.equal(bug.error?.code, "RPC_INTERNAL");
      assert.ok(!String(bug.error).includes("secret"));
      assert.equal(bugs.length, 1);
      const large = await say(dial(workerTls), method, ["x".repeat(messageBytesMax + 1)]);
      assert.equal(large.error?.code, "RPC_TOO_LARGE");
    });

    test(`${title}: a stream ends with its channel, and the one who serves notices`, async () => {
      endings.length = 0;
      const made = dial(workerTls);
      const ended: (string | undefined)[] = [];
      await new Promise<void>((resolve) => {
        const stream = made.open(method, { message: () => resolve(), closed: (error) => ended.push(error?.code) });
        stream.write("x");
      });
      const stream = made.open(method, { message: () => {}, closed: () => {} });
      stream.abort(undefined);
      assert.equal(stream.closed, true);
      assert.equal(stream.write("y"), false);
      made[Symbol.dispose]();
      assert.deepEqual(ended, ["RPC_UNAVAILABLE"]);
      while (endings.length === 0) await new Promise((resolve) => setImmediate(resolve));
      // grpc-js ends its half before it takes all back.
      if (dialled === "by hand") assert.equal(endings[0], "RPC_UNAVAILABLE");
    });
  }

  test(`dialled ${dialled}: who may not call is told so before anything is served, and a bug of the opening tells nothing`, async () => {
    served.length = 0;
    assert.equal((await say(dial(workerTls), managersOnly, ["x"])).error?.code, "PEER_NOT_TRUSTED");
    const foreign = await createClusterPki();
    const stranger = new TlsIdentity({
      ...(await foreign.material({ nodeId: "x", clusterId: pki.clusterId, role: "worker", memberId: undefined })),
      rootsPem: `${foreign.rootPem}${pki.rootPem}`,
    });
    assert.equal((await say(dial(stranger), direct, ["x"])).error?.code, "PEER_NOT_AUTHENTICATED");
    assert.equal(served.length, 0);
    assert.deepEqual((await say(dial(managerTls), managersOnly, ["x"])).heard, ["you said x"]);
    assert.equal((await say(dial(workerTls), broken, ["x"])).error?.code, "RPC_INTERNAL");
    assert.equal((await say(dial(workerTls), missing, ["x"])).error?.code, "RPC_FAILED");
  });
}

const byHand = dials["by hand"];

test("a refused port, a server of the wrong role and a connection that breaks are told apart", async () => {
  const refused = await say(byHand(workerTls, "127.0.0.1:1"), direct, ["x"]);
  assert.ok(refused.error instanceof RpcUnavailable && refused.error.refused, String(refused.error));
  const impostor = new RpcServer({ tls: workerTls, wallMs: Date.now, onBug: (_path, bug) => bugs.push(bug) });
  const at = `127.0.0.1:${await impostor.listen("127.0.0.1:0")}`;
  assert.equal((await say(byHand(managerTls, at), direct, ["x"])).error?.code, "PEER_NOT_TRUSTED");
  await impostor[Symbol.asyncDispose]();
  const proxy = await Proxy.open(address);
  const made = byHand(workerTls, proxy.address);
  const error = await new Promise<ClusterError | undefined>((resolve) => {
    const stream = made.open(direct, { message: () => proxy.cut(), closed: resolve });
    stream.write("x");
  });
  assert.ok(error instanceof RpcUnavailable && !error.refused, String(error));
  made[Symbol.dispose]();
  await proxy.close();
});

test("pings do not disturb an end that answers them, and one that answers none is given up", async () => {
  const proxy = await Proxy.open(address);
  const exchange = (silenceMs: number, done: () => void): Promise<ClusterError | undefined> =>
    new Promise((resolve) => {
      const expect = { role: "manager" } as const;
      const made = new DirectChannel({ address: proxy.address, tls: workerTls, expect, pingMs: 2, silenceMs });
      let left = 50;
      const stream = made.open(direct, {
        message: () => (--left > 0 ? stream.write("x") : done()),
        closed: (error) => {
          resolve(error);
          made[Symbol.dispose]();
        },
      });
      stream.write("x");
      closes.push(() => made[Symbol.dispose]());
    });
  const closes: (() => void)[] = [];
  // Nobody waits a minute: the test ends it.
  assert.match(String(await exchange(60_000, () => closes[0]?.())), /its channel was closed/u);
  assert.match(String(await exchange(50, () => proxy.hold())), /ping was not answered/u);
  await proxy.close();
});

test("a process that stood still itself does not give up the other end for it", async () => {
  const made = new DirectChannel({
    address,
    tls: workerTls,
    expect: { role: "manager" },
    pingMs: 1,
    silenceMs: 20,
  });
  const ended: unknown[] = [];
  await new Promise<void>((resolve) => {
    const stream = made.open(direct, { message: () => resolve(), closed: (error) => ended.push(error) });
    stream.write("x");
  });
  // Right behind the pings in the list of timers, and each time for longer than the whole silence.
  await new Promise<void>((resolve) => {
    let stalls = 0;
    const timer = setInterval(() => {
      const untilMs = performance.now() + 30;
      while (performance.now() < untilMs);
      if (++stalls < 10) return;
      clearInterval(timer);
      resolve();
    }, 1);
  });
  assert.deepEqual(ended, []);
  made[Symbol.dispose]();
});

test("pump() goes at the pace of a reader that stands still, whoever of the two reads", async () => {
  const chunk = Buffer.alloc(30_000, 7);
  const method: BidiMethod<Uint8Array, Uint8Array> = { ...bytesEcho, path: "/t.T/Slow" };
  const other = new RpcServer({ tls: managerTls, wallMs: Date.now, onBug: (_path, bug) => bugs.push(bug) });
  let serving: RpcStream<Uint8Array> | undefined;
  let received = 0;
  other.bidi(method, (stream) => {
    serving = stream;
    stream.pause();
    stream.write(Buffer.from("paused"));
    return { message: () => received++, finished: () => stream.end(), closed: () => {} };
  });
  const made = byHand(workerTls, `127.0.0.1:${await other.listen("127.0.0.1:0")}`);
  let offered = 0;
  async function* chunks(count: number): AsyncGenerator<Uint8Array> {
    for (; offered < count; offered++) yield chunk;
  }
  const never = new AbortController().signal;
  let pumping: Promise<void> | undefined;
  let paused = (): void => {};
  const isPaused = new Promise<void>((resolve) => (paused = resolve));
  const ended = new Promise<ClusterError | undefined>((resolve) => {
    const stream = made.open(method, { message: () => paused(), closed: resolve });
    pumping = pump(stream, chunks(200), never);
  });
  await isPaused;
  for (let turn = 0; turn < 500; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(offered > 0 && offered < 150, `${offered} taken by a reader that reads nothing`);
  assert.equal(received, 0);
  serving?.resume();
  await pumping;
  assert.equal(await ended, undefined);
  assert.equal(received, 200);
  made[Symbol.dispose]();
  await other[Symbol.asyncDispose]();
});

test("a reader that pauses within a burst gets the rest when it goes on, and a wait for room ends with the stream", async () => {
  const made = byHand(workerTls);
  const heard: string[] = [];
  await new Promise<void>((resolve) => {
    const stream = made.open(direct, {
      message: (message) => {
        heard.push(message);
        if (heard.length === 20) resolve();
        stream.pause();
        setImmediate(() => stream.resume());
      },
      closed: () => {},
    });
    for (let count = 0; count < 20; count++) stream.write(String(count));
  });
  assert.deepEqual(
    heard,
    Array.from({ length: 20 }, (_, count) => `you said ${count}`),
  );
  const stream = made.open(bytesEcho, { message: () => {}, closed: () => {} });
  stream.pause();
  while (stream.write(Buffer.alloc(50_000))) await new Promise((resolve) => setImmediate(resolve));
  const stop = new AbortController();
  const stopped = stream.drained(stop.signal);
  stop.abort();
  await assert.rejects(stopped, { name: "AbortError" });
  const waiting = stream.drained(new AbortController().signal);
  stream.abort(new Full("enough"));
  await assert.rejects(waiting, { code: "RPC_UNAVAILABLE" });
  made[Symbol.dispose]();
});

test("what no client of ours sends is refused: compressed messages, much metadata, other content, half a message", async () => {
  const session = connectHttp2(`https://${address}`, {
    secureContext: workerTls.context,
    servername: "swarm-manager",
    checkServerIdentity: () => undefined,
  });
  const ask = async (headers: Record<string, string>, body: Buffer): Promise<Record<string, unknown>> => {
    const stream = session.request({ ":method": "POST", ":path": direct.path, te: "trailers", ...headers });
    const said: Record<string, unknown> = {};
    for (const event of ["response", "trailers"]) {
      stream.on(event, (more: object) => Object.assign(said, more));
    }
    stream.on("data", () => {});
    stream.end(body);
    await once(stream, "close");
    return { ...said, rst: stream.rstCode };
  };
  const grpc = { "content-type": "application/grpc" };
  const frame = Buffer.from([0, 0, 0, 0, 1, 120]);
  assert.equal((await ask(grpc, frame))["grpc-status"], "0");
  assert.equal((await ask(grpc, Buffer.from([1, 0, 0, 0, 1, 120])))["grpc-status"], "9");
  assert.equal((await ask({ ...grpc, filler: "f".repeat(9000) }, frame))["grpc-status"], "8");
  assert.equal((await ask({ "content-type": "text/plain" }, frame))[":status"], 415);
  const half = await ask(grpc, Buffer.from([0, 0, 0, 0, 9, 120]));
  assert.deepEqual([half["grpc-status"], half["rst"]], ["0", constants.NGHTTP2_NO_ERROR], "the caller's own affair");
  session.close();
});

/** TCP in between, that can be cut, or hold what comes without a word. */
class Proxy {
  readonly address: string;
  readonly #server: ReturnType<typeof createServer>;
  readonly #sockets: Socket[];

  private constructor(server: ReturnType<typeof createServer>, sockets: Socket[]) {
    this.#server = server;
    this.#sockets = sockets;
    this.address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async open(to: string): Promise<Proxy> {
    const sockets: Socket[] = [];
    const server = createServer((near) => {
      const far = connect(Number(to.split(":")[1]), "127.0.0.1");
      for (const socket of [near, far]) socket.on("error", () => {});
      sockets.push(near, far);
      near.pipe(far);
      far.pipe(near);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Proxy(server, sockets);
  }

  hold(): void {
    for (const socket of this.#sockets) socket.unpipe().pause();
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }
}
