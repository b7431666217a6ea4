/**
 * Autolock, on every manager: what the cluster object says of the unlock key becomes true of this manager's disk.
 *
 *   1. The key in the cluster object is not the one in force here: the daemon is told, and seals the node's private key
 *      with it, so that either key opens that file; or opens the file, and keeps the unlock key of before beside it.
 *   2. The daemon lets this process read the file again; now the data keys of the log are sealed anew.
 *   3. The daemon is told that it is done: the file opens with the new key only, and the one of before is forgotten.
 * The file comes first, because a log that is locked with a key that does not open the node's own would be lost to it.
 * One change is carried to its end before the next one begins, so that there are never three keys to keep apart.
 *
 * Nothing is done on the word of a log that may be behind: while it is applied after a start, locks of the past pass by,
 * and to obey one that was taken off and put on again would leave this disk open for that moment. So what the cluster
 * object says is asked of the leader (a linearizable read) each time before anything is done about it.
 */
import { formatUnlockKey, isSealed, openPrivateKey } from "../../lib/pki/index.ts";
import { Backoff } from "../../lib/pure/backoff.ts";
import type { Random } from "../../lib/pure/prng.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { follow, theCluster, type ClusterSchema, type Store, type View, type Watch } from "../store/index.ts";

/** The unlock key as people carry it; undefined: not locked. */
export type Lock = string | undefined;

export interface Locks {
  /** Step 1; absent when no daemon keeps the node's key, which then stays as it is. */
  readonly announce: ((lock: Lock) => void) | undefined;
  /** Step 2: seals the log's keys with it, or with the node's own. */
  readonly change: (lock: Lock, done: (error: Error | undefined) => void) => void;
  /** Step 3; also said once after a start that finds everything as it should be, since the last one may be lost. */
  readonly settled: () => void;
}

export interface LockKeeperOptions {
  readonly store: Pick<Store<ClusterSchema>, "current" | "read" | "watch">;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** With which the log was opened. */
  readonly inForce: Lock;
  /** The node's key file as it was read at the start: it may be sealed otherwise than the log. */
  readonly keyPem: string;
}

/** Without a leader there is nobody to ask; it is asked again with growing waits. */
const askAgainMs = { minMs: 100, maxMs: 5000 };

export class LockKeeper implements Disposable {
  readonly #options: LockKeeperOptions;
  readonly #watch: Watch<ClusterSchema>;
  readonly #backoff: Backoff;
  readonly #stop = new AbortController();
  #inForce: Lock;
  #announced: { readonly lock: Lock } | undefined;
  #changing = false;
  #asking = false;
  /** Something changed while the leader was asked. */
  #stale = false;
  #retry: Timer | undefined;
  /** The file as it was read last; undefined once it is known to fit, and the daemon knows that. */
  #keyPem: string | undefined;

  constructor(options: LockKeeperOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.random, askAgainMs);
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
    this.#stop.abort();
    this.#retry?.cancel();
    this.#watch.close();
  }

  /** Whether there is something to do by what is known here; if so, the leader is asked. */
  #look(): void {
    if (this.#watch.closed || this.#announced !== undefined || this.#changing) return;
    const wanted = wantedBy(this.#options.store.current());
    if (wanted === undefined || (wanted.lock === this.#inForce && this.#keyPem === undefined)) return;
    if (this.#asking) {
      this.#stale = true;
      return;
    }
    this.#asking = true;
    this.#stale = false;
    this.#retry?.cancel();
    this.#options.store.read(wantedBy, this.#stop.signal).then(
      (now) => {
        this.#asking = false;
        this.#backoff.reset();
        if (now !== undefined) this.#act(now.lock);
        if (this.#stale) this.#look();
      },
      () => {
        // Nobody leads, or this manager ends.
        this.#asking = false;
        if (!this.#watch.closed) this.#retry = this.#options.clock.after(this.#backoff.next(), () => this.#look());
      },
    );
  }

  /** @param wanted  as of now */
  #act(wanted: Lock): void {
    if (this.#watch.closed || this.#announced !== undefined || this.#changing) return;
    if (wanted === this.#inForce && (this.#keyPem === undefined || opensOnly(this.#keyPem, wanted))) {
      if (this.#keyPem !== undefined) this.#settle();
      return;
    }
    const { locks } = this.#options;
    this.#announced = { lock: wanted };
    if (locks.announce !== undefined) locks.announce(wanted);
    else if (wanted === this.#inForce) this.#settle();
    else this.#change(wanted);
  }

  #settle(): void {
    this.#announced = undefined;
    this.#keyPem = undefined;
    this.#options.locks.settled();
    // It may have been changed again meanwhile.
    this.#look();
  }

  #change(lock: Lock): void {
    const { locks, logger, clock } = this.#options;
    this.#changing = true;
    locks.change(lock, (error) => {
      this.#changing = false;
      if (this.#watch.closed) return;
      if (error === undefined) {
        this.#inForce = lock;
        logger.info("the lock of this manager's log was changed", { locked: lock !== undefined });
        this.#settle();
        return;
      }
      logger.error("the lock of this manager's log could not be changed", { error });
      this.#announced = undefined;
      this.#retry = clock.after(this.#backoff.next(), () => this.#look());
    });
  }
}

/** Undefined while there is no cluster object. */
function wantedBy(view: View<ClusterSchema>): { readonly lock: Lock } | undefined {
  const cluster = theCluster(view);
  if (cluster === undefined) return undefined;
  return { lock: (cluster.unlockKey?.length ?? 0) > 0 ? formatUnlockKey(cluster.unlockKey) : undefined };
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
