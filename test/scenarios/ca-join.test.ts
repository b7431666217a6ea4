/** Nodes enter a swarm by token and stay in it by certificate: real managers, real TLS, real files. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import {
  createRequest,
  digestOfRoot,
  generatePrivateKey,
  makeJoinToken,
  nodeIdOf,
  TlsIdentity,
} from "../../lib/pki/index.ts";
import { RpcServer } from "../../lib/rpc/index.ts";
import { readBootstrap } from "../../manager/ca/index.ts";
import { caMethods } from "../../proto/ca-methods.ts";
import { skep } from "../../proto/index.ts";
import { removeNode } from "../../manager/store/index.ts";
import { managersMethods } from "../../manager/managers-service.ts";
import { TestAuthority } from "../support/certificates.ts";
import { Swarm } from "../support/swarm.ts";

const { NodeRole } = skep.objects;

let swarm: Swarm;
before(async () => {
  swarm = await Swarm.found();
});
after(() => swarm[Symbol.asyncDispose]());

test("init makes one cluster with root and tokens, and the node that founded it as its manager", () => {
  const { bootstrap } = swarm.founded;
  const cluster = swarm.cluster();
  assert.equal(cluster.id, bootstrap.clusterId);
  assert.equal(cluster.spec?.name, "default");
  assert.equal(cluster.rootCa?.digest, digestOfRoot(bootstrap.rootCert));
  assert.match(cluster.joinTokens?.worker ?? "", /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
  assert.match(cluster.joinTokens?.manager ?? "", /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
  assert.notEqual(cluster.joinTokens?.worker, cluster.joinTokens?.manager);
  const node = swarm.first.manager!.store.current().get("node", bootstrap.nodeId);
  assert.equal(node?.role, NodeRole.MANAGER);
  assert.equal(node?.managerStatus?.memberId, bootstrap.memberId);
  assert.equal(node?.description?.hostname, "host-n1");
  assert.equal(node?.status?.addr, "127.0.0.1");
});

test("the worker token makes a worker, the manager token a manager that becomes a voter", async () => {
  const { worker, manager } = swarm.tokens();
  const w1 = await swarm.join("w1", { token: worker });
  assert.equal(w1.identity.role, "worker");
  const n2 = await swarm.join("n2", { token: manager });
  assert.equal(n2.identity.role, "manager");
  await swarm.untilVoters(2);
  const view = (await swarm.leader()).store.current();
  assert.equal(view.get("node", w1.nodeId)?.role, NodeRole.WORKER);
  assert.equal(view.get("node", w1.nodeId)?.description?.hostname, "host-w1");
  assert.ok((view.get("node", w1.nodeId)?.certificate?.expiresAtUs ?? 0) > Date.now() * 1000);
  assert.equal(view.get("node", n2.nodeId)?.managerStatus?.memberId, n2.identity.memberId);
  assert.equal(view.get("node", n2.nodeId)?.managerStatus?.addr, n2.address);
});

test("a follower passes a join on to the leader, and a node may know several addresses of which some are dead", async () => {
  const leader = await swarm.leader();
  const follower = swarm.managers().find((node) => node.manager !== leader)!;
  const { worker } = swarm.tokens();
  const w2 = await swarm.join("w2", { token: worker, addresses: ["127.0.0.1:1", follower.address] });
  assert.equal(w2.identity.role, "worker");
  assert.ok(leader.store.current().has("node", w2.nodeId));
});

test("a join that is asked for again with the same key is the same node", async () => {
  const { worker } = swarm.tokens();
  const w3 = await swarm.join("w3", { token: worker });
  const csr = await w3.identity.request();
  const request = { token: worker, csr, description: { hostname: "again" } };
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
  const channel = w3.channel(swarm.first.address);
  const first = await channel.call(caMethods.join, request, call);
  const again = await channel.call(caMethods.join, request, call);
  assert.equal(first.nodeId, again.nodeId);
  assert.notEqual(first.nodeId, w3.nodeId, "another key is another node");
  assert.equal(nodeIdOf(swarm.cluster().id, new Uint8Array(1)).length, 25);
});

test("tokens that are wrong, of another cluster, cut short or rotated are refused with what to do", async () => {
  const { worker } = swarm.tokens();
  const draw = (count: number): Uint8Array => new Uint8Array(count).fill(9);
  const wrong = makeJoinToken(swarm.cluster().rootCa!.digest!, draw);
  await assert.rejects(swarm.join("x", { token: wrong }), { code: "JOIN_TOKEN_WRONG" });
  await assert.rejects(swarm.join("x", { token: worker.slice(0, -1) }), { code: "JOIN_TOKEN_INVALID" });
  await assert.rejects(swarm.join("x", { token: "SWMTKN-2-a-b" }), { code: "JOIN_TOKEN_INVALID" });
  await assert.rejects(swarm.join("x", { token: worker, addresses: [] }), { code: "JOIN_ADDRESS_MISSING" });
  const foreign = makeJoinToken("0".repeat(50), draw);
  await assert.rejects(swarm.join("x", { token: foreign }), { code: "JOIN_ROOT_MISMATCH" });
  assert.equal(swarm.folder("x").standing(), "none");
  // Who leaves out the comparison is told by the manager.
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
  const csr = await swarm.node("w1").identity.request();
  const channel = swarm.node("w1").channel(swarm.first.address);
  await assert.rejects(channel.call(caMethods.join, { token: foreign, csr }, call), {
    code: "JOIN_TOKEN_OF_ANOTHER_CLUSTER",
  });
  await assert.rejects(channel.call(caMethods.join, { token: worker, csr: "no request" }, call), {
    code: "CERTIFICATE_REQUEST_INVALID",
  });
  await assert.rejects(channel.call(caMethods.join, { token: worker, csr, addr: "no address" }, call), {
    code: "JOIN_REQUEST_INVALID",
  });
  const long = { hostname: "h".repeat(70_000) };
  await assert.rejects(channel.call(caMethods.join, { token: worker, csr, description: long }, call), {
    code: "JOIN_REQUEST_INVALID",
  });

  await swarm.update((tx) => {
    tx.edit("cluster", swarm.cluster().id, (draft) => {
      draft.joinTokens = skep.objects.JoinTokens.create({
        ...draft.joinTokens,
        worker: makeJoinToken(draft.rootCa!.digest!, (count) => new Uint8Array(count).fill(3)),
      });
    });
  });
  await assert.rejects(swarm.join("x", { token: worker }), { code: "JOIN_TOKEN_WRONG" });
  await swarm.join("w4", { token: swarm.tokens().worker });
});

test("a node is let in if frames of the cluster's nodes can go to it: all have one family of IP for them", async () => {
  const { worker: token } = swarm.tokens();
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(60_000) };
  const channel = swarm.node("w1").channel(swarm.first.address);
  const ask = async (addr: string, dataPathAddr = ""): Promise<string> => {
    const csr = await createRequest(await generatePrivateKey());
    const description = { hostname: "h", ...(dataPathAddr === "" ? {} : { network: { dataPathAddr } }) };
    return (await channel.call(caMethods.join, { token, csr, addr, description }, call)).nodeId ?? "";
  };
  const refused = { code: "DATA_PATH_FAMILY", message: /go by IPv4 \(to 127\.0\.0\.1, say\)/, fix: /an IPv4 address/ };
  await assert.rejects(ask("[fd00::5]:2377"), refused);
  await assert.rejects(ask("192.0.2.9:2377", "fd00::5"), refused);
  const mixed = await ask("[fd00::5]:2377", "192.0.2.9");
  const view = (await swarm.leader()).store.current();
  assert.equal(view.get("node", mixed)?.status?.addr, "fd00::5");
  assert.equal(view.get("node", mixed)?.description?.network?.dataPathAddr, "192.0.2.9");
});

test("the family is that of nodes that carry networks, and as long as there is none, of the first manager", async () => {
  const other = await Swarm.found({}, { frameAddr: "fd00::1" });
  try {
    const { manager: token } = other.tokens();
    await assert.rejects(other.join("four", { token }), { code: "DATA_PATH_FAMILY", fix: /an IPv6 address/ });
    assert.equal(other.folder("four").standing(), "none");
    const six = await other.join("six", { token, frameAddr: "fd00::2" });
    const view = (await other.leader()).store.current();
    assert.equal(view.get("node", six.nodeId)?.description?.network?.dataPathAddr, "fd00::2");
  } finally {
    await other[Symbol.asyncDispose]();
  }
});

test("an address that comes with wrong tokens again and again has to wait", async () => {
  const wrong = makeJoinToken(swarm.cluster().rootCa!.digest!, (count) => new Uint8Array(count).fill(9));
  const { address } = swarm.managers().find(({ manager }) => manager === swarm.first.manager)!;
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
  const channel = swarm.node("w1").channel(address);
  const codes: string[] = [];
  for (let times = 0; times < 12; times++) {
    const csr = "never read";
    await channel.call(caMethods.join, { token: wrong, csr }, call).catch((error: { code: string }) => {
      codes.push(error.code);
    });
  }
  assert.equal(codes[0] === "JOIN_TOKEN_WRONG" || codes[0] === "JOIN_TOO_OFTEN", true);
  assert.equal(codes.at(-1), "JOIN_TOO_OFTEN");
});

test("a node that was removed is refused at every call by every manager, also when it asks to renew", async () => {
  const w2 = swarm.node("w2");
  w2.renewer.renewNow();
  w2.renewer.start();
  const before = w2.identity.tls.certificate.fingerprint;
  await new Promise<void>((resolve) => w2.identity.onChange(() => resolve()));
  assert.notEqual(w2.identity.tls.certificate.fingerprint, before);
  w2.renewer.stop();
  await swarm.update((tx) => removeNode(tx, w2.nodeId));
  for (const manager of swarm.managers()) {
    await swarm.until("the removal", (view) => !view.has("node", w2.nodeId), manager);
    const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
    const channel = w2.channel(manager.address);
    await assert.rejects(channel.call(caMethods.renew, { csr: await w2.identity.request() }, call), (error) => {
      assert.equal((error as { code?: string }).code, "NODE_REVOKED");
      assert.match((error as { fix?: string }).fix ?? "", /leave --force/);
      return true;
    });
  }
  // A manager's own words are no longer heard, either.
  const n2 = swarm.node("n2");
  const channel = n2.channel(swarm.first.address);
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
  assert.equal((await channel.call(managersMethods.status, {}, call)).clusterId, swarm.cluster().id);
});

test("nobody at the address, or somebody who answers nonsense, is no way in, and the message says which address", async () => {
  const { worker: token } = swarm.tokens();
  await assert.rejects(swarm.join("x", { token, addresses: ["127.0.0.1:1"], patienceMs: 0 }), (error) => {
    assert.equal((error as { code?: string }).code, "JOIN_UNREACHABLE");
    assert.match((error as Error).message, /127\.0\.0\.1:1/);
    return true;
  });
  const tls = new TlsIdentity(await (await TestAuthority.create("stranger")).issue("strangernode", 7));
  const server = new RpcServer({ tls, wallMs: () => Date.now(), onBug: () => undefined });
  try {
    server.unary(caMethods.getRoot, () => Promise.resolve({}));
    const port = await server.listen("127.0.0.1:0");
    await assert.rejects(swarm.join("x", { token, addresses: [`127.0.0.1:${port}`] }), { code: "JOIN_ANSWER_INVALID" });
  } finally {
    await server[Symbol.asyncDispose]();
  }
});

test("what a daemon hands its first manager is read with suspicion", () => {
  const { bootstrap } = swarm.founded;
  assert.deepEqual(readBootstrap({ ...bootstrap }), bootstrap);
  const wrong: unknown[] = [undefined, [], {}, { ...bootstrap, memberId: "7" }, { ...bootstrap, availability: "off" }];
  wrong.push({ ...bootstrap, frameAddr: 7 });
  wrong.push({ ...bootstrap, rootKey: "" }, { ...bootstrap, defaultAddrPool: [1] }, { ...bootstrap, spec: "/////w==" });
  for (const value of wrong) {
    assert.throws(
      () => readBootstrap(value),
      (error) => {
        assert.equal((error as { code?: string }).code, "BOOTSTRAP_INVALID");
        assert.ok(!(error as Error).message.includes("PRIVATE KEY"));
        return true;
      },
    );
  }
});

test("a manager that does not know the node, or the cluster, says so", async () => {
  const w1 = swarm.node("w1");
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
  const channel = w1.channel(swarm.first.address);
  const csr = await w1.identity.request();
  await swarm.update((tx) => tx.remove("node", w1.nodeId));
  await assert.rejects(channel.call(caMethods.renew, { csr }, call), { code: "NODE_UNKNOWN" });
  const { id } = swarm.cluster();
  await swarm.update((tx) => tx.remove("cluster", id));
  for (const { address } of swarm.managers())
    await swarm.until(
      "it is gone",
      (view) => view.count("cluster") === 0,
      swarm.managers().find((node) => node.address === address),
    );
  await assert.rejects(channel.call(caMethods.getRoot, {}, call), { code: "CA_NOT_READY" });
});
