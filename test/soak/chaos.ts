/**
 * `npm run chaos -- [--minutes 5] [--seed N]`: five real hosts (three managers, two workers), whose users and whose faults are
 * both drawn by chance. After each round everything heals and is compared: what was acknowledged with what is there, what
 * the managers say with what each host runs, published ports with who answers, and after each third one, when nothing
 * runs, what is left on each host. Needs root and native/; ends with 1 on a finding. The same seed draws the same acts, not
 * the same order of events: that is the machine's.
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

import { buildOutsider, type Host } from "../../deploy/quickstart/hosts.ts";
import { Random } from "../../lib/pure/prng.ts";
import { buildProbe, webImage } from "../cluster/web.ts";
import { ask, hindrance, World } from "../cluster/world.ts";
import { amount, readFlags, wholeNumber, type Program } from "../support/flags.ts";
import { Faults, giveDisk } from "./chaos-faults.ts";
import { kinds, Ledger } from "./chaos-ledger.ts";
import { bugsIn, stateAt, traces, unsettled, wrongContainers, wrongObjects, wrongPorts } from "./chaos-oracle.ts";
import { answerOf, Users, type NodeShape } from "./chaos-users.ts";

const chaos: Program = {
  name: "chaos",
  usage: `usage: npm run chaos -- [--minutes 5] [--seed S]      the seed is drawn, and printed, unless said`,
};
const values = readFlags(chaos, {
  minutes: { type: "string", default: "5" },
  seed: { type: "string", default: String(Date.now() % 1e6) },
});
const minutes = amount(chaos, "minutes", values.minutes);
const seed = wholeNumber(chaos, "seed", values.seed);
if (hindrance !== false) {
  console.log(`chaos: ${hindrance}`);
  process.exit(1);
}
const playMs = 20_000;
const patienceMs = 90_000;
/** Places of containers that are gone are looked for each minute, and hold their network so long. */
const traceMs = 75_000;
const usersAtOnce = 3;

const startMs = performance.now();
const endMs = startMs + minutes * 60_000;
const random = new Random(seed);
const tell = (line: string): void =>
  console.log(`${((performance.now() - startMs) / 1000).toFixed(1).padStart(7)} ${line}`);
let findings = 0;
const find = (lines: readonly string[]): void => {
  findings += lines.length;
  for (const line of lines) tell(`FOUND ${line}`);
};

console.log(`chaos: seed ${seed}, ${minutes} minutes`);
const folder = mkdtempSync(join(tmpdir(), "skep-chaos-"));
const probe = join(folder, "net-probe");
const ledger = new Ledger();
const world = await World.open("skepcha", 3, 2, { subnet: "10.92.0" }, giveDisk);
const { hosts } = world;
const isManager = new Set<Host>(world.managers);
const managers = (): readonly Host[] => hosts.filter((host) => isManager.has(host));
const faults = new Faults(hosts, random, tell, rejoin);
const users = new Users(ledger, random, managers, tell);
const offsets = new Map<Host, number>();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => void world.close().finally(() => process.exit(1)));
}
try {
  const built = buildProbe();
  writeFileSync(probe, built);
  chmodSync(probe, 0o755);
  await world.form(undefined, 2);
  const image = await webImage("web:1", built);
  for (const host of hosts) await ask(host, "POST", "/images/load?quiet=1", image);
  const client = buildOutsider(world.site);
  await warmUp();
  const before = new Map(hosts.map((host) => [host, traces(host)]));
  for (let round = 1; performance.now() < endMs; round++) {
    tell(`round ${round}`);
    await play();
    await healed();
    await compare(client);
    if (round % 3 === 0 || performance.now() >= endMs) await compareEmpty(before);
  }
  tell(`${JSON.stringify(ledger.counts)} ${JSON.stringify(Object.fromEntries(faults.counts))}, ${findings} findings`);
} catch (error) {
  find([error instanceof Error ? (error.stack ?? error.message) : String(error)]);
} finally {
  await world.close();
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = findings === 0 ? 0 : 1;

/** What a node makes once, for its first task with a port, is there before anything is compared. */
async function warmUp(): Promise<void> {
  const at = hosts[0] as Host;
  const id = await world.create(at, "warm", 0, {
    TaskTemplate: { ContainerSpec: { Image: "web:1" } },
    Mode: { Global: {} },
    EndpointSpec: { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 8999 }] },
  });
  await world.until(
    "a task on each host",
    patienceMs,
    async () => (await world.running(at, id)).length === hosts.length,
  );
  await world.led(() => ask(at, "DELETE", `/services/${id}`));
  await untilEmpty();
  // The tmpfs of secrets, caches and the like go a while after their last user.
  await wait(12_000);
}

async function play(): Promise<void> {
  const untilMs = performance.now() + playMs;
  const under = new Set<Promise<void>>();
  const user = async (): Promise<void> => {
    while (performance.now() < untilMs) {
      await users.act();
      await wait(random.int(50, 900));
    }
  };
  const evil = async (): Promise<void> => {
    while (performance.now() < untilMs) {
      await wait(random.int(300, 3500));
      const one: Promise<void> = faults.strike().finally(() => under.delete(one));
      under.add(one);
    }
  };
  await Promise.all([...Array.from({ length: usersAtOnce }, user), evil()]);
  await Promise.all(under);
}

/** As a worker, wherever somebody lets it in. */
async function rejoin(host: Host): Promise<void> {
  for (const at of managers().filter((each) => each !== host)) {
    const swarm = await answerOf(() => ask<{ JoinTokens: { Worker: string } }>(at, "GET", "/swarm"));
    if (swarm?.status !== 200) continue;
    const joined = await answerOf(() =>
      ask(host, "POST", "/swarm/join", {
        ListenAddr: "0.0.0.0:2377",
        AdvertiseAddr: host.address,
        RemoteAddrs: hosts.filter((each) => each !== host).map(({ endpoint }) => endpoint),
        JoinToken: swarm.body.JoinTokens.Worker,
      }),
    );
    if (joined?.status === 200) return;
  }
}

/** Every host is a node that is ready, with a manager where its role says so; nodes that left are removed. */
async function healed(): Promise<void> {
  await faults.heal();
  await world.until("all hosts to be healed", patienceMs, async () => {
    const swarms = [];
    for (const host of hosts) {
      type Info = { Swarm: { LocalNodeState: string; ControlAvailable: boolean; NodeID: string } };
      const { Swarm } = (await ask<Info>(host, "GET", "/info")).body;
      if (Swarm.LocalNodeState === "inactive") await rejoin(host);
      if (Swarm.ControlAvailable) isManager.add(host);
      else isManager.delete(host);
      swarms.push(Swarm);
    }
    const at = managers()[0];
    const nodes = at === undefined ? undefined : await answerOf(() => ask<NodeShape[]>(at, "GET", "/nodes"));
    if (at === undefined || nodes?.status !== 200) return false;
    for (const node of nodes.body) {
      if (swarms.some(({ NodeID }) => NodeID === node.ID)) continue;
      const spec = { ...node.Spec, Role: "worker" };
      await ask(at, "POST", `/nodes/${node.ID}/update?version=${node.Version.Index}`, spec);
      await ask(at, "DELETE", `/nodes/${node.ID}?force=1`);
    }
    const isWell = ({ Spec, Status, ManagerStatus }: NodeShape): boolean =>
      Status.State === "ready" &&
      (Spec["Role"] === "manager") === (ManagerStatus !== undefined) &&
      (ManagerStatus === undefined || ManagerStatus.Reachability === "reachable");
    return nodes.body.length === hosts.length && nodes.body.every(isWell);
  });
}

/** What `look` finds wrong has to be right after a while. */
async function eventually(what: string, look: () => Promise<readonly string[]>): Promise<void> {
  const untilMs = performance.now() + patienceMs;
  for (;;) {
    const wrong = await look();
    if (wrong.length === 0) return;
    if (performance.now() > untilMs) return find(wrong.map((line) => `${what}: ${line}`));
    await wait(1000);
  }
}

async function compare(client: Parameters<typeof wrongPorts>[1]): Promise<void> {
  for (const host of managers()) find(await wrongObjects(host, ledger));
  const at = managers()[0] as Host;
  await eventually("not settled", async () => {
    const state = await stateAt(at);
    return state === undefined ? ["nobody leads"] : unsettled(state);
  });
  await eventually("on a host", async () => {
    const state = await stateAt(at);
    if (state === undefined) return ["nobody leads"];
    return (await Promise.all(hosts.map((host) => wrongContainers(host, state)))).flat();
  });
  await eventually("a port", async () => {
    const state = await stateAt(at);
    return state === undefined ? ["nobody leads"] : wrongPorts(hosts, client, probe, state);
  });
  for (const host of hosts) {
    const { found, end } = bugsIn(host, offsets.get(host) ?? 0);
    offsets.set(host, end);
    find(found);
  }
}

async function untilEmpty(): Promise<void> {
  const at = managers()[0] as Host;
  await world.until("no task to be left", patienceMs, async () => {
    const { status, body } = await ask<unknown[]>(at, "GET", "/tasks");
    return status === 200 && body.length === 0;
  });
}

/** Everything is removed, and each host looks as it did before the first round. */
async function compareEmpty(before: ReadonlyMap<Host, ReadonlySet<string>>): Promise<void> {
  const at = managers()[0] as Host;
  for (const kind of kinds) {
    for (const { name } of ledger.all(kind)) {
      await world.until(`${kind} ${name} to be removed`, traceMs, async () => {
        const { status } = await ask(at, "DELETE", `/${kind}/${name}`);
        return status < 300 || status === 404;
      });
    }
    ledger.compare(kind, new Map());
  }
  const nodes = await world.led(() => ask<NodeShape[]>(at, "GET", "/nodes"));
  for (const { ID, Version, Spec } of nodes.body) {
    await ask(at, "POST", `/nodes/${ID}/update?version=${Version.Index}`, { ...Spec, Availability: "active" });
  }
  await untilEmpty();
  await eventually("left over", async () =>
    hosts.flatMap((host) =>
      [...traces(host)].filter((one) => before.get(host)?.has(one) !== true).map((one) => `${host.name} ${one}`),
    ),
  );
}
