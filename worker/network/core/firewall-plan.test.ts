import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { hasForwardPolicy, iptablesRepairs, readListing } from "./firewall-plan.ts";

const open = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n";
const docker = `-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -j RETURN
`;
const ufw = `-P INPUT DROP
-P FORWARD DROP
-P OUTPUT ACCEPT
-N ufw-before-input
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
`;
const rejecting = `-P INPUT ACCEPT
-P FORWARD ACCEPT
-P OUTPUT ACCEPT
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -i skep+ -j ACCEPT
`;

const repairs = (listing: string, dataPort?: number): string[] =>
  iptablesRepairs(readListing(listing), dataPort).map((args) => args.join(" "));

/** What the chains are after the repairs, so that a second look can be taken. */
function repaired(listing: string, dataPort?: number): string {
  const lines = readListing(listing).lines.slice();
  for (const [verb, chain = "", ...rest] of iptablesRepairs({ lines }, dataPort)) {
    const rule = `-A ${chain} ${(verb === "-I" ? rest.slice(1) : rest).join(" ")}`;
    if (verb === "-D") lines.splice(lines.indexOf(rule), 1);
    else {
      const first = lines.findIndex((line) => line.startsWith(`-A ${chain} `));
      lines.splice(first < 0 ? lines.length : first, 0, rule);
    }
  }
  return lines.join("\n");
}

describe("peace with iptables", () => {
  test("where everything may pass nothing is put in", () => {
    assert.deepEqual(repairs(open, 4789), []);
    assert.equal(hasForwardPolicy(readListing(open)), false);
  });

  test("with Docker our links go into DOCKER-USER, and INPUT is left alone", () => {
    assert.deepEqual(repairs(docker, 4789), [
      "-I DOCKER-USER 1 -o skep+ -j ACCEPT",
      "-I DOCKER-USER 1 -i skep+ -j ACCEPT",
    ]);
    assert.equal(hasForwardPolicy(readListing(docker)), true);
  });

  test("with ufw names, VXLAN, WireGuard and traffic are let in, what is of the swarm only in one", () => {
    assert.deepEqual(repairs(ufw, 4789), [
      "-I FORWARD 1 -o skep+ -j ACCEPT",
      "-I FORWARD 1 -i skep+ -j ACCEPT",
      "-I INPUT 1 -i skep+ -p udp -m udp --dport 4793 -j ACCEPT",
      "-I INPUT 1 -p udp -m udp --dport 2377 -j ACCEPT",
      "-I INPUT 1 -p udp -m udp --dport 4789 -j ACCEPT",
      "-I INPUT 1 -i skep+ -p tcp -m tcp --dport 53 -j ACCEPT",
      "-I INPUT 1 -i skep+ -p udp -m udp --dport 53 -j ACCEPT",
    ]);
    assert.ok(!repairs(ufw).some((rule) => rule.includes("4789")));
  });

  test("a rule of ours behind one that rejects is moved before it", () => {
    assert.deepEqual(repairs(rejecting), [
      "-I FORWARD 1 -o skep+ -j ACCEPT",
      "-D FORWARD -i skep+ -j ACCEPT",
      "-I FORWARD 1 -i skep+ -j ACCEPT",
    ]);
  });

  test("a rule of ours behind a chain that may drop is moved before it, too", () => {
    const late = open + "-N their\n-A their -p tcp -j DROP\n-A FORWARD -j their\n-A FORWARD -i skep+ -j ACCEPT\n";
    assert.deepEqual(repairs(late), [
      "-I FORWARD 1 -o skep+ -j ACCEPT",
      "-D FORWARD -i skep+ -j ACCEPT",
      "-I FORWARD 1 -i skep+ -j ACCEPT",
    ]);
  });

  test("a DOCKER-USER that nothing leads to, or that comes after what refuses, is left alone", () => {
    const left = "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER-USER\n";
    const late = `${left}-A FORWARD -j REJECT\n-A FORWARD -j DOCKER-USER\n`;
    for (const listing of [left, late]) assert.match(repairs(listing).join(), /^-I FORWARD 1 -o skep\+/);
  });

  test("a second look finds nothing to do", () => {
    for (const listing of [open, docker, ufw, rejecting]) assert.deepEqual(repairs(repaired(listing, 4789), 4789), []);
  });
});
