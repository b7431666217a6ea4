/**
 * Encrypted networks of a real cluster: two daemons from the bundle, replicas on an `--opt encrypted` overlay over both hosts,
 * on a kernel that has WireGuard. What is on the wire between the hosts is kept from before the first network until the end.
 * Only in a machine of its own (`npm run test:vm`): the last test takes WireGuard from the kernel.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test, type TestContext } from "node:test";
import { setTimeout as wait } from "node:timers/promises";

import { namespaceOf, NetworkRig, type Placed, type SpecOptions } from "../cluster/network-rig.ts";
import { Held, type Question } from "../cluster/web.ts";
import { ask, hindrance, type World } from "../cluster/world.ts";

/** Why not here, if so. */
const skip =
  hindrance ||
  (process.env["SKEP_MACHINE"] === undefined
    ? "changes the kernel that it runs on; `npm run test:vm` brings one"
    : spawnSync("unshare", ["-n", "ip", "link", "add", "wg0", "type", "wireguard"]).status !== 0 &&
      "needs a kernel with WireGuard");
/** For each step of a question, of somebody who must be answered, and of somebody who must not. */
const waitMs = 10_000;
const silenceMs = 3000;
const patienceMs = 60_000;
/** In which the kernel is compared with what is wanted at least once. */
const lookMs = 90_000;
const talkMs = 50;
const protocols = ["tcp", "udp"] as const;
const tunnel = "skepwg";
/** Managers and WireGuard have the same number; frames in the open. */
const [port, openPort] = [2377, 4789];
const marker = "nobody-else-may-read-this";

describe("encrypted networks of a cluster", { skip, timeout: 2_400_000 }, () => {
  let rig: NetworkRig;
  let world: World;
  let capture: ChildProcess;
  let captured = "";
  let [secret, open] = ["", ""];
  /** Replicas on the first and the second host, in `secret`: `kept-SLOT`, which must not be read on the wire. */
  let [one, two]: Placed[] = [];
  /** Likewise in `open`, `plain-SLOT`: they are read there, so that the absence of the others says something. */
  let [plain1, plain2]: Placed[] = [];

  const certain = <T>(value: T | undefined): T => value ?? assert.fail("it is not there yet");
  /** Without health checks: each is a process more. Each replica tells its slot. */
  const spec = (options: SpecOptions): Record<string, unknown> => {
    const made = rig.spec(options) as {
      TaskTemplate: { ContainerSpec: { Healthcheck?: object; Hostname: string }; Placement: object };
    };
    delete made.TaskTemplate.ContainerSpec.Healthcheck;
    made.TaskTemplate.ContainerSpec.Hostname += "-{{.Task.Slot}}";
    return made;
  };
  /** A replica on each host. */
  const create = async (name: string, network: string): Promise<void> => {
    const wish = spec({ networks: [network] }) as { TaskTemplate: object };
    const Placement = { MaxReplicas: 1 };
    await world.create(rig.manager, name, 2, { ...wish, TaskTemplate: { ...wish.TaskTemplate, Placement } });
  };
  /** In the order of the hosts. */
  const placed = async (service: string): Promise<Placed[]> => {
    const tasks = await rig.running(service, 2);
    const vips = await rig.vips(service);
    const found = await Promise.all(
      tasks.map(async (task) => ({ name: `${service}-${task.Slot}`, ...(await rig.where(task)), vips })),
    );
    return rig.hosts.map((host) => certain(found.find((task) => task.host === host)));
  };
  const wg = async (host: { readonly namespace: string } | undefined, ...words: readonly string[]): Promise<string> =>
    (await rig.run(namespaceOf(certain(host)), "wg", "show", tunnel, ...words)).trim();
  const addressIn = (network: string, task: Placed | undefined): string =>
    certain(certain(task).addresses.get(network));
  /** Each protocol's question to that address. */
  const both = (address: string, toPort = 80): Question[] =>
    protocols.map((protocol) => ({ protocol, address, port: toPort }));
  /** The first packets wait for a handshake, and for tables. */
  const answers = (from: string, questions: readonly Question[], wanted: RegExp): Promise<number> =>
    world.until(`${wanted} at ${questions[0]?.address}`, patienceMs, async () =>
      (await rig.askAll(from, questions, waitMs)).every((answer) => wanted.test(answer)),
    );
  /** By whom a question is answered that is put by that task. */
  const answeredBy = (task: Placed | undefined, asker: Placed | undefined): RegExp =>
    new RegExp(`^${certain(task).name} peer=${addressIn(secret, asker).replaceAll(".", "\\.")}:`, "u");
  const told = (context: TestContext, what: string, ms: number): void =>
    context.diagnostic(`${what}: ${(ms / 1000).toFixed(1)} s`);
  const startedMs = performance.now();
  const reached = (what: string): void =>
    console.log(`# ${what} after ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);

  /** A connection from the first to the second host is asked all the time, before, during and after it. */
  async function inTalk(act: () => Promise<void>): Promise<void> {
    const held = new Held(certain(one).namespace, rig.probe, [addressIn(secret, two), "80", "-w", String(waitMs * 6)]);
    const wanted = answeredBy(two, one);
    let count = 0;
    let unwanted: string | undefined;
    const over = new AbortController();
    const talk = (async () => {
      while (!over.signal.aborted && unwanted === undefined) {
        const answer = await held.ask();
        if (wanted.test(answer)) count += 1;
        else unwanted = answer;
        await wait(talkMs);
      }
    })();
    const goesOn = (): Promise<number> => {
      const least = count + 5;
      return world.until("answers on the connection", patienceMs, () => unwanted !== undefined || count >= least);
    };
    try {
      await goesOn();
      await act();
      await goesOn();
    } finally {
      over.abort();
      await talk;
      await held.end();
    }
    assert.equal(unwanted, undefined, `after ${count} answers`);
  }

  before(async () => {
    const form = async (opened: World): Promise<void> => {
      reached("two daemons");
      const [first, second] = opened.hosts as [World["hosts"][number], World["hosts"][number]];
      await opened.init(first, 20);
      const { body } = await ask<{ JoinTokens: { Worker: string } }>(first, "GET", "/swarm");
      await opened.join(second, body.JoinTokens.Worker);
      reached("a swarm of both");
    };
    rig = await NetworkRig.open("skepenc", 1, 1, 20, { form });
    ({ world } = rig);
    captured = join(rig.folder, "switch.pcap");
    const inside = [`--net=/run/netns/${world.site.name}-sw`, "--"];
    capture = spawn("nsenter", [...inside, "tcpdump", "-i", "any", "-U", "-s", "0", "-w", captured], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    await once(certain(capture.stderr ?? undefined), "data");
    secret = await rig.network("secret", { Attachable: true, Options: { encrypted: "" } });
    open = await rig.network("open");
    await create("kept", secret);
    await create("plain", open);
    [one, two] = await placed("kept");
    [plain1, plain2] = await placed("plain");
    reached("four tasks");
  });
  after(async () => {
    capture?.kill("SIGKILL");
    await rig?.close();
  });

  test("replicas of two hosts reach each other by address, service address and name, and are seen as themselves", async (context) => {
    const vip = certain(certain(one).vips.get(secret));
    for (const [asker, asked] of [
      [one, two],
      [two, one],
    ] as const) {
      const { namespace } = certain(asker);
      told(
        context,
        "its own address",
        await answers(namespace, both(addressIn(secret, asked)), answeredBy(asked, asker)),
      );
      // The service's leads to each in turn: to oneself, and to the other host.
      const heard = new Set<string>();
      const ms = await world.until("the service's address leads to both hosts", patienceMs, async () => {
        for (const answer of await rig.askAll(namespace, both(vip), waitMs)) {
          assert.match(answer, /^kept-/u);
          heard.add(answer.split(" ", 1)[0] ?? "");
        }
        return heard.size === 2;
      });
      told(context, "the service's address", ms);
      for (const [name, addresses] of [
        ["kept", vip],
        [
          "tasks.kept",
          [one, two]
            .map((task) => addressIn(secret, task))
            .toSorted()
            .join(" "),
        ],
      ] as const) {
        await world.until(`the name ${name}`, patienceMs, async () => {
          const found = await rig.lookUp(certain(asker), name);
          return found === addresses;
        });
      }
    }
    for (const host of rig.hosts) assert.equal((await wg(host, "peers")).split("\n").length, 1);
    await answers(certain(plain1).namespace, both(addressIn(open, plain2)), /^plain-\d /u);
  });

  test("a text that is sent arrives, and in the open network, too", async () => {
    for (const [network, from, to] of [
      [secret, one, two],
      [open, plain1, plain2],
    ] as const) {
      const text = network === secret ? marker : "whoever-likes-may-read-this";
      const receiver = spawn("nsenter", [`--net=${certain(to).namespace}`, "--", rig.probe, "receive", "7001"], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      try {
        let heard = "";
        receiver.stdout.setEncoding("utf8").on("data", (chunk: string) => (heard += chunk));
        await world.until("somebody who listens", patienceMs, () => heard.includes("ready"));
        await rig.run(certain(from).namespace, rig.probe, "send", addressIn(network, to), "7001", text);
        await world.until(text, patienceMs, () => heard.includes(text));
      } finally {
        receiver.kill("SIGKILL");
      }
    }
  });

  test("a stranger with a key of his own is answered by nobody, and is nobody's peer", async () => {
    const [host1] = rig.hosts;
    const [key, inClient] = [await wg(host1, "public-key"), namespaceOf(rig.client)];
    const ip = (...words: readonly string[]): Promise<string> => rig.run(inClient, "ip", ...words);
    await ip("link", "add", "wg9", "type", "wireguard");
    try {
      const settings = `umask 077; wg genkey > ${rig.folder}/key; wg set wg9 private-key ${rig.folder}/key peer ${key} allowed-ips 0.0.0.0/0 endpoint ${host1?.address}:${port}`;
      await rig.run(inClient, "sh", "-c", settings);
      await ip("address", "add", "100.64.9.9/32", "dev", "wg9");
      await ip("link", "set", "wg9", "up");
      await ip("route", "add", addressIn(secret, one), "dev", "wg9");
      const [answer = ""] = await rig.askAll(inClient, both(addressIn(secret, one)).slice(0, 1), silenceMs);
      assert.match(answer, /^ERR/u);
      assert.match(await rig.run(inClient, "wg", "show", "wg9", "latest-handshakes"), /\s0$/mu);
      assert.equal((await wg(host1, "peers")).split("\n").length, 1);
    } finally {
      await ip("link", "delete", "wg9");
    }
  });

  test("a node with another key than managers tell of it gets nothing, until its own is put back", async (context) => {
    const [, host2] = rig.hosts;
    const key = await wg(host2, "public-key");
    const file = join(rig.folder, "wrong");
    await rig.run(namespaceOf(certain(host2)), "sh", "-c", `umask 077; wg genkey > ${file}`);
    let heard: readonly string[] = [];
    // The look of each minute may fall into it: then it is asked once more.
    await world.until("an answer while the key is another", lookMs, async () => {
      await rig.run(namespaceOf(certain(host2)), "wg", "set", tunnel, "private-key", file);
      heard = [
        ...(await rig.askAll(certain(two).namespace, both(addressIn(secret, one)), silenceMs)),
        ...(await rig.askAll(certain(one).namespace, both(addressIn(secret, two)), silenceMs)),
      ];
      return (await wg(host2, "public-key")) !== key;
    });
    assert.equal(heard.length, 4);
    for (const answer of heard) assert.match(answer, /^ERR/u);
    const ms = await world.until("its own key", lookMs, async () => (await wg(host2, "public-key")) === key);
    told(context, "put right", ms);
    await answers(certain(two).namespace, both(addressIn(secret, one)), answeredBy(one, two));
    await answers(certain(one).namespace, both(addressIn(secret, two)), answeredBy(two, one));
  });

  test("keys change with certificates, and a connection goes on", async (context) => {
    await inTalk(async () => {
      const before = await Promise.all(rig.hosts.map((host) => wg(host, "public-key")));
      const { body } = await ask<{ Version: { Index: number }; Spec: { CAConfig?: object } }>(
        rig.manager,
        "GET",
        "/swarm",
      );
      const wish = { ...body.Spec, CAConfig: { ...body.Spec.CAConfig, ForceRotate: 1 } };
      const rotated = await ask(rig.manager, "POST", `/swarm/update?version=${body.Version.Index}`, wish);
      assert.equal(rotated.status, 200, JSON.stringify(rotated.body));
      const ms = await world.until("other keys on both hosts", 2 * patienceMs, async () => {
        const now = await Promise.all(rig.hosts.map((host) => wg(host, "public-key")));
        const peers = await Promise.all(rig.hosts.map((host) => wg(host, "peers")));
        return now.every((key, at) => key !== before[at] && peers[1 - at] === key);
      });
      told(context, "other keys", ms);
    });
  });

  test("a daemon that is killed and begins anew keeps connections", async () => {
    await inTalk(async () => {
      const host = certain(rig.hosts[1]);
      await host.kill();
      host.start();
      await world.until("the daemon answers", patienceMs, async () => (await ask(host, "GET", "/info")).status === 200);
    });
    await answers(certain(two).namespace, both(addressIn(secret, one)), answeredBy(one, two));
  });

  test("an encrypted ingress network leads through the tunnel, from each host to a task on the other", async () => {
    const removed = await ask(rig.manager, "DELETE", "/networks/ingress");
    assert.equal(removed.status, 204, JSON.stringify(removed.body));
    await rig.network("way-in", { Ingress: true, Options: { encrypted: "" } });
    const [host1, host2] = rig.hosts;
    const ports = protocols.map((Protocol) => ({ Protocol, TargetPort: 80, PublishedPort: 8080 }));
    await world.create(rig.manager, "led-in", 1, spec({ networks: [], ports, on: certain(host2) }));
    for (const host of [certain(host1), certain(host2)]) {
      const seen = new RegExp(`^led-in-1 peer=${rig.client.address.replaceAll(".", "\\.")}:`, "u");
      await answers(namespaceOf(rig.client), both(host.address, 8080), seen);
    }
  });

  test("a host without WireGuard takes nothing of an encrypted network, says why, and goes on with others", async () => {
    const host = certain(rig.hosts[1]);
    for (const service of ["kept", "led-in"]) await ask(rig.manager, "DELETE", `/services/${service}`);
    await world.until("no tunnel", patienceMs, async () => {
      const found = await Promise.all(rig.hosts.map((one) => rig.run(namespaceOf(one), "ip", "-o", "link")));
      return found.every((links) => !links.includes(tunnel));
    });
    writeFileSync("/proc/sys/kernel/modprobe", "/bin/false");
    const { status, stderr } = spawnSync("rmmod", ["wireguard"], { encoding: "utf8" });
    assert.equal(status, 0, stderr);
    await host.kill();
    host.start();
    await world.until("the daemon answers", patienceMs, async () => (await ask(host, "GET", "/info")).status === 200);
    await world.create(rig.manager, "kept-out", 1, spec({ networks: [secret], on: host }));
    await world.until("the reason", patienceMs, async () => {
      const [task] = await world.tasks(rig.manager, "kept-out");
      return /no WireGuard for an encrypted network/u.test(task?.Status.Err ?? "");
    });
    assert.deepEqual(await world.running(rig.manager, "kept-out"), []);
    await ask(host, "POST", "/containers/create?name=mine", {
      Image: "web:1",
      HostConfig: { NetworkMode: "secret" },
    });
    const started = await ask<{ message?: string; code?: string }>(host, "POST", "/containers/mine/start");
    assert.ok(started.status >= 400, JSON.stringify(started.body));
    assert.match(started.body.message ?? "", /network secret: it is encrypted, and this node has no WireGuard/u);
    await answers(certain(plain2).namespace, both(addressIn(open, plain1)), /^plain-\d /u);
  });

  test("between the hosts nobody read a word of it, only WireGuard and what is in the open", async () => {
    const words = ["whoever-likes", certain(plain1).name, certain(plain2).name];
    await world.until("the open network's words", patienceMs, () => {
      const bytes = readFileSync(captured);
      return words.every((word) => bytes.includes(word));
    });
    const ended = once(capture, "exit");
    capture.kill("SIGINT");
    await ended;
    const bytes = readFileSync(captured);
    for (const word of [marker, "kept-"]) assert.ok(!bytes.includes(word), word);
    const [a = "", b = ""] = rig.hosts.map(({ address }) => address);
    const read = (filter: string): string[] => {
      const { stdout, stderr, status } = spawnSync("tcpdump", ["-n", "-r", captured, filter], { encoding: "utf8" });
      assert.equal(status, 0, stderr);
      return stdout.split("\n").filter((line) => line !== "");
    };
    const between = `host ${a} and host ${b}`;
    // WireGuard's message types are 1 to 4, then three zeros.
    const sealed = `udp port ${port} and udp[8] > 0 and udp[8] < 5 and udp[9] = 0 and udp[10:2] = 0`;
    assert.ok(read(`${between} and ${sealed}`).length > 20, "the tunnel was used");
    assert.deepEqual(read(`${between} and udp port ${port} and not (${sealed})`), []);
    const known = `udp port ${port} or tcp port ${port} or udp port ${openPort} or arp or icmp`;
    assert.deepEqual(read(`${between} and not (${known})`), []);
    // What is in a frame has a line of its own after it.
    const frames = read(`${between} and udp port ${openPort}`).filter((line) => line.includes(": VXLAN,"));
    const numbers = new Set(frames.map((line) => /\bvni (\d+)/u.exec(line)?.[1] ?? line));
    const { body } = await ask<{ Options?: Record<string, string> }>(rig.manager, "GET", `/networks/${open}`);
    assert.deepEqual([...numbers], [body.Options?.["com.docker.network.driver.overlay.vxlanid_list"]]);
    assert.deepEqual(read("net 100.64.0.0/10"), [], "no frame outside of the tunnel, and nothing of the mesh");
  });
});
