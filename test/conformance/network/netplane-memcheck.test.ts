/** netplane under valgrind, through one of everything that it does; the sanitizers run the whole of netplane.test.ts. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readlinkSync } from "node:fs";
import { resolve } from "node:path";
import { test } from "node:test";

import { NetplaneRefused } from "../../../worker/network/netplane-errors.ts";
import type { ElementSet } from "../../../worker/network/netplane-types.ts";
import { nativeBuild, NetplaneHost } from "./netplane-host.ts";

const skip = process.getuid?.() !== 0 ? "needs root" : existsSync("/usr/bin/valgrind") ? false : "needs valgrind";
const set: ElementSet = {
  family: "ip",
  table: "skep",
  name: "be",
  key: ["ipv4_addr", "integer"],
  data: ["ipv4_addr"],
};

/** RFC 7748 §6.1. */
const key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const noTunnels = ["EOPNOTSUPP", "ENODEV", "ENOENT"] as const;

void test("valgrind finds no error and no leak in netplane", { skip, timeout: 240_000 }, async () => {
  execFileSync("/usr/bin/make", ["-s", "-C", resolve(nativeBuild, ".."), "build/valgrind/netplane"], {
    stdio: "inherit",
  });
  const host = await NetplaneHost.open((folder) => [
    "valgrind",
    "-q",
    "--leak-check=full",
    "--show-leak-kinds=all",
    "--errors-for-leak-kinds=all",
    "--child-silent-after-fork=yes", // what libnftables leaves behind in its process is not ours
    `--log-file=${folder}/report`,
    resolve(nativeBuild, "valgrind/netplane"),
  ]);
  try {
    const { netplane } = host;
    const path = host.path("n");
    const other = host.path("o");
    await netplane.run("", [
      { op: "namespace-add", path },
      { op: "namespace-add", path: other },
    ]);
    await netplane.run(path, [
      { op: "watch" },
      { op: "link-set", name: "lo", up: true },
      { op: "link-add", kind: "veth", name: "v", alias: "skep:v", up: true, peer: { name: "e", namespace: other } },
      { op: "link-add", kind: "vxlan", name: "vx", vni: 7, local: "127.0.0.1", alias: "skep:vx" },
      { op: "fdb-set", mac: "02:fe:00:00:00:02", link: "vx", destination: "10.99.0.2" },
      { op: "neighbour-set", address: "10.0.1.2", mac: "02:fe:00:00:00:02", link: "v" },
      { op: "address-set", address: "10.0.1.1/32", link: "v" },
      { op: "route-add", destination: "10.0.1.2/32", link: "v" },
      { op: "rule-add", preference: 9, mark: 1, table: 9 },
      { op: "link-set", name: "v", rename: "w" },
      { op: "sysctl-write", name: "net/ipv4/ip_forward", value: "1" },
      { op: "sysctl-read", name: "net/ipv4/ip_forward" },
      { op: "ruleset", text: "table ip skep {\n map be { type ipv4_addr . mark : ipv4_addr; }\n}" },
      { op: "ruleset-list", family: "ip", table: "skep" },
      { op: "elements", set, add: Array.from({ length: 2000 }, (_, at) => `10.0.1.100 . ${at} : 10.0.1.11`) },
      { op: "elements", set, ignore: ["ENOENT"], delete: ["10.0.1.100 . 7", "10.0.1.100 . 9999"] },
      { op: "elements-list", set },
      { op: "generation" },
      { op: "connections-delete", originalDestination: "10.0.1.100" },
      { op: "port-reserve", protocol: "tcp", port: 80 },
      { op: "port-reserve", protocol: "udp", port: 80, address: "127.0.0.1" },
      { op: "port-release", protocol: "tcp", port: 80 },
      { op: "dump", what: ["links", "addresses", "routes", "neighbours", "fdb", "rules"], all: true },
      { op: "link-settle", name: "w" },
      { op: "wireguard-probe" },
      // Done where the kernel has WireGuard, refused where it has none; both are walked through (test/vm, npm test).
      { op: "link-add", kind: "wireguard", name: "wg", ignore: ["EOPNOTSUPP"] },
      { op: "wireguard-set", link: "wg", privateKey: key, listenPort: 2377, ignore: noTunnels },
      { op: "wireguard-peer-set", link: "wg", publicKey: key, allowed: ["100.64.7.255/32"], ignore: noTunnels },
      { op: "wireguard-list", link: "wg", ignore: noTunnels },
      { op: "wireguard-peer-delete", link: "wg", publicKey: key, ignore: noTunnels },
    ]);
    for (const operation of [
      { op: "ruleset", text: "bogus" },
      { op: "route-add", destination: "10.0.1.2/32", link: "w" },
      { op: "elements", set, delete: ["10.0.1.100 . 7"] },
      { op: "link-set", name: "a b" },
    ] as const)
      await assert.rejects(netplane.run(path, [operation]), NetplaneRefused);
    host.sh(path, "ip route del 10.0.1.2/32");
    assert.deepEqual(await host.changes(), [{ namespace: path, kinds: ["route"] }]);
    await netplane.run("", [{ op: "namespace-delete", path: other }]);
    // This build holds 32 namespaces open.
    const many = Array.from({ length: 40 }, (_, at) => host.path(`n${at}`));
    for (const one of many) await netplane.run("", [{ op: "namespace-add", path: one }]);
    for (const one of [...many, ...many]) await netplane.run(one, [{ op: "link-set", name: "lo", up: true }]);
    assert.deepEqual((await netplane.run(path, [{ op: "sysctl-read", name: "net/ipv4/ip_forward" }]))[0], "1");
    assert.match(readlinkSync(`/proc/${host.pid()}/exe`), /valgrind/);
  } finally {
    await host.close(); // throws what valgrind reports
  }
});
