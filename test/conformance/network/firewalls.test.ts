/**
 * Other firewalls on a host of ours: what Docker leaves in iptables, ufw, firewalld, and an operator's own nftables, each as
 * the real program makes it, in the host's namespace. Overlays and the mesh work, or it is said which rule stops them and
 * what to do, and doing that helps. Nothing of theirs is changed.
 */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { whySkipped } from "../containers/host.ts";
import {
  ingressService,
  meshPort,
  NetHosts,
  overlayEndpoint,
  overlayOf,
  overlayTask,
  taskOf,
  type NetHost,
} from "./net-host.ts";
import type { NetWorld } from "./world.ts";

const network = overlayOf("green", 4097);
const t1 = overlayTask("t1", network, 1, 11);
const t2 = overlayTask("t2", network, 2, 21);
/** firewalld and ufw are programs in Python, which start others by the dozen. */
const patienceMs = 60_000;

const needs = (...files: readonly string[]): string | false => {
  const missing = files.filter((file) => !existsSync(file));
  return missing.length === 0 ? false : `needs ${missing.join(" and ")}, which npm run setup brings`;
};
/** Not installed: see deploy/setup.mjs. */
const firewalldFiles = join(import.meta.dirname, "../../../build/packages/firewalld");
const firewalldPrograms = ["firewalld", "firewall-cmd"].map((name) =>
  join(firewalldFiles, `usr/${name === "firewalld" ? "sbin" : "bin"}/${name}`),
) as [string, string];

describe("with another firewall on the host", { skip: whySkipped(), timeout: 400_000 }, () => {
  let hosts: NetHosts;
  let world: NetWorld;
  /** The host with the firewall, and its name. */
  let guarded: NetHost;
  const where = "h2";

  before(async () => {
    hosts = await NetHosts.open("skepfw", 2, (built) => built.serve("far", 81));
    ({ world } = hosts);
    guarded = hosts.host(2);
    const ingress = ingressService([meshPort("tcp", 8080), meshPort("udp", 8080)]);
    await hosts.replace(
      [t1, t2].map((one) => overlayEndpoint(one)),
      [ingress],
    );
    await hosts.attachTask(t1, 80);
    // The task behind the firewall serves what is published.
    const { gatewayAddress = "" } = await hosts.attachTask(t2, 80);
    const record = taskOf(t2.id, t2.host, gatewayAddress);
    await hosts.change({ kind: "endpoint", key: `ingress/${t2.id}`, record });
    await check();
    assert.deepEqual(await failing(), []);
  });
  after(() => hosts.close());

  const check = (): Promise<void> => guarded.host.check(guarded.networks);

  /** What does not work: overlay in both directions, mesh through both hosts, the way out. */
  async function failing(): Promise<readonly string[]> {
    const ways = [
      ["overlay in", t1.id, t2.address, 80],
      ["overlay out", t2.id, t1.address, 80],
      ["mesh through the other host", "far", "10.99.0.1", 8080],
      ["mesh through this host", "far", "10.99.0.2", 8080],
      ["from the host itself", where, "10.99.0.2", 8080],
      ["the way out", t2.id, "10.98.0.2", 81],
    ] as const;
    const asked = ways.flatMap(([what, from, address, port]) =>
      [[], ["-u"]].map(async (udp) => {
        const answer = await world.getSoon(from, address, port, ...udp);
        return answer.includes("peer=") ? [] : [`${what}${udp.join("")}: ${answer}`];
      }),
    );
    return (await Promise.all(asked)).flat();
  }

  async function allWorks(): Promise<void> {
    const untilMs = performance.now() + patienceMs;
    let left = await failing();
    while (left.length > 0 && performance.now() < untilMs) left = await failing();
    assert.deepEqual(left, []);
  }

  const inside = (...command: readonly string[]): string => world.exec(where, command);
  /** Rules without what they have counted. */
  const iptables = (): string[] => inside("iptables", "-S").trim().split("\n");
  const isOurs = (line: string): boolean => /skep\+|--dport (?:4789|2377)/.test(line);

  test("of Docker: its chain for others lets our links pass, and nothing else of it is changed", async () => {
    inside(
      "sh",
      "-c",
      `iptables-restore <<'END'
*filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
END`,
    );
    try {
      const before = iptables();
      assert.notDeepEqual(await failing(), [], "it is in the way");
      await check();
      await allWorks();
      assert.deepEqual(guarded.host.firewallFindings, []);
      const now = iptables();
      assert.deepEqual(
        now.filter((line) => !isOurs(line)),
        before,
      );
      assert.deepEqual(now.filter(isOurs), ["-A DOCKER-USER -i skep+ -j ACCEPT", "-A DOCKER-USER -o skep+ -j ACCEPT"]);
    } finally {
      removeIptables();
    }
  });

  /** Both, without asking the old one where it is not in use. */
  function removeIptables(): void {
    for (const table of ["filter", "nat", "mangle", "raw"]) {
      for (const program of ["iptables", "ip6tables"]) {
        inside("sh", "-c", `${program} -t ${table} -F; ${program} -t ${table} -X; true`);
      }
    }
    for (const program of ["iptables", "ip6tables"]) {
      for (const chain of ["INPUT", "FORWARD", "OUTPUT"]) inside(program, "-P", chain, "ACCEPT");
    }
  }

  test("of ufw: enabled as it comes, and reloaded", { skip: needs("/usr/sbin/ufw") }, async () => {
    // Its own folder, so that the machine's stays as it is.
    const folder = join(world.folder, "ufw");
    cpSync("/etc/ufw", folder, { recursive: true });
    const ufw = (...words: readonly string[]): string =>
      inside("unshare", "--mount", "sh", "-c", `mount --bind ${folder} /etc/ufw && ufw ${words.join(" ")}`);
    try {
      ufw("--force", "enable");
      const before = iptables();
      assert.ok(before.includes("-P FORWARD DROP") && before.includes("-P INPUT DROP"), before.join("\n"));
      assert.notDeepEqual(await failing(), [], "it is in the way");
      await check();
      await allWorks();
      assert.deepEqual(guarded.host.firewallFindings, []);
      assert.deepEqual(
        iptables().filter((line) => !isOurs(line)),
        before,
      );
      ufw("allow", "22/tcp");
      ufw("reload");
      await check();
      await allWorks();
      const settled = iptables();
      await check();
      assert.deepEqual(iptables(), settled, "a second look changes nothing");
    } finally {
      ufw("--force", "disable");
      removeIptables();
    }
  });

  describe("of firewalld", { skip: needs(...firewalldPrograms, "/usr/bin/dbus-daemon") }, () => {
    const children: ChildProcess[] = [];
    const path = process.env["PATH"] ?? "";
    const language = process.env["LC_ALL"];
    let folder = "";

    /** In its namespace, with a bus and a configuration of its own. */
    const start = (program: string, ...args: readonly string[]): ChildProcess => {
      const child = spawn("nsenter", [`--net=${world.path(where)}`, "--", program, ...args], { stdio: "ignore" });
      children.push(child);
      return child;
    };
    const answers = async (...command: readonly string[]): Promise<void> => {
      const untilMs = performance.now() + patienceMs;
      while (!/^(?:running|yes)/.test(world.attempt(where, command))) {
        assert.ok(performance.now() < untilMs, `${command.join(" ")}: ${world.attempt(where, command)}`);
      }
    };
    const end = async (): Promise<void> => {
      for (const child of children.splice(0).toReversed()) {
        const ended = once(child, "exit");
        child.kill("SIGKILL");
        await ended;
      }
    };

    before(async () => {
      folder = join(world.folder, "firewalld");
      cpSync(join(firewalldFiles, "etc/firewalld"), join(folder, "etc"), { recursive: true });
      process.env["PATH"] = `${join(firewalldFiles, "usr/bin")}:${path}`;
      // It says how it is in the language of whoever asks.
      process.env["LC_ALL"] = "C";
      const bus = `unix:path=${folder}/bus`;
      const rules = `<allow own="*"/><allow send_destination="*"/><allow eavesdrop="true"/><allow user="*"/>`;
      writeFileSync(
        `${folder}/bus.conf`,
        `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd"><busconfig><type>system</type><listen>${bus}</listen><auth>EXTERNAL</auth><policy context="default">${rules}</policy></busconfig>`,
      );
      process.env["DBUS_SYSTEM_BUS_ADDRESS"] = bus;
      start("dbus-daemon", `--config-file=${folder}/bus.conf`, "--nofork", "--nopidfile");
      const untilMs = performance.now() + patienceMs;
      while (!existsSync(`${folder}/bus`)) {
        assert.ok(performance.now() < untilMs, "no bus");
        await new Promise((resolve) => setImmediate(resolve));
      }
      const configured = [`--default-config=${firewalldFiles}/usr/lib/firewalld`, `--system-config=${folder}/etc`];
      start(firewalldPrograms[0], "--nofork", "--nopid", ...configured, `--log-file=${folder}/log`);
      await answers("firewall-cmd", "--state");
    });
    after(async () => {
      await end();
      delete process.env["DBUS_SYSTEM_BUS_ADDRESS"];
      if (language === undefined) delete process.env["LC_ALL"];
      else process.env["LC_ALL"] = language;
      process.env["PATH"] = path;
      inside("sh", "-c", "nft delete table inet firewalld; true");
    });

    test("running: our links and VXLAN pass, also after it was reloaded", async () => {
      assert.notDeepEqual(await failing(), [], "it is in the way");
      await check();
      await allWorks();
      assert.deepEqual(guarded.host.firewallFindings, []);
      inside("firewall-cmd", "--reload");
      await check();
      await allWorks();
      assert.equal(inside("firewall-cmd", "--zone", "public", "--list-ports").trim(), "4789/udp");
    });

    test("ended, with its rules left: which rule stops what is told, and what it says helps", async () => {
      inside("firewall-cmd", "--reload");
      await end();
      assert.notDeepEqual(await failing(), [], "it is in the way");
      await check();
      const told = guarded.host.firewallFindings;
      assert.equal(told.length, 2, told.join("\n"));
      for (const one of told) {
        assert.match(
          one,
          /^`reject with icmpx admin-prohibited` \(handle \d+ in chain \w+ of the nftables table inet fire/,
        );
      }
      const [input = "", forward = ""] = told.toSorted(
        (a, b) => Number(b.includes("VXLAN")) - Number(a.includes("VXLAN")),
      );
      assert.match(
        input,
        /chain filter_IN\w+ .* stops VXLAN between nodes \(UDP port 4789\), names that containers ask for/,
      );
      assert.match(
        forward,
        /chain filter_FW\w+ .* stops what other nodes send to containers, .*the way out of containers/,
      );
      obey(told);
      await check();
      assert.deepEqual(guarded.host.firewallFindings, []);
      await allWorks();
    });
  });

  /** Does what is told, as an operator would. */
  function obey(told: readonly string[]): void {
    const whole = told.join("\n");
    for (const one of told) {
      const [, chain = "", family = "", table = ""] = /chain (\S+) of the nftables table (\S+) (\w+)/.exec(one) ?? [];
      for (const rule of whole.match(/(?:udp dport 4789|[io]ifname "skep\*"(?: udp dport 53)?) accept/g) ?? []) {
        if (one.includes(rule)) inside("nft", "insert", "rule", family, table, chain, rule);
      }
    }
  }

  test("of the operator's own in nftables: what stops us is told, and what is told helps", async () => {
    inside(
      "nft",
      `table inet filter {
        chain input {
          type filter hook input priority 0; policy drop;
          ct state established,related accept
          iif lo accept
          tcp dport { 22, 2377 } accept
        }
        chain forward { type filter hook forward priority 0; policy drop; }
      }`,
    );
    try {
      const before = inside("nft", "list", "table", "inet", "filter");
      assert.notDeepEqual(await failing(), []);
      await check();
      assert.equal(inside("nft", "list", "table", "inet", "filter"), before, "it is not ours to change");
      const told = guarded.host.firewallFindings;
      assert.match(
        told.join("\n"),
        /chain input of the nftables table inet filter drops .* VXLAN .*add `udp dport 4789 accept`/,
      );
      assert.match(
        told.join("\n"),
        /chain forward of the nftables table inet filter drops .*add `iifname "skep\*" accept`/,
      );
      obey(told);
      await check();
      assert.deepEqual(guarded.host.firewallFindings, []);
      await allWorks();
    } finally {
      inside("nft", "delete", "table", "inet", "filter");
    }
  });
});
