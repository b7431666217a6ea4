import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";

import {
  block6Of,
  gateway6Of,
  gatewayRange,
  gatewayRange6,
  isNodeNumber,
  isTaskGateway,
  nodeAddresses,
  nodeNumberMax,
  nodeOfGateway,
} from "./node-number.ts";

test("everything of a node follows from its number", () => {
  assert.deepEqual(nodeAddresses(1), {
    mac: "02:fe:00:00:00:01",
    linkAddress: "169.254.0.1",
    linkAddress6: "fe80::1",
    mark: 0x5300_0001,
    zone: 1,
    gatewayBlock: "100.64.4.0/22",
    gatewayAddress: "100.64.4.1",
    tunnelAddress: "100.64.7.255",
  });
  assert.deepEqual(nodeAddresses(4095), {
    mac: "02:fe:00:00:0f:ff",
    linkAddress: "169.254.15.255",
    linkAddress6: "fe80::fff",
    mark: 0x5300_0fff,
    zone: 4095,
    gatewayBlock: "100.127.252.0/22",
    gatewayAddress: "100.127.252.1",
    tunnelAddress: "100.127.255.255",
  });
});

test("gateway addresses of IPv6 end with those of IPv4, as the kernel writes them, and blocks are theirs", () => {
  assert.equal(gateway6Of("100.64.8.2"), "fd73:6b65:7002::6440:802");
  assert.equal(gateway6Of("100.64.0.0"), "fd73:6b65:7002::6440:0");
  assert.equal(gateway6Of("100.127.252.1"), "fd73:6b65:7002::647f:fc01");
  assert.equal(gateway6Of("nowhere"), "");
  assert.equal(block6Of("100.64.8.0/22"), "fd73:6b65:7002::6440:800/118");
  assert.equal(block6Of(gatewayRange), gatewayRange6);
});

test("no two nodes share anything", () => {
  const seen = new Set<string | number>();
  for (let number = 1; number <= nodeNumberMax; number++) {
    const { mac, linkAddress, mark, gatewayBlock, gatewayAddress, tunnelAddress } = nodeAddresses(number);
    assert.equal(isTaskGateway(number, tunnelAddress), false);
    for (const each of [mac, linkAddress, mark, gatewayBlock, gatewayAddress, tunnelAddress]) {
      assert.ok(!seen.has(each), String(each));
      seen.add(each);
    }
  }
});

test("a number that is none is refused", () => {
  for (const number of [0, -1, 1.5, 4096, NaN, Infinity]) {
    assert.equal(isNodeNumber(number), false);
    assert.equal(isTaskGateway(number, "100.64.4.2"), false);
    assert.throws(() => nodeAddresses(number), /a node's number is 1 .. 4095/);
  }
});

test("an address lies in the block of one node only", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4095 }), fc.integer({ min: 0, max: 1023 }), (number, offset) => {
      const base = (100 * 256 + 64) * 65_536 + number * 1024 + offset;
      const address = [base >>> 24, (base >>> 16) & 255, (base >>> 8) & 255, base & 255].join(".");
      assert.equal(nodeOfGateway(address), number);
      assert.equal(isTaskGateway(number, address), offset > 1 && offset < 1023);
      assert.equal(isTaskGateway((number % 4095) + 1, address), false);
    }),
  );
});

test("what is outside of all blocks, or no plain address, is nobody's", () => {
  const outside = ["100.64.0.1", "100.64.3.255", "100.63.255.255", "100.128.0.0", "10.0.0.1", "255.255.255.255"];
  const odd = [
    "",
    "100.64.4",
    "100.64.4.2/22",
    "100.64.4.02",
    "0100.64.4.2",
    "100.64.4.256",
    "100.64.4.2 ",
    "::1",
    "1e2.64.4.2",
  ];
  for (const address of [...outside, ...odd]) {
    assert.equal(nodeOfGateway(address), undefined, address);
    assert.equal(isTaskGateway(1, address), false, address);
  }
});
