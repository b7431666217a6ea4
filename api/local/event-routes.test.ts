/** The stream of events over real connections: it ends whole, with its last chunk, and leaves nothing behind. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { realClock, silentLogger } from "../../lib/runtime/index.ts";
import { HttpServer } from "../http/index.ts";
import type { LocalContext } from "./context.ts";
import { eventRoutes } from "./event-routes.ts";
import { LocalEvents } from "./events.ts";
import { toKernel } from "./kernel.ts";

const folder = mkdtempSync(join(tmpdir(), "skep-events-"));
const socketPath = join(folder, "socket");
const events = new LocalEvents(realClock, silentLogger);
let server: HttpServer;

before(async () => {
  // What this route needs of the node.
  const context = { events, clock: realClock } as unknown as LocalContext;
  server = new HttpServer({ ...toKernel(eventRoutes(context)), logger: silentLogger, release: "0" });
  await server.listen({ kind: "unix", path: socketPath });
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await events[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const emit = (count: number): void => {
  for (let at = 0; at < count; at++) {
    const attributes = { name: "n".repeat(300), type: "bridge" };
    events.emit({ type: "network", action: "create", id: `${at}`, attributes, scope: "local" });
  }
};

/** @returns how many events came. Rejects when the answer is cut before its last chunk ("aborted"; in Go: unexpected EOF) */
function listen(query: string, onFirst: () => void = () => undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: `/v1.50/events?${query}` }, (answer) => {
      let text = "";
      answer.on("error", reject);
      answer.on("data", (chunk: Buffer) => {
        if (text === "") onFirst();
        text += chunk.toString();
      });
      answer.on("end", () => {
        try {
          const lines = text.split("\r\n").filter((line) => line !== "");
          for (const line of lines) JSON.parse(line);
          assert.ok(answer.complete);
          resolve(lines.length);
        } catch (error) {
          reject(error);
        }
      });
    });
    asked.on("error", reject);
    asked.end();
  });
}

const listenerCount = 20;

test("a stream that ends at its time ends whole, however many listen and however much happens meanwhile", async () => {
  emit(900);
  const until = (Date.now() + 400) / 1000;
  let storms = 0;
  let answered = 0;
  // Not before all have their past: it keeps the last thousand, and there are more.
  const storm = (): void => {
    if (++answered < listenerCount) return;
    rage();
  };
  const rage = (): void => {
    emit(50);
    if (Date.now() / 1000 < until + 0.1 && storms++ < 5_000) setImmediate(rage);
  };
  const listeners = Array.from({ length: listenerCount }, () => listen(`since=0&until=${until.toFixed(9)}`, storm));
  for (const count of await Promise.all(listeners)) assert.ok(count >= 900);
  assert.equal(events.watching, 0);
});

test("one that has nothing to wait for leaves no watcher behind", async () => {
  emit(3);
  await listen("since=1&until=2");
  await listen(`since=0&until=${(Date.now() / 1000 - 3600).toFixed(9)}`);
  assert.equal(events.watching, 0);
});

test("a client that goes away is noticed, and its watcher goes with it", async () => {
  const asked = request({ socketPath, path: "/v1.50/events" });
  asked.on("error", () => undefined); // it is this test that cuts it
  const answered = new Promise<void>((resolve) => asked.on("response", () => resolve()));
  asked.end();
  await answered;
  assert.equal(events.watching, 1);
  asked.destroy();
  const untilMs = performance.now() + 60_000;
  while (events.watching > 0) {
    assert.ok(performance.now() < untilMs, "the watcher stays");
    await new Promise((resolve) => setImmediate(resolve));
  }
});
