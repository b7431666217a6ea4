/** What a client sends of the cluster's settings changes what it names; what it leaves out, or zero, stays. */
import { isSet, type skep } from "../../../proto/index.ts";

type ClusterSpec = skep.objects.ClusterSpec.$Properties;

export function mergeClusterSpec(current: ClusterSpec, wanted: ClusterSpec): ClusterSpec {
  const { orchestration, raft, dispatcher, caConfig, encryptionConfig, taskDefaults } = wanted;
  const ca = current.caConfig ?? {};
  const before = current.raft ?? {};
  return {
    name: wanted.name || (current.name ?? ""),
    labels: Object.keys(wanted.labels ?? {}).length > 0 ? (wanted.labels ?? {}) : (current.labels ?? {}),
    orchestration: {
      taskHistoryRetentionLimit:
        orchestration?.taskHistoryRetentionLimit ?? current.orchestration?.taskHistoryRetentionLimit ?? null,
    },
    raft: {
      ...before,
      snapshotInterval: raft?.snapshotInterval || (before.snapshotInterval ?? null),
      keepOldSnapshots: raft?.keepOldSnapshots ?? before.keepOldSnapshots ?? null,
      logEntriesForSlowFollowers: raft?.logEntriesForSlowFollowers || (before.logEntriesForSlowFollowers ?? null),
      electionTick: raft?.electionTick || (before.electionTick ?? null),
      heartbeatTick: raft?.heartbeatTick || (before.heartbeatTick ?? null),
      tickMs: raft?.tickMs || (before.tickMs ?? null),
    },
    dispatcher: {
      heartbeatPeriod: isSet(dispatcher?.heartbeatPeriod)
        ? (dispatcher?.heartbeatPeriod ?? null)
        : (current.dispatcher?.heartbeatPeriod ?? null),
    },
    caConfig: {
      nodeCertExpiry: isSet(caConfig?.nodeCertExpiry)
        ? (caConfig?.nodeCertExpiry ?? null)
        : (ca.nodeCertExpiry ?? null),
      externalCas: caConfig?.externalCas ?? [],
      ...signingOf(ca, caConfig ?? {}),
      forceRotate: caConfig?.forceRotate || (ca.forceRotate ?? 0),
    },
    encryptionConfig: { autoLockManagers: encryptionConfig?.autoLockManagers ?? false },
    taskDefaults: { logDriver: taskDefaults?.logDriver ?? current.taskDefaults?.logDriver ?? null },
  };
}

/** Whoever asks for a rotation brings the next root with it, or wishes for a fresh one by bringing none. */
function signingOf(
  now: skep.objects.CaConfig.$Properties,
  wanted: skep.objects.CaConfig.$Properties,
): Pick<skep.objects.CaConfig.$Properties, "signingCaCert" | "signingCaKey"> {
  const rotate = (wanted.forceRotate ?? 0) > (now.forceRotate ?? 0);
  if (rotate || wanted.signingCaCert)
    return { signingCaCert: wanted.signingCaCert ?? "", signingCaKey: wanted.signingCaKey ?? "" };
  return { signingCaCert: now.signingCaCert ?? "", signingCaKey: wanted.signingCaKey || (now.signingCaKey ?? "") };
}
