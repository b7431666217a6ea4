import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { RecordedServer, type RecordedRequest } from "../../test/support/recorded-server.ts";
import { runSkep, type Outcome } from "../../test/support/run-cli.ts";

interface Round {
  readonly status?: { State: string; StartedAt?: string; Message?: string };
  /** State of each task, by slot from 1. */
  readonly tasks: readonly string[];
  /** Who has ended is not started again. */
  readonly isOver?: boolean;
}

const monitorNs = 1_000_000;

function serviceOf(
  replicas: number,
  status: Round["status"],
  mode: object = { Replicated: { Replicas: replicas } },
): object {
  return {
    ID: "svc",
    Version: { Index: 7 },
    CreatedAt: "2026-11-21T10:00:00Z",
    UpdatedAt: "2026-11-21T10:00:00Z",
    Spec: {
      Name: "web",
      Labels: {},
      TaskTemplate: { ContainerSpec: { Image: "bb:1" } },
      Mode: mode,
      UpdateConfig: { Parallelism: 1, MaxFailureRatio: 0, Monitor: monitorNs },
      RollbackConfig: { Parallelism: 1, MaxFailureRatio: 0, Monitor: monitorNs },
    },
    ...(status === undefined ? {} : { UpdateStatus: status }),
    JobStatus: { JobIteration: { Index: 0 } },
  };
}

/** The service as it is before the change (from round 0 on for creates), then what each poll sees. */
function play(rounds: readonly Round[], before?: Round["status"], mode?: object): RecordedRequest[] {
  const replicas = Math.max(...rounds.map(({ tasks }) => tasks.length));
  const service = (status: Round["status"]): RecordedRequest => ({
    method: "GET",
    path: "/services/web",
    query: { insertDefaults: "false" },
    response: { body: serviceOf(replicas, status, mode) },
  });
  const taskQuery = { filters: '{"_up-to-date":{"true":true},"service":{"web":true}}' };
  return [
    service(before),
    {
      method: "POST",
      path: "/services/svc/update",
      query: { version: "7", registryAuthFrom: "spec" },
      response: { body: {} },
    },
    {
      method: "POST",
      path: "/services/svc/update",
      query: { version: "7", rollback: "previous" },
      response: { body: {} },
    },
    {
      method: "GET",
      path: "/nodes",
      response: { body: [{ ID: "n1", Status: { State: "ready" }, Spec: {}, Description: {} }] },
    },
    ...rounds.flatMap(({ status, tasks, isOver = false }) => [
      service(status),
      {
        method: "GET",
        path: "/tasks",
        query: taskQuery,
        response: {
          body: tasks.map((state, at) => ({
            ID: `t${at}`,
            ServiceID: "svc",
            Slot: at + 1,
            NodeID: "n1",
            DesiredState: isOver && state !== "running" ? "shutdown" : state === "complete" ? "complete" : "running",
            Status: { State: state, Timestamp: "2026-11-21T10:00:00Z" },
          })),
        },
      },
    ]),
  ];
}

async function run(words: readonly string[], requests: readonly RecordedRequest[]): Promise<Outcome> {
  const server = await RecordedServer.start(requests);
  try {
    return await runSkep(words, { host: server.host });
  } finally {
    await server.close();
  }
}

test("an update waits until the tasks run, and says how far it is", async () => {
  const outcome = await run(
    ["service", "update", "--force", "web"],
    play([{ tasks: ["starting", "new"] }, { tasks: ["running", "starting"] }, { tasks: ["running", "running"] }]),
  );
  assert.equal(outcome.exit, 0, outcome.stderr);
  assert.deepEqual(outcome.stdout.split("\n"), [
    "web",
    "overall progress: 0 out of 2 tasks",
    "overall progress: 1 out of 2 tasks",
    "overall progress: 2 out of 2 tasks",
    "verify: Waiting to verify that tasks are stable...",
    "verify: Service web converged",
    "",
  ]);
});

test("--quiet prints the name only, --detach does not wait", async () => {
  const quiet = await run(["service", "update", "-q", "--force", "web"], play([{ tasks: ["running"] }]));
  assert.deepEqual([quiet.exit, quiet.stdout], [0, "web\n"]);
  const detached = await run(["service", "update", "-d", "--force", "web"], play([{ tasks: ["new"] }]));
  assert.deepEqual([detached.exit, detached.stdout], [0, "web\n"]);
});

test("a paused update fails with the managers' message", async () => {
  const status = { State: "paused", Message: "update paused due to failure or early termination of task t1" };
  const outcome = await run(
    ["service", "update", "--force", "web"],
    play([{ tasks: ["failed"] }, { status, tasks: ["failed"] }]),
  );
  assert.equal(outcome.exit, 1);
  assert.match(outcome.stderr, /^service update paused: update paused due to failure/);
});

test("an update that was rolled back fails, though the service runs", async () => {
  const started = {
    State: "rollback_started",
    StartedAt: "2",
    Message: "update rolled back due to failure of task t1",
  };
  const done = { ...started, State: "rollback_completed", Message: "rollback completed" };
  const outcome = await run(
    ["service", "update", "--force", "web"],
    play([
      { status: started, tasks: ["starting"] },
      { status: done, tasks: ["running"] },
    ]),
  );
  assert.equal(outcome.exit, 1);
  assert.equal(outcome.stderr, "service rolled back: update rolled back due to failure of task t1\n");
  assert.match(outcome.stdout, /rollback: update rolled back due to failure of task t1/);
});

test("a rollback that was asked for succeeds when it is completed", async () => {
  const done = { State: "rollback_completed", StartedAt: "2", Message: "rollback completed" };
  const outcome = await run(["service", "rollback", "web"], play([{ status: done, tasks: ["running"] }]));
  assert.equal(outcome.exit, 0, outcome.stderr);
});

test("the end of an earlier update is not taken for the end of this one", async () => {
  const old = { State: "rollback_completed", StartedAt: "1", Message: "rollback completed" };
  const outcome = await run(["service", "update", "--force", "web"], play([{ status: old, tasks: ["running"] }], old));
  assert.equal(outcome.exit, 0, outcome.stderr);
});

test("a job is done when its completions are", async () => {
  const mode = { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 2 } };
  const outcome = await run(
    ["service", "update", "--force", "web"],
    play([{ tasks: ["complete", "running"] }, { tasks: ["complete", "complete"] }], undefined, mode),
  );
  assert.equal(outcome.exit, 0, outcome.stderr);
  assert.match(
    outcome.stdout,
    /job progress: 1 out of 2 complete\njob progress: 2 out of 2 complete\nverify: job complete\n$/,
  );
});

test("who waits for tasks that ended and are not started again is told so", async () => {
  const job = { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 2 } };
  const update = ["service", "update", "--force", "web"];
  const rounds = (...tasks: string[]): readonly Round[] => [
    { tasks: tasks.map(() => "starting") },
    { tasks: tasks.map(() => "failed") },
    { tasks, isOver: true },
  ];
  const failed = await run(update, play(rounds("complete", "failed"), undefined, job));
  assert.deepEqual([failed.exit, failed.stderr], [1, "1 out of 2 tasks failed, and are not started again: failed\n"]);
  const some = await run(update, play(rounds("running", "rejected")));
  assert.deepEqual([some.exit, some.stderr], [1, "1 out of 2 tasks failed, and are not started again: rejected\n"]);
  const completed = await run(update, play(rounds("complete", "complete")));
  assert.equal(completed.exit, 0, completed.stderr);
  assert.match(completed.stdout, /verify: 2 out of 2 tasks have completed, and are not started again\n$/u);
});

test("one service of several that cannot be scaled does not keep the others from it", async () => {
  const requests = play([{ tasks: ["running"] }]);
  const outcome = await run(
    ["service", "scale", "-d", "nosuch=2", "web=1"],
    [...requests, { method: "POST", path: "/services/svc/update", query: { version: "7" }, response: { body: {} } }],
  );
  assert.equal(outcome.exit, 1);
  assert.equal(outcome.stdout, "web scaled to 1\n");
  assert.match(outcome.stderr, /^nosuch: /);
});

test("Ctrl-C ends the waiting, and says that the update goes on", async () => {
  const server = await RecordedServer.start(play([{ tasks: ["starting"] }]));
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, "../main.ts"), "service", "update", "--force", "web"],
    {
      env: { PATH: process.env["PATH"], HOME: "/nonexistent", SKEP_HOST: server.host },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  try {
    let [out, err] = ["", ""];
    const closed = once(child, "close");
    child.stderr.on("data", (chunk: Buffer) => (err += String(chunk)));
    child.stdout.on("data", (chunk: Buffer) => {
      const isTime = !out.includes("0 out of 1");
      out += String(chunk);
      if (isTime && out.includes("0 out of 1")) child.kill("SIGINT");
    });
    const [code] = (await closed) as [number];
    assert.equal(code, 130, err);
    assert.match(err, /^Operation continuing in background\.\nUse `skep service ps web` to check progress\.\n$/);
  } finally {
    child.kill("SIGKILL");
    await server.close();
  }
});
