/** What every executor does, whatever is below: the same tests with containers and with the fake of the simulator. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { newId } from "../../../lib/pure/id.ts";
import { skep } from "../../../proto/index.ts";
import type { Executor, Needs, NodeFacts, TaskController } from "../../../worker/executor/index.ts";

/** What a task of the suite does when it runs. */
export type Behaviour =
  | { readonly kind: "runs" }
  | { readonly kind: "exits"; readonly code: number }
  /** Writes two lines and goes on. */
  | { readonly kind: "writes"; readonly lines: readonly string[] }
  | { readonly kind: "healthy" }
  | { readonly kind: "unhealthy" }
  | { readonly kind: "image missing" };

export interface ExecutorWorld {
  executor: Executor;
  /** The container part of a task that behaves so. */
  spec(behaviour: Behaviour): skep.objects.ContainerSpec.$Properties;
  /** Waits for an act; a world with its own time moves it meanwhile. */
  settle<T>(act: Promise<T>): Promise<T>;
  /** The daemon is replaced; `executor` is a new one over what is there. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

export const facts: NodeFacts = {
  nodeId: "n".repeat(25),
  hostname: "bee",
  platform: { os: "linux", architecture: "x86_64" },
};

/** Nothing at all, or what a test puts in. */
export class TestNeeds implements Needs {
  readonly secrets = new Map<string, skep.objects.Secret>();
  readonly configs = new Map<string, skep.objects.Config>();
  readonly networks = new Map<string, skep.objects.Network>();
  secret(id: string): skep.objects.Secret | undefined {
    return this.secrets.get(id);
  }
  config(id: string): skep.objects.Config | undefined {
    return this.configs.get(id);
  }
  network(id: string): skep.objects.Network | undefined {
    return this.networks.get(id);
  }
}

const random = (bytes: Uint8Array): void => void crypto.getRandomValues(bytes);

export function testTask(
  containerSpec: skep.objects.ContainerSpec.$Properties,
  more: skep.objects.Task.$Properties = {},
): skep.objects.Task {
  return skep.objects.Task.decode(
    skep.objects.Task.encode({
      id: newId(random),
      serviceId: newId(random),
      serviceAnnotations: { name: "web", labels: { tier: "front" } },
      slot: 1,
      nodeId: facts.nodeId,
      spec: { containerSpec },
      ...more,
    }).finish(),
  );
}

export const never = new AbortController().signal;
export const quiet = (): void => undefined;

export function executorContract(
  name: string,
  skip: string | false,
  options: { readonly health: boolean },
  make: () => Promise<ExecutorWorld>,
): void {
  describe(`executor contract: ${name}`, { skip, timeout: 600_000 }, () => {
    let world: ExecutorWorld;
    before(async () => {
      world = await make();
    });
    after(async () => {
      await world.close();
    });

    const begin = (behaviour: Behaviour): { task: skep.objects.Task; controller: TaskController } => {
      const task = testTask(world.spec(behaviour));
      return { task, controller: world.executor.controller(task, new TestNeeds(), facts) };
    };
    const running = async (behaviour: Behaviour): Promise<{ task: skep.objects.Task; controller: TaskController }> => {
      const made = begin(behaviour);
      await world.settle(made.controller.prepare(never, quiet));
      await world.settle(made.controller.start(never, quiet));
      return made;
    };

    test("a node describes itself by name, platform and resources", async () => {
      const description = await world.executor.describe();
      assert.ok((description.hostname ?? "") !== "");
      assert.equal(description.platform?.os, "linux");
      assert.ok((description.resources?.nanoCpus ?? 0) >= 1e9);
      assert.ok((description.resources?.memoryBytes ?? 0) > 0);
    });

    test("a task is prepared, started, ends by itself, and nothing of it is left after remove", async () => {
      const { task, controller } = begin({ kind: "exits", code: 0 });
      assert.equal(controller.containerStatus(), undefined);
      await world.settle(controller.prepare(never, quiet));
      assert.ok((controller.containerStatus()?.containerId ?? "") !== "");
      assert.ok((await world.executor.held()).includes(task.id));
      await world.settle(controller.start(never, quiet));
      const exit = await world.settle(controller.wait(never));
      assert.deepEqual([exit.exitCode, exit.oomKilled], [0, false]);
      await world.settle(controller.remove(never));
      assert.ok(!(await world.executor.held()).includes(task.id));
      assert.equal(controller.containerStatus(), undefined);
    });

    test("the exit code of a task that fails is told", async () => {
      const { controller } = await running({ kind: "exits", code: 7 });
      assert.equal((await world.settle(controller.wait(never))).exitCode, 7);
      assert.equal(controller.containerStatus()?.exitCode, 7);
      await world.settle(controller.remove(never));
    });

    test("shutdown ends a task that runs, again is harmless, and wait then tells how it ended", async () => {
      const { controller } = await running({ kind: "runs" });
      assert.ok((controller.containerStatus()?.pid ?? 0) > 0);
      await world.settle(controller.shutdown(never));
      await world.settle(controller.shutdown(never));
      const { exitCode } = await world.settle(controller.wait(never));
      assert.equal(typeof exitCode, "number");
      await world.settle(controller.remove(never));
    });

    test("terminate ends a task at once, with 137", async () => {
      const { controller } = await running({ kind: "runs" });
      await world.settle(controller.terminate(never));
      assert.equal((await world.settle(controller.wait(never))).exitCode, 137);
      await world.settle(controller.remove(never));
      await world.settle(controller.remove(never));
    });

    test("acts that are called again find what they did before", async () => {
      const { controller } = begin({ kind: "runs" });
      await world.settle(controller.prepare(never, quiet));
      const { containerId } = controller.containerStatus() ?? {};
      await world.settle(controller.prepare(never, quiet));
      assert.equal(controller.containerStatus()?.containerId, containerId);
      await world.settle(controller.start(never, quiet));
      const { pid } = controller.containerStatus() ?? {};
      await world.settle(controller.start(never, quiet));
      assert.equal(controller.containerStatus()?.pid, pid);
      await world.settle(controller.remove(never));
    });

    test("a task that ended is never started again", async () => {
      const { controller } = await running({ kind: "exits", code: 3 });
      await world.settle(controller.wait(never));
      await world.settle(controller.start(never, quiet));
      assert.equal((await world.settle(controller.wait(never))).exitCode, 3);
      await world.settle(controller.remove(never));
    });

    test("waiting ends when its signal does, and the task goes on", async () => {
      const { controller } = await running({ kind: "runs" });
      const stop = new AbortController();
      const waiting = controller.wait(stop.signal);
      stop.abort();
      await assert.rejects(world.settle(waiting), { name: "AbortError" });
      assert.ok((controller.containerStatus()?.pid ?? 0) > 0);
      await world.settle(controller.remove(never));
    });

    test("an image that is nowhere fails the preparation with a code, and leaves nothing", async () => {
      const { task, controller } = begin({ kind: "image missing" });
      await assert.rejects(
        world.settle(controller.prepare(never, quiet)),
        (error) => typeof (error as { code?: unknown }).code === "string",
      );
      await world.settle(controller.remove(never));
      assert.ok(!(await world.executor.held()).includes(task.id));
    });

    if (options.health) healthTests();

    function healthTests(): void {
      test("start waits until a task with a health check is healthy", async () => {
        const { controller } = await running({ kind: "healthy" });
        assert.ok((controller.containerStatus()?.pid ?? 0) > 0);
        await world.settle(controller.remove(never));
      });

      test("a task that becomes unhealthy is stopped, with the reason", async () => {
        const { controller } = begin({ kind: "unhealthy" });
        const reasons: skep.objects.Reason.$Properties[] = [];
        await world.settle(controller.prepare(never, quiet));
        await assert.rejects(world.settle(controller.start(never, (reason) => reasons.push(reason))), {
          code: "TASK_UNHEALTHY",
        });
        assert.ok((reasons.at(-1)?.unhealthy?.failingStreak ?? 0) > 0);
        assert.equal(controller.containerStatus()?.pid, 0);
        await world.settle(controller.remove(never));
      });
    }

    test("output comes back as it was written, by stream", async () => {
      const { controller } = await running({ kind: "writes", lines: ["one", "two"] });
      await world.settle(controller.wait(never));
      let text = "";
      const all = async (): Promise<void> => {
        for await (const line of controller.logs({ stdout: true, stderr: true, follow: false }, never))
          text += Buffer.from(line.text).toString("utf8");
      };
      await world.settle(all());
      assert.equal(text, "one\ntwo\n");
      await world.settle(controller.remove(never));
    });

    test("output that is followed from before the start comes to its end", async () => {
      const { controller } = begin({ kind: "writes", lines: ["one", "two"] });
      await world.settle(controller.prepare(never, quiet));
      let text = "";
      const followed = (async (): Promise<void> => {
        for await (const line of controller.logs({ stdout: true, stderr: true, follow: true }, never))
          text += Buffer.from(line.text).toString("utf8");
      })();
      await world.settle(controller.start(never, quiet));
      await world.settle(controller.wait(never));
      await world.settle(followed);
      assert.equal(text, "one\ntwo\n");
      await world.settle(controller.remove(never));
    });

    test("after a restart of the daemon tasks go on, are held, and answer to a new controller", async () => {
      const { task, controller } = await running({ kind: "runs" });
      const before = controller.containerStatus();
      await world.restart();
      assert.ok((await world.executor.held()).includes(task.id));
      const again = world.executor.controller(task, new TestNeeds(), facts);
      assert.deepEqual(again.containerStatus(), before);
      await world.settle(again.prepare(never, quiet));
      await world.settle(again.start(never, quiet));
      const ended = again.wait(never);
      await world.settle(again.shutdown(never));
      await world.settle(ended);
      await world.settle(world.executor.forget(task.id));
      await world.settle(world.executor.forget(task.id));
      assert.ok(!(await world.executor.held()).includes(task.id));
    });
  });
}
