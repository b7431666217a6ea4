/**
 * Networks over five hosts, three of them managers, and a client that is no part of the cluster: who reaches whom by which
 * address and is seen as whom, who does not, what the doctor finds, and what faults cost while requests go on.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { untilEveryWayIsIn, untilNamesAreKnown, wrongPairs, type Pairs } from "./every-pair.ts";
import { timeFromNow, type TimeTaken } from "../support/calm-time.ts";
import { healthyToRouted } from "./healthy-to-routed.ts";
import { namespaceOf, NetworkRig, type NetworkedTask, type Placed } from "./network-rig.ts";
import { Held, Load, patience, whileAsked, type Question } from "./web.ts";
import { ask, hindrance, type World } from "./world.ts";

const execute = promisify(execFile);
const cli = join(import.meta.dirname, "../../cli/main.ts");
const slow = 60_000;
/** A host that is silent for three of them is down. */
const heartbeatMs = 2000;
/** From what a node knows until every host does it, looked at every now and then; on an idle machine it is a tenth of that. */
const toldMs = 2000;
const protocols = ["tcp", "udp"] as const;
const both = (TargetPort: number, more: object): object[] =>
  protocols.map((Protocol) => ({ Protocol, TargetPort, ...more }));

/** The same, whose tasks answer with another name. */
function named(spec: Record<string, unknown>, hostname: string): Record<string, unknown> {
  const template = spec["TaskTemplate"] as { ContainerSpec: object };
  return { ...spec, TaskTemplate: { ...template, ContainerSpec: { ...template.ContainerSpec, Hostname: hostname } } };
}

describe("networks over five hosts", { skip: hindrance, timeout: 400_000 }, () => {
  let rig: NetworkRig;
  let world: World;
  let manager: Host;
  let [front, back, inner] = ["", "", ""];
  /** One on each host, in `front`, with published ports of their own. */
  let everywhere: readonly Placed[] = [];
  /** In `back`, on the first and the second host. */
  let [b1, b2]: Placed[] = [];
  /** In `inner`, an internal network, on the first and the second host. */
  let [n1, n2]: Placed[] = [];
  /** In `front` and `back`, on the third host. */
  let both1: Placed | undefined;

  const portOf = (backend: Placed): number => 8100 + Number(backend.name.slice(1));
  const spread = (questions: readonly Omit<Question, "protocol">[]): readonly Question[] =>
    protocols.flatMap((protocol) => questions.map((question) => ({ protocol, ...question })));
  const gatewayOf = (host: Host): string => rig.gatewayOf(host, everywhere);
  const certain = <T>(value: T | undefined): T => value ?? assert.fail("it is not there yet");
  const outside = (): string => namespaceOf(rig.client);

  before(async () => {
    rig = await NetworkRig.open("skep5", 3, 2, heartbeatMs / 1000);
    ({ world, manager } = rig);
    front = await rig.network("front");
    back = await rig.network("back");
    inner = await rig.network("inner", { Internal: true });
    const [host1, host2, host3] = rig.hosts as [Host, Host, Host];
    const names = rig.hosts.map((_, at) => `s${at + 1}`);
    const create = (name: string, ...options: Parameters<NetworkRig["spec"]>): Promise<string> =>
      world.create(manager, name, 1, rig.spec(...options));
    await Promise.all([
      ...rig.hosts.map((on, at) =>
        create(`s${at + 1}`, { networks: [front], on, ports: both(80, { PublishedPort: 8101 + at }) }),
      ),
      create("b1", { networks: [back], on: host1 }),
      create("b2", { networks: [back], on: host2 }),
      create("n1", { networks: [inner], on: host1 }),
      create("n2", { networks: [inner], on: host2 }),
      create("m1", { networks: [front, back], on: host3 }),
    ]);
    everywhere = await Promise.all(names.map((name) => rig.placed(name)));
    [b1, b2, n1, n2, both1] = await Promise.all(["b1", "b2", "n1", "n2", "m1"].map((name) => rig.placed(name)));
    await rig.run(outside(), "ip", "link", "set", "lo", "up");
  });
  after(() => rig.close());

  const pairs = (): Pairs => ({ rig, networkId: front, networkName: "front", everywhere, portOf });
  const everyWayIsIn = (): Promise<void> => untilEveryWayIsIn(pairs());

  describe("every pair", () => {
    test("of container, host and client reaches every task by address, service address and through every host, and is seen as itself", async () => {
      await everyWayIsIn();
      const { asked, wrong } = await wrongPairs(pairs());
      assert.deepEqual(wrong, []);
      // By two protocols: the client and five hosts through five hosts to five tasks, hosts by their loopback; containers the
      // same, and by addresses; and to the overlay's addresses from where nobody gets in.
      assert.equal(asked, 2 * (25 + 5 * (25 + 5) + 5 * (25 + 10) + 6 * 10));
    });

    test("of containers on one network knows the other by its names, on every host", () => untilNamesAreKnown(pairs()));
  });

  /** None of these questions arrives anywhere: no connection is made, and no datagram answered. */
  async function refuses(namespace: string, questions: readonly Question[]): Promise<void> {
    // Not all one after the other, since each may have to wait, nor all at once.
    const several = Array.from({ length: Math.ceil(questions.length / 3) }, (_, at) =>
      questions.slice(at * 3, at * 3 + 3),
    );
    const answers = await Promise.all(several.map((some) => rig.askAll(namespace, some, patience.forSilenceMs)));
    answers.flat().forEach((answer, at) => {
      const { protocol, address, port } = questions[at] as Question;
      assert.match(answer, protocol === "tcp" ? /^ERR connect/ : /^ERR/, `${protocol} ${address}:${port}`);
    });
  }

  test("networks are apart: addresses, service addresses, names, and the way by gateway addresses", async () => {
    const [strange, stranger] = [certain(b1), certain(b2)];
    assert.match(
      (
        await rig.askAll(strange.namespace, [
          { protocol: "tcp", address: certain(stranger.addresses.get(back)), port: 80 },
        ])
      )[0] ?? "",
      new RegExp(`^b2 peer=${strange.addresses.get(back)}:`),
    );
    const waysTo = (those: readonly Placed[], network: string): readonly Question[] =>
      spread(
        those.flatMap(({ addresses, vips, gateway }, at) =>
          // Gateway addresses, of which nothing comes back: on the own host and on another.
          [addresses.get(network), vips.get(network), ...(at < 2 ? [gateway] : [])].map((address) => ({
            address: certain(address),
            port: 80,
          })),
        ),
      );
    await Promise.all([
      ...[strange, stranger].map(({ namespace }) => refuses(namespace, waysTo(everywhere, front))),
      ...everywhere.map(({ namespace }) => refuses(namespace, waysTo([strange, stranger], back))),
    ]);
    // Names that are not ours are looked for elsewhere, which takes its time where nobody answers.
    const foreign = ["s1", "tasks.s1", "s1.front"].map((name) => rig.lookUp(strange, name));
    const told = await Promise.all([...foreign, rig.lookUp(certain(everywhere[0]), "b1")]);
    assert.deepEqual(told, ["?", "?", "?", "?"]);
    // Who is in both is reached from both, and knows both.
    const middle = certain(both1);
    for (const [asker, network] of [
      [strange, back],
      [certain(everywhere[4]), front],
    ] as const) {
      const questions = spread(
        [middle.addresses.get(network), middle.vips.get(network)].map((address) => ({
          address: certain(address),
          port: 80,
        })),
      );
      for (const answer of await rig.askAll(asker.namespace, questions)) {
        assert.match(answer, new RegExp(`^m1 peer=${asker.addresses.get(network)}:`));
      }
    }
    assert.deepEqual(
      [await rig.lookUp(middle, "s4"), await rig.lookUp(middle, "b2")],
      [certain(everywhere[3]?.vips.get(front)), certain(stranger.vips.get(back))],
    );
  });

  test("nobody outside reaches overlays or gateway addresses, whatever routes it has", async () => {
    const [entry] = rig.hosts as [Host];
    for (const range of ["10.0.0.0/16", "100.64.0.0/10"])
      await rig.run(outside(), "ip", "route", "add", range, "via", entry.address);
    try {
      const { addresses, vips, gateway } = certain(everywhere[0]);
      const targets = [addresses.get(front), vips.get(front), gateway].map((address) => ({
        address: certain(address),
        port: 80,
      }));
      await refuses(outside(), spread([...targets, { address: gatewayOf(entry), port: 53 }]));
    } finally {
      for (const range of ["10.0.0.0/16", "100.64.0.0/10"]) await rig.run(outside(), "ip", "route", "del", range);
    }
  });

  test("an internal network reaches itself and nothing else, neither out nor through published ports", async () => {
    const [inside, friend] = [certain(n1), certain(n2)];
    const server = execFile("nsenter", [`--net=${outside()}`, "--", rig.probe, "serve", "outside", "81"]);
    try {
      const way = spread([{ address: rig.client.address, port: 81 }]);
      await world.until("the way out of others", slow, async () =>
        (await rig.askAll(certain(b1).namespace, way, patience.forSilenceMs)).every((answer) =>
          answer.startsWith(`outside peer=${certain(b1).host.address}:`),
        ),
      );
      const friendly = spread(
        [friend.addresses.get(inner), friend.vips.get(inner)].map((address) => ({
          address: certain(address),
          port: 80,
        })),
      );
      for (const answer of await rig.askAll(inside.namespace, friendly)) {
        assert.match(answer, new RegExp(`^n2 peer=${inside.addresses.get(inner)}:`));
      }
      const forbidden = spread([
        { address: rig.client.address, port: 81 },
        ...rig.hosts.map(({ address }) => ({ address, port: 8101 })),
        { address: inside.host.address, port: 2377 },
        { address: certain(everywhere[0]?.gateway), port: 80 },
      ]);
      await refuses(inside.namespace, forbidden);
      assert.equal(await rig.lookUp(inside, "n2"), friend.vips.get(inner));
      assert.equal(await rig.lookUp(inside, "s1"), "?");
    } finally {
      server.kill("SIGKILL");
    }
  });

  test("dnsrr has its tasks' addresses and no other; ports of a host are on that host; dynamic ones on every host", async () => {
    const [host1] = rig.hosts as [Host];
    await Promise.all([
      world.create(manager, "rr", 3, {
        ...rig.spec({ networks: [front], endpointMode: "dnsrr" }),
        Mode: { Replicated: { Replicas: 3 } },
      }),
      world.create(manager, "hm", 1, {
        ...named(
          rig.spec({ networks: [], ports: both(80, { PublishedPort: 9000, PublishMode: "host" }) }),
          "hm-{{.Node.Hostname}}",
        ),
        Mode: { Global: {} },
      }),
      world.create(manager, "dyn", 1, rig.spec({ networks: [front], on: host1, ports: both(80, {}) })),
    ]);
    const tasks = await rig.running("rr", 3);
    const own = tasks.map((task) => task.NetworksAttachments?.[0]?.Addresses[0]?.split("/")[0] ?? "");
    for (const name of ["rr", "tasks.rr"]) {
      await world.until("three addresses", slow, async () => {
        const told = await Promise.all(everywhere.map((asker) => rig.lookUp(asker, name)));
        return told.every((addresses) => addresses === own.toSorted().join(" "));
      });
    }
    assert.deepEqual([...(await rig.vips("rr"))], []);
    const asker = certain(everywhere[4]);
    for (const answer of await rig.askAll(asker.namespace, spread(own.map((address) => ({ address, port: 80 }))))) {
      assert.match(answer, new RegExp(`^rr peer=${asker.addresses.get(front)}:`));
    }
    // Global: each host's port is its own task's, and none other's.
    await rig.running("hm", 5);
    const questions = spread(rig.hosts.map(({ address }) => ({ address, port: 9000 })));
    await world.until("the ports of the hosts", slow, async () =>
      (await rig.askAll(outside(), questions, patience.forSilenceMs)).every((answer) => answer.startsWith("hm")),
    );
    const answers = await rig.askAll(outside(), questions);
    const wanted = protocols.flatMap(() => rig.hosts.map(({ name }) => `hm-${name} peer=${rig.client.address}`));
    assert.deepEqual(
      answers.map((answer) => answer.split(":")[0]),
      wanted,
    );
    const { body } = await ask<{ Endpoint: { Ports: { Protocol: string; PublishedPort: number }[] } }>(
      manager,
      "GET",
      "/services/dyn",
    );
    const chosen = body.Endpoint.Ports.map(({ Protocol, PublishedPort }) => [Protocol, PublishedPort] as const);
    assert.equal(chosen.length, 2);
    await rig.running("dyn", 1);
    for (const [protocol, port] of chosen) {
      assert.ok(port >= 30_000 && port <= 32_767, String(port));
      const asked = rig.hosts.map(({ address }) => ({ protocol, address, port }) as Question);
      await world.until("the chosen port", slow, async () =>
        (await rig.askAll(outside(), asked, patience.forSilenceMs)).every((answer) => answer.startsWith("dyn")),
      );
    }
    for (const name of ["rr", "hm", "dyn"]) {
      assert.equal((await ask(manager, "DELETE", `/services/${name}`)).status, 200);
    }
  });

  test("a container that lies about its address, by IP and by ARP, is heard by nobody and takes nobody's place", async () => {
    const [liar, victim, target, far] = [certain(b1), certain(everywhere[0]), certain(b2), certain(both1)];
    const receivers = [target, far].map(({ namespace }) =>
      execFile("nsenter", [`--net=${namespace}`, "--", rig.probe, "receive", "7100"]),
    );
    const heard: string[][] = receivers.map(() => []);
    const honest = receivers.map(
      (receiver, at) =>
        new Promise<void>((resolve) => {
          receiver.stdout?.on("data", (chunk: Buffer | string) => {
            heard[at]?.push(...String(chunk).trim().split("\n"));
            if (String(chunk).includes("honest")) resolve();
          });
        }),
    );
    const [own, stolen] = [certain(liar.addresses.get(back)), certain(target.addresses.get(back))];
    try {
      await world.until("the receivers", slow, () => heard.every((lines) => lines.includes("ready")));
      const inside = (...command: readonly string[]): Promise<string> => rig.run(liar.namespace, ...command);
      const pretended = own.replace(/\d+$/, "77");
      for (const address of [pretended, victim.gateway]) {
        await inside("ip", "address", "add", `${address}/32`, "dev", "eth0");
        for (const { addresses } of [target, far]) {
          await inside(rig.probe, "send", certain(addresses.get(back)), "7100", "a lie", "-s", address);
        }
      }
      for (const { addresses } of [target, far]) {
        await inside(rig.probe, "send", certain(addresses.get(back)), "7100", "honest", "-s", own);
      }
      await Promise.all(honest);
      assert.deepEqual(heard, [
        ["ready", "honest"],
        ["ready", "honest"],
      ]);
      // It says aloud that it is the other one, and the gateway; whoever asks for them still meets them.
      await inside("sysctl", "-qw", "net.ipv4.conf.eth0.arp_notify=1");
      for (const address of [stolen, own.replace(/\d+$/, "1")]) {
        await inside("ip", "address", "add", `${address}/32`, "dev", "eth0");
      }
      await inside("ip", "link", "set", "eth0", "down");
      await inside("ip", "link", "set", "eth0", "up");
      const answers = await rig.askAll(far.namespace, spread([{ address: stolen, port: 80 }]));
      for (const answer of answers) assert.match(answer, /^b2 peer=/);
      for (const answer of await rig.askAll(
        certain(b2).namespace,
        spread([{ address: certain(far.vips.get(back)), port: 80 }]),
      )) {
        assert.match(answer, /^m1 peer=/);
      }
    } finally {
      for (const receiver of receivers) receiver.kill("SIGKILL");
    }
    // What it did to its own namespace is its own business; another task takes its place.
    process.kill(liar.pid, "SIGKILL");
    await world.until("another task", slow, async () => {
      const [task] = await world.running(manager, "b1");
      return task !== undefined && task.Status.ContainerStatus?.PID !== liar.pid;
    });
    b1 = await rig.placed("b1");
  });

  test("a resolver tells a container its own networks' names, whichever resolver it asks and as whom", async () => {
    const asker = certain(b1);
    const own = gatewayOf(asker.host);
    await world.until("names", slow, async () => (await rig.lookUp(asker, "b2", own)) === certain(b2).vips.get(back));
    const foreign = rig.lookUp(asker, "s1", own);
    const elsewhere = certain(everywhere[1]);
    await refuses(asker.namespace, [{ protocol: "tcp", address: gatewayOf(elsewhere.host), port: 53 }]);
    // As s1, which is on the same host and knows more: it does not even get a connection.
    const neighbour = certain(everywhere[0]);
    assert.equal(asker.host, neighbour.host);
    await rig.run(asker.namespace, "ip", "address", "add", `${neighbour.gateway}/32`, "dev", "gw0");
    const connect = (source: string): Promise<string> =>
      rig.run(asker.namespace, "sh", "-c", `${rig.probe} get ${own} 53 -s ${source} || true`);
    assert.match(await connect(asker.gateway), /^ERR (?:answer|receive)/, "as itself it is heard");
    assert.match(await connect(neighbour.gateway), /^ERR connect/);
    await rig.run(asker.namespace, "ip", "address", "del", `${neighbour.gateway}/32`, "dev", "gw0");
    assert.equal(await foreign, "?");
  });

  describe("the doctor", () => {
    interface Examination {
      readonly healthy: boolean;
      readonly findings: readonly { readonly kind: string; readonly found: string; readonly fix: string }[];
      readonly peers: readonly { readonly addr: string; readonly full: string }[];
    }
    const examine = async (host: Host): Promise<Examination> => {
      const { status, body } = await ask<Examination>(host, "POST", "/skep/v1/network/doctor");
      assert.equal(status, 200, JSON.stringify(body));
      return body;
    };
    /** The command, as an operator types it. */
    const typed = (host: Host): Promise<{ readonly code: number; readonly out: string }> =>
      execute(process.execPath, [cli, "network", "doctor"], {
        env: { ...process.env, SKEP_HOST: `unix://${host.socket}` },
        timeout: 60_000,
      }).then(
        ({ stdout }) => ({ code: 0, out: stdout }),
        (error: { code?: number; stdout?: string }) => ({ code: error.code ?? -1, out: error.stdout ?? "" }),
      );

    test("finds nothing wrong on five hosts that are well, each of which reaches the four others", async () => {
      for (const host of rig.hosts) {
        let last = "";
        await world
          .until(`${host.name} to be well`, slow, async () => {
            const { findings, peers } = await examine(host);
            last = JSON.stringify({ findings, peers });
            return findings.length === 0 && peers.length === 4 && peers.every(({ full }) => full === "answers");
          })
          .catch((error: unknown) => assert.fail(`${String(error)}\n${last}`));
      }
    });

    test("names the host whose port is blocked, the link that carries too little, and what somebody changed", async () => {
      const [host1, , host3, host4] = rig.hosts as [Host, Host, Host, Host, Host];
      // Somewhere on the way, so that the link itself says nothing of it.
      const narrow = ["input", "output"].map(
        (hook) => `chain ${hook} { type filter hook ${hook} priority -300; udp dport 4789 udp length > 1380 drop; }\n`,
      );
      try {
        await rig.run(
          namespaceOf(host3),
          "nft",
          "table ip cut { chain in { type filter hook input priority -300; udp dport 4789 drop; }; }",
        );
        await rig.run(namespaceOf(host4), "nft", `table ip narrow {\n${narrow.join("")}}`);
        let [code, out] = [0, ""];
        const wanted = [
          new RegExp(`ERROR: node \\w+ \\(${host3.address}\\) answers, but nothing comes back through VXLAN`),
          new RegExp(`Open UDP port 4789 between ${host1.address} and ${host3.address}`),
          new RegExp(`ERROR: packets of 1450 bytes do not reach node \\w+ \\(${host4.address}\\)`),
          new RegExp(`ping -M do -s SIZE ${host4.address}`),
        ];
        // A machine that is busy may leave other nodes' answers waiting, too, and these two's.
        await world
          .until("these two and no others", slow, async () => {
            ({ code, out } = await typed(host1));
            const errors = out.split("\n").filter((line) => line.startsWith("ERROR"));
            return code === 1 && errors.length === 2 && wanted.every((text) => text.test(out));
          })
          .catch(() => assert.fail(`${code}: ${out}`));
        await world.until("the other end to say so of all others that it reaches", slow, async () => {
          const there = await typed(host4);
          return there.code === 1 && there.out.match(/packets of 1450 bytes do not reach/g)?.length === 3;
        });
      } finally {
        const remove = (host: Host, table: string): Promise<string> =>
          rig.run(namespaceOf(host), "sh", "-c", `nft delete table ip ${table}; true`);
        await Promise.all([remove(host4, "narrow"), remove(host3, "cut")]);
      }
      await world.until("it to be well again", slow, async () => (await typed(host1)).code === 0);
      // No event tells of it, so that the doctor is the first to see it, unless the look of each minute was.
      let said = "";
      await world.until("a change to be told", slow, async () => {
        await rig.run(namespaceOf(host1), "sysctl", "-qw", "net.ipv4.conf.skepmesh.rp_filter=1");
        said = (await typed(host1)).out;
        return said.includes("WARNING") && said.includes("Nothing is wrong now");
      });
      assert.match(said, /WARNING: sysctl \S*skepmesh\S*rp_filter is wrong in the host's network; put right/);
    });
  });

  test("from a task turning healthy until every host routes to it takes a measurable while", async (context) => {
    const [outcome] = await healthyToRouted(
      {
        world,
        manager,
        outside: outside(),
        probe: rig.probe,
        networkId: front,
        containers: everywhere.map(({ namespace }) => namespace),
        publishedPort: 8200,
      },
      1,
    );
    context.diagnostic(JSON.stringify(outcome));
    assert.equal(outcome?.mesh.length, 5);
    assert.equal(outcome.vip.length, 5);
    // How long it may take is the bench's to say, on a machine that does nothing else.
    for (const ms of [...outcome.mesh, ...outcome.vip]) assert.ok(Number.isFinite(ms), JSON.stringify(outcome));
  });

  test("a network that is full says so before and when it is, also after another manager leads, and nobody has an address twice", async () => {
    const tiny = await rig.network("tiny", { IPAM: { Config: [{ Subnet: "10.99.77.0/29" }] } });
    // Of six addresses the first is the gateway's, one the service's, and four are for tasks.
    const id = await world.create(manager, "many", 3, {
      ...rig.spec({ networks: [tiny] }),
      Mode: { Replicated: { Replicas: 3 } },
    });
    interface Why {
      readonly settled: boolean;
      readonly causes: readonly { readonly code: string; readonly text: string; readonly fix: string }[];
    }
    const why = async (at: Host): Promise<Why> => (await ask<Why>(at, "GET", `/skep/v1/services/${id}/why`)).body;
    const scale = (at: Host, replicas: number): Promise<void> =>
      world.update(at, id, (spec) => (spec["Mode"] = { Replicated: { Replicas: replicas } }), slow);
    await rig.running("many", 3);
    let before: Why | undefined;
    await world.until("the warning", slow, async () => {
      before = await why(manager);
      return before.causes.some(({ code }) => code === "addresses_low");
    });
    assert.match(JSON.stringify(before?.causes), /few addresses of network tiny are left: 5 of 6 were in use/);
    await scale(manager, 6);
    const isFull = async (at: Host): Promise<boolean> => {
      const tasks = (await world.tasks(at, "many")).filter(({ DesiredState }) => DesiredState === "running");
      const waiting = tasks.filter(({ Status }) => /no address is free|address/i.test(Status.Err ?? ""));
      return tasks.filter(({ Status }) => Status.State === "running").length === 4 && waiting.length === 2;
    };
    const cause = async (at: Host): Promise<boolean> =>
      (await why(at)).causes.some(
        ({ code, text }) => code === "address_pool_full" && text.includes("6 of 6 of 10.99.77.0/29"),
      );
    await world.until(
      "four tasks, and two that wait",
      slow,
      async () => (await cause(manager)) && (await isFull(manager)),
    );
    const leader = await world.leader(manager);
    const asked = certain(world.managers.find((host) => host !== leader));
    await leader.killManager();
    await world.until("a leader that knows the same", slow, async () => (await cause(asked)) && (await isFull(asked)));
    const addresses = async (): Promise<string[]> =>
      ((await world.running(asked, "many")) as readonly NetworkedTask[]).map(
        (task) => task.NetworksAttachments?.[0]?.Addresses[0] ?? "",
      );
    let held: string[] = [];
    await world.until("an answer of the leader", slow, async () => (held = await addresses()).length === 4);
    assert.equal(new Set(held).size, 4, held.join());
    // What is given back goes to who waits.
    let pid = 0;
    await world.until("one of them", slow, async () => {
      const [one] = await world.running(asked, "many");
      pid = one?.Status.ContainerStatus?.PID ?? 0;
      return pid > 0;
    });
    process.kill(pid, "SIGKILL");
    await world.until("four tasks again", slow, async () => new Set(await addresses()).size === 4);
    // A port that is taken says whose it is, at once.
    const ports = [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 8101 }];
    const late = { Name: "late", ...rig.spec({ networks: [], ports }) };
    let [status, message] = [0, ""];
    await world.until("an answer of the leader", slow, async () => {
      const answer = await ask<{ message: string }>(asked, "POST", "/services/create", late);
      [status, message] = [answer.status, answer.body.message];
      return status < 500;
    });
    assert.match(`${status} ${message}`, /^4\d\d .*port '8101' is already in use by service 's1'/);
    const remove = async (): Promise<boolean> => (await ask(asked, "DELETE", "/services/many")).status === 200;
    await world.until("the service to be removed", slow, remove);
    await leader.answers();
  });

  describe("faults under traffic", () => {
    let vip = "";
    let tableOf = "";
    const replicas = 5;
    let wanted = replicas;
    const publishedPort = 8300;
    const perSecond = 100;

    before(async () => {
      const ports = [{ Protocol: "tcp", TargetPort: 80, PublishedPort: publishedPort }];
      const spec = named(rig.spec({ networks: [front], ports }), "web-{{.Task.Slot}}");
      await world.create(manager, "web", replicas, { ...spec, Mode: { Replicated: { Replicas: replicas } } });
      await rig.running("web", replicas);
      vip = certain((await rig.vips("web")).get(front));
      const { body } = await ask<{ Options: Record<string, string> }>(manager, "GET", `/networks/${front}`);
      tableOf = `n-${body.Options["com.docker.network.driver.overlay.vxlanid_list"]}`;
      await everyHostServes(rig.hosts);
    });

    const everyHostServes = async (hosts: readonly Host[]): Promise<void> => {
      const questions = hosts.map(({ address }) => ({ protocol: "tcp", address, port: publishedPort }) as const);
      await world.until("the mesh of every host", slow, async () =>
        (await rig.askAll(outside(), questions, patience.forSilenceMs)).every((answer) => answer.startsWith("web-")),
      );
    };
    const leader = async (): Promise<{ leader: Host; other: Host }> => {
      const found = await world.leader(manager);
      return { leader: found, other: certain(world.managers.find((host) => host !== found)) };
    };
    /** Those on this host; more of them are made if it was not ready when the others got their places. */
    async function tasksOn(host: Host): Promise<readonly Omit<Placed, "name" | "vips">[]> {
      await world.until("all to be ready", slow, () => world.areReady(manager, rig.hosts.length));
      const there = async (): Promise<readonly NetworkedTask[]> =>
        (await rig.running("web", wanted)).filter((task) => rig.hostOf(task) === host);
      if ((await there()).length === 0) {
        wanted += replicas;
        const { ID } = (await world.led(() => ask<{ ID: string }>(manager, "GET", "/services/web"))).body;
        await world.update(manager, ID, (spec) => (spec["Mode"] = { Replicated: { Replicas: wanted } }));
      }
      const found = await there();
      assert.ok(found.length > 0, "none of the tasks is there");
      return Promise.all(found.map((task) => rig.where(task)));
    }
    /** Resolves when none of these hosts sends to them any more, neither the mesh nor the overlay; in ms of the epoch. */
    async function forgotten(tasks: readonly Omit<Placed, "name" | "vips">[], hosts: readonly Host[]): Promise<number> {
      const gone = (namespace: string, map: string, addresses: readonly string[]): Promise<string> => {
        const any = addresses.map((address) => address.replaceAll(".", "\\.")).join("|");
        // Not more often: the looks themselves take processors from what they wait for.
        const look = `nft list map ip skep ${map} | grep -qE '(${any})[ ,]' || exec true; sleep 0.05`;
        return rig.run(namespace, "sh", "-c", `for i in $(seq 1000); do ${look}; done; exit 1`);
      };
      const inMesh = tasks.map(({ gateway }) => gateway);
      const inOverlay = tasks.map(({ addresses }) => certain(addresses.get(front)));
      await Promise.all(
        hosts.flatMap((host) => [
          gone(namespaceOf(host), "tcpbe", inMesh),
          gone(`${host.execRoot}/netns/${tableOf}`, "be", inOverlay),
        ]),
      );
      return Date.now();
    }

    /** What began when `taken` did was over in as long as was promised, however busy the machine is otherwise. */
    function inTime({ ms, calmMs = 0 }: TimeTaken, promisedMs: number): string {
      const told = `it showed after ${Math.round(ms)} ms, of which ${Math.round(calmMs)} calm ones`;
      assert.ok(calmMs <= promisedMs, `${told}; ${promisedMs} are promised`);
      return told;
    }
    const untilDownMs = 3 * heartbeatMs + toldMs;

    /**
     * Requests through the mesh of these hosts from outside, and by the service's address from that container, while something
     * happens.
     * @param act  tells when the last of what may fail was over, in ms of the epoch; undefined: nothing may fail
     * @returns    what it cost, in words
     */
    async function underLoad(
      entries: readonly Host[],
      from: Placed,
      act: () => Promise<number | undefined>,
    ): Promise<string> {
      const addresses = entries.map(({ address }) => address);
      const loads = {
        mesh: new Load(outside(), addresses, publishedPort, perSecond, 150),
        vip: new Load(from.namespace, [vip], 80, perSecond, 150),
      };
      let lastMs: number | undefined;
      const outcomes = await whileAsked(loads, async () => {
        lastMs = await act();
      });
      for (const [name, { asked, answered, failures, lastFailedMs }] of outcomes) {
        // On an idle machine all of it is over in a third of a second.
        assert.ok(asked > 20, `${name}: ${asked} requests are no load`);
        if (lastMs === undefined) assert.deepEqual(failures, [], `${name}: ${answered} of ${asked}`);
        else assert.ok(lastFailedMs <= lastMs, `${name}: ${lastFailedMs - lastMs} ms too late: ${failures.join("; ")}`);
      }
      return outcomes
        .map(([name, { asked, answered }]) => `${name}: ${asked - answered} of ${asked} failed`)
        .join(", ");
    }

    test("a task whose process is killed costs what was on its way, and nothing after the tables have changed", async (context) => {
      const asker = certain(everywhere[4]);
      const tasks = await rig.running("web", replicas);
      const victim = await rig.where(certain(tasks.find((task) => rig.hostOf(task) !== asker.host)));
      let showed = "";
      const cost = await underLoad(rig.hosts, asker, async () => {
        const taken = timeFromNow();
        process.kill(victim.pid, "SIGKILL");
        const changedMs = await forgotten([victim], rig.hosts);
        showed = inTime(taken(), toldMs);
        await rig.running("web", replicas);
        return changedMs;
      });
      context.diagnostic(`${showed}; ${cost}`);
    });

    test("a rolling update whose leading manager is killed loses no request, and ends as asked", async () => {
      const { leader: leading, other } = await leader();
      const before = new Set((await rig.running("web", replicas)).map(({ ID }) => ID));
      const { ID: id } = (await ask<{ ID: string }>(other, "GET", "/services/web")).body;
      await underLoad(rig.hosts, certain(everywhere[4]), async () => {
        await world.update(other, id, (spec) => {
          const template = spec["TaskTemplate"] as { ForceUpdate?: number };
          template.ForceUpdate = (template.ForceUpdate ?? 0) + 1;
          spec["UpdateConfig"] = { Parallelism: 1, Order: "start-first", Monitor: 200_000_000 };
        });
        await world.until("the first new task", slow, async () =>
          (await world.running(other, "web")).some(({ ID }) => !before.has(ID)),
        );
        await leading.killManager();
        await world.until("the update's end", 2 * slow, async () => {
          const { body } = await ask<{ UpdateStatus?: { State: string } }>(other, "GET", `/services/${id}`);
          const alive = (await world.tasks(other, "web")).filter(({ Status }) => Status.State === "running");
          return (
            body.UpdateStatus?.State === "completed" &&
            alive.length === replicas &&
            !alive.some(({ ID }) => before.has(ID))
          );
        });
        return undefined;
      });
    });

    test("netplane, killed on every host under traffic, costs no connection, and the next one goes on with its work", async () => {
      const asker = certain(everywhere[4]);
      const [entry] = rig.hosts as [Host];
      const ways = [
        [outside(), entry.address, String(publishedPort)],
        [asker.namespace, vip, "80"],
        [asker.namespace, vip, "80", "-u"],
      ] as const;
      const held = ways.map(([namespace, ...words]) => new Held(namespace, rig.probe, words));
      try {
        const names = await Promise.all(held.map((one) => one.ask()));
        for (const name of names) assert.match(name, /^web-/);
        await underLoad(rig.hosts, asker, async () => {
          for (const host of rig.hosts) {
            const { stdout } = await execute("pgrep", ["-P", String(host.pid), "-x", "netplane"]);
            process.kill(Number(stdout.trim()), "SIGKILL");
          }
          assert.deepEqual(await Promise.all(held.map((one) => one.ask())), names);
          const { ID: id } = (await ask<{ ID: string }>(manager, "GET", "/services/web")).body;
          for (const count of [replicas - 1, replicas]) {
            await world.update(manager, id, (spec) => (spec["Mode"] = { Replicated: { Replicas: count } }));
            await rig.running("web", count);
          }
          await everyHostServes(rig.hosts);
          return undefined;
        });
      } finally {
        for (const one of held) await one.end();
      }
    });

    test("what somebody breaks by hand on a host, of the mesh or of an overlay, is put right", async (context) => {
      const asker = certain(everywhere[0]);
      const { host } = asker;
      const [, host2] = rig.hosts as [Host, Host];
      const other = certain(everywhere[1]);
      const inHost = namespaceOf(host);
      const inOverlay = `${host.execRoot}/netns/${tableOf}`;
      const mac = /link\/ether (\S+)/.exec(await rig.run(namespaceOf(host2), "ip", "link", "show", "skepmesh"))?.[1];
      const sh = (text: string): readonly string[] => ["sh", "-c", text];
      const vandalisms: readonly (readonly [string, readonly string[]])[] = [
        [inHost, ["nft", "flush", "ruleset"]],
        [inHost, ["ip", "link", "del", "skepmesh"]],
        [inHost, ["ip", "address", "flush", "dev", "skepmesh"]],
        [inHost, ["ip", "route", "flush", "proto", "200"]],
        [inHost, ["nft", "flush", "map", "ip", "skep", "hops"]],
        [inHost, ["nft", "flush", "chain", "ip", "skep", "arriving"]],
        [inHost, ["ip", "neigh", "flush", "nud", "permanent"]],
        [inHost, ["bridge", "fdb", "del", certain(mac), "dev", "skepmesh", "dst", host2.address]],
        [inHost, sh("ip link del $(ip route get " + asker.gateway + " | grep -o 'skepg[0-9a-f]*')")],
        [inOverlay, ["nft", "flush", "ruleset"]],
        [inOverlay, ["nft", "flush", "map", "ip", "skep", "be"]],
        [inOverlay, ["ip", "link", "del", "vx"]],
        [inOverlay, ["ip", "link", "set", "vx", "down"]],
        [inOverlay, ["ip", "address", "flush", "dev", "vx"]],
        [inOverlay, ["ip", "route", "flush", "proto", "200"]],
        [inOverlay, ["ip", "neigh", "flush", "nud", "permanent"]],
        [
          inOverlay,
          sh(
            "bridge fdb show dev vx | grep dst | while read mac word ip rest; do bridge fdb del $mac dev vx dst $ip; done",
          ),
        ],
        [inOverlay, sh("ip -o link | grep -o ': v[0-9a-f]*@' | tr -d ': @' | xargs -n1 ip link del")],
      ];
      const through = (from: Placed): readonly Question[] => [
        { protocol: "tcp", address: certain(from.addresses.get(front)), port: 80 },
        { protocol: "udp", address: certain(from.vips.get(front)), port: 80 },
      ];
      const isWhole = async (): Promise<boolean> => {
        const wait = patience.forSilenceMs;
        const answers = await Promise.all([
          rig.askAll(asker.namespace, [...through(other), ...through(asker)], wait),
          rig.askAll(other.namespace, through(asker), wait),
          // In by this host to a task elsewhere, by another to the task here; and the way out.
          rig.askAll(
            outside(),
            [
              { protocol: "tcp", address: host.address, port: portOf(other) },
              { protocol: "udp", address: host2.address, port: portOf(asker) },
            ],
            wait,
          ),
          rig.askAll(inHost, [{ protocol: "tcp", address: "127.0.0.1", port: portOf(asker) }], wait),
        ]);
        return answers.flat().every((answer) => !answer.startsWith("ERR"));
      };
      await world.until("it to be whole", slow, isWhole);
      const took: string[] = [];
      for (const [namespace, command] of vandalisms) {
        await rig.run(namespace, ...command);
        const ms = await world.until(`${command.join(" ")} to be repaired`, slow, isWhole);
        took.push(`${command.join(" ")}: ${Math.round(ms)} ms`);
      }
      context.diagnostic(took.join("; "));
    });

    test("a worker that is cut off under traffic: its tasks leave the tables of others, and it takes part when it is back", async (context) => {
      const cut = world.workers[0] as Host;
      const others = rig.hosts.filter((host) => host !== cut);
      const asker = certain(everywhere[4]);
      const there = await tasksOn(cut);
      let showed = "";
      const cost = await underLoad(others, asker, async () => {
        let changedMs: number;
        const taken = timeFromNow();
        cut.setLink(false);
        try {
          changedMs = await forgotten(there, others);
          showed = inTime(taken(), untilDownMs);
          await rig.running("web", wanted);
          // Its containers go on, by what they knew.
          const alone = certain(everywhere[3]);
          assert.equal(alone.host, cut);
          const [answer] = await rig.askAll(alone.namespace, [
            { protocol: "tcp", address: certain(alone.vips.get(front)), port: 80 },
          ]);
          assert.match(certain(answer), /^s4 /);
        } finally {
          cut.setLink(true);
        }
        await world.until("the worker to be back", slow, () => world.areReady(manager, rig.hosts.length));
        await everyHostServes(rig.hosts);
        everywhere = await Promise.all(everywhere.map(({ name }) => rig.placed(name)));
        await everyWayIsIn();
        // Neither while it was away nor when it came back did anything fail that was asked after the tables had changed.
        return changedMs;
      });
      context.diagnostic(`${there.length} of its tasks served; ${showed}; ${cost}`);
    });

    test("a host that dies under traffic: its tasks leave the tables of others, and it takes part when it is back", async (context) => {
      const dead = world.workers[1] as Host;
      const others = rig.hosts.filter((host) => host !== dead);
      const there = await tasksOn(dead);
      let showed = "";
      const cost = await underLoad(others, certain(everywhere[0]), async () => {
        const taken = timeFromNow();
        dead.setLink(false);
        await dead.crash();
        const changedMs = await forgotten(there, others);
        showed = inTime(taken(), untilDownMs);
        await rig.running("web", wanted);
        return changedMs;
      });
      context.diagnostic(`${there.length} of its tasks served; ${showed}; ${cost}`);
      dead.setLink(true);
      dead.start();
      await dead.answers();
      everywhere = await Promise.all(everywhere.map(({ name }) => rig.placed(name)));
      await everyHostServes(rig.hosts);
      await everyWayIsIn();
    });
  });

  test("no daemon has met an error of its own", () => {
    for (const host of rig.hosts) {
      const log = readFileSync(host.logFile, "utf8");
      const bugs = log
        .split("\n")
        .filter((line) => /InvariantViolation|"level":"fatal"|TypeError|a handler failed/u.test(line));
      assert.deepEqual(bugs, [], host.name);
    }
  });
});
