/** The root is rotated while the swarm runs: everybody can talk to everybody at every step, and the old root is gone at the end. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import {
  Authority,
  createAuthority,
  createRequest,
  digestOfRoot,
  publicKeyOfRoot,
  splitBundle,
} from "../../lib/pki/index.ts";
import { caMethods } from "../../proto/ca-methods.ts";
import { skep, trustedRoots } from "../../proto/index.ts";
import { Swarm, type SwarmNode } from "../support/swarm.ts";

let swarm: Swarm;
before(async () => {
  swarm = await Swarm.found();
  const { worker, manager } = swarm.tokens();
  await swarm.join("n2", { token: manager });
  await swarm.untilVoters(2);
  await swarm.join("w1", { token: worker });
});
after(() => swarm[Symbol.asyncDispose]());

async function wish(config: skep.objects.CaConfig.$Properties): Promise<void> {
  await swarm.update((tx) => {
    tx.edit("cluster", swarm.cluster().id, (draft) => {
      draft.spec = skep.objects.ClusterSpec.create({ ...draft.spec, caConfig: { ...draft.spec?.caConfig, ...config } });
    });
  });
}

/** What dispatcher and agent do: the node hears, renews, and describes what it uses. */
async function renew(node: SwarmNode): Promise<void> {
  await swarm.until(`${node.name} is asked`, (view) => {
    const state = view.get("node", node.nodeId)?.certificate?.state;
    return state === skep.objects.CertificateState.CERTIFICATE_ROTATE;
  });
  const renewed = new Promise<void>((resolve) => {
    node.identity.onChange((change) => {
      if (change === "certificate") resolve();
    });
  });
  node.renewer.start();
  await node.tell();
  await renewed;
  node.renewer.stop();
  await describe(node);
}

async function describe(node: SwarmNode): Promise<void> {
  await swarm.update((tx) => {
    tx.edit("node", node.nodeId, (draft) => {
      draft.description = skep.objects.NodeDescription.create({ ...draft.description, tlsInfo: node.identity.tlsInfo });
    });
  });
}

async function ping(from: SwarmNode, to: SwarmNode): Promise<void> {
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
  await from.channel(to.address).call(caMethods.getRoot, {}, call);
}

test("a forced rotation makes a new root, has every node renew, and drops the old root and the old tokens", async () => {
  const before = swarm.cluster();
  const oldTokens = swarm.tokens();
  await wish({ forceRotate: 1 });
  await swarm.until("a rotation", (view) => {
    return [...view.list("cluster")][0]?.rootCa?.rotation?.certificate !== undefined;
  });
  const roots = trustedRoots(swarm.cluster().rootCa);
  assert.equal(splitBundle(roots).length, 2);
  assert.equal(swarm.cluster().rootCa?.digest, before.rootCa?.digest);

  // In the middle a node can join with the token of the old root, and speak to managers of either kind.
  const [n1, n2, w1] = ["n1", "n2", "w1"].map((name) => swarm.node(name)) as [SwarmNode, SwarmNode, SwarmNode];
  await renew(n1);
  const w2 = await swarm.join("w2", { token: oldTokens.worker, addresses: [n1.address] });
  const w3 = await swarm.join("w3", { token: oldTokens.worker, addresses: [n2.address] });
  assert.equal(splitBundle(w2.identity.rootsPem).length, 2);
  for (const [from, to] of [
    [w1, n1],
    [w2, n2],
    [w3, n1],
    [n1, n2],
    [n2, n1],
  ] as const)
    await ping(from, to);
  await describe(w2);
  await describe(w3);
  await renew(n2);
  assert.notEqual(swarm.cluster().rootCa?.rotation ?? null, null, "one node has not renewed yet");
  await renew(w1);
  await swarm.until("the end", (view) => [...view.list("cluster")][0]?.rootCa?.rotation == null);

  const { rootCa } = swarm.cluster();
  assert.notEqual(rootCa?.certificate, before.rootCa?.certificate);
  assert.equal(rootCa?.digest, digestOfRoot(rootCa?.certificate ?? ""));
  assert.equal(rootCa?.lastForcedRotation, 1);
  for (const node of swarm.nodes) {
    await node.tell();
    assert.equal(splitBundle(node.identity.rootsPem).length, 1);
    assert.deepEqual(node.identity.tlsInfo.certIssuerPublicKey, publicKeyOfRoot(rootCa?.certificate ?? ""));
  }
  for (const node of swarm.nodes) await ping(node, n1);
  await assert.rejects(swarm.join("x", { token: oldTokens.worker }), { code: "JOIN_ROOT_MISMATCH" });
  const w4 = await swarm.join("w4", { token: swarm.tokens().worker });
  await describe(w4);
  // Nobody is cut off: both managers still make changes together.
  await swarm.update((tx) => tx.create("config", { id: "config1", spec: { name: "after" } }));
});

test("a root that somebody brings is taken if it fits, and the one in force can be wished back", async () => {
  const { clusterId } = swarm.founded.bootstrap;
  const brought = await createAuthority("anothername", Date.now());
  const other = await createAuthority(clusterId, Date.now());
  const from = swarm.logs.length;
  await wish({ signingCaCert: brought.certificatePem, signingCaKey: other.privateKeyPem, forceRotate: 2 });
  await swarm.logged("cannot be rotated", from);
  assert.equal(swarm.cluster().rootCa?.rotation ?? null, null);

  const inForce = swarm.cluster().rootCa!;
  await wish({ signingCaCert: brought.certificatePem, signingCaKey: brought.privateKeyPem, forceRotate: 3 });
  await swarm.until("a rotation", (view) => [...view.list("cluster")][0]?.rootCa?.rotation != null);
  assert.equal(swarm.cluster().rootCa?.rotation?.certificate, brought.certificatePem);
  const w1 = swarm.node("w1");
  await renew(w1);
  await ping(w1, swarm.node("n2"));
  await wish({ signingCaCert: inForce.certificate ?? "", signingCaKey: inForce.key ?? "", forceRotate: 4 });
  await swarm.until("it is abandoned", (view) => [...view.list("cluster")][0]?.rootCa?.rotation == null);
  assert.equal(swarm.cluster().rootCa?.certificate, inForce.certificate);
  assert.equal(swarm.cluster().rootCa?.lastForcedRotation, 4);
  await w1.tell();
  await ping(w1, swarm.node("n1"));

  await wish({ signingCaCert: brought.certificatePem, signingCaKey: brought.privateKeyPem, forceRotate: 5 });
  await swarm.until("a rotation", (view) => [...view.list("cluster")][0]?.rootCa?.rotation != null);
  // One of them has a certificate of that root already.
  for (const node of swarm.nodes) if (node !== w1) await renew(node);
  await swarm.until("the end", (view) => [...view.list("cluster")][0]?.rootCa?.rotation == null);
  assert.equal(swarm.cluster().rootCa?.certificate, brought.certificatePem);
  for (const node of swarm.nodes) await node.tell();
  for (const node of swarm.nodes) await ping(node, swarm.node("n2"));
  await swarm.join("w5", { token: swarm.tokens().worker });
});

test("a root that no node may have is refused with the reason", async () => {
  const { checkRoot } = await import("../../lib/pki/index.ts");
  const now = Date.now();
  const mine = await createAuthority("c", now);
  const other = await createAuthority("c", now);
  await checkRoot(mine, now);
  await assert.rejects(checkRoot({ ...mine, privateKeyPem: other.privateKeyPem }, now), {
    code: "CERTIFICATE_INVALID",
  });
  const later = now + 30 * 365 * 86_400_000;
  await assert.rejects(checkRoot(mine, later), { code: "CERTIFICATE_EXPIRED" });
  await assert.rejects(checkRoot(mine, now - 86_400_000), { code: "CERTIFICATE_NOT_YET_VALID" });
  await assert.rejects(checkRoot({ ...mine, certificatePem: "x" }, now), { code: "CERTIFICATE_INVALID" });
  const identity = { nodeId: "n", clusterId: "c", role: "worker", memberId: undefined } as const;
  const leaf = await new Authority(mine).issue(await createRequest(other.privateKeyPem), identity, { nowMs: now });
  await assert.rejects(checkRoot({ certificatePem: leaf, privateKeyPem: other.privateKeyPem }, now), {
    code: "CERTIFICATE_INVALID",
  });
  const vouched = await new Authority(mine).vouchFor(other.certificatePem, now);
  await assert.rejects(checkRoot({ certificatePem: vouched, privateKeyPem: other.privateKeyPem }, now), {
    code: "CERTIFICATE_INVALID",
  });
});
