/**
 * Runs tests in a machine with a kernel of its own: what this host's kernel lacks is there.
 * Usage: node test/vm/main.ts [--minutes N] [TEST FILE ...]      (without files: those that need it)
 *        node test/vm/main.ts [--minutes N] --command 'sh text'
 * test/vm/encrypted-cluster.test.ts wants daemons from the bundle (`npm run build`), and an hour where others are busy.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { runInMachine, whyNoMachine } from "./machine.ts";

const root = join(import.meta.dirname, "../..");
const needMachine = ["encrypted.test.ts", "encrypted6.test.ts"].map((name) => `test/conformance/network/${name}`);

const usualMinutes = 15;
/** How much longer than on the host what daemons do may take there. */
const slowness = 20;

const reason = whyNoMachine();
if (reason !== undefined) {
  console.error(`test:vm: skipped, ${reason}`);
  process.exitCode = 1;
} else {
  process.chdir(root);
  const args = process.argv.slice(2);
  const minutesMax = args[0] === "--minutes" ? Number(args.splice(0, 2)[1]) : usualMinutes;
  if (!(minutesMax > 0)) throw new Error("Cannot run the machine: --minutes wants a number of minutes");
  const files = args.length > 0 ? args : needMachine;
  const node = JSON.stringify(process.execPath);
  const probe = join(root, "build/vm/net-probe");
  mkdirSync(join(root, "build/vm"), { recursive: true });
  // Static: containers have no libraries.
  execFileSync("cc", ["-O1", "-static", "-o", probe, join(root, "test/support/net-probe.c")]);
  const settings = {
    NET_PROBE: probe,
    SKEP_DAEMON: join(root, "build/skepd.js"),
    SKEP_SLOWNESS: String(slowness),
    SKEP_MACHINE: "1",
  };
  const env = Object.entries(settings)
    .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
    .join(" ");
  const startedMs = performance.now();
  const status = await runInMachine({
    folder: join(root, "build/vm"),
    command:
      args[0] === "--command"
        ? `export ${env}; ${args[1] ?? ""}`
        : `${env} ${node} --test --test-concurrency=1 --test-reporter=./test/support/reporter.mjs ${files.map((file) => JSON.stringify(file)).join(" ")}`,
    cpus: 2,
    memoryMiB: 3072,
    timeoutMs: minutesMax * 60_000,
    onLine: (line) => console.log(line),
  });
  console.log(
    `test:vm: ${status === 0 ? "passed" : "FAILED"} in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
  );
  process.exitCode = status ?? 1;
}
