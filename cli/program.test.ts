import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { RecordedServer } from "../test/support/recorded-server.ts";
import { runSkep, type Outcome } from "../test/support/run-cli.ts";
import { parseJson, stringifyJson } from "./api/json.ts";
import { entries, groups } from "./commands.ts";
import { list, bool, text, uint } from "./grammar/flags.ts";
import { parse } from "./grammar/parse.ts";
import { csv, shellWords } from "./service/read.ts";
import { cliVersion } from "./version.ts";

const nowhere = "unix:///nonexistent/skep.sock";
const run = (...words: string[]): Promise<Outcome> => runSkep(words, { host: nowhere });

const flags = {
  quiet: bool("", { short: "q" }),
  all: bool("", { short: "a" }),
  filter: list("", { short: "f" }),
  name: text(""),
  replicas: uint(""),
};

test("flags are read in every form that docker takes", () => {
  const read = (line: string): unknown => parse(flags, line.split(" ")).values;
  assert.deepEqual(read("-qa --name=x --replicas 3"), { quiet: true, all: true, name: "x", replicas: 3 });
  assert.deepEqual(read("-fa -f=b -f c --filter=d -qfe"), { filter: ["a", "b", "c", "d", "e"], quiet: true });
  assert.deepEqual(read("--quiet=false -a=true"), { quiet: false, all: true });
  assert.deepEqual(parse(flags, ["x", "-q", "y", "--", "-a"]).args, ["x", "y", "-a"]);
  assert.deepEqual(parse(flags, ["x", "-q", "--", "y"], true), {
    values: {},
    args: ["x", "-q", "--", "y"],
    help: false,
  });
});

const refusals: readonly (readonly [words: string, exit: number, stderr: RegExp])[] = [
  ["foo", 1, /^skep: unknown command: skep foo\n\nRun 'skep --help' for more information\n$/],
  ["node foo", 1, /^skep: unknown command: skep node foo\n\nUsage: {2}skep node\n\nRun 'skep node --help'/],
  ["node ls --foo", 125, /^unknown flag: --foo\n\nUsage: {2}skep node ls \[OPTIONS\]\n\nRun 'skep node ls --help'/],
  ["node ls -x", 125, /^unknown shorthand flag: 'x' in -x\n/],
  ["node ls -f", 125, /^flag needs an argument: 'f' in -f\n/],
  ["node ls x", 1, /^skep: 'skep node ls' accepts no arguments\n/],
  ["node inspect", 1, /^skep: 'skep node inspect' requires at least 1 argument\n/],
  ["rename a", 1, /^skep: 'skep rename' requires 2 arguments\n/],
  [
    "node ls --quiet=maybe",
    125,
    /^invalid argument "maybe" for "-q, --quiet" flag: strconv.ParseBool: parsing "maybe": invalid/,
  ],
  ["service create --replicas x a", 125, /^invalid argument "x" for "--replicas" flag: strconv.ParseUint: parsing "x"/],
  [
    "service create --limit-cpu x a",
    125,
    /^invalid argument "x" for "--limit-cpu" flag: failed to parse x as a rational/,
  ],
  ["service create --limit-memory x a", 125, /^invalid argument "x" for "--limit-memory" flag: invalid size: 'x'\n/],
  [
    "service create --update-delay x a",
    125,
    /^invalid argument "x" for "--update-delay" flag: time: invalid duration "x"/,
  ],
  [
    "service create --mount foo a",
    125,
    /^invalid argument "foo" for "--mount" flag: invalid field 'foo' must be a key=value/,
  ],
  [
    "service create --secret foo=bar a",
    125,
    /^invalid argument "foo=bar" for "--secret" flag: invalid field in secret/,
  ],
  ["service create -p x a", 125, /^invalid argument "x" for "-p, --publish" flag: invalid containerPort: x\n/],
  [
    "service create --mode global --replicas 2 a",
    1,
    /^replicas can only be used with replicated or replicated-job mode\n/,
  ],
  ["service scale web", 1, /^invalid scale specifier 'web'.\n/],
  ["swarm join-token x", 1, /^unknown role x\n/],
  ["--foo node ls", 125, /^unknown flag: --foo/],
  ["node ls", 1, /^Cannot connect to the skep daemon at unix:\/\/\/nonexistent\/skep.sock. Is skepd running\?\n$/],
  ["stack deploy -c x st", 125, /^unknown shorthand flag: 'c' in -c/],
  ["stack deploy st", 1, /^skep stack deploy is not there yet/],
  ["completion tcsh", 1, /^unknown shell "tcsh"/],
  ["help foo", 1, /^unknown help topic: foo\n$/],
];
for (const [words, exit, stderr] of refusals) {
  test(`"skep ${words}" ends with ${exit} and says why`, async () => {
    const outcome = await run(...words.split(" "));
    assert.match(outcome.stderr, stderr);
    assert.equal(outcome.exit, exit);
    assert.equal(outcome.stdout, "");
  });
}

test("every command has a help with its usage, and no path stands twice", async () => {
  const names = entries.flatMap(({ path, aliases }) => [path, ...aliases]);
  assert.equal(new Set(names).size, names.length);
  for (const name of names) {
    if (name.includes(" ")) assert.ok(Object.hasOwn(groups, name.split(" ")[0]!), `${name} has no group`);
    const outcome = await run(...name.split(" "), "--help");
    assert.equal(outcome.exit, 0, name);
    assert.ok(outcome.stdout.startsWith(`Usage:  skep ${name}`), name);
  }
  assert.match((await run("--help")).stdout, /^Usage: {2}skep \[OPTIONS\] COMMAND\n[^]*Swarm Commands:\n {2}config /);
});

test("service create and update have every flag of the reference", async () => {
  const flagsOf = async (path: string): Promise<string[]> =>
    Object.keys((await entries.find((entry) => entry.path === path)!.load()).flags);
  // 73 and 92 of the docker CLI 28, and memory-swap and memory-swappiness of a newer one.
  assert.ok((await flagsOf("service create")).length >= 75, String((await flagsOf("service create")).length));
  assert.ok((await flagsOf("service update")).length >= 94, String((await flagsOf("service update")).length));
});

test("the version is the package's", async () => {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, "../package.json"), "utf8")) as {
    version: string;
  };
  assert.equal(cliVersion, version);
  assert.equal((await run("--version")).stdout, `skep version ${version}\n`);
});

test("integers beyond 2^53 keep their digits", () => {
  const sent = '{"Memory":9223372036854771712,"timeNano":1795255361948563123,"small":7,"ratio":0.5}';
  assert.equal(stringifyJson(parseJson(sent)), sent);
});

test("CSV and shell words are cut as the reference cuts them", () => {
  assert.deepEqual(csv('a,"b,""c""",d='), ["a", 'b,"c"', "d="]);
  assert.throws(() => csv('"a'));
  assert.deepEqual(shellWords(`sh -c 'echo "hi"' a\\ b "c d"`), ["sh", "-c", 'echo "hi"', "a b", "c d"]);
  assert.throws(() => shellWords("'a"));
});

test("a context is made, chosen, used and removed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "skep-contexts-"));
  const server = await RecordedServer.start([{ method: "GET", path: "/volumes", response: { body: { Volumes: [] } } }]);
  const here = (...words: string[]): Promise<Outcome> => runSkep(["--config", folder, ...words], { host: "" });
  try {
    assert.equal((await here("context", "create", "far", "--endpoint", `host=${server.host}`)).exit, 0);
    assert.match((await here("context", "create", "far", "--endpoint", "host=tcp://x:1")).stderr, /already exists/);
    assert.equal((await here("context", "use", "far")).exit, 0);
    assert.equal((await here("context", "ls", "-q")).stdout, "default\nfar\n");
    assert.equal((await here("volume", "ls", "-q")).exit, 0);
    assert.equal(server.seen.length, 1);
    assert.match((await here("context", "rm", "far")).stderr, /is in use/);
    assert.equal((await here("context", "rm", "-f", "far")).exit, 0);
    assert.match((await here("context", "use", "far")).stderr, /does not exist/);
    assert.match((await here("context", "create", "../x", "--endpoint", "host=tcp://x:1")).stderr, /is invalid/);
  } finally {
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

test("why prints the summary, the causes with their facts, the nearest miss and what to do", async () => {
  const why = {
    summary: "web is not as its spec says: 1 of 2 tasks runs",
    causes: [
      { text: "no suitable node", code: "no_suitable_node", facts: { nodes: "3" }, fix: "Reserve 128 MiB less" },
    ],
    nearestMiss: { node: "n7", text: "n7: 128 MiB short" },
    fix: "Reserve 128 MiB less",
  };
  const server = await RecordedServer.start([
    { method: "GET", path: "/skep/v1/services/web/why", response: { body: why } },
    { method: "GET", path: "/skep/v1/nodes/n1/why", response: { body: { summary: "n1 takes tasks" } } },
  ]);
  try {
    const outcome = await runSkep(["service", "why", "web"], { host: server.host });
    assert.equal(
      outcome.stdout,
      "web is not as its spec says: 1 of 2 tasks runs\n  - no suitable node [no_suitable_node]\n      nodes: 3\n      to fix: Reserve 128 MiB less\nnearest miss: n7: 128 MiB short\n",
    );
    assert.equal((await runSkep(["why", "n1"], { host: server.host })).stdout, "n1 takes tasks\n");
    assert.equal((await runSkep(["why", "nosuch"], { host: server.host })).exit, 1);
  } finally {
    await server.close();
  }
});

test("the bash completion knows groups, commands, flags and their choices", async () => {
  const folder = mkdtempSync(join(tmpdir(), "skep-completion-"));
  const script = join(folder, "skep.bash");
  writeFileSync(script, (await run("completion", "bash")).stdout);
  const body = `source ${script}; COMP_WORDS=(skep "$@"); COMP_CWORD=$#; _skep; echo "\${COMPREPLY[@]}"`;
  const complete = (...words: string[]): string[] =>
    execFileSync("bash", ["-c", body, "bash", ...words], { encoding: "utf8" })
      .trim()
      .split(" ");
  try {
    assert.deepEqual(complete("serv"), ["service"]);
    assert.deepEqual(complete("node", "update", "--availability", ""), ["active", "pause", "drain"]);
    assert.deepEqual(complete("node", "ls", "--f"), ["--filter", "--format"]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  for (const shell of ["zsh", "fish"]) assert.match((await run("completion", shell)).stdout, /skep service ls/);
});
