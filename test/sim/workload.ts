/**
 * Clients of the simulated cluster: registers (put, get, compare-and-set, delete, list), transfers between accounts as
 * transactions over several objects, and objects under unique ids. Every operation is written down with the times of its
 * call and return, and judged at the end: linearizability for each register, one order for all transactions, a constant
 * sum over the accounts in every read, unique ids that are there exactly once, versions that never fall (N13, N14).
 */
import type { Random } from "../../lib/pure/prng.ts";
import { SimFailure } from "./failure.ts";
import { checkLinearizable, defaultLimits, type Operation } from "./linearizability.ts";
import type { Command, Reply, Row } from "./machine.ts";
import type { MarkName } from "./marks.ts";
import {
  forgetUnseen,
  registerModel,
  storeModel,
  type RegisterInput,
  type RegisterOutput,
  type TransactionInput,
  type TransactionOutput,
} from "./models.ts";
import type { WorkloadOptions } from "./options.ts";

/** How an attempt at one member ended. No call back at all: the member died with it. */
export type Attempt =
  | { readonly kind: "done"; readonly reply: Reply }
  /** Certainly without effect. */
  | { readonly kind: "refused"; readonly leader: number | undefined }
  /** A condition does not hold where it was asked: without effect by this attempt, and asking again is of no use. */
  | { readonly kind: "broken"; readonly leader: number | undefined }
  /** The session has expired: this attempt had no effect, an earlier one may have. */
  | { readonly kind: "sessionGone" }
  | { readonly kind: "unknown" };

export interface WorkloadHost {
  readonly nowUs: number;
  schedule(atUs: number, run: () => void): void;
  mark(name: MarkName): void;
  note(what: () => string): void;
  /** Ordinals of the members that a client may know. */
  targets(): readonly number[];
  propose(target: number, command: Command, done: (attempt: Attempt) => void): void;
  /** No call back at all when nobody knows. */
  openSession(target: number, done: (session: string | undefined) => void): void;
  /** `rows` reads the member's state at the very moment of the call back. */
  read(target: number, done: (rows: ((prefix: string) => Row[]) | undefined, leader: number | undefined) => void): void;
}

const openingBalance = 100;

interface Client {
  readonly id: number;
  /** Opened through the log; none yet, or the last one expired. */
  session: string | undefined;
  seq: number;
  ackedBelow: number;
  believed: number;
  /** What this client last read of each object: the base of its conditional writes. */
  readonly seen: Map<string, Row | null>;
}

type Sort = "put" | "get" | "cas" | "delete" | "list" | "transfer" | "unique";

export class Workload {
  readonly #host: WorkloadHost;
  readonly #options: WorkloadOptions;
  readonly #random: Random;
  readonly #mix: readonly (readonly [Sort, number])[];
  readonly #shares: number;
  readonly #clients: Client[] = [];
  readonly #registers = new Map<string, Operation<RegisterInput, RegisterOutput>[]>();
  readonly #transactions: Operation<TransactionInput, TransactionOutput>[] = [];
  readonly #uniqueAcked = new Set<string>();
  /** Highest version of an object that anybody has been told. */
  readonly #versions = new Map<string, number>();
  /** Grows with each call and each return: the order in which they happened. */
  #moment = 0;
  #started = 0;
  #open = 0;
  #stopped = false;
  #tags = 0;

  constructor(host: WorkloadHost, options: WorkloadOptions, random: Random) {
    this.#host = host;
    this.#options = options;
    this.#mix = Object.entries(options.mix) as [Sort, number][];
    this.#shares = this.#mix.reduce((sum, [, share]) => sum + share, 0);
    this.#random = random;
  }

  get operations(): number {
    return this.#started;
  }

  /** Operations whose client still waits. */
  get open(): number {
    return this.#open;
  }

  start(): void {
    for (let id = 0; id < this.#options.clients; id++) {
      const client: Client = { id, session: undefined, seq: 0, ackedBelow: 1, believed: 0, seen: new Map() };
      this.#clients.push(client);
      this.#host.schedule(this.#random.int(0, this.#options.thinkUs + 1_000), () => this.#next(client));
    }
  }

  /** No new operations; those that are under way go on. */
  stop(): void {
    this.#stopped = true;
  }

  #next(client: Client): void {
    if (this.#stopped || this.#started >= this.#options.operationsMax) return;
    if (client.session === undefined) return this.#openSession(client);
    const sort = this.#drawSort();
    const again = (): void => {
      this.#open--;
      const thinkUs = Math.floor(this.#random.exponential(this.#options.thinkUs));
      this.#host.schedule(this.#host.nowUs + thinkUs, () => this.#next(client));
    };
    this.#started++;
    this.#open++;
    switch (sort) {
      case "get":
        return this.#get(client, this.#register(), again);
      case "list":
        return this.#list(client, again);
      case "transfer":
        return this.#transfer(client, again);
      case "unique":
        return this.#unique(client, again);
      case "put":
      case "cas":
      case "delete":
        return this.#write(client, sort, this.#register(), again);
    }
  }

  #openSession(client: Client): void {
    let answered = false;
    const again = (session: string | undefined): void => {
      if (answered) return;
      answered = true;
      client.session = session;
      client.seq = 0;
      client.ackedBelow = 1;
      if (session === undefined) client.believed = this.#anyTarget();
      this.#host.schedule(this.#host.nowUs + this.#random.int(1_000, 40_000), () => this.#next(client));
    };
    this.#host.openSession(this.#target(client), again);
    this.#host.schedule(this.#host.nowUs + Math.ceil(this.#options.patienceUs / 3), () => again(undefined));
  }

  #drawSort(): Sort {
    let left = this.#random.float() * this.#shares;
    for (const [sort, share] of this.#mix) {
      if (sort === "transfer" && this.#options.accounts < 2) continue;
      left -= share;
      if (left < 0) return sort;
    }
    return "get";
  }

  #register(): string {
    return `r${this.#random.int(0, this.#options.registers)}`;
  }

  #write(client: Client, sort: "put" | "cas" | "delete", key: string, done: () => void): void {
    const value = this.#tag(client);
    const seen = client.seen.get(key) ?? null;
    let input: RegisterInput;
    let command: Omit<Command, "session" | "seq" | "ackedBelow">;
    if (sort === "put") {
      input = { act: "put", value };
      command = { guards: [], writes: [{ id: key, value }] };
    } else {
      const written = sort === "delete" ? null : value;
      input = { act: "cas", expected: seen?.value ?? null, value: written };
      // Deleting what is not there would need no condition, and would leave nothing to observe.
      if (seen === null && written === null) return this.#get(client, key, done);
      command = { guards: [{ id: key, version: seen?.version ?? 0 }], writes: [{ id: key, value: written }] };
    }
    const calledAt = this.#moment++;
    this.#submit(client, command, (reply) => {
      const history = this.#history(key);
      if (reply === undefined) {
        history.push({ calledAt, returnedAt: undefined, input, output: undefined });
      } else if (reply !== "refused" && (reply.done || input.act !== "put")) {
        // A put that lost a race had no effect, and says nothing about the register.
        history.push({ calledAt, returnedAt: this.#moment++, input, output: { done: reply.done } });
        if (reply.done) {
          const writtenValue = "value" in input ? input.value : null;
          client.seen.set(key, writtenValue === null ? null : { id: key, value: writtenValue, version: reply.index });
          this.#told(key, reply.index, calledAt);
        } else client.seen.delete(key);
      }
      done();
    });
  }

  #get(client: Client, key: string, done: () => void): void {
    const calledAt = this.#moment++;
    const floor = this.#versions.get(key) ?? 0;
    this.#read(client, (rows) => {
      if (rows !== undefined) {
        const row = rows(key).find((found) => found.id === key) ?? null;
        client.seen.set(key, row);
        this.#history(key).push({
          calledAt,
          returnedAt: this.#moment++,
          input: { act: "get" },
          output: { value: row?.value ?? null },
        });
        if (row !== null) this.#checkVersion(key, row.version, floor);
      }
      done();
    });
  }

  #list(client: Client, done: () => void): void {
    const calledAt = this.#moment++;
    const floors = new Map(this.#versions);
    this.#read(client, (rows) => {
      if (rows !== undefined) {
        const found = new Map(rows("r").map((row) => [row.id, row]));
        const returnedAt = this.#moment++;
        for (let at = 0; at < this.#options.registers; at++) {
          const key = `r${at}`;
          const row = found.get(key) ?? null;
          client.seen.set(key, row);
          this.#history(key).push({
            calledAt,
            returnedAt,
            input: { act: "get" },
            output: { value: row?.value ?? null },
          });
          if (row !== null) this.#checkVersion(key, row.version, floors.get(key) ?? 0);
        }
      }
      done();
    });
  }

  /** Reads all accounts at once, then moves a little from one to another if nobody has touched the two. */
  #transfer(client: Client, done: () => void): void {
    const names = Array.from({ length: this.#options.accounts }, (_, at) => `a${at}`);
    const calledAt = this.#moment++;
    this.#read(client, (rows) => {
      if (rows === undefined) return done();
      const found = new Map(rows("a").map((row) => [row.id, row]));
      const values = Object.fromEntries(names.map((name) => [name, found.get(name)?.value ?? null]));
      this.#transactions.push({
        calledAt,
        returnedAt: this.#moment++,
        input: { expected: {}, writes: {}, reads: names },
        output: { done: true, values },
      });
      this.#checkSum([...found.values()]);
      const writes: Record<string, string> = {};
      const touched = found.size === 0 ? names : this.#random.shuffle(names).slice(0, 2);
      if (found.size === 0) for (const name of names) writes[name] = `${openingBalance}:${this.#tag(client)}`;
      else {
        const amount = this.#random.int(1, 30);
        touched.forEach((name, at) => {
          const balance = balanceOf(found.get(name)?.value ?? "") + (at === 0 ? -amount : amount);
          writes[name] = `${balance}:${this.#tag(client)}`;
        });
      }
      const input: TransactionInput = {
        expected: Object.fromEntries(touched.map((name) => [name, values[name] ?? null])),
        writes,
        reads: [],
      };
      const writeCalledAt = this.#moment++;
      const command = {
        guards: touched.map((id) => ({ id, version: found.get(id)?.version ?? 0 })),
        writes: Object.entries(writes).map(([id, value]) => ({ id, value })),
      };
      this.#submit(client, command, (reply) => {
        if (reply === undefined) {
          this.#transactions.push({ calledAt: writeCalledAt, returnedAt: undefined, input, output: undefined });
        } else if (reply !== "refused") {
          const output = { done: reply.done, values: {} };
          this.#transactions.push({ calledAt: writeCalledAt, returnedAt: this.#moment++, input, output });
          if (reply.done) this.#host.mark("bank transfer");
        }
        done();
      });
    });
  }

  #unique(client: Client, done: () => void): void {
    const id = `u${this.#tag(client)}`;
    this.#submit(client, { guards: [{ id, version: 0 }], writes: [{ id, value: id }] }, (reply) => {
      if (reply !== undefined && reply !== "refused") {
        if (!reply.done)
          throw new SimFailure("L1", "an object under a unique id was there before it was created", { id });
        this.#uniqueAcked.add(id);
      }
      done();
    });
  }

  /** Offers the command under one (session, sequence) until it is answered or patience ends. */
  #submit(
    client: Client,
    command: Omit<Command, "session" | "seq" | "ackedBelow">,
    done: (reply: Reply | "refused" | undefined) => void,
  ): void {
    const seq = ++client.seq;
    const session = client.session ?? "none";
    const full: Command = { ...command, session, seq, ackedBelow: client.ackedBelow };
    const untilUs = this.#host.nowUs + this.#options.patienceUs;
    let settled = false;
    let uncertain = false;
    let attempts = 0;
    const settle = (reply: Reply | "refused" | undefined): void => {
      if (settled) return;
      settled = true;
      if (reply === undefined) this.#host.mark("outcome unknown");
      else client.ackedBelow = seq + 1;
      done(reply);
    };
    // The host may go on without an answer: the operation is then open for ever.
    this.#host.schedule(untilUs, () => settle(uncertain || attempts > 0 ? undefined : "refused"));
    const attempt = (): void => {
      if (settled) return;
      if (this.#host.nowUs >= untilUs) return;
      const target = this.#target(client);
      const number = ++attempts;
      if (number > 1 && uncertain) this.#host.mark("retry on another member");
      this.#host.propose(target, full, (answer) => {
        if (settled) return;
        switch (answer.kind) {
          case "done":
            client.believed = target;
            if (answer.reply.repeated) this.#host.mark("dedup hit");
            return settle(answer.reply);
          case "broken":
            // After an earlier attempt of unknown fate the condition may be broken by that one.
            return settle(uncertain ? undefined : "refused");
          case "sessionGone":
            client.session = undefined;
            return settle(uncertain ? undefined : "refused");
          case "refused":
            if (number === attempts) this.#redirect(client, answer.leader, attempt);
            return;
          case "unknown":
            uncertain = true;
            if (number === attempts) this.#redirect(client, undefined, attempt);
            return;
        }
      });
      // No answer for a while: ask somebody else, under the same sequence number.
      this.#host.schedule(this.#host.nowUs + Math.ceil(this.#options.patienceUs / 3), () => {
        if (settled || number !== attempts) return;
        uncertain = true;
        client.believed = this.#anyTarget();
        attempt();
      });
    };
    attempt();
  }

  #read(client: Client, done: (rows: ((prefix: string) => Row[]) | undefined) => void): void {
    const untilUs = this.#host.nowUs + this.#options.patienceUs;
    let settled = false;
    let attempts = 0;
    const settle = (rows: ((prefix: string) => Row[]) | undefined): void => {
      if (settled) return;
      settled = true;
      done(rows);
    };
    this.#host.schedule(untilUs, () => settle(undefined));
    const attempt = (): void => {
      if (settled || this.#host.nowUs >= untilUs) return;
      const number = ++attempts;
      this.#host.read(this.#target(client), (rows, leader) => {
        if (settled) return;
        if (rows !== undefined) return settle(rows);
        this.#host.mark("read refused");
        if (number === attempts) this.#redirect(client, leader, attempt);
      });
      this.#host.schedule(this.#host.nowUs + Math.ceil(this.#options.patienceUs / 3), () => {
        if (settled || number !== attempts) return;
        client.believed = this.#anyTarget();
        attempt();
      });
    };
    attempt();
  }

  #target(client: Client): number {
    if (this.#random.chance(this.#options.wander)) return this.#anyTarget();
    return this.#host.targets().includes(client.believed) ? client.believed : this.#anyTarget();
  }

  #anyTarget(): number {
    return this.#random.pick(this.#host.targets());
  }

  #redirect(client: Client, leader: number | undefined, again: () => void): void {
    client.believed = leader ?? this.#anyTarget();
    this.#host.schedule(this.#host.nowUs + this.#random.int(1_000, 40_000), again);
  }

  #history(key: string): Operation<RegisterInput, RegisterOutput>[] {
    let history = this.#registers.get(key);
    if (history === undefined) this.#registers.set(key, (history = []));
    return history;
  }

  #tag(client: Client): string {
    return `${client.id}.${++this.#tags}`;
  }

  #told(key: string, version: number, _calledAt: number): void {
    if (version > (this.#versions.get(key) ?? 0)) this.#versions.set(key, version);
  }

  #checkVersion(key: string, version: number, floor: number): void {
    if (version < floor) {
      throw new SimFailure("N14", "a read saw an older version than one acknowledged before it began", {
        key,
        version,
        floor,
      });
    }
    this.#told(key, version, 0);
  }

  #checkSum(rows: readonly Row[]): void {
    if (rows.length === 0) return;
    const sum = rows.reduce((total, row) => total + balanceOf(row.value), 0);
    if (sum !== openingBalance * this.#options.accounts) {
      throw new SimFailure("N14", "the accounts do not add up", { sum, rows });
    }
  }

  /** After everything has come to rest. @param rows  the state of one healthy member */
  checkEnd(rows: (prefix: string) => Row[], clock: () => number): void {
    const unique = rows("u").map((row) => row.id);
    const there = new Set(unique);
    if (there.size !== unique.length) throw new SimFailure("N14", "a unique id is there twice", {});
    for (const id of this.#uniqueAcked) {
      if (!there.has(id)) throw new SimFailure("B10", "an acknowledged object is lost", { id });
    }
    this.#checkSum(rows("a"));
    const found = new Map(rows("r").map((row) => [row.id, row]));
    const limits = { ...defaultLimits, clock };
    for (const [key, history] of this.#registers) {
      const last: Operation<RegisterInput, RegisterOutput> = {
        calledAt: this.#moment++,
        returnedAt: this.#moment++,
        input: { act: "get" },
        output: { value: found.get(key)?.value ?? null },
      };
      const verdict = checkLinearizable(registerModel, forgetUnseen([...history, last]), limits);
      if (verdict.kind !== "linearizable") {
        throw new SimFailure("N13", `the history of a register is ${verdict.kind}`, { key, verdict, history });
      }
    }
    if (this.#transactions.length > 0) {
      const verdict = checkLinearizable(storeModel, this.#transactions, limits);
      if (verdict.kind !== "linearizable") {
        throw new SimFailure("N13", `the history of the accounts is ${verdict.kind}`, {
          verdict,
          history: this.#transactions,
        });
      }
    }
  }
}

/** An account's value: balance, colon, a tag that makes it unique. */
function balanceOf(value: string): number {
  return Number(value.split(":")[0]);
}
