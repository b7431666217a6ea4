/**
 * `skepd`: the daemon of one node.
 * Exit codes: 0 stopped as asked, 1 cannot start (the reason and what to do are printed), 2 wrong configuration,
 * 71 an error of our own.
 */
import { rmSync, writeFileSync } from "node:fs";

import { ClusterError } from "../lib/pure/errors.ts";
import { collectAtRest, createLogger, realClock, standardError } from "../lib/runtime/index.ts";
import { ConfigInvalid, readConfig, readIfThere, usage } from "./config.ts";
import { Skepd, version } from "./skepd.ts";
import { notify } from "./systemd.ts";

async function main(args: readonly string[]): Promise<number> {
  const { act, config } = readConfig(args, { env: process.env, readFile: readIfThere });
  if (act === "help") {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  if (act === "version") {
    process.stdout.write(`skepd version ${version}\n`);
    return 0;
  }
  if (act === "validate") {
    process.stdout.write("configuration OK\n");
    return 0;
  }
  const logger = createLogger({ level: config.logLevel });
  const ended = Promise.withResolvers<number>();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      logger.info("stopping", { signal });
      ended.resolve(0);
    });
  }
  const skepd = await Skepd.open(config, logger);
  process.on("SIGHUP", () => {
    try {
      skepd.reload(readConfig(args, { env: process.env, readFile: readIfThere }).config);
      logger.info("configuration reloaded");
    } catch (error) {
      logger.error("the configuration stays as it was", { error });
    }
  });
  if (config.pidFile !== undefined) writeFileSync(config.pidFile, `${process.pid}\n`);
  notify("READY=1");
  logger.info("serving", { hosts: config.hosts });
  const memory = collectAtRest(realClock);
  const code = await ended.promise;
  memory.cancel();
  notify("STOPPING=1");
  await skepd[Symbol.asyncDispose]();
  if (config.pidFile !== undefined) rmSync(config.pidFile, { force: true });
  return code;
}

function report(error: unknown): void {
  if (!(error instanceof ClusterError)) {
    standardError().write(`skepd: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    return;
  }
  standardError().write(`skepd: ${error.message} [${error.code}]\n`);
  if (error.fix !== undefined) standardError().write(`skepd: ${error.fix}\n`);
}

process.on("uncaughtException", (error) => {
  report(error);
  process.exit(71);
});
try {
  process.exitCode = await main(process.argv.slice(2));
  // Sockets of clients that never end must not keep the daemon.
  process.exit();
} catch (error) {
  report(error);
  process.exit(error instanceof ConfigInvalid ? 2 : error instanceof ClusterError ? 1 : 71);
}
