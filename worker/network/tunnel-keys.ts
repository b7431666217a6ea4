/**
 * This node's key in the tunnel of encrypted networks (X25519). It is made here when the node enters a swarm, never leaves
 * the node, and goes with the swarm. A new key is offered to the managers first and taken into use when they tell it to
 * all nodes, this one among them; until then the old one serves. So managers that are away for a while end no traffic, and
 * a crash at any place leaves a key that managers and kernel agree on after the next start.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { rmSync } from "node:fs";

import { nodeFileSystem, readWhole, replaceFile } from "../../lib/runtime/file-system.ts";
import type { Logger } from "../../lib/runtime/index.ts";
import { isTunnelKey, TunnelKey } from "./core/tunnel-key.ts";

const currentName = "wireguard.key";
const nextName = "wireguard.key.next";
const fileBytesMax = 1024;
/** RFC 8410 §7: what stands before the 32 bytes of an X25519 key in PKCS #8. */
const pkcs8Prefix = Buffer.from("302e020100300506032b656e04220420", "hex");

interface KeptKey {
  /** A key is of one node in one swarm: another node on this host never has it. */
  readonly nodeId: string;
  readonly key: TunnelKey;
}

export class TunnelKeys {
  readonly #folder: string;
  #current: KeptKey | undefined;
  #next: KeptKey | undefined;

  private constructor(folder: string, current: KeptKey | undefined, next: KeptKey | undefined) {
    this.#folder = folder;
    this.#current = current;
    this.#next = next;
  }

  /** @param folder  of the node's place in its swarm; it need not be there yet */
  static open(folder: string, logger: Logger): TunnelKeys {
    return new TunnelKeys(folder, read(folder, currentName, logger), read(folder, nextName, logger));
  }

  /** In use; undefined: this node is in no swarm, or has no use for one. */
  get current(): TunnelKey | undefined {
    return this.#current?.key;
  }

  /** What managers are to tell others. */
  get offered(): TunnelKey | undefined {
    return this.#next?.key ?? this.#current?.key;
  }

  /** There is a key of this node afterwards. */
  ensure(nodeId: string): void {
    if (this.#current?.nodeId === nodeId) return;
    this.forget();
    this.#current = this.#make(currentName, nodeId);
  }

  /** Another key is offered; again, before it is in use, it is the same one. */
  renew(): void {
    if (this.#current === undefined || this.#next !== undefined) return;
    this.#next = this.#make(nextName, this.#current.nodeId);
  }

  /** Managers tell all nodes that this is our key. @returns whether another one is in use now */
  told(publicKey: string): boolean {
    if (this.#next === undefined || this.#next.key.publicKey !== publicKey) return false;
    nodeFileSystem.rename(`${this.#folder}/${nextName}`, `${this.#folder}/${currentName}`);
    nodeFileSystem.syncDirectory(this.#folder);
    this.#current = this.#next;
    this.#next = undefined;
    return true;
  }

  forget(): void {
    this.#current = undefined;
    this.#next = undefined;
    for (const name of [currentName, nextName]) {
      for (const file of [name, `${name}.tmp`]) rmSync(`${this.#folder}/${file}`, { force: true });
    }
  }

  #make(name: string, nodeId: string): KeptKey {
    const secret = last32(generateKeyPairSync("x25519").privateKey.export({ format: "der", type: "pkcs8" }));
    nodeFileSystem.mkdir(this.#folder);
    replaceFile(nodeFileSystem, this.#folder, name, Buffer.from(`${nodeId} ${secret}\n`));
    return { nodeId, key: keyOf(secret) };
  }
}

/** Losing one costs nothing but another: one that cannot be read is none. */
function read(folder: string, name: string, logger: Logger): KeptKey | undefined {
  const bytes = readWhole(nodeFileSystem, `${folder}/${name}`, fileBytesMax);
  if (bytes === undefined) return undefined;
  const [nodeId = "", secret = ""] = Buffer.from(bytes).toString("latin1").trim().split(" ");
  if (nodeId !== "" && isTunnelKey(secret)) return { nodeId, key: keyOf(secret) };
  logger.warn("a key for encrypted networks cannot be read; the node gets another", { file: `${folder}/${name}` });
  return undefined;
}

function keyOf(secret: string): TunnelKey {
  const privateKey = createPrivateKey({
    key: Buffer.concat([pkcs8Prefix, Buffer.from(secret, "base64")]),
    format: "der",
    type: "pkcs8",
  });
  const publicKey: KeyObject = createPublicKey(privateKey);
  return new TunnelKey(secret, last32(publicKey.export({ format: "der", type: "spki" })));
}

/** Both forms of an X25519 key end with the key itself. */
const last32 = (der: Buffer): string => der.subarray(-32).toString("base64");
