import assert from "node:assert/strict";
import { KeyObject, generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import * as tls from "node:tls";
// Another implementation than ours, which it is compared with. It wants this loaded before it.
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import * as fc from "fast-check";

import { createRequest as requestOf } from "./authority.ts";
import {
  Authority,
  CertificateExpired,
  CertificateInvalid,
  CertificateNotYetValid,
  PeerNotTrusted,
  PrivateKeyInvalid,
  RequestInvalid,
  StatementInvalid,
  TlsIdentity,
  checkCurrent,
  checkDates,
  createAuthority,
  createRequest,
  generatePrivateKey,
  readCertificate,
  readRoots,
  readStatement,
  renewalMs,
  signStatement,
  type AuthorityMaterial,
  type NodeIdentity,
  type TlsMaterial,
} from "./index.ts";

const clusterId = "c".repeat(25);
const nowMs = Date.now();
const manager: NodeIdentity = { nodeId: "m".repeat(25), clusterId, role: "manager", memberId: 2 ** 53 - 1 };
const worker: NodeIdentity = { nodeId: "w".repeat(25), clusterId, role: "worker", memberId: undefined };

let root: AuthorityMaterial;
let authority: Authority;
let managerTls: TlsIdentity;
let workerTls: TlsIdentity;

before(async () => {
  root = await createAuthority(clusterId, nowMs);
  authority = new Authority(root);
  managerTls = new TlsIdentity(await materialOf(manager));
  workerTls = new TlsIdentity(await materialOf(worker));
});

async function materialOf(
  identity: NodeIdentity,
  by = authority,
  rootsPem = root.certificatePem,
): Promise<TlsMaterial> {
  const privateKeyPem = await generatePrivateKey();
  const certificatePem = await by.issue(await createRequest(privateKeyPem), identity, { nowMs });
  return { certificatePem, privateKeyPem, rootsPem };
}

test("a certificate says who a node is, its role and its member, and nothing is lost on the way", () => {
  assert.deepEqual(managerTls.certificate.identity, manager);
  assert.deepEqual(workerTls.certificate.identity, worker);
  assert.match(managerTls.certificate.fingerprint, /^[0-9a-f]{64}$/);
  assert.equal(managerTls.certificate.signedBy(readRoots(root.certificatePem)[0]!), true);
  assert.deepEqual(readCertificate(managerTls.certificate.raw).identity, manager);
});

test("the issuer decides who the owner is: what the request names does not count", async () => {
  const key = await generatePrivateKey();
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const boastful = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${manager.nodeId}, OU=swarm-manager, O=${clusterId}`,
    keys,
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
  });
  const issued = readCertificate(await authority.issue(boastful.toString("pem"), worker, { nowMs }));
  assert.deepEqual(issued.identity, worker);
  assert.notEqual(key, "");
});

test("requests that are damaged, of a weak kind, too long, or not signed by their key are refused", async () => {
  const request = await createRequest(await generatePrivateKey());
  const der = Buffer.from(request.replaceAll(/-----[^-]+-----|\s/g, ""), "base64");
  der[der.length - 1] = (der[der.length - 1]! + 1) & 0xff;
  const wrongSignature = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----`;
  for (const bad of ["", "x".repeat(20_000), request.slice(0, 200), root.certificatePem, wrongSignature]) {
    await assert.rejects(authority.issue(bad, worker, { nowMs }), (error) => {
      return error instanceof RequestInvalid && error.code === "CERTIFICATE_REQUEST_INVALID";
    });
  }
  const noMember: NodeIdentity = { ...manager, memberId: undefined };
  await assert.rejects(authority.issue(request, noMember, { nowMs }), RequestInvalid);
});

test("Ed25519 keys are as good as P-256 ones, RSA keys are refused", async () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  const pem = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  const certificatePem = await authority.issue(await requestOf(pem), manager, { nowMs });
  const identity = new TlsIdentity({ certificatePem, privateKeyPem: pem, rootsPem: root.certificatePem });
  const statement = { kind: "removed", clusterId, subject: "7", issuedMs: nowMs };
  const trust = { roots: identity.roots, clusterId, nowMs };
  assert.deepEqual(readStatement(signStatement(statement, identity), trust), statement);
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ type: "pkcs8", format: "pem" });
  await assert.rejects(requestOf(rsa as string), (error) => {
    return error instanceof PrivateKeyInvalid && error.code === "PRIVATE_KEY_INVALID";
  });
  await assert.rejects(requestOf("not a key"), PrivateKeyInvalid);
});

test("dates: expired, not yet valid, never beyond the root's own, and renewal falls between half and 80 % of life", async () => {
  const certificate = managerTls.certificate;
  checkCurrent(managerTls, nowMs);
  assert.throws(
    () => checkDates(certificate, "it", certificate.notAfterMs + 1000),
    (error) => {
      return error instanceof CertificateExpired && error.code === "CERTIFICATE_EXPIRED";
    },
  );
  assert.throws(
    () => checkDates(certificate, "it", certificate.notBeforeMs - 1000),
    (error) => {
      return error instanceof CertificateNotYetValid && error.code === "CERTIFICATE_NOT_YET_VALID";
    },
  );
  const lifeMs = certificate.notAfterMs - certificate.notBeforeMs;
  assert.equal(renewalMs(certificate, 0), certificate.notBeforeMs + lifeMs * 0.5);
  assert.ok(renewalMs(certificate, 0.999) < certificate.notBeforeMs + lifeMs * 0.8);
  const request = await createRequest(await generatePrivateKey());
  const rootEndMs = readRootEnd();
  const late = readCertificate(await authority.issue(request, worker, { nowMs: rootEndMs - 10_000 }));
  assert.ok(late.notAfterMs <= rootEndMs);
  await assert.rejects(authority.issue(request, worker, { nowMs: rootEndMs + 1 }), CertificateExpired);
});

function readRootEnd(): number {
  return new x509.X509Certificate(root.certificatePem).notAfter.getTime();
}

test("material that does not belong together is refused, and a refused replacement changes nothing", async () => {
  const one = await materialOf(manager);
  const other = await materialOf(worker);
  const foreign = await createAuthority(clusterId, nowMs);
  assert.throws(() => new TlsIdentity({ ...one, privateKeyPem: other.privateKeyPem }), CertificateInvalid);
  assert.throws(() => new TlsIdentity({ ...one, rootsPem: foreign.certificatePem }), CertificateInvalid);
  assert.throws(() => new TlsIdentity({ ...one, rootsPem: one.certificatePem }), CertificateInvalid);
  assert.throws(() => new TlsIdentity({ ...one, rootsPem: "" }), CertificateInvalid);
  assert.throws(() => new Authority({ ...root, privateKeyPem: one.privateKeyPem }), CertificateInvalid);
  const identity = new TlsIdentity(one);
  assert.throws(() => identity.replace(other), /node w+/);
  assert.equal(identity.certificate.identity.role, "manager");
});

test("a subject with a doubled or missing field, an unknown role or a foreign member URI is not an identity", async () => {
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const make = async (subject: string, uri?: string): Promise<string> => {
    const extensions =
      uri === undefined ? [] : [new x509.SubjectAlternativeNameExtension([{ type: "url", value: uri }])];
    const made = await x509.X509CertificateGenerator.createSelfSigned({ name: subject, keys, extensions });
    return made.toString("pem");
  };
  const id = "a".repeat(25);
  const uri = `spiffe://${clusterId}/node/${id}/member/7`;
  const subject = `CN=${id}, OU=swarm-manager, O=${clusterId}`;
  assert.equal(readCertificate(await make(subject, uri)).identity.memberId, 7);
  for (const [name, member] of [
    [`CN=${id}, OU=swarm-manager`, uri],
    [`CN=${id}, CN=other, OU=swarm-worker, O=${clusterId}`, uri],
    [`CN=${id}, OU=admin, O=${clusterId}`, uri],
    [`CN=../etc, OU=swarm-worker, O=${clusterId}`, uri],
    [subject, undefined],
    [subject, `spiffe://other/node/${id}/member/7`],
    [subject, `spiffe://${clusterId}/node/other/member/7`],
    [subject, `${uri}?x`],
    [subject, `spiffe://${clusterId}/node/${id}/member/07`],
    [subject, `spiffe://${clusterId}/node/${id}/member/9007199254740993`],
  ] as const) {
    const pem = await make(name, member);
    assert.throws(() => readCertificate(pem), CertificateInvalid, `${name} ${member}`);
  }
});

test("any bytes are refused as a certificate or as a statement with a typed error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.throws(() => readCertificate(bytes), CertificateInvalid);
      assert.throws(() => readStatement(bytes, { roots: managerTls.roots, clusterId, nowMs }), StatementInvalid);
    }),
  );
});

test("a statement is believed from a manager of this cluster only, unchanged, and not from an expired one", async () => {
  const statement = { kind: "removed", clusterId, subject: "7", issuedMs: nowMs };
  const trust = { roots: managerTls.roots, clusterId, nowMs };
  const signed = signStatement(statement, managerTls);
  assert.deepEqual(readStatement(signed, trust), statement);
  for (let at = 0; at < signed.length; at++) {
    const changed = Buffer.from(signed);
    changed[at] = changed[at]! ^ 0x01;
    assert.throws(() => readStatement(changed, trust), StatementInvalid, `byte ${at}`);
  }
  for (const length of [0, 7, 8, 100, signed.length - 1]) {
    assert.throws(() => readStatement(signed.subarray(0, length), trust), StatementInvalid);
  }
  assert.throws(() => readStatement(signStatement(statement, workerTls), trust), /not a manager/);
  assert.throws(
    () => readStatement(signStatement({ ...statement, clusterId: "x" }, managerTls), trust),
    /another cluster/,
  );
  const later = { ...trust, nowMs: managerTls.certificate.notAfterMs + 1000 };
  assert.throws(() => readStatement(signed, later), StatementInvalid);
  const foreign = await createAuthority(clusterId, nowMs);
  const stranger = new TlsIdentity(await materialOf(manager, new Authority(foreign), foreign.certificatePem));
  assert.throws(() => readStatement(signStatement(statement, stranger), trust), /not of this cluster/);
});

// ---- Over TLS ----

const servers: tls.Server[] = [];
after(() => servers.forEach((server) => server.close()));

async function serve(identity: TlsIdentity, requestCert = true): Promise<{ server: tls.Server; port: number }> {
  const server = tls.createServer({ ...identity.contextOptions, requestCert }, (socket) => {
    socket.on("error", () => {});
    const der = socket.getPeerCertificate().raw as Buffer | undefined;
    socket.end(der === undefined ? "nobody" : readCertificate(der).identity.nodeId);
  });
  server.on("tlsClientError", () => {});
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, port: (server.address() as AddressInfo).port };
}

async function dial(
  port: number,
  identity: TlsIdentity,
  expected: Parameters<TlsIdentity["serverCheck"]>[0],
): Promise<string> {
  const socket = tls.connect({
    host: "127.0.0.1",
    port,
    secureContext: identity.context,
    checkServerIdentity: identity.serverCheck(expected),
  });
  let said = "";
  socket.on("data", (chunk: Buffer) => (said += chunk.toString()));
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.once("close", () => resolve());
  });
  return said;
}

test("both ends know each other from their certificates; the wrong role, node or member is refused", async () => {
  const { port } = await serve(managerTls);
  assert.equal(await dial(port, workerTls, { role: "manager" }), worker.nodeId);
  assert.equal(await dial(port, workerTls, { nodeId: manager.nodeId, memberId: manager.memberId! }), worker.nodeId);
  const other = await serve(workerTls);
  await assert.rejects(dial(other.port, managerTls, { role: "manager" }), (error) => {
    return error instanceof PeerNotTrusted && error.code === "PEER_NOT_TRUSTED";
  });
  await assert.rejects(dial(port, workerTls, { nodeId: "x" }), PeerNotTrusted);
  await assert.rejects(dial(port, workerTls, { memberId: 5 }), PeerNotTrusted);
});

test("a server of another root, or of another cluster under the same root, is refused by the client", async () => {
  const foreign = await createAuthority(clusterId, nowMs);
  const { port } = await serve(
    new TlsIdentity(await materialOf(manager, new Authority(foreign), foreign.certificatePem)),
  );
  await assert.rejects(dial(port, workerTls, {}), { code: /SIGNATURE|SELF_SIGNED|UNABLE/ });
  const sibling = await serve(new TlsIdentity(await materialOf({ ...manager, clusterId: "d".repeat(25) })));
  await assert.rejects(dial(sibling.port, workerTls, {}), PeerNotTrusted);
});

test("a replaced certificate serves new connections at once, while the server keeps listening", async () => {
  const identity = new TlsIdentity(await materialOf(manager));
  const { server, port } = await serve(identity);
  const seen: string[] = [];
  const watching = identity.watch((options) => {
    server.setSecureContext(options);
    seen.push("replaced");
  });
  await dial(port, workerTls, { role: "manager" });
  identity.replace(await materialOf({ ...manager, role: "worker", memberId: undefined }));
  assert.deepEqual(seen, ["replaced"]);
  await assert.rejects(dial(port, workerTls, { role: "manager" }), PeerNotTrusted);
  watching[Symbol.dispose]();
  identity.replace(await materialOf(manager));
  assert.deepEqual(seen, ["replaced"]);
});

test("no error says anything of a private key", async () => {
  const pem = await generatePrivateKey();
  const broken = pem.replace("MIG", "MIX");
  assert.throws(
    () => new TlsIdentity({ certificatePem: "", privateKeyPem: broken, rootsPem: "" }),
    (error) => {
      return error instanceof CertificateInvalid && !String(error.stack).includes(pem.slice(40, 80));
    },
  );
  await assert.rejects(requestOf(broken), (error) => {
    return (
      error instanceof PrivateKeyInvalid && error.cause === undefined && !error.message.includes(pem.slice(40, 60))
    );
  });
  assert.ok(managerTls.privateKey instanceof KeyObject);
});
