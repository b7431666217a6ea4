/**
 * Tasks of one service at most: as many as a cluster was seen to place (docs/benchmarks.md). Without a bound a slip of the
 * finger (`scale web=99999999999`) takes all the memory of each manager that leads, one after the other, for ever.
 */
export const replicasMax = 1_000_000;
