/** Routes of this room as the HTTP kernel wants them. */
import { Readable, type Duplex } from "node:stream";

import {
  BadRequest,
  jsonBytesMax,
  PageNotFound,
  readText,
  type Answer as KernelAnswer,
  type Call as KernelCall,
  type Route,
  type UpgradeCall,
  type UpgradeRoute,
} from "../http/index.ts";
import type { Answer, Call, LocalRoute } from "./call.ts";
import { Query } from "./query.ts";

/** A body that a client sends although nobody wants one. */
const skippedBytesMax = 64 * 1024;

export function toKernel(routes: readonly LocalRoute[]): { routes: Route[]; upgrades: UpgradeRoute[] } {
  const greedy = new Map<string, LocalRoute[]>();
  const plain: Route[] = [];
  for (const route of routes) {
    if (route.path.includes("*")) {
      const key = `${route.method} ${route.path.slice(0, route.path.indexOf("*"))}*`;
      greedy.set(key, [...(greedy.get(key) ?? []), route]);
    } else {
      plain.push({ method: route.method, path: route.path, handle: (call) => run(route, call, call.params) });
    }
  }
  for (const [key, candidates] of greedy) {
    const [method = "", path = ""] = key.split(" ", 2);
    plain.push({
      method: method as Route["method"],
      path,
      handle: (call) => {
        const [route, params] = chooseGreedy(candidates, call.params["*"] ?? "");
        return run(route, call, params);
      },
    });
  }
  const upgrades = routes
    .filter(({ hijacks }) => hijacks === true)
    .map((route): UpgradeRoute => ({ path: route.path, handle: (call) => upgrade(route, call) }));
  return { routes: plain, upgrades };
}

/** Names of images hold slashes: what stands after them tells the routes apart. The longest fitting one wins. */
function chooseGreedy(candidates: readonly LocalRoute[], rest: string): [LocalRoute, Record<string, string>] {
  let best: { route: LocalRoute; params: Record<string, string>; length: number } | undefined;
  for (const route of candidates) {
    const [, name = "", suffix = ""] = /\*(\w+)(.*)$/.exec(route.path) ?? [];
    if (!rest.endsWith(suffix) || rest.length <= suffix.length) continue;
    if (best !== undefined && best.length >= suffix.length) continue;
    best = { route, params: { [name]: rest.slice(0, rest.length - suffix.length) }, length: suffix.length };
  }
  if (best === undefined) throw new PageNotFound();
  return [best.route, best.params];
}

async function run(
  route: LocalRoute,
  kernel: KernelCall,
  params: Readonly<Record<string, string>>,
): Promise<KernelAnswer | undefined> {
  const call: Call = {
    params,
    query: new Query(kernel.query),
    headers: kernel.headers,
    minor: kernel.minor,
    signal: kernel.signal,
    json: () => kernel.json(),
    skipBody: async () => void (await readText(kernel.request, skippedBytesMax)),
    body: kernel.request,
  };
  const answer = await route.handle(call);
  switch (answer.kind) {
    case "json":
      return { status: answer.status, json: answer.body };
    case "empty":
      return { status: answer.status, ...(answer.headers === undefined ? {} : { headers: answer.headers }) };
    case "stream": {
      const out = kernel.stream(answer.status, answer.headers);
      await answer.send(out);
      out.end();
      return undefined;
    }
    case "hijack": {
      const socket = kernel.hijack();
      socket.write(`HTTP/1.1 200 OK\r\nContent-Type: ${answer.contentType}\r\n\r\n`);
      await converse(answer, socket);
      return undefined;
    }
  }
}

async function upgrade(route: LocalRoute, kernel: UpgradeCall): Promise<void> {
  const body = await kernel.body(jsonBytesMax);
  const call: Call = {
    params: kernel.params,
    query: new Query(kernel.query),
    headers: kernel.headers,
    minor: kernel.minor,
    signal: kernel.signal,
    json: async () => parseObject(body),
    skipBody: async () => undefined,
    body: Readable.from([]),
  };
  const answer = await route.handle(call);
  if (answer.kind === "hijack") {
    await converse(answer, kernel.accept({ "content-type": answer.contentType }));
    return;
  }
  // An exec session that is started detached has nothing to say.
  kernel.accept({ "content-type": "application/vnd.docker.raw-stream" }).end();
}

/** Whatever goes wrong now, the client has its connection: its end is all that can be told. */
async function converse(answer: Extract<Answer, { kind: "hijack" }>, socket: Duplex): Promise<void> {
  try {
    await answer.talk(socket);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function parseObject(body: Buffer): Readonly<Record<string, unknown>> {
  if (body.length === 0) return {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString("utf8"));
  } catch {
    throw new BadRequest("invalid JSON");
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) throw new BadRequest("invalid JSON");
  return parsed as Readonly<Record<string, unknown>>;
}
