/** The resolver in process, over the loopback: N1 one query after the other, N2 as many as it takes, N3 500 addresses, N4 a change. */
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";

import { Random } from "../../lib/pure/prng.ts";
import { realClock } from "../../lib/runtime/index.ts";
import { NameTable, Resolver } from "../../worker/network/dns/index.ts";
import { median, quantile, type BenchOptions, type Report } from "./report.ts";

const address = "127.0.1.57";
const asker = "127.0.2.57";
const services = 200;
const tasksOfEach = 10;

function query(name: string, id: number): Buffer {
  const labels = name.split(".").flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
  return Buffer.concat([
    Buffer.from([id >> 8, id & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
    ...labels,
    Buffer.from([0, 0, 1, 0, 1]),
  ]);
}

const endpoint = (service: string, at: number, serving = true) => ({
  networkId: "ov1",
  taskId: `${service}-${at}`,
  serviceId: service,
  nodeId: "n1",
  name: `${service}.${at}.x`,
  slot: at,
  addresses: [`10.${(at >> 16) & 0xff}.${(at >> 8) & 0xff}.${at & 0xff}/8`],
  gatewayAddress: "",
  aliases: [],
  serving,
});

function table(): NameTable {
  const names = new NameTable();
  names.setNetwork({ id: "ov1", name: "blue", subnets: ["10.0.0.0/8"] });
  const all = Array.from({ length: services }, (_, at) => `svc${at}`);
  names.replace(
    [
      ...all.flatMap((service, at) =>
        Array.from({ length: tasksOfEach }, (_, task) => endpoint(service, at * tasksOfEach + task)),
      ),
      ...Array.from({ length: 500 }, (_, at) => endpoint("large", 100_000 + at)),
    ],
    [...all, "large"].map((name) => ({
      networkId: "ov1",
      serviceId: name,
      name,
      aliases: [],
      virtualIp: "10.200.0.1/8",
      mode: "vip" as const,
      ports: [],
    })),
  );
  names.setAsker({ id: "a", addresses: [asker], networks: ["ov1"], forwards: false, dns: [], links: new Map() });
  return names;
}

export async function run({ rounds, only, quick }: BenchOptions, report: Report): Promise<void> {
  const names = table();
  const resolver = new Resolver({ names, port: 0, clock: realClock, random: new Random("bench") });
  const port = await resolver.listen(address);
  const client = createSocket("udp4").bind(0, asker);
  await once(client, "listening");
  const wanted = (name: string): boolean => only.size === 0 || only.has(name);
  const count = quick ? 500 : 20_000;
  try {
    if (wanted("N1")) {
      const medians: number[] = [];
      const rates: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const times = await oneByOne(client, port, count);
        medians.push(quantile(times, 0.5) * 1000);
        rates.push((count * 1000) / times.reduce((sum, time) => sum + time, 0));
      }
      add(report, "N1 sequential, p50", "us", median(medians), "<= 150", (value) => value <= 150);
      add(report, "N1 sequential", "queries/s", median(rates), ">= 5000", (value) => value >= 5000);
    }
    if (wanted("N2")) {
      const rates: number[] = [];
      for (let round = 0; round < rounds; round++) rates.push(await inFlight(client, port, count, 32));
      add(report, "N2 32 in flight", "queries/s", median(rates), ">= 12400", (value) => value >= 12_400);
    }
    if (wanted("N3")) {
      const times: number[] = [];
      for (let round = 0; round < rounds * (quick ? 2 : 50); round++) times.push(await byTcp(port));
      add(report, "N3 500 addresses by TCP, p50", "ms", median(times), "<= 5", (value) => value <= 5);
    }
    if (wanted("N4")) {
      const changes = quick ? 1000 : 50_000;
      const startedMs = performance.now();
      for (let at = 0; at < changes; at++) {
        const one = endpoint(`svc${at % services}`, at % (services * tasksOfEach), at % 2 === 0);
        names.setEndpoint(one.networkId, one.taskId, one);
      }
      const us = ((performance.now() - startedMs) * 1000) / changes;
      add(report, "N4 a task changes", "us", us, "<= 20", (value) => value <= 20);
    }
  } finally {
    client.close();
    await resolver[Symbol.asyncDispose]();
  }
}

function add(
  report: Report,
  name: string,
  unit: string,
  ours: number,
  gate: string,
  passes: (value: number) => boolean,
): void {
  report.add({ name, unit, ours, peer: undefined, ratio: undefined, gate, pass: passes(ours) });
}

/** Milliseconds of each. */
async function oneByOne(client: Socket, port: number, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let at = 0; at < count; at++) {
    const startedMs = performance.now();
    const came = once(client, "message");
    client.send(query(`svc${at % services}`, at & 0xffff), port, address);
    await came;
    times.push(performance.now() - startedMs);
  }
  return times;
}

/** Queries a second. */
function inFlight(client: Socket, port: number, count: number, window: number): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const startedMs = performance.now();
  let sent = 0;
  let done = 0;
  const next = (): void => {
    if (sent >= count) return;
    client.send(query(`svc${sent % services}`, sent & 0xffff), port, address);
    sent++;
  };
  const take = (): void => {
    done++;
    next();
    if (done < count) return;
    client.off("message", take);
    resolve((count * 1000) / (performance.now() - startedMs));
  };
  client.on("message", take);
  for (let at = 0; at < window; at++) next();
  return promise;
}

/** Milliseconds of a connection, a query and all of its answer. */
async function byTcp(port: number): Promise<number> {
  const startedMs = performance.now();
  const socket = connect({ host: address, port, localAddress: asker });
  const message = query("tasks.large", 1);
  socket.write(Buffer.concat([Buffer.from([0, message.length]), message]));
  let bytes = 0;
  let wanted = Infinity;
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    if (bytes === 0) wanted = 2 + chunk.readUInt16BE(0);
    bytes += chunk.length;
    if (bytes >= wanted) break;
  }
  return performance.now() - startedMs;
}
