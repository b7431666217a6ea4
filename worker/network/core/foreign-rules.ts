/**
 * What other tables of nftables do to our packets: walks their chains as the kernel would, with what is known of a packet
 * beforehand. A rule that asks for something else is taken as not matching, and a chain in which such a rule might have
 * accepted the packet is not blamed. Reads what `nft --json` prints. Pure.
 */

import { gatewayPattern, linkPattern, meshLink } from "./names.ts";

/** A kind of packet that networks depend on, at its first arrival. */
export interface Flow {
  /** For the operator: `VXLAN between nodes (UDP port 4789)`. */
  readonly what: string;
  /** What has to be accepted, in nft's words. */
  readonly accept: string;
  readonly family: "ip" | "ip6";
  readonly hooks: readonly string[];
  readonly iifname: string;
  /** Empty: this host. */
  readonly oifname: string;
  readonly protocol: "tcp" | "udp";
  /** Undefined: one that no rule names. */
  readonly dport?: number;
  /** As conntrack sees it: new, untracked. */
  readonly state: string;
  readonly isRewritten: boolean;
}

/** Of this node in a swarm. */
export interface ClusterPath {
  /** UDP port of VXLAN. */
  readonly dataPort: number;
  /** By which its frames come and go; empty: not known. */
  readonly link: string;
  readonly family: "ip" | "ip6";
}

/** One of ours for all of them: they differ in what follows. */
const someLink = `${gatewayPattern.slice(0, -1)}00000000`;
const ourLinks = `iifname "${linkPattern}" accept\` and \`oifname "${linkPattern}" accept`;

/** What must pass other firewalls of this host. */
export function flowsOf(cluster: ClusterPath | undefined): readonly Flow[] {
  const outside = cluster?.link ?? "";
  const arrival = {
    family: "ip",
    hooks: ["prerouting", "input"],
    iifname: someLink,
    oifname: "",
    protocol: "tcp",
    state: "new",
    isRewritten: false,
  } as const;
  const passage = { ...arrival, hooks: ["prerouting", "forward"], accept: ourLinks };
  const local: Flow[] = [
    {
      ...arrival,
      what: "names that containers ask for (port 53)",
      accept: `iifname "${linkPattern}" udp dport 53 accept`,
      protocol: "udp",
      dport: 53,
    },
    { ...passage, what: "the way out of containers", oifname: outside },
    // Before it is rewritten it is what anybody may send to this host.
    {
      ...passage,
      hooks: ["forward"],
      what: "published ports",
      iifname: outside,
      oifname: someLink,
      isRewritten: true,
    },
  ];
  if (cluster === undefined) return local;
  const vxlan = {
    what: `VXLAN between nodes (UDP port ${cluster.dataPort})`,
    accept: `udp dport ${cluster.dataPort} accept`,
    family: cluster.family,
    protocol: "udp",
    dport: cluster.dataPort,
    state: "untracked",
    isRewritten: false,
  } as const;
  return [
    { ...vxlan, hooks: ["prerouting", "input"], iifname: outside, oifname: "" },
    { ...vxlan, hooks: ["output"], iifname: "", oifname: outside },
    { ...passage, what: "what other nodes send to containers", iifname: meshLink, oifname: someLink },
    { ...passage, hooks: ["forward"], what: "what containers send to other nodes", oifname: meshLink },
    ...local,
  ];
}

/** A rule that stops a flow, or the policy of a chain. */
export interface Refusal {
  readonly flow: Flow;
  readonly family: string;
  readonly table: string;
  readonly chain: string;
  /** Undefined: nothing accepts it, and the chain drops the rest. */
  readonly handle: number | undefined;
}

type Json = null | string | number | boolean | readonly Json[] | { readonly [key: string]: Json };
interface Chain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: string;
  readonly policy: string;
  readonly rules: { readonly handle: number; readonly expr: readonly Json[] }[];
}

/** A chain leads to another, and to another; nft itself allows 16. */
const depthMax = 16;

/**
 * @param listings  of single tables, as `nft --json list table` prints them
 * @returns         the first rule of each table's chain that stops a flow for certain
 */
export function refusals(listings: readonly string[], flows: readonly Flow[]): readonly Refusal[] {
  const chains = readChains(listings);
  const found: Refusal[] = [];
  for (const base of chains.values()) {
    for (const flow of flows) {
      if (!flow.hooks.includes(base.hook) || !["inet", flow.family].includes(base.family)) continue;
      const outcome = walk(base, flow, chains, 0);
      const { family, table, name } = base;
      if (outcome.verdict === "refuse" && outcome.isCertain) {
        found.push({ flow, family, table, chain: outcome.chain, handle: outcome.handle });
      } else if (outcome.verdict === "none" && outcome.isCertain && base.policy === "drop") {
        found.push({ flow, family, table, chain: name, handle: undefined });
      }
    }
  }
  return found;
}

interface Outcome {
  readonly verdict: "accept" | "refuse" | "none";
  /** No rule before, of which we do not know whether it matches, might have accepted it. */
  readonly isCertain: boolean;
  readonly chain: string;
  readonly handle: number | undefined;
}

function walk(chain: Chain, flow: Flow, chains: ReadonlyMap<string, Chain>, depth: number): Outcome {
  let isCertain = true;
  const outcome = (verdict: Outcome["verdict"], handle?: number, at = chain.name, certain = true): Outcome => ({
    verdict,
    handle,
    chain: at,
    isCertain: isCertain && certain,
  });
  if (depth > depthMax) return outcome("accept");
  for (const { handle, expr } of chain.rules) {
    let matches: boolean | undefined = true;
    for (const statement of expr) {
      const [word, value] = wordOf(statement);
      if (word === "match") {
        const one = doesMatch(value, flow);
        if (one === false) matches = false;
        else if (one === undefined && matches === true) matches = undefined;
      }
      if (matches === false) break;
      const [verdict, target] = word === "vmap" ? verdictOfMap(value, flow) : [word, targetOf(value)];
      if (verdict === "accept") {
        if (matches === true) return outcome("accept");
        isCertain = false;
      } else if (verdict === "unknown") {
        isCertain = false;
      } else if (verdict === "drop" || verdict === "reject") {
        if (matches === true) return outcome("refuse", handle);
      } else if (verdict === "return") {
        if (matches === true) return outcome("none");
        // What follows is reached for certain only if this does not match.
        isCertain = false;
      } else if (verdict === "jump" || verdict === "goto") {
        const next = chains.get(keyOf(chain.family, chain.table, target));
        if (next === undefined) continue;
        const found = walk(next, flow, chains, depth + 1);
        if (matches === true) {
          if (found.verdict !== "none") return outcome(found.verdict, found.handle, found.chain, found.isCertain);
          if (verdict === "goto") return outcome("none", undefined, chain.name, found.isCertain);
          isCertain &&= found.isCertain;
        } else if (found.verdict === "accept" || !found.isCertain || verdict === "goto") {
          isCertain = false;
        }
      }
    }
  }
  return outcome("none");
}

/** @returns undefined: that cannot be known beforehand */
function doesMatch(match: Json, flow: Flow): boolean | undefined {
  const { op, left, right } = record(match);
  const value = valueOf(left ?? null, flow);
  if (value === undefined) return undefined;
  if (value === "other") return false;
  const among = isAmong(value, right ?? null);
  if (among === undefined) return undefined;
  if (op === "==" || op === "in") return among;
  return op === "!=" ? !among : undefined;
}

/** Of the packet; "other": it has no such field, or no value that a rule asks for. */
function valueOf(left: Json, flow: Flow): string | number | readonly string[] | undefined {
  const [word, found] = wordOf(left);
  const { key, protocol, field } = record(found);
  if (word === "meta") {
    if (key === "iifname" || key === "iif") return flow.iifname === "" ? undefined : flow.iifname;
    if (key === "oifname" || key === "oif") return flow.oifname === "" ? undefined : flow.oifname;
    if (key === "l4proto") return flow.protocol;
    if (key === "nfproto") return flow.family === "ip6" ? "ipv6" : "ipv4";
    return key === "protocol" ? flow.family : undefined;
  }
  if (word === "ct") {
    if (key === "state") return flow.state;
    return key === "status" ? (flow.isRewritten ? "dnat" : "confirmed") : undefined;
  }
  if (word !== "payload") return undefined;
  if (protocol === flow.family) return field === "protocol" || field === "nexthdr" ? flow.protocol : undefined;
  if (protocol === "ip" || protocol === "ip6" || protocol === "icmp" || protocol === "icmpv6") return "other";
  if (protocol !== "th" && protocol !== flow.protocol) return "other";
  return field === "dport" ? (flow.dport ?? "other") : undefined;
}

/** @returns undefined: it is a named set, or something that this does not read */
function isAmong(value: string | number | readonly string[], right: Json): boolean | undefined {
  if (typeof right === "string") {
    if (right.startsWith("@")) return undefined;
    if (right.endsWith("*")) return String(value).startsWith(right.slice(0, -1));
    return String(value) === right;
  }
  if (typeof right === "number") return value === right;
  const all = Array.isArray(right) ? (right as readonly Json[]) : record(right)["set"];
  if (Array.isArray(all)) {
    const found = (all as readonly Json[]).map((one) => isAmong(value, one));
    return found.includes(true) ? true : found.includes(undefined) ? undefined : false;
  }
  const range = record(right)["range"];
  if (Array.isArray(range)) return Number(value) >= Number(range[0]) && Number(value) <= Number(range[1]);
  return undefined;
}

/** Of a map of verdicts in the rule itself. */
function verdictOfMap(value: Json, flow: Flow): readonly [string, string] {
  const { key, data } = record(value);
  const found = valueOf(key ?? null, flow);
  const pairs = record(data ?? null)["set"];
  if (found === undefined || !Array.isArray(pairs)) return ["unknown", ""];
  for (const pair of pairs as readonly Json[]) {
    const [wanted = null, verdict = null] = Array.isArray(pair) ? (pair as readonly Json[]) : [];
    const matches = isAmong(found, wanted);
    if (matches === undefined) return ["unknown", ""];
    if (!matches) continue;
    const [word, target] = wordOf(verdict);
    return [word, targetOf(target)];
  }
  return ["none", ""];
}

const record = (value: Json): Readonly<Record<string, Json>> =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Readonly<Record<string, Json>>) : {};

/** nft writes each thing as an object of one key. */
function wordOf(value: Json): readonly [string, Json] {
  const [word = "", found = null] = Object.entries(record(value))[0] ?? [];
  return [word, found];
}

const targetOf = (value: Json): string => {
  const { target } = record(value);
  return typeof target === "string" ? target : "";
};

const keyOf = (family: string, table: string, chain: string): string => `${family} ${table} ${chain}`;

function readChains(listings: readonly string[]): ReadonlyMap<string, Chain> {
  const chains = new Map<string, Chain>();
  for (const listing of listings) {
    let parsed: Json;
    try {
      parsed = JSON.parse(listing) as Json;
    } catch {
      continue; // an nft that prints something else; what it would have told is only advice
    }
    const items = record(parsed)["nftables"];
    for (const item of Array.isArray(items) ? (items as readonly Json[]) : []) {
      const [word, found] = wordOf(item);
      const { family, table, name, chain, hook, policy, handle, expr } = record(found);
      if (typeof family !== "string" || typeof table !== "string") continue;
      if (word === "chain" && typeof name === "string") {
        chains.set(keyOf(family, table, name), {
          family,
          table,
          name,
          hook: typeof hook === "string" ? hook : "",
          policy: typeof policy === "string" ? policy : "",
          rules: [],
        });
      } else if (word === "rule" && typeof chain === "string" && Array.isArray(expr)) {
        const rules = chains.get(keyOf(family, table, chain))?.rules;
        rules?.push({ handle: typeof handle === "number" ? handle : 0, expr: expr as readonly Json[] });
      }
    }
  }
  return chains;
}
