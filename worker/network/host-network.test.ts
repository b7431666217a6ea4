import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import type { RecordChange, ServiceRecord } from "./contract.ts";
import { Model } from "./core/model.ts";
import type { Kernel } from "./engine.ts";
import { HostNetwork } from "./host-network.ts";
import type { Operation } from "./netplane-types.ts";
import type { CommandOutcome } from "./firewall.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function hostWith(
  t: TestContext,
  does: { readonly operation?: (operation: Operation) => Promise<void>; readonly run?: () => Promise<CommandOutcome> },
): Promise<{ host: HostNetwork; model: Model; clock: VirtualClock }> {
  const folder = mkdtempSync(join(tmpdir(), "skep-host-"));
  const clock = new VirtualClock();
  const run: Kernel["run"] = async (_namespace, operations) => {
    for (const operation of operations) await does.operation?.(operation);
    return operations.map(({ op }) => (op === "sysctl-read" ? "1" : {}));
  };
  const host = await HostNetwork.open({
    kernel: { run, runAll: async () => [], onChange: () => undefined },
    dataDirectory: join(folder, "data"),
    runDirectory: join(folder, "run"),
    tunnelKey: () => undefined,
    clock,
    logger: silentLogger,
    firewall: { run: does.run ?? (async () => ({ status: undefined, output: "" })) },
  });
  t.after(async () => {
    await host[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  const model = new Model(host.parts, { nodeId: "n1", number: 1, addr: "10.0.0.1", underlayMtu: 1500 });
  return { host, model, clock };
}

const service: ServiceRecord = {
  networkId: "ingress",
  serviceId: "s1",
  name: "web",
  aliases: [],
  virtualIp: "",
  mode: "vip",
  ports: [8080, 8081].map((publishedPort) => ({ protocol: "tcp", publishedPort, targetPort: 80, mode: "ingress" })),
};

test("a look at the host's ports lets go of none whose service is just being told", async (t) => {
  const done: string[] = [];
  const held = Promise.withResolvers<void>();
  const { host, model } = await hostWith(t, {
    operation: async (operation) => {
      if (operation.op !== "port-reserve" && operation.op !== "port-release") return;
      if (operation.port === 8081) await held.promise;
      done.push(`${operation.op} ${operation.port}`);
    },
  });
  const settle = async (): Promise<void> => undefined;
  const change = async (changes: readonly RecordChange[]): Promise<void> => model.change(changes);
  const plane = host.around({ replace: settle, change });
  const telling = plane.change([{ kind: "service", key: "ingress/s1", record: service }]);
  await turn();
  const looking = host.check({ settle });
  for (let turns = 0; turns < 20; turns++) await turn();
  held.resolve();
  await Promise.all([telling, looking]);
  assert.deepEqual(done, ["port-reserve 8080", "port-reserve 8081"]);
  await plane.change([{ kind: "service", key: "ingress/s1", record: undefined }]);
  assert.deepEqual(done.slice(2), ["port-release 8080", "port-release 8081"]);
});

test("a firewall that takes longer than a minute to answer is not asked again meanwhile", async (t) => {
  let asked = 0;
  let answer: PromiseWithResolvers<CommandOutcome> | undefined;
  const run = (): Promise<CommandOutcome> => {
    asked++;
    return answer?.promise ?? Promise.resolve({ status: undefined, output: "" });
  };
  const { host, clock } = await hostWith(t, { run });
  await host.start({ settle: async () => undefined });
  const each = asked;
  answer = Promise.withResolvers();
  for (let minute = 0; minute < 3; minute++) clock.advance(60_000);
  await turn();
  assert.equal(asked, each + 1);
  answer.resolve({ status: undefined, output: "" });
  answer = undefined;
  for (let turns = 0; turns < 20; turns++) await turn();
  asked = 0;
  clock.advance(60_000);
  for (let turns = 0; turns < 20; turns++) await turn();
  assert.equal(asked, each);
});
