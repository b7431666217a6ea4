/** Why a task could not be prepared or did not go on. */
import { ClusterError } from "../../lib/pure/errors.ts";
import type { Temporary } from "./contract.ts";

/** A secret, config or network that the task names has not arrived on this node; it may be on its way. */
export class TaskDependencyMissing extends ClusterError implements Temporary {
  readonly code = "TASK_DEPENDENCY_MISSING";
  readonly temporary = true;
  constructor(kind: "secret" | "config" | "network", reference: string) {
    super(`Cannot prepare the task: ${kind} ${reference} is not on this node`, {
      fix: `Check that the ${kind} exists; if it does, it arrives with the next assignments`,
    });
  }
}

export class TaskUnhealthy extends ClusterError {
  readonly code = "TASK_UNHEALTHY";
  constructor(failingStreak: number) {
    super(`task: unhealthy container: its health check failed ${failingStreak} times in a row`, {
      fix: "Look at the check's output with inspect, and at the task's logs",
    });
  }
}

/** It ended before its health check had said that it works. */
export class TaskExitedEarly extends ClusterError {
  readonly code = "TASK_EXITED_EARLY";
  readonly exitCode: number;
  constructor(exitCode: number) {
    super(`task: ${exitCode === 0 ? "it ended" : `non-zero exit (${exitCode})`} before it was healthy`, {
      fix: "Look at the task's logs",
    });
    this.exitCode = exitCode;
  }
}

/** Somebody removed the task's container behind the executor's back. */
export class TaskContainerGone extends ClusterError {
  readonly code = "TASK_CONTAINER_GONE";
  constructor(taskId: string) {
    super(`Cannot go on with task ${taskId}: its container is gone`, {
      fix: "Leave containers of services to the swarm; it replaces this task",
    });
  }
}

/** Secrets must never reach a disk, so without a file system in memory there are none. */
export class SecretsStoreFailed extends ClusterError {
  readonly code = "SECRETS_STORE_FAILED";
  constructor(act: string, found: string, cause?: unknown) {
    super(`Cannot ${act}: ${found}`, {
      fix: "Check that skepd may mount a tmpfs below its run directory",
      ...(cause === undefined ? {} : { cause }),
    });
  }
}
