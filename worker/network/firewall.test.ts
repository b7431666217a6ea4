import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createLogger, silentLogger } from "../../lib/runtime/index.ts";
import { Firewall, type RunCommand } from "./firewall.ts";

/** A host whose programs answer by the beginning of their command line. */
function host(answers: Readonly<Record<string, string | number>>): { run: RunCommand; asked: string[] } {
  const asked: string[] = [];
  const run: RunCommand = async (program, args) => {
    const line = [program, ...args].join(" ");
    asked.push(line);
    const found = Object.entries(answers).find(([beginning]) => line.startsWith(beginning))?.[1];
    if (found === undefined) return { status: undefined, output: "" };
    return typeof found === "number" ? { status: found, output: "refused\n" } : { status: 0, output: found };
  };
  return { run, asked };
}

const dropping = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n";
const none = async (): Promise<string> => "";

describe("peace with the host's firewalls", () => {
  test("a host without any is left alone", async () => {
    const { run } = host({});
    const firewall = new Firewall({ run, legacyTables: none, logger: silentLogger });
    assert.deepEqual(await firewall.settle({ dataPort: 4789, link: "eth0", family: "ip" }), {
      repairs: [],
      findings: [],
      policesForwarding: false,
    });
  });

  test("legacy iptables is asked only where it is in use, since asking loads it", async () => {
    const answers = { "iptables --version": "iptables v1.8.9 (nf_tables)", "iptables -S": dropping, "iptables -w": "" };
    const plain = host(answers);
    const report = await new Firewall({ run: plain.run, legacyTables: none, logger: silentLogger }).settle(undefined);
    assert.equal(report.policesForwarding, true);
    assert.equal(report.repairs.length, 2);
    assert.ok(!plain.asked.some((line) => line.startsWith("iptables-legacy")));
    const both = host({ ...answers, "iptables-legacy -S": dropping, "iptables-legacy -w": 4 });
    const legacyTables = async (): Promise<string> => "nat\nfilter\n";
    const found = await new Firewall({ run: both.run, legacyTables, logger: silentLogger }).settle(undefined);
    assert.equal(found.repairs.length, 2);
    assert.match(found.findings[0] ?? "", /^iptables-legacy -I FORWARD 1 -o skep\+ -j ACCEPT: refused$/);
  });

  test("where frames go by IPv6 the rules of it are looked at, too, each backend only where it is in use", async () => {
    const version = "v1.8.9 (nf_tables)";
    const answers = {
      "iptables --version": version,
      "iptables -S": dropping.replace("DROP", "ACCEPT"),
      "ip6tables --version": version,
    };
    const { run, asked } = host({
      ...answers,
      "ip6tables -S": dropping.replace("INPUT ACCEPT", "INPUT DROP"),
      "ip6tables -w": "",
    });
    const legacyTables = async (family: "ip" | "ip6"): Promise<string> => (family === "ip" ? "filter\n" : "");
    const firewall = new Firewall({ run, legacyTables, logger: silentLogger });
    const { repairs, findings, policesForwarding } = await firewall.settle({
      dataPort: 4789,
      link: "eth0",
      family: "ip6",
    });
    assert.deepEqual(findings, []);
    assert.equal(policesForwarding, false, "of IPv6 that this host routes our table decides by itself");
    assert.ok(repairs.includes("ip6tables -I INPUT 1 -p udp -m udp --dport 4789 -j ACCEPT"), repairs.join("\n"));
    assert.ok(repairs.includes("ip6tables -I FORWARD 1 -i skep+ -j ACCEPT"));
    assert.ok(asked.includes("iptables-legacy -S -w 5") && !asked.some((line) => line.startsWith("ip6tables-legacy")));
    const before = asked.length;
    await firewall.settle({ dataPort: 4789, link: "eth0", family: "ip" });
    assert.ok(!asked.slice(before).some((line) => line.startsWith("ip6tables")));
  });

  test("a running firewalld gets our links into its zone trusted, and VXLAN into the zone of its link, once", async () => {
    const answers: Record<string, string | number> = {
      "firewall-cmd --state": "running",
      "firewall-cmd --zone trusted --query-interface": 1,
      "firewall-cmd --zone trusted --change-interface=skep+": "success",
      "firewall-cmd --get-zone-of-interface=eth0": 2,
      "firewall-cmd --get-default-zone": "public\n",
      "firewall-cmd --zone public --query-port": 1,
      "firewall-cmd --zone public --add-port=4789/udp": "success",
    };
    const { run } = host(answers);
    const firewall = new Firewall({ run, legacyTables: none, logger: silentLogger });
    const links = "firewall-cmd --zone trusted --change-interface=skep+";
    assert.deepEqual((await firewall.settle(undefined)).repairs, [links]);
    const cluster = { dataPort: 4789, link: "eth0", family: "ip" } as const;
    assert.deepEqual((await firewall.settle(cluster)).repairs, [
      links,
      "firewall-cmd --zone public --add-port=4789/udp",
    ]);
    answers["firewall-cmd --get-zone-of-interface=eth0"] = "work\n";
    answers["firewall-cmd --zone work --query-port"] = 1;
    answers["firewall-cmd --zone work --add-port"] = 3;
    assert.deepEqual((await firewall.settle(cluster)).findings, [
      "firewall-cmd --zone work --add-port=4789/udp: refused",
    ]);
    answers["firewall-cmd --zone trusted --query-interface"] = "yes";
    answers["firewall-cmd --zone work --query-port"] = "yes";
    assert.deepEqual(await firewall.settle(cluster), { repairs: [], findings: [], policesForwarding: false });
  });

  test("a table of nft that drops is told, once, and not touched", async () => {
    const chain = (table: string, policy: string, hook = "forward") => ({
      chain: { family: "inet", table, name: "forward", hook, policy },
    });
    const mine = chain("mine", "drop");
    const nftables = [{ metainfo: {} }, mine, chain("skep", "drop"), chain("other", "accept")];
    const { run, asked } = host({
      "nft --json list chains": JSON.stringify({ nftables }),
      "nft --json list table inet mine": JSON.stringify({ nftables: [mine] }),
      "nft --json list table inet other": JSON.stringify({ nftables: [chain("other", "accept")] }),
    });
    const lines: string[] = [];
    const logger = createLogger({ destination: { write: (line) => void lines.push(line) } });
    const firewall = new Firewall({ run, legacyTables: none, logger });
    const { findings } = await firewall.settle(undefined);
    assert.deepEqual(findings, [
      "chain forward of the nftables table inet mine drops what it does not accept, and so the way out of containers, " +
        'published ports: add `iifname "skep*" accept` and `oifname "skep*" accept`',
    ]);
    await firewall.settle(undefined);
    assert.equal(lines.length, 1);
    assert.ok(asked.every((line) => !line.startsWith("nft -f")));
  });

  test("a rule of nft that rejects is told as nft prints it", async () => {
    const base = { chain: { family: "inet", table: "theirs", name: "in", hook: "input", policy: "accept" } };
    const rule = { rule: { family: "inet", table: "theirs", chain: "in", handle: 7, expr: [{ reject: null }] } };
    const { run } = host({
      "nft --json list": JSON.stringify({ nftables: [base, rule] }),
      "nft --handle list chain inet theirs in": "table inet theirs {\n\tchain in { # handle 1\n\t\treject # handle 7\n",
    });
    const firewall = new Firewall({ run, legacyTables: none, logger: silentLogger });
    const where = "(handle 7 in chain in of the nftables table inet theirs)";
    assert.deepEqual((await firewall.settle({ dataPort: 4789, link: "eth0", family: "ip" })).findings, [
      `\`reject\` ${where} stops VXLAN between nodes (UDP port 4789), names that containers ask for (port 53): have ` +
        '`udp dport 4789 accept` and `iifname "skep*" udp dport 53 accept` before that',
    ]);
  });
});
