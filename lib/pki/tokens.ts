/**
 * What people carry from one host to another: join tokens and the unlock key, written as Docker writes them.
 *
 *   join token   SWMTKN-1-<SHA-256 of the root certificate, base 36, 50 digits>-<128 random bits, base 36, 25 digits>
 *   unlock key   SWMKEY-1-<256 random bits, base64 without padding>
 * The digest lets a node that joins check the root that it is offered before it sends the secret to anybody.
 */
import { X509Certificate, createHash, timingSafeEqual } from "node:crypto";

import { ClusterError } from "../pure/errors.ts";
import { CertificateInvalid } from "./errors.ts";

export interface JoinToken {
  readonly rootDigest: string;
  readonly secret: string;
}

/** A fresh copy of so many random bytes: the system's in production. */
export type DrawBytes = (count: number) => Uint8Array;

export class JoinTokenInvalid extends ClusterError {
  readonly code = "JOIN_TOKEN_INVALID";
  constructor(found: string) {
    // The token itself is a secret and is never repeated.
    super(`invalid join token: ${found}`, {
      fix: "Copy the whole token that `skep swarm join-token worker` or `manager` prints on a manager of the cluster",
    });
  }
}

export class UnlockKeyInvalid extends ClusterError {
  readonly code = "UNLOCK_KEY_INVALID";
  constructor() {
    super("Cannot use the unlock key: it does not have the form SWMKEY-1-...", {
      fix: "Copy the whole key that `skep swarm unlock-key` prints on a manager that is unlocked",
    });
  }
}

const digestDigits = 50;
const secretDigits = 25;
const secretBytes = 16;
const unlockKeyBytes = 32;
const unlockPrefix = "SWMKEY-1-";
const textBytesMax = 256;

/** Of the first certificate in a PEM bundle; its DER form counts, so that line breaks do not. @throws CertificateInvalid */
export function digestOfRoot(rootPem: string): string {
  let der: Buffer;
  try {
    der = new X509Certificate(rootPem).raw;
  } catch (error) {
    throw new CertificateInvalid("the root certificate", "it is not an X.509 certificate", error);
  }
  return base36(createHash("sha256").update(der).digest(), digestDigits);
}

/** A new token for the cluster whose root has this digest (`digestOfRoot`). */
export function makeJoinToken(rootDigest: string, draw: DrawBytes): string {
  return `SWMTKN-1-${rootDigest}-${base36(draw(secretBytes), secretDigits)}`;
}

/** @throws JoinTokenInvalid */
export function readJoinToken(text: string): JoinToken {
  const trimmed = text.slice(0, textBytesMax).trim();
  if (trimmed === "") throw new JoinTokenInvalid("it is empty");
  if (!trimmed.startsWith("SWMTKN-")) throw new JoinTokenInvalid("it does not begin with SWMTKN-");
  const [, version, rootDigest = "", secret = "", ...more] = trimmed.split("-");
  if (version !== "1") throw new JoinTokenInvalid("its version is not known here");
  const whole =
    rootDigest.length === digestDigits &&
    secret.length === secretDigits &&
    more.length === 0 &&
    text.length < textBytesMax;
  if (!whole || !/^[0-9a-z]+$/u.test(rootDigest + secret)) throw new JoinTokenInvalid("it is cut short or altered");
  return { rootDigest, secret };
}

/** Takes as long for a token that is nearly right as for any other. */
export function sameSecret(given: string, wanted: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return wanted !== "" && timingSafeEqual(digest(given), digest(wanted));
}

/** @returns 32 bytes */
export function makeUnlockKey(draw: DrawBytes): Uint8Array {
  return draw(unlockKeyBytes);
}

export function formatUnlockKey(key: Uint8Array): string {
  return unlockPrefix + Buffer.from(key).toString("base64").replaceAll("=", "");
}

/** @returns 32 bytes @throws UnlockKeyInvalid */
export function readUnlockKey(text: string): Uint8Array {
  const trimmed = text.slice(0, textBytesMax).trim();
  const body = trimmed.startsWith(unlockPrefix) ? trimmed.slice(unlockPrefix.length) : "";
  if (!/^[A-Za-z0-9+/]{43}=?$/u.test(body)) throw new UnlockKeyInvalid();
  return new Uint8Array(Buffer.from(body, "base64"));
}

function base36(bytes: Uint8Array, digits: number): string {
  const value = BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
  return value.toString(36).padStart(digits, "0");
}
