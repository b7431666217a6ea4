/**
 * Brings the images of tasks, by Swarm's rules: always ask the registry, and go on with the image that is here when it does
 * not answer. Tasks that want the same image at the same time share one pull.
 */
import { deadline, type Clock, type Logger } from "../../lib/runtime/index.ts";
import { parseReference, parseRegistryAuth, RegistryUnreachable, type Images } from "../images/index.ts";

export interface PullReport {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** With the image at hand, a registry is given this long to say which digest the name has now. */
const askMs = 5_000;
/** A registry that did not answer is left alone that long by tasks whose image is here. */
const silentMs = 30_000;

interface Pull {
  readonly stop: AbortController;
  readonly listeners: Set<(report: PullReport) => void>;
  done: Promise<void>;
  waiting: number;
}

export class ImagePulls {
  readonly #images: Images;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #preferOffline: boolean;
  readonly #running = new Map<string, Pull>();
  /** By registry, until when (monotonic) it is not asked. */
  readonly #silentUntilMs = new Map<string, number>();

  constructor(images: Images, options: { clock: Clock; logger: Logger; preferOffline: boolean }) {
    this.#images = images;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#preferOffline = options.preferOffline;
  }

  /**
   * Resolves when the image is here.
   * @throws the registry's error when it could not be pulled and is not here
   */
  async ensure(
    image: string,
    registryAuth: string,
    report: (report: PullReport) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const here = await this.#isHere(image);
    // An id or a digest says exactly which image is meant: nothing newer can hide behind it.
    if (here && (this.#preferOffline || /^(sha256:)?[0-9a-f]{64}$/.test(image) || image.includes("@"))) return;
    if (here && this.#isSilent(image)) return;
    try {
      await this.#shared(image, registryAuth, here, report, signal);
    } catch (error) {
      if (signal.aborted || !here) throw error;
      if ((error as { code?: unknown }).code === "REGISTRY_UNREACHABLE") {
        this.#silentUntilMs.set(parseReference(image).registry, this.#clock.monotonicMs() + silentMs);
      }
      this.#logger.warn("an image could not be pulled; the one that is here is used", { image, error });
    }
  }

  async #isHere(image: string): Promise<boolean> {
    try {
      await this.#images.inspect(image);
      return true;
    } catch (error) {
      if ((error as { code?: unknown }).code === "IMAGE_NOT_FOUND") return false;
      throw error;
    }
  }

  #isSilent(image: string): boolean {
    const { registry } = parseReference(image);
    const untilMs = this.#silentUntilMs.get(registry) ?? 0;
    if (untilMs > this.#clock.monotonicMs()) return true;
    this.#silentUntilMs.delete(registry);
    return false;
  }

  /** One pull for all who want it; it is stopped when the last of them leaves. */
  async #shared(
    image: string,
    registryAuth: string,
    here: boolean,
    report: (report: PullReport) => void,
    signal: AbortSignal,
  ): Promise<void> {
    signal.throwIfAborted();
    const key = `${image}\n${registryAuth}`;
    const pull = this.#running.get(key) ?? this.#begin(key, image, registryAuth, here);
    pull.listeners.add(report);
    pull.waiting++;
    const left = Promise.withResolvers<never>();
    const leave = (): void => left.reject(signal.reason as Error);
    signal.addEventListener("abort", leave, { once: true });
    try {
      await Promise.race([pull.done, left.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      pull.listeners.delete(report);
      if (--pull.waiting === 0) {
        pull.stop.abort();
        // Whoever comes now begins anew; the one that is being stopped is nobody's.
        if (this.#running.get(key) === pull) this.#running.delete(key);
      }
    }
  }

  #begin(key: string, image: string, registryAuth: string, here: boolean): Pull {
    const pull: Pull = { stop: new AbortController(), listeners: new Set(), done: Promise.resolve(), waiting: 0 };
    pull.done = this.#pull(image, registryAuth, here, pull);
    pull.done.catch(() => undefined); // it is told to those who wait
    this.#running.set(key, pull);
    return pull;
  }

  async #pull(image: string, registryAuth: string, here: boolean, pull: Pull): Promise<void> {
    const credentials = parseRegistryAuth(registryAuth);
    const options = { ...(credentials === undefined ? {} : { credentials }), signal: pull.stop.signal };
    if (here && (await this.#isCurrent(image, options))) return;
    const layers = new Map<string, { done: number; total: number }>();
    await this.#images.pull(image, {
      ...options,
      onProgress: ({ digest, phase, bytesDone, bytesTotal }) => {
        layers.set(digest, { done: phase === "waiting" ? 0 : bytesDone, total: bytesTotal });
        let [done, total] = [0, 0];
        for (const layer of layers.values()) [done, total] = [done + layer.done, total + layer.total];
        for (const listener of pull.listeners) listener({ bytesDone: done, bytesTotal: total });
      },
    });
  }

  /** Whether the name still means the image that is here; asks for a digest only, and not for long. */
  async #isCurrent(image: string, options: { readonly signal: AbortSignal }): Promise<boolean> {
    const limit = deadline(
      this.#clock,
      askMs,
      options.signal,
      () => new RegistryUnreachable(`look up ${image}`, "no answer in time"),
    );
    try {
      const digest = await this.#images.resolve(image, { ...options, signal: limit.signal });
      const { registry, repository } = parseReference(image);
      const [named, pinned] = await Promise.all([
        this.#images.inspect(image),
        this.#images.inspect(`${registry}/${repository}@${digest}`).catch(() => undefined), // not here: not current
      ]);
      return pinned?.image.id === named.image.id;
    } finally {
      limit[Symbol.dispose]();
    }
  }
}
