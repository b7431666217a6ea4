/** What can go wrong with a container. Messages follow the Engine API's where its clients match on them. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class ContainerNotFound extends ClusterError {
  readonly code = "CONTAINER_NOT_FOUND";
  constructor(reference: string) {
    super(`No such container: ${reference}`, { fix: "List all containers with `skep ps --all`" });
  }
}

export class ContainerAmbiguous extends ClusterError {
  readonly code = "CONTAINER_AMBIGUOUS";
  constructor(reference: string, matches: number) {
    super(`Cannot choose container "${reference}": ${matches} ids begin with it`, {
      fix: "Give more of the id, or the name",
    });
  }
}

export class ContainerNameInUse extends ClusterError {
  readonly code = "CONTAINER_NAME_IN_USE";
  constructor(name: string, id: string) {
    super(
      `Conflict. The container name "/${name}" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`,
      { fix: "Choose another name, or remove that container" },
    );
  }
}

export class ContainerConfigInvalid extends ClusterError {
  readonly code = "CONTAINER_CONFIG_INVALID";
  constructor(why: string) {
    super(why, { fix: "Correct the option that the message names" });
  }
}

export class ContainerNotRunning extends ClusterError {
  readonly code = "CONTAINER_NOT_RUNNING";
  constructor(id: string, act: string, found: string) {
    super(`Cannot ${act} container: ${id}: Container ${id} is not running (${found})`, {
      fix: "Start the container first",
    });
  }
}

export class ContainerStateConflict extends ClusterError {
  readonly code = "CONTAINER_STATE_CONFLICT";
  constructor(id: string, act: string, found: string) {
    super(`Cannot ${act} container ${id}: it is ${found}`, {
      fix: "Bring the container into another state first, or use force",
    });
  }
}

export class ContainerStartFailed extends ClusterError {
  readonly code = "CONTAINER_START_FAILED";
  /** What a shell would return: 127 not found, 126 not executable, 128 anything else. */
  readonly exitCode: number;
  constructor(why: string, cause?: unknown) {
    // The reference's words first: tables of tasks show no more than thirty characters, and their row says which one it is.
    const found = why.replace(/^(?:create|start|run) container "[^"]*": /, "");
    super(`starting container failed: ${found}`, { fix: "Check command, mounts and limits of the container", cause });
    this.exitCode = exitCodeOfFailure(why);
  }
}

/** The exit code that clients expect for a program that could not be run. */
export function exitCodeOfFailure(why: string): number {
  if (/executable file not found|no such file or directory|ENOENT/i.test(why)) return 127;
  if (/permission denied|is a directory|exec format error/i.test(why)) return 126;
  return 128;
}

export class ExecNotFound extends ClusterError {
  readonly code = "EXEC_NOT_FOUND";
  constructor(id: string) {
    super(`No such exec instance: ${id}`, { fix: "Create the exec session anew; they do not outlive their container" });
  }
}

export class ExecFailed extends ClusterError {
  readonly code = "EXEC_FAILED";
  readonly exitCode: number;
  constructor(id: string, why: string) {
    super(`Cannot exec in container ${id}: ${why}`, { fix: "Check the command, the user and the working directory" });
    this.exitCode = exitCodeOfFailure(why);
  }
}

export class RuntimeFailed extends ClusterError {
  readonly code = "CONTAINER_RUNTIME_FAILED";
  constructor(act: string, id: string, why: string) {
    super(`Cannot ${act} container ${id}: ${why}`, { fix: "See the runtime's message" });
  }
}

export class MonitorFailed extends ClusterError {
  readonly code = "CONTAINER_MONITOR_FAILED";
  constructor(act: string, why: string, cause?: unknown) {
    super(`Cannot ${act}: the container's monitor says: ${why}`, {
      fix: "See the container's state with inspect",
      cause,
    });
  }
}

export class PathInContainerNotFound extends ClusterError {
  readonly code = "CONTAINER_PATH_NOT_FOUND";
  constructor(id: string, path: string) {
    super(`Could not find the file ${path} in container ${id}`, {
      fix: "Check the path; it is resolved inside the container",
    });
  }
}

export class ArchiveFailed extends ClusterError {
  readonly code = "CONTAINER_ARCHIVE_FAILED";
  constructor(act: string, id: string, why: string) {
    super(`Cannot ${act} container ${id}: ${why}`, { fix: "Check the archive and the path" });
  }
}
