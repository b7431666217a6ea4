/** What is asked of everything on a node, while some of it goes. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { realClock, silentLogger } from "../../lib/runtime/index.ts";
import { HttpServer } from "../http/index.ts";
import type { LocalContext } from "./context.ts";
import { imageRoutes } from "./images.ts";
import { toKernel } from "./kernel.ts";
import { systemRoutes } from "./system.ts";

const folder = mkdtempSync(join(tmpdir(), "skep-system-"));
const socketPath = join(folder, "socket");
let server: HttpServer;

const summary = (id: string) => ({ id, repoTags: [], repoDigests: [], createdAtMs: 0, sizeBytes: 1, containers: 0 });
/** Of three images one is being removed, and one cannot be read. */
let listed = ["here", "going", "broken"];
const images = {
  list: async () => listed.map(summary),
  layersBytes: () => new Promise((resolve) => setImmediate(resolve, 3)),
  inspect: async (id: string) => {
    if (id === "here") return { config: { run: { labels: {} } } };
    if (id === "going") listed = listed.filter((other) => other !== id);
    throw new Error(`no ${id}`);
  },
};

before(async () => {
  const local = { images, containers: { list: () => [] }, volumes: { list: () => [] } };
  const context = { local, clock: realClock } as unknown as LocalContext;
  const routes = toKernel([...systemRoutes(context), ...imageRoutes(context)]);
  server = new HttpServer({ ...routes, logger: silentLogger, release: "0" });
  await server.listen({ kind: "unix", path: socketPath });
});
after(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

function get(path: string): Promise<{ readonly status: number | undefined; readonly body: unknown }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: `/v1.50${path}` }, (answer) => {
      let text = "";
      answer.on("data", (chunk: Buffer) => (text += chunk.toString()));
      answer.on("end", () => resolve({ status: answer.statusCode, body: JSON.parse(text) }));
    });
    asked.on("error", reject).end();
  });
}

test("an image that cannot be read fails the question that is asked of it, and no other", async () => {
  listed = ["here", "broken"];
  const { status, body } = await get("/system/df?type=volume");
  assert.deepEqual([status, (body as { Volumes: unknown }).Volumes], [200, []]);
  assert.equal((await get("/system/df?type=image")).status, 500);
  assert.equal((await get("/images/json")).status, 500);
});

test("an image that is removed while it is listed is left out", async () => {
  for (const path of ["/images/json", "/system/df?type=image"]) {
    listed = ["here", "going"];
    const { status, body } = await get(path);
    const rows = Array.isArray(body) ? body : (body as { Images: unknown[] }).Images;
    assert.deepEqual([status, rows.map((row) => (row as { Id: string }).Id)], [200, ["here"]], path);
  }
});
