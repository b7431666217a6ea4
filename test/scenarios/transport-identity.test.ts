/** Who may talk to a member: bad certificates, clusters and claims get their own typed answer and harm nobody else. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { TlsIdentity, signStatement } from "../../lib/pki/index.ts";
import { removedStatement } from "../../manager/raft/transport/acceptor.ts";
import { skep } from "../../proto/index.ts";
import { realClock, type Clock } from "../../lib/runtime/index.ts";
import { createClusterPki } from "../support/cluster-pki.ts";
import { GrpcWorld, testPki, type GrpcNode } from "../support/transport-world.ts";
import { dialRaw, hello } from "../support/raw-peer.ts";
import { connected, heartbeat, roundOf } from "../conformance/raft-transport.ts";

function scene(title: string, play: (world: GrpcWorld, nodes: GrpcNode[]) => Promise<void>): void {
  test(title, { timeout: 120_000 }, async () => {
    const world = new GrpcWorld();
    try {
      const nodes = await world.start(2);
      await play(world, nodes);
      await stillWorking(nodes);
    } finally {
      await world[Symbol.asyncDispose]();
    }
  });
}

/** The two members that did nothing wrong go on as before, on the streams that they had. */
async function stillWorking(nodes: readonly GrpcNode[]): Promise<void> {
  const [one, two] = nodes as [GrpcNode, GrpcNode];
  one.transport.send(heartbeat(1, 2, 4242));
  await two.heard.until(() => two.heard.messages.some((message) => roundOf(message) === 4242));
  assert.equal(one.transport.metrics().get(2)?.streamResets, 0);
}

/** What the member answers to a hello. */
async function greet(
  node: GrpcNode,
  tls: TlsIdentity,
  bytes: Uint8Array,
): Promise<{ code: string; fix: string; statement: Uint8Array }> {
  const raw = dialRaw(tls, node.address);
  raw.stream.write(bytes);
  const answer = await raw.answer();
  const ending = answer === undefined ? await raw.ended : undefined;
  raw[Symbol.dispose]();
  if (answer === undefined) return { code: ending?.code ?? "", fix: ending?.fix ?? "", statement: new Uint8Array() };
  const refused = answer.refused as skep.raft.Refused | null | undefined;
  return refused
    ? { code: refused.code, fix: refused.fix, statement: refused.statement }
    : { code: "", fix: "", statement: new Uint8Array() };
}

scene("a certificate of another authority is refused before anything is heard", async (_world, [one]) => {
  const foreign = await createClusterPki();
  const pki = await testPki();
  const tls = new TlsIdentity({
    ...(await foreign.material({ nodeId: "x", clusterId: pki.clusterId, role: "manager", memberId: 9 })),
    rootsPem: `${foreign.rootPem}${pki.rootPem}`,
  });
  assert.equal((await greet(one!, tls, hello(9, 1))).code, "PEER_NOT_AUTHENTICATED");
});

scene("a worker's certificate opens no stream of raft", async (_world, [one]) => {
  const pki = await testPki();
  assert.equal((await greet(one!, await pki.worker(), hello(9, 1))).code, "PEER_NOT_TRUSTED");
});

scene("a certificate of another cluster under the same authority is refused", async (_world, [one]) => {
  const pki = await testPki();
  const material = await pki.material({ nodeId: "x", clusterId: "d".repeat(25), role: "manager", memberId: 9 });
  assert.equal((await greet(one!, new TlsIdentity(material), hello(9, 1))).code, "PEER_NOT_TRUSTED");
});

scene("`from` must be the member that the certificate names", async (_world, [one]) => {
  const tls = await (await testPki()).manager(9);
  assert.equal((await greet(one!, tls, hello(2, 1))).code, "RAFT_WRONG_SENDER");
  assert.equal((await greet(one!, tls, hello(0, 1))).code, "RAFT_WRONG_SENDER");
  assert.equal((await greet(one!, tls, hello(9, 1))).code, "");
});

scene(
  "wrong cluster, incarnation, receiver, protocol and malformed claims have answers of their own",
  async (_w, [one]) => {
    const tls = await (await testPki()).manager(9);
    for (const [overrides, code] of [
      [{ clusterId: "other" }, "RAFT_WRONG_CLUSTER"],
      [{ clusterIncarnation: 2 }, "RAFT_WRONG_INCARNATION"],
      [{ clusterIncarnation: 0 }, "RAFT_WRONG_INCARNATION"],
      [{ to: 2 }, "RAFT_WRONG_RECEIVER"],
      [{ protocol: 0 }, "RAFT_PROTOCOL_UNSUPPORTED"],
      [{ dataIncarnation: "../../etc" }, "RAFT_HANDSHAKE_EXPECTED"],
      [{ address: "no port" }, "RAFT_HANDSHAKE_EXPECTED"],
      [{ address: `${"h".repeat(300)}:1` }, "RAFT_HANDSHAKE_EXPECTED"],
      [{ protocol: 2 }, ""],
    ] as const) {
      const refused = await greet(one!, tls, hello(9, 1, overrides));
      assert.equal(refused.code, code, JSON.stringify(overrides));
      if (code !== "") assert.notEqual(refused.fix, "");
    }
  },
);

scene("a stream that does not begin with a hello, or with a huge one, is refused", async (_world, [one]) => {
  const tls = await (await testPki()).manager(9);
  const { Frame } = skep.raft;
  assert.equal(
    (await greet(one!, tls, Frame.encode({ heartbeat: { term: 1 } }).finish())).code,
    "RAFT_HANDSHAKE_EXPECTED",
  );
  assert.equal((await greet(one!, tls, Buffer.alloc(10_000, 1))).code, "RAFT_HANDSHAKE_EXPECTED");
  assert.equal((await greet(one!, tls, Buffer.from([0xff, 0xff]))).code, "MESSAGE_UNREADABLE");
});

scene("F12: unknown members and replaced data folders are refused by their own codes", async (_world, [one]) => {
  const tls = await (await testPki()).manager(9);
  one!.heard.standings.set(9, "unknown");
  assert.equal((await greet(one!, tls, hello(9, 1))).code, "RAFT_PEER_UNKNOWN");
  one!.heard.standings.set(9, "replaced");
  assert.equal((await greet(one!, tls, hello(9, 1))).code, "RAFT_PEER_REPLACED");
});

scene(
  "F7: the answer to a removed member is signed, and a forged or foreign one is not believed",
  async (world, [one]) => {
    const pki = await testPki();
    one!.heard.standings.set(9, "removed");
    const refused = await greet(one!, await pki.manager(9), hello(9, 1));
    assert.equal(refused.code, "RAFT_PEER_REMOVED");
    assert.ok(refused.statement.length > 100);

    // A real member 9 whose only peer answers with statements that prove nothing, and then with the true one.
    const nine = await world.add(9);
    const impostor = await world.add(10);
    const sign = (signer: TlsIdentity, kind: string, subject: string): Uint8Array =>
      signStatement({ kind, clusterId: pki.clusterId, subject, issuedMs: Date.now() }, signer);
    const worthless = [
      Buffer.from("not a statement"),
      sign(await pki.worker(), removedStatement, "9"),
      sign(impostor.tls, removedStatement, "8"),
      sign(impostor.tls, "something else", "9"),
      sign(await (await createClusterPki()).manager(10), removedStatement, "9"),
    ];
    const { Answer } = skep.raft;
    const refusals = worthless.map((statement) =>
      Answer.encode({ refused: { code: "RAFT_PEER_REMOVED", statement } }).finish(),
    );
    const liar = await liarAt(impostor, refusals);
    nine.transport.setMembers([{ id: 10, address: liar.address }]);
    await nine.heard.until(() => liar.answered >= refusals.length);
    assert.equal(nine.heard.removedCount, 0);
    await liar.close();
    nine.transport.setMembers([{ id: 1, address: one!.address }]);
    await nine.heard.until(() => nine.heard.removedCount === 1);
  },
);

/** A server with a member's certificate that answers each hello with the next of `answers`. */
async function liarAt(
  member: GrpcNode,
  answers: readonly Uint8Array[],
): Promise<{ address: string; readonly answered: number; close: () => Promise<void> }> {
  const { RpcServer, rawCodec } = await import("../../lib/rpc/index.ts");
  const server = new RpcServer({
    tls: member.tls,
    wallMs: Date.now,
    onBug: (_path, error) => assert.fail(String(error)),
  });
  let answered = 0;
  for (const kind of ["Control", "Data"]) {
    server.bidi(
      { kind: "bidi", path: `/skep.raft.Raft/${kind}`, caller: "manager", request: rawCodec, response: rawCodec },
      (stream) => ({
        message: () => {
          stream.write(answers[answered++ % answers.length] as Uint8Array);
          stream.end();
        },
        closed: () => {},
      }),
    );
  }
  const port = await server.listen("127.0.0.1:0");
  return {
    address: `127.0.0.1:${port}`,
    get answered() {
      return answered;
    },
    close: () => server[Symbol.asyncDispose](),
  };
}

scene(
  "a member that is dialled at the address of another one is left alone, with the reason",
  async (world, [one, two]) => {
    const three = await world.add(3);
    three.transport.setMembers([{ id: 1, address: two!.address }]);
    await three.heard.until(() => three.transport.metrics().get(1)?.lastError === "PEER_NOT_TRUSTED");
    three.transport.setMembers([{ id: 1, address: one!.address }]);
    await connected(three, 1);
  },
);

scene(
  "a member that nobody has told us of is dialled back at the address that it claims",
  async (world, [one, two]) => {
    const four = await world.add(4, { address: "its own" });
    four.transport.setMembers([{ id: 1, address: one!.address }]);
    await connected(four, 1);
    await connected(one!, 4);
    one!.transport.send(heartbeat(1, 4, 7));
    await four.heard.until(() => four.heard.messages.length > 0);
    // A change of members that does not know it yet leaves it alone.
    one!.transport.setMembers([{ id: 2, address: world.opened(one!, two!).address }]);
    one!.transport.send(heartbeat(1, 4, 8));
    await four.heard.until(() => four.heard.messages.length > 1);
  },
);

test(
  "a stream that outlives its certificate is ended, and a renewed one opens the next",
  { timeout: 120_000 },
  async () => {
    let aheadMs = 0;
    const clock: Clock = {
      monotonicMs: () => realClock.monotonicMs(),
      wallMs: () => realClock.wallMs() + aheadMs,
      after: (ms, callback) => realClock.after(ms, callback),
      every: (ms, callback) => realClock.every(ms, callback),
    };
    // Certificates are looked at when silence is: four times in this.
    const world = new GrpcWorld({ clock, limits: { silentMsMax: 4000 } });
    try {
      const [one, two] = (await world.start(2)) as [GrpcNode, GrpcNode];
      const pki = await testPki();
      const identity = { nodeId: "n5", clusterId: pki.clusterId, role: "manager", memberId: 5 } as const;
      const tls = new TlsIdentity(await pki.material(identity, 600_000));
      const five = await world.add(5, { tls });
      five.transport.setMembers([{ id: 1, address: one.address }]);
      await connected(five, 1);
      aheadMs = 3_600_000;
      await five.heard.until(() => five.transport.metrics().get(1)?.lastError === "CERTIFICATE_EXPIRED");
      tls.replace(await pki.material(identity));
      await connected(five, 1);
      await stillWorking([one, two]);
    } finally {
      await world[Symbol.asyncDispose]();
    }
  },
);
