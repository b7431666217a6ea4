/** Starting anew with one survivor after the quorum is lost for good. */
import { changeConf, emptyConf, isJoint, leaveJoint, members } from "./conf.ts";
import { decodeConfChange, encodeConfChange } from "./conf-codec.ts";
import type { ConfChange, ConfState, Entry, InitialState, MemberId } from "./types.ts";

/**
 * The state of `survivor` as the only voter. Everything committed is kept, the uncommitted end of the log is dropped, and
 * configuration changes that lead to the new group are appended as committed entries, since the log before them would
 * otherwise bring the old members back at the next start. Whether this may be done is the caller's to know: the others
 * may have committed more. The cluster needs a new incarnation, so that they cannot return by accident.
 */
export function forceNewCluster(initial: InitialState, survivor: MemberId): InitialState {
  const { hardState, snapshot } = initial;
  const commit = Math.max(hardState.commit, snapshot.index);
  const term = Math.max(hardState.term, snapshot.term) + 1;
  const entries: Entry[] = initial.entries.filter((entry) => entry.index <= commit);
  let conf: ConfState = snapshot.conf;
  for (const entry of entries) {
    if (entry.kind !== "confChange" || entry.index <= snapshot.index) continue;
    const changed = changeConf(conf, decodeConfChange(entry.data));
    if (changed.valid) conf = changed.conf;
  }
  let index = commit;
  for (const change of changesTo(conf, survivor)) {
    entries.push({ term, index: ++index, kind: "confChange", data: encodeConfChange(change) });
  }
  return { ...initial, hardState: { term, vote: 0, commit: index }, entries };
}

/** At most: leave a joint configuration, change all members through another, leave that. */
function changesTo(conf: ConfState, survivor: MemberId): ConfChange[] {
  const changes: ConfChange[] = [];
  if (isJoint(conf)) changes.push(leaveJoint);
  const target: ConfState = { ...emptyConf, voters: [survivor] };
  if (!isJoint(conf) && members(conf).length === 1 && conf.voters[0] === survivor) return changes;
  const steps = members(conf)
    .filter((id) => id !== survivor)
    .map((member) => ({ act: "remove" as const, member }));
  changes.push({
    transition: "jointExplicit",
    steps: [{ act: "addVoter", member: target.voters[0] ?? survivor }, ...steps],
    context: leaveJoint.context,
  });
  changes.push(leaveJoint);
  return changes;
}
