/** A thread of the simulator of whole clusters: plays the seeds that it is sent, with a planted bug if it is told one. */
import { parentPort, workerData } from "node:worker_threads";
import type { Log } from "./swarm-run.ts";

// Errors that are expected are made by the thousand; their stacks would cost more than they do.
Error.stackTraceLimit = 4;

const { mutation: name } = (workerData ?? {}) as { readonly mutation?: string };
if (name !== undefined) {
  const { plantMutation } = await import("./mutations.ts");
  const { swarmMutations } = await import("./swarm-mutations.ts");
  const mutation = swarmMutations.find((candidate) => candidate.name === name);
  if (mutation === undefined) throw new Error(`there is no planted bug "${name}"`);
  plantMutation(mutation);
}
const { SwarmRun } = await import("./swarm-run.ts");

parentPort?.on("message", ({ seed, log }: { readonly seed: number; readonly log: Log }) => {
  void new SwarmRun(seed, log).play().then((result) => parentPort?.postMessage(result, []));
});
