/**
 * Encrypted overlays and an encrypted mesh over hosts whose nodes reach each other by IPv6: the tunnel's own packets go by it,
 * and nothing else leaves a host. What is inside of the tunnel does not know, and encrypted.test.ts tells of that.
 */
import assert from "node:assert/strict";
import { spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import type { PeerRecord } from "../../../worker/network/contract.ts";
import {
  ingressService,
  meshPort,
  NetHosts,
  overlayEndpoint,
  overlayOf,
  overlayTask,
  peerOf,
  taskOf,
  whyNoTunnels,
} from "./net-host.ts";
import { eventually, type NetWorld } from "./world.ts";

const secret = overlayOf("secret", 4097, { encrypted: true });
const port = 7000;
/** An emulated machine on a busy one. */
const patienceMs = 100_000;
/** What must never be seen on the switch. */
const marker = "nobody-else-may-read-this";
const a1 = overlayTask("a1", secret, 1, 11);
const b1 = overlayTask("b1", secret, 2, 21);
const own = (number: number): string => `fd99::${number}`;

describe(
  "encrypted overlays over hosts that reach each other by IPv6",
  { skip: whyNoTunnels(), timeout: 600_000 },
  () => {
    let hosts: NetHosts;
    let world: NetWorld;
    let capture: ChildProcess;
    let captured = "";

    before(async () => {
      hosts = await NetHosts.open("skepwi6", 2, async (built) => {
        for (const [name, address] of [["h1", own(1)] as const, ["h2", own(2)] as const, ["near", "fd99::64"] as const])
          built.ip(name, `addr add ${address}/64 dev eth0 nodad`);
        captured = join(built.folder, "switch.pcap");
        capture = built.start("sw", ["tcpdump", "-i", "any", "-U", "-s", "0", "-w", captured]);
        await new Promise((resolve) => capture.stderr?.once("data", resolve));
      });
      ({ world } = hosts);
      const peers = [1, 2].map((number): PeerRecord => {
        const publicKey = hosts.host(number).networks.enterTunnel(`n${number}`) ?? "";
        return { ...peerOf(number), addr: own(number), addresses6: [own(number)], publicKey };
      });
      await hosts.replace([overlayEndpoint(a1), overlayEndpoint(b1)], [], peers);
      for (const one of [a1, b1]) await hosts.attachTask(one, port);
    });
    after(() => hosts.close());

    test("containers of two hosts reach each other by tcp and udp, through a tunnel that goes by IPv6", async () => {
      for (const [from, to] of [
        [a1, b1],
        [b1, a1],
      ] as const) {
        for (const protocol of [[], ["-u"]]) {
          // The first packet waits for a handshake.
          const expected = new RegExp(`^${to.id} peer=${from.address.replaceAll(".", "\\.")}:`);
          await eventually(() => expected.test(world.getBriefly(from.id, to.address, port, ...protocol)), patienceMs);
        }
      }
      assert.match(world.exec("h1", ["wg", "show", "skepwg", "endpoints"]), /\t\[fd99::2\]:2377$/mu);
      assert.deepEqual(await hosts.host(1).networks.differences(), [], "what the kernel has is what is wanted");
    });

    test("packets as long as the network carries go through whole: 20 bytes less than by IPv4", async () => {
      assert.match(world.ip(a1.id, "link show eth0"), / mtu 1370 /);
      assert.match(world.ip("h1", "link show skepwg"), / mtu 1420 /);
      const receiver = await world.receive(b1.id, 7001);
      const text = `${marker}${"x".repeat(1370 - 28 - marker.length)}`;
      world.exec(a1.id, [world.probe, "send", b1.address, "7001", text]);
      await receiver.until(text);
      await receiver.end();
    });

    test("published ports of an encrypted mesh lead through it, too, from clients of both families", async () => {
      const gateway = hosts.host(2).networks.sandboxes.get(b1.id)?.gatewayAddress ?? "";
      await world.serve(b1.id, 7010, "::");
      const both = { ...ingressService([meshPort("tcp", 8080, port), meshPort("tcp", 8081, 7010)]), encrypted: true };
      await hosts.change(
        { kind: "service", key: "ingress/web", record: { ...both, has6: true } },
        { kind: "endpoint", key: `ingress/${b1.id}`, record: taskOf(b1.id, 2, gateway) },
      );
      assert.match(world.ip("h1", "-d link show skepmesh"), /mtu 1370 .*id 4095 .*dstport 4793/su);
      await eventually(
        () => world.getBriefly("near", "10.99.0.1", 8080).startsWith(`${b1.id} peer=10.99.0.100:`),
        patienceMs,
      );
      await eventually(
        () => world.getBriefly("near", own(1), 8081).startsWith(`${b1.id} peer=[fd99::64]:`),
        patienceMs,
      );
    });

    test("between the hosts nothing but WireGuard was seen of all that", async () => {
      const ended = once(capture, "exit");
      capture.kill("SIGINT");
      await ended;
      assert.ok(!readFileSync(captured).includes(marker), "the secret is not on the switch");
      const read = (filter: string): string[] => {
        const { stdout } = spawnSync("tcpdump", ["-n", "-r", captured, filter], { encoding: "utf8" });
        return stdout.split("\n").filter((line) => line !== "");
      };
      const members = "host fd99::1 and host fd99::2";
      assert.ok(read(`${members} and udp port 2377`).length > 20, "the tunnel was used");
      assert.deepEqual(read(`${members} and not udp port 2377 and not icmp6`), []);
      assert.deepEqual(read("udp port 4789 or udp port 4793"), []);
    });
  },
);
