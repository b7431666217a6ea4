import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { readLocalNetwork, type LocalNetworkReading, type LocalNetworkWish } from "./local-network.ts";

const read = (wish: Partial<LocalNetworkWish>, taken: readonly string[] = []): LocalNetworkReading =>
  readLocalNetwork({ name: "blue", ...wish }, taken, taken);
const why = (wish: Partial<LocalNetworkWish>): string => {
  const reading = read(wish);
  assert.ok(!reading.ok);
  return reading.why;
};

describe("a network of this node, as it is asked for", () => {
  test("subnets follow Docker's: 172.17.0.0/16 first, then the next that is free, then 192.168", () => {
    const first = read({});
    assert.ok(first.ok);
    assert.deepEqual([first.network.subnet, first.network.gateway], ["172.17.0.0/16", "172.17.0.1"]);
    const second = read({}, ["172.17.0.0/16", "172.18.5.1/32"]);
    assert.ok(second.ok);
    assert.equal(second.network.subnet, "172.19.0.0/16");
    const later = read({}, ["172.16.0.0/12", "192.168.1.7/24"]);
    assert.ok(later.ok);
    assert.equal(later.network.subnet, "192.168.16.0/20");
    assert.deepEqual(read({}, ["172.16.0.0/12", "192.168.0.0/16"]), { ok: false, kind: "exhausted", why: "" });
  });

  test("what is asked for is kept, and the gateway is the first of the range", () => {
    const reading = read({
      internal: true,
      ipam: [{ subnet: "10.9.1.7/24", ipRange: "10.9.1.128/25", auxiliaryAddresses: { router: "10.9.1.128" } }],
      options: {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
        "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
        "com.docker.network.driver.mtu": "1400",
        "some.label": "kept",
      },
    });
    assert.ok(reading.ok);
    assert.deepEqual(reading.network, {
      name: "blue",
      subnet: "10.9.1.0/24",
      gateway: "10.9.1.129",
      ipRange: "10.9.1.128/25",
      reserved: ["10.9.1.128"],
      internal: true,
      masquerade: false,
      interContainer: false,
      mtu: 1400,
      hostAddress: "127.0.0.1",
    });
  });

  test("what cannot be is refused in words", () => {
    assert.match(why({ name: "a b" }), /invalid network name/);
    assert.match(why({ ipamDriver: "dhcp" }), /IPAM driver/);
    assert.match(why({ ipam: [{ subnet: "10.1.0.0/24" }, { subnet: "10.2.0.0/24" }] }), /one subnet/);
    const six = (subnet: string, more = {}): string => why({ enableIpv6: true, ipam: [{ subnet, ...more }] });
    assert.match(six("fd00::x/64"), /an IPv6 prefix is needed/);
    assert.match(six("fd00::/125"), /has fewer addresses than the network's IPv4 subnet/);
    assert.match(six("fe80::/64"), /it overlaps fe80::\/10/);
    assert.match(six("fd00::/64", { gateway: "fd01::1" }), /no address of a host inside fd00::\/64/);
    assert.match(six("fd00::/64", { ipRange: "fd00::/80" }), /addresses of IPv6 follow from those/);
    assert.match(
      why({ enableIpv6: true, ipam: [{ subnet: "fd00::/64" }, { subnet: "fd01::/64" }] }),
      /one subnet of each/,
    );
    assert.match(why({ ipam: [{ gateway: "10.1.0.1" }] }), /need a subnet/);
    assert.match(why({ ipam: [{ subnet: "10.1.0.0/31" }] }), /too small/);
    assert.match(why({ ipam: [{ subnet: "127.0.0.0/16" }] }), /loopback/);
    assert.match(why({ ipam: [{ subnet: "224.1.0.0/16" }] }), /multicast/);
    assert.match(why({ ipam: [{ subnet: "100.64.4.0/24" }] }), /gateway addresses/);
    assert.match(why({ ipam: [{ subnet: "10.1.0.0/24", ipRange: "10.2.0.0/25" }] }), /not inside/);
    assert.match(why({ ipam: [{ subnet: "10.1.0.0/24", gateway: "10.1.0.255" }] }), /invalid gateway/);
    assert.match(why({ ipam: [{ subnet: "10.1.0.0/24", gateway: "10.1.0.0" }] }), /invalid gateway/);
    assert.match(why({ ipam: [{ subnet: "10.1.0.0/24", auxiliaryAddresses: { a: "10.2.0.1" } }] }), /auxiliary/);
    assert.match(why({ options: { "com.docker.network.bridge.name": "br7" } }), /no bridge to name/);
    assert.match(why({ options: { "com.docker.network.bridge.gateway_mode_ipv4": "routed" } }), /only be nat/);
    assert.match(why({ options: { "com.docker.network.bridge.enable_icc": "maybe" } }), /true or false/);
    assert.match(why({ options: { "com.docker.network.driver.mtu": "10" } }), /bytes/);
    assert.match(why({ options: { "com.docker.network.bridge.host_binding_ipv4": "x" } }), /IPv4 address/);
    assert.deepEqual(read({ driver: "macvlan" }), { ok: false, kind: "driver", why: "macvlan" });
    const overlap = read({ ipam: [{ subnet: "172.17.4.0/24" }] }, ["172.17.0.0/16"]);
    assert.deepEqual(overlap, { ok: false, kind: "overlap", why: "172.17.4.0/24", other: "172.17.0.0/16" });
  });
});
