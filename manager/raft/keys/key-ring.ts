/**
 * The data keys of one data folder and their file, which is always replaced as a whole (a crash leaves the old set or the
 * new one). Life of a data key: drawn and made durable, active (seals what is new), old (opens what still exists),
 * dropped when no file needs it. docs/design/raft-storage.md has the byte table.
 */
import { crc32 } from "node:zlib";
import { invariant } from "../../../lib/pure/errors.ts";
import { readWhole, replaceFile, type FileSystem } from "../../../lib/runtime/file-system.ts";
import { sameBytes, viewOf } from "./bytes.ts";
import { aesGcm, keyBytes, nonceOf, sessionBytes, tagBytes, type Cipher } from "./cipher.ts";
import { KeyFileDamaged, KeyMissing, KeyWrong, StorageLocked, StorageNewer } from "./errors.ts";
import { checkOwner, encodeOwner, ownerBytes, type StorageIdentity } from "./identity.ts";
import { fingerprintOf, type Kek } from "./kek.ts";
import { onDisk } from "./on-disk.ts";

export interface DataKey {
  /** 1, 2, 3 ...; written beside everything the key has sealed. */
  readonly id: number;
  /** 32 bytes. */
  readonly key: Uint8Array;
}

/** What sealing and opening need to know of keys. */
export interface DataKeys {
  readonly active: DataKey;
  get(id: number): DataKey | undefined;
}

export type RandomBytes = (count: number) => Uint8Array;

export interface KeyRingOptions {
  readonly files: FileSystem;
  /** The data folder. */
  readonly folder: string;
  readonly identity: StorageIdentity;
  readonly kek: Kek;
  readonly randomBytes: RandomBytes;
  readonly cipher?: Cipher;
}

const fileName = "keys";
const magic = 0x594b4b53; // "SKKY"
const version = 1;
const headerBytes = 36 + ownerBytes;
const keysMax = 1024;
const fileBytesMax = headerBytes + 12 + keysMax * (4 + keyBytes) + tagBytes + 4;
const zeroNonce = nonceOf(0); // each write of the file draws a session, so its key seals once

export class KeyRing implements DataKeys {
  readonly #options: KeyRingOptions;
  readonly #cipher: Cipher;
  #kek: Kek;
  #keys: Map<number, DataKey>;
  #active: DataKey;
  #nextId: number;

  private constructor(options: KeyRingOptions, keys: readonly DataKey[], activeId: number, nextId: number) {
    this.#options = options;
    this.#cipher = options.cipher ?? aesGcm;
    this.#kek = options.kek;
    this.#keys = new Map(keys.map((key) => [key.id, key]));
    const active = this.#keys.get(activeId);
    invariant(active !== undefined, "the active key is in the ring", { activeId });
    this.#active = active;
    this.#nextId = nextId;
  }

  /** Draws the first key and writes the file. Only for a data folder that holds nothing yet. */
  static create(options: KeyRingOptions): KeyRing {
    const ring = new KeyRing(options, [{ id: 1, key: options.randomBytes(keyBytes) }], 1, 2);
    ring.#write([...ring.#keys.values()], ring.#active, ring.#nextId, ring.#kek);
    return ring;
  }

  /**
   * @throws KeyMissing     there is no key file
   * @throws KeyFileDamaged it is cut short or altered
   * @throws KeyFileUnusable the disk failed
   * @throws StorageNewer   a later release wrote it
   * @throws StorageForeign it belongs to another member
   * @throws StorageLocked  it is sealed with an unlock key, and a node key was given
   * @throws KeyWrong       it is sealed with another key
   */
  static open(options: KeyRingOptions): KeyRing {
    const path = `${options.folder}/${fileName}`;
    const content = onDisk("read", path, () => readWhole(options.files, path, fileBytesMax));
    if (content === undefined) throw new KeyMissing(`there is no key file ${path}`);
    if (content.length < headerBytes + tagBytes + 4) throw new KeyFileDamaged(path, "it is cut short");
    const view = viewOf(content);
    if (view.getUint32(0, true) !== magic) throw new KeyFileDamaged(path, "it is not a key file");
    if (view.getUint32(content.length - 4, true) !== crc32(content.subarray(0, content.length - 4))) {
      throw new KeyFileDamaged(path, "its checksum is wrong");
    }
    const found = view.getUint16(4, true);
    if (found > version) throw new StorageNewer(path, found, version);
    checkOwner(path, content.subarray(36, headerBytes), encodeOwner(options.identity));
    if (!sameBytes(content.subarray(8, 16), fingerprintOf(options.kek))) {
      if (content[6] === 2 && options.kek.kind === "node") throw new StorageLocked(path);
      throw new KeyWrong(path);
    }
    const cipher = options.cipher ?? aesGcm;
    const body = content.slice(headerBytes, content.length - 4 - tagBytes);
    const key = cipher.derive(options.kek.key, content.subarray(16, 32));
    const tag = content.subarray(content.length - 4 - tagBytes, content.length - 4);
    if (!cipher.open(key, zeroNonce, content.subarray(0, headerBytes), body, tag)) {
      throw new KeyFileDamaged(path, "its seal is broken");
    }
    const keys = decodeBody(body);
    if (keys === undefined) throw new KeyFileDamaged(path, "its content makes no sense");
    return new KeyRing(options, keys.list, keys.activeId, keys.nextId);
  }

  get active(): DataKey {
    return this.#active;
  }

  get(id: number): DataKey | undefined {
    return this.#keys.get(id);
  }

  all(): readonly DataKey[] {
    return [...this.#keys.values()];
  }

  /** Draws a new active key; it is durable when this returns. The old ones stay until `retain`. */
  rotate(): DataKey {
    const drawn: DataKey = { id: this.#nextId, key: this.#options.randomBytes(keyBytes) };
    this.#write([...this.#keys.values(), drawn], drawn, this.#nextId + 1, this.#kek);
    this.#keys.set(drawn.id, drawn);
    this.#active = drawn;
    this.#nextId++;
    return drawn;
  }

  /**
   * Drops the keys that no file needs. The active key always stays.
   * @param needed  ids found in every file of the data folder, those being written included
   * @returns       the ids dropped
   */
  retain(needed: ReadonlySet<number>): readonly number[] {
    const kept = this.all().filter((key) => key.id === this.#active.id || needed.has(key.id));
    const dropped = this.all().filter((key) => !kept.includes(key));
    if (dropped.length === 0) return [];
    this.#write(kept, this.#active, this.#nextId, this.#kek);
    this.#keys = new Map(kept.map((key) => [key.id, key]));
    return dropped.map((key) => key.id);
  }

  /** Seals the same data keys with another key-encrypting key; no other file changes. */
  changeKek(kek: Kek): void {
    this.#write(this.all(), this.#active, this.#nextId, kek);
    this.#kek = kek;
  }

  #write(keys: readonly DataKey[], active: DataKey, nextId: number, kek: Kek): void {
    invariant(keys.length <= keysMax, "old keys are dropped in time", { keys: keys.length });
    const bodyBytes = 12 + keys.length * (4 + keyBytes);
    const content = new Uint8Array(headerBytes + bodyBytes + tagBytes + 4);
    const view = viewOf(content);
    const session = this.#options.randomBytes(sessionBytes);
    view.setUint32(0, magic, true);
    view.setUint16(4, version, true);
    content[6] = kek.kind === "unlock" ? 2 : 1;
    content.set(fingerprintOf(kek), 8);
    content.set(session, 16);
    view.setUint32(32, bodyBytes, true);
    content.set(encodeOwner(this.#options.identity), 36);
    view.setUint32(headerBytes, active.id, true);
    view.setUint32(headerBytes + 4, nextId, true);
    view.setUint32(headerBytes + 8, keys.length, true);
    for (const [place, { id, key }] of keys.entries()) {
      const at = headerBytes + 12 + place * (4 + keyBytes);
      view.setUint32(at, id, true);
      content.set(key, at + 4);
    }
    const body = content.subarray(headerBytes, headerBytes + bodyBytes);
    const wrapping = this.#cipher.derive(kek.key, session);
    content.set(
      this.#cipher.seal(wrapping, zeroNonce, content.subarray(0, headerBytes), body),
      headerBytes + bodyBytes,
    );
    view.setUint32(content.length - 4, crc32(content.subarray(0, content.length - 4)), true);
    const { files, folder } = this.#options;
    onDisk("write", `${folder}/${fileName}`, () => replaceFile(files, folder, fileName, content));
  }
}

/** Whether the ring in this folder needs an unlock key, by its own word; false if there is none. @throws KeyFileUnusable */
export function isRingLocked(files: FileSystem, folder: string): boolean {
  const path = `${folder}/${fileName}`;
  const content = onDisk("read", path, () => readWhole(files, path, fileBytesMax));
  return content !== undefined && content.length > headerBytes && content[6] === 2;
}

function decodeBody(body: Uint8Array): { list: DataKey[]; activeId: number; nextId: number } | undefined {
  if (body.length < 12) return undefined;
  const view = viewOf(body);
  const count = view.getUint32(8, true);
  if (count === 0 || count > keysMax || body.length !== 12 + count * (4 + keyBytes)) return undefined;
  const list = Array.from({ length: count }, (_, place) => {
    const at = 12 + place * (4 + keyBytes);
    return { id: view.getUint32(at, true), key: body.slice(at + 4, at + 4 + keyBytes) };
  });
  const activeId = view.getUint32(0, true);
  return list.some((key) => key.id === activeId) ? { list, activeId, nextId: view.getUint32(4, true) } : undefined;
}
