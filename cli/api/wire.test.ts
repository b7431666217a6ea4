import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";

import fc from "fast-check";

import { readText } from "./client.ts";
import { Wire, type Answer } from "./wire.ts";

let folder: string;
let server: Server;
let wire: Wire;
/** What a connection answers to each request on it. */
let answer: (request: string, socket: Socket) => void;
let connections: Socket[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "skep-wire-"));
  connections = [];
  server = createServer((socket) => {
    connections.push(socket);
    let rest = "";
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      rest += chunk.toString("latin1");
      for (;;) {
        const head = rest.indexOf("\r\n\r\n");
        const length = Number(/content-length: (\d+)/i.exec(rest)?.[1] ?? 0);
        if (head < 0 || rest.length < head + 4 + length) return;
        const request = rest.slice(0, head + 4 + length);
        rest = rest.slice(request.length);
        answer(request, socket);
      }
    });
  });
  server.listen(join(folder, "sock"));
  await once(server, "listening");
  wire = new Wire({ socketPath: join(folder, "sock") });
});
afterEach(async () => {
  wire.close();
  for (const socket of connections) socket.destroy();
  server.close();
  await once(server, "close");
  rmSync(folder, { recursive: true });
});

const ask = (path = "/x", more: { method?: string; body?: string; signal?: AbortSignal } = {}): Promise<Answer> =>
  wire.ask({ method: "GET", headers: { Host: "h" }, body: undefined, signal: undefined, path, ...more });

test("answers come with their status, headers and body, one connection carrying them one after the other", async () => {
  answer = (request, socket) => {
    const body = JSON.stringify(request.split("\r\n")[0]);
    socket.write(`HTTP/1.1 404 Not Found\r\nContent-Length: ${body.length}\r\nX-One: a\r\nx-one: b\r\n\r\n${body}`);
  };
  for (const path of ["/a", "/b?c=%20d"]) {
    const found = await ask(path);
    assert.deepEqual([found.statusCode, found.statusMessage], [404, "Not Found"]);
    assert.equal(found.headers["x-one"], "a, b");
    assert.equal(await readText(found), `"GET ${path} HTTP/1.1"`);
  }
  assert.equal(connections.length, 1);
});

test("a body goes with its length in bytes, and a POST without one says so", async () => {
  const asked: string[] = [];
  answer = (request, socket) => {
    asked.push(request);
    socket.write("HTTP/1.1 204 No Content\r\n\r\n");
  };
  await readText(await ask("/x", { method: "POST", body: '{"a":"\u00e9"}' }));
  await readText(await ask("/x", { method: "POST" }));
  assert.match(asked[0] ?? "", /\r\nContent-Length: 10\r\n\r\n/);
  assert.match(asked[1] ?? "", /\r\nContent-Length: 0\r\n\r\n$/);
});

test("a chunked body is whole however it is cut", async () => {
  const text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const body = "4\r\nWiki\r\n7;name=value\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0\r\nTrailer: x\r\n\r\n";
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: text.length + body.length - 1 }), { maxLength: 8 }),
      async (cuts) => {
        const whole = text + body;
        const at = [0, ...new Set(cuts.toSorted((a, b) => a - b)), whole.length];
        answer = (_request, socket) => {
          const parts = at.slice(1).map((end, i) => whole.slice(at[i], end));
          const next = (): void => {
            const part = parts.shift();
            if (part !== undefined) socket.write(part, () => setImmediate(next));
          };
          next();
        };
        assert.equal(await readText(await ask()), "Wikipedia in \r\nchunks.");
      },
    ),
    { numRuns: 40 },
  );
  assert.equal(connections.length, 1, "and the connection goes on after each");
});

test("a body without a length ends with its connection, and the next request takes another", async () => {
  answer = (_request, socket) => socket.end("HTTP/1.1 200 OK\r\n\r\nall of it");
  assert.equal(await readText(await ask()), "all of it");
  assert.equal(await readText(await ask()), "all of it");
  assert.equal(connections.length, 2);
});

test("a connection that the daemon gave up meanwhile is not used again", async () => {
  answer = (_request, socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  assert.equal(await readText(await ask()), "ok");
  const [first] = connections as [Socket];
  first.end();
  await once(first, "close");
  assert.equal(await readText(await ask()), "ok");
  assert.equal(connections.length, 2);
});

test("a connection on which more came than was asked for carries no other request", async () => {
  for (const body of ["Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]) {
    answer = (_request, socket) => socket.write(`HTTP/1.1 200 OK\r\n${body}HTTP/1.1 20`);
    assert.equal(await readText(await ask()), "ok");
    answer = (_request, socket) => socket.write(`HTTP/1.1 200 OK\r\n${body}`);
    assert.equal(await readText(await ask()), "ok");
  }
  assert.equal(connections.length, 3);
});

test("HEAD has no body, and an interim answer is none", async () => {
  answer = (_request, socket) =>
    socket.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nApi-Version: 1.50\r\n\r\n");
  const found = await ask("/_ping", { method: "HEAD" });
  assert.equal(found.headers["api-version"], "1.50");
  assert.equal(await readText(found), "");
});

test("an upgrade hands the connection over, with what came behind it; a refusal is an answer", async () => {
  answer = (request, socket) => {
    if (request.includes("/no")) return void socket.write("HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno");
    socket.write("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\nfirst ");
    socket.removeAllListeners("data");
    socket.on("data", (chunk) => socket.end(`echo ${chunk.toString()}`));
  };
  const request = {
    method: "POST",
    headers: { Connection: "Upgrade", Upgrade: "tcp" },
    body: undefined,
    signal: undefined,
  };
  const found = await wire.upgrade({ ...request, path: "/yes" });
  assert.ok("socket" in found);
  found.socket.unshift(found.rest);
  found.socket.write("x");
  assert.equal(await readText(found.socket), "first echo x");
  const refused = await wire.upgrade({ ...request, path: "/no" });
  assert.ok(!("socket" in refused));
  assert.equal(await readText(refused), "no");
});

test("a reader that is slow holds the daemon up, and gets it all", async () => {
  const bytes = 3_000_000;
  answer = (_request, socket) =>
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n${"x".repeat(bytes)}`);
  const found = await ask();
  let got = 0;
  for await (const chunk of found) {
    got += (chunk as Buffer).length;
    assert.ok(found.readableLength <= 256 * 1024, `${found.readableLength} bytes wait`);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(got, bytes);
});

test("what is cut off, or is no HTTP, is an error and never half an answer", async () => {
  for (const [text, message] of [
    ["", /socket hang up/],
    ["HTTP/1.1 200 OK\r\nContent-", /socket hang up/],
    ["SSH-2.0-OpenSSH\r\n\r\n", /Parse Error/],
    ["HTTP/1.1 200 OK\r\nno header\r\n\r\n", /Parse Error/],
    ["HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", /Parse Error/],
    [`HTTP/1.1 200 OK\r\nX: ${"x".repeat(70_000)}`, /Header overflow/],
  ] as const) {
    answer = (_request, socket) => socket.end(text);
    await assert.rejects(ask(), { message });
  }
  for (const [text, message] of [
    ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", /aborted/],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", /aborted/],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", /Parse Error/],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", /Parse Error/],
  ] as const) {
    answer = (_request, socket) => socket.end(text);
    await assert.rejects(ask().then(readText), { message });
  }
});

test("a request that is given up, before or in the middle of its answer, rejects as such", async () => {
  const stop = new AbortController();
  answer = () => stop.abort();
  await assert.rejects(ask("/x", { signal: stop.signal }), { name: "AbortError" });
  const later = new AbortController();
  answer = (_request, socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab");
  const found = await ask("/x", { signal: later.signal });
  const read = readText(found);
  later.abort();
  await assert.rejects(read, { name: "AbortError" });
  await assert.rejects(ask("/x", { signal: later.signal }), { name: "AbortError" });
});

test("what would be a second request is not sent", async () => {
  answer = () => assert.fail("nothing is asked");
  assert.throws(() => void ask("/x HTTP/1.1\r\nHost: y"), /cannot be asked for/);
  const request = { method: "GET", path: "/x", body: undefined, signal: undefined };
  assert.throws(() => void wire.ask({ ...request, headers: { A: "b\r\nC: d" } }), /has a line's end/);
});

test("connections that are expected are opened once, carry what is asked at once, and one that broke is not used", async () => {
  const opened = async (count: number): Promise<void> => {
    while (connections.length < count) await once(server, "connection");
  };
  answer = (request, socket) => {
    if (!request.startsWith("GET /last")) return;
    for (const one of connections.slice(0, 3)) one.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    if (!connections.slice(0, 3).includes(socket)) socket.write("HTTP/1.1 500 Other\r\nContent-Length: 0\r\n\r\n");
  };
  wire.expect(3);
  wire.expect(3);
  await opened(3);
  const answers = await Promise.all([ask("/first"), ask("/second"), ask("/last")]);
  assert.deepEqual(await Promise.all(answers.map((one) => readText(one))), ["ok", "ok", "ok"]);
  assert.equal(connections.length, 3);
  // They rest again; the daemon lets go of all of them.
  const gone = connections.map((one) => once(one, "close"));
  for (const one of connections) one.end();
  await Promise.all(gone);
  answer = (_request, socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew");
  assert.equal(await readText(await ask("/more")), "new");
  assert.equal(connections.length, 4);
});
