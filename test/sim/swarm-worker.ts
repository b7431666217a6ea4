/** A thread of the simulator of whole clusters: plays the seeds that it is sent. */
import { parentPort } from "node:worker_threads";
import { SwarmRun } from "./swarm-run.ts";

// Errors that are expected are made by the thousand; their stacks would cost more than they do.
Error.stackTraceLimit = 4;

parentPort?.on("message", (seed: number) => {
  void new SwarmRun(seed).play().then((result) => parentPort?.postMessage(result, []));
});
