import assert from "node:assert/strict";
import { test } from "node:test";

import {
  AddressRefused,
  advertiseAddress,
  checkFramePort,
  listenAddress,
  listenFor,
  withDefaultPort,
  type Interfaces,
} from "./addresses.ts";

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

test("an address of IPv6 has one form, with brackets where a port follows", () => {
  const eth0 = [
    { address: "fe80::5", family: "IPv6", internal: false },
    { address: "fd00::5", family: "IPv6", internal: false },
  ];
  const six: Interfaces = { lo: [v4("127.0.0.1", true)], eth0 };
  assert.equal(advertiseAddress("", undefined, "0.0.0.0:2377", six), "[fd00::5]:2377");
  assert.equal(advertiseAddress("eth0", undefined, "0.0.0.0:2377", six), "[fd00::5]:2377");
  assert.equal(advertiseAddress("FD00:0:0::0005", undefined, "0.0.0.0:4000", six), "[fd00::5]:4000");
  assert.equal(advertiseAddress("[fd00::5]:77", undefined, "0.0.0.0:2377", six), "[fd00::5]:77");
  assert.equal(advertiseAddress("::1", undefined, "0.0.0.0:2377", six), "[::1]:2377");
  assert.equal(listenAddress("[::]:2377", six), "[::]:2377");
  assert.equal(withDefaultPort("fd00:0::1"), "[fd00::1]:2377");
  assert.equal(withDefaultPort("[fd00::1]"), "[fd00::1]:2377");
  for (const wrong of [
    "::",
    "[::]:2377",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "::ffff:10.0.0.1",
    "[fd00::1",
    "fd00::1]:2",
  ])
    assert.throws(() => advertiseAddress(wrong, undefined, "0.0.0.0:2377", six), AddressRefused, wrong);
});

test("who is advertised by IPv6 and names nothing to listen on listens on all addresses", () => {
  assert.equal(listenFor("[fd00::5]:2377", "0.0.0.0:4000"), "[::]:4000");
  assert.equal(listenFor("[fd00::5]:2377", "10.0.0.5:4000"), "10.0.0.5:4000");
  assert.equal(listenFor("10.0.0.5:2377", "0.0.0.0:4000"), "0.0.0.0:4000");
});

test("where nobody says which, the address is of IPv4, or of the family that is asked for, as far as there is one", () => {
  const six = { address: "fd00::5", family: "IPv6", internal: false };
  const both: Interfaces = { lo: [v4("127.0.0.1", true)], eth0: [six, v4("10.0.0.5")] };
  const listen = "0.0.0.0:2377";
  assert.equal(advertiseAddress("", undefined, listen, both), "10.0.0.5:2377");
  assert.equal(advertiseAddress("", undefined, listen, both, "IPv6"), "[fd00::5]:2377");
  assert.equal(advertiseAddress("eth0", undefined, listen, both), "10.0.0.5:2377");
  assert.equal(advertiseAddress("eth0", undefined, listen, both, "IPv6"), "[fd00::5]:2377");
  assert.equal(advertiseAddress("10.0.0.5", undefined, listen, both, "IPv6"), "10.0.0.5:2377", "what is said, is said");
  assert.equal(advertiseAddress("", undefined, listen, { eth0: [six] }, "IPv4"), "[fd00::5]:2377");
  const many: Interfaces = { eth0: [v4("10.0.0.5"), six, { ...six, address: "fd00::6" }] };
  assert.throws(() => advertiseAddress("", undefined, listen, many, "IPv6"), AddressRefused);
});

test("frames between nodes go to one port, and another one is refused with what to do", () => {
  checkFramePort(4789);
  assert.throws(() => checkFramePort(7777), { code: "DATA_PATH_REFUSED", fix: /UDP port 4789/ });
});
