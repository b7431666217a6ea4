/**
 * Planted bugs of the control plane, most of which only a change of leaders can show, each with a life that finds it.
 * `node test/sim/swarm-mutations.ts [--only WORD]` hunts them anew, and says which life found which.
 */
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { mutatedSource, type Mutation } from "./mutations.ts";
import type { SwarmResult } from "./swarm-run.ts";

export interface SwarmMutation extends Mutation {
  /** The life that finds it; another change of the simulator may make it another one. */
  readonly foundBy: number;
}

export const swarmMutations: readonly SwarmMutation[] = [
  {
    name: "a leader is ready before it has applied what was committed",
    file: "manager/raft/member.ts",
    snippet: "this.#leader = leader;\n    this.#leading = false;",
    replacement: 'this.#leader = leader;\n    this.#leading = role === "leader";',
    foundBy: 1,
  },
  {
    name: "a new leader does not know the addresses of tasks",
    file: "manager/allocator/allocator.ts",
    snippet: "yield* inSlices(networkedTasks(view), (task) => this.#setTask(task));",
    replacement: ";",
    foundBy: 1,
  },
  {
    name: "a change whose fate nobody knows is acknowledged",
    file: "manager/store/store.ts",
    snippet:
      'case "unknown":\n      break;\n  }\n  return { kind: "unknown", error: new OutcomeUnknown(proposed.cause) };',
    replacement:
      'case "unknown":\n      break;\n  }\n  return { kind: "committed", index: 0, result, repeated: false, reply: undefined };',
    foundBy: 8,
  },
  {
    name: "the member of a machine that was removed keeps its vote",
    file: "manager/ca/core/roles.ts",
    snippet: 'if (node === undefined) return "its node was removed";',
    replacement: "if (node === undefined) return undefined;",
    foundBy: 13,
  },
  {
    name: "a demoted manager is a worker while it is still a voter",
    file: "manager/ca/core/roles.ts",
    snippet: "if (member === undefined && node.wish === NodeRole.WORKER) {",
    replacement: "if (node.wish === NodeRole.WORKER) {",
    foundBy: 2,
  },
];

/** Of real time, on a busy machine: a bug may keep a life from ending. */
const lifeMsMax = 120_000;

/** Plays one life with the bug in it, in a thread of its own. @returns what it ended in, or undefined if well */
function playPlanted({ name }: Mutation, seed: number): Promise<string | undefined> {
  let late: NodeJS.Timeout | undefined;
  const worker = new Worker(new URL("./swarm-worker.ts", import.meta.url), { workerData: { mutation: name } });
  return new Promise<string | undefined>((resolve) => {
    late = setTimeout(() => resolve("it does not end"), lifeMsMax);
    worker.once("error", (error: Error) => resolve(error.message));
    worker.once("message", ({ failure }: SwarmResult) => resolve(failure));
    worker.postMessage({ seed, log: "raft" }, []);
  }).finally(() => {
    clearTimeout(late);
    void worker.terminate();
  });
}

const livesMax = 30;

/**
 * The life that is known to find it comes first. Another change of the program moves what happens when, so others follow.
 * @returns which life found it and by what; undefined if none did
 */
export async function findPlanted(mutation: SwarmMutation): Promise<string | undefined> {
  for (const seed of [mutation.foundBy, ...Array.from({ length: livesMax }, (_, at) => at + 1)]) {
    const failure = await playPlanted(mutation, seed);
    if (failure !== undefined) return `life ${seed}: ${failure.split("\n")[0]?.slice(0, 150)}`;
  }
  return undefined;
}

async function hunt(only: string | undefined): Promise<number> {
  let survivors = 0;
  for (const mutation of swarmMutations) {
    if (only !== undefined && !mutation.name.includes(only)) continue;
    mutatedSource(mutation);
    const found = await findPlanted(mutation);
    if (found === undefined) survivors++;
    console.log(`${mutation.name.padEnd(72)} ${found ?? "SURVIVED"}`);
  }
  return survivors;
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { only: { type: "string" } } });
  process.exitCode = (await hunt(values.only)) === 0 ? 0 : 1;
}
