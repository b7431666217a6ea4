import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { silentLogger } from "../../lib/runtime/index.ts";
import { HttpServer } from "./server.ts";

function get(socketPath: string, path: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, agent: false }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
    });
    asked.on("error", reject);
    asked.end();
  });
}

test("who waits for the sake of a call hears when its route has ended, whichever way", async () => {
  const folder = mkdtempSync(join(tmpdir(), "skep-http-"));
  const socketPath = join(folder, "socket");
  const over: string[] = [];
  const waits = (name: string, signal: AbortSignal): void =>
    signal.addEventListener("abort", () => over.push(`${name} ${(signal.reason as Error).name}`), { once: true });
  const server = new HttpServer({
    routes: [
      {
        method: "GET",
        path: "/answers",
        handle: (call) => {
          waits("answers", call.signal);
          return { json: {} };
        },
      },
      {
        method: "GET",
        path: "/fails",
        handle: (call) => {
          waits("fails", call.signal);
          return Promise.reject(new Error("on purpose"));
        },
      },
      {
        method: "GET",
        path: "/streams",
        handle: async (call) => {
          waits("streams", call.signal);
          const out = call.stream(200, {});
          await out.write("all");
          assert.equal(call.signal.aborted, false);
          out.end();
        },
      },
    ],
    upgrades: [],
    logger: silentLogger,
    release: "0",
  });
  try {
    await server.listen({ kind: "unix", path: socketPath });
    assert.equal(await get(socketPath, "/answers"), 200);
    assert.equal(await get(socketPath, "/fails"), 500);
    assert.equal(await get(socketPath, "/streams"), 200);
    assert.deepEqual(over, ["answers AbortError", "fails AbortError", "streams AbortError"]);
  } finally {
    await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
});
