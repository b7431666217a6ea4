import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import type { ContainerRecord } from "../../../worker/containers/core/types.ts";

import { DetachScanner, parseDetachKeys } from "./detach-keys.ts";
import { goFileMode } from "./file-mode.ts";
import { readImageChanges } from "./image-changes.ts";
import { humanDuration, statusText } from "./status-text.ts";
import { isoTime } from "./container-json.ts";
import { networksJson, type NetworkFacts } from "./network-json.ts";

test("durations are told as the Engine tells them", () => {
  const cases: [number, string][] = [
    [0, "Less than a second"],
    [1, "1 second"],
    [59, "59 seconds"],
    [60, "About a minute"],
    [3599, "59 minutes"],
    [3600, "About an hour"],
    [47 * 3600, "47 hours"],
    [48 * 3600, "2 days"],
    [14 * 86_400, "2 weeks"],
    [60 * 86_400, "2 months"],
    [800 * 86_400, "2 years"],
  ];
  for (const [seconds, text] of cases) assert.equal(humanDuration(seconds * 1000), text);
});

test("a container's status says what it does, how it ended and how it feels", () => {
  const state = {
    status: "running" as const,
    pid: 1,
    startedAtMs: 1000,
    exit: undefined,
    error: "",
    restartCount: 0,
    stoppedByUser: false,
    restarting: false,
    health: { status: "none" as const, failingStreak: 0, log: [] },
  };
  const exit = { code: 3, signal: 0, oomKilled: false, finishedAtMs: 6000 };
  assert.equal(statusText({ state }, 6000), "Up 5 seconds");
  assert.equal(
    statusText({ state: { ...state, health: { ...state.health, status: "starting" } } }, 6000),
    "Up 5 seconds (health: starting)",
  );
  assert.equal(statusText({ state: { ...state, status: "paused" } }, 6000), "Up 5 seconds (Paused)");
  assert.equal(statusText({ state: { ...state, status: "exited", exit } }, 16_000), "Exited (3) 10 seconds ago");
  assert.equal(statusText({ state: { ...state, status: "restarting", exit } }, 7000), "Restarting (3) 1 second ago");
  assert.equal(statusText({ state: { ...state, status: "created" } }, 0), "Created");
});

test("a task's container is on its service's networks alone, a container of the user's on what its mode names", () => {
  const end = {
    networkId: "n1",
    networkName: "back",
    address: "10.0.1.5",
    prefixLength: 24,
    gateway: "10.0.1.1",
    macAddress: "",
    aliases: [],
  };
  const facts: NetworkFacts = {
    sandbox: { id: "t1", namespacePath: "/ns", endpoints: [end], ports: [] },
    network: () => undefined,
    exposed: [],
    digest: (text) => text,
  };
  const on = (mode: string, more: Partial<NetworkFacts> = {}): string[] =>
    Object.keys(
      networksJson({ id: "c1", name: "c", hostConfig: { NetworkMode: mode } } as unknown as ContainerRecord, {
        ...facts,
        ...more,
      }),
    );
  assert.deepEqual(on("default"), ["back"]);
  assert.deepEqual(on("default", { sandbox: undefined }), []);
  assert.deepEqual(on("host", { sandbox: undefined }), ["host"]);
});

test("times have as many digits as they need, and 0 is Go's zero", () => {
  assert.equal(isoTime(0), "0001-01-01T00:00:00Z");
  assert.equal(isoTime(1000), "1970-01-01T00:00:01Z");
  assert.equal(isoTime(1500.25), "1970-01-01T00:00:01.50025Z");
});

test("modes of files are Go's", () => {
  assert.equal(goFileMode(0o100644), 0o644);
  assert.equal(goFileMode(0o040755), 2 ** 31 + 0o755);
  assert.equal(goFileMode(0o041777), 2 ** 31 + 2 ** 20 + 0o777);
  assert.equal(goFileMode(0o120777), 2 ** 27 + 0o777);
  assert.equal(goFileMode(0o020620), 2 ** 26 + 2 ** 21 + 0o620);
  assert.equal(goFileMode(0o104755), 2 ** 23 + 0o755);
});

test("changes of an image are instructions of a Dockerfile", () => {
  const reading = readImageChanges(
    [
      'CMD ["a","b c"]',
      "ENTRYPOINT run it",
      'ENV A=1 B="two words"',
      "ENV OLD value",
      "LABEL x=y",
      "EXPOSE 80 53/udp",
      "VOLUME /v /w",
      "USER joe",
      "WORKDIR /d",
    ],
    { Env: ["A=0", "KEEP=1"], Labels: { k: "v" } },
  );
  assert.deepEqual(reading, {
    ok: true,
    changes: {
      Cmd: ["a", "b c"],
      Entrypoint: ["/bin/sh", "-c", "run it"],
      Env: ["A=1", "KEEP=1", "B=two words", "OLD=value"],
      Labels: { k: "v", x: "y" },
      ExposedPorts: { "80/tcp": {}, "53/udp": {} },
      Volumes: { "/v": {}, "/w": {} },
      User: "joe",
      WorkingDir: "/d",
    },
  });
  for (const wrong of ["RUN x", "CMD", "EXPOSE nine"]) assert.equal(readImageChanges([wrong]).ok, false, wrong);
});

test("detach keys: names, defaults, and what is none", () => {
  assert.deepEqual(parseDetachKeys(""), [16, 17]);
  assert.deepEqual(parseDetachKeys("ctrl-a,d"), [1, 100]);
  assert.deepEqual(parseDetachKeys("ctrl-@,ctrl-["), [0, 27]);
  for (const wrong of ["ctrl-1", "ab", ",", "ctrl-a,".repeat(20)])
    assert.equal(parseDetachKeys(wrong), undefined, wrong);
});

test("all input passes until the keys come in a row, however it is cut", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(16, 17, 97)), fc.integer({ min: 1, max: 4 }), (bytes, step) => {
      const scanner = new DetachScanner([16, 17]);
      const passed: number[] = [];
      let detached = false;
      for (let at = 0; at < bytes.length && !detached; at += step) {
        const result = scanner.push(Uint8Array.from(bytes.slice(at, at + step)));
        passed.push(...result.pass);
        detached = result.detached;
      }
      const text = bytes.join(",");
      const at = `,${text},`.indexOf(",16,17,");
      assert.equal(detached, at >= 0);
      const before = at < 0 ? bytes : bytes.slice(0, `,${text},`.slice(0, at).split(",").length - 1);
      // A first key at the very end is held back: it may be the beginning.
      const held = !detached && bytes.at(-1) === 16 ? before.slice(0, -1) : before;
      assert.deepEqual(passed, held);
    }),
  );
});
