/** `npm run check [-- STEP ...]`: format, lint, types, import rules, generated code fresh, unused code. All run; all failures are shown. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";

// Rooms come with the issues that need them.
const rooms = ["lib", "proto", "manager", "worker", "api", "daemon", "cli", "web", "deploy", "test"].filter((room) =>
  existsSync(room),
);

const steps = [
  ["format", "prettier", ["--check", "--log-level", "warn", "."]],
  ["lint", "oxlint", ["--type-aware", "--quiet"]],
  ["types", "tsc", []],
  ["import rules", "depcruise", ["--config", ".dependency-cruiser.mjs", "--output-type", "err", ...rooms]],
  ["generated code", "node", ["proto/generate.mjs", "--check"]],
  ["words", "node", ["deploy/words.mjs"]],
  ["errors", "node", ["deploy/errors.mjs"]],
  ["unused code", "knip", ["--no-progress"]],
];

/** Runs one step to its end and keeps what it printed, so that steps side by side do not mix their lines. */
function runStep([name, command, args]) {
  return new Promise((resolve) => {
    const startedMs = performance.now();
    const child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, FORCE_COLOR: "0" },
    });
    let output = "";
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (output += chunk));
    child.on("error", (error) => resolve({ name, passed: false, output: String(error), startedMs }));
    child.on("close", (code) => resolve({ name, passed: code === 0, output, startedMs }));
  }).then((result) => {
    const seconds = ((performance.now() - result.startedMs) / 1000).toFixed(1);
    console.log(`${result.passed ? "ok  " : "FAIL"} ${result.name} (${seconds} s)`);
    if (!result.passed) console.log(result.output.trimEnd());
    return result.passed;
  });
}

// Two at a time: the type checker and the linter each fill a core.
let failed = 0;
const wanted = process.argv.slice(2);
const usage = `usage: npm run check [-- STEP ...]      all steps, or some of: ${steps.map(([name]) => `"${String(name)}"`).join(" ")}`;
if (wanted.includes("--help")) {
  console.log(usage);
  process.exit(0);
}
// A step that is misspelt would pass, since nothing of it runs.
const unknown = wanted.find((name) => !steps.some(([step]) => step === name));
if (unknown !== undefined) {
  console.error(`check: there is no step "${unknown}"\n${usage}`);
  process.exit(2);
}
const queue = steps.filter(([name]) => wanted.length === 0 || wanted.includes(name));
await Promise.all(
  [0, 1].map(async () => {
    for (let step = queue.shift(); step !== undefined; step = queue.shift()) if (!(await runStep(step))) failed++;
  }),
);
process.exitCode = failed === 0 ? 0 : 1;
