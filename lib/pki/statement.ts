/**
 * Small statements that a manager makes in the cluster's name ("member 7 has been removed"), to be believed by a node
 * that cannot ask the cluster any more. Signed with the manager's own key; its certificate travels along, so whoever
 * trusts the root can check it.
 *
 *   magic "SKS1" | payload length u16 | certificate length u16 | payload (JSON) | certificate (DER) | signature
 * The signature covers a label, the payload and the certificate, so that neither can be exchanged and no signature made
 * for another purpose fits here.
 */
import { sign, verify, type KeyObject } from "node:crypto";

import { checkDates, readCertificate, type Certificate } from "./certificate.ts";
import { StatementInvalid } from "./errors.ts";
import { digestOf } from "./keys.ts";

export interface Statement {
  readonly kind: string;
  readonly clusterId: string;
  /** What it is about, for example the id of a member. */
  readonly subject: string;
  readonly issuedMs: number;
}

export const statementBytesMax = 8192;
const magic = Buffer.from("SKS1");
const headBytes = 8;
const label = Buffer.from("skep statement, version 1\0");

/** @param signer  the certificate and key of a manager */
export function signStatement(
  statement: Statement,
  signer: { readonly certificate: Certificate; readonly privateKey: KeyObject },
): Buffer {
  const { kind, clusterId, subject, issuedMs } = statement;
  const payload = Buffer.from(JSON.stringify({ kind, clusterId, subject, issuedMs }));
  const certificate = signer.certificate.raw;
  const head = Buffer.alloc(headBytes);
  magic.copy(head);
  head.writeUInt16BE(payload.length, 4);
  head.writeUInt16BE(certificate.length, 6);
  const signed = Buffer.concat([label, head, payload, certificate]);
  const signature = sign(digestOf(signer.privateKey), signed, signer.privateKey);
  return Buffer.concat([signed.subarray(label.length), signature]);
}

/**
 * @param bytes  from outside
 * @returns      what is said, by a manager of this cluster, in the form that was signed
 * @throws       StatementInvalid
 */
export function readStatement(
  bytes: Uint8Array,
  trust: { readonly roots: readonly KeyObject[]; readonly clusterId: string; readonly nowMs: number },
): Statement {
  if (bytes.length > statementBytesMax) throw new StatementInvalid(`${bytes.length} bytes are too many`);
  const all = Buffer.from(bytes);
  if (all.length < headBytes || !all.subarray(0, 4).equals(magic)) throw new StatementInvalid("its form is unknown");
  const payloadEnd = headBytes + all.readUInt16BE(4);
  const certificateEnd = payloadEnd + all.readUInt16BE(6);
  if (certificateEnd >= all.length) throw new StatementInvalid("it is cut short");
  const signer = readSigner(all.subarray(payloadEnd, certificateEnd), trust);
  const signed = Buffer.concat([label, all.subarray(0, certificateEnd)]);
  if (!verify(digestOf(signer.publicKey), signed, signer.publicKey, all.subarray(certificateEnd))) {
    throw new StatementInvalid("its signature is wrong");
  }
  const statement = readPayload(all.subarray(headBytes, payloadEnd));
  if (statement.clusterId !== trust.clusterId) throw new StatementInvalid("it is about another cluster");
  return statement;
}

function readSigner(
  der: Buffer,
  trust: { readonly roots: readonly KeyObject[]; clusterId: string; nowMs: number },
): Certificate {
  let signer: Certificate;
  try {
    signer = readCertificate(der);
    checkDates(signer, "the signer's certificate", trust.nowMs);
  } catch (error) {
    throw new StatementInvalid("its signer has no valid certificate", error);
  }
  if (!trust.roots.some((root) => signer.signedBy(root)))
    throw new StatementInvalid("its signer is not of this cluster");
  const { role, clusterId } = signer.identity;
  if (role !== "manager" || clusterId !== trust.clusterId)
    throw new StatementInvalid("its signer is not a manager here");
  return signer;
}

function readPayload(payload: Buffer): Statement {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(payload.toString("utf8")) as Record<string, unknown>;
  } catch (error) {
    throw new StatementInvalid("its payload is not JSON", error);
  }
  const { kind, clusterId, subject, issuedMs } = fields ?? {};
  if (typeof kind !== "string" || typeof clusterId !== "string" || typeof subject !== "string") {
    throw new StatementInvalid("its payload lacks a field");
  }
  if (typeof issuedMs !== "number") throw new StatementInvalid("its payload lacks its time");
  return { kind, clusterId, subject, issuedMs };
}
