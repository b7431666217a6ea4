/**
 * `npm test`, after set-up: every check and test that fits in CI, stage by stage, each with its time.
 * Usage: node test/run.ts [STAGE ...]   (all stages without arguments)
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";

interface Stage {
  readonly name: string;
  readonly command: readonly string[];
  /** A reason not to run it here, or undefined. */
  readonly skip?: () => string | undefined;
}

const needsRoot = (): string | undefined => (process.getuid?.() === 0 ? undefined : "needs root");

const stages: readonly Stage[] = [
  { name: "check", command: ["node", "deploy/check.mjs"] },
  {
    name: "unit",
    command: [
      "node",
      "--test",
      "--test-reporter=./test/support/reporter.mjs",
      "{lib,proto,manager,worker,api,daemon,cli}/**/*.test.ts",
    ],
  },
  {
    name: "scenarios",
    command: [
      "node",
      "--test",
      "--test-reporter=./test/support/reporter.mjs",
      "test/{scenarios,sim,conformance}/**/*.test.ts",
    ],
  },
  {
    name: "cluster",
    command: ["node", "--test", "--test-reporter=./test/support/reporter.mjs", "test/cluster/**/*.test.ts"],
    skip: needsRoot,
  },
  { name: "sim", command: ["node", "test/sim/main.ts", "--seeds", "3000", "--from", "1"] },
  { name: "swarm", command: ["node", "test/sim/swarm.ts", "--seeds", "500", "--from", "1"] },
  { name: "mutations", command: ["node", "test/sim/main.ts", "--mutations"] },
  { name: "native", command: ["make", "-s", "-C", "native", "check"], skip: needsRoot },
  {
    name: "analyze",
    command: ["make", "-s", "-j2", "-C", "native", "analyze-gcc", "analyze-clang"],
    skip: () => (existsSync("/usr/bin/scan-build") ? undefined : "needs clang-tools"),
  },
];

const wanted = process.argv.slice(2);
const usage = `usage: node test/run.ts [STAGE ...]      all stages, or some of: ${stages.map(({ name }) => name).join(" ")}`;
if (wanted.includes("--help")) {
  console.log(usage);
  process.exit(0);
}
// A stage that is misspelt would pass, since nothing of it runs.
const unknown = wanted.find((name) => !stages.some((stage) => stage.name === name));
if (unknown !== undefined) {
  console.error(`test: there is no stage "${unknown}"\n${usage}`);
  process.exit(2);
}
const failures: string[] = [];
for (const stage of stages) {
  if (wanted.length > 0 && !wanted.includes(stage.name)) continue;
  const reason = stage.skip?.();
  if (reason !== undefined) {
    console.log(`== ${stage.name}: skipped, ${reason}`);
    continue;
  }
  if (stage.name === "native" && !existsSync("native/Makefile")) continue;
  if (stage.name === "sim" && !existsSync("test/sim/main.ts")) continue;
  console.log(`== ${stage.name}`);
  const startedMs = performance.now();
  const code = await run(stage.command);
  console.log(
    `== ${stage.name}: ${code === 0 ? "passed" : `FAILED (${code})`} in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
  );
  if (code !== 0) failures.push(stage.name);
}
if (failures.length > 0) {
  console.log(`failed: ${failures.join(", ")}`);
  process.exitCode = 1;
}

function run(command: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command[0]!, command.slice(1), { stdio: ["ignore", "inherit", "inherit"] });
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 1));
  });
}
