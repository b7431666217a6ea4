/** A wait for many, which ends also when some of them never come. */
import { sleep, type Clock } from "../../lib/runtime/index.ts";

const lookMs = 100;

/**
 * @param found    how many there are by now
 * @throws Error   that tells how many there were, when not all are there in time
 */
export async function untilAll(
  what: string,
  { count, found, limitMs, clock }: { count: number; found: () => number; limitMs: number; clock: Clock },
): Promise<void> {
  const startMs = clock.monotonicMs();
  while (found() < count) {
    if (clock.monotonicMs() - startMs >= limitMs)
      throw new Error(`${found()} of ${count} ${what} after ${Math.round(limitMs / 1000)} s`);
    await sleep(clock, lookMs, undefined);
  }
}
