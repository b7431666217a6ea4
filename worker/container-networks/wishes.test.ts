import assert from "node:assert/strict";
import { test } from "node:test";

import type { ContainerConfig, EndpointSettings, HostConfig } from "../containers/index.ts";
import { exposedPorts, portWishes, readPort, wrongPorts } from "./published-ports.ts";
import { aliasesOf, linksOf, networksOf, ordered, readLink, wrongEndpoint, wrongNetworking } from "./wishes.ts";

const bind = (...ports: readonly string[]): NonNullable<HostConfig["PortBindings"]> =>
  Object.fromEntries(
    ports.map((text) => {
      const [host = "", container = ""] = text.split(" ");
      const at = host.lastIndexOf(":");
      return [container, [{ HostIp: at < 0 ? "" : host.slice(0, at), HostPort: host.slice(at + 1) }]];
    }),
  );

test("ports are read with and without a protocol, and nothing else is a port", () => {
  assert.deepEqual(readPort("80"), { port: 80, protocol: "tcp" });
  assert.deepEqual(readPort("53/UDP"), { port: 53, protocol: "udp" });
  for (const text of ["", "0", "65536", "80/icmp", "80-90", "x"]) assert.equal(readPort(text), undefined, text);
});

test("a binding becomes a wish: any port, one, one of a range, on one address or all", () => {
  const wishes = portWishes(
    {},
    {},
    { PortBindings: bind("8080 80/tcp", "127.0.0.1:53 53/udp", "9000-9002 90/tcp", " 91") },
  );
  assert.deepEqual(
    wishes.map(
      ({ protocol, targetPort, hostAddress, first, last }) =>
        `${hostAddress}:${first}-${last}>${targetPort}/${protocol}`,
    ),
    [":0-0>91/tcp", ":8080-8080>80/tcp", "127.0.0.1:53-53>53/udp", ":9000-9002>90/tcp"],
  );
  assert.deepEqual(
    portWishes({}, {}, { PortBindings: { "80/tcp": null, "81/tcp": [{ HostIp: "0.0.0.0", HostPort: "1" }] } }),
    [
      { protocol: "tcp", targetPort: 80, hostAddress: "", first: 0, last: 0 },
      { protocol: "tcp", targetPort: 81, hostAddress: "", first: 1, last: 1 },
    ],
  );
});

test("publishing all takes what the image and the container expose and is not bound yet", () => {
  const image = { ExposedPorts: { "80/tcp": {}, "53/udp": {} } };
  const config: ContainerConfig = { ExposedPorts: { "8080/tcp": {} } };
  const host: HostConfig = { PublishAllPorts: true, PortBindings: bind("8000 80/tcp") };
  assert.deepEqual(
    portWishes(config, image, host).map(({ targetPort, first }) => [targetPort, first]),
    [
      [80, 8000],
      [53, 0],
      [8080, 0],
    ],
  );
  assert.deepEqual(exposedPorts(config, image, host), ["53/udp", "80/tcp", "8080/tcp"]);
});

test("a binding that cannot be meant is refused", () => {
  const wrong = (host: HostConfig): string => wrongPorts({}, host) ?? "";
  assert.match(wrong({ PortBindings: bind("80 x") }), /invalid port specification: "x"/);
  assert.match(wrong({ PortBindings: bind("90-80 80") }), /invalid port specification: "90-80"/);
  assert.match(wrong({ PortBindings: bind("70000 80") }), /invalid port specification/);
  assert.match(wrong({ PortBindings: bind("300.0.0.1:80 80") }), /invalid IP address/);
  const on = (HostIp: string): HostConfig => ({ PortBindings: { "80/tcp": [{ HostIp, HostPort: "80" }] } });
  assert.match(wrong(on("fd99::g")), /invalid IP address/);
  assert.equal(wrong(on("fd99::1")), "");
  assert.equal(wrong(on("::1")), "");
  assert.equal(portWishes({}, {}, on("FD99:0::0:1"))[0]?.hostAddress, "fd99::1");
  assert.match(wrongPorts({ ExposedPorts: { "0/tcp": {} } }, {}) ?? "", /invalid port specification/);
  assert.equal(wrong({ PortBindings: bind("127.0.0.1:80-90 80/udp") }), "");
});

test("the network of the mode comes first, and default means bridge", () => {
  const kept = networksOf(
    "bridge",
    { back: { Aliases: ["b"] }, default: { GwPriority: 1 } },
    { MacAddress: "02:00:00:00:00:01" },
  );
  assert.deepEqual(kept, { bridge: { GwPriority: 1, MacAddress: "02:00:00:00:00:01" }, back: { Aliases: ["b"] } });
  assert.deepEqual(networksOf("host", { default: {} }, {}), {});
  assert.deepEqual(
    ordered("a", { b: {}, a: {}, c: { GwPriority: 5 } }).map(([name]) => name),
    ["c", "a", "b"],
  );
});

test("options that contradict each other are refused in the Engine's words", () => {
  const wrong = (
    host: HostConfig,
    config: ContainerConfig = {},
    networks: Record<string, EndpointSettings> = {},
  ): string => wrongNetworking(config, host, networks) ?? "";
  const other = { NetworkMode: "container:other" };
  assert.match(wrong(other, { Hostname: "h" }), /hostname and the network mode/);
  assert.match(wrong({ ...other, Dns: ["1.1.1.1"] }), /dns and the network mode/);
  assert.match(wrong({ ...other, ExtraHosts: ["a:1"] }), /custom host-to-IP/);
  assert.match(wrong({ ...other, PublishAllPorts: true }), /port publishing/);
  assert.match(wrong(other, { ExposedPorts: { "80/tcp": {} } }), /port exposing/);
  assert.match(wrong({ ...other, Links: ["a"] }), /can't be used with links/);
  assert.match(wrong({ NetworkMode: "host", Links: ["a"] }), /can't be used with links/);
  assert.match(
    wrong({ NetworkMode: "host" }, {}, { host: {}, net: {} }),
    /cannot attach both user-defined and non-user-defined/,
  );
  assert.match(wrong({}, {}, { default: { Aliases: ["a"] } }), /aliases are only supported for user-defined/);
  assert.match(wrong({ Links: ["a:b:c"] }), /bad format for links/);
  assert.equal(wrong({ NetworkMode: "net", Links: ["/db:store"] }, {}, { net: { Aliases: ["a"] } }), "");
});

test("what one network is asked for is checked before it is looked up", () => {
  const wrong = (settings: EndpointSettings, name = "net"): string => wrongEndpoint(name, settings) ?? "";
  assert.match(wrong({ IPAMConfig: { IPv4Address: "10.0.0.5" } }, "bridge"), /supported on user defined networks only/);
  assert.match(wrong({ IPAMConfig: { IPv4Address: "x" } }), /invalid IPv4 address/);
  assert.match(wrong({ IPAMConfig: { IPv6Address: "fd00::x" } }), /invalid IPv6 address/);
  assert.match(wrong({ IPAMConfig: { IPv6Address: "fd00::5" } }, "bridge"), /supported on user defined networks only/);
  assert.equal(wrong({ IPAMConfig: { IPv6Address: "fd00::5" } }), "");
  assert.match(wrong({ IPAMConfig: { LinkLocalIPs: ["169.254.1.1"] } }), /link-local/);
  assert.match(wrong({ MacAddress: "zz" }), /invalid MAC address/);
  assert.match(wrong({ MacAddress: "01:00:00:00:00:01" }), /it is a group's/);
  assert.match(wrong({ Aliases: ["a b"] }), /invalid network alias/);
  assert.match(wrong({ Links: [":"] }), /bad format for links/);
  assert.equal(
    wrong({ IPAMConfig: { IPv4Address: "10.0.0.5" }, MacAddress: "02:42:0a:00:00:05", Aliases: ["a.b"] }),
    "",
  );
});

test("links become names that stand for other names, and a container has its short id as an alias", () => {
  assert.deepEqual(readLink("/db:/store"), { name: "db", alias: "store" });
  assert.deepEqual(linksOf([{ Links: ["db:store"] }, {}], { Links: ["cache"] }), { store: "db", cache: "cache" });
  const record = { id: "0123456789abcdef" as never, name: "web", config: { Hostname: "h" } };
  assert.deepEqual(aliasesOf(record, { Aliases: ["www", "web"] }), ["www", "0123456789ab", "h"]);
});
