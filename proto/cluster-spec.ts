/** What a cluster's settings may say: asked when a cluster is made, which no manager does yet, and when they are changed. */
import { isNegative, isSet, nanos } from "./duration.ts";
import type { skep } from "./gen/skep.js";

const certExpiryMinNs = 3600 * 1e9;

/**
 * @param knownUrls  of external authorities that the settings name already, as an earlier release let them
 * @returns          what is wrong, in the reference's words where it has some
 */
export function wrongClusterSpec(
  { caConfig, dispatcher, raft }: skep.objects.ClusterSpec.$Properties,
  knownUrls: readonly string[] = [],
): string | undefined {
  const expiry = caConfig?.nodeCertExpiry;
  if (isSet(expiry) && nanos(expiry) < certExpiryMinNs) return "minimum certificate expiry time must be: 1h0m0s";
  if (isNegative(dispatcher?.heartbeatPeriod)) return "heartbeat time period cannot be a negative duration";
  if (raft?.electionTick != null && raft.electionTick > 0 && raft.electionTick <= (raft.heartbeatTick ?? 0)) {
    return "election tick must be larger than heartbeat tick";
  }
  for (const { url, protocol } of caConfig?.externalCas ?? []) {
    if ((protocol ?? "") !== "" && protocol !== "cfssl") return "invalid CA protocol: only cfssl is known";
    if (!/^https:\/\/\S+$/.test(url ?? "")) return "external CA URL must be an https URL";
    // Its managers would go on signing themselves, and nobody be told.
    if (!knownUrls.includes(url ?? "")) return "external CAs are not supported: managers sign the nodes' certificates";
  }
  if ((caConfig?.signingCaKey ?? "") !== "" && (caConfig?.signingCaCert ?? "") === "") {
    return "if a signing CA key is provided, the signing CA cert must also be provided";
  }
  return undefined;
}
