/** What the agent says of tasks, beside what an executor says. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class TaskLost extends ClusterError {
  readonly code = "TASK_LOST";
  constructor(taskId: string) {
    super(`Cannot go on with task ${taskId}: it had started, and nothing is left of it on this node`, {
      fix: "Nothing: the service gets a new task. If it happens again, see whether the host was restarted or cleaned",
    });
  }
}

/** In Swarm's words, by which scripts know it. */
export class TaskExited extends ClusterError {
  readonly code = "TASK_EXITED";
  constructor(exitCode: number) {
    super(`task: non-zero exit (${exitCode})`, {
      fix: "Look at the task's logs; the exit code is the program's own",
    });
  }
}

export class TaskOutOfMemory extends ClusterError {
  readonly code = "TASK_OOM_KILLED";
  constructor(exitCode: number) {
    super(`task: non-zero exit (${exitCode}): out of memory`, {
      fix: "Raise the service's memory limit, or see why the program needs so much",
    });
  }
}

/** An executor's error that has no code: our bug, shown as far as it may be. */
export class TaskActFailed extends ClusterError {
  readonly code = "TASK_ACT_FAILED";
  constructor(act: string, cause: unknown) {
    super(`Cannot ${act} the task: ${cause instanceof Error ? cause.message : String(cause)}`, {
      fix: "Look into the log of the node",
      cause,
    });
  }
}

/** A manager that answers, and not as one. */
export class SessionBroken extends ClusterError {
  readonly code = "SESSION_BROKEN";
  constructor(address: string, found: string) {
    super(`Cannot keep the session with the manager at ${address}: ${found}`, {
      fix: "Nothing, if another manager can be reached; otherwise see how the managers are",
    });
  }
}

/** The managers' word, and their advice. */
export class AttachmentRefused extends ClusterError {
  readonly code = "ATTACH_REFUSED";
  constructor(message: string, fix: string) {
    super(message, { fix });
  }
}
