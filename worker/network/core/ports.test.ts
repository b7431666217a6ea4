import assert from "node:assert/strict";
import { describe, test } from "node:test";

import fc from "fast-check";

import { PortClaims, type HostPort } from "./port-claims.ts";
import { freeSubnet, nextFree } from "./pools.ts";

describe("ports among ourselves", () => {
  const port = (hostAddress: string, number = 80): HostPort => ({ protocol: "tcp", port: number, hostAddress });

  test("two addresses share a port, all addresses share it with none", () => {
    const claims = new PortClaims();
    claims.claim("a", port("10.0.0.1"));
    assert.equal(claims.conflict("b", port("10.0.0.2")), undefined);
    assert.equal(claims.conflict("b", port("")), "a");
    assert.equal(claims.conflict("b", port("10.0.0.1")), "a");
    assert.equal(claims.conflict("b", { ...port("10.0.0.1"), protocol: "udp" }), undefined);
    claims.release("b", port("10.0.0.1"));
    assert.equal(claims.conflict("b", port("")), "a", "another's is not released");
    claims.release("a", port("10.0.0.1"));
    assert.equal(claims.conflict("b", port("")), undefined);
  });

  test("nobody ever shares a port with another (any order of claims and releases)", () => {
    const act = fc.record({
      owner: fc.constantFrom("a", "b", "c"),
      address: fc.constantFrom("", "10.0.0.1", "10.0.0.2"),
      take: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(act), (acts) => {
        const claims = new PortClaims();
        const held: { owner: string; address: string }[] = [];
        for (const { owner, address, take } of acts) {
          const clash = held.some(
            (one) => one.owner !== owner && (one.address === "" || address === "" || one.address === address),
          );
          assert.equal(claims.conflict(owner, port(address)) !== undefined, clash);
          const mine = held.findIndex((one) => one.owner === owner && one.address === address);
          if (take && !clash) {
            claims.claim(owner, port(address));
            if (mine < 0) held.push({ owner, address });
          } else if (!take) {
            claims.release(owner, port(address));
            if (mine >= 0) held.splice(mine, 1);
          }
        }
      }),
    );
  });
});

describe("choosing from a pool", () => {
  test("what was given back is given again last", () => {
    const taken = new Set<number>();
    const given: number[] = [];
    let last: number | undefined;
    for (let round = 0; round < 6; round += 1) {
      last = nextFree({ first: 10, last: 13 }, last, (value) => taken.has(value));
      assert.ok(last !== undefined);
      given.push(last);
    }
    assert.deepEqual(given, [10, 11, 12, 13, 10, 11]);
    for (const value of [10, 11, 12, 13]) taken.add(value);
    assert.equal(
      nextFree({ first: 10, last: 13 }, last, (value) => taken.has(value)),
      undefined,
    );
  });

  test("a subnet that overlaps anything taken is not chosen", () => {
    const pools = [{ range: { first: 0, last: 3 * 256 - 1 }, prefixLength: 24 }];
    assert.equal(freeSubnet(pools, [{ first: 10, last: 300 }]), "0.0.2.0/24");
    assert.equal(freeSubnet(pools, [{ first: 0, last: 2 ** 32 - 1 }]), undefined);
  });
});
