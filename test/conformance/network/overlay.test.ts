/**
 * Overlays and service addresses over three hosts in namespaces: the data plane is handed records as an agent would, no
 * manager is here. What is seen of the kernel is seen by programs inside of the containers.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Sandbox } from "../../../worker/network/contract.ts";
import { whySkipped } from "../containers/host.ts";
import {
  endpointChange,
  NetHosts,
  overlayEndpoint,
  overlayOf,
  overlayService,
  overlayTask as task,
  overlayWish,
  peerOf,
  type NetHost,
  type OverlayTask as Task,
} from "./net-host.ts";
import { eventually, run, type NetWorld } from "./world.ts";

const blue = overlayOf("blue", 4097);
/** The same subnet: another network all the same. */
const red = overlayOf("red", 4098);

const vip = "10.0.1.100";
const port = 7000;
const tasks = [
  task("a1", blue, 1, 11),
  task("a2", blue, 1, 12),
  task("b1", blue, 2, 21),
  task("b2", blue, 2, 22),
  task("c1", blue, 3, 31),
];
const [a1, a2, b1, b2, c1] = tasks as [Task, Task, Task, Task, Task];
const strangers = [task("r1", red, 1, 11, "other"), task("r2", red, 2, 21, "other")];

describe("overlays over three hosts", { skip: whySkipped(), timeout: 240_000 }, () => {
  let hosts: NetHosts;
  let world: NetWorld;
  const sandboxes = new Map<string, Sandbox>();

  const host = (number: number): NetHost => hosts.host(number);
  const serving = (...wanted: readonly Task[]): Promise<void> =>
    hosts.change(...tasks.map((one) => endpointChange(one, overlayEndpoint(one, wanted.includes(one)))));
  const ask = (from: Task, to: string, ...more: readonly string[]): string => world.get(from.id, to, port, ...more);
  /** The same where nobody is to answer. */
  const briefly = (from: Task, to: string, ...more: readonly string[]): string =>
    world.getBriefly(from.id, to, port, ...more);
  /** The same, while netplane and what listens to it go on. */
  const askSoon = (from: Task, to: string, ...more: readonly string[]): Promise<string> =>
    world.getSoon(from.id, to, port, ...more);
  const services = [overlayService("web", blue, vip), overlayService("other", red, vip)];

  before(async () => {
    hosts = await NetHosts.open("skeppl", 3);
    ({ world } = hosts);
    const all = [...tasks, ...strangers];
    await hosts.replace(
      all.map((one) => overlayEndpoint(one, false)),
      services,
    );
    for (const one of all) sandboxes.set(one.id, await hosts.attachTask(one, port));
  });
  after(() => hosts.close());

  test("every container reaches every other by tcp and udp, and is seen by its own address", () => {
    for (const from of tasks) {
      for (const to of tasks) {
        for (const protocol of [[], ["-u"]]) {
          const answer = ask(from, to.address, ...protocol);
          const expected = new RegExp(`^${to.id} peer=${from.address.replaceAll(".", "\\.")}:`);
          assert.match(answer, expected, `${from.id} to ${to.id} ${protocol.join("")}`);
        }
      }
    }
  });

  test("networks with one subnet do not meet", () => {
    const [r1, r2] = strangers as [Task, Task];
    assert.match(ask(r1, r2.address), new RegExp(`^${r2.id} peer=10\\.0\\.1\\.11:`));
    assert.match(ask(a1, b1.address), new RegExp(`^${b1.id} peer=10\\.0\\.1\\.11:`));
    assert.match(briefly(r1, "10.0.1.12"), /^ERR/);
    assert.match(briefly(r1, "10.0.1.31"), /^ERR/);
  });

  test("packets as long as the network carries go through whole", async () => {
    for (const { id } of [a1, b1]) assert.match(world.ip(id, "link show eth0"), / mtu 1450 /);
    const receiver = await world.receive(b1.id, 7001);
    // 20 bytes of IP and 8 of UDP before them.
    const text = "x".repeat(1450 - 28);
    world.exec(a1.id, [world.probe, "send", b1.address, "7001", text]);
    await receiver.until(text);
    await receiver.end();
  });

  test("a container cannot speak with another's address", () => {
    world.exec(a1.id, ["ip", "addr", "add", "10.0.1.77/32", "dev", "eth0"]);
    try {
      assert.match(briefly(a1, a2.address, "-s", "10.0.1.77"), /^ERR/);
      assert.match(briefly(a1, b1.address, "-s", "10.0.1.77"), /^ERR/);
    } finally {
      world.exec(a1.id, ["ip", "addr", "del", "10.0.1.77/32", "dev", "eth0"]);
    }
  });

  test("a service's address leads to a task on the same host, on another, or to the asker itself", async () => {
    for (const [target, seen] of [
      [a1, "10.0.1.1"],
      [a2, a1.address],
      [b1, a1.address],
      [c1, a1.address],
    ] as const) {
      await serving(target);
      for (const protocol of [[], ["-u"]]) {
        const expected = new RegExp(`^${target.id} peer=${seen.replaceAll(".", "\\.")}:`);
        assert.match(ask(a1, vip, ...protocol), expected, `${target.id} ${protocol.join("")}`);
      }
    }
  });

  test("from every host, new connections are spread over all tasks and no others", async () => {
    await serving(a2, b1, b2);
    for (const from of [a1, b2, c1]) {
      const answers = world.attempt(from.id, [world.probe, "many", vip, String(port), "60"]).split("\n");
      const met = new Set(answers.map((line) => line.split(" ")[0]));
      assert.deepEqual(met, new Set([a2.id, b1.id, b2.id]), answers.join("; "));
    }
  });

  test("without a serving task a service's address refuses, however often it is asked", async () => {
    await serving();
    for (const protocol of ["tcp", "udp"]) {
      const questions = `${protocol} ${vip} ${port} 10000\n`.repeat(200);
      // From where nobody has asked it by UDP: what is remembered of a port would go on with its task, which drains.
      const answers = world.exec(c1.id, [world.probe, "asks"], questions).trim().split("\n");
      assert.deepEqual(
        [...new Set(answers)],
        [`ERR ${protocol === "tcp" ? "connect" : "receive"}: Connection refused`],
      );
      assert.equal(answers.length, 200);
    }
  });

  for (const protocol of ["tcp", "udp"] as const) {
    test(`a task that leaves its service keeps its ${protocol} connections and gets no new ones`, async () => {
      await serving(b1);
      const held = world.hold(a1.id, vip, port, ...(protocol === "udp" ? ["-u"] : []));
      assert.match(await held.ask(), new RegExp(`^${b1.id}`));
      await serving(a2, c1);
      assert.match(await held.ask(), new RegExp(`^${b1.id}`));
      const more = protocol === "udp" ? ["-u"] : [];
      for (let time = 0; time < 12; time += 1) assert.doesNotMatch(ask(a1, vip, ...more), new RegExp(`^${b1.id}`));
      assert.match(await held.ask(), new RegExp(`^${b1.id}`));
      await held.end();
    });
  }

  test("when a task has ended, a udp client that goes on sending meets another one", async () => {
    await serving(b1);
    // From one port: to the kernel it is one connection.
    const same = (...more: readonly string[]): Promise<string> => askSoon(a1, vip, "-u", "-p", "5599", ...more);
    assert.ok((await same("-w", "15000")).startsWith(b1.id));
    await serving(a2, c1);
    assert.ok((await same("-w", "15000")).startsWith(b1.id), "it drains");
    await hosts.change(endpointChange(b1, undefined));
    const others = new RegExp(`^(${a2.id}|${c1.id})`);
    await eventually(async () => others.test(await same()));
    await hosts.change(endpointChange(b1, overlayEndpoint(b1, false)));
  });

  test("a task whose node is lost is not sent to any more, by who goes on with UDP or takes a port again; TCP that it answered goes on", async () => {
    await serving(b1);
    const held = world.hold(a1.id, vip, port);
    const from = (source: number, ...more: readonly string[]): Promise<string> =>
      askSoon(a1, vip, "-p", String(source), ...more);
    assert.match(await held.ask(), new RegExp(`^${b1.id}`));
    assert.ok((await from(5601, "-u", "-w", "15000")).startsWith(b1.id));
    // Nothing comes back from it now: a first packet is remembered with the task that it was for.
    world.exec("h2", [
      "sh",
      "-c",
      `nft 'table netdev cut { chain in { type filter hook ingress device "eth0" priority 0; udp dport 4789 drop; }; }'`,
    ]);
    try {
      assert.match(await from(5602), /^ERR connect/);
    } finally {
      world.exec("h2", ["nft", "delete", "table", "netdev", "cut"]);
    }
    await hosts.change(
      endpointChange(b1, { ...overlayEndpoint(b1, false), lost: true }),
      endpointChange(c1, overlayEndpoint(c1)),
    );
    await eventually(async () => (await from(5601, "-u")).startsWith(c1.id));
    await eventually(async () => (await from(5602)).startsWith(c1.id));
    assert.match(await held.ask(), new RegExp(`^${b1.id}`), "it may be cut off from the managers alone");
    await held.end();
    await hosts.change(endpointChange(b1, overlayEndpoint(b1, false)));
  });

  test("a restart of the daemon touches nothing: an open connection goes on, and the next change is applied", async () => {
    await serving(b1);
    const held = world.hold(a1.id, vip, port);
    assert.match(await held.ask(), new RegExp(`^${b1.id}`));
    const one = host(1);
    const handles = (): string => world.exec("h1", ["nsenter", `--net=${one.folder}/netns/n-4097`, "ip", "-o", "link"]);
    const before = handles();
    await one.stop();
    assert.match(await held.ask(), new RegExp(`^${b1.id}`));
    await one.start();
    assert.match(await held.ask(), new RegExp(`^${b1.id}`));
    const endpoints = [...tasks, ...strangers].map((each) => overlayEndpoint(each, each === b1));
    await one.plane.replace({ nodeId: "n1", peers: [1, 2, 3].map(peerOf), endpoints, services });
    assert.match(await held.ask(), new RegExp(`^${b1.id}`));
    assert.equal(handles(), before, "links are the same ones");
    assert.deepEqual(one.networks.sandboxes.get(a1.id), sandboxes.get(a1.id));
    await serving(c1);
    assert.match(ask(a1, vip), new RegExp(`^${c1.id}`));
    assert.match(await held.ask(), new RegExp(`^${b1.id}`));
    await held.end();
  });

  test("netplane may die: traffic goes on, and what it was about to do is done by the next one", async () => {
    await serving(b1);
    const children = run(["pgrep", "-P", String(process.pid), "-x", "netplane"])
      .trim()
      .split("\n")
      .map(Number);
    assert.equal(children.length, hosts.all.length);
    for (const pid of children) process.kill(pid, "SIGKILL");
    assert.match(ask(a1, vip), new RegExp(`^${b1.id}`));
    // Refused or not: it is known from now on, and tried until it is so.
    await serving(c1).catch((error: unknown) => assert.match(String(error), /NetworkNotApplied/));
    await eventually(async () => (await askSoon(a1, vip)).startsWith(c1.id));
    // Those of the other hosts, too, may take their time.
    await eventually(async () => {
      const found = hosts.all.map(({ networks }) => networks.differences());
      return (await Promise.all(found).catch(() => [1])).flat().length === 0;
    });
  });

  test("what somebody breaks in a network's namespace is whole again in a moment", async () => {
    await serving(b1);
    const inside = (...command: string[]): string =>
      run(["nsenter", `--net=${host(1).folder}/netns/n-4097`, "--", ...command]);
    const untilWhole = async (act: () => void): Promise<void> => {
      act();
      for (const address of [vip, a2.address, b1.address, c1.address]) {
        await eventually(async () => (await askSoon(a1, address)).includes(" peer="));
      }
    };
    await untilWhole(() => void inside("nft", "flush", "ruleset"));
    await untilWhole(() => void inside("nft", "delete", "element", "ip", "skep", "vips", `{ ${vip} }`));
    await untilWhole(() => void inside("nft", "flush", "chain", "ip", "skep", "pre"));
    await untilWhole(() => void inside("ip", "route", "flush", "proto", "200"));
    await untilWhole(() => void inside("ip", "neigh", "flush", "nud", "permanent"));
    await untilWhole(() => void inside("ip", "link", "set", "vx", "down"));
    await untilWhole(() => void inside("ip", "link", "delete", "vx"));
    await untilWhole(() => void inside("ip", "address", "flush", "dev", "vx"));
    await untilWhole(() => void inside("nft", "flush", "map", "ip", "skep", "be"));
    await untilWhole(
      () => void inside("sh", "-c", "ip -o link | grep -o ': v[0-9a-f]*@' | tr -d ': @' | xargs -n1 ip link del"),
    );
    const fdb =
      "bridge fdb show dev vx | grep dst | while read mac word ip rest; do bridge fdb del $mac dev vx dst $ip; done";
    await untilWhole(() => void inside("sh", "-c", fdb));
  });

  test("what no event tells of is found by the look of each minute: sysctls, and what is ours in a container", async () => {
    await serving(b1);
    const filter = ["nsenter", `--net=${host(1).folder}/netns/n-4097`, "--", "sysctl"];
    run([...filter, "-qw", "net.ipv4.conf.all.rp_filter=0"]);
    world.ip(a1.id, "address flush dev eth0");
    world.ip(a2.id, "route flush table main");
    assert.match(briefly(a1, b1.address), /^ERR/);
    const found = await host(1).networks.differences();
    for (const [object, what] of [
      ["sysctl net/ipv4/conf/all/rp_filter", "wrong"],
      [`address eth0 ${a1.address}/24`, "missing"],
    ]) {
      assert.ok(
        found.some((one) => one.object === object && one.what === what),
        JSON.stringify(found),
      );
    }
    await host(1).networks.repair();
    assert.deepEqual(await host(1).networks.differences(), []);
    for (const from of [a1, a2]) assert.match(ask(from, b1.address), new RegExp(`^${b1.id} peer=${from.address}:`));
    assert.equal(run([...filter, "-n", "net.ipv4.conf.all.rp_filter"]).trim(), "1");
  });

  test("a sandbox that is released leaves nothing, and the network's last one takes the network with it", async () => {
    const [r1] = strangers as [Task, Task];
    const one = host(1);
    const names = (): string[] =>
      run(["ls", `${one.folder}/netns`])
        .split("\n")
        .filter((name) => name !== "");
    assert.ok(names().includes("n-4098") && names().includes(r1.id));
    await one.networks.sandboxes.release(r1.id);
    assert.ok(!names().includes("n-4098") && !names().includes(r1.id), names().join(" "));
    // At once again: the number of the VXLAN is free.
    await one.attach(r1.id, { networks: [overlayWish(r1)], taskId: r1.id });
    assert.match(world.get(r1.id, "10.0.1.21", port), /^r2/);
  });
});
