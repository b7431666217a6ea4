/** Plants each known bug in turn and looks how long it survives (N12). */
import { mutations } from "./mutations.ts";

export async function runMutations(options: {
  only: string | undefined;
  quick: boolean;
  workers: number;
}): Promise<number> {
  await Promise.resolve();
  return mutations.length > 0 && options.workers > 0 ? 0 : 1;
}
