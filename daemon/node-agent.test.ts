import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import { Random } from "../lib/pure/prng.ts";
import { createLogger, VirtualClock } from "../lib/runtime/index.ts";
import type { AgentPlaces } from "../worker/container-networks/index.ts";
import type { Executor } from "../worker/executor/index.ts";
import type { NodeNetwork } from "../worker/network/index.ts";
import type { SwarmIdentity } from "./identity/index.ts";
import type { NodeAgent } from "./membership.ts";
import { openNodeAgent } from "./node-agent.ts";

const never = new AbortController().signal;

/** Of a node that has nothing and knows no manager; its memory cannot be opened while `makeRoom` was not called. */
function nodeWithoutRoom(t: TestContext): {
  readonly agent: NodeAgent;
  readonly clock: VirtualClock;
  readonly makeRoom: () => void;
  /** The first try was told in the log. */
  readonly refused: Promise<string>;
  readonly followed: Promise<void>;
} {
  const parent = mkdtempSync(join(tmpdir(), "skep-node-agent-"));
  t.after(() => rmSync(parent, { recursive: true, force: true }));
  const folder = join(parent, "agent");
  writeFileSync(folder, "no folder can be where a file is");
  const clock = new VirtualClock();
  const refused = Promise.withResolvers<string>();
  const followed = Promise.withResolvers<void>();
  const settings = { listenAddr: "0.0.0.0:2377", advertiseAddr: "10.0.0.5:2377", dataPathAddr: "", frameAddr: "" };
  const agent = openNodeAgent({
    identity: {
      nodeId: "n".repeat(25),
      role: "worker",
      settings,
      managers: [],
      tlsInfo: {},
      onChange: () => () => undefined,
    } as unknown as SwarmIdentity,
    events: { onNode: () => undefined, onManagers: () => undefined, onRemoved: () => undefined },
    executor: {
      describe: () => Promise.resolve({}),
      held: () => Promise.resolve([]),
    } as unknown as Executor,
    network: { describe: () => Promise.resolve(undefined), leave: () => Promise.resolve() } as unknown as NodeNetwork,
    places: { follow: (attacher: unknown) => attacher !== undefined && followed.resolve() } as unknown as AgentPlaces,
    folder,
    clock,
    random: new Random("node agent"),
    logger: createLogger({ level: "error", destination: { write: (line: string) => refused.resolve(line) } }),
  });
  t.after(() => agent[Symbol.asyncDispose]());
  return {
    agent,
    clock,
    makeRoom: () => rmSync(folder),
    refused: refused.promise,
    followed: followed.promise,
  };
}

test("an agent that cannot start, as on a full disk, starts when it can", async (t) => {
  const { agent, clock, makeRoom, refused, followed } = nodeWithoutRoom(t);
  agent.start();
  assert.match(await refused, /the agent cannot start yet/u);
  makeRoom();
  while (clock.pending === 0) await new Promise((next) => setImmediate(next));
  clock.advance(1000);
  await followed;
});

test("a node whose agent cannot start can leave all the same", async (t) => {
  const { agent, refused } = nodeWithoutRoom(t);
  agent.start();
  await refused;
  await agent.abandon(never);
});
