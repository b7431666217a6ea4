/**
 * Which servers outside are asked, in which order, and for how long: one that has lately said nothing comes after those that
 * have, and if there are only such, the client hears soon that there is no answer. Time comes as an argument.
 */

export interface UpstreamLimits {
  /** Attempts at one query, the same server again if there are fewer. */
  readonly attemptsMax: number;
  /** After so long without an answer the next attempt begins; the ones before go on. */
  readonly nextMs: number;
  /** After so long there is no answer, */
  readonly answerMs: number;
  /** and after so long where no server is left that has not been silent. */
  readonly silentAnswerMs: number;
  /** So long a silent one is remembered, unless it says something before. */
  readonly silentForMs: number;
}

export interface Plan {
  /** To be asked one after the other, a silent one after the others; none has a second turn before all had their first. */
  readonly servers: readonly string[];
  readonly answerMs: number;
}

/** Servers that are remembered; who asks chooses them, so that there is a bound. */
const rememberedMax = 256;

interface Remembered {
  spokeAtMs: number;
  silentUntilMs: number;
}

export class Upstreams {
  readonly #limits: UpstreamLimits;
  /** In the order in which they were last told of. */
  readonly #servers = new Map<string, Remembered>();

  constructor(limits: UpstreamLimits) {
    this.#limits = limits;
  }

  /** @param servers  without any there is nothing to wait for */
  plan(servers: readonly string[], nowMs: number): Plan {
    const { attemptsMax, answerMs, silentAnswerMs } = this.#limits;
    const all = [...new Set(servers)];
    const silent = all.filter((server) => (this.#servers.get(server)?.silentUntilMs ?? -Infinity) > nowMs);
    if (silent.length === all.length) return { servers: all.slice(0, attemptsMax), answerMs: silentAnswerMs };
    const order = [...all.filter((server) => !silent.includes(server)), ...silent];
    const turns = Array.from({ length: attemptsMax }, (_, at) => order[at % order.length] ?? "");
    return { servers: turns, answerMs };
  }

  /** Whatever it said. */
  spoke(server: string, nowMs: number): void {
    this.#remember(server, { spokeAtMs: nowMs, silentUntilMs: -Infinity });
  }

  /** It was asked then, and nothing has come. If it told anybody else something since, it is the question that is hard. */
  wasSilent(server: string, askedAtMs: number, nowMs: number): void {
    const spokeAtMs = this.#servers.get(server)?.spokeAtMs ?? -Infinity;
    if (spokeAtMs < askedAtMs) this.#remember(server, { spokeAtMs, silentUntilMs: nowMs + this.#limits.silentForMs });
  }

  #remember(server: string, remembered: Remembered): void {
    this.#servers.delete(server);
    this.#servers.set(server, remembered);
    const [oldest] = this.#servers.keys();
    if (this.#servers.size > rememberedMax && oldest !== undefined) this.#servers.delete(oldest);
  }
}
