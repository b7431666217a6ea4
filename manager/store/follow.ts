/** How loops read a watch: driven by it, never awaited, so that the simulator can run them. */
import type { Watch, WatchEvent } from "./api.ts";
import type { Schema } from "./core/schema.ts";

/**
 * Hands over each event of the watch as it comes, until the watch is closed.
 * @param read     nothing, for who looks at the store itself when it has changed
 * @param settled  runs behind those that came together, when there is nothing more for now
 */
export function follow<S extends Schema>(
  watch: Watch<S>,
  read: (event: WatchEvent<S>) => void = () => {},
  settled: () => void = () => {},
): void {
  watch.whenReady(() => {
    if (watch.closed) return;
    drain(watch, read);
    if (!watch.closed) settled();
    follow(watch, read, settled);
  });
}

/** For a reader that wants to be as new as the store in the middle of something else. */
export function drain<S extends Schema>(watch: Watch<S>, read: (event: WatchEvent<S>) => void): void {
  for (let event = watch.poll(); event !== undefined; event = watch.poll()) read(event);
}
