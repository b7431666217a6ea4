import { VirtualClock } from "../../../lib/runtime/index.ts";
import type { skep } from "../../../proto/index.ts";
import { FakeExecutor, FakeHost, type FakeBehaviour } from "../../../worker/executor/fake.ts";
import { whySkipped } from "../containers/host.ts";
import { executorContract, type Behaviour, type ExecutorWorld } from "./contract.ts";
import { RealWorld } from "./world.ts";

executorContract("containers", whySkipped(), { health: true }, () => RealWorld.open());

class FakeWorld implements ExecutorWorld {
  readonly clock = new VirtualClock();
  readonly host = new FakeHost({
    clock: this.clock,
    behaviour: (task) => scripted(JSON.parse(task.spec?.containerSpec?.image ?? "") as Behaviour),
    description: {
      hostname: "fake",
      platform: { os: "linux", architecture: "x86_64" },
      resources: { nanoCpus: 1e9, memoryBytes: 1 << 30 },
    },
  });
  executor = new FakeExecutor(this.host);

  spec(behaviour: Behaviour): skep.objects.ContainerSpec.$Properties {
    return { image: JSON.stringify(behaviour) };
  }

  async settle<T>(act: Promise<T>): Promise<T> {
    const over = new AbortController();
    const end = (): void => over.abort();
    act.then(end, end);
    for (let i = 0; i < 1000 && !over.signal.aborted; i++) await this.clock.run(50);
    return act;
  }

  async restart(): Promise<void> {
    this.executor = new FakeExecutor(this.host);
  }

  async close(): Promise<void> {
    this.host.stop();
  }
}

function scripted(behaviour: Behaviour): FakeBehaviour {
  switch (behaviour.kind) {
    case "exits":
      return { runMs: 100, exitCode: behaviour.code };
    case "writes":
      return { runMs: 100, output: behaviour.lines };
    case "image missing":
      return { rejected: true };
    case "runs":
    case "healthy":
    case "unhealthy":
      return { startMs: 100, stopMs: 100 };
  }
}

executorContract("fake", false, { health: false }, async () => new FakeWorld());
