/** What the manager processes of the benches have in common: they open as the real one does, and carry out orders. */
import { parseArgs } from "node:util";
import { readFileSync } from "node:fs";

import { createLogger } from "../../lib/runtime/index.ts";
import { Manager, type Start } from "../../manager/manager.ts";
import { lanTimings } from "../../manager/raft/index.ts";

/** By the flags of the process, which ManagerProcess writes. It is told on standard output when it serves. */
export async function openForBench(options: { readonly consensusOnly: boolean }): Promise<Manager> {
  const { values } = parseArgs({
    options: {
      "data-dir": { type: "string" },
      listen: { type: "string" },
      cert: { type: "string" },
      key: { type: "string" },
      ca: { type: "string" },
      init: { type: "boolean", default: false },
      join: { type: "string" },
      "election-ms": { type: "string" },
    },
  });
  const read = (file: string | undefined): string => readFileSync(file!, "utf8");
  const start: Start =
    values.join === undefined ? { kind: "init" } : { kind: "join", addresses: [values.join], replaces: 0 };
  const stop = new AbortController();
  const manager = await Manager.open(
    {
      dataDir: values["data-dir"]!,
      listen: values.listen!,
      tls: { certificatePem: read(values.cert), privateKeyPem: read(values.key), rootsPem: read(values.ca) },
      start,
      consensusOnly: options.consensusOnly,
      timings: { ...lanTimings, electionMs: Number(values["election-ms"] ?? lanTimings.electionMs) },
      logger: createLogger({ level: "info" }),
      onFatal: (error, code) => {
        console.error(error);
        process.exit(code);
      },
    },
    stop.signal,
  );
  process.stdout.write(`${JSON.stringify({ serving: manager.port })}\n`);
  process.on("SIGTERM", () => void manager[Symbol.asyncDispose]().then(() => process.exit(0)));
  process.on("disconnect", () => process.exit(0));
  return manager;
}

/** The answer to an order that could not be carried out, as by a manager that does not lead any more. */
export interface Failed {
  readonly failed: string;
}

/** Each order of the parent is answered. One that fails does not end the process: its vote would go with it. */
export function carryOutOrders(act: (order: unknown) => Promise<object>): void {
  process.on("message", (order) => {
    act(order).then(
      (done) => process.send!(done),
      (error: unknown) =>
        process.send!({
          failed: error instanceof Error ? (error.stack ?? error.message) : String(error),
        } satisfies Failed),
    );
  });
}
