/**
 * A Prometheus histogram for places that are passed tens of thousands of times a second: counting is one loop over a few
 * numbers, and what the format wants (cumulated buckets, labels) is made when somebody looks.
 */
import type { Metric, Registry } from "prom-client";

export class LightHistogram {
  readonly name: string;
  readonly #help: string;
  readonly #bounds: readonly number[];
  /** One more than bounds: the last counts what is above all of them. */
  readonly #counts: number[];
  #sum = 0;

  /** @param bounds  ascending upper bounds of the buckets */
  constructor(options: { name: string; help: string; bounds: readonly number[]; registry: Registry }) {
    this.name = options.name;
    this.#help = options.help;
    this.#bounds = options.bounds;
    this.#counts = Array.from({ length: options.bounds.length + 1 }, () => 0);
    // All that a registry asks of a metric is its name and get().
    options.registry.registerMetric(this as unknown as Metric);
  }

  observe(value: number): void {
    let bucket = 0;
    while (bucket < this.#bounds.length && value > (this.#bounds[bucket] ?? 0)) bucket++;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sum += value;
  }

  get(): Promise<unknown> {
    return Promise.resolve(told(this.name, this.#help, this.#bounds, { counts: this.#counts, sum: this.#sum }));
  }
}

/** What was counted elsewhere, in buckets that are not cumulated, one more of them than bounds. */
export interface Counted {
  readonly counts: readonly number[];
  readonly sum: number;
}

/** Registers one that is counted elsewhere, and asked for when somebody looks. */
export function registerCounted(options: {
  name: string;
  help: string;
  bounds: readonly number[];
  registry: Registry;
  read: () => Counted;
}): void {
  const { name, help, bounds, registry, read } = options;
  registry.registerMetric({ name, get: () => Promise.resolve(told(name, help, bounds, read())) } as unknown as Metric);
}

/** The answer that a registry expects. */
function told(name: string, help: string, bounds: readonly number[], { counts, sum }: Counted): unknown {
  let cumulated = 0;
  const values: { metricName: string; labels: Record<string, string | number>; value: number }[] = [];
  for (const [bucket, count] of counts.entries()) {
    cumulated += count;
    values.push({ metricName: `${name}_bucket`, labels: { le: bounds[bucket] ?? "+Inf" }, value: cumulated });
  }
  values.push({ metricName: `${name}_sum`, labels: {}, value: sum });
  values.push({ metricName: `${name}_count`, labels: {}, value: cumulated });
  return { name, help, type: "histogram", values, aggregator: "sum" };
}
