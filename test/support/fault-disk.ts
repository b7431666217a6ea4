/**
 * A disk in memory that fails as disks do, decided by one seeded source (scenarios N4): unsynced writes are lost at a
 * crash (all, none, a prefix, random sectors), the last write is torn at a sector or a byte, directory entries that were
 * not synced vanish, bits flip, writes are lost or land elsewhere though fdatasync said yes, calls fail with EIO or
 * ENOSPC, and each call has a cost in virtual time.
 *
 * Model. A file has a cache (what reads see) and a durable image. pwrite, truncate and allocate change the cache and wait
 * in a list; datasync brings the list into the image. A failed datasync drops the list: the kernel marks such pages clean,
 * so the cache still shows what no longer reaches the disk (what the literature calls fsyncgate). Names work the same way
 * per folder, with syncDirectory. mkdir is durable at once. Whole-array copies only, no work per byte.
 */
import type { FileSystem, OpenFile, OpenMode } from "../../lib/runtime/file-system.ts";
import type { Random } from "../../lib/pure/prng.ts";

export const sectorBytes = 512;

/** The machine lost power in this call; every later call fails alike until `restart`. */
export class DiskCrash extends Error {
  readonly operation: number;
  constructor(operation: number) {
    super(`simulated power cut at disk operation ${operation}`);
    this.name = "DiskCrash";
    this.operation = operation;
  }
}

export type DiskAct =
  "open" | "read" | "write" | "sync" | "truncate" | "allocate" | "rename" | "unlink" | "readdir" | "syncDirectory";

export interface DiskFault {
  readonly act: DiskAct;
  /** Only for paths that contain this. */
  readonly path?: string;
  readonly code: "EIO" | "ENOSPC" | "EDQUOT";
  /** How many matching calls fail; 1 unless told. */
  readonly times?: number;
  /** How many matching calls succeed first. */
  readonly after?: number;
}

/** What a crash leaves of that which was not synced. */
export interface CrashDamage {
  readonly keep: "none" | "all" | "prefix" | "random";
  /** Where the last kept write ends: whole, at a sector border, at any byte. Drawn, unless `tornAtByte` says it. */
  readonly tear?: "none" | "sector" | "byte";
  /** Exactly so many bytes of the last unsynced write of each file are kept (with keep "all"). */
  readonly tornAtByte?: number;
}

/** Microseconds of virtual time; each is a minimum plus an exponential part. */
export interface DiskLatency {
  readonly readUs: number;
  readonly writeUs: number;
  readonly syncUs: number;
  readonly syncMeanUs: number;
}

type Change =
  | { readonly kind: "write"; readonly at: number; readonly data: Uint8Array; readonly landsAt: number | undefined }
  | { readonly kind: "zeros"; readonly from: number; readonly to: number }
  | { readonly kind: "truncate"; readonly sizeBytes: number };

const slabBytes = 1 << 16;
let slab = new Uint8Array(slabBytes);
let slabUsed = 0;

/** Zeros of one's own. Small pieces share a buffer: making and freeing one for each write was a tenth of a simulation. */
function zeros(sizeBytes: number): Uint8Array<ArrayBuffer> {
  if (sizeBytes > slabBytes / 8) return new Uint8Array(sizeBytes);
  if (slabUsed + sizeBytes > slabBytes) {
    slab = new Uint8Array(slabBytes);
    slabUsed = 0;
  }
  const piece = slab.subarray(slabUsed, slabUsed + sizeBytes);
  slabUsed += sizeBytes;
  return piece;
}

function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = zeros(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Bytes that grow by doubling; everything past `sizeBytes` is zero. */
class Image {
  bytes = new Uint8Array(0);
  sizeBytes = 0;

  apply(change: Change): void {
    switch (change.kind) {
      case "write":
        this.write(change.data, change.at);
        break;
      case "zeros":
        this.#reserve(change.to);
        this.bytes.fill(0, change.from, change.to);
        this.sizeBytes = Math.max(this.sizeBytes, change.to);
        break;
      case "truncate":
        this.#reserve(change.sizeBytes);
        if (change.sizeBytes < this.sizeBytes) this.bytes.fill(0, change.sizeBytes, this.sizeBytes);
        this.sizeBytes = change.sizeBytes;
        break;
    }
  }

  write(data: Uint8Array, at: number): void {
    this.#reserve(at + data.length);
    this.bytes.set(data, at);
    this.sizeBytes = Math.max(this.sizeBytes, at + data.length);
  }

  copyFrom(other: Image): void {
    if (this.bytes.length < other.sizeBytes) this.bytes = zeros(other.bytes.length);
    else this.bytes.fill(0, other.sizeBytes);
    this.bytes.set(other.bytes.subarray(0, other.sizeBytes));
    this.sizeBytes = other.sizeBytes;
  }

  #reserve(sizeBytes: number): void {
    if (sizeBytes <= this.bytes.length) return;
    const grown = zeros(Math.max(sizeBytes, this.bytes.length * 2, 1024));
    grown.set(this.bytes.subarray(0, this.sizeBytes));
    this.bytes = grown;
  }
}

class Inode {
  readonly cache = new Image();
  readonly durable = new Image();
  unsynced: Change[] = [];
}

/** A name appears (from nowhere, or from another name) or goes. */
interface NameChange {
  readonly folder: string;
  readonly inode: Inode;
  readonly from: string | undefined;
  readonly to: string | undefined;
}

function applyName(names: Map<string, Inode>, { inode, from, to }: NameChange): void {
  if (from !== undefined && names.get(from) === inode) names.delete(from);
  if (to !== undefined) names.set(to, inode);
}

export class FaultDisk implements FileSystem {
  /** Calls that change something, counted from 1; the scale of `crashAt`. */
  operations = 0;
  /** Calls by kind, for tests that count syncs. */
  readonly calls: Record<DiskAct, number> = {
    open: 0,
    read: 0,
    write: 0,
    sync: 0,
    truncate: 0,
    allocate: 0,
    rename: 0,
    unlink: 0,
    readdir: 0,
    syncDirectory: 0,
  };
  /** Virtual time spent in calls so far. */
  elapsedUs = 0;
  latency: DiskLatency | undefined;
  /** Opened and not closed by now, power cuts apart. */
  openFiles = 0;
  /** Handed to `pwrite` so far. */
  bytesWritten = 0;
  /** The power goes in the next `datasync`, before it has done anything. */
  crashInSync = false;
  /** Total room; growth past it fails with ENOSPC. */
  capacityBytes = Number.POSITIVE_INFINITY;

  readonly #random: Random;
  #names = new Map<string, Inode>();
  readonly #durableNames = new Map<string, Inode>();
  readonly #folders = new Set<string>(["/"]);
  #unsyncedNames: NameChange[] = [];
  readonly #faults: { fault: DiskFault; skip: number; left: number }[] = [];
  #crashAt = Number.POSITIVE_INFINITY;
  #down = false;
  #epoch = 0;
  #usedBytes = 0;
  #losses: { path: string; left: number; moveBy: number | undefined }[] = [];
  #wrongReads: { path: string; left: number }[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  // ---- what a test may order ----

  /** Called with each operation that changes something, at the moment in which a power cut would find it unsynced. */
  onOperation: ((operation: number) => void) | undefined;

  /** A disk in the same state, unsynced changes included, with chance of its own; nothing is open on it. */
  fork(random: Random): FaultDisk {
    const fork = new FaultDisk(random);
    const copies = new Map<Inode, Inode>();
    const copy = (inode: Inode): Inode => {
      const known = copies.get(inode);
      if (known !== undefined) return known;
      const made = new Inode();
      made.cache.copyFrom(inode.cache);
      made.durable.copyFrom(inode.durable);
      made.unsynced = [...inode.unsynced];
      copies.set(inode, made);
      return made;
    };
    for (const [path, inode] of this.#names) fork.#names.set(path, copy(inode));
    for (const [path, inode] of this.#durableNames) fork.#durableNames.set(path, copy(inode));
    for (const folder of this.#folders) fork.#folders.add(folder);
    fork.#unsyncedNames = this.#unsyncedNames.map((change) => ({ ...change, inode: copy(change.inode) }));
    fork.#usedBytes = this.#usedBytes;
    return fork;
  }

  fail(fault: DiskFault): void {
    this.#faults.push({ fault, skip: fault.after ?? 0, left: fault.times ?? 1 });
  }

  /** Forgets ordered failures that have not happened. */
  mend(): void {
    this.#faults.length = 0;
    this.#losses = [];
    this.#wrongReads = [];
  }

  /** The power goes in the call that changes something with this number (`operations` + 1 is the next). */
  crashAt(operation: number): void {
    this.#crashAt = operation;
  }

  get isDown(): boolean {
    return this.#down;
  }

  /** The next `times` writes to such paths are acknowledged and synced, but never land. */
  loseWrites(path: string, times = 1): void {
    this.#losses.push({ path, left: times, moveBy: undefined });
  }

  /** The next write to such a path lands `moveBy` bytes away from where it belongs (never before the file's start). */
  misdirectWrite(path: string, moveBy: number): void {
    this.#losses.push({ path, left: 1, moveBy });
  }

  /** The next `times` reads of such paths return one flipped bit, though the disk holds the right ones. */
  readWrongly(path: string, times = 1): void {
    this.#wrongReads.push({ path, left: times });
  }

  /** Changes durable bytes behind everybody's back. */
  flipBit(path: string, byte: number, bit = this.#random.int(0, 8)): void {
    const inode = this.#inode(path);
    for (const image of [inode.cache, inode.durable]) {
      if (byte < image.sizeBytes) image.bytes[byte] = (image.bytes[byte] ?? 0) ^ (1 << bit);
    }
  }

  /** The file's content as reads see it, or undefined; a copy. */
  peek(path: string): Uint8Array | undefined {
    const inode = this.#names.get(path);
    return inode?.cache.bytes.slice(0, inode.cache.sizeBytes);
  }

  /** Puts a file there, durable, as an operator or a thief would. */
  plant(path: string, content: Uint8Array): void {
    const inode = new Inode();
    inode.cache.write(content, 0);
    inode.durable.write(content, 0);
    this.#usedBytes += content.length - (this.#names.get(path)?.cache.sizeBytes ?? 0);
    this.#names.set(path, inode);
    this.#durableNames.set(path, inode);
  }

  /** Takes a file away, durably. */
  remove(path: string): void {
    this.#usedBytes -= this.#names.get(path)?.cache.sizeBytes ?? 0;
    this.#names.delete(path);
    this.#durableNames.delete(path);
  }

  /** Paths of all files, sorted. */
  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  /** All files as they are, to compare a folder before and after. */
  contents(): Map<string, Uint8Array> {
    return new Map(this.paths().map((path) => [path, this.peek(path) as Uint8Array]));
  }

  /** Goes on with other contents (a restored backup). Open files become invalid. */
  restore(contents: ReadonlyMap<string, Uint8Array>): void {
    this.#epoch++;
    this.#names.clear();
    this.#durableNames.clear();
    this.#unsyncedNames = [];
    this.#usedBytes = 0;
    for (const [path, content] of contents) this.plant(path, content);
  }

  /** A power cut, if there has been none, and the machine comes back: open files are gone, the cache is the disk. */
  restart(damage: CrashDamage = { keep: "none" }): void {
    this.#epoch++;
    this.#down = false;
    this.crashInSync = false;
    this.#crashAt = Number.POSITIVE_INFINITY;
    for (const change of this.#survivors(this.#unsyncedNames, damage)) applyName(this.#durableNames, change);
    this.#unsyncedNames = [];
    const inodes = new Set([...this.#names.values(), ...this.#durableNames.values()]);
    for (const inode of inodes) {
      if (inode.unsynced.length > 0) this.#damage(inode, damage);
      inode.unsynced = [];
      inode.cache.copyFrom(inode.durable);
    }
    this.#names = new Map(this.#durableNames);
    this.#usedBytes = 0;
    for (const inode of this.#names.values()) this.#usedBytes += inode.cache.sizeBytes;
  }

  /** The process dies, the machine does not: what was written is still in the cache, nothing more is durable. */
  killProcess(): void {
    this.#epoch++;
    this.#down = false;
    this.#crashAt = Number.POSITIVE_INFINITY;
  }

  // ---- FileSystem ----

  open(path: string, mode: OpenMode): OpenFile {
    this.#begin("open", path);
    let inode = this.#names.get(path);
    if (mode === "create") {
      this.#folderOf(path);
      this.#change();
      if (inode === undefined) {
        const made = new Inode();
        inode = made;
        this.#rename({ folder: folderOf(path), inode: made, from: undefined, to: path });
      } else {
        this.#mutate(inode, { kind: "truncate", sizeBytes: 0 });
      }
    }
    if (inode === undefined) throw failure("ENOENT", "open", path);
    return new FaultFile(this, path, inode);
  }

  rename(from: string, to: string): void {
    this.#begin("rename", from);
    const inode = this.#names.get(from);
    if (inode === undefined) throw failure("ENOENT", "rename", from);
    this.#folderOf(to);
    this.#change();
    this.#usedBytes -= this.#names.get(to)?.cache.sizeBytes ?? 0;
    this.#rename({ folder: folderOf(to), inode, from, to });
  }

  unlink(path: string): void {
    this.#begin("unlink", path);
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure("ENOENT", "unlink", path);
    this.#change();
    this.#usedBytes -= inode.cache.sizeBytes;
    this.#rename({ folder: folderOf(path), inode, from: path, to: undefined });
  }

  readdir(path: string): string[] {
    this.#begin("readdir", path);
    if (!this.#folders.has(path)) throw failure("ENOENT", "readdir", path);
    const prefix = `${path}/`;
    const names = new Set<string>();
    for (const known of [...this.#names.keys(), ...this.#folders]) {
      if (!known.startsWith(prefix)) continue;
      const end = known.indexOf("/", prefix.length);
      names.add(end < 0 ? known.slice(prefix.length) : known.slice(prefix.length, end));
    }
    return [...names].sort();
  }

  mkdir(path: string): void {
    if (this.#down) throw new DiskCrash(this.operations);
    if (this.#folders.has(path)) return;
    let above = "";
    for (const part of path.split("/").slice(1)) {
      above += `/${part}`;
      this.#folders.add(above);
    }
  }

  syncDirectory(path: string): void {
    this.#begin("syncDirectory", path);
    this.#change();
    const kept: NameChange[] = [];
    for (const change of this.#unsyncedNames) {
      if (change.folder === path) applyName(this.#durableNames, change);
      else kept.push(change);
    }
    this.#unsyncedNames = kept;
    this.#spend(this.latency?.syncUs, this.latency?.syncMeanUs);
  }

  freeBytes(_path: string): number {
    if (this.#down) throw new DiskCrash(this.operations);
    return Math.max(0, this.capacityBytes - this.#usedBytes);
  }

  // ---- for FaultFile ----

  /** @internal */ read(path: string, inode: Inode, into: Uint8Array, position: number): number {
    this.#begin("read", path);
    const end = Math.min(inode.cache.sizeBytes, position + into.length);
    if (end <= position) return 0;
    into.set(inode.cache.bytes.subarray(position, end));
    for (const wrong of this.#wrongReads) {
      if (wrong.left > 0 && path.includes(wrong.path)) {
        wrong.left--;
        const byte = this.#random.int(0, end - position);
        into[byte] = (into[byte] ?? 0) ^ (1 << this.#random.int(0, 8));
        break;
      }
    }
    this.#spend(this.latency?.readUs);
    return end - position;
  }

  /** @internal */ write(path: string, inode: Inode, from: Uint8Array, position: number): void {
    this.#begin("write", path);
    this.bytesWritten += from.length;
    const room = this.capacityBytes - this.#usedBytes;
    const growth = position + from.length - inode.cache.sizeBytes;
    const fits = growth <= room;
    const data = copyOf(fits ? from : from.subarray(0, Math.max(0, from.length - (growth - room))));
    const loss =
      this.#losses.length === 0 ? undefined : this.#losses.find((entry) => entry.left > 0 && path.includes(entry.path));
    if (loss !== undefined) loss.left--;
    const landsAt =
      loss === undefined ? position : loss.moveBy === undefined ? undefined : Math.max(0, position + loss.moveBy);
    const crashes = this.operations + 1 >= this.#crashAt;
    if (data.length > 0) this.#mutate(inode, { kind: "write", at: position, data, landsAt });
    this.#spend(this.latency?.writeUs);
    if (crashes || fits) this.#change();
    if (!fits) throw failure("ENOSPC", "write", path);
  }

  /** @internal */ sync(path: string, inode: Inode): void {
    this.#spend(this.latency?.syncUs, this.latency?.syncMeanUs);
    if (this.crashInSync) this.#crashAt = 0;
    try {
      this.#begin("sync", path);
    } catch (error) {
      // The kernel reports once and forgets: these pages are clean now, and will never be written.
      if (!(error instanceof DiskCrash)) inode.unsynced = [];
      throw error;
    }
    this.#change();
    for (const change of inode.unsynced) {
      if (change.kind !== "write") inode.durable.apply(change);
      else if (change.landsAt !== undefined) inode.durable.write(change.data, change.landsAt);
    }
    inode.unsynced = [];
  }

  /** @internal */ resize(path: string, inode: Inode, act: "truncate" | "allocate", sizeBytes: number): void {
    this.#begin(act, path);
    const from = inode.cache.sizeBytes;
    if (act === "allocate" && sizeBytes <= from) return;
    if (sizeBytes - from > this.capacityBytes - this.#usedBytes) throw failure("ENOSPC", act, path);
    this.#mutate(inode, act === "truncate" ? { kind: "truncate", sizeBytes } : { kind: "zeros", from, to: sizeBytes });
    this.#spend(this.latency?.writeUs);
    this.#change();
  }

  /** @internal */ get epoch(): number {
    return this.#epoch;
  }

  // ---- inside ----

  /** Counts the call, and fails it if it is to fail. */
  #begin(act: DiskAct, path: string): void {
    if (this.#down) throw new DiskCrash(this.operations);
    this.calls[act]++;
    for (const entry of this.#faults) {
      if (entry.left === 0 || entry.fault.act !== act || !path.includes(entry.fault.path ?? "")) continue;
      if (entry.skip > 0) {
        entry.skip--;
        continue;
      }
      entry.left--;
      throw failure(entry.fault.code, act, path);
    }
  }

  /** Passes one operation that changes something; a write has been put into the cache before, so that it can be torn. */
  #change(): void {
    this.operations++;
    this.onOperation?.(this.operations);
    if (this.operations < this.#crashAt) return;
    this.#down = true;
    throw new DiskCrash(this.operations);
  }

  #mutate(inode: Inode, change: Change): void {
    const before = inode.cache.sizeBytes;
    inode.cache.apply(change);
    inode.unsynced.push(change);
    this.#usedBytes += inode.cache.sizeBytes - before;
  }

  #rename(change: NameChange): void {
    applyName(this.#names, change);
    this.#unsyncedNames.push(change);
  }

  #folderOf(path: string): void {
    if (!this.#folders.has(folderOf(path))) throw failure("ENOENT", "open", path);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure("ENOENT", "open", path);
    return inode;
  }

  #survivors<T>(changes: readonly T[], { keep }: CrashDamage): readonly T[] {
    if (keep === "all") return changes;
    if (keep === "prefix") return changes.slice(0, this.#random.int(0, changes.length + 1));
    return keep === "random" ? changes.filter(() => this.#random.chance(0.5)) : [];
  }

  #damage(inode: Inode, damage: CrashDamage): void {
    const kept = this.#survivors(inode.unsynced, damage);
    for (const [place, change] of kept.entries()) {
      if (change.kind !== "write") inode.durable.apply(change);
      else if (change.landsAt === undefined) continue;
      else if (damage.keep === "random") this.#landSectors(inode.durable, change.data, change.landsAt);
      else if (place < kept.length - 1) inode.durable.write(change.data, change.landsAt);
      else inode.durable.write(change.data.subarray(0, this.#torn(change.data.length, damage)), change.landsAt);
    }
  }

  #torn(sizeBytes: number, { tear, tornAtByte }: CrashDamage): number {
    if (tornAtByte !== undefined) return Math.min(tornAtByte, sizeBytes);
    if (tear === "byte") return this.#random.int(0, sizeBytes + 1);
    if (tear === "sector") return Math.min(sizeBytes, this.#random.int(0, sizeBytes / sectorBytes + 1) * sectorBytes);
    return sizeBytes;
  }

  /** Each sector of the write reaches the disk or not, on its own. */
  #landSectors(image: Image, data: Uint8Array, at: number): void {
    for (let from = 0; from < data.length;) {
      const to = Math.min(data.length, from + sectorBytes - ((at + from) % sectorBytes));
      if (this.#random.chance(0.5)) image.write(data.subarray(from, to), at + from);
      from = to;
    }
  }

  #spend(minimumUs: number | undefined, meanUs = 0): void {
    if (minimumUs === undefined) return;
    this.elapsedUs += minimumUs + (meanUs > 0 ? this.#random.exponential(meanUs) : 0);
  }
}

class FaultFile implements OpenFile {
  readonly #disk: FaultDisk;
  readonly #path: string;
  readonly #inode: Inode;
  readonly #epoch: number;
  #closed = false;

  constructor(disk: FaultDisk, path: string, inode: Inode) {
    this.#disk = disk;
    this.#path = path;
    this.#inode = inode;
    this.#epoch = disk.epoch;
    disk.openFiles++;
  }

  pread(into: Uint8Array, position: number): number {
    return this.#disk.read(this.#path, this.#open(), into, position);
  }

  pwrite(from: Uint8Array, position: number): void {
    this.#disk.write(this.#path, this.#open(), from, position);
  }

  datasync(): void {
    this.#disk.sync(this.#path, this.#open());
  }

  truncate(sizeBytes: number): void {
    this.#disk.resize(this.#path, this.#open(), "truncate", sizeBytes);
  }

  allocate(sizeBytes: number): void {
    this.#disk.resize(this.#path, this.#open(), "allocate", sizeBytes);
  }

  sizeBytes(): number {
    return this.#open().cache.sizeBytes;
  }

  close(): void {
    if (!this.#closed) this.#disk.openFiles--;
    this.#closed = true;
  }

  #open(): Inode {
    if (this.#closed || this.#epoch !== this.#disk.epoch) throw failure("EBADF", "use", this.#path);
    return this.#inode;
  }
}

function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

function failure(code: string, act: string, path: string): Error {
  return Object.assign(new Error(`${code}: simulated, ${act} '${path}'`), { code });
}
