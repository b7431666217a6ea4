/** Chain ids: a layer on top of all layers below it (OCI image-spec config.md "Layer ChainID"). */
import type { Digest } from "./reference.ts";

/** @param sha256  digest of a text, from the shell, since a core has no crypto of its own */
export function chainIds(diffIds: readonly Digest[], sha256: (text: string) => Digest): readonly Digest[] {
  const chains: Digest[] = [];
  for (const diffId of diffIds) {
    const below = chains.at(-1);
    chains.push(below === undefined ? diffId : sha256(`${below} ${diffId}`));
  }
  return chains;
}
