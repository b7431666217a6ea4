/** What has to be done in the end, on a disk that may be full for now. */
import { sleep, type Clock } from "../../lib/runtime/index.ts";

const firstMs = 1000;
const lastMs = 30_000;

/**
 * Does it until it is done; a second after a failure, and up to half a minute later.
 * @param signal     ends the waiting in between; it is tried once whatever the signal says
 * @param onFailure  told of each
 */
export async function retried(
  act: () => Promise<void>,
  { clock, signal, onFailure }: { clock: Clock; signal: AbortSignal; onFailure?: (error: unknown) => void },
): Promise<void> {
  for (let pauseMs = firstMs; ; pauseMs = Math.min(2 * pauseMs, lastMs)) {
    try {
      return await act();
    } catch (error) {
      onFailure?.(error);
    }
    await sleep(clock, pauseMs, signal);
  }
}
