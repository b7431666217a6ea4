/**
 * What programming the network of one host costs, driven from records as in net.ts: W5 one sandbox attached, W6 fifty asked
 * for at once, W7 one task of 2,000 in 200 services leaving and coming back, by netplane's own clock; W8 new connections to
 * a service's address among 50,000 tasks beside the same among ten.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { silentLogger } from "../../lib/runtime/index.ts";
import type { EndpointRecord, OverlayNetwork, RecordChange, ServiceRecord } from "../../worker/network/contract.ts";
import { ingressService, meshPort, NetHost, peerOf, taskOf } from "../conformance/network/net-host.ts";
import { NetWorld, output, run as execute } from "../conformance/network/world.ts";
import { median, type BenchOptions, type Report } from "./report.ts";

const networkOf = (id: string, vni: number, second: number): OverlayNetwork => ({
  id,
  name: id,
  vni,
  subnet: `10.${second}.0.0/16`,
  gateway: `10.${second}.0.1`,
  internal: false,
  encrypted: false,
  mtu: 0,
});
const small = networkOf("small", 4097, 1);
const large = networkOf("large", 4098, 2);

/** An x ends the text, so that 5 and 50 are not the same. */
const idOf = (text: string): string => `${text}x`.padEnd(25, "0");
const serviceIp = ({ subnet }: OverlayNetwork, at: number): string =>
  `${subnet.split(".", 2).join(".")}.${240 + (at >> 8)}.${at & 255}`;
const taskIp = ({ subnet }: OverlayNetwork, at: number): string =>
  `${subnet.split(".", 2).join(".")}.${(at + 16) >> 8}.${(at + 16) & 255}`;

/** A tenth of the tasks' number are services, all on other nodes. */
function crowd(network: OverlayNetwork, tasks: number): { endpoints: EndpointRecord[]; services: ServiceRecord[] } {
  const services = Array.from({ length: Math.ceil(tasks / 10) }, (_, at) => ({
    networkId: network.id,
    serviceId: idOf(`${network.id}service${at}`),
    name: `${network.id}${at}`,
    aliases: [],
    virtualIp: `${serviceIp(network, at + 16)}/16`,
    mode: "vip" as const,
    ports: [],
  }));
  const endpoints = Array.from({ length: tasks }, (_, at) => ({
    ...taskOf(idOf(`${network.id}task${at}`), 2 + (at % 4), "", services[Math.floor(at / 10)]?.serviceId),
    networkId: network.id,
    addresses: [`${taskIp(network, at + 256)}/16`],
  }));
  return { endpoints, services };
}

/** The same tasks in the mesh: each service has a published port. */
function meshed(tasks: readonly EndpointRecord[]): { endpoints: EndpointRecord[]; services: ServiceRecord[] } {
  const ids = [...new Set(tasks.map(({ serviceId }) => serviceId))];
  return {
    services: ids.map((id, at) => ingressService([meshPort("tcp", 20_000 + at)], id)),
    endpoints: tasks.map((task, at) => ({
      ...task,
      networkId: "ingress",
      addresses: [],
      gatewayAddress: `100.64.${4 * (2 + (at % 4)) + (at >> 10)}.${2 + ((at >> 2) & 127)}`,
    })),
  };
}

const sandboxOf = (network: OverlayNetwork, at: number) => ({
  networks: [{ kind: "overlay" as const, network, address: `${taskIp(network, at)}/16`, aliases: [] }],
});

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

async function attaching(world: NetWorld, rounds: number, quick: boolean, note: Note): Promise<void> {
  // Namespaces are bound in /run, which is in memory on a host; this machine's may be on its disk.
  const inMemory = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "skepns-"));
  const host = await NetHost.open(world, "h1", silentLogger, inMemory);
  try {
    await host.plane.replace({ nodeId: "n1", peers: [1, 2, 3, 4, 5].map(peerOf), ...crowd(small, 100) });
    // The first of a network builds the network.
    await host.attach(idOf("first"), sandboxOf(small, 1));
    const many = quick ? 5 : 50;
    for (let round = 0; round < rounds; round += 1) {
      const ids = Array.from({ length: many }, (_, at) => idOf(`r${round}s${at}`));
      const one = [];
      for (const [at, id] of ids.slice(0, 20).entries())
        one.push(await timed(() => host.attach(id, sandboxOf(small, 2 + at))));
      for (const id of ids.slice(0, 20)) await host.networks.sandboxes.release(id);
      note("W5", median(one));
      const all = await timed(() => Promise.all(ids.map((id, at) => host.attach(id, sandboxOf(small, 2 + at)))));
      note("W6", all);
      await Promise.all(ids.map((id) => host.networks.sandboxes.release(id)));
    }
  } finally {
    await host[Symbol.asyncDispose]();
    rmSync(inMemory, { recursive: true, force: true });
  }
}

async function changing(world: NetWorld, rounds: number, quick: boolean, note: Note): Promise<void> {
  const host = await NetHost.open(world, "h1");
  try {
    const tasks = crowd(small, quick ? 100 : 2000);
    const mesh = meshed(tasks.endpoints);
    await host.plane.replace({
      nodeId: "n1",
      peers: [1, 2, 3, 4, 5].map(peerOf),
      endpoints: [...tasks.endpoints, ...mesh.endpoints],
      services: [...tasks.services, ...mesh.services],
    });
    await host.attach(idOf("first"), sandboxOf(small, 1));
    const change = (at: number, serving: boolean): RecordChange[] =>
      [tasks.endpoints[at], mesh.endpoints[at]].flatMap((record) =>
        record === undefined
          ? []
          : [{ kind: "endpoint", key: `${record.networkId}/${record.taskId}`, record: { ...record, serving } }],
      );
    for (let round = 0; round < rounds * 20; round += 1) {
      const at = (round * 37) % tasks.endpoints.length;
      for (const serving of [false, true]) {
        const beforeNs = host.netplane.workedNs;
        await host.plane.change(change(at, serving));
        note("W7", (host.netplane.workedNs - beforeNs) / 1e6);
      }
    }
  } finally {
    await host[Symbol.asyncDispose]();
  }
}

const port = 7000;
const parallel = 64;

/** Two networks of the same two hosts, one of them crowded. */
async function connecting(world: NetWorld, rounds: number, quick: boolean, report: Report): Promise<void> {
  const hosts: NetHost[] = [];
  const children = [];
  try {
    const program = join(world.folder, "net-load");
    execute(["cc", "-O2", "-o", program, join(import.meta.dirname, "net-load.c")]);
    for (const name of ["h1", "h2"]) hosts.push(await NetHost.open(world, name));
    const own = [small, large].map((network) => {
      const service = { ...crowd(network, 1).services[0], serviceId: idOf(`${network.id}real`) } as ServiceRecord;
      const real = { ...service, virtualIp: `${serviceIp(network, 1)}/16` };
      const taskOn = (node: number, name: string, serviceId: string): EndpointRecord => ({
        ...taskOf(idOf(`${network.id}${name}`), node, "", serviceId),
        networkId: network.id,
        addresses: [`${taskIp(network, node)}/16`],
      });
      return { network, service: real, client: taskOn(1, "client", ""), server: taskOn(2, "server", real.serviceId) };
    });
    const around = [crowd(small, 9), crowd(large, quick ? 1000 : 50_000)];
    for (const [at, { plane }] of hosts.entries()) {
      await plane.replace({
        nodeId: `n${at + 1}`,
        peers: [1, 2, 3, 4, 5].map(peerOf),
        endpoints: [
          ...own.flatMap(({ client, server }) => [client, server]),
          ...around.flatMap((one) => one.endpoints),
        ],
        services: [...own.map(({ service }) => service), ...around.flatMap((one) => one.services)],
      });
    }
    for (const { network, client, server } of own) {
      await hosts[0]?.attach(client.taskId, sandboxOf(network, 1));
      await hosts[1]?.attach(server.taskId, sandboxOf(network, 2));
      const child = world.start(server.taskId, [program, "serve", String(port)]);
      children.push(child);
      await output(child);
    }
    const measure = ({ client, service }: (typeof own)[number]): number => {
      const address = service.virtualIp.split("/", 1)[0] ?? "";
      const seconds = quick ? "0.2" : "1";
      return Number(world.exec(client.taskId, [program, "connect", address, String(port), seconds, String(parallel)]));
    };
    const [few, many] = own as [(typeof own)[number], (typeof own)[number]];
    const taken = { few: [] as number[], many: [] as number[] };
    measure(few);
    measure(many);
    for (let turn = 0; turn < rounds * 3; turn += 1) {
      if (turn % 2 === 0) taken.few.push(measure(few));
      taken.many.push(measure(many));
      if (turn % 2 === 1) taken.few.push(measure(few));
    }
    const ratio = median(taken.many.map((value, at) => value / (taken.few[at] ?? Number.NaN)));
    report.add({
      name: "W8 new connections among 50,000 tasks, beside among ten",
      unit: "connections/s",
      ours: median(taken.many),
      peer: median(taken.few),
      ratio,
      gate: ">= 0.95x",
      pass: ratio >= 0.95,
    });
  } finally {
    for (const child of children) world.end(child);
    for (const host of hosts) await host[Symbol.asyncDispose]();
  }
}

type Note = (name: string, value: number) => void;

export async function run({ rounds, only, quick }: BenchOptions, report: Report): Promise<void> {
  const wants = (...names: readonly string[]): boolean => only.size === 0 || names.some((name) => only.has(name));
  const taken = new Map<string, number[]>();
  const note: Note = (name, value) => taken.set(name, [...(taken.get(name) ?? []), value]);
  const world = new NetWorld("skepns");
  try {
    world.build(2);
    if (wants("W5", "W6")) await attaching(world, rounds, quick, note);
    if (wants("W7")) await changing(world, rounds, quick, note);
    const gates: readonly (readonly [string, string, number])[] = [
      ["W5", "a sandbox on an overlay attached", 2],
      ["W6", "fifty at once", 100],
      ["W7", "one task of 2,000 leaves or comes: time in netplane", 0.1],
    ];
    for (const [name, what, limitMs] of gates) {
      const values = taken.get(name);
      if (values === undefined || !wants(name)) continue;
      const ours = median(values);
      report.add({
        name: `${name} ${what}`,
        unit: "ms",
        ours,
        peer: undefined,
        ratio: undefined,
        gate: `<= ${limitMs}`,
        pass: ours <= limitMs,
      });
    }
    if (wants("W8")) await connecting(world, rounds, quick, report);
  } finally {
    await world.tearDown();
  }
}
