/**
 * Encrypted overlays over three hosts in namespaces, on a kernel that has WireGuard; `npm run test:vm` brings one. What
 * leaves a host is looked at on the switch between them, for as long as all this goes on.
 */
import assert from "node:assert/strict";
import { spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";

import { nodeAddresses } from "../../../lib/pure/node-number.ts";
import type { PeerRecord } from "../../../worker/network/contract.ts";
import { timeFromNow } from "../../support/calm-time.ts";
import {
  ingressService,
  meshPort,
  NetHosts,
  overlayEndpoint,
  overlayOf,
  overlayTask as task,
  peerOf,
  taskOf,
  whyNoTunnels,
  type NetHost,
  type OverlayTask as Task,
} from "./net-host.ts";
import { eventually, output, type NetWorld } from "./world.ts";

const secret = overlayOf("secret", 4097, { encrypted: true });
/** In clear text, beside it. */
const open = overlayOf("open", 4098);

const port = 7000;
/** What must never be seen on the switch. */
const marker = "nobody-else-may-read-this";
const a1 = task("a1", secret, 1, 11);
const b1 = task("b1", secret, 2, 21);
const b2 = task("b2", secret, 2, 22);
const c1 = task("c1", secret, 3, 31);
const o1 = task("o1", open, 1, 11);
const o2 = task("o2", open, 2, 21);
const tasks = [a1, b1, b2, c1, o1, o2];
const records = tasks.map((one) => overlayEndpoint(one));

/** VXLAN around a datagram from one container to another, as a member's node would send it. */
function vxlanFrame(from: string, to: Task, text: string): string {
  const payload = Buffer.from(text);
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(7002, 0);
  udp.writeUInt16BE(7002, 2);
  udp.writeUInt16BE(8 + payload.length, 4);
  const ip = Buffer.from("4500000000000000401100000000000000000000", "hex");
  ip.writeUInt16BE(28 + payload.length, 2);
  Buffer.from(from.split(".").map(Number)).copy(ip, 12);
  Buffer.from(to.address.split(".").map(Number)).copy(ip, 16);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += ip.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  ip.writeUInt16BE(~sum & 0xffff, 10);
  const mac = (number: number): Buffer => Buffer.from(nodeAddresses(number).mac.replaceAll(":", ""), "hex");
  const header = Buffer.from("0800000000000000", "hex");
  header.writeUInt32BE(to.network.vni << 8, 4);
  return Buffer.concat([header, mac(to.host), mac(2), Buffer.from("0800", "hex"), ip, udp, payload]).toString("base64");
}

describe("encrypted overlays over three hosts", { skip: whyNoTunnels(), timeout: 900_000 }, () => {
  let hosts: NetHosts;
  let world: NetWorld;
  let capture: ChildProcess;
  let captured = "";
  const keys: string[] = [];

  const host = (number: number): NetHost => hosts.host(number);
  const peer = (number: number, publicKey = keys[number - 1] ?? ""): PeerRecord => ({ ...peerOf(number), publicKey });
  const tell = (record: PeerRecord): Promise<void> => hosts.change({ kind: "peer", key: record.nodeId, record });
  const ask = (from: Task, to: string, ...more: readonly string[]): string => world.get(from.id, to, port, ...more);
  const briefly = (from: Task, to: string, ...more: readonly string[]): string =>
    world.getBriefly(from.id, to, port, ...more);
  const node = (script: string, ...args: readonly string[]): string[] => [process.execPath, "-e", script, ...args];
  const tunnel = (number: number): string => world.attempt(`h${number}`, ["wg", "show", "skepwg"]);
  /** Sends a datagram as it stands. */
  const inject = (from: string, to: string, toPort: number, base64: string): string =>
    world.attempt(from, node(injector, to, String(toPort), base64));

  before(async () => {
    hosts = await NetHosts.open("skepwi", 3, async (built) => {
      captured = join(built.folder, "switch.pcap");
      const filter = "net 10.99.0.0/24 or net 100.64.0.0/10";
      capture = built.start("sw", ["tcpdump", "-i", "any", "-U", "-s", "0", "-w", captured, filter]);
      await new Promise((resolve) => capture.stderr?.once("data", resolve));
    });
    ({ world } = hosts);
    // The third has no key that anybody knows of.
    for (const number of [1, 2]) keys.push(host(number).networks.enterTunnel(`n${number}`) ?? "");
    host(3).networks.enterTunnel("n3");
    await hosts.replace(records, [], [peer(1), peer(2), peer(3, "")]);
    for (const one of tasks) await hosts.attachTask(one, port);
  });
  after(() => hosts.close());

  test("containers of two hosts reach each other by tcp and udp, and their addresses are kept", async () => {
    for (const [from, to] of [
      [a1, b1],
      [b1, a1],
      [b1, b2],
      [b2, a1],
    ] as const) {
      for (const protocol of [[], ["-u"]]) {
        // The first packet waits for a handshake.
        const expected = new RegExp(`^${to.id} peer=${from.address.replaceAll(".", "\\.")}:`);
        await eventually(() => expected.test(briefly(from, to.address, ...protocol)));
      }
    }
    assert.match(ask(o1, o2.address), new RegExp(`^${o2.id} `), "a network in clear text goes on beside it");
  });

  test("packets as long as the network carries go through whole, and longer ones are not sent", async () => {
    assert.match(world.ip(a1.id, "link show eth0"), / mtu 1390 /);
    const receiver = await world.receive(b1.id, 7001);
    const text = `${marker}${"x".repeat(1390 - 28 - marker.length)}`;
    world.exec(a1.id, [world.probe, "send", b1.address, "7001", text]);
    await receiver.until(text);
    await receiver.end();
    assert.match(briefly(a1, b1.address, "-u", "-d", "-l", "1400"), /^ERR/);
  });

  test("a node whose key nobody knows is not sent anything, in clear text or otherwise", () => {
    assert.match(briefly(a1, c1.address), /^ERR/);
    assert.match(briefly(c1, a1.address), /^ERR/);
    assert.doesNotMatch(world.ip("h1", "route"), /100\.64\.15\.255/);
    assert.equal((tunnel(1).match(/^peer:/gmu) ?? []).length, 1, "one peer, not two");
  });

  test("frames that do not come by the tunnel get nowhere, whoever sends them", async () => {
    const receiver = await world.receive(a1.id, 7002);
    const { tunnelAddress } = nodeAddresses(1);
    const send = (from: string, to: string, toPort: number, text: string): string =>
      inject(from, to, toPort, vxlanFrame(b1.address, a1, text));
    for (const from of ["near", "far", "h2", "h3"]) {
      assert.doesNotMatch(send(from, "10.99.0.1", 4793, `forged ${from}`), /Error/u);
      if (!from.startsWith("h")) send(from, "10.99.0.1", 4789, `forged ${from}`);
    }
    // Routed to the host as if it were its own.
    world.ip("near", `route add ${tunnelAddress}/32 via 10.99.0.1`);
    send("near", tunnelAddress, 4793, "forged near, tunnel address");
    send(o1.id, "10.99.0.1", 4793, "forged by a container");
    // The very same frame by the tunnel: it is a good one.
    await eventually(() => {
      send("h2", tunnelAddress, 4793, "by the tunnel");
      return receiver.heard.includes("by the tunnel");
    });
    assert.deepEqual([...new Set(receiver.heard)], ["by the tunnel"]);
    await receiver.end();
  });

  test("a member cannot speak for another, nor reach anything else by the tunnel", async () => {
    // h2 takes the tunnel address of node 3 and sends with it; and asks h1 for a service of the host.
    const service = world.start(
      "h1",
      node(`require("net").createServer((c)=>c.end("open")).listen(8099,"0.0.0.0",()=>console.log("up"))`),
    );
    await output(service);
    const third = nodeAddresses(3).tunnelAddress;
    world.ip("h2", `addr add ${third}/32 dev skepwg`);
    const before = /([\d.]+) \w+ received/u.exec(tunnel(1))?.[1];
    assert.notEqual(before, undefined);
    assert.match(world.getBriefly("h2", nodeAddresses(1).tunnelAddress, 8099), /^ERR/);
    const receiver = await world.receive(a1.id, 7002);
    world.attempt(
      "h2",
      node(injectorFrom, nodeAddresses(1).tunnelAddress, "4793", vxlanFrame(b1.address, a1, "as the third"), third),
    );
    await eventually(() => {
      inject("h2", nodeAddresses(1).tunnelAddress, 4793, vxlanFrame(b1.address, a1, "as itself"));
      return receiver.heard.includes("as itself");
    });
    assert.ok(!receiver.heard.includes("as the third"));
    world.ip("h2", `addr del ${third}/32 dev skepwg`);
    await receiver.end();
    await world.ended(service);
  });

  test("another key takes the place of the first without a connection that ends", async () => {
    const talk = talking(world, a1, b1);
    await eventually(() => talk.answers.length > 5);
    const first = keys[0] ?? "";
    const offered = host(1).networks.renewTunnelKey() ?? "";
    assert.notEqual(offered, first);
    assert.match(
      tunnel(1),
      new RegExp(first.replaceAll(/[+/]/gu, "\\$&")),
      "until managers tell it, the old one serves",
    );
    keys[0] = offered;
    // Others hear of it first, or this node does.
    await tell(peer(1));
    await eventually(() => tunnel(2).includes(offered) && !tunnel(2).includes(first));
    assert.match(tunnel(1), new RegExp(offered.replaceAll(/[+/]/gu, "\\$&")));
    const count = talk.answers.length;
    await eventually(() => talk.answers.length > count + 20);
    keys[1] = host(2).networks.renewTunnelKey() ?? "";
    // The owner is the last to hear.
    await host(1).plane.change([{ kind: "peer", key: "n2", record: peer(2) }]);
    await host(2).plane.change([{ kind: "peer", key: "n2", record: peer(2) }]);
    const later = talk.answers.length;
    await eventually(() => talk.answers.length > later + 20);
    const { longestMs, calmMs, errors } = await talk.end();
    assert.deepEqual(errors, []);
    console.log(`# a change of keys: the longest silence was ${Math.round(longestMs)} ms`);
    // WireGuard asks again after five seconds: nobody had to wait for that.
    assert.ok(calmMs < 4000, `${longestMs} ms, of which ${calmMs} calm ones`);
  });

  test("skepd begins anew, and traffic does not notice", async () => {
    const talk = talking(world, b1, a1);
    await eventually(() => talk.answers.length > 5);
    const before = world.ip("h1", "-o link show skepwg");
    await host(1).stop();
    await host(1).start();
    host(1).networks.enterTunnel("n1");
    await host(1).plane.replace({
      nodeId: "n1",
      peers: [peer(1), peer(2), peer(3, "")],
      endpoints: records,
      services: [],
    });
    assert.equal(world.ip("h1", "-o link show skepwg"), before);
    const file = join(host(1).folder, "swarm/wireguard.key");
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const count = talk.answers.length;
    await eventually(() => talk.answers.length > count + 20);
    const { longestMs, calmMs, errors } = await talk.end();
    assert.deepEqual(errors, []);
    // Of this, most is this process, which asks the firewalls of the host meanwhile.
    assert.ok(calmMs < 10_000, `${longestMs} ms, of which ${calmMs} calm ones`);
  });

  test("a tunnel that somebody takes apart is put together again, and nothing leaves in between", async () => {
    const key = keys[1] ?? "";
    world.exec("h1", ["wg", "set", "skepwg", "peer", key, "remove"]);
    await host(1).networks.repair();
    assert.ok(tunnel(1).includes(key));
    await eventually(() => briefly(a1, b1.address).startsWith(b1.id));
    // With a preshared key, which the other end does not have, it would understand nobody at its next handshake.
    const secret = join(host(1).folder, "preshared");
    writeFileSync(secret, `${Buffer.alloc(32, 7).toString("base64")}\n`);
    world.exec("h1", ["wg", "set", "skepwg", "fwmark", "83", "peer", key, "preshared-key", secret]);
    await host(1).networks.repair();
    assert.equal(world.exec("h1", ["wg", "show", "skepwg", "preshared-keys"]).includes("(none)"), true);
    assert.equal(world.exec("h1", ["wg", "show", "skepwg", "fwmark"]).trim(), "off");
    // With it goes the link of the network: its frames have nowhere else to go.
    world.ip("h1", "link delete skepwg");
    await eventually(() => briefly(a1, b1.address).startsWith(b1.id));
    world.exec("h1", ["nft", "flush", "ruleset"]);
    await eventually(() => briefly(a1, b1.address).startsWith(b1.id));
    await eventually(async () => (await host(1).networks.differences()).length === 0);
  });

  test("published ports of an encrypted mesh lead through the tunnel, and the client's address is kept", async () => {
    const gateway = host(2).networks.sandboxes.get(b1.id)?.gatewayAddress ?? "";
    const web = { ...ingressService([meshPort("tcp", 8080, port)]), encrypted: true };
    await hosts.change(
      { kind: "service", key: "ingress/web", record: web },
      { kind: "endpoint", key: `ingress/${b1.id}`, record: taskOf(b1.id, 2, gateway) },
    );
    assert.match(world.ip("h1", "-d link show skepmesh"), /id 4095 .*dstport 4793/su);
    await eventually(() => world.getBriefly("near", "10.99.0.1", 8080).startsWith(`${b1.id} peer=10.99.0.100:`));
    assert.match(world.get("far", "10.99.0.2", 8080), new RegExp(`^${b1.id} peer=10\\.98\\.0\\.2:`));
    // No way leads there, and no other way is taken.
    assert.match(world.getBriefly("near", "10.99.0.3", 8080), /^ERR/);
    assert.match(world.getBriefly("h3", "127.0.0.1", 8080), /^ERR/);
  });

  test("on the switch nothing but WireGuard was seen of all that, and the open network's frames", async () => {
    world.attempt(a1.id, [world.probe, "send", b1.address, "7001", marker]);
    world.attempt(o1.id, [world.probe, "send", o2.address, "7001", "open-for-all"]);
    await eventually(() => readFileSync(captured).includes("open-for-all"));
    const ended = once(capture, "exit");
    capture.kill("SIGINT");
    await ended;
    assert.ok(!readFileSync(captured).includes(marker), "the secret is not on the switch");
    const read = (filter: string): string[] => {
      const { stdout } = spawnSync("tcpdump", ["-n", "-r", captured, filter], { encoding: "utf8" });
      return stdout.split("\n").filter((line) => line !== "");
    };
    const members = "host 10.99.0.1 and host 10.99.0.2";
    assert.ok(read(`${members} and udp port 2377`).length > 20, "the tunnel was used");
    const inClear = "udp port 4789 and udp[12:4] =";
    assert.ok(read(`${members} and ${inClear} 0x00100200`).length > 0, "the open network's frames were");
    assert.deepEqual(
      read(`net 10.99.0.0/29 and not host 10.99.0.254 and src net 10.99.0.0/29 and ${inClear} 0x00100100`),
      [],
    );
    assert.deepEqual(read(`udp port 4789 and udp[12:4] = 0x000fff00`), [], "nothing of the mesh");
    assert.deepEqual(read("src net 10.99.0.0/24 and dst net 100.64.0.0/10 and tcp"), [], "nor of where it leads");
  });

  test("when the last container has left, no tunnel is left, and the key stays", async () => {
    await hosts.change({ kind: "service", key: "ingress/web", record: undefined });
    await host(1).networks.sandboxes.release(a1.id);
    assert.match(world.ip("h1", "-d link show skepmesh"), /dstport 4789/u);
    assert.match(world.attempt("h1", ["ip", "link", "show", "skepwg"]), /does not exist/u);
    assert.match(ask(o1, o2.address), new RegExp(`^${o2.id} `));
    assert.equal(host(1).networks.enterTunnel("n1"), keys[0]);
  });
});

const injector = `const[to,port,data]=process.argv.slice(1);const s=require("dgram").createSocket("udp4");s.send(Buffer.from(data,"base64"),Number(port),to,(e)=>{if(e)console.log(String(e));s.close()})`;
const injectorFrom = `const[to,port,data,from]=process.argv.slice(1);const s=require("dgram").createSocket("udp4");s.bind(0,from,()=>s.send(Buffer.from(data,"base64"),Number(port),to,(e)=>{if(e)console.log(String(e));s.close()}))`;

interface Talk {
  readonly answers: string[];
  /** @returns the longest wait for an answer, what of it no busy machine explains, and answers that are none */
  end(): Promise<{ readonly longestMs: number; readonly calmMs: number; readonly errors: readonly string[] }>;
}

/** One tcp connection, asked again and again. */
function talking(world: NetWorld, from: Task, to: Task): Talk {
  const child = world.start(from.id, [world.probe, "hold", to.address, String(port), "-w", "15000"]);
  const answers: string[] = [];
  let [longestMs, longestCalmMs] = [0, 0];
  let taken = timeFromNow();
  let isOver = false;
  const next = (): void => {
    if (isOver) return;
    taken = timeFromNow();
    child.stdin?.write("\n");
  };
  createInterface({ input: child.stdout! }).on("line", (line) => {
    answers.push(line);
    const { ms, calmMs = 0 } = taken();
    longestMs = Math.max(longestMs, ms);
    longestCalmMs = Math.max(longestCalmMs, calmMs);
    setTimeout(next, 10);
  });
  next();
  return {
    answers,
    end: async () => {
      isOver = true;
      world.end(child);
      await once(child, "exit");
      const errors = answers.filter((line) => !line.startsWith(to.id));
      return { longestMs, calmMs: longestCalmMs, errors };
    },
  };
}
