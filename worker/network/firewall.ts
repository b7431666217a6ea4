/**
 * Peace with other firewalls of the host: iptables (Docker, ufw, whoever), firewalld. They are looked at when skepd starts
 * and every minute, since others put their rules back as they like; only what is missing is put in. What drops in tables of
 * nft itself is nobody's to change, and told.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";

import type { Logger } from "../../lib/runtime/index.ts";
import { hasForwardPolicy, iptablesRepairs, linkWildcard, readListing } from "./core/firewall-plan.ts";

export interface CommandOutcome {
  /** undefined: there is no such program. */
  readonly status: number | undefined;
  readonly output: string;
}

/** A program of the host, run to its end in bounded time. */
export type RunCommand = (program: string, args: readonly string[]) => Promise<CommandOutcome>;

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
  /** Names of legacy tables in use, as /proc/net/ip_tables_names has them. */
  readonly legacyTables?: () => Promise<string>;
  readonly logger: Logger;
}

export class Firewall {
  readonly #run: RunCommand;
  readonly #legacyTables: () => Promise<string>;
  readonly #logger: Logger;
  #told = "";

  constructor({ run = runProgram, legacyTables = readLegacyTables, logger }: FirewallOptions) {
    this.#run = run;
    this.#legacyTables = legacyTables;
    this.#logger = logger;
  }

  /** @param dataPort  UDP port of VXLAN; undefined: in no swarm */
  async settle(dataPort: number | undefined): Promise<FirewallReport> {
    const repairs: string[] = [];
    const findings: string[] = [];
    let policesForwarding = false;
    for (const program of await this.#iptables()) {
      const listed = await this.#run(program, ["-S"]);
      if (listed.status !== 0) continue;
      const listing = readListing(listed.output);
      policesForwarding ||= hasForwardPolicy(listing);
      for (const args of iptablesRepairs(listing, dataPort)) {
        const { status, output } = await this.#run(program, ["-w", "5", ...args]);
        const words = `${program} ${args.join(" ")}`;
        if (status === 0) repairs.push(words);
        else findings.push(`${words}: ${firstLine(output)}`);
      }
    }
    await this.#firewalld(repairs, findings);
    findings.push(...(await this.#foreignDrops()));
    this.#tell(repairs, findings);
    return { repairs, findings, policesForwarding };
  }

  /** The two backends do not see each other's rules; a host may use both. Asking the old one would load it. */
  async #iptables(): Promise<string[]> {
    const programs: string[] = [];
    const plain = await this.#run("iptables", ["--version"]);
    if (plain.status === undefined) return [];
    const isLegacy = /legacy/.test(plain.output) || !/nf_tables/.test(plain.output);
    const usesLegacy = /\bfilter\b/.test(await this.#legacyTables());
    if (!isLegacy || usesLegacy) programs.push("iptables");
    const other = isLegacy ? "iptables-nft" : "iptables-legacy";
    if (isLegacy || usesLegacy) programs.push(other);
    return programs;
  }

  /** Its zone `trusted` lets our links pass; what may pass them is decided in our own table. Until its next reload. */
  async #firewalld(repairs: string[], findings: string[]): Promise<void> {
    const state = await this.#run("firewall-cmd", ["--state"]);
    if (state.status !== 0) return;
    const zone = ["--zone", "trusted"];
    const bound = await this.#run("firewall-cmd", [...zone, "--query-interface", linkWildcard]);
    if (bound.status === 0) return;
    const { status, output } = await this.#run("firewall-cmd", [...zone, "--change-interface", linkWildcard]);
    const words = `firewall-cmd ${zone.join(" ")} --change-interface ${linkWildcard}`;
    if (status === 0) repairs.push(words);
    else findings.push(`${words}: ${firstLine(output)}`);
  }

  /** Tables of nft that drop what they do not know. Those of iptables and firewalld were dealt with. */
  async #foreignDrops(): Promise<string[]> {
    const { status, output } = await this.#run("nft", ["--json", "list", "chains"]);
    if (status !== 0) return [];
    let chains: readonly NftChain[];
    try {
      const parsed = JSON.parse(output) as { readonly nftables?: readonly { readonly chain?: NftChain }[] };
      chains = (parsed.nftables ?? []).flatMap(({ chain }) => (chain === undefined ? [] : [chain]));
    } catch {
      return []; // an nft that prints something else; what it would have told is only advice
    }
    return chains
      .filter(({ family, table, hook, policy, name }) => {
        const known = table === "skep" || table === "firewalld" || (table === "filter" && /^[A-Z]+$/.test(name));
        return policy === "drop" && hook === "forward" && ["ip", "inet"].includes(family) && !known;
      })
      .map(
        ({ family, table, name }) =>
          `the chain ${name} of the nftables table ${family} ${table} drops what it does not accept: add ` +
          `\`iifname "skep*" accept\` and \`oifname "skep*" accept\` to it`,
      );
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

interface NftChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook?: string;
  readonly policy?: string;
}

const firstLine = (text: string): string => text.trim().split("\n")[0]?.slice(0, 200) ?? "";

const commandMs = 10_000;
const outputMax = 16 * 1024 * 1024;

const runProgram: RunCommand = (program, args) =>
  new Promise((resolve) => {
    execFile(program, [...args], { timeout: commandMs, maxBuffer: outputMax }, (error, stdout, stderr) => {
      if (error === null) resolve({ status: 0, output: stdout });
      else if ((error as NodeJS.ErrnoException).code === "ENOENT") resolve({ status: undefined, output: "" });
      else resolve({ status: typeof error.code === "number" ? error.code : 1, output: `${stdout}${stderr}` });
    });
  });

/** Absent where the old tables are not built in. */
const readLegacyTables = (): Promise<string> => readFile("/proc/net/ip_tables_names", "utf8").catch(() => "");
