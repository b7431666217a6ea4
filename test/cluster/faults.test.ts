/** Real daemons on five hosts, and what may befall them while services run: nothing acknowledged is lost in any of it. */
import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { after, before, suite, test } from "node:test";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { ask, hindrance, World } from "./world.ts";

const slow = 60_000;

suite("a cluster of five hosts", { skip: hindrance }, () => {
  let world: World;
  let [m1, m2, m3, w1, w2]: Host[] = [];

  before(async () => {
    world = await World.open("skepct", 3, 2);
    [m1, m2, m3, w1, w2] = world.hosts as [Host, Host, Host, Host, Host];
    // A daemon that is started again is back before its node is taken for lost, however busy the machine is.
    await world.form(undefined, 30);
  });
  after(() => world.close());

  const all = (): Host[] => [m1, m2, m3, w1, w2] as Host[];
  const other = (than: Host): Host => (than === m1 ? m2 : m1) as Host;
  const steady = (at: Host, id: string, replicas: number, image?: string): Promise<number> =>
    world.until(`${replicas} running tasks${image === undefined ? "" : ` of ${image}`}`, slow, async () => {
      const running = await world.running(at, id);
      return (
        running.length === replicas &&
        (image === undefined || running.every(({ Spec }) => Spec.ContainerSpec.Image === image))
      );
    });
  const setImage =
    (image: string) =>
    (spec: Record<string, unknown>): void => {
      (spec as { TaskTemplate: { ContainerSpec: { Image: string } } }).TaskTemplate.ContainerSpec.Image = image;
      spec["UpdateConfig"] = { Parallelism: 2, Monitor: 500_000_000, FailureAction: "continue" };
    };
  const kill = (pid: number): void => {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      // It ended meanwhile.
      assert.equal((error as NodeJS.ErrnoException).code, "ESRCH");
    }
  };
  /** Tasks on every host: a node that was not ready in the moment in which they got their places has none. */
  const everywhere = async (at: Host, name: string, replicas: number): Promise<string> => {
    for (;;) {
      await steadyNodes(at);
      const id = await world.create(at, name, replicas);
      await steady(at, id, replicas);
      if (all().every((host) => world.containersOn(host) > 0)) return id;
      await remove(at, id);
    }
  };
  const remove = async (at: Host, id: string): Promise<void> => {
    await world.led(() => ask(at, "DELETE", `/services/${id}`));
    await world.until("its containers to be gone", slow, () => all().every((host) => world.containersOn(host) === 0));
  };

  test(
    "kill -9 of each process kind during a rolling update, and it ends as asked",
    { timeout: 4 * slow },
    async () => {
      const at = m2 as Host;
      const id = await world.create(at, "roll", 6);
      await steady(at, id, 6);
      await world.update(at, id, setImage("hello:2"));
      const leader = await world.leader(at);
      const asked = other(leader);
      // A worker's daemon; then the leader's manager process alone; then the whole daemon of the leader's host.
      await (w1 as Host).kill();
      await leader.killManager();
      (w1 as Host).start();
      await steady(asked, id, 6, "hello:2");
      await leader.kill();
      await world.update(asked, id, (spec) => (spec["Labels"] = { after: "kill" }));
      leader.start();
      await leader.answers();
      assert.equal((await world.service(asked, id)).Spec.Labels?.["after"], "kill");
      await steady(asked, id, 6, "hello:2");
      await steadyNodes(asked);
      await remove(asked, id);
    },
  );

  test(
    "kill -9 of the monitors of containers during a rolling update, and of their daemon with them: no task is doubled",
    { timeout: 4 * slow },
    async () => {
      const at = m2 as Host;
      const id = await everywhere(at, "monitors", 6);
      const before = world.monitorsOn(w1 as Host);
      assert.ok(before.length > 0, "the worker has containers");
      await world.update(at, id, setImage("hello:2"));
      await world.until("the update to be under way", slow, async () =>
        (await world.tasks(at, id)).some(({ Spec }) => Spec.ContainerSpec.Image === "hello:2"),
      );
      for (const host of [w1, m1] as Host[]) for (const pid of world.monitorsOn(host)) kill(pid);
      // Who comes back finds containers that nobody has watched.
      for (const pid of world.monitorsOn(w2 as Host)) kill(pid);
      await (w2 as Host).kill();
      (w2 as Host).start();
      await (w2 as Host).answers();
      await steady(at, id, 6, "hello:2");
      await world.until(
        "six containers in all",
        slow,
        () => all().reduce((sum, host) => sum + world.containersOn(host), 0) === 6,
      );
      await remove(at, id);
    },
  );

  test(
    "an upgrade in place of a daemon stops none of its containers, the leader's neither",
    { timeout: 4 * slow },
    async () => {
      const id = await everywhere(m1 as Host, "upgrade", 8);
      for (const host of [w1 as Host, await world.leader()]) {
        const asked = other(host);
        const pids = host.containerProcesses("/bin/hello");
        assert.ok(pids.length > 0, `${host.name} has containers`);
        await host.kill("SIGTERM");
        assert.deepEqual(host.containerProcesses("/bin/hello"), pids, "containers while the daemon is down");
        // What is acknowledged while a manager is being upgraded is there afterwards.
        await world.update(asked, id, (spec) => (spec["Labels"] = { upgraded: host.name }), slow);
        host.start();
        await host.answers();
        await steady(asked, id, 8);
        await steadyNodes(asked);
        assert.deepEqual(host.containerProcesses("/bin/hello"), pids, "the same containers afterwards");
        assert.equal((await world.service(asked, id)).Spec.Labels?.["upgraded"], host.name);
      }
      await remove(m1 as Host, id);
    },
  );

  test(
    "the quorum is lost: reads say so, nothing is accepted; regained, all is there",
    { timeout: 2 * slow },
    async () => {
      const at = m1 as Host;
      const id = await world.create(at, "quorum", 3);
      await steady(at, id, 3);
      await (m2 as Host).kill();
      await (m3 as Host).kill();
      await world.until("a refusal", slow, async () => {
        const { status, body } = await ask<{ message: string }>(at, "POST", "/configs/create", {
          Name: "c",
          Data: "eA==",
        });
        return status >= 500 && /does not have a leader/u.test(body.message);
      });
      assert.equal(
        all().reduce((sum, host) => sum + world.containersOn(host), 0),
        3,
        "containers go on",
      );
      for (const host of [m2, m3] as Host[]) host.start();
      for (const host of [m2, m3] as Host[]) await host.answers();
      await world.update(at, id, (spec) => (spec["Labels"] = { after: "quorum" }), slow);
      assert.equal((await world.service(at, id)).Spec.Labels?.["after"], "quorum");
      await steady(at, id, 3);
      await remove(at, id);
    },
  );

  test(
    "the disk of a manager is full: it steps aside, and is back when there is room",
    { timeout: 3 * slow },
    async () => {
      const host = m3 as Host;
      const at = m1 as Host;
      const raft = `${host.dataRoot}/swarm/raft`;
      const reachable = (): Promise<number> =>
        world.until("three managers to be reachable", slow, async () => {
          const nodes = await world.nodes(at);
          return nodes.filter(({ ManagerStatus }) => ManagerStatus?.Reachability === "reachable").length === 3;
        });
      await host.kill("SIGTERM");
      const kept = spawnSync("sh", [
        "-c",
        `cp -a ${raft} ${raft}.kept && mount -t tmpfs -o size=512m,mode=0755 tmpfs ${raft} && cp -a ${raft}.kept/. ${raft}/ && chown --reference=${raft}.kept ${raft} && chmod --reference=${raft}.kept ${raft}`,
      ]);
      assert.equal(kept.status, 0, String(kept.stderr));
      try {
        host.start();
        await host.answers();
        await reachable();
        // Never more than the small file system holds, whatever is mounted there.
        spawnSync("dd", ["if=/dev/zero", `of=${raft}/ballast`, "bs=1M", "count=600"]);
        const id = await world.create(at, "full", 3);
        await steady(at, id, 3);
        for (let n = 0; n < 30; n++) {
          await world.update(at, id, (spec) => (spec["Labels"] = { n: String(n), bulk: "x".repeat(20_000) }), slow);
        }
        rmSync(`${raft}/ballast`);
        await reachable();
        assert.equal((await world.service(at, id)).Spec.Labels?.["n"], "29");
        await remove(at, id);
      } finally {
        await host.kill();
        spawnSync("sh", [
          "-c",
          `mkdir -p ${raft}.now && cp -a ${raft}/. ${raft}.now/; umount ${raft}; rm -rf ${raft}/* && cp -a ${raft}.now/. ${raft}/; rm -rf ${raft}.now ${raft}.kept`,
        ]);
        host.start();
        await host.answers();
      }
    },
  );

  test("a host whose clock is an hour ahead takes part as before", { timeout: 2 * slow }, async () => {
    const library = [
      "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
      "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ].find((path) => spawnSync("test", ["-e", path]).status === 0);
    assert.ok(library !== undefined, "libfaketime is not installed; npm run setup installs it");
    const host = m2 as Host;
    const at = m1 as Host;
    await host.kill("SIGTERM");
    host.start([], { LD_PRELOAD: library, FAKETIME: "+1h", FAKETIME_DONT_FAKE_MONOTONIC: "1" });
    await host.answers();
    await steadyNodes(at);
    const id = await world.create(host, "clock", 5);
    await steady(at, id, 5);
    await remove(at, id);
    await host.kill("SIGTERM");
    host.start();
    await host.answers();
    await steadyNodes(at);
  });

  /** From now on a node is lost that is silent for nine seconds: whoever is started anew is told so at once. */
  const shortHeartbeats = async (): Promise<void> => {
    const at = m1 as Host;
    await world.until("a change of the swarm", slow, async () => {
      const { status, body } = await ask<{ Version: { Index: number }; Spec: object }>(at, "GET", "/swarm");
      if (status !== 200) return false;
      const spec = { ...body.Spec, Dispatcher: { HeartbeatPeriod: 3_000_000_000 } };
      return (await ask(at, "POST", `/swarm/update?version=${body.Version.Index}`, spec)).status === 200;
    });
    for (const host of all()) {
      await host.kill();
      host.start();
      await host.answers();
      await steadyNodes(other(host));
    }
  };

  test(
    "the leader's host is cut off: another leads, and what was acknowledged is there",
    { timeout: 6 * slow },
    async () => {
      await shortHeartbeats();
      const leader = await world.leader();
      const at = other(leader);
      const id = await world.create(at, "cut", 4);
      await steady(at, id, 4);
      leader.setLink(false);
      try {
        await world.update(at, id, (spec) => (spec["Labels"] = { written: "while cut off" }));
        await world.until("four tasks on the others", slow, async () => {
          const cut = await world.nodeIdOf(leader);
          return (await world.running(at, id)).filter(({ NodeID }) => NodeID !== cut).length === 4;
        });
      } finally {
        leader.setLink(true);
      }
      await world.until("the old leader to know", slow, async () => {
        const { status, body } = await ask<{ Spec: { Labels?: Record<string, string> } }>(
          leader,
          "GET",
          `/services/${id}`,
        );
        return status === 200 && body.Spec.Labels?.["written"] === "while cut off";
      });
      await world.until(
        "no more than four containers",
        slow,
        () => all().reduce((sum, host) => sum + world.containersOn(host), 0) === 4,
      );
      await remove(at, id);
    },
  );

  test("a worker is cut off and comes back: its old tasks stop", { timeout: 4 * slow }, async () => {
    const at = m1 as Host;
    const worker = w2 as Host;
    const workerId = await world.nodeIdOf(worker);
    const id = await everywhere(at, "away", 5);
    const before = world.containersOn(worker);
    assert.ok(before > 0, "the worker has tasks");
    worker.setLink(false);
    try {
      await world.until("its tasks to run elsewhere", slow, async () => {
        const running = await world.running(at, id);
        return running.filter(({ NodeID }) => NodeID !== workerId).length === 5;
      });
      assert.equal(world.containersOn(worker), before, "it goes on without managers");
    } finally {
      worker.setLink(true);
    }
    await world.until(
      "five containers in all",
      slow,
      () => all().reduce((sum, host) => sum + world.containersOn(host), 0) === 5,
    );
    await remove(at, id);
  });

  const steadyNodes = (at: Host): Promise<number> =>
    world.until("all nodes to be ready", slow, () => world.areReady(at, 5));

  test("no daemon has met an error of its own", () => {
    for (const host of all()) {
      const log = readFileSync(host.logFile, "utf8");
      const bugs = log
        .split("\n")
        .filter((line) => /InvariantViolation|"level":"fatal"|TypeError|a handler failed/u.test(line));
      assert.deepEqual(bugs, [], host.name);
    }
  });
});
