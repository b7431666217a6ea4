import assert from "node:assert/strict";
import { createPublicKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { test } from "node:test";
// Another implementation than ours, which it is compared with. It wants this loaded before it.
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import * as fc from "fast-check";

import { element, DerUnreadable, readElements, sequence, tags, time } from "./der.ts";
import {
  Authority,
  CertificateInvalid,
  createAuthority,
  createRequest,
  generatePrivateKey,
  readCertificate,
  readRequestKey,
  RequestInvalid,
} from "./index.ts";
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

/** Bytes with some of them altered, put in, left out or repeated: what a stranger may send instead. */
function altered(original: Uint8Array): fc.Arbitrary<Buffer> {
  const at = fc.nat({ max: original.length - 1 });
  const change = fc.oneof(
    fc.record({ kind: fc.constant("set" as const), at, byte: fc.nat({ max: 255 }) }),
    fc.record({ kind: fc.constant("insert" as const), at, byte: fc.nat({ max: 255 }) }),
    fc.record({ kind: fc.constant("remove" as const), at, count: fc.integer({ min: 1, max: 8 }) }),
    fc.record({ kind: fc.constant("repeat" as const), at, count: fc.integer({ min: 1, max: 64 }) }),
  );
  return fc.array(change, { minLength: 1, maxLength: 3 }).map((changes) => {
    let bytes = Buffer.from(original);
    for (const each of changes) {
      const [before, after] = [bytes.subarray(0, each.at), bytes.subarray(each.at)];
      if (each.kind === "set") bytes = Buffer.concat([before, Buffer.of(each.byte), after.subarray(1)]);
      else if (each.kind === "insert") bytes = Buffer.concat([before, Buffer.of(each.byte), after]);
      else if (each.kind === "remove") bytes = Buffer.concat([before, after.subarray(each.count)]);
      else bytes = Buffer.concat([before, after.subarray(0, each.count), after]);
    }
    return bytes;
  });
}

const derOf = (pemText: string): Buffer => Buffer.from(pemText.replaceAll(/-----[^-]+-----|\s/gu, ""), "base64");

/** Of a manager, issued by us once: with new keys each time the alterations would fall elsewhere in each run. */
const derOfManager = Buffer.from(
  "MIIClzCCAj6gAwIBAgIQamodlhkLgjqFox7N4jlDrjAKBggqhkjOPQQDAjA3MREwDwYDVQQDDAhzd2FybS1jYTEiMCAGA1UECgwZY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjYzAeFw0yNjExMjIwMzM1MjZaFw0yNzAyMjAwNDM1MjZaMGAxIjAgBgNVBAMMGW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW0xFjAUBgNVBAsMDXN3YXJtLW1hbmFnZXIxIjAgBgNVBAoMGWNjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2MwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAREMSS+O6FO4OE+JP5X4D07sbr5cOO+/WeXlJJWs+Q3m0fJB513jED+zZ2tyCESRF7gLadclur2JWZAjhGzPfjco4IBATCB/jAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIHgDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwfwYDVR0RBHgwdoINc3dhcm0tbWFuYWdlcoIZbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbYZKc3BpZmZlOi8vY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjYy9ub2RlL21tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW0vbWVtYmVyLzcwHQYDVR0OBBYEFIAfE/PhUf7TbrKTQtyNu3QtaEHqMB8GA1UdIwQYMBaAFFBSQnnMj7a5i7390auw40b7OyghMAoGCCqGSM49BAMCA0cAMEQCIC++9MDqVLWnaRSC+Y/eMzvzRLyZ8YCrvZTR9zkhHzoEAiAdR0I9n51F9+3KDVIt5CJ3Gkmjelpr9lvha0ttsSd3HA==",
  "base64",
);

test("alternative names of which one is of a kind that nodes do not have count for nothing", () => {
  assert.equal(readCertificate(derOfManager).identity.memberId, 7);
  const at = derOfManager.indexOf(Buffer.from("\x82\x0dswarm-manager", "latin1"));
  for (const tag of [0x00, 0x02, 0x81, 0x88, 0xa0, 0xa2, 0xa4]) {
    const bytes = Buffer.from(derOfManager);
    bytes[at] = tag;
    assert.throws(() => readCertificate(bytes), CertificateInvalid, `tag ${tag}`);
  }
  // What is no name at all is why: OpenSSL reads none of them then.
  const broken = Buffer.from(derOfManager);
  broken[at] = 0;
  assert.equal(new X509Certificate(broken).subjectAltName, undefined);
});

test("a certificate that was altered anywhere says what OpenSSL reads in it, or is refused as no certificate", () => {
  let read = 0;
  let refused = 0;
  fc.assert(
    fc.property(altered(derOfManager), (bytes) => {
      let certificate;
      try {
        certificate = readCertificate(bytes);
      } catch (error) {
        assert.ok(error instanceof CertificateInvalid, String(error));
        refused++;
        return;
      }
      read++;
      const openssl = new X509Certificate(bytes);
      const { role, memberId } = certificate.identity;
      const lines = new Map(openssl.subject.split("\n").map((line) => line.split("=", 2) as [string, string]));
      assert.equal(openssl.subject.split("\n").length, lines.size);
      assert.equal(lines.get("CN"), certificate.identity.nodeId);
      assert.equal(lines.get("O"), certificate.identity.clusterId);
      assert.equal(lines.get("OU"), `swarm-${role}`);
      const uris = (openssl.subjectAltName ?? "").split(", ").filter((name) => name.startsWith("URI:spiffe:"));
      if (role === "manager")
        assert.deepEqual(uris, [`URI:spiffe://${lines.get("O")}/node/${lines.get("CN")}/member/${memberId}`]);
    }),
    { numRuns: 3000, seed: 16 },
  );
  assert.ok(read > 50 && refused > 50, `${read} were read and ${refused} refused`);
});

test("a request that was altered anywhere is of the same key, or refused", async () => {
  const requestPem = await createRequest(await generatePrivateKey());
  const key = await readRequestKey(requestPem);
  const der = derOf(requestPem);
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(altered(der), async (bytes) => {
      const lines = bytes.toString("base64");
      const asked = `-----BEGIN CERTIFICATE REQUEST-----\n${lines}\n-----END CERTIFICATE REQUEST-----\n`;
      try {
        assert.deepEqual(await readRequestKey(asked), key);
      } catch (error) {
        assert.ok(error instanceof RequestInvalid, String(error));
        refused++;
      }
    }),
    { numRuns: 2000, seed: 16 },
  );
  assert.ok(refused > 1000, `${refused} were refused`);
});
