import assert from "node:assert/strict";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { Client, Metadata, credentials, status, type ServiceError } from "@grpc/grpc-js";
import * as fc from "fast-check";

import { createClusterPki, type ClusterPki } from "../../test/support/cluster-pki.ts";
import { TlsIdentity } from "../pki/index.ts";
import { ClusterError } from "../pure/errors.ts";
import { BoundedQueue, TaskGroup } from "../runtime/index.ts";
import {
  Channel,
  RpcServer,
  pump,
  type BidiMethod,
  type CallContext,
  type Codec,
  type RpcStream,
  type UnaryMethod,
} from "./index.ts";
import { fromStatus, toStatus } from "./status.ts";

class TextUnreadable extends ClusterError {
  readonly code = "MESSAGE_UNREADABLE";
}

const text: Codec<string> = {
  encode: (message) => Buffer.from(message),
  decode: (bytes) => {
    if (bytes.includes(0)) throw new TextUnreadable("Cannot read a text: it has a NUL");
    return bytes.toString("utf8");
  },
};

class Full extends ClusterError {
  readonly code = "STORE_FULL";
}

const echo: UnaryMethod<string, string> = {
  kind: "unary",
  path: "/t.T/Echo",
  caller: "node",
  request: text,
  response: text,
};
const managersOnly: UnaryMethod<string, string> = { ...echo, path: "/t.T/Managers", caller: "manager" };
const open: UnaryMethod<string, string> = { ...echo, path: "/t.T/Open", caller: "anyone" };
const fail: UnaryMethod<string, string> = { ...echo, path: "/t.T/Fail" };
const hang: UnaryMethod<string, string> = { ...echo, path: "/t.T/Hang" };
const missing: UnaryMethod<string, string> = { ...echo, path: "/t.T/Missing" };
const chat: BidiMethod<string, string> = { ...echo, kind: "bidi", path: "/t.T/Chat" };
const flood: BidiMethod<string, string> = { ...chat, path: "/t.T/Flood" };

const never = new AbortController().signal;
const limit = { timeoutMs: 30_000, signal: never };

let pki: ClusterPki;
let managerTls: TlsIdentity;
let workerTls: TlsIdentity;
let server: RpcServer;
let address: string;
let channel: Channel;
const bugs: unknown[] = [];
const contexts: CallContext[] = [];
/** Calls that hang, by what they asked. */
const hanging = new Map<string, CallContext>();
let nowMs = Date.now();

before(async () => {
  pki = await createClusterPki();
  managerTls = await pki.manager(1);
  workerTls = await pki.worker();
  server = new RpcServer({
    tls: managerTls,
    wallMs: () => nowMs,
    messageBytesMax: 64 * 1024,
    onBug: (_path, error) => bugs.push(error),
  });
  server.unary(echo, async (request, context) => {
    contexts.push(context);
    return `${request} from ${context.peer?.identity.role}`;
  });
  server.unary(managersOnly, async () => "welcome");
  server.unary(open, async (_request, { peer }) => `hello ${peer?.identity.nodeId ?? "stranger"}`);
  server.unary(fail, async (request) => {
    if (request === "bug") throw new TypeError("secret detail");
    throw new Full("Cannot store: full", { fix: "Delete something" });
  });
  server.unary(hang, (request, context) => {
    hanging.set(request, context);
    return new Promise((_, reject) =>
      context.signal.addEventListener("abort", () => reject(context.signal.reason as Error)),
    );
  });
  server.bidi(chat, (stream) => ({
    message: (message) => {
      if (message === "refuse") throw new Full("Cannot chat: full", { fix: "Go away" });
      if (message === "bug") throw new TypeError("secret detail");
      stream.write(`you said ${message}`);
    },
    finished: () => stream.end(),
    closed: (error) => endings.push(error?.code),
  }));
  server.bidi(flood, () => ({ message: () => {}, closed: () => {} }));
  address = `127.0.0.1:${await server.listen("127.0.0.1:0")}`;
  channel = new Channel({ address, tls: workerTls, expect: { role: "manager" } });
});
const endings: (string | undefined)[] = [];

after(async () => {
  channel[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

function dial(tls: TlsIdentity, to = address): Channel {
  return new Channel({ address: to, tls, expect: { role: "manager" } });
}

async function withChannel<T>(made: Channel, use: (channel: Channel) => Promise<T>): Promise<T> {
  try {
    return await use(made);
  } finally {
    made[Symbol.dispose]();
  }
}

test("a call reaches its handler with who calls, read from the certificate", async () => {
  assert.equal(await channel.call(echo, "hi", limit), "hi from worker");
  const context = contexts.at(-1);
  assert.equal(context?.peer?.identity.nodeId, workerTls.certificate.identity.nodeId);
  assert.ok((context?.timeoutMs ?? 0) > 1000 && (context?.timeoutMs ?? 0) <= limit.timeoutMs);
  assert.match(context?.address ?? "", /^127\.0\.0\.1:/);
});

test("an operating error keeps its code, message and fix on the way; a bug tells the caller nothing", async () => {
  await assert.rejects(channel.call(fail, "x", limit), {
    code: "STORE_FULL",
    message: "Cannot store: full",
    fix: "Delete something",
  });
  bugs.length = 0;
  await assert.rejects(channel.call(fail, "bug", limit), (error) => {
    return error instanceof ClusterError && error.code === "RPC_INTERNAL" && !error.message.includes("secret");
  });
  assert.match(String(bugs[0]), /secret detail/);
});

test("a method of managers refuses a worker; any node's method refuses a foreign certificate; an open one serves all", async () => {
  await assert.rejects(channel.call(managersOnly, "x", limit), { code: "PEER_NOT_TRUSTED" });
  assert.equal(await withChannel(dial(managerTls), (made) => made.call(managersOnly, "x", limit)), "welcome");
  const foreign = await createClusterPki();
  // A stranger who trusts our root, but shows a certificate of its own.
  const mixed = new TlsIdentity({
    ...(await foreign.material({ nodeId: "x", clusterId: pki.clusterId, role: "worker", memberId: undefined })),
    rootsPem: `${foreign.rootPem}${pki.rootPem}`,
  });
  await withChannel(dial(mixed), async (made) => {
    await assert.rejects(made.call(echo, "x", limit), { code: "PEER_NOT_AUTHENTICATED" });
    assert.equal(await made.call(open, "x", limit), "hello stranger");
  });
  assert.match(await channel.call(open, "x", limit), /^hello w/);
});

test("a client leaves a server of the wrong role or cluster, with the typed reason", async () => {
  const impostor = new RpcServer({ tls: workerTls, wallMs: Date.now, onBug: (_path, error) => bugs.push(error) });
  const port = await impostor.listen("127.0.0.1:0");
  await withChannel(dial(managerTls, `127.0.0.1:${port}`), async (made) => {
    await assert.rejects(made.call(echo, "x", limit), { code: "PEER_NOT_TRUSTED" });
  });
  await impostor[Symbol.asyncDispose]();
});

test("a certificate that expires while its connection stands is refused from then on", async () => {
  nowMs = workerTls.certificate.notAfterMs + 1000;
  await assert.rejects(channel.call(echo, "x", limit), { code: "CERTIFICATE_EXPIRED" });
  nowMs = Date.now();
  assert.equal(await channel.call(echo, "x", limit), "x from worker");
});

test("a deadline ends a call at both ends, and so does the caller's signal", async () => {
  // It may arrive when its caller has given it up already.
  await assert.rejects(channel.call(hang, "late", { timeoutMs: 30, signal: never }), { code: "RPC_DEADLINE_EXCEEDED" });
  const stop = new AbortController();
  const waiting = channel.call(hang, "stopped", { timeoutMs: 60_000, signal: stop.signal });
  while (!hanging.has("stopped")) await new Promise((resolve) => setImmediate(resolve));
  const gone = once(hanging.get("stopped")!.signal, "abort");
  stop.abort();
  await assert.rejects(waiting, { name: "AbortError" });
  await gone;
  await assert.rejects(channel.call(echo, "x", { timeoutMs: 10, signal: stop.signal }), { name: "AbortError" });
});

test("nobody listening, an unknown method and a message that is too large are told apart", async () => {
  await withChannel(dial(workerTls, "127.0.0.1:1"), async (made) => {
    await assert.rejects(made.call(echo, "x", limit), { code: "RPC_UNAVAILABLE" });
  });
  await assert.rejects(channel.call(missing, "x", limit), { code: "RPC_FAILED" });
  await assert.rejects(channel.call(echo, "x".repeat(70_000), limit), { code: "RPC_TOO_LARGE" });
  assert.equal(await channel.call(echo, "still", limit), "still from worker");
});

test("a message that cannot be decoded is refused with its code, and harms nobody else", async () => {
  await assert.rejects(channel.call(echo, "a\0b", limit), { code: "MESSAGE_UNREADABLE" });
  const heard: string[] = [];
  const ended = new Promise<ClusterError | undefined>((resolve) => {
    const stream = channel.open(chat, { message: (message) => heard.push(message), closed: resolve });
    stream.write("one");
    stream.write("\0");
  });
  assert.equal((await ended)?.code, "MESSAGE_UNREADABLE");
  assert.deepEqual(heard, ["you said one"]);
  assert.equal(await channel.call(echo, "still", limit), "still from worker");
});

test("more metadata than 8 KiB is refused, and the connection goes on", async () => {
  const secure = credentials.createFromSecureContext(workerTls.context, { checkServerIdentity: () => undefined });
  const client = new Client(address, secure, { "grpc.ssl_target_name_override": "swarm-manager" });
  const call = (bytes: number): Promise<ServiceError | null> =>
    new Promise((resolve) => {
      const metadata = new Metadata();
      metadata.set("x-filler", "f".repeat(bytes));
      const same = (body: Buffer): Buffer => body;
      client.makeUnaryRequest(echo.path, same, same, Buffer.from("x"), metadata, {}, (error) => resolve(error));
    });
  assert.equal((await call(9000))?.code, status.RESOURCE_EXHAUSTED);
  assert.equal(await call(1000), null);
  client.close();
});

test("bytes that are not TLS, and TLS that never finishes, do not disturb the server", async () => {
  const [host, port] = address.split(":");
  const socket = connect(Number(port), host);
  socket.on("error", () => {});
  socket.write("GET / HTTP/1.1\r\n\r\n");
  await once(socket, "close");
  assert.equal(await channel.call(echo, "still", limit), "still from worker");
});

test("a handshake that nobody answers does not hold the channel for ever", async () => {
  const sockets: Socket[] = [];
  let connections = 0;
  // Nothing comes of the first one: as of a host that is cut off in that moment.
  const between = createServer((socket) => {
    sockets.push(socket.on("error", () => {}));
    if (++connections === 1) return;
    const onward = connect(Number(address.split(":")[1]), "127.0.0.1");
    sockets.push(onward.on("error", () => socket.destroy()));
    socket.pipe(onward).pipe(socket);
  });
  between.listen(0, "127.0.0.1");
  await once(between, "listening");
  const to = `127.0.0.1:${(between.address() as AddressInfo).port}`;
  const options = { address: to, tls: workerTls, expect: { role: "manager" } as const, anewMs: 0 };
  try {
    await withChannel(new Channel(options), async (made) => {
      const ended = Promise.withResolvers<string | undefined>();
      made.open(chat, { message: () => {}, closed: (error) => ended.resolve(error?.code) });
      await assert.rejects(made.call(echo, "x", { ...limit, timeoutMs: 100 }), { code: "RPC_DEADLINE_EXCEEDED" });
      assert.equal(await ended.promise, "RPC_UNAVAILABLE", "a stream that waited for that connection is over");
      assert.equal(await made.call(echo, "still", limit), "still from worker");
    });
    assert.equal(connections, 2);
  } finally {
    for (const socket of sockets) socket.destroy();
    between.close();
  }
});

test("a crowd that leaves while it waits at the door harms nobody", async () => {
  const [host, port] = address.split(":");
  const leave = [(socket: Socket) => socket.resetAndDestroy(), (socket: Socket) => socket.end()] as const;
  const crowd = Array.from({ length: 60 }, async (_, at) => {
    const socket = connect(Number(port), host);
    socket.on("error", () => {});
    socket.on("connect", () => leave[at % 2]?.(socket));
    await once(socket, "close");
  });
  await Promise.all(crowd);
  assert.equal(await withChannel(dial(workerTls), (own) => own.call(echo, "still", limit)), "still from worker");
});

test("a stream ends in order when its caller ends it, and with the handler's error otherwise", async () => {
  const talk = (messages: readonly string[]): Promise<{ heard: string[]; error: ClusterError | undefined }> =>
    new Promise((resolve) => {
      const heard: string[] = [];
      const stream = channel.open(chat, {
        message: (message) => heard.push(message),
        closed: (error) => resolve({ heard, error }),
      });
      for (const message of messages) stream.write(message);
      stream.end();
    });
  assert.deepEqual(await talk(["a", "b"]), { heard: ["you said a", "you said b"], error: undefined });
  const refused = await talk(["a", "refuse", "b"]);
  assert.equal(refused.error?.code, "STORE_FULL");
  assert.equal(refused.error?.fix, "Go away");
  bugs.length = 0;
  const bug = await talk(["bug"]);
  assert.equal(bug.error?.code, "RPC_INTERNAL");
  assert.ok(!String(bug.error).includes("secret"));
  assert.equal(bugs.length, 1);
});

test("a stream ends with its channel: at once for its owner, and noticed by the one who serves", async () => {
  endings.length = 0;
  const made = dial(workerTls);
  const ended: (string | undefined)[] = [];
  const heard = new Promise<void>((resolve) => {
    const stream = made.open(chat, { message: () => resolve(), closed: (error) => ended.push(error?.code) });
    stream.write("x");
  });
  await heard;
  const stream = made.open(chat, { message: () => {}, closed: () => {} });
  stream.abort(undefined);
  assert.equal(stream.closed, true);
  assert.equal(stream.write("y"), false);
  made[Symbol.dispose]();
  assert.deepEqual(ended, ["RPC_UNAVAILABLE"]);
  while (endings.length < 1) await new Promise((resolve) => setImmediate(resolve));
});

test("a stream to nobody closes with the reason, and the process lives", async () => {
  const made = dial(workerTls, "127.0.0.1:1");
  const error = await new Promise<ClusterError | undefined>((resolve) => {
    made.open(chat, { message: () => {}, closed: resolve });
  });
  assert.equal(error?.code, "RPC_UNAVAILABLE");
  made[Symbol.dispose]();
});

test("pump() goes at the pace of the reader, ends the stream, and is stopped by its signal or the stream's end", async () => {
  const received: string[] = [];
  let reader: RpcStream<string> | undefined;
  const slow: BidiMethod<string, string> = { ...chat, path: "/t.T/Slow" };
  let finished: (() => void) | undefined;
  let open: (() => void) | undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  const complete = new Promise<void>((resolve) => (finished = resolve));
  const other = new RpcServer({ tls: managerTls, wallMs: Date.now, onBug: (_path, error) => bugs.push(error) });
  other.bidi(slow, (stream) => {
    reader = stream;
    stream.pause();
    open?.();
    return {
      message: (message) => received.push(message),
      finished: () => {
        finished?.();
        stream.end();
      },
      closed: () => {},
    };
  });
  const made = dial(workerTls, `127.0.0.1:${await other.listen("127.0.0.1:0")}`);
  const queue = new BoundedQueue<string>({ name: "changes", itemsMax: 4 });
  const ended = new Promise<void>((resolve) => {
    const stream = made.open(slow, { message: () => {}, closed: () => resolve() });
    pumping.start("pump", (signal) => pump(stream, queue.drain(signal), signal));
  });
  let offered = 0;
  const chunk = "x".repeat(30_000);
  const pushing = (async () => {
    for (; offered < 200; offered++) await queue.push(chunk, never);
    queue.close();
  })();
  await opened;
  for (let turn = 0; turn < 500; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(offered >= 4 && offered < 150, `${offered} taken by a reader that reads nothing`);
  reader?.resume();
  await pushing;
  await complete;
  await ended;
  assert.equal(received.length, 200);

  const gone = await new Promise<unknown>((resolve) => {
    const stream = made.open(slow, { message: () => {}, closed: () => {} });
    const endless = new BoundedQueue<string>({ name: "endless", itemsMax: 1000 });
    for (let i = 0; i < 1000; i++) endless.offer(chunk);
    pump(stream, endless.drain(never), never).catch(resolve);
    setImmediate(() => stream.abort(undefined));
  });
  assert.ok(gone instanceof ClusterError);
  made[Symbol.dispose]();
  await pumping[Symbol.asyncDispose]();
  await other[Symbol.asyncDispose]();
});
const pumping = new TaskGroup((name, error) => assert.fail(`${name}: ${String(error)}`));

test("a wider window lets a caller send ahead of a reader that does not read", { timeout: 120_000 }, async () => {
  const message = "x".repeat(50_000);
  /** @param atLeast  so many are waited for, however long it takes */
  const takenBy = async (windowBytes: number | undefined, atLeast: number): Promise<number> => {
    const other = new RpcServer({
      tls: managerTls,
      wallMs: Date.now,
      onBug: (_path, error) => bugs.push(error),
      ...(windowBytes === undefined ? {} : { windowBytes }),
    });
    other.bidi(chat, (stream) => {
      stream.pause();
      stream.write("paused");
      return { message: () => {}, closed: () => {} };
    });
    const made = dial(workerTls, `127.0.0.1:${await other.listen("127.0.0.1:0")}`);
    let taken = 0;
    await new Promise<void>((resolve) => {
      const stream = made.open(chat, { message: () => resolve(), closed: () => {} });
      for (let i = 0; i < 100; i++) stream.write(message, () => taken++);
    });
    for (;;) {
      const before = taken;
      for (let turns = 0; turns < 300; turns++) await new Promise((resolve) => setImmediate(resolve));
      if (taken === before && taken >= atLeast) break;
    }
    made[Symbol.dispose]();
    await other[Symbol.asyncDispose]();
    return taken;
  };
  const narrow = await takenBy(undefined, 1);
  const wide = await takenBy(2 * 1024 * 1024, narrow + 21);
  assert.ok(wide - narrow > 20, `${narrow} and ${wide} messages of 50 kB`);
});

test("a renewed certificate of the server is shown to the next connection", async () => {
  const identity = await pki.manager(9);
  const renewing = new RpcServer({ tls: identity, wallMs: Date.now, onBug: (_path, error) => bugs.push(error) });
  renewing.bidi(chat, (stream) => ({ message: () => stream.write("x"), closed: () => {} }));
  const at = `127.0.0.1:${await renewing.listen("127.0.0.1:0")}`;
  const serialOf = (): Promise<string | undefined> =>
    new Promise((resolve) => {
      const made = dial(workerTls, at);
      const stream = made.open(chat, {
        message: () => {
          resolve(stream.peer?.serial);
          made[Symbol.dispose]();
        },
        closed: () => {},
      });
      stream.write("x");
    });
  const before = identity.certificate.serial;
  assert.equal(await serialOf(), before);
  identity.replace(await pki.material(identity.certificate.identity));
  assert.notEqual(identity.certificate.serial, before);
  assert.equal(await serialOf(), identity.certificate.serial);
  await renewing[Symbol.asyncDispose]();
});

test("until a method that was announced is served, callers hear that the server is not up yet, and why", async () => {
  const other = new RpcServer({
    tls: managerTls,
    wallMs: Date.now,
    opening: { methods: [echo, chat], reason: () => "it is getting up" },
    onBug: (_path, error) => bugs.push(error),
  });
  const at = `127.0.0.1:${await other.listen("127.0.0.1:0")}`;
  const made = dial(workerTls, at);
  const refused = (error: unknown): boolean => {
    assert.equal((error as ClusterError).code, "RPC_UNAVAILABLE");
    assert.match((error as Error).message, /it is getting up/u);
    return true;
  };
  await assert.rejects(made.call(echo, "x", limit), refused);
  const ended = await new Promise((resolve) => {
    const stream = made.open(chat, { message: () => {}, closed: resolve });
    stream.write("x");
  });
  refused(ended);
  await assert.rejects(made.call(fail, "x", limit), { code: "RPC_FAILED" }, "which it will never know");
  assert.deepEqual(other.awaited, [echo.path, chat.path]);
  other.unary(echo, async (request) => request);
  other.bidi(chat, (stream) => ({ message: (message) => stream.write(message), closed: () => {} }));
  assert.deepEqual(other.awaited, []);
  assert.equal(await made.call(echo, "x", limit), "x");
  await other[Symbol.asyncDispose]();
});

test("listening on an address that is taken or not ours fails with a typed error", async () => {
  const other = new RpcServer({ tls: managerTls, wallMs: Date.now, onBug: () => {} });
  await assert.rejects(other.listen(address), { code: "RPC_LISTEN_FAILED" });
  await assert.rejects(other.listen("203.0.113.1:0"), { code: "RPC_LISTEN_FAILED" });
  await other[Symbol.asyncDispose]();
});

test("whatever stands in the trailers, an error comes out, bounded", () => {
  const where = { address: "h:1", path: "/p" };
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 64 }),
        fc.json().map((json) => Buffer.from(json)),
      ),
      (bytes) => {
        const metadata = new Metadata();
        metadata.set("skep-error-bin", Buffer.from(bytes));
        const error = fromStatus({ code: status.UNKNOWN, details: "x", metadata }, where);
        assert.match(error.code, /^[A-Z][A-Z0-9_]*$/);
      },
    ),
  );
  const long = toStatus(new Full("m".repeat(5000), { fix: "f".repeat(5000) }));
  const back = fromStatus(long, where);
  assert.equal(back.code, "STORE_FULL");
  assert.ok(back.message.length <= 1024 && (back.fix?.length ?? 0) <= 1024);
  assert.equal(
    fromStatus({ code: status.UNAVAILABLE, details: "x", metadata: new Metadata() }, where).code,
    "RPC_UNAVAILABLE",
  );
  assert.equal(toStatus(new DOMException("stop", "AbortError")).code, status.CANCELLED);
});
