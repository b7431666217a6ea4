/** Three manager processes that place tasks when they are asked to (placing-manager.ts). */
import { join } from "node:path";

import { ManagerCluster, type ManagerProcess } from "../support/manager-process.ts";
import type { Failed } from "./bench-manager.ts";
import type { PlacingOrder } from "./placing-names.ts";
import type { Report } from "./report.ts";

/** Many objects need more than V8 takes by itself. Three of them, and the agents, fit 23 GB. */
const heapMegabytes = 5000;

export async function withManagers<T>(
  options: { readonly args?: readonly string[]; readonly nodeArgs?: readonly string[] },
  act: (leader: ManagerProcess, cluster: ManagerCluster) => Promise<T>,
): Promise<T> {
  const cluster = await ManagerCluster.start({
    managers: 3,
    entry: join(import.meta.dirname, "placing-manager.ts"),
    ipc: true,
    args: options.args ?? [],
    nodeArgs: [`--max-old-space-size=${heapMegabytes}`, ...(options.nodeArgs ?? [])],
  });
  try {
    return await act(await cluster.leader(), cluster);
  } finally {
    await cluster[Symbol.asyncDispose]();
  }
}

interface Progress {
  readonly assigned: number;
  readonly running: number;
  readonly turnMs: number;
  readonly heapMb: number;
}

/** One order at a time. */
export function order<T>(manager: ManagerProcess, what: PlacingOrder, report: Report): Promise<T> {
  return new Promise((resolve, reject) => {
    const { child } = manager;
    const onExit = (): void => reject(new Error(`${manager.options.name} ended: ${manager.tail()}`));
    const onMessage = (message: T & Partial<Failed> & { progress?: Progress }): void => {
      if (message.progress !== undefined) {
        const { assigned, running, turnMs, heapMb } = message.progress;
        report.note(`${assigned} tasks have a node, ${running} run; longest turn ${turnMs} ms, heap ${heapMb} MB`);
        return;
      }
      child.off("exit", onExit);
      child.off("message", onMessage);
      if (message.failed === undefined) resolve(message);
      else reject(new Error(`${manager.options.name}: ${message.failed}`));
    };
    child.once("exit", onExit);
    child.on("message", onMessage);
    child.send(what);
  });
}
