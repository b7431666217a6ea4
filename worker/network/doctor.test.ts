import assert from "node:assert/strict";
import { networkInterfaces } from "node:os";
import { test } from "node:test";

import { Random } from "../../lib/pure/prng.ts";
import { realClock, VirtualClock } from "../../lib/runtime/index.ts";
import { diagnose, type Observations, type PeerProbe } from "./core/diagnosis.ts";
import { NameTable, Resolver } from "./dns/index.ts";
import { examine, type DoctorFacts } from "./doctor.ts";
import { listenAt } from "./testing/listen-at.ts";

const healthy: Observations = {
  nodeId: "n1",
  number: 1,
  addr: "10.99.0.1",
  mtu: 1450,
  hasMesh6: false,
  linkMtu: 1500,
  refusal: undefined,
  differences: [],
  unrepaired: [],
  peers: [],
  tunnel: undefined,
  keyless: [],
  nowSeconds: 1000,
  refusedPorts: [],
  firewall: [],
  unserved: [],
  strangers: [],
  connections: { count: 10, max: 1000 },
};
const peer = (more: Partial<PeerProbe>): PeerProbe => ({
  nodeId: "n2",
  number: 2,
  addr: "10.99.0.2",
  underlay: "answers",
  small: "answers",
  full: "answers",
  roundTripMs: 0.3,
  ...more,
});
const kinds = (more: Partial<Observations>): string[] =>
  diagnose({ ...healthy, ...more }).map(({ severity, kind }) => `${severity} ${kind}`);

test("a healthy node has no findings", () => {
  assert.deepEqual(kinds({ peers: [peer({})] }), []);
  assert.deepEqual(kinds({ number: 0, linkMtu: 0, connections: undefined }), []);
});

test("a path that is narrow, one that is blocked, and a host that is gone are told apart", () => {
  assert.deepEqual(kinds({ peers: [peer({ full: "silent" })] }), ["error mtu-too-large"]);
  assert.deepEqual(kinds({ peers: [peer({ full: "silent", small: "silent" })] }), ["error vxlan-blocked"]);
  assert.deepEqual(kinds({ peers: [peer({ full: "silent", small: "silent", underlay: "silent" })] }), [
    "error node-unreachable",
  ]);
  assert.deepEqual(kinds({ peers: [peer({ underlay: "silent" })] }), [], "a host may drop what it does not serve");
  assert.deepEqual(kinds({ linkMtu: 1400 }), ["error link-mtu-too-small"]);
});

test("IPv6 that does not come through is told where IPv4 does, and a link too narrow for it where the mesh has it", () => {
  assert.deepEqual(kinds({ hasMesh6: true, peers: [peer({ full6: "answers" })] }), []);
  assert.deepEqual(kinds({ hasMesh6: true, peers: [peer({ full6: "silent" })] }), ["error ipv6-blocked"]);
  const gone = peer({ full: "silent", small: "silent", full6: "silent" });
  assert.deepEqual(kinds({ hasMesh6: true, peers: [gone] }), ["error vxlan-blocked"], "one cause is told once");
  assert.deepEqual(kinds({ mtu: 1200, linkMtu: 1250 }), []);
  assert.deepEqual(kinds({ hasMesh6: true, mtu: 1200, linkMtu: 1250 }), ["error mtu-too-small-for-ipv6"]);
});

test("a node whose frames go by the other family of IP is told with what to do, and not asked", () => {
  const [found, ...more] = diagnose({ ...healthy, strangers: [{ nodeId: "n9", addr: "fd99::9" }] });
  assert.deepEqual([found?.severity, found?.kind, more.length], ["error", "other-family", 0]);
  assert.match(found?.found ?? "", /n9.*fd99::9.*10\.99\.0\.1/);
  assert.match(found?.fix ?? "", /--data-path-addr/);
});

test("where frames go by IPv6 their header counts with its 20 bytes more", () => {
  const six = { addr: "fd99::1", mtu: 1430 };
  assert.deepEqual(kinds({ ...six, linkMtu: 1500 }), []);
  assert.deepEqual(kinds({ ...six, linkMtu: 1499 }), ["error link-mtu-too-small"]);
  const [narrow] = diagnose({ ...healthy, ...six, peers: [peer({ full: "silent" })] });
  assert.match(narrow?.found ?? "", /less than 1500 bytes/);
});

test("what was put right is a warning, what was not is an error, and many differences are counted", () => {
  const difference = (object: string) => ({ namespace: "", what: "missing" as const, object });
  const [route, link] = [difference("route 254 10.0.1.0/24"), difference("link skep0")];
  assert.deepEqual(kinds({ differences: [route, link], unrepaired: [link] }), [
    "warning kernel-differed",
    "error kernel-differs",
  ]);
  const many = Array.from({ length: 50 }, (_, at) => difference(`route 254 10.0.1.${at}/32`));
  const found = diagnose({ ...healthy, differences: many });
  assert.equal(found.length, 21);
  assert.match(found.at(-1)?.found ?? "", /30 more/);
});

test("a tunnel without a handshake is an error, a node that can have none is a note, and without need neither is told", () => {
  const other = { nodeId: "n2", addr: "10.99.0.2", receivedBytes: 1, sentBytes: 1 };
  assert.deepEqual(kinds({ keyless: ["n3"] }), []);
  assert.deepEqual(kinds({ tunnel: [{ ...other, handshakeSeconds: 900 }] }), []);
  assert.deepEqual(kinds({ tunnel: [{ ...other, handshakeSeconds: 700 }] }), ["error tunnel-silent"]);
  const [silent, keyless] = diagnose({
    ...healthy,
    tunnel: [{ ...other, handshakeSeconds: undefined }],
    keyless: ["n3", "n4"],
  });
  assert.match(silent?.fix ?? "", /UDP port 2377 between 10\.99\.0\.1 and 10\.99\.0\.2/);
  assert.equal(keyless?.severity, "note");
  assert.match(keyless?.found ?? "", /n3, n4/);
});

test("ports, names, firewalls and crowded connections are told with what to do", () => {
  const found = {
    refusedPorts: ["tcp/8080"],
    firewall: ["the chain x drops"],
    unserved: [{ address: "100.64.4.1", why: "EADDRINUSE" }],
    connections: { count: 900, max: 1000 },
  };
  assert.deepEqual(kinds(found), [
    "error names-unserved",
    "error port-taken",
    "error firewall",
    "warning connections-crowded",
  ]);
  for (const { fix } of diagnose({ ...healthy, ...found })) assert.ok(fix.length > 10);
  const refusal = { message: "netplane is missing", fix: "Build it" };
  assert.deepEqual(kinds({ ...found, refusal }), ["error networks-unavailable"]);
});

test("other nodes are asked by their resolvers, with small packets and full ones, and what differs is put right once", async () => {
  const resolver = new Resolver({ names: new NameTable(), port: 0, clock: realClock, random: new Random("doctor") });
  const port = await listenAt(resolver, "127.0.1.72");
  const differing = [[{ namespace: "", what: "missing" as const, object: "link skep0" }], []];
  let repairs = 0;
  const facts: DoctorFacts = {
    self: { nodeId: "n1", number: 1, addr: "127.0.1.71", underlayMtu: 1500 },
    peers: [1, 2].map((number) => ({
      nodeId: `n${number}`,
      number,
      addr: `127.0.1.7${number}`,
      mtu: 1500,
      publicKey: "",
    })),
    strangers: [],
    refusal: undefined,
    differences: async () => differing.shift() ?? [],
    repair: async () => void repairs++,
    linkMtu: async () => 1500,
    refusedPorts: [],
    firewall: [],
    unserved: [],
    tunnel: async () => undefined,
    meshTunnelBytes: 0,
    hasMesh6: () => false,
    // However long an answer takes: none of them is asked for twice.
    clock: new VirtualClock(),
    port,
    gatewayOf: (number) => `127.0.1.7${number}`,
  };
  try {
    const report = await examine(facts, new AbortController().signal);
    assert.equal(repairs, 1);
    assert.deepEqual(
      report.findings.map(({ kind }) => kind).filter((kind) => kind !== "connections-crowded"),
      ["kernel-differed"],
    );
    const [other] = report.peers;
    assert.deepEqual(
      [report.peers.length, other?.small, other?.full, other?.underlay, other?.full6],
      [1, "answers", "answers", "answers", undefined],
    );
    // By IPv6, where this machine has it.
    const has6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === "::1"));
    const six = { ...facts, hasMesh6: () => true, gateway6Of: () => "::1" };
    const [by6] = (await examine(six, new AbortController().signal)).peers;
    assert.equal(by6?.full6, has6 ? "answers" : "silent");
    // An address that is nobody's, so that nothing answers. The last published service goes while the others are asked.
    const unanswered = { ...facts, gateway6Of: () => "2001:db8::5" };
    const silent = await examine({ ...unanswered, hasMesh6: () => true }, new AbortController().signal);
    assert.ok(silent.findings.some(({ kind }) => kind === "ipv6-blocked"));
    let asked = 0;
    const going = await examine({ ...unanswered, hasMesh6: () => asked++ === 0 }, new AbortController().signal);
    assert.ok(!going.findings.some(({ kind }) => kind === "ipv6-blocked"));
    assert.ok(asked > 1);
    assert.ok((other?.roundTripMs ?? -1) >= 0);
    assert.equal(resolver.figures.strangers, 8, "a node is nobody to a resolver, which refuses it");
  } finally {
    await resolver[Symbol.asyncDispose]();
  }
});

test("a node that does not answer is found silent when the time is up or whoever asks has gone", async () => {
  const gone = new AbortController();
  gone.abort();
  const report = await examine(
    {
      self: { nodeId: "n1", number: 1, addr: "", underlayMtu: 1500 },
      peers: [{ nodeId: "n2", number: 2, addr: "127.0.1.79", mtu: 1500, publicKey: "" }],
      strangers: [],
      refusal: undefined,
      differences: async () => [],
      repair: async () => undefined,
      linkMtu: async () => 0,
      refusedPorts: [],
      firewall: [],
      unserved: [],
      tunnel: async () => undefined,
      meshTunnelBytes: 0,
      hasMesh6: () => false,
      clock: realClock,
      gatewayOf: () => "127.0.1.79",
    },
    gone.signal,
  );
  assert.deepEqual(
    report.peers.map(({ small, full, underlay }) => [small, full, underlay]),
    [["silent", "silent", "silent"]],
  );
});
