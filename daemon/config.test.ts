import assert from "node:assert/strict";
import { test } from "node:test";

import { ConfigInvalid, readConfig, type Invocation } from "./config.ts";

function read(args: readonly string[], file?: string, env: Record<string, string> = {}): Invocation {
  return readConfig(args, { env, readFile: () => file });
}

function refusal(args: readonly string[], file?: string, env: Record<string, string> = {}): string {
  try {
    read(args, file, env);
  } catch (error) {
    assert.ok(error instanceof ConfigInvalid, String(error));
    assert.equal(error.code, "CONFIG_INVALID");
    return error.message;
  }
  return assert.fail("it was accepted");
}

test("without a word the defaults hold", () => {
  const { act, config } = read([]);
  assert.equal(act, "run");
  assert.equal(config.dataRoot, "/var/lib/skep");
  assert.deepEqual(config.hosts, ["unix:///run/skep/skep.sock"]);
  assert.equal(config.logLevel, "info");
  assert.equal(config.runtime, "builtin");
});

test("flags, environment and file each set a directive, and a flag wins over the environment", () => {
  const { config } = read(["--data-root", "/a/"], '{ "exec-root": "/c", "labels": ["disk=ssd"] }', {
    SKEP_DATA_ROOT: "/b",
    SKEP_LOG_LEVEL: "debug",
    SKEP_HOST: "unix:///the/client's",
  });
  assert.equal(config.dataRoot, "/a");
  assert.equal(config.logLevel, "debug");
  assert.deepEqual(config.hosts, ["unix:///c/skep.sock"]);
  assert.deepEqual(config.labels, { disk: "ssd" });
});

test("a directive given both as a flag and in the file is refused, by its name", () => {
  const said = refusal(["--label", "a=b"], '{ "labels": ["c=d"] }');
  assert.match(said, /specified both as a flag and in the configuration file .*: label$/u);
});

test("a file that is no object, or has unknown or wrong directives, is refused", () => {
  assert.match(refusal([], "{"), /is not JSON/u);
  assert.match(refusal([], "[]"), /is not a JSON object/u);
  assert.match(refusal([], '{ "data_root": "/a" }'), /don't match any configuration option: data_root/u);
  assert.match(refusal([], '{ "data-root": 7 }'), /"data-root" must be a text/u);
  assert.match(refusal([], '{ "labels": "a=b" }'), /"labels" must be a list/u);
  assert.match(refusal(["--config-file", "/none"], undefined), /Cannot read the configuration file \/none/u);
});

test("tcp without TLS is refused: whoever reaches it would be root", () => {
  assert.match(refusal(["-H", "tcp://0.0.0.0:2375"]), /without TLS/u);
  const { config } = read(["-H", "tcp://0.0.0.0:2376", "--tlsverify"]);
  assert.equal(config.tls?.cert, "/etc/skep/cert.pem");
});

test("values out of range say what they should be", () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [["--data-root", "here"], /not an absolute path/u],
    [["-H", "ftp://x"], /neither unix/u],
    [["-H", `unix:///${"x".repeat(120)}`], /too long for a socket/u],
    [["--label", "=x"], /not KEY=VALUE/u],
    [["--node-generic-resource", "gpu"], /not KIND=VALUE/u],
    [["--default-address-pool", "10.0.0.0/8"], /not base=CIDR,size=BITS/u],
    [["--registry-mirror", "mirror"], /not a URL/u],
    [["--log-level", "loud"], /no log level/u],
    [["--cgroup-parent", "/../x"], /not a path below the root/u],
    [["--nonsense"], /Unknown option/u],
    [["word"], /Unexpected argument/u],
  ];
  for (const [args, expected] of cases) assert.match(refusal(args), expected);
});

test("generic resources are counts or names", () => {
  const { config } = read(["--node-generic-resource", "gpu=2", "--node-generic-resource", "card=A,card=B"]);
  assert.deepEqual(config.genericResources, [
    { kind: "gpu", value: 2 },
    { kind: "card", value: "A" },
    { kind: "card", value: "B" },
  ]);
});
