/**
 * A private key in a file, sealed with the cluster's unlock key while managers are locked: PKCS#8 "ENCRYPTED PRIVATE KEY",
 * which every TLS tool reads. The unlock key has 256 random bits, so the derivation need not be slow to be safe.
 */
import { createPrivateKey } from "node:crypto";

import { ClusterError } from "../pure/errors.ts";
import { readPrivateKey } from "./keys.ts";
import { formatUnlockKey, readUnlockKey } from "./tokens.ts";

const seals = /-----BEGIN ENCRYPTED PRIVATE KEY-----[\s\S]*?-----END ENCRYPTED PRIVATE KEY-----/gu;
const sealsBytesMax = 16 * 1024;

export class NodeKeyLocked extends ClusterError {
  readonly code = "NODE_KEY_LOCKED";
  constructor() {
    super("Cannot read the private key of this node: the swarm is locked, and so is the key", {
      fix: "Unlock the node with `skep swarm unlock` and the key that `skep swarm unlock-key` prints on another manager",
    });
  }
}

export class UnlockKeyWrong extends ClusterError {
  readonly code = "UNLOCK_KEY_WRONG";
  constructor() {
    super("Cannot unlock this node: the key is not the one that it was locked with", {
      fix: "Give the current unlock key; if it was rotated while this node was away, the one from before",
    });
  }
}

/** @returns PEM @throws PrivateKeyInvalid, UnlockKeyInvalid */
export function sealPrivateKey(pem: string, unlockKey: string): string {
  const passphrase = formatUnlockKey(readUnlockKey(unlockKey));
  return readPrivateKey(pem).export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase }) as string;
}

export function isSealed(pem: string): boolean {
  return pem.includes("ENCRYPTED PRIVATE KEY");
}

/**
 * @param pem  sealed or not; several seals of one key may stand one behind the other, and any of them may fit
 * @returns    the key as PKCS#8 PEM, not sealed
 * @throws     NodeKeyLocked without an unlock key for a sealed one, UnlockKeyWrong, UnlockKeyInvalid, PrivateKeyInvalid
 */
export function openPrivateKey(pem: string, unlockKey: string | undefined): string {
  if (!isSealed(pem)) return pem;
  if (unlockKey === undefined) throw new NodeKeyLocked();
  const passphrase = formatUnlockKey(readUnlockKey(unlockKey));
  for (const seal of pem.slice(0, sealsBytesMax).match(seals) ?? []) {
    try {
      const key = createPrivateKey({ key: seal, format: "pem", passphrase });
      return key.export({ type: "pkcs8", format: "pem" }) as string;
    } catch {
      // Another key's seal. OpenSSL's texts say no more than that, and may quote what they could not parse.
    }
  }
  throw new UnlockKeyWrong();
}
