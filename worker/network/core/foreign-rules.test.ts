import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { flowsOf, refusals } from "./foreign-rules.ts";

const flows = flowsOf({ dataPort: 4789, link: "eth0", family: "ip" });

type Expression = Readonly<Record<string, unknown>>;
const meta = (key: string, right: unknown, op = "=="): Expression => ({
  match: { op, left: { meta: { key } }, right },
});
const dport = (protocol: string, right: unknown): Expression => ({
  match: { op: "==", left: { payload: { protocol, field: "dport" } }, right },
});
const state = (...right: readonly string[]): Expression => ({
  match: { op: "in", left: { ct: { key: "state" } }, right },
});
const saddr: Expression = {
  match: { op: "==", left: { payload: { protocol: "ip", field: "saddr" } }, right: "10.0.0.1" },
};
const [accept, drop, reject, back] = [{ accept: null }, { drop: null }, { reject: null }, { return: null }];
const jump = (target: string): Expression => ({ jump: { target } });
const go = (target: string): Expression => ({ goto: { target } });

interface Hooked {
  readonly hook?: string;
  readonly policy?: string;
  readonly rules: readonly (readonly Expression[])[];
}

/** A table as nft prints it; rules have handles from 1 on, by chain. */
function table(chains: Readonly<Record<string, Hooked>>): string {
  const where = { family: "inet", table: "theirs" };
  return JSON.stringify({
    nftables: [
      { metainfo: {} },
      ...Object.entries(chains).map(([name, { hook, policy }]) => ({ chain: { ...where, name, hook, policy } })),
      ...Object.entries(chains).flatMap(([chain, { rules }]) =>
        rules.map((expr, at) => ({ rule: { ...where, chain, handle: at + 1, expr } })),
      ),
    ],
  });
}

/** What is stopped, and by which rule; "policy" by none. */
const stopped = (chains: Readonly<Record<string, Hooked>>): string[] =>
  refusals([table(chains)], flows).map(
    ({ flow, chain, handle }) => `${flow.what.split(" ")[0]} ${flow.hooks.join("/")}: ${chain} ${handle ?? "policy"}`,
  );
const input = (...rules: readonly (readonly Expression[])[]): Readonly<Record<string, Hooked>> => ({
  in: { hook: "input", policy: "drop", rules },
});

describe("rules of others", () => {
  test("what accepts nothing of ours stops it, by its policy or by a rule", () => {
    assert.deepEqual(stopped(input()), ["VXLAN prerouting/input: in policy", "names prerouting/input: in policy"]);
    const forward = { fwd: { hook: "forward", policy: "accept", rules: [[reject]] } };
    assert.deepEqual(stopped(forward), [
      "what prerouting/forward: fwd 1",
      "what forward: fwd 1",
      "the prerouting/forward: fwd 1",
      "published forward: fwd 1",
    ]);
  });

  test("what accepts it before is no obstacle, in whatever words", () => {
    for (const rules of [
      [[accept]],
      [[meta("l4proto", "udp"), accept]],
      [[dport("udp", { set: [53, { range: [4000, 5000] }] }), accept]],
      [
        [meta("iifname", "eth0"), accept],
        [meta("iifname", "skep*"), accept],
      ],
      [[meta("iifname", "wlan0", "!="), accept]],
      [[state("new", "untracked"), accept]],
      [
        [
          {
            vmap: {
              key: { ct: { key: "state" } },
              data: {
                set: [
                  ["untracked", accept],
                  ["new", jump("more")],
                ],
              },
            },
          },
        ],
        [accept],
      ],
    ]) {
      assert.deepEqual(stopped({ ...input(...rules), more: { rules: [] } }), [], JSON.stringify(rules));
    }
  });

  test("rules for something else change nothing", () => {
    const rules = [
      [dport("tcp", 22), accept],
      [meta("nfproto", "ipv6"), accept],
      [state("established", "related"), accept],
      [meta("iifname", "lo"), accept],
      [{ match: { op: "==", left: { payload: { protocol: "icmp", field: "type" } }, right: "echo-request" } }, accept],
      [{ match: { op: "in", left: { ct: { key: "status" } }, right: "dnat" } }, accept],
    ];
    assert.deepEqual(stopped(input(...rules, [drop])), [
      "VXLAN prerouting/input: in 7",
      "names prerouting/input: in 7",
    ]);
  });

  test("where it cannot be known whether a rule lets it pass, nobody is blamed", () => {
    assert.deepEqual(stopped(input([saddr, accept])), []);
    assert.deepEqual(stopped(input([saddr, jump("more")])), [
      "VXLAN prerouting/input: in policy",
      "names prerouting/input: in policy",
    ]);
    assert.deepEqual(stopped({ ...input([saddr, jump("more")]), more: { rules: [[accept]] } }), []);
    assert.deepEqual(stopped(input([meta("iifname", "@zones"), accept])), []);
    assert.deepEqual(stopped({ ...input([jump("more")], [drop]), more: { rules: [[saddr, accept]] } }), []);
    assert.deepEqual(stopped(input([saddr, drop], [accept])), []);
  });

  test("chains lead to chains and back, as a firewall with zones has them", () => {
    const zones = {
      FORWARD: {
        hook: "forward",
        policy: "accept",
        rules: [[state("established", "related"), accept], [jump("ZONES")], [state("invalid"), drop], [reject]],
      },
      ZONES: {
        rules: [[meta("iifname", "skep*"), go("trusted")], [meta("iifname", "eth0"), go("public")], [go("public")]],
      },
      trusted: { rules: [[accept]] },
      public: { rules: [[jump("public_allow")], [back], [accept]] },
      public_allow: { rules: [[dport("tcp", 22), accept]] },
    };
    assert.deepEqual(stopped(zones), ["published forward: FORWARD 4"]);
  });

  test("what is no listing, or leads round in a circle, is passed over", () => {
    assert.deepEqual(refusals(["", "[]", "{}", '{"nftables":[1,{"chain":{}},{"rule":{"expr":3}}]}'], flows), []);
    assert.deepEqual(stopped({ ...input([jump("a")]), a: { rules: [[jump("a")]] } }), []);
  });
});
