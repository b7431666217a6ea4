/** The tasks that are in networks, for who has to read them all. */
import type { skep } from "../../proto/index.ts";
import type { View } from "./core/words.ts";
import type { ClusterSchema } from "./schema.ts";

/** One that is in several networks comes as often. */
export function* networkedTasks(view: View<ClusterSchema>): IterableIterator<Readonly<skep.objects.Task>> {
  for (const networkId of view.keys("task", "network")) yield* view.find("task", "network", networkId);
}
