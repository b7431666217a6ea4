/**
 * Clients that count: each has a session and a key of its own, and writes 1, 2, 3 … there, each number only on top of the one
 * before. A request without an answer is repeated under its number until there is one. At the end every number must have
 * been written exactly once: a request that was lost, or done twice, breaks the chain.
 */
import type { ManagerCluster, ManagerProcess } from "./manager-process.ts";

const answerMsMax = 2000;
const pauseMs = 5;

export class Counters {
  readonly #cluster: ManagerCluster;
  /** Written and acknowledged, by client. */
  readonly acknowledged = new Map<string, number>();
  /** Answers that said that the request had been done before: deduplication at work. */
  repeated = 0;
  readonly failures: string[] = [];
  #stopping = false;
  readonly #running: Promise<void>[] = [];
  #watchers: (() => void)[] = [];

  constructor(cluster: ManagerCluster, clients: number) {
    this.#cluster = cluster;
    for (let client = 0; client < clients; client++) this.#running.push(this.#run(`counter-${client}`, client));
  }

  get total(): number {
    let total = 0;
    for (const count of this.acknowledged.values()) total += count;
    return total;
  }

  /** Resolves when so many more writes have been acknowledged. */
  progress(more: number): Promise<void> {
    const wanted = this.total + more;
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.total < wanted) return;
        this.#watchers = this.#watchers.filter((watcher) => watcher !== look);
        resolve();
      };
      this.#watchers.push(look);
      look();
    });
  }

  /** Every client finishes the request that it is at; then what stands in the store is compared. @returns what is wrong */
  async stop(): Promise<string[]> {
    this.#stopping = true;
    await Promise.all(this.#running);
    const leader = await this.#cluster.leader();
    for (const [key, count] of this.acknowledged) {
      const found = await this.#cluster.get(leader, key);
      if (found !== String(count)) this.failures.push(`${key} holds ${found}, and ${count} was acknowledged last`);
    }
    return this.failures;
  }

  async #run(key: string, client: number): Promise<void> {
    let session = "";
    while (session === "" && !this.#stopping && !this.#cluster.isDisposed) {
      const answer = await this.#ask(client, { openSession: { ttlMs: 600_000 } });
      session = answer?.session ?? "";
    }
    let version = 0;
    for (let count = 1; !this.#stopping; count++) {
      for (let attempt = client; ; attempt++) {
        const answer = await this.#ask(attempt, {
          cas: { key, version, value: Buffer.from(String(count)) },
          session: { id: session, seq: count, ackedBelow: count },
        });
        if (answer === undefined && this.#cluster.isDisposed) return;
        if (answer === undefined) continue;
        if (answer.done !== true) {
          this.failures.push(`${key}: writing ${count} on version ${version} found another version`);
          return;
        }
        if (answer.repeated === true) this.repeated++;
        version = answer.index ?? 0;
        this.acknowledged.set(key, count);
        for (const look of this.#watchers) look();
        break;
      }
    }
  }

  /** @returns undefined if it is to be asked again */
  async #ask(
    attempt: number,
    request: Parameters<ReturnType<ManagerCluster["keys"]>["ask"]>[0],
  ): Promise<Awaited<ReturnType<ReturnType<ManagerCluster["keys"]>["ask"]>> | undefined> {
    const running = this.#cluster.running;
    const manager: ManagerProcess | undefined = running[attempt % Math.max(1, running.length)];
    const answer =
      manager === undefined
        ? undefined
        : await Promise.race([this.#cluster.keys(manager).ask(request), pause(answerMsMax).then(() => undefined)]);
    if (answer !== undefined && !answer.failure) return answer;
    await pause(pauseMs);
    return undefined;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
