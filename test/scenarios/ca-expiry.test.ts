/** Certificates that ended while their nodes were off: who may come back, through whom, and who may not. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { SwarmIdentity } from "../../daemon/identity/index.ts";
import {
  Authority,
  CertificateExpired,
  createAuthority,
  createRequest,
  generatePrivateKey,
  proveCertified,
  readCertificate,
  ReinstatementRefused,
  Stranger,
  type Certificate,
  type Shown,
} from "../../lib/pki/index.ts";
import { Channel } from "../../lib/rpc/index.ts";
import { createLogger } from "../../lib/runtime/index.ts";
import { renewOwn } from "../../manager/own-renewal.ts";
import { caMethods } from "../../proto/ca-methods.ts";
import type { skep } from "../../proto/index.ts";
import { Swarm, type SwarmNode } from "../support/swarm.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const never = new AbortController().signal;

let swarm: Swarm;
let n1: SwarmNode;
let n2: SwarmNode;
let n3: SwarmNode;
let w1: SwarmNode;
before(async () => {
  swarm = await Swarm.found();
  n1 = swarm.first;
  n2 = await swarm.join("n2", { token: swarm.tokens().manager });
  n3 = await swarm.join("n3", { token: swarm.tokens().manager });
  w1 = await swarm.join("w1", { token: swarm.tokens().worker });
  await swarm.untilVoters(3);
});
after(() => swarm[Symbol.asyncDispose]());

/** Gives the node, which is off, a certificate that ended so long ago, as the last one that it was given. */
async function expire(node: SwarmNode, agoMs: number): Promise<void> {
  const { certificate, key } = swarm.cluster().rootCa!;
  const authority = new Authority({ certificatePem: certificate!, privateKeyPem: key! });
  const privateKeyPem = await generatePrivateKey();
  const about = { nowMs: Date.now() - agoMs - hourMs, lifeMs: hourMs };
  // A root begins an hour before it was made; these certificates are older.
  const issued = await authority.issue(
    await createRequest(privateKeyPem),
    node.identity.tls.certificate.identity,
    about,
  );
  const { notAfterMs } = readCertificate(issued);
  assert.ok(notAfterMs < Date.now());
  node.folder.writeNextKey(privateKeyPem, []);
  node.folder.writeRenewed(issued, node.identity.rootsPem);
  node.identity = SwarmIdentity.open(node.folder)!;
  await swarm.update((tx) => {
    tx.edit("node", node.nodeId, (draft) => {
      draft.certificate = { ...draft.certificate!, expiresAtUs: notAfterMs * 1000 };
    });
  });
}

async function ask(at: SwarmNode, shown: Shown): Promise<skep.ca.IRenewResponse> {
  const { csr, certificatePem: certificate, proof } = shown;
  const tls = new Stranger(n1.identity.rootsPem);
  const channel = new Channel({ address: at.address, tls, expect: { role: "manager" } });
  try {
    return await channel.call(caMethods.reinstate, { csr, certificate, proof }, { timeoutMs: 30_000, signal: never });
  } finally {
    channel[Symbol.dispose]();
  }
}

/** What the node shows for itself. */
async function shownBy(node: SwarmNode): Promise<Shown> {
  const { certificate, privateKey } = node.identity.tls;
  return proveCertified(await node.identity.request(), certificate, privateKey);
}

/** What its manager would go on with if it started now, alone, by such a clock. */
async function certifyItself(node: SwarmNode, nowMs: number): Promise<Certificate> {
  const { tls, rootsPem } = node.identity;
  const privateKeyPem = tls.privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  const material = { certificatePem: "", rootsPem, privateKeyPem };
  const logger = createLogger({ destination: { write: () => undefined } });
  const options = { dataDir: node.dataDir, tls, material, unlockKey: undefined, nowMs, logger };
  const { certificatePem } = await renewOwn(options, new CertificateExpired("the certificate", 0), never);
  return readCertificate(certificatePem);
}

async function followerOf(): Promise<SwarmNode> {
  const leader = await swarm.leader();
  return swarm.managers().find(({ manager }) => manager !== leader)!;
}

test("a worker that was off when its certificate ended is reinstated, through any manager, and is the same node", async () => {
  await expire(w1, 10 * 60_000);
  const { nodeId } = w1;
  const shown = await shownBy(w1);
  const answer = await ask(await followerOf(), shown);
  w1.identity.adopt(answer.certificate ?? "", answer.root ?? "");
  assert.equal(w1.identity.nodeId, nodeId);
  assert.ok(w1.identity.tls.certificate.notAfterMs > Date.now() + 80 * dayMs);
  const answered = await w1
    .channel(n1.address)
    .call(caMethods.renew, { csr: await w1.identity.request() }, { timeoutMs: 30_000, signal: never });
  assert.ok(answered.certificate, "it calls as a node again");
  // What it showed is worth nothing any more: a later certificate was given.
  await assert.rejects(ask(n1, shown), { code: "REINSTATEMENT_REFUSED", message: /later certificate/u });
});

test("who is not who was certified, or not any more, is not reinstated", async () => {
  const valid = await shownBy(w1);
  await assert.rejects(ask(n1, valid), { code: "REINSTATEMENT_REFUSED", message: /has not ended/u });
  await expire(w1, 10 * 60_000);
  const shown = await shownBy(w1);
  const foreignKey = await generatePrivateKey();
  await assert.rejects(ask(n1, { ...shown, csr: await createRequest(foreignKey) }), {
    code: "REINSTATEMENT_REFUSED",
    message: /does not have the key/u,
  });
  await assert.rejects(ask(n1, { ...shown, proof: new Uint8Array(2000) }), { code: "REINSTATEMENT_REFUSED" });
  await assert.rejects(ask(n1, { ...shown, certificatePem: "nothing" }), { code: "CERTIFICATE_INVALID" });
  const { clusterId } = w1.identity;
  const stranger = new Authority(await createAuthority(clusterId, Date.now()));
  const identity = { nodeId: w1.nodeId, clusterId, role: "worker", memberId: undefined } as const;
  const foreign = await stranger.issue(shown.csr, identity, { nowMs: Date.now() });
  await assert.rejects(ask(n1, { ...shown, certificatePem: foreign }), {
    code: "REINSTATEMENT_REFUSED",
    message: /present root/u,
  });
  await expire(w1, 366 * dayMs);
  await assert.rejects(ask(n1, await shownBy(w1)), { code: "REINSTATEMENT_REFUSED", message: /too long ago/u });
  await swarm.update((tx) => tx.remove("node", w1.nodeId));
  await assert.rejects(ask(n1, shown), { code: "NODE_UNKNOWN" });
  assert.equal(new ReinstatementRefused("x").code, "REINSTATEMENT_REFUSED");
});

test("a manager that was off when its certificate ended comes back with its data, through the others", async () => {
  await n3.stopManager();
  await expire(n3, 10 * 60_000);
  await swarm.update((tx) => tx.create("config", { id: "c1", spec: { name: "written-meanwhile" } }));
  await n3.startManager({ kind: "resume" });
  assert.ok(n3.identity.tls.certificate.notAfterMs > Date.now() + 80 * dayMs, "the new one is on disk");
  await swarm.until("what was written meanwhile", (view) => view.has("config", "c1"), n3);
  assert.ok(!swarm.logs.some(({ message }) => message.includes("certified itself")));
  // Without a daemon that would keep the new one it only says what is wrong.
  await n3.stopManager();
  await expire(n3, 10 * 60_000);
  const alone = n3.startManager({ kind: "resume" }, { daemon: undefined as never });
  await assert.rejects(alone, { code: "CERTIFICATE_EXPIRED", fix: /leave --force/u });
  await n3.startManager({ kind: "resume" });
  await swarm.untilVoters(3);
});

test("managers that all were off for longer than their certificates live come back by themselves", async () => {
  const nodes = [n1, n2, n3];
  for (const node of [n3, n2]) await expire(node, 100 * dayMs);
  await expire(n1, 100 * dayMs);
  await Promise.all(nodes.map((node) => node.stopManager()));
  const before = n1.identity.tls.certificate;
  const ahead = await certifyItself(n1, Date.now() + 50 * dayMs);
  assert.ok(ahead.notAfterMs > Date.now() + 100 * dayMs);
  assert.equal(ahead.notBeforeMs, before.notBeforeMs, "a clock that was ahead may be set right");
  for (const node of nodes) await node.startManager({ kind: "resume" });
  await swarm.untilVoters(3);
  await swarm.leader();
  await swarm.update((tx) => tx.create("config", { id: "c2", spec: { name: "after-the-pause" } }));
  for (const node of nodes) {
    await swarm.until(
      "the data of before and after",
      (view) => view.has("config", "c1") && view.has("config", "c2"),
      node,
    );
    assert.ok(node.identity.tls.certificate.notAfterMs > Date.now() + 80 * dayMs);
  }
  assert.ok(swarm.logs.some(({ message }) => message.includes("certified itself")));
});

test("a manager that was removed is told what to do, and does not start", async () => {
  await n3.stopManager();
  await expire(n3, 10 * 60_000);
  await swarm.update((tx) => tx.remove("node", n3.nodeId));
  await assert.rejects(n3.startManager({ kind: "resume" }), { code: "NODE_UNKNOWN", fix: /leave --force/u });
});
