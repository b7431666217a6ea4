/** The state and its comparison with the other managers' in numbers, beside those of consensus: consensus knows no objects. */
import { Counter, Gauge, type Registry } from "prom-client";

/** @param state  asked at the moment of a scrape; `disputes` only grows */
export function addStateMetrics(
  registry: Registry,
  state: { readonly hashedIndex: () => number; readonly disputes: () => number },
): void {
  const index: Gauge = new Gauge({
    name: "skep_raft_state_hash_index",
    help: "Entry as of which the state was hashed last, to be compared with the other managers'.",
    registers: [registry],
    collect: () => index.set(state.hashedIndex()),
  });
  const mismatches: Counter = new Counter({
    name: "skep_raft_state_hash_mismatches_total",
    help: "Comparisons in which the states of two managers differed.",
    registers: [registry],
    collect: () => {
      mismatches.reset();
      mismatches.inc(state.disputes());
    },
  });
}
