/**
 * Makes the kernel agree with the model. One worker a namespace: each takes what has changed since it last looked and has
 * netplane do it, so a slow namespace delays no other. What failed, and what somebody else changed, is found by comparing
 * the model with the kernel's own lists; so start, repair and retry are one thing.
 */
import { Backoff } from "../../lib/pure/backoff.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { sleep, TaskGroup, type Clock, type Logger, type Timer } from "../../lib/runtime/index.ts";
import type { Model } from "./core/model.ts";
import { vxlanLink } from "./core/overlays.ts";
import type { ForgottenConnections, Namespace, ObjectChange } from "./core/namespace.ts";
import { underlayTable } from "./core/names.ts";
import { objectKey, type NetObject, type NftTableName } from "./core/objects.ts";
import { NetworkNotApplied } from "./errors.ts";
import type { Batch, Dump, Link, NamespaceChanged, Operation, Wireguard } from "./netplane-types.ts";
import { compare, forgetOperations, isNft, planChanges, setsOf, targetChains, type Found } from "./operations.ts";

/** What the engine asks of netplane's client. */
export interface Kernel {
  /** Answers in the order of the operations. @throws an error of the first that failed; those before it are done */
  run(namespace: string, operations: readonly Operation[]): Promise<readonly unknown[]>;
  /**
   * Several at once, one after the other. What is asked later, without waiting for this, is done after it.
   * @returns answers by batch. @throws as `run`; batches after the one that failed are not begun
   */
  runAll(batches: readonly Batch[]): Promise<readonly (readonly unknown[])[]>;
  /** Somebody else changed a watched namespace, or (undefined) netplane began anew and knows nothing. */
  onChange(listener: (change: NamespaceChanged | undefined) => void): void;
}

export interface EngineOptions {
  readonly kernel: Kernel;
  readonly model: Model;
  /** A container's own namespace, not one that routes: its links are made by others. */
  readonly isSandbox: (path: string) => boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Who changes things behind our back changes more than one. */
const calmMs = 100;
const repairMs = 60_000;
const forgetMs = 100;
const forgetMaxMs = 10_000;
const retryMs = { minMs: 200, maxMs: 30_000 };
/** Operations a message, so that other namespaces get their turn between the messages of a large one. */
const operationsMax = 2_000;
/** Namespaces with more objects are compared whole at each tenth repair only; events tell of foreign changes meanwhile. */
const largeObjects = 10_000;

export class Engine implements AsyncDisposable {
  readonly #options: EngineOptions;
  readonly #workers = new Map<string, NamespaceWorker>();
  readonly #tasks: TaskGroup;
  readonly #repair: Timer;
  /** What waits to be forgotten, by namespace. */
  readonly #forgotten = new Map<string, Map<string, ForgottenConnections>>();
  #repairs = 0;
  #confirmed = false;

  constructor(options: EngineOptions) {
    this.#options = options;
    const { kernel, clock, logger } = options;
    this.#tasks = new TaskGroup((name, error) => logger.error("work on a network failed", { work: name, error }));
    kernel.onChange((change) => {
      for (const [path, worker] of this.#workers) {
        if (change !== undefined && change.namespace !== path) continue;
        if (change === undefined) worker.forgetWatch();
        if (change === undefined || change.kinds.includes("nft")) worker.forgetRules();
        this.#repairLater(worker, calmMs);
      }
    });
    this.#repair = clock.every(repairMs, () => {
      this.#repairs += 1;
      for (const worker of this.#workers.values()) {
        if (worker.namespace.size <= largeObjects || this.#repairs % 10 === 0) this.#repairLater(worker, 0);
      }
    });
  }

  /** The model holds all that there is to know: from now on what is ours and not wanted is removed. */
  confirm(): void {
    if (this.#confirmed) return;
    this.#confirmed = true;
    for (const worker of this.#workers.values()) worker.doubt();
  }

  get isConfirmed(): boolean {
    return this.#confirmed;
  }

  /**
   * Resolves when namespaces are as the model wants them, as of now.
   * @param paths  only these; all that have changed unless given
   * @throws NetworkNotApplied for the first that is not; it is tried again without being asked
   */
  async settle(paths?: readonly string[]): Promise<void> {
    const { model, isSandbox } = this.#options;
    const named = paths?.map((path) => model.namespaces.get(path)) ?? [...model.namespaces.values()];
    const due = named.filter(
      (namespace) => namespace !== undefined && (namespace.hasUnsaid || this.#worker(namespace).isDoubtful),
    ) as Namespace[];
    // What is in sandboxes are the far ends of veths: whoever makes them comes first.
    const outside = due.filter(({ path }) => !isSandbox(path));
    const inside = due.filter(({ path }) => isSandbox(path));
    // Nobody waits for an answer before asking for what comes next: the kernel is told in the order of asking. A far end is
    // made straight in its namespace, which has to be there.
    for (const namespace of inside)
      this.#worker(namespace)
        // Who names a sandbox has just thought of it.
        .exist({ isNew: paths !== undefined })
        .catch(() => undefined); // its own pass hears of it
    const passes = [];
    // An encrypted network's frames leave by a link of the host's, which has to be there.
    const isBound = outside.some((namespace) => boundTo(namespace) !== "");
    const isFirst = ({ path }: Namespace): boolean => isBound && path === "";
    for (const group of [outside.filter(isFirst), outside.filter((namespace) => !isFirst(namespace))]) {
      passes.push(...group.map((namespace) => this.#settleOne(namespace)));
      await Promise.all(passes.map(({ asked }) => asked));
    }
    passes.push(...inside.map((namespace) => this.#settleOne(namespace)));
    await Promise.all(passes.map(({ asked }) => asked));
    const opened = this.#settleLinks(
      outside,
      inside.map(({ path }) => path),
    );
    const results = await Promise.allSettled(passes.map(({ done }) => done));
    await opened;
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason as Error;
  }

  /**
   * Links that were made in these namespaces to the sandboxes at those paths, whose ends are open now.
   * @returns when they pass packets, or would not; who made them hears of what failed
   */
  async #settleLinks(outside: readonly Namespace[], inside: readonly string[]): Promise<void> {
    const batches = outside.flatMap((namespace): Batch[] => {
      const names = this.#workers.get(namespace.path)?.takeMade(inside) ?? [];
      const operations = names.map((name) => ({ op: "link-settle", name, ignore: ["ENODEV"] }) as const);
      return operations.length === 0 ? [] : [{ namespace: namespace.path, operations }];
    });
    if (batches.length === 0) return;
    await this.#options.kernel.runAll(batches).catch(() => undefined); // the kernel looks at them in its own time
  }

  /** What the kernel has otherwise than the model wants it now, by namespace, for whoever wants to know; nothing is changed. */
  async differences(): Promise<readonly { readonly path: string; readonly change: ObjectChange }[]> {
    const found: { readonly path: string; readonly change: ObjectChange }[] = [];
    for (const namespace of this.#options.model.namespaces.values()) {
      if (namespace.size === 0) continue;
      const { path } = namespace;
      found.push(...(await this.#worker(namespace).differences()).map((change) => ({ path, change })));
    }
    return found;
  }

  /** Compares everything with the kernel and puts it right. @throws NetworkNotApplied */
  async repair(): Promise<void> {
    for (const worker of this.#workers.values()) worker.doubt();
    await this.settle();
  }

  #settleOne(namespace: Namespace): Pass<void> {
    const worker = this.#worker(namespace);
    const pass = worker.settle();
    const done = this.#finish(namespace, worker, pass.done);
    // Who asks for several looks at this one later, which must not count as a failure that nobody took.
    done.catch(() => undefined);
    return { asked: pass.asked, done };
  }

  async #finish(namespace: Namespace, worker: NamespaceWorker, done: Promise<readonly string[]>): Promise<void> {
    try {
      for (const path of await done) {
        const disturbed = this.#workers.get(path);
        if (disturbed !== undefined) this.#repairLater(disturbed, 0);
      }
    } catch (error) {
      this.#repairLater(worker, worker.retryMs());
      throw new NetworkNotApplied(namespace.path, error);
    }
    // Whoever asked for another pass meanwhile drops it: until then one worker speaks of this path.
    if (namespace.size === 0 && namespace.path !== "" && !namespace.hasUnsaid && worker.isIdle) {
      this.#workers.delete(namespace.path);
      this.#options.model.drop(namespace.path);
    }
  }

  #worker(namespace: Namespace): NamespaceWorker {
    let worker = this.#workers.get(namespace.path);
    if (worker === undefined) {
      const { kernel, isSandbox, random } = this.#options;
      const inside = isSandbox(namespace.path);
      worker = new NamespaceWorker({
        kernel,
        namespace,
        isWatched: !inside,
        // What a container does to its own namespace beyond what is ours is its business.
        prunes: () => this.#confirmed && !inside,
        isGoing: (path) => this.#options.model.namespaces.get(path)?.size === 0,
        forget: (connections) => this.#forgetSoon(namespace.path, connections),
        backoff: new Backoff(random, retryMs),
      });
      this.#workers.set(namespace.path, worker);
    }
    return worker;
  }

  /**
   * Each costs the kernel a walk over all connections of all namespaces (10 ms and more), so those of a while are one
   * request, and nobody waits for it: until then what is under way goes where it went.
   */
  #forgetSoon(path: string, connections: readonly ForgottenConnections[]): void {
    const { kernel, model, clock, logger } = this.#options;
    const waiting = this.#forgotten.get(path) ?? new Map<string, ForgottenConnections>();
    for (const one of connections) {
      const key = `${one.destination} ${one.replySource}`;
      // Who has ended is forgotten whole.
      if (waiting.get(key)?.lost !== false) waiting.set(key, { ...one, lost: one.lost === true });
    }
    if (this.#forgotten.has(path)) return;
    this.#forgotten.set(path, waiting);
    this.#tasks.start(`forgotten connections of ${path}`, async (signal) => {
      await sleep(clock, forgetMs, signal);
      this.#forgotten.delete(path);
      // netplane may just be starting again.
      for (let waitMs = forgetMs; model.namespaces.has(path); waitMs *= 4) {
        try {
          await kernel.run(path, forgetOperations([...waiting.values()]));
          return;
        } catch (error) {
          if (waitMs > forgetMaxMs) {
            logger.warn("connections of tasks that have ended are still tracked", { namespace: path, error });
            return;
          }
        }
        await sleep(clock, waitMs, signal);
      }
    });
  }

  /** Compares a namespace with the kernel after a while; one such wait at a time. */
  #repairLater(worker: NamespaceWorker, ms: number): void {
    if (worker.isAwaited) return;
    worker.isAwaited = true;
    this.#tasks.start(`repair ${worker.namespace.path}`, async (signal) => {
      try {
        if (ms > 0) await sleep(this.#options.clock, ms, signal);
      } finally {
        worker.isAwaited = false;
      }
      if (this.#workers.get(worker.namespace.path) !== worker) return;
      worker.doubt();
      await this.#settleOne(worker.namespace).done.catch((error: unknown) => {
        this.#options.logger.warn("a network namespace is not as wanted", { namespace: worker.namespace.path, error });
      });
    });
  }

  /** The kernel stays as it is: traffic needs no process of ours. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#repair.cancel();
    await this.#tasks[Symbol.asyncDispose]();
    await Promise.all([...this.#workers.values()].map((worker) => worker.idle()));
  }
}

interface WorkerOptions {
  readonly kernel: Kernel;
  readonly namespace: Namespace;
  readonly isWatched: boolean;
  readonly prunes: () => boolean;
  /** Nothing is wanted of that namespace any more: it is about to be deleted. */
  readonly isGoing: (path: string) => boolean;
  readonly forget: (connections: readonly ForgottenConnections[]) => void;
  readonly backoff: Backoff;
}

/** Tables that we may have made in any life. */
const ownTables: readonly NftTableName[] = [
  { family: "ip", table: "skep" },
  { family: "ip6", table: "skep" },
  { family: "ip6", table: "skepvip" },
  { family: "ip6", table: underlayTable },
  { family: "netdev", table: "skep" },
];

/** A pass over a namespace, under way. */
interface Pass<Result> {
  /** Resolves when all of it has been asked of the kernel, or nothing more will be. */
  readonly asked: Promise<void>;
  readonly done: Promise<Result>;
}

class NamespaceWorker {
  readonly namespace: Namespace;
  readonly #options: WorkerOptions;
  /** The kernel's count of rulesets after our last change of them. */
  #generation: number | undefined;
  /** All its rules and elements are ours and known: it was made by us, or was looked at when all was known that is wanted. */
  #isKnown = false;
  #running: Promise<unknown> = Promise.resolve();
  #next: Pass<readonly string[]> | undefined;
  #exists: boolean;
  #making: Promise<void> | undefined;
  #isWatching = false;
  #isDoubtful = true;
  #isTakenForNew = false;
  #recreates = false;
  /** Under way, or waiting for that. */
  #passes = 0;
  /** Names of links that were made to each sandbox, by its path, until it is settled. */
  readonly #made = new Map<string, Set<string>>();
  /** A repair is on its way. */
  isAwaited = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.namespace = options.namespace;
    this.#exists = options.namespace.path === "";
  }

  get isDoubtful(): boolean {
    return this.#isDoubtful;
  }

  /** What the kernel has is not known any more: the next pass compares. */
  doubt(): void {
    this.#isDoubtful = true;
  }

  /** Somebody changed rules or elements, so that the count of rulesets says nothing any more. */
  forgetRules(): void {
    this.#isKnown = false;
  }

  forgetWatch(): void {
    this.#isWatching = false;
  }

  retryMs(): number {
    return this.#options.backoff.next();
  }

  get isIdle(): boolean {
    return this.#passes === 0;
  }

  takeMade(sandboxes: readonly string[]): readonly string[] {
    return sandboxes.flatMap((path) => {
      const names = this.#made.get(path) ?? [];
      this.#made.delete(path);
      return [...names];
    });
  }

  #noteMade(changes: readonly ObjectChange[]): void {
    for (const { before, after } of changes) {
      if (before?.type === "link" && before.how.kind === "veth") this.#made.delete(before.how.peerNamespace);
      if (after?.type !== "link" || after.how.kind !== "veth") continue;
      const { peerNamespace } = after.how;
      const names = this.#made.get(peerNamespace) ?? new Set();
      this.#made.set(peerNamespace, names.add(after.name));
    }
  }

  async idle(): Promise<void> {
    await (this.#next?.done ?? this.#running).catch(() => undefined); // who asked for it has heard
  }

  /** Between two passes. A namespace that is gone lacks all that is wanted in it. */
  async differences(): Promise<readonly ObjectChange[]> {
    await this.idle();
    const { kernel, namespace, prunes } = this.#options;
    const { path } = namespace;
    try {
      const unread = compare(namespace, await this.#look(), prunes());
      const sysctls = unread.flatMap(({ after }) => (after?.type === "sysctl" ? [after] : []));
      const values = await kernel.run(
        path,
        sysctls.map(({ path: name }) => ({ op: "sysctl-read", name, ignore: ["ENOENT"] }) as const),
      );
      const found = new Map(sysctls.map((one, at) => [objectKey(one), values[at]]));
      return unread.flatMap((change): ObjectChange[] => {
        const { key, after } = change;
        if (after?.type !== "sysctl") return [change];
        const value = found.get(key);
        if (typeof value !== "string") return after.optional === true ? [] : [change];
        return value.trim() === after.value ? [] : [{ ...change, before: { ...after, value: value.trim() } }];
      });
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" || path === "") throw error;
      return [...namespace.objects()].map((after) => ({ key: objectKey(after), before: undefined, after }));
    }
  }

  /** One pass after another; who asks while one runs is served by the next. @returns namespaces that a pass disturbed */
  settle(): Pass<readonly string[]> {
    if (this.#next !== undefined) return this.#next;
    const { promise: asked, resolve } = Promise.withResolvers<void>();
    this.#passes += 1;
    const over = (): void => {
      this.#passes -= 1;
      resolve();
    };
    this.#next = { asked, done: this.#enqueue(resolve).finally(over) };
    return this.#next;
  }

  async #enqueue(asked: () => void): Promise<readonly string[]> {
    await this.#running.catch(() => undefined); // who asked for it has heard
    const pass = this.#pass(asked);
    this.#running = pass;
    this.#next = undefined;
    return pass;
  }

  async #pass(asked: () => void): Promise<readonly string[]> {
    const { namespace, kernel, backoff, isWatched } = this.#options;
    const { path } = namespace;
    try {
      if (namespace.size === 0 && path !== "") {
        await this.#remove();
        return [];
      }
      const making = this.exist();
      const disturbed = this.#isTakenForNew
        ? await this.#fill(making, asked)
        : await making.then(() => this.#heed(asked));
      if (isWatched && !this.#isWatching) {
        await kernel.run(path, [{ op: "watch" }]);
        this.#isWatching = true;
      }
      backoff.reset();
      return disturbed;
    } catch (error) {
      this.#isDoubtful = true;
      this.#isKnown = false;
      // A set that is there with other fields, such as one of a daemon of before, cannot be defined again.
      this.#recreates = !this.#recreates && refusesTables(error);
      if (this.#recreates) return this.#pass(asked);
      throw error;
    }
  }

  async #heed(asked: () => void): Promise<readonly string[]> {
    // Whoever raises a doubt while this pass runs is answered by the next.
    const isDoubtful = this.#isDoubtful;
    this.#isDoubtful = false;
    return await this.#agree(isDoubtful, asked);
  }

  /** What shall be in a namespace that is being made is asked for in the same breath. If it was there, it is compared then. */
  async #fill(making: Promise<void>, asked: () => void): Promise<readonly string[]> {
    this.#isTakenForNew = false;
    const [made, filled] = await Promise.allSettled([making, this.#agree(false, asked)]);
    if (made.status === "rejected") throw made.reason;
    if (this.#isDoubtful) return await this.#heed(asked);
    if (filled.status === "rejected") throw filled.reason;
    return filled.value;
  }

  /**
   * A namespace that is new has nothing in it, so nothing has to be compared.
   * @param isNew  it should be, and is filled before that is known
   */
  async exist({ isNew = false } = {}): Promise<void> {
    if (this.#exists || this.namespace.size === 0) return;
    if (isNew && this.#making === undefined) this.#isTakenForNew = true;
    this.#making ??= this.#make().finally(() => (this.#making = undefined));
    await this.#making;
  }

  async #make(): Promise<void> {
    const { kernel, namespace } = this.#options;
    try {
      await kernel.run("", [{ op: "namespace-add", path: namespace.path }]);
      this.#isDoubtful = false;
      this.#isKnown = true;
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
    }
    this.#exists = true;
  }

  async #agree(isDoubtful: boolean, asked: () => void): Promise<readonly string[]> {
    const { namespace, prunes, isGoing, forget } = this.#options;
    const found = isDoubtful ? await this.#look() : undefined;
    const recreates = this.#recreates;
    const { changes: unsaid, forgotten } = namespace.take();
    const changes = found === undefined ? unsaid : [...compare(namespace, found, prunes()), ...unlooked(found, unsaid)];
    this.#noteMade(changes);
    const plan = planChanges(namespace, changes, { recreate: recreates, partial: !prunes(), isGoing });
    try {
      const requests = requestsOf(plan.batches);
      for (const [at, request] of requests.entries()) {
        const done = this.#run(request);
        if (at === requests.length - 1) asked();
        await done;
      }
    } catch (error) {
      for (const connections of forgotten) namespace.forget(connections);
      throw error;
    }
    if (forgotten.length > 0) forget(forgotten);
    this.#recreates = false;
    // Whose far end somebody deleted has lost what was on the near one.
    const renewed = found === undefined ? [] : changes.flatMap(({ before, after }) => peerOf(before, after));
    return [...plan.disturbed, ...renewed];
  }

  /** Does what was planned; the count of rulesets is taken in the same request, so that nobody else's change hides in it. */
  async #run(request: readonly Batch[]): Promise<void> {
    const { kernel, namespace } = this.#options;
    let counted: number | undefined;
    const batches = request.map((batch, at): Batch => {
      const isOfRules = batch.operations.some(({ op }) => ofRules.has(op));
      if (batch.namespace !== namespace.path || !isOfRules) return batch;
      counted = at;
      return { ...batch, operations: [...batch.operations, { op: "generation" }] };
    });
    const answers = await kernel.runAll(batches);
    if (counted !== undefined) this.#generation = Number(answers[counted]?.at(-1));
  }

  async #look(): Promise<Found> {
    const { kernel, namespace, prunes, isWatched } = this.#options;
    const { path } = namespace;
    const known = this.#generation;
    const [links, dump, generation] = (await kernel.run(path, [
      { op: "dump", what: ["links"], all: true },
      // In namespaces of ours all is told: what is on links without a mark, such as lo, is ours as well.
      { op: "dump", what: ["addresses", "routes", "neighbours", "fdb", "rules"], all: path !== "" },
      { op: "generation" },
    ])) as [Dump, Dump, number];
    const found = {
      links: links.links ?? ([] as readonly Link[]),
      dump,
      tunnels: await this.#tunnels(links.links ?? []),
    };
    // Nobody has touched rules or elements since we did; listing them all would cost as much as there are.
    if (this.#isKnown && known === generation && !this.#recreates) return { ...found, rules: undefined };
    const sets = this.#recreates ? [] : setsOf(namespace);
    const answers = await kernel.run(path, [
      ...ownTables.map(({ family, table }) => ({ op: "ruleset-list", family, table, ignore: ["ENOENT"] }) as const),
      ...sets.map((set) => ({ op: "elements-list", set, ignore: ["ENOENT"] }) as const),
    ]);
    const chains = new Set<string>();
    const tables: NftTableName[] = [];
    ownTables.forEach((name, at) => {
      const printed = answers[at];
      if (typeof printed !== "string") return;
      tables.push(name);
      for (const chain of targetChains(name, printed)) chains.add(chain);
    });
    const elements = sets.map((set, at) => {
      const texts = answers[ownTables.length + at];
      return { set, texts: Array.isArray(texts) ? (texts as string[]) : [] };
    });
    this.#generation = generation;
    this.#isKnown = prunes() || !isWatched;
    return { ...found, rules: { tables, elements, chains } };
  }

  /** What WireGuard links that we want are set to; nobody tells when that changes. */
  async #tunnels(links: readonly Link[]): Promise<ReadonlyMap<string, Wireguard>> {
    const { kernel, namespace } = this.#options;
    const found = new Map<string, Wireguard>();
    for (const { name, kind } of links) {
      if (kind !== "wireguard" || namespace.get(objectKeyOfTunnel(name)) === undefined) continue;
      const [tunnel] = await kernel.run(namespace.path, [{ op: "wireguard-list", link: name, ignore: ["ENODEV"] }]);
      if (tunnel != null) found.set(name, tunnel as Wireguard);
    }
    return found;
  }

  /** Its links go first: the number of a VXLAN is free only then, and the kernel takes namespaces down when it likes. */
  async #remove(): Promise<void> {
    const { kernel, namespace } = this.#options;
    const { changes } = namespace.take();
    this.#isDoubtful = false;
    const links = changes.flatMap(({ before }) =>
      before?.type === "link" && before.how.kind !== "existing" ? [before.name] : [],
    );
    if (links.length > 0) {
      await kernel
        .run(
          namespace.path,
          links.map((name) => ({ op: "link-delete", name, ignore: ["ENODEV"] }) as const),
        )
        .catch((error: unknown) => {
          if (errnoOf(error) !== "ENOENT") throw error; // the namespace itself is gone
        });
    }
    await kernel.run("", [{ op: "namespace-delete", path: namespace.path, ignore: ["ENOENT"] }]);
    this.#exists = false;
    this.#isDoubtful = true;
    this.#isWatching = false;
    this.#isKnown = false;
  }
}

/** The host's link that carries what leaves this namespace; empty: the routes decide. */
function boundTo(namespace: Namespace): string {
  const link = namespace.get(`link ${vxlanLink}`);
  return link?.type === "link" && link.how.kind === "vxlan" ? (link.how.lower ?? "") : "";
}

const objectKeyOfTunnel = (link: string): string => `wireguard ${link}`;

/** Changes of rules and elements where those were not looked at. */
const unlooked = ({ rules }: Found, unsaid: readonly ObjectChange[]): readonly ObjectChange[] =>
  rules === undefined
    ? unsaid.filter(({ before, after }) => [before, after].some((one) => one !== undefined && isNft(one)))
    : [];

const ofRules: ReadonlySet<Operation["op"]> = new Set(["ruleset", "balance", "elements", "chain-delete"]);
const ofElements: ReadonlySet<Operation["op"]> = new Set(["balance", "elements", "chain-delete"]);

/** Batches by request, long ones cut. Elements that stand side by side are one transaction and stay together. */
function requestsOf(batches: readonly Batch[]): (readonly Batch[])[] {
  const requests: Batch[][] = [];
  let room = 0;
  for (const { namespace, operations } of batches) {
    for (let from = 0; from < operations.length;) {
      if (room === 0) {
        requests.push([]);
        room = operationsMax;
      }
      let to = Math.min(operations.length, from + room);
      while (to < operations.length && ofElements.has(operations[to]?.op ?? "dump")) to += 1;
      requests.at(-1)?.push({ namespace, operations: operations.slice(from, to) });
      room = Math.max(0, room - (to - from));
      from = to;
    }
  }
  return requests;
}

/** Of netplane's typed errors. */
/** The namespace of the far end of a veth that was not there. */
const peerOf = (before: NetObject | undefined, after: NetObject | undefined): string[] =>
  before === undefined && after?.type === "link" && after.how.kind === "veth" ? [after.how.peerNamespace] : [];

const errnoOf = (error: unknown): string => (error as { errno?: string } | null)?.errno ?? "";

/**
 * EEXIST is the kernel's; nft itself finds that rules do not go with the sets that are there, and has no number for it, and
 * netplane that elements are of other types.
 */
const refusesTables = (error: unknown): boolean => {
  const operation = (error as { operation?: string } | null)?.operation ?? "";
  return ["ruleset", "elements-list"].includes(operation) && ["EEXIST", "EINVAL"].includes(errnoOf(error));
};
