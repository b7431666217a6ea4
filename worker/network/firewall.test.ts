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
    assert.deepEqual(await firewall.settle(4789), { repairs: [], findings: [], policesForwarding: false });
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

  test("a running firewalld gets our links into its zone trusted, once", async () => {
    const answers: Record<string, string | number> = {
      "firewall-cmd --state": "running",
      "firewall-cmd --zone trusted --query-interface": 1,
      "firewall-cmd --zone trusted --change-interface skep+": "success",
    };
    const { run } = host(answers);
    const firewall = new Firewall({ run, legacyTables: none, logger: silentLogger });
    assert.deepEqual((await firewall.settle(undefined)).repairs, [
      "firewall-cmd --zone trusted --change-interface skep+",
    ]);
    answers["firewall-cmd --zone trusted --query-interface"] = "yes";
    assert.deepEqual((await firewall.settle(undefined)).repairs, []);
  });

  test("a table of nft that drops is told, once, and not touched", async () => {
    const chain = (table: string, policy: string, hook = "forward") => ({
      chain: { family: "inet", table, name: "forward", hook, policy },
    });
    const nftables = [{ metainfo: {} }, chain("mine", "drop"), chain("skep", "drop"), chain("other", "accept")];
    const { run, asked } = host({ "nft --json list chains": JSON.stringify({ nftables }) });
    const lines: string[] = [];
    const logger = createLogger({ destination: { write: (line) => void lines.push(line) } });
    const firewall = new Firewall({ run, legacyTables: none, logger });
    const { findings } = await firewall.settle(undefined);
    assert.equal(findings.length, 1);
    assert.match(findings[0] ?? "", /chain forward of the nftables table inet mine drops/);
    await firewall.settle(undefined);
    assert.equal(lines.length, 1);
    assert.ok(asked.every((line) => !line.startsWith("nft -f")));
  });
});
