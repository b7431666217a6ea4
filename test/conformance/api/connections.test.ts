/** Clients that are slow, half-closed, oversized, malformed or gone. Raw bytes over a real socket. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { after, before, test } from "node:test";

import { ApiWorld } from "../../support/api-world.ts";

let world: ApiWorld;

before(async () => {
  world = await ApiWorld.open({
    logs: {
      async *read(_request, signal) {
        yield { lines: [{ stream: 1, time: { seconds: 1, nanos: 5 }, text: Buffer.from("one\n") }] };
        await once(signal, "abort").catch(() => undefined);
      },
    },
  });
});
after(() => world.close());

async function connect(): Promise<Socket> {
  const socket = createConnection(world.socket);
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** Everything that comes until `enough` or the end. */
function read(socket: Socket, enough: (text: string) => boolean): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (enough(text)) resolve(text);
    });
    socket.once("close", () => resolve(text));
    socket.once("end", () => resolve(text));
  });
}

const post = (path: string, body: string, type = "application/json"): string =>
  `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

test("a client that closes its half at once still gets its answer", async () => {
  const socket = await connect();
  socket.end("GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  assert.match(await read(socket, () => false), /^HTTP\/1\.1 200 OK[\s\S]*OK$/);
});

test("a body that comes byte by byte is read, and one that stops half-way changes nothing", async () => {
  const body = JSON.stringify({ Name: "slow", Data: "eA==" });
  const request = post("/secrets/create", body);
  const slow = await connect();
  const answer = read(slow, (text) => text.includes("ID"));
  for (const byte of request) slow.write(byte);
  assert.match(await answer, /^HTTP\/1\.1 201/);
  slow.destroy();

  const half = await connect();
  half.write(post("/secrets/create", body.replace("slow", "half")).slice(0, -3));
  half.end();
  assert.match(await read(half, (text) => text.includes("}")), /^HTTP\/1\.1 400/);
  half.destroy();
  assert.equal((await world.send({ method: "GET", path: "/secrets/half" })).status, 404);
});

test("what is no HTTP is told so, and the next client is served", async () => {
  const socket = await connect();
  socket.write("NONSENSE\r\n\r\n");
  assert.match(await read(socket, () => false), /^HTTP\/1\.1 400 Bad Request/);
  const big = await connect();
  big.write(`GET /_ping HTTP/1.1\r\nHost: x\r\nX-Long: ${"x".repeat(100_000)}\r\n\r\n`);
  assert.match(await read(big, () => false), /^HTTP\/1\.1 431/);
  assert.equal((await world.send({ method: "GET", path: "/_ping" })).status, 200);
});

test("a body of more than 4 MiB is refused before it is read, and without a length as soon as it is", async () => {
  const told = await connect();
  told.write(
    `POST /secrets/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{`,
  );
  const answer = await read(told, (text) => text.includes("BODY_TOO_LARGE"));
  assert.match(answer, /^HTTP\/1\.1 413/);
  assert.match(answer, /connection: close/i);
  told.destroy();

  const chunked = await connect();
  const refused = read(chunked, (text) => text.includes("BODY_TOO_LARGE"));
  chunked.write(
    "POST /secrets/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
  );
  // Not more than that: who is still writing when the other end closes may never read what was said.
  chunked.write(`10000\r\n${"x".repeat(64 * 1024)}\r\n`.repeat(64));
  chunked.write("1\r\nx\r\n");
  assert.match(await refused, /^HTTP\/1\.1 413/);
  chunked.destroy();
});

test("several requests on one connection are answered in turn, errors among them", async () => {
  const socket = await connect();
  const all = read(socket, (text) => text.split("HTTP/1.1 ").length > 3 && text.endsWith("OK"));
  socket.write("GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n");
  socket.write(post("/secrets/create", "{bad"));
  socket.write("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.deepEqual(
    [...(await all).matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
    ["404", "400", "200"],
  );
  socket.destroy();
});

test("a stream has its head at once, and ends at the source when its reader leaves", async () => {
  const made = await world.send({
    method: "POST",
    path: "/services/create",
    body: { Name: "talker", TaskTemplate: { ContainerSpec: { Image: "bb:1" } } },
  });
  assert.equal(made.status, 201);
  const socket = await connect();
  const first = read(socket, (text) => text.includes("one"));
  socket.write("GET /v1.50/services/talker/logs?stdout=1&follow=1&timestamps=1&details=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  const text = await first;
  assert.match(text, /content-type: application\/vnd\.docker\.multiplexed-stream/i);
  assert.match(
    text,
    /1970-01-01T00:00:01\.000000005Z com\.docker\.swarm\.node\.id=,com\.docker\.swarm\.service\.id=,com\.docker\.swarm\.task\.id= one/,
  );
  const closed = once(socket, "close");
  // A client that closes its half of a stream has left.
  socket.end();
  await closed;
});

test("an upgrade on a path that has none is an ordinary 404", async () => {
  const socket = await connect();
  socket.write("POST /v1.50/session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
  const text = await read(socket, () => false);
  assert.match(text, /^HTTP\/1\.1 404 Not Found/);
  assert.match(text, /"message":"page not found"/);
});

test("the kernel has met no bug of its own", () => assert.deepEqual(world.bugs, []));
