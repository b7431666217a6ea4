import assert from "node:assert/strict";
import { test } from "node:test";

import { AddressRefused, advertiseAddress, listenAddress, type Interfaces } from "./addresses.ts";

const v4 = (address: string, internal = false): { address: string; family: string; internal: boolean } => ({
  address,
  family: "IPv4",
  internal,
});
const one: Interfaces = { lo: [v4("127.0.0.1", true)], eth0: [v4("10.0.0.5")], docker0: [v4("172.17.0.1")] };
const two: Interfaces = { ...one, eth1: [v4("10.1.0.5")] };

test("the only address of a host is advertised; containers' bridges do not count", () => {
  assert.equal(advertiseAddress("", undefined, listenAddress("", one), one), "10.0.0.5:2377");
});

test("with several addresses none is chosen, in Docker's words", () => {
  assert.throws(
    () => advertiseAddress("", undefined, "0.0.0.0:2377", two),
    (error: unknown) =>
      error instanceof AddressRefused &&
      error.code === "ADDRESS_REFUSED" &&
      error.message.startsWith("could not choose an IP address to advertise since this system has multiple addresses"),
  );
  assert.equal(advertiseAddress("", "eth1", "0.0.0.0:2377", two), "10.1.0.5:2377");
});

test("an address, an address with a port, or an interface is taken", () => {
  assert.equal(advertiseAddress("10.9.9.9", undefined, "0.0.0.0:4000", two), "10.9.9.9:4000");
  assert.equal(advertiseAddress("10.9.9.9:77", undefined, "0.0.0.0:4000", two), "10.9.9.9:77");
  assert.equal(advertiseAddress("eth0", undefined, "0.0.0.0:2377", two), "10.0.0.5:2377");
  assert.equal(advertiseAddress("", undefined, "10.1.0.5:99", two), "10.1.0.5:99");
  assert.equal(advertiseAddress("fd00::1", undefined, "0.0.0.0:2377", two), "[fd00::1]:2377");
  assert.equal(listenAddress("eth1:8000", two), "10.1.0.5:8000");
  assert.equal(listenAddress("", two), "0.0.0.0:2377");
});

test("what is no address of anything is refused", () => {
  for (const wrong of ["0.0.0.0", "eth7", "10.0.0.1:99999", "a:b:c"]) {
    assert.throws(() => advertiseAddress(wrong, undefined, "0.0.0.0:2377", two), AddressRefused, wrong);
  }
  assert.throws(() => advertiseAddress("", undefined, "0.0.0.0:2377", { lo: [v4("127.0.0.1", true)] }), AddressRefused);
});
