/**
 * Peace with other firewalls of the host: iptables (Docker, ufw, whoever), firewalld. They are looked at when skepd starts
 * and every minute, since others put their rules back as they like; only what is missing is put in. What still stops us in
 * tables of nft is nobody's to change, and told rule by rule.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";

import { unreachable } from "../../lib/pure/errors.ts";
import type { Logger } from "../../lib/runtime/index.ts";
import { flowsOf, refusals, type ClusterPath, type Flow, type Refusal } from "./core/foreign-rules.ts";
import { hasForwardPolicy, iptablesRepairs, linkWildcard, readListing } from "./core/firewall-plan.ts";
import { hostTable, underlayTable } from "./core/names.ts";

export interface CommandOutcome {
  /** undefined: there is no such program. */
  readonly status: number | undefined;
  readonly output: string;
}

/** A program of the host, run to its end in bounded time. */
export type RunCommand = (program: string, args: readonly string[]) => Promise<CommandOutcome>;

type Family = ClusterPath["family"];

export interface FirewallReport {
  /** What was put in now. */
  readonly repairs: readonly string[];
  /** What still stands in the way, in words for the operator. */
  readonly findings: readonly string[];
  /** Another firewall decides what this host routes for others. */
  readonly policesForwarding: boolean;
}

export interface FirewallOptions {
  readonly run?: RunCommand;
  /** Names of legacy tables in use, as /proc/net/ip_tables_names and ip6_tables_names have them. */
  readonly legacyTables?: (family: Family) => Promise<string>;
  readonly logger: Logger;
}

export class Firewall {
  readonly #run: RunCommand;
  readonly #legacyTables: (family: Family) => Promise<string>;
  readonly #logger: Logger;
  #told = "";

  constructor({ run = runProgram, legacyTables = readLegacyTables, logger }: FirewallOptions) {
    this.#run = run;
    this.#legacyTables = legacyTables;
    this.#logger = logger;
  }

  /** @param cluster  undefined: in no swarm */
  async settle(cluster: ClusterPath | undefined): Promise<FirewallReport> {
    const repairs: string[] = [];
    const findings: string[] = [];
    let policesForwarding = false;
    // Those of IPv6 only where frames between nodes come by it.
    for (const family of cluster?.family === "ip6" ? (["ip", "ip6"] as const) : (["ip"] as const)) {
      for (const program of await this.#iptables(family)) {
        // Another program may just hold the lock that the old ones share.
        const listed = await this.#run(program, ["-S", "-w", "5"]);
        if (listed.status !== 0) continue;
        const listing = readListing(listed.output);
        policesForwarding ||= family === "ip" && hasForwardPolicy(listing);
        for (const args of iptablesRepairs(listing, cluster?.dataPort)) {
          const { status, output } = await this.#run(program, ["-w", "5", ...args]);
          const words = `${program} ${args.join(" ")}`;
          if (status === 0) repairs.push(words);
          else findings.push(`${words}: ${firstLine(output)}`);
        }
      }
    }
    await this.#firewalld(cluster, repairs, findings);
    findings.push(...(await this.#refusals(flowsOf(cluster))));
    this.#tell(repairs, findings);
    return { repairs, findings, policesForwarding };
  }

  /** The two backends do not see each other's rules; a host may use both. Asking the old one would load it. */
  async #iptables(family: Family): Promise<string[]> {
    const program = `${family}tables`;
    const programs: string[] = [];
    const plain = await this.#run(program, ["--version"]);
    if (plain.status === undefined) return [];
    const isLegacy = /legacy/.test(plain.output) || !/nf_tables/.test(plain.output);
    const usesLegacy = /\bfilter\b/.test(await this.#legacyTables(family));
    if (!isLegacy || usesLegacy) programs.push(program);
    const other = isLegacy ? `${program}-nft` : `${program}-legacy`;
    if (isLegacy || usesLegacy) programs.push(other);
    return programs;
  }

  /**
   * Its zone `trusted` lets our links pass; what may pass them is decided in our own table. VXLAN comes in by the zone of the
   * link between nodes, and who may send it is in our table as well. Until its next reload.
   */
  async #firewalld(cluster: ClusterPath | undefined, repairs: string[], findings: string[]): Promise<void> {
    const ask = (...args: readonly string[]): Promise<CommandOutcome> => this.#run("firewall-cmd", args);
    if ((await ask("--state")).status !== 0) return;
    const settle = async (zone: string, query: string, change: string): Promise<void> => {
      if ((await ask("--zone", zone, query)).status === 0) return;
      const { status, output } = await ask("--zone", zone, change);
      const words = `firewall-cmd --zone ${zone} ${change}`;
      if (status === 0) repairs.push(words);
      else findings.push(`${words}: ${firstLine(output)}`);
    };
    await settle("trusted", `--query-interface=${linkWildcard}`, `--change-interface=${linkWildcard}`);
    if (cluster === undefined) return;
    const bound = await ask(`--get-zone-of-interface=${cluster.link}`);
    const { output } = cluster.link !== "" && bound.status === 0 ? bound : await ask("--get-default-zone");
    const zone = firstLine(output);
    if (zone !== "") await settle(zone, `--query-port=${cluster.dataPort}/udp`, `--add-port=${cluster.dataPort}/udp`);
  }

  /** By tables of nft. Those of iptables were dealt with. */
  async #refusals(flows: readonly Flow[]): Promise<string[]> {
    const { status, output } = await this.#run("nft", ["--json", "list", "chains"]);
    if (status !== 0) return [];
    const families = new Set(["inet", ...flows.map((flow) => flow.family)]);
    const tables = new Set<string>();
    for (const { family, table, hook, name } of baseChains(output)) {
      const known = ownTables.has(table) || (iptablesTables.has(table) && /^[A-Z]+$/.test(name));
      if (families.has(family) && !known && flows.some(({ hooks }) => hooks.includes(hook))) {
        tables.add(`${family} ${table}`);
      }
    }
    const listings: string[] = [];
    for (const table of tables) {
      const listed = await this.#run("nft", ["--json", "list", "table", ...table.split(" ")]);
      if (listed.status === 0) listings.push(listed.output);
    }
    const byRule = new Map<string, Refusal[]>();
    for (const refusal of refusals(listings, flows)) {
      const { family, table, chain, handle } = refusal;
      const key = `${family} ${table} ${chain} ${handle}`;
      byRule.set(key, [...(byRule.get(key) ?? []), refusal]);
    }
    const findings: string[] = [];
    for (const found of byRule.values()) findings.push(await this.#wordsOf(found));
    return findings;
  }

  /** Of one rule, as nft prints it, so that it can be found. */
  async #wordsOf(found: readonly Refusal[]): Promise<string> {
    const [{ family, table, chain, handle } = unreachable("a rule that refuses nothing")] = found;
    const where = `chain ${chain} of the nftables table ${family} ${table}`;
    const whom = found.map(({ flow }) => flow.what).join(", ");
    const accepts = [...new Set(found.map(({ flow }) => `\`${flow.accept}\``))].join(" and ");
    if (handle === undefined) return `${where} drops what it does not accept, and so ${whom}: add ${accepts}`;
    const { output } = await this.#run("nft", ["--handle", "list", "chain", family, table, chain]);
    const line = output.split("\n").find((text) => text.trimEnd().endsWith(`# handle ${handle}`)) ?? "";
    const rule = line.split("# handle")[0]?.trim() ?? "";
    return `\`${rule}\` (handle ${handle} in ${where}) stops ${whom}: have ${accepts} before that`;
  }

  /** Once, not every minute. */
  #tell(repairs: readonly string[], findings: readonly string[]): void {
    if (repairs.length > 0) {
      this.#logger.info("accepted our links in a firewall of the host", { rules: repairs.join("; ") });
    }
    const told = findings.join("; ");
    if (told !== "" && told !== this.#told) {
      this.#logger.warn("a firewall of the host stands in the way of containers", { found: told });
    }
    this.#told = told;
  }
}

const ownTables: ReadonlySet<string> = new Set([hostTable, underlayTable]);
/** That the iptables of today makes in nft. */
const iptablesTables: ReadonlySet<string> = new Set(["filter", "nat", "mangle", "raw", "security"]);

interface NftChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: string;
}

function baseChains(listing: string): readonly NftChain[] {
  try {
    const parsed = JSON.parse(listing) as { readonly nftables?: readonly { readonly chain?: Partial<NftChain> }[] };
    return (parsed.nftables ?? []).flatMap(({ chain }) => (chain?.hook === undefined ? [] : [chain as NftChain]));
  } catch {
    return []; // an nft that prints something else; what it would have told is only advice
  }
}

const firstLine = (text: string): string => text.trim().split("\n")[0]?.slice(0, 200) ?? "";

const commandMs = 10_000;
const outputMax = 16 * 1024 * 1024;

const runProgram: RunCommand = (program, args) =>
  new Promise((resolve) => {
    execFile(
      program,
      [...args],
      { timeout: commandMs, killSignal: "SIGKILL", maxBuffer: outputMax },
      (error, stdout, stderr) => {
        if (error === null) resolve({ status: 0, output: stdout });
        else if ((error as NodeJS.ErrnoException).code === "ENOENT") resolve({ status: undefined, output: "" });
        else resolve({ status: typeof error.code === "number" ? error.code : 1, output: `${stdout}${stderr}` });
      },
    );
  });

/** Absent where the old tables are not built in. */
const readLegacyTables = (family: Family): Promise<string> =>
  readFile(`/proc/net/${family}_tables_names`, "utf8").catch(() => "");
