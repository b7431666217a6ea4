/** A thread of the simulator of whole clusters: plays the seeds that it is sent. */
import { parentPort } from "node:worker_threads";
import { SwarmRun } from "./swarm-run.ts";

parentPort?.on("message", (seed: number) => {
  void new SwarmRun(seed).play().then((result) => parentPort?.postMessage(result, []));
});
