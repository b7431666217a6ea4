/** What npm scripts are given by hand: help is given, and what is wrong is told with 2 instead of passing or a stack trace. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "../..");

const cases: Readonly<Record<string, readonly (readonly string[])[]>> = {
  "test/sim/main.ts": [
    ["--bogus"],
    ["surplus"],
    ["--seed", "abc"],
    ["--seeds"],
    ["--seeds", "0"],
    ["--from", "-1"],
    ["--minutes", "soon"],
    ["--case", "/nonexistent"],
    ["--case", join(root, "package.json")],
    ["--mutations", "--only", "no such bug"],
  ],
  "test/sim/swarm.ts": [["--bogus"], ["--seed", "x"], ["--seeds", ""], ["--log", "paper"]],
  "test/soak/main.ts": [["--bogus"], ["--minutes", "long"], ["--clients", "0"]],
  "test/soak/churn.ts": [["--bogus"], ["--hours", "0"]],
  "test/soak/chaos.ts": [["--bogus"], ["--minutes", "long"], ["--seed", "x"]],
  "test/run.ts": [["nonsense"]],
  "test/bench/main.ts": [["nonsense"], ["--bogus"]],
  "deploy/check.mjs": [["nonsense"]],
};

for (const [program, wrong] of Object.entries(cases)) {
  const run = (args: readonly string[]): { code: number | null; words: string; said: string } => {
    const ran = spawnSync(process.execPath, [program, ...args], { cwd: root, encoding: "utf8", timeout: 120_000 });
    return { code: ran.status, words: ran.stderr, said: ran.stdout };
  };

  test(`${program}: help tells how it is used, wrong use ends with 2 and says what is wrong`, () => {
    const help = run(["--help"]);
    assert.equal(help.code, 0, help.words);
    assert.match(help.said, /^usage: /u);
    for (const args of wrong) {
      const { code, words, said } = run(args);
      assert.deepEqual([code, said], [2, ""], `${args.join(" ")}: ${words}`);
      assert.match(words, /^(sim|swarm|soak|churn|chaos|test|bench|check): [^\n]+/u);
      assert.doesNotMatch(words, /\n\s+at /u, `${args.join(" ")}: ${words}`);
    }
  });
}
