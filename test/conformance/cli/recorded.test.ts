/**
 * `skep` sends what the docker CLI 28 sends: each recorded command is run against a daemon that plays the recorded
 * answers. What changes something must be equal in order and content; what only reads, as a set (a client may ask twice).
 * Where skep departs on purpose, the table below says why.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import {
  canonicalFilters,
  readRecording,
  RecordedServer,
  type RecordedRequest,
  type Recording,
  type SeenRequest,
} from "../../support/recorded-server.ts";
import { runSkep, type Outcome } from "../../support/run-cli.ts";

const folder = join(import.meta.dirname, "../api/recorded");

/** Not commands of skep, or not yet. */
const elsewhere: Readonly<Record<string, string>> = {
  "api-version-deltas": "requests to an older daemon: another shape of file",
  "client-compose-up": "docker-compose",
  "client-dockerode": "dockerode",
  "http-edge-cases": "raw HTTP",
  "stack-compose-files": "files, not a command",
  "image-build-classic": "no build command",
  "image-builder-prune": "no builder command",
  "image-login-fail": "no login command: credentials come from docker's own file",
  "image-search-fail": "no search command",
  "image-ls-tree": "an experimental view of docker's",
  "system-plugin-inspect": "no plugins",
  "system-plugin-ls": "no plugins",
  "volume-create-cluster": "no cluster volumes",
  "noswarm-stack-deploy": "stack deploy is not there yet",
  "stack-config": "stack deploy is not there yet",
  "stack-deploy": "stack deploy is not there yet",
  "stack-deploy-missing-secret": "stack deploy is not there yet",
  "stack-deploy-nodetach": "stack deploy is not there yet",
  "stack-redeploy-changed": "stack deploy is not there yet",
  "stack-redeploy-prune": "stack deploy is not there yet",
  "container-exec-it": "needs a terminal: terminal.test.ts",
  "container-run-it": "needs a terminal: terminal.test.ts",
  "image-import-stdin": "a pipe from a file that is not recorded; image-import shows the same request",
  "swarm-lock-autolock": "restarts the daemon in the middle; swarm-update-autolock shows the same requests",
  "system-events": "a shell of commands beside it; system-events-range shows the same request",
  "network-connect": "parts of the sent endpoint are the engine's answers; cli/network.test.ts has what counts",
};

/** The recorder cut the polled answers, so these never converge; cli/service/converge.test.ts plays whole ones. */
const polled = new Set([
  "service-create-job",
  "service-create-quiet",
  "service-create-tty",
  "service-rollback-tty",
  "service-scale-tty",
  "service-update-fail-pause",
  "service-update-notty",
  "service-update-tty",
  "stack-rm-nodetach",
  "swarm-ca-rotate-tty",
]);

/** The recorder cut a list that tells what comes next, so fewer requests follow; those must be among the recorded. */
const cutLists = new Set(["stack-ps", "stack-rm"]);

/** Members of the bodies that may differ, and why. */
const departures: Readonly<Record<string, string>> = {
  "run -d": "no wait is opened for a container that nobody waits for",
  attach: "the state is read before the wait is opened, and the wait names its condition",
};

interface Step {
  readonly words: readonly string[];
  readonly stdin: string | undefined;
}

let workFolder = "";
let oldFolder = "";
before(() => {
  oldFolder = process.cwd();
  workFolder = mkdtempSync(join(tmpdir(), "skep-recorded-"));
  process.chdir(workFolder);
  writeFileSync("in.txt", "x\n");
  writeFileSync("rootfs.tar", Buffer.alloc(1024));
  writeFileSync("s.tar", Buffer.alloc(1024));
});
after(() => {
  process.chdir(oldFolder);
  rmSync(workFolder, { recursive: true, force: true });
});

const names = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.slice(0, -".json".length));

test("the recordings are all accounted for", () => {
  for (const name of [...Object.keys(elsewhere), ...polled]) assert.ok(names.includes(name), `${name} is not there`);
  assert.ok(names.length >= 290, `only ${names.length} recordings`);
});

for (const name of names) {
  if (elsewhere[name] !== undefined || polled.has(name)) continue;
  const recording = readRecording(folder, name);
  test(`${name}: ${recording.command ?? ""}`.slice(0, 150), async () => {
    const requests = wholeSpecs(name, recording.requests);
    const steps = stepsOf(recording);
    assert.ok(steps.length > 0, "no command was understood");
    const server = await RecordedServer.start(requests);
    try {
      let outcome: Outcome | undefined;
      for (const { words, stdin } of steps) {
        outcome = await runSkep(words, { host: server.host, ...(stdin === undefined ? {} : { stdin }) });
      }
      assertSame(name, steps, requests, server.seen);
      const single = steps.length === 1 && recording.exit !== undefined && recording.exit < 124;
      const isCut = name === "container-port-one"; // The ports themselves were cut.
      if (single && !isCut && !/\|\s*(head|tar|grep)/.test(recording.command ?? "")) {
        assert.equal(outcome?.exit, recording.exit, outcome?.stderr);
      }
      if (single && recording.exit === 1) assertSameWords(outcome?.stderr ?? "", recording.stderr ?? "");
    } finally {
      await server.close();
    }
  });
}

/** The recorder cut long texts and marked it. */
function assertSameWords(found: string, recorded: string): void {
  const plain = (text: string): string => text.replaceAll("docker", "skep").replaceAll("Docker", "skep").trim();
  const [[wanted = ""], [got = ""]] = [plain(recorded).split("…"), plain(found).split("…")];
  assert.ok(wanted.startsWith(got) || got.startsWith(wanted), `stderr\n${found}\nis not\n${recorded}`);
}

function assertSame(
  name: string,
  steps: readonly Step[],
  recorded: readonly RecordedRequest[],
  seen: readonly SeenRequest[],
): void {
  const text = steps.map(({ words }) => words.join(" ")).join("; ");
  const skipsWait = /(^|; )run .*-d |(^|; )(attach|start -a)/.test(text) && departures["run -d"] !== undefined;
  const changes = (request: { method: string; path: string }): boolean =>
    request.method !== "GET" && request.method !== "HEAD" && !(skipsWait && request.path.endsWith("/wait"));
  const wanted = recorded.filter(({ path }) => !path.endsWith("/_ping"));
  if (cutLists.has(name)) {
    const known = new Set(wanted.map((one) => JSON.stringify(shapeOf(one))));
    for (const one of seen) assert.ok(known.has(JSON.stringify(shapeOf(one))), JSON.stringify(shapeOf(one)));
    assert.ok(seen.length > 1);
    return;
  }
  const parallel = name === "container-rm"; // docker removes them at once, in no order
  const ordered = (requests: readonly object[]): readonly object[] =>
    parallel ? requests.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)) : requests;
  assert.deepEqual(ordered(seen.filter(changes).map(shapeOf)), ordered(wanted.filter(changes).map(shapeOf)));
  const reads = (requests: readonly (RecordedRequest | SeenRequest)[]): string[] =>
    [
      ...new Set(
        requests.filter((one) => ["GET", "HEAD"].includes(one.method)).map((one) => JSON.stringify(shapeOf(one))),
      ),
    ].toSorted();
  assert.deepEqual(reads(seen), reads(wanted));
}

/** What counts of a request: its path, query, body, and the registry's credentials. */
function shapeOf(request: RecordedRequest | SeenRequest): object {
  const query = Object.fromEntries(
    Object.entries(request.query ?? {})
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, value]) => {
        if (key === "filters") return [key, canonicalFilters(String(value))];
        // They depend on the clock.
        return [key, key === "since" || key === "until" ? /^\d+(\.\d+)?$/.test(String(value)) : value];
      }),
  );
  const headers = (request.headers ?? {}) as Readonly<Record<string, string>>;
  const auth = headers["X-Registry-Auth"] ?? headers["x-registry-auth"];
  return {
    method: request.method,
    path: request.path.replace(/^\/v\d+\.\d+/, ""),
    query,
    body:
      typeof request.body === "object" && request.body !== null && "$binary" in request.body
        ? "bytes"
        : jsonBody(request.body),
    ...(auth === undefined ? {} : { auth }),
  };
}

/** A recorded upload that was text is bytes to us. */
function jsonBody(body: unknown): unknown {
  return typeof body === "string"
    ? "bytes"
    : body === undefined
      ? undefined
      : (JSON.parse(JSON.stringify(body)) as unknown);
}

/**
 * An update is computed from the specification that the daemon answers, and the recorder cut that. What the update sent
 * stands in for it: the same flags on top of it change nothing, save where noted.
 */
function wholeSpecs(name: string, requests: readonly RecordedRequest[]): readonly RecordedRequest[] {
  const posts = requests.filter(({ method, path }) => method === "POST" && path.endsWith("/update"));
  return requests.map((request) => {
    if (request.method === "GET" && /\/containers\/[^/]+\/json$/.test(request.path)) return running(request);
    const answer = request.response?.body as { ID?: string; Spec?: object } | undefined;
    if (request.method !== "GET" || answer?.Spec === undefined) return request;
    const post =
      posts.find(({ path }) => path.includes(`/${answer.ID ?? "?"}/`)) ??
      posts.find(({ path }) => path.endsWith("/swarm/update"));
    if (post === undefined || !/^\/v[\d.]+\/(services\/[^/]+|swarm|nodes\/[^/]+)$/.test(request.path)) return request;
    const Spec = name === "service-update-many" ? createdAll(requests) : structuredClone(post.body as object);
    undo(name, Spec);
    return { ...request, response: { ...request.response, body: { ...answer, Spec } } };
  });
}

/** The recorder cut the state of containers. */
function running(request: RecordedRequest): RecordedRequest {
  const body = { ...(request.response?.body as object), State: { Running: true } };
  return request.response?.status === 200 ? { ...request, response: { ...request.response, body } } : request;
}

/** The specification that `service-create-all` made, as the daemon kept it, with this recording's ids. */
function createdAll(requests: readonly RecordedRequest[]): object {
  const made = readRecording(folder, "service-create-all").requests.at(-1)?.body as {
    TaskTemplate: {
      ContainerSpec: { Healthcheck: { StartInterval?: number } };
      Networks: { Target: string }[];
      Runtime?: string;
    };
  };
  // The recorded engine was too old to keep it.
  delete made.TaskTemplate.ContainerSpec.Healthcheck.StartInterval;
  const network = requests.find(({ path }) => path.includes("/networks/"))?.response?.body as { Id: string };
  made.TaskTemplate.Networks[0]!.Target = network.Id;
  made.TaskTemplate.Runtime = "container";
  return made;
}

/** What the same flags would do twice. */
function undo(name: string, spec: object): void {
  if (name.startsWith("swarm-ca-rotate")) {
    const config = (spec as { CAConfig?: { ForceRotate?: number } }).CAConfig ?? {};
    config.ForceRotate = (config.ForceRotate ?? 0) - 1;
  }
  if (name === "service-scale") (spec as { Mode: { Replicated: { Replicas: number } } }).Mode.Replicated.Replicas = 9;
  if (name === "swarm-update-autolock") {
    (spec as { EncryptionConfig: { AutoLockManagers: boolean } }).EncryptionConfig.AutoLockManagers = false;
  }
  if (name === "node-promote") (spec as { Role: string }).Role = "worker";
  if (name === "node-demote") (spec as { Role: string }).Role = "manager";
  if (name === "node-update-labelrm") (spec as { Labels: Record<string, string> }).Labels["a"] = "b";
}

/** The commands of a recorded shell line that are docker's. */
function stepsOf(recording: Recording): Step[] {
  const cut = /\/(?:nodes|services)\/([a-z0-9]{5,6})$/.exec(recording.requests.at(-1)?.path ?? "")?.[1];
  const id =
    cut ??
    /\/(?:nodes|services|tasks)\/(id\d+x+)/.exec(recording.requests.map(({ path }) => path).join(" "))?.[1] ??
    "";
  const token = JSON.stringify(recording.requests.map(({ body }) => body)).match(/"JoinToken":"([^"]+)"/)?.[1] ?? "";
  const key = JSON.stringify(recording.requests.map(({ body }) => body)).match(/"UnlockKey":"([^"]+)"/)?.[1] ?? "key";
  const line = (recording.command ?? "")
    .replace(/\$\(docker swarm join-token[^)]*\)/g, token)
    .replace(/\$\((?:[^()]|\([^)]*\))*\)/g, id);
  const steps: Step[] = [];
  for (const part of shellParts(line)) {
    const pipe = part.findIndex((word) => word === "|");
    const first = pipe < 0 ? part : part.slice(0, pipe);
    const isFed = pipe > 0 && first[0] !== "docker";
    const words = isFed ? part.slice(pipe + 1) : first;
    const end = words.findIndex((word) => [">", "|", ">/dev/null", "2>/dev/null"].includes(word));
    if (words[0] !== "docker") continue;
    let stdin: string | undefined;
    if (isFed && first[0] === "printf") stdin = first[1] ?? "";
    if (isFed && first[0] === "echo") stdin = `${first.slice(1).join(" ")}\n`;
    if (isFed && first[0] === "cat") stdin = `${key}\n`;
    steps.push({ words: words.slice(1, end < 0 ? undefined : end), stdin });
  }
  return steps;
}

/** Commands of a shell line, each as words; `|` and redirections stay words. */
function shellParts(line: string): string[][] {
  const parts: string[][] = [[]];
  let word: string | undefined;
  let quote = "";
  const endWord = (): void => {
    if (word !== undefined) parts.at(-1)!.push(word);
    word = undefined;
  };
  for (let at = 0; at < line.length; at++) {
    const char = line[at]!;
    if (quote !== "") {
      if (char === quote) quote = "";
      else if (char === "\\" && quote === '"' && '"\\$'.includes(line[at + 1] ?? "")) word = (word ?? "") + line[++at]!;
      else word = (word ?? "") + char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (/\s/.test(char)) endWord();
    else if (char === ";" || char === "&" || char === "(" || char === ")") {
      endWord();
      parts.push([]);
    } else if (char === "|") {
      endWord();
      parts.at(-1)!.push("|");
    } else word = (word ?? "") + char;
  }
  endWord();
  return parts.filter((part) => part.length > 0);
}
