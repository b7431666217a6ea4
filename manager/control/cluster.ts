/** Changes the cluster's settings, its join tokens and its unlock key. Rotating the root is the authority's work. */
import { checkRootKey } from "../../lib/pki/index.ts";
import { ClusterError } from "../../lib/pure/errors.ts";
import type { skep } from "../../proto/index.ts";
import type { ClusterSchema, Tx } from "../store/index.ts";
import { SpecInvalid } from "./core/errors.ts";
import { checkClusterSpec } from "./core/other-specs.ts";
import { mergeClusterSpec } from "./core/cluster-spec.ts";
import type { Found } from "./find.ts";

export interface ClusterUpdate {
  readonly spec: skep.objects.ClusterSpec.$Properties;
  readonly rotate: skep.control.IRotateFlags;
}

export interface Chance {
  readonly newId: () => string;
  readonly newKey: () => Uint8Array;
}

/** @throws SpecInvalid */
export function updateCluster(
  tx: Tx<ClusterSchema>,
  cluster: Found<"cluster">,
  update: ClusterUpdate,
  chance: Chance,
): void {
  const { rotate } = update;
  const spec = mergeClusterSpec(cluster.spec ?? {}, update.spec);
  const knownUrls = (cluster.spec?.caConfig?.externalCas ?? []).map(({ url }) => url ?? "");
  checkClusterSpec(spec, knownUrls);
  if ((spec.name ?? "") !== (cluster.spec?.name ?? ""))
    throw new SpecInvalid("modification of cluster name is not allowed");
  checkBroughtRoot(tx, cluster, spec);
  const locked = spec.encryptionConfig?.autoLockManagers === true;
  const hasKey = (cluster.unlockKey?.length ?? 0) > 0;
  const tokens = cluster.joinTokens;
  tx.update("cluster", {
    ...cluster,
    spec,
    joinTokens: {
      worker: rotate.workerToken === true ? freshToken(tokens?.worker ?? "", chance) : (tokens?.worker ?? ""),
      manager: rotate.managerToken === true ? freshToken(tokens?.manager ?? "", chance) : (tokens?.manager ?? ""),
    },
    unlockKey: !locked
      ? new Uint8Array(0)
      : !hasKey || rotate.managerUnlockKey === true
        ? chance.newKey()
        : cluster.unlockKey,
  });
}

/** SWMTKN-1-<digest of the root>-<secret>: the secret is drawn anew. */
function freshToken(token: string, chance: Chance): string {
  return `${token.slice(0, token.lastIndexOf("-"))}-${chance.newId()}`;
}

/** The authority rotates to a root that the settings bring; one that cannot sign is refused here, where somebody reads it. */
function checkBroughtRoot(
  tx: Tx<ClusterSchema>,
  cluster: Found<"cluster">,
  { caConfig }: skep.objects.ClusterSpec.$Properties,
): void {
  const certificatePem = caConfig?.signingCaCert ?? "";
  const known = [cluster.spec?.caConfig?.signingCaCert ?? "", cluster.rootCa?.certificate ?? ""];
  if (certificatePem === "" || known.includes(certificatePem)) return;
  try {
    checkRootKey({ certificatePem, privateKeyPem: caConfig?.signingCaKey ?? "" }, tx.timeUs / 1000);
  } catch (error) {
    if (!(error instanceof ClusterError)) throw error;
    throw new SpecInvalid(`invalid signing CA: ${error.message}`, error.fix);
  }
}
