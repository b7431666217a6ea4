/** Managers and nodes that speak to each other by IPv6, with frames by IPv4; made as a user of the docker CLI makes it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { NetworkRig } from "./network-rig.ts";
import { patience } from "./web.ts";
import { ask, hindrance, type World } from "./world.ts";

const why = hindrance || (spawnSync("docker", ["--version"]).status === 0 ? false : "needs the docker CLI");
const hostsMax = 3;
const address6 = (host: Host): string => `fd78::1${host.name.slice(-1)}`;

interface Node {
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string; readonly Addr: string };
  readonly ManagerStatus?: { readonly Addr: string; readonly Reachability: string };
}

/** As its user types it. */
function docker(host: Host, ...args: readonly string[]): { readonly status: number | null; readonly said: string } {
  const [program, words] = host.command(["docker", ...args]);
  const env = { ...process.env, DOCKER_HOST: `unix://${host.socket}`, DOCKER_CONFIG: "/nonexistent" };
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: "utf8", env, timeout: 60_000 });
  return { status, said: `${stdout}${stderr}`.trim() };
}

describe("a swarm whose nodes speak to each other by IPv6", { skip: why, timeout: 300_000 }, () => {
  let rig: NetworkRig;
  let first: Host;
  let others: readonly Host[];

  before(async () => {
    const form = async ({ hosts }: World): Promise<void> => {
      for (const host of hosts) {
        const words = ["address", "add", `${address6(host)}/64`, "dev", "eth0", "nodad"];
        assert.equal(spawnSync("ip", ["-n", host.namespace, ...words]).status, 0);
      }
      [first, ...others] = hosts as [Host, ...Host[]];
      enter();
    };
    rig = await NetworkRig.open("skctl6", hostsMax, 0, 5, { form });
  });
  after(() => rig.close());

  function enter(): void {
    const advertised = ["--advertise-addr", address6(first)];
    const made = docker(first, "swarm", "init", ...advertised, "--data-path-addr", first.address);
    assert.equal(made.status, 0, made.said);
    assert.match(made.said, /docker swarm join --token SWMTKN-\S+ \[fd78::11\]:2377/);
    const token = docker(first, "swarm", "join-token", "-q", "manager").said;
    for (const host of others) {
      const six = ["--advertise-addr", address6(host), "--data-path-addr", address6(host)];
      const refused = docker(host, "swarm", "join", "--token", token, ...six, `[${address6(first)}]:2377`);
      assert.notEqual(refused.status, 0);
      assert.match(refused.said, /frames between nodes of this cluster go by IPv4 \(to 10\.78\.0\.11, say\)/);
      const own = ["--advertise-addr", address6(host), "--data-path-addr", "eth0"];
      const joined = docker(host, "swarm", "join", "--token", token, ...own, `[${address6(first)}]:2377`);
      assert.equal(joined.status, 0, joined.said);
    }
  }

  test("nodes and managers are told with their addresses, and no manager speaks to another by IPv4", async () => {
    await rig.world.until("all managers", 60_000, async () => {
      const { body } = await ask<readonly Node[]>(first, "GET", "/nodes");
      return body.length === hostsMax && body.every(({ ManagerStatus }) => ManagerStatus?.Reachability === "reachable");
    });
    const { body } = await ask<readonly Node[]>(first, "GET", "/nodes");
    for (const { Description, Status, ManagerStatus } of body) {
      const own = `fd78::1${Description.Hostname.slice(-1)}`;
      assert.deepEqual([Status.Addr, ManagerStatus?.Addr], [own, `[${own}]:2377`]);
    }
    // Its agent is told of the others a moment later.
    const all = /Manager Addresses:\s+\[fd78::11\]:2377\s+\[fd78::12\]:2377\s+\[fd78::13\]:2377/;
    await rig.world.until("its agent to know all managers", 60_000, () => all.test(docker(first, "info").said));
    assert.match(docker(first, "info").said, /Node Address: fd78::11/);
    for (const { namespace } of rig.hosts) {
      const shown = (): string =>
        spawnSync("ip", ["netns", "exec", namespace, "ss", "-Htn", "dport = :2377"], { encoding: "utf8" }).stdout;
      await rig.world.until("a connection to another", 60_000, () => /\[fd78::1\d\]:2377/.test(shown()));
      assert.doesNotMatch(shown(), /10\.78\.0\.\d+:2377/);
    }
  });

  test("a service's tasks on all hosts are reached over an overlay, and from outside through every host", async () => {
    const networkId = await rig.network("front");
    for (const [at, on] of rig.hosts.entries()) {
      const ports = [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 8101 + at }];
      await rig.world.create(first, `s${at + 1}`, 1, rig.spec({ networks: [networkId], on, ports }));
    }
    const placed = await Promise.all(["s1", "s2", "s3"].map((name) => rig.placed(name)));
    for (const { namespace, name, addresses } of placed) {
      const own = addresses.get(networkId) ?? "";
      const questions = placed
        .filter((other) => other.name !== name)
        .map(({ vips }) => ({ protocol: "tcp", address: vips.get(networkId) ?? "", port: 80 }) as const);
      await rig.world.until(`${name} to reach the others`, 60_000, async () => {
        const answers = await rig.askAll(namespace, questions, patience.forSilenceMs);
        return answers.every((answer) => answer.includes(` peer=${own}:`));
      });
    }
    const client = `/run/netns/${rig.client.namespace}`;
    const ways = rig.hosts.flatMap(({ address }) =>
      [8101, 8102, 8103].map((port) => ({ protocol: "tcp", address, port }) as const),
    );
    await rig.world.until("every way in", 60_000, async () => {
      const answers = await rig.askAll(client, ways, patience.forSilenceMs);
      return answers.every((answer) => answer.includes(` peer=${rig.client.address}:`));
    });
    for (const { namespace, address } of rig.hosts) {
      const link = ["-n", namespace, "-d", "link", "show", "skepmesh"];
      assert.match(spawnSync("ip", link, { encoding: "utf8" }).stdout, new RegExp(`mtu 1450 [^]* local ${address} `));
    }
  });

  test("the leader's daemon is killed: another leads, and it comes back", async () => {
    const leader = await rig.world.leader(first);
    const other = rig.hosts.find((host) => host !== leader) as Host;
    await leader.kill();
    await rig.world.until("another leader", 60_000, async () => {
      const { status, body } = await ask<readonly Node[]>(other, "GET", "/nodes");
      return status === 200 && body.length === hostsMax;
    });
    leader.start();
    await leader.answers();
    await rig.world.until("all managers again", 60_000, async () => {
      const { status, body } = await ask<readonly Node[]>(leader, "GET", "/nodes");
      const reachable = ({ ManagerStatus }: Node): boolean => ManagerStatus?.Reachability === "reachable";
      return status === 200 && body.length === hostsMax && body.every(reachable);
    });
  });
});
