/**
 * What other firewalls of the host have to be asked for. A rule of ours that accepts does not outweigh one of theirs that
 * drops, since each hook asks all; so what we accept has to be accepted in their chains, too. What may pass our links is
 * decided in our own table, whatever is accepted here.
 */

import { tunnelDataPort, tunnelPort } from "./tunnel.ts";

/** As `iptables -S` lists the table `filter`. */
export interface Listing {
  readonly lines: readonly string[];
}

/** The host's links of ours, in the words of iptables and firewalld. */
export const linkWildcard = "skep+";

interface ChainRules {
  readonly chain: string;
  /** As they are listed, without `-A CHAIN`. */
  readonly rules: readonly string[];
}

/** What has to be in their chains: names for containers, VXLAN and WireGuard of the cluster (our own table knows its members), traffic. */
function wantedRules(listing: Listing, dataPort: number | undefined): ChainRules[] {
  // Docker keeps its chain for others; one that is left over from it, or comes too late, helps nobody.
  const at = rulesOf(listing, "FORWARD").indexOf("-j DOCKER-USER");
  const barrier = barrierOf(listing, "FORWARD", "DOCKER-USER");
  const forward = at >= 0 && (barrier < 0 || at < barrier) ? "DOCKER-USER" : "FORWARD";
  return [
    { chain: forward, rules: [`-i ${linkWildcard} -j ACCEPT`, `-o ${linkWildcard} -j ACCEPT`] },
    {
      chain: "INPUT",
      rules: [
        `-i ${linkWildcard} -p udp -m udp --dport 53 -j ACCEPT`,
        `-i ${linkWildcard} -p tcp -m tcp --dport 53 -j ACCEPT`,
        ...(dataPort === undefined
          ? []
          : [
              `-p udp -m udp --dport ${dataPort} -j ACCEPT`,
              `-p udp -m udp --dport ${tunnelPort} -j ACCEPT`,
              `-i ${linkWildcard} -p udp -m udp --dport ${tunnelDataPort} -j ACCEPT`,
            ]),
      ],
    },
  ];
}

/**
 * The arguments of iptables that put right what is missing, in order. None where a chain lets everything pass: nothing of
 * ours is put into a firewall that is not one.
 * @param dataPort  UDP port of VXLAN; undefined: in no swarm
 */
export function iptablesRepairs(listing: Listing, dataPort: number | undefined): string[][] {
  const repairs: string[][] = [];
  for (const { chain, rules } of wantedRules(listing, dataPort)) {
    const hook = chain === "DOCKER-USER" ? "FORWARD" : chain;
    if (!refuses(listing, hook)) continue;
    const there = rulesOf(listing, chain);
    const barrier = barrierOf(listing, chain, "");
    for (const rule of rules.toReversed()) {
      const at = there.indexOf(rule);
      if (at >= 0 && (barrier < 0 || at < barrier)) continue;
      if (at >= 0) repairs.push(["-D", chain, ...rule.split(" ")]);
      repairs.push(["-I", chain, "1", ...rule.split(" ")]);
    }
  }
  return repairs;
}

/** Whether somebody else decides what this host routes: then what is not ours is theirs to drop. */
export const hasForwardPolicy = (listing: Listing): boolean => refuses(listing, "FORWARD");

/** It has rules, or drops what no rule accepts. */
const refuses = (listing: Listing, chain: string): boolean =>
  !listing.lines.includes(`-P ${chain} ACCEPT`) || rulesOf(listing, chain).length > 0;

/** The first rule of the chain that may refuse something, itself or in what it leads to; -1: none. @param but  not this chain */
const barrierOf = (listing: Listing, chain: string, but: string): number =>
  rulesOf(listing, chain).findIndex((rule) => targetOf(rule) !== but && mayRefuse(listing, rule, new Set()));

const targetOf = (rule: string): string => / -[jg] (\S+)/.exec(` ${rule}`)?.[1] ?? "";

function mayRefuse(listing: Listing, rule: string, seen: Set<string>): boolean {
  const target = targetOf(rule);
  if (target === "DROP" || target === "REJECT") return true;
  if (seen.has(target)) return false;
  seen.add(target);
  return rulesOf(listing, target).some((one) => mayRefuse(listing, one, seen));
}

const rulesOf = ({ lines }: Listing, chain: string): string[] =>
  lines.filter((line) => line.startsWith(`-A ${chain} `)).map((line) => line.slice(`-A ${chain} `.length));

export const readListing = (output: string): Listing => ({
  lines: output
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== ""),
});
