/** Who is refused at every call: nodes that were removed, by what this manager knows now. */
import type { NodeIdentity } from "../../lib/pki/index.ts";
import {
  follow,
  isRevoked,
  revokedMax,
  theCluster,
  type ClusterSchema,
  type Store,
  type Watch,
} from "../store/index.ts";
import { NodeRevoked } from "./errors.ts";

export class Revocations implements Disposable {
  readonly #store: Store<ClusterSchema>;
  readonly #watch: Watch<ClusterSchema>;
  #revoked = new Set<string>();

  constructor(store: Store<ClusterSchema>) {
    this.#store = store;
    this.#watch = store.watch({ kinds: ["cluster"] });
    const read = (): void => {
      this.#revoked = new Set((theCluster(store.current())?.revokedNodes ?? []).map(({ nodeId }) => nodeId ?? ""));
    };
    follow(this.#watch, undefined, read);
  }

  /** @throws NodeRevoked */
  admit({ nodeId }: NodeIdentity): void {
    const listed = this.#revoked.has(nodeId);
    // A list that is full was cut: then the store is asked, too (`isRevoked`).
    const cut = !listed && this.#revoked.size >= revokedMax;
    if (listed || (cut && isRevoked(this.#store.current(), nodeId))) throw new NodeRevoked(nodeId);
  }

  [Symbol.dispose](): void {
    this.#watch.close();
  }
}
