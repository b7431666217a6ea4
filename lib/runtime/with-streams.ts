import type { ChildProcess } from "node:child_process";

/**
 * A child that was just started, with the streams that were asked for. A process without free descriptors gets from spawn() a
 * child without any and an "error" to come, which ends the process of whoever stumbles over the missing streams before he
 * listens for it (Node 24.21).
 * @throws  EMFILE; of what else can be wrong the child tells as usual
 */
export function withStreams<Child extends ChildProcess>(child: Child): Child {
  if ((child as Partial<Child>).stdout !== undefined) return child;
  child.on("error", () => undefined);
  throw Object.assign(new Error(`no descriptors are left to start ${child.spawnfile}`), { code: "EMFILE" });
}
