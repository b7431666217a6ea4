import assert from "node:assert/strict";
import { once } from "node:events";
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, Server, type Socket as TcpSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, mock, test } from "node:test";

import { Random } from "../../../lib/pure/prng.ts";
import { VirtualClock } from "../../../lib/runtime/index.ts";
import type { Asker, Names } from "../contract.ts";
import { listenAt } from "../testing/listen-at.ts";
import { Frames, framed } from "./core/frames.ts";
import { Resolver, type ResolverOptions } from "./resolver.ts";

// Everything is on the loopback: askers are told apart by their addresses in 127.0.0.0/8.
const folder = mkdtempSync(join(tmpdir(), "skep-resolver-"));
after(() => rmSync(folder, { recursive: true }));

const known = "127.0.2.1";
const internal = "127.0.2.2";
const other = "127.0.2.3";
const withDns = "127.0.2.4";
const withTwo = "127.0.2.5";
const many = Array.from({ length: 500 }, (_, at) => `10.0.${at >> 8}.${at & 0xff}`);

const asker = (id: string, more: Partial<Asker> = {}): Asker => ({
  id,
  forwards: true,
  dns: [],
  addresses: (name) => ({ web: ["10.0.1.5"], "tasks.web": many })[name],
  nameOf: () => undefined,
  ...more,
});
const askers: Readonly<Record<string, Asker>> = {
  [known]: asker("known"),
  [internal]: asker("internal", { forwards: false }),
  [other]: asker("other", { addresses: () => undefined }),
  [withDns]: asker("withDns", { dns: ["127.0.3.2"] }),
  [withTwo]: asker("withTwo", { dns: ["127.0.3.7", "127.0.3.2"] }),
};
const names: Names = { asker: (address) => askers[address] };

function query(name: string, id: number, kind = 1): Buffer {
  const labels = name.split(".").flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
  const header = Buffer.from([id >> 8, id & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, kind, 0, 1])]);
}

interface Told {
  readonly id: number;
  readonly code: number;
  readonly truncated: boolean;
  readonly authoritative: boolean;
  readonly answers: number;
  readonly bytes: Buffer;
}
const told = (bytes: Buffer): Told => ({
  id: bytes.readUInt16BE(0),
  code: bytes[3]! & 0xf,
  truncated: (bytes[2]! & 2) !== 0,
  authoritative: (bytes[2]! & 4) !== 0,
  answers: bytes.readUInt16BE(6),
  bytes,
});

/** A client at an address, which asks one thing after the other by UDP. */
async function udpClient(
  address: string,
): Promise<{ ask(port: number, packet: Buffer): Promise<Told>; socket: Socket }> {
  const socket = createSocket("udp4");
  socket.bind(0, address);
  await once(socket, "listening");
  const ask = async (port: number, packet: Buffer): Promise<Told> => {
    const came = once(socket, "message");
    socket.send(packet, port, "127.0.1.53");
    const [reply] = (await came) as [Buffer];
    // Any other is no answer to it (RFC 1035 §4.1.1), and passed over by every client.
    assert.equal(reply.readUInt16BE(0), packet.readUInt16BE(0), "the reply's id");
    return told(reply);
  };
  return { ask, socket };
}

function tcpClient(address: string, port: number): TcpSocket {
  return connect({ host: "127.0.1.53", port, localAddress: address });
}

/** What came on a connection until `count` messages are there, or it ended. */
async function tcpReplies(socket: TcpSocket, count: number): Promise<Told[]> {
  const frames = new Frames(65_535);
  const got: Told[] = [];
  for await (const chunk of socket) {
    got.push(...frames.push(chunk as Buffer).map((one) => told(Buffer.from(one))));
    if (got.length >= count) break;
  }
  return got;
}

interface Upstream {
  readonly port: number;
  readonly seen: Buffer[];
  /** A reply that comes later. @param at  to which of the queries by UDP */
  answer(reply: Buffer, at: number): void;
  close(): Promise<void>;
}

/** A server outside. @param reply  what it sends back, one or several, or nothing */
async function upstream(
  address: string,
  reply: (query: Buffer) => Buffer | readonly Buffer[] | undefined,
  port = 0,
): Promise<Upstream> {
  const replies = (packet: Buffer): readonly Buffer[] => [reply(packet) ?? []].flat();
  const seen: Buffer[] = [];
  const askers: RemoteInfo[] = [];
  const udp = createSocket("udp4");
  udp.on("message", (packet, from) => {
    seen.push(packet);
    askers.push(from);
    for (const back of replies(packet)) udp.send(back, from.port, from.address);
  });
  udp.bind(port, address);
  await once(udp, "listening");
  const chosen = udp.address().port;
  const tcp = createServer((socket) => {
    const frames = new Frames(65_535);
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      for (const packet of frames.push(chunk)) {
        seen.push(Buffer.from(packet));
        for (const back of replies(Buffer.from(packet))) socket.end(framed(back));
      }
    });
  });
  tcp.listen(chosen, address);
  await once(tcp, "listening");
  return {
    port: chosen,
    seen,
    answer(reply, at) {
      const { port: to, address: asker } = askers[at] ?? assert.fail("nobody has asked");
      udp.send(reply, to, asker);
    },
    async close() {
      await Promise.all([
        new Promise<void>((done) => udp.close(done)),
        new Promise<unknown>((done) => tcp.close(done)),
      ]);
    },
  };
}

/** A reply with one address. */
function found(packet: Buffer, last = 9, code = 0): Buffer {
  const out = Buffer.concat([packet, Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last])]);
  out[2] = 0x81;
  out[3] = 0x80 | code;
  out.writeUInt16BE(1, 6);
  return out;
}

interface Served extends AsyncDisposable {
  readonly port: number;
  readonly resolver: Resolver;
}

async function resolver(
  options: Partial<ResolverOptions> & { readonly servers?: readonly string[] } = {},
  address = "127.0.1.53",
): Promise<Served> {
  const { servers = [], ...rest } = options;
  const hostServers = join(folder, `resolv-${Math.random()}`);
  writeFileSync(hostServers, servers.map((server) => `nameserver ${server}\n`).join(""));
  const random = new Random("resolver");
  // Whatever takes its time on a busy machine is waited for; a test that is about time moves it.
  const resolver = new Resolver({ port: 0, names, hostServers, clock: new VirtualClock(), random, ...rest });
  const port = await listenAt(resolver, address);
  return { port, resolver, [Symbol.asyncDispose]: () => resolver[Symbol.asyncDispose]() };
}

test("the resolver answers names of the asker's networks, and refuses strangers", async () => {
  const served = await resolver();
  const [client, stranger] = [await udpClient(known), await udpClient("127.0.2.99")];
  try {
    const reply = await client.ask(served.port, query("web", 77));
    assert.deepEqual([reply.id, reply.code, reply.answers, reply.authoritative], [77, 0, 1, true]);
    assert.deepEqual([...reply.bytes.subarray(-4)], [10, 0, 1, 5]);
    assert.deepEqual((await client.ask(served.port, query("web", 78, 28))).answers, 0);
    assert.equal((await stranger.ask(served.port, query("web", 79))).code, 5);
    assert.equal(served.resolver.figures.strangers, 1);
  } finally {
    client.socket.close();
    stranger.socket.close();
    await served[Symbol.asyncDispose]();
  }
});

test("500 addresses come truncated by UDP and whole by TCP, on a connection that carries several queries", async () => {
  const served = await resolver();
  const client = await udpClient(known);
  const tcp = tcpClient(known, served.port);
  try {
    const cut = await client.ask(served.port, query("tasks.web", 1));
    assert.ok(cut.truncated && cut.bytes.length <= 512 && cut.answers > 20);
    const packets = [query("tasks.web", 2), query("web", 3)].map(framed);
    tcp.write(Buffer.concat(packets));
    const replies = await tcpReplies(tcp, 2);
    assert.deepEqual(
      replies.map(({ id, answers, truncated }) => [id, answers, truncated]),
      [
        [2, 500, false],
        [3, 1, false],
      ],
    );
  } finally {
    tcp.destroy();
    client.socket.close();
    await served[Symbol.asyncDispose]();
  }
});

test("by TCP a stranger is hung up on, and so is who sends a message that is too long", async () => {
  const served = await resolver();
  try {
    const stranger = tcpClient("127.0.2.99", served.port);
    stranger.on("error", () => undefined);
    stranger.resume();
    await once(stranger, "close");
    const long = tcpClient(known, served.port);
    long.on("error", () => undefined);
    long.resume();
    long.write(Buffer.from([0xff, 0xff]));
    await once(long, "close");
  } finally {
    await served[Symbol.asyncDispose]();
  }
});

test("an asker has at most sixteen connections, and an idle one is closed after ten seconds", async () => {
  const clock = new VirtualClock();
  const served = await resolver({ clock });
  const sockets: TcpSocket[] = [];
  try {
    for (let count = 0; count < 16; count++) {
      const socket = tcpClient(known, served.port);
      socket.on("error", () => undefined);
      sockets.push(socket);
      socket.write(framed(query("web", count)));
      await once(socket, "data");
    }
    const surplus = tcpClient(known, served.port);
    sockets.push(surplus);
    surplus.on("error", () => undefined);
    surplus.resume();
    await once(surplus, "close");
    const closed = Promise.all(sockets.slice(0, 16).map((socket) => once(socket.resume(), "close")));
    clock.advance(10_001);
    await closed;
  } finally {
    for (const socket of sockets) socket.destroy();
    await served[Symbol.asyncDispose]();
  }
});

test("foreign names go to the host's servers under an id and a port of their own, and never from an internal network", async () => {
  const outside = await upstream("127.0.3.1", (packet) => found(packet));
  const served = await resolver({ servers: ["127.0.3.1"], serversPort: outside.port });
  const [client, inner] = [await udpClient(known), await udpClient(internal)];
  try {
    const reply = await client.ask(served.port, query("example.com", 5));
    assert.deepEqual([reply.id, reply.code, reply.answers, reply.authoritative], [5, 0, 1, false]);
    const ids = new Set<number>();
    for (let count = 0; count < 20; count++) await client.ask(served.port, query("example.com", 5));
    for (const packet of outside.seen) ids.add(packet.readUInt16BE(0));
    assert.ok(ids.size > 15, "ids are drawn");
    const before = outside.seen.length;
    assert.equal((await inner.ask(served.port, query("example.com", 6))).code, 3);
    assert.equal(outside.seen.length, before);
    const tcp = tcpClient(known, served.port);
    tcp.write(framed(query("example.com", 8)));
    const [byTcp] = await tcpReplies(tcp, 1);
    assert.deepEqual([byTcp?.id, byTcp?.answers], [8, 1]);
    tcp.destroy();
  } finally {
    client.socket.close();
    inner.socket.close();
    await served[Symbol.asyncDispose]();
    await outside.close();
  }
});

test("a server that fails, refuses or is not there is passed over for the next one", async () => {
  const good = await upstream("127.0.3.2", (packet) => found(packet, 2));
  const failing = await upstream("127.0.3.1", (packet) => found(packet, 1, 2), good.port);
  const served = await resolver({ servers: ["127.0.3.9", "127.0.3.1", "127.0.3.2"], serversPort: good.port });
  const client = await udpClient(known);
  try {
    const reply = await client.ask(served.port, query("example.com", 5));
    assert.deepEqual([reply.code, reply.bytes.at(-1)], [0, 2]);
    assert.equal(failing.seen.length, 1);
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
    await Promise.all([good.close(), failing.close()]);
  }
});

test("a container's own servers take the place of the host's", async () => {
  const hosts = await upstream("127.0.3.1", (packet) => found(packet, 1));
  const second = await upstream("127.0.3.2", (packet) => found(packet, 2), hosts.port);
  const served = await resolver({ servers: ["127.0.3.1"], serversPort: hosts.port });
  const client = await udpClient(withDns);
  try {
    assert.equal((await client.ask(served.port, query("example.com", 5))).bytes.at(-1), 2);
    assert.equal(hosts.seen.length, 0);
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
    await Promise.all([hosts.close(), second.close()]);
  }
});

test("a forged reply is not taken: another id, another question, or a query", async () => {
  const outside = await upstream("127.0.3.1", (packet) => {
    const [id, question] = [Buffer.from(found(packet, 66)), Buffer.from(found(packet, 66))];
    id.writeUInt16BE((id.readUInt16BE(0) + 1) & 0xffff, 0);
    question[13] = 0x7a;
    return [id, question, packet, found(packet, 9)];
  });
  const served = await resolver({ servers: ["127.0.3.1"], serversPort: outside.port });
  const client = await udpClient(known);
  try {
    assert.equal((await client.ask(served.port, query("example.com", 5))).bytes.at(-1), 9);
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
    await outside.close();
  }
});

const waitFor = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise(setImmediate);
};

test("a silent server is asked three times in three seconds, and then for a while once, so that clients hear soon that there is no answer", async () => {
  const clock = new VirtualClock();
  const outside = await upstream("127.0.3.1", () => undefined);
  const served = await resolver({ clock, servers: ["127.0.3.1"], serversPort: outside.port });
  const client = await udpClient(known);
  const threeTimes = async (): Promise<void> => {
    const before = outside.seen.length;
    const asked = client.ask(served.port, query("example.com", 5));
    for (let attempt = 1; attempt <= 3; attempt++) {
      await waitFor(() => outside.seen.length === before + attempt);
      clock.advance(700);
    }
    clock.advance(900);
    assert.equal((await asked).code, 2);
  };
  try {
    await threeTimes();
    const once = client.ask(served.port, query("example.net", 6));
    await waitFor(() => outside.seen.length === 4);
    clock.advance(1000);
    assert.equal((await once).code, 2);
    assert.equal(outside.seen.length, 4);
    clock.advance(5000);
    await threeTimes();
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
    await outside.close();
  }
});

test("without any server outside, a name that is not ours has no answer at once", async () => {
  const clock = new VirtualClock();
  const served = await resolver({ clock });
  const client = await udpClient(known);
  try {
    assert.equal((await client.ask(served.port, query("example.com", 5))).code, 2);
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
  }
});

for (const [whose, address, servers] of [
  ["of the host", known, ["127.0.3.7", "127.0.3.2"]],
  ["of a container's own", withTwo, ["127.0.3.1"]],
] as const) {
  test(`${whose}, a server that says nothing is not waited for: the next is asked, and first from then on`, async () => {
    const clock = new VirtualClock();
    const silent = await upstream("127.0.3.7", () => undefined);
    const good = await upstream("127.0.3.2", (packet) => found(packet, 2), silent.port);
    const served = await resolver({ clock, servers, serversPort: silent.port });
    const client = await udpClient(address);
    const answered = async (asked: Promise<Told>): Promise<void> => {
      const { code, bytes } = await asked;
      assert.deepEqual([code, bytes.at(-1)], [0, 2]);
    };
    try {
      const first = client.ask(served.port, query("example.com", 5));
      await waitFor(() => silent.seen.length === 1);
      clock.advance(700);
      await answered(first);
      for (let time = 0; time < 5; time++) await answered(client.ask(served.port, query("example.com", 6)));
      assert.equal(silent.seen.length, 1);
      clock.advance(5000);
      const later = client.ask(served.port, query("example.com", 7));
      await waitFor(() => silent.seen.length === 2);
      clock.advance(700);
      await answered(later);
    } finally {
      client.socket.close();
      await served[Symbol.asyncDispose]();
      await Promise.all([silent.close(), good.close()]);
    }
  });
}

test("the answer of a server that is slow counts, though it was asked again meanwhile", async () => {
  const clock = new VirtualClock();
  const asked: Buffer[] = [];
  const outside = await upstream("127.0.3.1", (packet) => {
    asked.push(Buffer.from(packet));
    return undefined;
  });
  const served = await resolver({ clock, servers: ["127.0.3.1"], serversPort: outside.port });
  const client = await udpClient(known);
  try {
    const reply = client.ask(served.port, query("example.com", 5));
    await waitFor(() => outside.seen.length === 1);
    clock.advance(700);
    await waitFor(() => outside.seen.length === 2);
    assert.notDeepEqual(asked[0], asked[1], "each has an id of its own");
    outside.answer(found(asked[0] ?? assert.fail(), 4), 0);
    const { code, bytes } = await reply;
    assert.deepEqual([code, bytes.at(-1)], [0, 4]);
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
    await outside.close();
  }
});

test("a server that is slow about one name and answers others is not taken for silent", async () => {
  const clock = new VirtualClock();
  const outside = await upstream("127.0.3.1", (packet) => (packet.includes("hard") ? undefined : found(packet, 1)));
  const served = await resolver({ clock, servers: ["127.0.3.1"], serversPort: outside.port });
  const [client, second] = [await udpClient(known), await udpClient(other)];
  const hard = async (): Promise<Told> => {
    const before = outside.seen.length;
    const asked = client.ask(served.port, query("hard.example.com", 5));
    await waitFor(() => outside.seen.length === before + 1);
    clock.advance(700);
    await waitFor(() => outside.seen.length === before + 2);
    assert.equal((await second.ask(served.port, query("example.com", 6))).code, 0);
    clock.advance(700);
    await waitFor(() => outside.seen.length === before + 4);
    clock.advance(1600);
    return asked;
  };
  try {
    assert.equal((await hard()).code, 2);
    assert.equal((await hard()).code, 2, "asked as often as before");
  } finally {
    client.socket.close();
    second.socket.close();
    await served[Symbol.asyncDispose]();
    await outside.close();
  }
});

test("one asker cannot take all the room of foreign queries, and what is too much is told at once", async () => {
  const outside = await upstream("127.0.3.1", () => undefined);
  const long = { nextMs: 60_000, answerMs: 60_000, silentAnswerMs: 60_000, silentForMs: 1 };
  const limits = { outstandingMax: 6, perAskerMax: 4, attemptsMax: 1, ...long };
  const served = await resolver({ limits, servers: ["127.0.3.1"], serversPort: outside.port });
  const [client, second] = [await udpClient(known), await udpClient(other)];
  try {
    for (let count = 0; count < 4; count++) client.socket.send(query("example.com", count), served.port, "127.0.1.53");
    while (outside.seen.length < 4) await new Promise(setImmediate);
    assert.equal((await client.ask(served.port, query("example.com", 50))).code, 2);
    assert.equal(served.resolver.figures.turnedAway, 1);
    for (let count = 0; count < 2; count++) second.socket.send(query("example.com", count), served.port, "127.0.1.53");
    while (outside.seen.length < 6) await new Promise(setImmediate);
    assert.equal((await second.ask(served.port, query("example.com", 51))).code, 2);
    assert.equal((await client.ask(served.port, query("web", 52))).code, 0, "names of ours are answered all the same");
  } finally {
    client.socket.close();
    second.socket.close();
    await served[Symbol.asyncDispose]();
    await outside.close();
  }
});

test("an attempt to serve that fails late takes away nothing of the next one at its address", async () => {
  const served = await resolver();
  const listening = Promise.withResolvers<Server>();
  const first = mock.method(Server.prototype, "listen", function (this: Server): Server {
    listening.resolve(this);
    return this;
  });
  try {
    const failing = served.resolver.listen("127.0.1.55");
    const server = await listening.promise;
    first.mock.restore();
    const leaving = served.resolver.leave("127.0.1.55");
    const port = await listenAt(served.resolver, "127.0.1.55");
    server.emit("error", new Error("late"));
    await assert.rejects(failing, { code: "RESOLVER_NOT_BOUND" });
    await leaving;
    assert.equal(await served.resolver.listen("127.0.1.55"), port);
  } finally {
    mock.restoreAll();
    await served[Symbol.asyncDispose]();
  }
});

test("it serves at several addresses, and no longer at one that it leaves", async () => {
  const served = await resolver();
  const client = await udpClient(known);
  try {
    assert.equal(await served.resolver.listen("127.0.1.53"), served.port, "again is harmless");
    const other = await listenAt(served.resolver, "127.0.1.54");
    const tcp = connect({ host: "127.0.1.54", port: other, localAddress: known });
    // What the kernel alone has accepted would be reset.
    tcp.write(framed(query("web", 1)));
    await once(tcp, "data");
    await served.resolver.leave("127.0.1.54");
    await once(tcp.resume(), "close");
    assert.equal((await client.ask(served.port, query("web", 1))).code, 0);
    const again = createSocket("udp4").bind(other, "127.0.1.54");
    await once(again, "listening");
    again.close();
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
  }
});

test("RESOLVER_NOT_BOUND says what to do when another server has the port", async () => {
  const taken = await resolver();
  try {
    await assert.rejects(resolver({ port: taken.port }), { code: "RESOLVER_NOT_BOUND", fix: /bind-interfaces/ });
    await assert.rejects(resolver({}, "192.0.2.1"), { code: "RESOLVER_NOT_BOUND", fix: /has the address/ });
  } finally {
    await taken[Symbol.asyncDispose]();
  }
});

test("the host's servers are read anew when the file changes, and the resolver never asks itself", async () => {
  const outside = await upstream("127.0.3.1", (packet) => found(packet));
  const self = await upstream("127.0.1.53", (packet) => found(packet), outside.port);
  const hostServers = join(folder, "changing");
  writeFileSync(hostServers, "nameserver 127.0.1.53\n");
  const clock = new VirtualClock();
  const served = await resolver({ clock, hostServers, serversPort: outside.port });
  const client = await udpClient(known);
  try {
    assert.equal((await client.ask(served.port, query("example.com", 1))).code, 2);
    writeFileSync(hostServers, "search lan\nnameserver 127.0.3.1\n");
    clock.advance(1001);
    assert.equal((await client.ask(served.port, query("example.com", 2))).code, 0);
    assert.equal(self.seen.length, 0);
  } finally {
    client.socket.close();
    await served[Symbol.asyncDispose]();
    await Promise.all([outside.close(), self.close()]);
  }
});
