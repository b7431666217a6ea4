/**
 * Autolock, on every manager: what the cluster object says of the unlock key becomes true of this manager's disk.
 *
 *   1. The key in the cluster object is not the one in force here: the daemon is told, and seals the node's private key
 *      with it, so that either key opens that file.
 *   2. The daemon lets this process read the file again; now the data keys of the log are sealed anew.
 *   3. The daemon is told that it is done, and the file opens with the new key only.
 * The file comes first, because a log that is locked with a key that does not open the node's own would be lost to it.
 */
import { formatUnlockKey, isSealed, openPrivateKey } from "../../lib/pki/index.ts";
import type { Logger } from "../../lib/runtime/index.ts";
import { follow, theCluster, type ClusterSchema, type Store, type Watch } from "../store/index.ts";

/** The unlock key as people carry it; undefined: not locked. */
export type Lock = string | undefined;

export interface Locks {
  /** Step 1; absent when no daemon keeps the node's key, which then stays as it is. */
  readonly announce: ((lock: Lock) => void) | undefined;
  /** Step 2: seals the log's keys with it, or with the node's own. */
  readonly change: (lock: Lock, done: (error: Error | undefined) => void) => void;
  /** Step 3. */
  readonly settled: () => void;
}

export interface LockKeeperOptions {
  readonly store: Store<ClusterSchema>;
  readonly locks: Locks;
  readonly logger: Logger;
  /** With which the log was opened. */
  readonly inForce: Lock;
  /** The node's key file as it was read at the start: it may be sealed otherwise than the log. */
  readonly keyPem: string;
}

export class LockKeeper implements Disposable {
  readonly #options: LockKeeperOptions;
  readonly #watch: Watch<ClusterSchema>;
  #inForce: Lock;
  #announced: { readonly lock: Lock } | undefined;
  #changing = false;
  /** The file as it was read last; undefined once it is known to fit. */
  #keyPem: string | undefined;

  constructor(options: LockKeeperOptions) {
    this.#options = options;
    this.#inForce = options.inForce;
    this.#keyPem = options.keyPem;
    this.#watch = options.store.watch({ kinds: ["cluster"] });
    follow(this.#watch, undefined, () => this.#look());
  }

  /** Those that may open the node's key file now. */
  get candidates(): readonly Lock[] {
    return [...new Set([this.#announced?.lock ?? this.#inForce, this.#inForce])];
  }

  /**
   * The daemon has written the node's key file.
   * @param keyPem  as it is on disk
   */
  keyFileWritten(keyPem: string): void {
    const announced = this.#announced;
    if (announced === undefined || this.#changing || !opens(keyPem, announced.lock)) return;
    if (announced.lock === this.#inForce) this.#settle();
    else this.#change(announced.lock);
  }

  [Symbol.dispose](): void {
    this.#watch.close();
  }

  #look(): void {
    const { store, locks } = this.#options;
    const cluster = theCluster(store.current());
    if (cluster === undefined || this.#changing) return;
    const wanted = (cluster.unlockKey?.length ?? 0) > 0 ? formatUnlockKey(cluster.unlockKey) : undefined;
    const announced = this.#announced;
    const fits = wanted === this.#inForce && (this.#keyPem === undefined || opensOnly(this.#keyPem, wanted));
    if (announced === undefined && fits) return;
    // What was announced in between, as when the log of before is applied after a start, has to be taken back.
    if (announced !== undefined && announced.lock === wanted) return;
    this.#announced = { lock: wanted };
    if (locks.announce !== undefined) locks.announce(wanted);
    else if (wanted !== this.#inForce) this.#change(wanted);
  }

  #settle(): void {
    this.#announced = undefined;
    this.#keyPem = undefined;
    this.#options.locks.settled();
  }

  #change(lock: Lock): void {
    const { locks, logger } = this.#options;
    this.#changing = true;
    locks.change(lock, (error) => {
      this.#changing = false;
      if (this.#watch.closed) return;
      if (error === undefined) {
        this.#inForce = lock;
        logger.info("the lock of this manager's log was changed", { locked: lock !== undefined });
      } else logger.error("the lock of this manager's log could not be changed", { error });
      this.#announced = undefined;
      if (error !== undefined) return;
      this.#settle();
      // It may have been changed again meanwhile.
      this.#look();
    });
  }
}

function opens(keyPem: string, lock: Lock): boolean {
  if (lock === undefined) return !isSealed(keyPem);
  if (!isSealed(keyPem)) return false;
  try {
    openPrivateKey(keyPem, lock);
    return true;
  } catch {
    return false;
  }
}

/** With this lock, and no other. */
function opensOnly(keyPem: string, lock: Lock): boolean {
  return opens(keyPem, lock) && keyPem.indexOf("-----BEGIN") === keyPem.lastIndexOf("-----BEGIN");
}
