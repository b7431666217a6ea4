/**
 * The files of a node's identity. Each is replaced whole and durably, in an order that leaves something usable whenever
 * the power fails: a new key waits beside the old one until its certificate is there.
 */
import { hostOf } from "../../lib/pure/address.ts";
import { ClusterError } from "../../lib/pure/errors.ts";
import {
  NodeKeyLocked,
  openPrivateKey,
  readCertificate,
  readUnlockKey,
  sealPrivateKey,
  samePublicKey,
  isSealed,
  UnlockKeyWrong,
  type TlsMaterial,
} from "../../lib/pki/index.ts";
import { errnoOf, nodeFileSystem, readWhole, replaceFile, type FileSystem } from "../../lib/runtime/file-system.ts";

/** Where this node listens and is reached; chosen when it entered the swarm. */
export interface SwarmSettings {
  /** HOST:PORT */
  readonly listenAddr: string;
  /** HOST:PORT */
  readonly advertiseAddr: string;
  /** An address without a port, or empty: the one advertised. As it was asked for. */
  readonly dataPathAddr: string;
  /** Where other nodes send frames; left out by a daemon that did not heed `dataPathAddr`. */
  readonly frameAddr?: string;
}

/** Plain. A node that entered with a daemon that did not heed `dataPathAddr` goes on as it was, until it joins again. */
export const frameAddressIn = ({ frameAddr, advertiseAddr }: SwarmSettings): string =>
  frameAddr ?? hostOf(advertiseAddr);

export interface ManagerAddress {
  /** Empty while it is not known. */
  readonly nodeId: string;
  /** HOST:PORT */
  readonly addr: string;
}

export interface State {
  readonly format: 1;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly settings: SwarmSettings;
  readonly managers: readonly ManagerAddress[];
}

/** The certificate as text, its key and the roots: what stands in the files, the key not sealed. */
export type Material = TlsMaterial;

export class IdentityDamaged extends ClusterError {
  readonly code = "IDENTITY_DAMAGED";
  constructor(folder: string, found: string, cause?: unknown) {
    super(`Cannot use the node's identity in ${folder}: ${found}`, {
      fix: "Restore the folder from a backup; or leave the swarm with --force, remove the node on a manager and join again",
      cause,
    });
  }
}

export interface FolderOptions {
  readonly files?: FileSystem;
  /** Called with each new file before it takes its place, for example to give it to the manager's user. */
  readonly prepare?: (path: string) => void;
}

/** What is on disk. */
export interface Found {
  readonly material: Material;
  readonly state: State;
  /** With which the key file is sealed; undefined: it is not. */
  readonly unlockKey: string | undefined;
  /** Unlock keys of before that are kept beside it, because the manager's log may still be locked with one of them. */
  readonly unlockKeysBefore: readonly string[];
}

const names = {
  key: "node.key",
  nextKey: "node.key.next",
  unlockKeysBefore: "unlock.key.before",
  certificate: "node.crt",
  roots: "root.crt",
  state: "state.json",
};
const fileBytesMax = 1024 * 1024;
const managersMax = 1000;
/** One at a time is changed; a file with more is not ours. */
const unlockKeysMax = 8;

export class IdentityFolder {
  readonly path: string;
  readonly #files: FileSystem;
  readonly #prepare: ((path: string) => void) | undefined;

  /** @param path  `<data-root>/swarm`; made when something is written */
  constructor(path: string, options: FolderOptions = {}) {
    this.path = path;
    this.#files = options.files ?? nodeFileSystem;
    this.#prepare = options.prepare;
  }

  /** What the manager process and tools are told to read. */
  get keyFile(): string {
    return `${this.path}/${names.key}`;
  }

  get certificateFile(): string {
    return `${this.path}/${names.certificate}`;
  }

  get rootsFile(): string {
    return `${this.path}/${names.roots}`;
  }

  /** "none": in no swarm. "locked": the key on disk is sealed, and `SwarmIdentity.open` needs the unlock key. @throws IdentityDamaged */
  standing(): "none" | "locked" | "ready" {
    if (this.#readState() === undefined) return "none";
    const key = this.#need(names.key);
    return !isSealed(key) || openWithOne(key, this.#readUnlockKeysBefore()) !== undefined ? "ready" : "locked";
  }

  /**
   * What is on disk; undefined for a node in no swarm.
   * @throws IdentityDamaged, NodeKeyLocked, UnlockKeyWrong, UnlockKeyInvalid
   */
  read(unlockKey: string | undefined): Found | undefined {
    const state = this.#readState();
    if (state === undefined) return undefined;
    const before = this.#readUnlockKeysBefore();
    const { material, unlockKey: opener } = this.#readMaterial([
      ...(unlockKey === undefined ? [] : [unlockKey]),
      ...before,
    ]);
    const { identity } = readMaterialCertificate(this.path, material);
    if (identity.nodeId !== state.nodeId || identity.clusterId !== state.clusterId) {
      throw new IdentityDamaged(this.path, `the certificate is that of node ${identity.nodeId}, not ${state.nodeId}`);
    }
    return { material, state, unlockKey: opener, unlockKeysBefore: before.filter((key) => key !== opener) };
  }

  /** Of a node that has just entered a swarm. Not in force until `writeState`. */
  writeNew(material: Material, unlockKey: string | undefined): void {
    this.#files.mkdir(this.path);
    this.#remove(names.nextKey);
    this.forgetUnlockKeysBefore();
    this.#write(names.key, sealed(material.privateKeyPem, unlockKey === undefined ? [] : [unlockKey]));
    this.#write(names.roots, material.rootsPem);
    this.#write(names.certificate, material.certificatePem);
  }

  writeState(state: State): void {
    this.#write(names.state, `${JSON.stringify(state, undefined, 2)}\n`);
  }

  /** The key for which a certificate will be asked; the one in force stays until `writeRenewed`. */
  writeNextKey(privateKeyPem: string, unlockKeys: readonly string[]): void {
    this.#write(names.nextKey, sealed(privateKeyPem, unlockKeys));
  }

  /** Puts the certificate of the key that waits in force. A crash leaves the old pair or the new one (see `read`). */
  writeRenewed(certificatePem: string, rootsPem: string): void {
    this.#write(names.roots, rootsPem);
    this.#write(names.certificate, certificatePem);
    this.#files.rename(`${this.path}/${names.nextKey}`, this.keyFile);
    this.#files.syncDirectory(this.path);
  }

  writeRoots(rootsPem: string): void {
    this.#write(names.roots, rootsPem);
  }

  /**
   * Replaces the file of the key in force.
   * @param unlockKeys  each of which opens it then; none: it is not sealed
   */
  writeKey(privateKeyPem: string, unlockKeys: readonly string[]): void {
    this.#write(names.key, sealed(privateKeyPem, unlockKeys));
  }

  /** How many seals the file of the key in force has; each opens with an unlock key of its own. */
  get seals(): number {
    return this.#need(names.key).split("-----BEGIN ENCRYPTED").length - 1;
  }

  /**
   * Keeps unlock keys in the clear, for a swarm that is not locked any more: what they open lies open beside them, or will
   * in a moment, and nobody is to be asked for them.
   */
  writeUnlockKeysBefore(unlockKeys: readonly string[]): void {
    this.#write(names.unlockKeysBefore, `${unlockKeys.join("\n")}\n`);
  }

  forgetUnlockKeysBefore(): void {
    this.#remove(names.unlockKeysBefore);
  }

  /** Forgets the swarm: first that there is one, then key and certificates. Again is fine. */
  wipe(): void {
    const { state, unlockKeysBefore, nextKey, key, certificate, roots } = names;
    for (const name of [state, unlockKeysBefore, nextKey, key, certificate, roots]) this.#remove(name);
    // Where no worker runs that would (a locked manager).
    for (const name of ["wireguard.key", "wireguard.key.next"]) this.#remove(name);
  }

  /** @param unlockKeys  any of which may open the files */
  #readMaterial(unlockKeys: readonly string[]): {
    readonly material: Material;
    readonly unlockKey: string | undefined;
  } {
    const certificatePem = this.#need(names.certificate);
    const rootsPem = this.#need(names.roots);
    const { publicKey } = readMaterialCertificate(this.path, { certificatePem });
    const inForce = openWithOne(this.#need(names.key), unlockKeys);
    if (inForce !== undefined && samePublicKey(inForce.pem, publicKey)) {
      // Whatever lock a key has that still waits for its certificate: it is not needed.
      this.#remove(names.nextKey);
      return { material: { certificatePem, rootsPem, privateKeyPem: inForce.pem }, unlockKey: inForce.unlockKey };
    }
    const waiting = this.#read(names.nextKey);
    const next = waiting === undefined ? undefined : openWithOne(waiting, unlockKeys);
    if (next !== undefined && samePublicKey(next.pem, publicKey)) {
      // The power failed between the certificate and its key.
      this.#files.rename(`${this.path}/${names.nextKey}`, this.keyFile);
      this.#files.syncDirectory(this.path);
      return { material: { certificatePem, rootsPem, privateKeyPem: next.pem }, unlockKey: next.unlockKey };
    }
    if (inForce === undefined) throw unlockKeys.length === 0 ? new NodeKeyLocked() : new UnlockKeyWrong();
    throw new IdentityDamaged(this.path, "no key in it belongs to the certificate");
  }

  /** What is no unlock key is left out: whoever has the right one can still give it. */
  #readUnlockKeysBefore(): readonly string[] {
    const lines = (this.#read(names.unlockKeysBefore) ?? "").split("\n").filter((line) => line !== "");
    return lines.slice(0, unlockKeysMax).filter((line) => isUnlockKey(line));
  }

  #readState(): State | undefined {
    const text = this.#read(names.state);
    if (text === undefined) return undefined;
    let found: Partial<State>;
    try {
      found = JSON.parse(text) as Partial<State>;
    } catch (error) {
      throw new IdentityDamaged(this.path, `${names.state} is not JSON`, error);
    }
    const { nodeId, clusterId, settings, managers } = found ?? {};
    const whole =
      found?.format === 1 &&
      isText(nodeId) &&
      isText(clusterId) &&
      typeof settings === "object" &&
      settings !== null &&
      typeof settings.listenAddr === "string" &&
      typeof settings.advertiseAddr === "string" &&
      typeof settings.dataPathAddr === "string" &&
      (settings.frameAddr === undefined || typeof settings.frameAddr === "string") &&
      Array.isArray(managers) &&
      managers.length <= managersMax &&
      managers.every(({ nodeId, addr }) => typeof nodeId === "string" && isText(addr));
    if (!whole) throw new IdentityDamaged(this.path, `${names.state} lacks a field or has a wrong one`);
    return found as State;
  }

  #need(name: string): string {
    const content = this.#read(name);
    if (content === undefined) throw new IdentityDamaged(this.path, `there is no ${name}`);
    return content;
  }

  #read(name: string): string | undefined {
    const path = `${this.path}/${name}`;
    try {
      const bytes = readWhole(this.#files, path, fileBytesMax);
      return bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");
    } catch (error) {
      throw new IdentityDamaged(this.path, `${name} cannot be read (${errnoOf(error) ?? "unknown"})`, error);
    }
  }

  #write(name: string, content: string): void {
    replaceFile(this.#files, this.path, name, Buffer.from(content), this.#prepare);
  }

  #remove(name: string): void {
    try {
      this.#files.unlink(`${this.path}/${name}`);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return;
      throw error;
    }
    this.#files.syncDirectory(this.path);
  }
}

function sealed(privateKeyPem: string, unlockKeys: readonly string[]): string {
  if (unlockKeys.length === 0) return privateKeyPem;
  return unlockKeys.map((unlockKey) => sealPrivateKey(privateKeyPem, unlockKey)).join("");
}

/** @returns the key and what opened it; undefined if nothing does @throws UnlockKeyInvalid */
function openWithOne(
  keyPem: string,
  unlockKeys: readonly string[],
): { readonly pem: string; readonly unlockKey: string | undefined } | undefined {
  if (!isSealed(keyPem)) return { pem: keyPem, unlockKey: undefined };
  for (const unlockKey of unlockKeys) {
    try {
      return { pem: openPrivateKey(keyPem, unlockKey), unlockKey };
    } catch (error) {
      if (!(error instanceof UnlockKeyWrong)) throw error;
    }
  }
  return undefined;
}

function isUnlockKey(text: string): boolean {
  try {
    readUnlockKey(text);
    return true;
  } catch {
    return false;
  }
}

function readMaterialCertificate(
  folder: string,
  { certificatePem }: Pick<Material, "certificatePem">,
): ReturnType<typeof readCertificate> {
  try {
    return readCertificate(certificatePem);
  } catch (error) {
    throw new IdentityDamaged(folder, `${names.certificate} is not a node's certificate`, error);
  }
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= 256;
}
