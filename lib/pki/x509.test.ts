import assert from "node:assert/strict";
import { createPublicKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { test } from "node:test";
// Another implementation than ours, which it is compared with. It wants this loaded before it.
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import * as fc from "fast-check";

import { element, DerUnreadable, readElements, sequence, tags, time } from "./der.ts";
import { Authority, createAuthority, createRequest, generatePrivateKey, readRequestKey } from "./index.ts";
import { partsOf } from "./x509.ts";

const nowMs = Date.now();
const clusterId = "c".repeat(25);
const nodeId = "m".repeat(25);

test("another implementation reads in our root what we wrote", async () => {
  const { certificatePem } = await createAuthority(clusterId, nowMs);
  const root = new x509.X509Certificate(certificatePem);
  assert.equal(root.subject, `CN=swarm-ca, O=${clusterId}`);
  assert.equal(root.issuer, root.subject);
  assert.equal(await root.isSelfSigned(), true);
  const constraints = root.getExtension(x509.BasicConstraintsExtension);
  assert.deepEqual([constraints?.ca, constraints?.pathLength, constraints?.critical], [true, 1, true]);
  const usage = root.getExtension(x509.KeyUsagesExtension);
  assert.deepEqual(
    [usage?.usages, usage?.critical],
    [x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true],
  );
  const own = await x509.SubjectKeyIdentifierExtension.create(root.publicKey);
  assert.equal(root.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId, own.keyId);
  // Whole seconds are written.
  assert.equal(root.notBefore.getTime(), Math.floor((nowMs - 3_600_000) / 1000) * 1000);
});

test("another implementation reads in a node's certificate and request what we wrote, of both kinds of keys", async () => {
  const ed25519 = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  for (const privateKeyPem of [await generatePrivateKey(), ed25519]) {
    const material = await createAuthority(clusterId, nowMs);
    const requestPem = await createRequest(privateKeyPem);
    const request = new x509.Pkcs10CertificateRequest(requestPem);
    assert.equal(await request.verify(), true);
    assert.equal(request.subject, "CN=node");
    assert.deepEqual(Buffer.from(await readRequestKey(requestPem)), Buffer.from(request.publicKey.rawData));
    const identity = { nodeId, clusterId, role: "manager", memberId: 7 } as const;
    const issuedPem = await new Authority(material).issue(requestPem, identity, { nowMs });
    const issued = new x509.X509Certificate(issuedPem);
    const root = new x509.X509Certificate(material.certificatePem);
    assert.equal(await issued.verify({ publicKey: await root.publicKey.export(), signatureOnly: true }), true);
    assert.equal(issued.subject, `CN=${nodeId}, OU=swarm-manager, O=${clusterId}`);
    assert.equal(issued.issuer, root.subject);
    assert.equal(issued.getExtension(x509.BasicConstraintsExtension)?.ca, false);
    assert.equal(issued.getExtension(x509.KeyUsagesExtension)?.usages, x509.KeyUsageFlags.digitalSignature);
    assert.deepEqual(
      [...(issued.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? [])],
      [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth],
    );
    const names = issued.getExtension(x509.SubjectAlternativeNameExtension)?.names.items;
    assert.deepEqual(
      names?.map(({ type, value }) => [type, value]),
      [
        ["dns", "swarm-manager"],
        ["dns", nodeId],
        ["url", `spiffe://${clusterId}/node/${nodeId}/member/7`],
      ],
    );
    const authorityKey = issued.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId;
    assert.equal(authorityKey, root.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId);
    assert.ok(new X509Certificate(issuedPem).checkIssued(new X509Certificate(material.certificatePem)));
    assert.deepEqual(
      Buffer.from(partsOf(new X509Certificate(issuedPem)).publicKey),
      createPublicKey(privateKeyPem).export({ type: "spki", format: "der" }),
    );
  }
});

test("a root without a name for its own key gets the usual one", async () => {
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const bare = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=brought along, C=DE",
    keys,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  });
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  const privateKeyPem = `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`;
  const authority = new Authority({ certificatePem: bare.toString("pem"), privateKeyPem });
  const identity = { nodeId, clusterId, role: "worker", memberId: undefined } as const;
  const issued = await authority.issue(await createRequest(await generatePrivateKey()), identity, { nowMs });
  const expected = await x509.SubjectKeyIdentifierExtension.create(bare.publicKey);
  const found = new x509.X509Certificate(issued).getExtension(x509.AuthorityKeyIdentifierExtension);
  assert.equal(found?.keyId, expected.keyId);
  assert.ok(new X509Certificate(issued).checkIssued(new X509Certificate(bare.toString("pem"))));
});

test("any bytes are elements that cover them without a gap, or unreadable", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      let elements;
      try {
        elements = readElements(bytes);
      } catch (error) {
        assert.ok(error instanceof DerUnreadable);
        return;
      }
      assert.deepEqual(Buffer.concat(elements.map(({ whole }) => whole)), Buffer.from(bytes));
    }),
  );
});

test("what is written is read again, whatever its length, and a length has one spelling", () => {
  for (const length of [0, 1, 127, 128, 255, 256, 4096, 65_535]) {
    const content = Buffer.alloc(length, 7);
    const [read, ...more] = readElements(element(tags.octetString, content));
    assert.deepEqual([read?.tag, Buffer.from(read?.content ?? []), more], [tags.octetString, content, []]);
  }
  for (const bad of [[0x04], [0x04, 0x02, 0], [0x04, 0x80], [0x04, 0x81, 0x05, 1, 2, 3, 4, 5], [0x1f, 0x01, 0]]) {
    assert.throws(() => readElements(Buffer.from(bad)), DerUnreadable, String(bad));
  }
  assert.deepEqual(sequence(), Buffer.from([0x30, 0]));
});

test("times have two digits of the year until 2049 and four from then on", () => {
  assert.equal(
    time(Date.UTC(2049, 11, 31, 23, 59, 59, 999))
      .subarray(2)
      .toString(),
    "491231235959Z",
  );
  assert.equal(
    time(Date.UTC(2050, 0, 1))
      .subarray(2)
      .toString(),
    "20500101000000Z",
  );
});
