/**
 * The data folder of one member: locked while it runs, and marked with whose it is. `member.json` holds
 *   clusterId, memberId, nodeId   who wrote this folder: another node or cluster must not use it
 *   incarnation                   random, one life of this folder (row 13)
 *   clusterIncarnation            grows with each forced new cluster (row 26)
 *   starts                        how often it was opened, so that ids of reads are never used twice
 *   standing                      "joining" until the cluster has let it in; "removed" once the cluster has told so
 *   quarantined                   why its log or state is not to be trusted, if so: a restart would vote with it again
 *   checksum                      CRC-32 of the rest as JSON without spaces: a bit that flips must not undo a quarantine
 * It is replaced atomically; the log and the snapshots beside it are encrypted, this file holds no secret.
 */
import { randomBytes } from "node:crypto";
import { closeSync, linkSync, openSync, readFileSync, renameSync, unlinkSync, writeSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import { ClusterError, invariant } from "../../lib/pure/errors.ts";
import { errnoOf, readWhole, replaceFile, type FileSystem } from "../../lib/runtime/file-system.ts";
import type { MemberId } from "./core/types.ts";

export interface Identity {
  readonly format: 1;
  readonly clusterId: string;
  readonly nodeId: string;
  readonly memberId: MemberId;
  readonly incarnation: string;
  readonly clusterIncarnation: number;
  readonly starts: number;
  readonly standing: "joining" | "member" | "removed";
  readonly quarantined?: Quarantine;
}

export interface Quarantine {
  readonly reason: string;
  /** HOST:PORT of the other managers at that time, through which it can be replaced. */
  readonly through: readonly string[];
}

/** Who a node is, by its certificate. */
export interface Owner {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly memberId: MemberId;
}

export class FolderInUse extends ClusterError {
  readonly code = "RAFT_FOLDER_IN_USE";
  constructor(folder: string, pid: number) {
    super(`Cannot open the data folder ${folder}: process ${pid} uses it`, {
      fix: `Stop process ${pid} first, or give this manager a folder of its own`,
    });
  }
}

export class FolderOfAnother extends ClusterError {
  readonly code = "RAFT_FOLDER_OF_ANOTHER";
  constructor(folder: string, what: "node" | "cluster" | "member", found: string, expected: string) {
    super(`Cannot open the data folder ${folder}: it belongs to ${what} ${found}, and this is ${what} ${expected}`, {
      fix: "Start with the data folder and the certificate of the same node; never copy a folder between nodes",
    });
  }
}

export class FolderDamaged extends ClusterError {
  readonly code = "RAFT_FOLDER_DAMAGED";
  constructor(folder: string, found: string, cause?: unknown) {
    super(`Cannot open the data folder ${folder}: ${found}`, {
      fix: "Keep the folder for inspection, remove this manager from the cluster and join it again with an empty one",
      cause,
    });
  }
}

export class FolderEmpty extends ClusterError {
  readonly code = "RAFT_FOLDER_EMPTY";
  constructor(folder: string) {
    super(`Cannot open the data folder ${folder}: there is no member in it`, {
      fix: "Form a cluster with --init, or join one with --join ADDRESS",
    });
  }
}

export class MemberRemoved extends ClusterError {
  readonly code = "RAFT_MEMBER_REMOVED";
  constructor(folder: string) {
    super(`Cannot open the data folder ${folder}: its member has been removed from the cluster`, {
      fix: "Move the folder away and join again with an empty one and a new certificate; its member id is never let in again",
    });
  }
}

/** The disk, or what this process may do there, keeps the folder from being used. */
export class FolderUnusable extends ClusterError {
  readonly code = "RAFT_FOLDER_UNUSABLE";
  constructor(folder: string, cause: Error) {
    super(`Cannot use the data folder ${folder}: ${cause.message}`, {
      fix: remedies[errnoOf(cause) ?? ""] ?? "Check the disk of the folder (dmesg), and start again",
      cause,
    });
  }

  /** What `act` does to the folder, with errors of the disk told as ones of the folder. */
  static told<T>(folder: string, act: () => T): T {
    try {
      return act();
    } catch (error) {
      throw FolderUnusable.of(folder, error);
    }
  }

  /** `error` itself if it is none of the disk. */
  static of(folder: string, error: unknown): unknown {
    return error instanceof Error && errnoOf(error) !== undefined ? new FolderUnusable(folder, error) : error;
  }
}

const makeItOurs = "Make the folder and all that is in it belong to the user that the manager runs as";
const makeItWritable = "Mount the file system of the folder for writing, or give the manager another folder";
const makeRoom = "Free space on the file system of the folder, and start again";
const giveFolder = "Give the path of a folder: something else is in its place";
const remedies: Readonly<Record<string, string>> = {
  EACCES: makeItOurs,
  EPERM: makeItOurs,
  EROFS: makeItWritable,
  ENOSPC: makeRoom,
  EDQUOT: makeRoom,
  ENOTDIR: giveFolder,
  EEXIST: giveFolder,
  EISDIR: giveFolder,
  ELOOP: giveFolder,
  ENAMETOOLONG: "Give the folder a shorter path",
};

const identityFile = "member.json";
const lockFile = "lock";
const identityBytesMax = 64 * 1024;

export class DataFolder implements Disposable {
  readonly path: string;
  readonly #files: FileSystem;
  readonly #lock: string;
  #identity: Identity | undefined;
  #open = true;

  private constructor(path: string, files: FileSystem, lock: string, identity: Identity | undefined) {
    this.path = path;
    this.#files = files;
    this.#lock = lock;
    this.#identity = identity;
  }

  /** Creates the folder if needed, locks it and reads whose it is. @throws FolderInUse, FolderDamaged, FolderUnusable */
  static open(path: string, files: FileSystem): DataFolder {
    return FolderUnusable.told(path, () => {
      files.mkdir(path);
      const lock = acquireLock(path);
      try {
        return new DataFolder(path, files, lock, readIdentity(path, files));
      } catch (error) {
        releaseLock(path, lock);
        throw error;
      }
    });
  }

  /** Undefined while no member lives here. */
  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** Makes the folder a new member's, as its certificate names it. */
  create(owner: Owner, standing: "joining" | "member", clusterIncarnation: number): Identity {
    invariant(this.#identity === undefined, "a folder that is somebody's is not made another's");
    return this.#write({
      format: 1,
      clusterId: owner.clusterId,
      nodeId: owner.nodeId,
      memberId: owner.memberId,
      incarnation: randomBytes(16).toString("hex"),
      clusterIncarnation,
      starts: 1,
      standing,
    });
  }

  /** Counts one more start of the member that lives here. @throws FolderEmpty, FolderOfAnother, MemberRemoved */
  resume(owner: Owner): Identity {
    const found = this.#identity;
    if (found === undefined) throw new FolderEmpty(this.path);
    for (const what of ["cluster", "node", "member"] as const) {
      const name = `${what}Id` as const;
      if (found[name] !== owner[name]) {
        throw new FolderOfAnother(this.path, what, String(found[name]), String(owner[name]));
      }
    }
    if (found.standing === "removed") throw new MemberRemoved(this.path);
    return this.#write({ ...found, starts: found.starts + 1 });
  }

  /** The cluster has let this member in. */
  joined(): Identity {
    const found = this.#identity;
    invariant(found !== undefined, "who has joined has a folder");
    return this.#write({ ...found, standing: "member" });
  }

  /** The cluster has removed this member. Nothing is deleted. */
  markRemoved(): void {
    if (this.#identity !== undefined) this.#write({ ...this.#identity, standing: "removed" });
  }

  /** Until it is replaced. Nothing is deleted. */
  markQuarantined(quarantined: Quarantine): void {
    if (this.#identity !== undefined) this.#write({ ...this.#identity, quarantined });
  }

  /** A forced new cluster: members of the old one must never take this one for theirs. */
  countNewCluster(): Identity {
    const found = this.#identity;
    if (found === undefined) throw new FolderEmpty(this.path);
    // Who makes this folder the only one trusts it, for want of a better one.
    const { quarantined: _, ...trusted } = found;
    return this.#write({ ...trusted, clusterIncarnation: found.clusterIncarnation + 1 });
  }

  /** Gives the folder up. Closing twice is fine. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    releaseLock(this.path, this.#lock);
  }

  #write(identity: Identity): Identity {
    const content = Buffer.from(`${JSON.stringify({ ...identity, checksum: checksumOf(identity) }, undefined, 2)}\n`);
    FolderUnusable.told(this.path, () => replaceFile(this.#files, this.path, identityFile, content));
    this.#identity = identity;
    return identity;
  }
}

function readIdentity(path: string, files: FileSystem): Identity | undefined {
  let bytes: Uint8Array | undefined;
  try {
    bytes = readWhole(files, join(path, identityFile), identityBytesMax);
  } catch (error) {
    if (errnoOf(error) !== "EFBIG") throw error;
    throw new FolderDamaged(path, `${identityFile} is larger than any of ours`, error);
  }
  if (bytes === undefined) {
    const strangers = files.readdir(path).filter((name) => /^(wal|log|snapshots?)$/u.test(name));
    if (strangers.length === 0) return undefined;
    throw new FolderDamaged(path, `it has ${strangers.join(", ")} and no ${identityFile}`);
  }
  let read: (Partial<Identity> & { readonly checksum?: unknown }) | null;
  try {
    read = JSON.parse(Buffer.from(bytes).toString("utf8")) as typeof read;
  } catch (error) {
    throw new FolderDamaged(path, `${identityFile} is not JSON`, error);
  }
  if (typeof read !== "object" || read === null || read.format !== 1) {
    throw new FolderDamaged(path, `${identityFile} has an unknown format`);
  }
  const { checksum, ...found } = read;
  // Folders of before have none.
  if (checksum !== undefined && checksum !== checksumOf(found)) {
    throw new FolderDamaged(path, `the checksum of ${identityFile} is wrong`);
  }
  const { clusterId, nodeId, memberId, incarnation, clusterIncarnation, starts, standing, quarantined } = found;
  const whole =
    isText(clusterId) &&
    isText(nodeId) &&
    isText(incarnation) &&
    Number.isSafeInteger(memberId) &&
    (memberId ?? 0) > 0 &&
    Number.isSafeInteger(starts) &&
    (starts ?? -1) >= 0 &&
    Number.isSafeInteger(clusterIncarnation) &&
    (standing === "joining" || standing === "member" || standing === "removed") &&
    (quarantined === undefined || isQuarantine(quarantined));
  if (!whole) throw new FolderDamaged(path, `${identityFile} lacks a field or has a wrong one`);
  const known = { format: 1, clusterId, nodeId, memberId, incarnation, clusterIncarnation, starts, standing };
  return { ...known, ...(quarantined === undefined ? {} : { quarantined }) } as Identity;
}

/** Of its fields, in the order in which they stand there. */
function checksumOf(identity: Partial<Identity>): string {
  return crc32(JSON.stringify(identity)).toString(16).padStart(8, "0");
}

function isQuarantine(value: unknown): value is Quarantine {
  if (typeof value !== "object" || value === null) return false;
  const { reason, through } = value as Partial<Quarantine>;
  return isText(reason) && Array.isArray(through) && through.every(isText);
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= 256;
}

/**
 * One holder at a time: a file that is linked into place, so that it is never seen half written, and names its process
 * by number and start time. One left behind by a process that is gone is moved away; who moves the wrong one puts it back.
 */
function acquireLock(path: string): string {
  const lock = join(path, lockFile);
  const mine = join(path, `${lockFile}.${process.pid}.${randomBytes(4).toString("hex")}`);
  const content = `${process.pid} ${startOf(process.pid) ?? 0}\n`;
  const fd = openSync(mine, "wx", 0o600);
  try {
    writeSync(fd, content);
  } catch (error) {
    unlinkSync(mine);
    throw error;
  } finally {
    closeSync(fd);
  }
  try {
    for (let attempt = 0; ; attempt++) {
      try {
        linkSync(mine, lock);
        return content;
      } catch (error) {
        if (errnoOf(error) !== "EEXIST") throw error;
      }
      const holder = readLock(lock);
      if (holder === undefined) continue;
      if (isAlive(holder) || attempt > 10) throw new FolderInUse(path, holder.pid);
      const stale = `${mine}.stale`;
      try {
        renameSync(lock, stale);
      } catch (error) {
        if (errnoOf(error) === "ENOENT") continue;
        throw error;
      }
      const moved = readLock(stale);
      if (moved !== undefined && isAlive(moved)) {
        linkSync(stale, lock);
        unlinkSync(stale);
        throw new FolderInUse(path, moved.pid);
      }
      unlinkSync(stale);
    }
  } finally {
    unlinkSync(mine);
  }
}

function releaseLock(path: string, content: string): void {
  const lock = join(path, lockFile);
  try {
    if (readFileSync(lock, "utf8") === content) unlinkSync(lock);
  } catch (error) {
    // Somebody removed the folder: there is nothing left to unlock.
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

interface Holder {
  readonly pid: number;
  readonly start: number;
}

function readLock(file: string): Holder | undefined {
  try {
    const [pid, start] = readFileSync(file, "utf8").trim().split(" ").map(Number);
    return { pid: pid ?? 0, start: start ?? 0 };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function isAlive({ pid, start }: Holder): boolean {
  return startOf(pid) === start && threadsOf(pid).some((thread) => !hasEnded(`/proc/${pid}/task/${thread}/stat`));
}

/** Start time of a process in clock ticks since boot, proc_pid_stat(5) field 22; a number alone may be used again. */
function startOf(pid: number): number | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  const start = statOf(`/proc/${pid}/stat`)?.[19];
  return start === undefined ? undefined : Number(start);
}

/** A killed process whose parent has not looked yet is still listed, and so are its threads that wait for the disk. */
function hasEnded(file: string): boolean {
  const state = statOf(file)?.[0];
  return state === undefined || state === "Z" || state === "X";
}

function threadsOf(pid: number): readonly string[] {
  return ifThere(() => readdirSync(`/proc/${pid}/task`)) ?? [];
}

/** The fields from the third on: state, ... @returns undefined if there is no such process or thread */
function statOf(file: string): readonly string[] | undefined {
  const stat = ifThere(() => readFileSync(file, "utf8"));
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
}

function ifThere<Value>(read: () => Value): Value | undefined {
  try {
    return read();
  } catch (error) {
    const code = errnoOf(error);
    if (code === "ENOENT" || code === "ESRCH") return undefined;
    throw error;
  }
}
