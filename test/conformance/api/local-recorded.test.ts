/** Every recorded request of real clients about what runs on a node: accepted as it was sent, answered as described. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { request as httpRequest, type ClientRequest } from "node:http";
import { Readable, type Duplex } from "node:stream";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";

import { makeTar } from "../../support/layers.ts";
import { OpenApi } from "../../support/openapi.ts";
import { readRecording, type RecordedRequest } from "../../support/recorded.ts";
import { whySkipped } from "../containers/host.ts";
import { LocalWorld } from "./local-world.ts";

const recorded = join(import.meta.dirname, "recorded");
const description = new OpenApi(join(import.meta.dirname, "data", "engine-api-v1.50.yaml"));

/** Not for this engine, and why. */
const left: ReadonlyMap<string, string> = new Map([
  ["image-build-classic", "there is no builder"],
  [
    "container-run-attachable",
    "played by test/cluster/network-recorded.test.ts: a network of the swarm needs the data plane",
  ],
]);

/** Where we answer otherwise on purpose: "FILE METHOD PATH". */
const otherStatus: ReadonlyMap<string, number> = new Map([
  ["image-search-fail GET /images/search", 501],
  // Cluster volumes are left out whatever their driver.
  ["volume-create-cluster POST /volumes/create", 501],
  // The engine that was recorded did not know the filter `all`, which came with 1.42.
  ["volume-prune-all POST /volumes/prune", 200],
]);

/** What the description leaves out, or what older clients are given. */
const undescribed =
  /"unevaluatedProperty":"(ID|VirtualSize|DockerVersion|BuilderSize)"|\/MemorySwappiness must be integer|\/ExitCode must be integer/;

/** Containers that do not run when the recording begins. */
const stopped = new Set([
  "container-kill-stopped",
  "container-stop-again",
  "container-rm",
  "container-rm-running",
  "container-wait",
  "container-rename-conflict",
]);

interface Hijacked {
  readonly dir: ">" | "<";
  readonly data?: string;
  readonly eof?: boolean;
}

type LocalRequest = RecordedRequest & {
  readonly response?: { readonly status?: number; readonly body?: unknown; readonly hijacked?: readonly Hijacked[] };
};

const plainPath = (path: string): string => path.replace(/^\/v1\.\d+/, "").split("?")[0] ?? "";
const isLocal = ({ path }: RecordedRequest): boolean =>
  /^\/(containers|exec|images|volumes|events|system|auth|build|commit|plugins)(\/|$)/.test(plainPath(path));
/** Answers that end only when something else happens. */
const isOpen = ({ path, query }: RecordedRequest): boolean =>
  path.endsWith("/wait") || (path.endsWith("/events") && query?.["until"] === undefined) || query?.["follow"] === "1";

interface Received {
  readonly status: number;
  readonly text: string;
  readonly contentType: string;
}

describe("recorded requests about a node", { skip: whySkipped(), timeout: 300_000 }, () => {
  let world: LocalWorld;
  let tar: Buffer;
  const open: (ClientRequest | Duplex)[] = [];
  before(async () => {
    world = await LocalWorld.open();
    tar = await makeTar([{ name: "in.txt", content: "x\n" }]);
  });
  after(async () => {
    await world.close();
  });
  afterEach(async () => {
    for (const one of open.splice(0)) one.destroy();
    for (const container of world.worker.containers.list()) await container.remove({ force: true, volumes: true });
    for (const { name } of world.volumes.list()) await world.volumes.delete(name);
  });

  /** Sends it; of an answer that stays open, and of an upgraded connection, only the head is waited for. */
  function send(request: LocalRequest, fill: (text: string) => string, load: Buffer): Promise<Received> {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(request.query ?? {})) {
      for (const one of Array.isArray(value) ? (value as unknown[]) : [value]) query.append(key, fill(String(one)));
    }
    const isUpgrade = request.response?.hijacked !== undefined;
    const { body } = request;
    const isBinary = typeof body === "object" && body !== null && "$binary" in body;
    const bytes = isBinary
      ? request.path.endsWith("/images/load")
        ? load
        : tar
      : body === undefined
        ? undefined
        : Buffer.from(typeof body === "string" ? body : fill(JSON.stringify(body)));
    const headers: Record<string, string> = { ...request.headers };
    delete headers["Transfer-Encoding"];
    if (bytes !== undefined) headers["Content-Length"] = String(bytes.length);
    return new Promise((resolve, reject) => {
      const text = query.toString();
      const call = httpRequest({
        socketPath: world.socket,
        method: request.method,
        path: `${fill(request.path)}${text === "" ? "" : `?${text}`}`,
        headers,
        timeout: 20_000,
      });
      call.on("timeout", () => call.destroy(new Error(`no answer to ${request.path}`)));
      call.on("error", reject);
      call.on("upgrade", (response, socket) => {
        open.push(socket);
        socket.resume();
        for (const { dir, data, eof } of request.response?.hijacked ?? []) {
          if (dir !== ">") continue;
          if (data !== undefined) socket.write(data);
          if (eof === true) socket.end();
        }
        resolve({ status: response.statusCode ?? 0, text: "", contentType: response.headers["content-type"] ?? "" });
      });
      call.on("response", (response) => {
        const head = { status: response.statusCode ?? 0, contentType: response.headers["content-type"] ?? "" };
        if (isOpen(request) && head.status === 200) {
          open.push(call);
          response.resume();
          response.on("error", () => undefined); // it is cut off when the recording is over
          resolve({ ...head, text: "" });
          return;
        }
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () => resolve({ ...head, text: Buffer.concat(chunks).toString("utf8") }));
        response.on("error", reject);
      });
      call.end(isUpgrade && bytes === undefined ? undefined : bytes);
      if (isOpen(request)) call.on("error", () => undefined); // as above
    });
  }

  async function prepare(name: string, requests: readonly LocalRequest[]): Promise<Map<string, string>> {
    const bound = new Map<string, string>();
    const { containers } = world.worker;
    if (!(await world.images.list()).some(({ repoTags }) => repoTags.includes("bb:2")))
      await world.images.import(Readable.from([tar]), { reference: "bb:2", changes: { Cmd: ["sleep"] } });
    for (const tag of ["tagged/x:v1", "imp:1", "imp:2", "comm:1"]) await world.images.tag("bb:1", tag);
    const make = async (called: string): Promise<string> => {
      const there = containers.list().find(({ record }) => record.name === called);
      if (there !== undefined) return there.id;
      const config = { Image: "bb:1", Cmd: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"] };
      const container = await containers.create({ name: called, config, hostConfig: { NetworkMode: "none" } });
      await container.start();
      if (stopped.has(name)) await container.stop({ seconds: 0 });
      return container.id;
    };
    const created = new Set(
      requests.map(({ path, query }) => (plainPath(path) === "/containers/create" ? query?.["name"] : "")),
    );
    for (const { path, query, response } of requests) {
      const called = /^\/containers\/([^/]+)(\/|$)/.exec(plainPath(path))?.[1] ?? "";
      const isName = !["", "create", "json", "prune"].includes(called) && !called.startsWith("{{");
      const missing = response?.status === 404 && !path.endsWith("/archive");
      if (isName && !created.has(called) && !missing) {
        const id = await make(called);
        const shown = (response?.body as { Id?: string } | undefined)?.Id;
        const placeholder = /^\{\{(\w+)\}\}$/.exec(shown ?? "")?.[1];
        if (placeholder !== undefined) bound.set(placeholder, id);
      }
      if (typeof query?.["container"] === "string") await make(query["container"]);
      if (
        plainPath(path).startsWith("/volumes/vol1") &&
        !requests.some((one) => plainPath(one.path) === "/volumes/create")
      )
        await world.volumes.create({ name: "vol1", labels: { a: "b" } });
    }
    if (name === "container-run-dup" || name === "container-rename-conflict") await make("c1");
    if (name === "container-ps-filter") {
      await make("c1");
      await make("c2");
    }
    return bound;
  }

  for (const file of readdirSync(recorded).filter((one) =>
    /^(container|image|volume|system|network)-.*\.json$/.test(one),
  )) {
    const name = file.replace(/\.json$/, "");
    const recording = readRecording(join(recorded, file));
    const requests = recording.requests.filter(isLocal) as readonly LocalRequest[];
    if (requests.length === 0) continue;
    test(`${name}: ${recording.command.slice(0, 100)}`, { skip: left.get(name) ?? false }, async () => {
      const bound = await prepare(name, requests);
      const fill = (text: string): string =>
        text.replaceAll(/\{\{(\w+?)(?::12)?\}\}/g, (whole, key: string) => {
          const value = bound.get(key) ?? "f".repeat(64);
          return whole.includes(":12") ? value.slice(0, 12) : value;
        });
      const saved = await world.images.save(["bb:1"]);
      const load = Buffer.concat(await saved.toArray());
      for (const request of requests) {
        const plain = plainPath(request.path);
        if (request.method === "DELETE" && plain.startsWith("/containers/") && request.query?.["force"] === undefined) {
          const status = request.response?.status;
          const container = world.worker.containers.list().find(({ record }) => plain === `/containers/${record.name}`);
          // The client went on when it had ended.
          if (status === 204) await container?.wait("not-running", AbortSignal.timeout(20_000));
        }
        const answer = await send(request, fill, load);
        const where = `${request.method} ${plain}: ${answer.status} ${answer.text.slice(0, 400)}`;
        assert.equal(
          answer.status,
          otherStatus.get(`${name} ${request.method} ${plain}`) ?? request.response?.status,
          where,
        );
        if (answer.contentType !== "application/json" || answer.text === "") continue;
        if (/\/(stats|create|load|push|events)$/.test(plain) && !/^\/(containers|volumes)\/create$/.test(plain))
          continue;
        const body = JSON.parse(answer.text) as { Id?: string; message?: string };
        const placeholder = /^\{\{(\w+)\}\}$/.exec((request.response?.body as { Id?: string } | null)?.Id ?? "")?.[1];
        if (placeholder !== undefined && body.Id !== undefined) bound.set(placeholder, body.Id);
        if (answer.status >= 400) {
          assert.equal(typeof body.message, "string", where);
          continue;
        }
        const wrong = description.judge(request.method, plain, answer.status, body);
        assert.deepEqual(
          wrong.filter((text) => !undescribed.test(text)),
          [],
          where,
        );
      }
    });
  }
});
