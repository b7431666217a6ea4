/**
 * Why a request is refused. The words are the reference's where it has some: clients and scripts look for them. What they
 * become in HTTP is the API's matter.
 */
import { ClusterError } from "../../../lib/pure/errors.ts";

/** A field that cannot be; the message says which. */
export class SpecInvalid extends ClusterError {
  readonly code = "SPEC_INVALID";
  constructor(found: string, fix?: string) {
    super(found, { fix: fix ?? "Correct the field that the message names and send the request again" });
  }
}

export class ObjectMissing extends ClusterError {
  readonly code = "NO_SUCH_OBJECT";
  constructor(kind: string, reference: string) {
    super(`${kind} ${reference} not found`, { fix: `List the ${kind}s for their ids and names` });
  }
}

export class ReferenceAmbiguous extends ClusterError {
  readonly code = "REFERENCE_AMBIGUOUS";
  constructor(kind: string, reference: string, matches: number, by: "name" | "ID prefix") {
    super(
      by === "name"
        ? `${kind} ${reference} is ambiguous (${matches} matches found based on name)`
        : `${kind} ${reference} is ambiguous (${matches} matches found based on ID prefix)`,
      { fix: "Give the whole id" },
    );
  }
}

export class NameConflict extends ClusterError {
  readonly code = "NAME_CONFLICT";
  constructor(found: string) {
    super(found, { fix: "Choose another name, or update the object that has it" });
  }
}

/** The version that the caller read is not the current one any more. */
export class UpdateOutOfSequence extends ClusterError {
  readonly code = "UPDATE_OUT_OF_SEQUENCE";
  constructor(cause?: unknown) {
    super("update out of sequence", { fix: "Read the object again and repeat the change with its version", cause });
  }
}

/** What is asked is possible for objects, but not for this one as it is now. */
export class ChangeRefused extends ClusterError {
  readonly code = "CHANGE_REFUSED";
  constructor(found: string, fix: string) {
    super(found, { fix });
  }
}

/** The reference does not do it either. */
export class ChangeUnsupported extends ClusterError {
  readonly code = "CHANGE_UNSUPPORTED";
  constructor(found: string, fix: string) {
    super(found, { fix });
  }
}

export class ObjectInUse extends ClusterError {
  readonly code = "OBJECT_IN_USE";
  constructor(found: string) {
    super(found, { fix: "Update or remove what uses it first" });
  }
}

/** Made by the system, or kept by it. */
export class ObjectPredefined extends ClusterError {
  readonly code = "OBJECT_PREDEFINED";
  constructor(found: string) {
    super(found, { fix: "Create a network of your own instead" });
  }
}

/** The words are Swarm's: clients look for "does not have a leader". */
export class NoLeader extends ClusterError {
  readonly code = "NO_LEADER";
  constructor(cause?: unknown) {
    super(
      "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.",
      { fix: "Bring managers back, or try again in a few seconds if one was lost just now", cause },
    );
  }
}
