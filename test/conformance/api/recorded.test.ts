/** Every recorded request of real clients that is about the swarm: accepted as it was, answered as described. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { OpenApi } from "../../support/openapi.ts";
import { Replay, isOurs, readRecording } from "../../support/recorded.ts";

const recorded = join(import.meta.dirname, "recorded");
const description = new OpenApi(join(import.meta.dirname, "data", "engine-api-v1.50.yaml"));

/** Where we answer otherwise on purpose: "FILE METHOD PATH", and why. */
const otherStatus: ReadonlyMap<string, number> = new Map([
  // 500 there for what the client did wrong; newer engines say 400 to most of these too.
  ["http-edge-cases GET /services/q/logs", 400],
  ["service-ps-badfilter GET /tasks", 400],
  ["service-create-badconstraint POST /services/create", 400],
  ["swarm-join-bad-token POST /swarm/join", 400],
  ["noswarm-net-overlay POST /networks/create", 503],
  // Taken there, and then no task could ever start.
  ["service-create-badmount POST /services/create", 400],
]);

/** What the description leaves out, and real servers and clients have. */
const undescribed = /"unevaluatedProperty":"(PreviousSpec|ID|Services)"|"missingProperty":"Id"/;

for (const file of readdirSync(recorded).filter((name) => name.endsWith(".json"))) {
  const name = file.replace(/\.json$/, "");
  const recording = readRecording(join(recorded, file));
  if (!Array.isArray(recording.requests) || !recording.requests.some(isOurs)) continue;
  test(`${name}: ${recording.command.split("\n")[0]?.slice(0, 100)}`, async () => {
    const replay = await Replay.open(name, recording);
    try {
      for (const request of recording.requests.filter(isOurs)) {
        const answer = await replay.send(request);
        const plain = request.path.replace(/^\/v1\.\d+/, "").split("?")[0] ?? "";
        const where = `${request.method} ${request.path} ${request.why ?? ""}: ${answer.text.slice(0, 400)}`;
        const wanted = otherStatus.get(`${name} ${request.method} ${plain}`) ?? request.response?.status;
        assert.equal(answer.status, wanted, where);
        if (wanted === 200 || wanted === 201) {
          const wrong = description.judge(request.method, plain, answer.status, answer.body);
          assert.deepEqual(
            wrong.filter((text) => !undescribed.test(text)),
            [],
            where,
          );
        }
      }
      assert.deepEqual(replay.world.bugs, []);
    } finally {
      await replay.world.close();
    }
  });
}
