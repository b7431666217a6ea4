import assert from "node:assert/strict";
import { test } from "node:test";

import { VirtualClock } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import type { Container } from "../containers/index.ts";
import { ContainerTask, type ControllerHost } from "./controller.ts";

const never = new AbortController().signal;
const task = skep.objects.Task.create({ id: "t".repeat(25), spec: { containerSpec: { image: "hello:1" } } });
const needs = { secret: () => undefined, config: () => undefined, network: () => undefined };
const facts = { nodeId: "n".repeat(25), hostname: "host", platform: { os: "linux", architecture: "x86_64" } };

/** Of a task whose image cannot be had. @returns what is done with its networks, in order */
function withoutImage(container?: { readonly startedAtMs: number }): { controller: ContainerTask; done: string[] } {
  const done: string[] = [];
  const act = (what: string) => async (): Promise<void> => void done.push(what);
  const found =
    container === undefined
      ? undefined
      : ({ record: { state: { startedAtMs: container.startedAtMs } }, stop: act("stop") } as unknown as Container);
  const host = {
    files: { write: () => Promise.resolve([]), remove: () => Promise.resolve() },
    pulls: { ensure: () => Promise.reject(new Error("there is no such image")) },
    networks: {
      sandboxes: { attach: act("attach"), release: act("release") },
      abilities: { refusal: undefined, encryptionRefusal: undefined },
    },
    clock: new VirtualClock(),
    find: () => found,
  } as unknown as ControllerHost;
  return { controller: new ContainerTask(host, task, needs, facts), done };
}

test("a task that cannot be prepared gives its ports and addresses back at once, for the one in its place", async () => {
  const { controller, done } = withoutImage();
  await assert.rejects(
    controller.prepare(never, () => undefined),
    /there is no such image/u,
  );
  assert.deepEqual(done, ["attach", "release"]);
});

test("a task that is stopped before it was started gives them back, too", async () => {
  for (const act of ["shutdown", "terminate"] as const) {
    const { controller, done } = withoutImage({ startedAtMs: 0 });
    await controller[act](never);
    assert.deepEqual(done, ["stop", "release"]);
  }
});

test("those of a task that has run go with its process, and are not taken from under it", async () => {
  const { controller, done } = withoutImage({ startedAtMs: 1 });
  await controller.shutdown(never);
  assert.deepEqual(done, ["stop"]);
});
