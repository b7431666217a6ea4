/**
 * What the agent asks of an executor: one controller a task, whose acts the agent calls one after the other as the task
 * moves on (features.md §1.3). Whoever implements it passes the conformance suite beside it; the fake serves the simulator.
 */
import type { ClusterError } from "../../lib/pure/errors.ts";
import type { skep } from "../../proto/index.ts";

export interface Executor {
  /** What the node is: host name, platform, resources, engine. Cheap; asked again every few seconds. */
  describe(): Promise<skep.objects.NodeDescription.$Properties>;
  /** Tasks of which something is still here (a container, a directory of secrets), running or not, after a restart. */
  held(): Promise<readonly string[]>;
  /** The controller of this task; what is here of it already is taken over, so it works after a restart as before. */
  controller(task: skep.objects.Task, needs: Needs, facts: NodeFacts): TaskController;
  /** Removes what is here of a task that nobody assigns any more. Again is harmless. */
  forget(taskId: string): Promise<void>;
}

/** Of the cluster, what tasks of this node may use; always as of now. */
export interface Needs {
  secret(id: string): skep.objects.Secret | undefined;
  config(id: string): skep.objects.Config | undefined;
  network(id: string): skep.objects.Network | undefined;
}

/** What templates may name of the node. */
export interface NodeFacts {
  readonly nodeId: string;
  readonly hostname: string;
  readonly platform: { readonly os: string; readonly architecture: string };
}

export interface ExitReport {
  readonly exitCode: number;
  readonly oomKilled: boolean;
  /** Set when skep itself ended it, for example because a health check failed. */
  readonly error?: ClusterError;
  readonly reason?: skep.objects.Reason.$Properties;
}

/**
 * Acts may be called again after a crash at any instant, and then find what they did before. Each takes a signal: aborted,
 * it stops waiting and leaves the task to the next act. An act throws a ClusterError that says why; `isTemporary` tells
 * whether the agent tries again.
 */
export interface TaskController {
  /** The task's desired state or spec of what may change has changed (never its container). */
  update(task: skep.objects.Task): Promise<void>;
  /** Until it could be started: image, volumes, networks, secrets, the container itself. */
  prepare(signal: AbortSignal, report: (reason: skep.objects.Reason.$Properties) => void): Promise<void>;
  /** Resolves when it runs and, if it has a health check, is healthy. */
  start(signal: AbortSignal, report: (reason: skep.objects.Reason.$Properties) => void): Promise<void>;
  /** Resolves when it has ended by itself, at once if it has. */
  wait(signal: AbortSignal): Promise<ExitReport>;
  /** Stop signal, grace period, kill. Resolves when it does not run. */
  shutdown(signal: AbortSignal): Promise<void>;
  /** Kill at once. */
  terminate(signal: AbortSignal): Promise<void>;
  /** Nothing of it is left, secrets first. */
  remove(signal: AbortSignal): Promise<void>;
  /** Of what runs now; undefined before there is a container. */
  containerStatus(): skep.objects.ContainerStatus.$Properties | undefined;
  /** Host ports that are really taken. */
  portStatus(): skep.objects.PortStatus.$Properties | undefined;
  /** What the node chose for it: its gateway address, in the node's own block. Undefined before it has one. */
  networkStatus(): skep.objects.NetworkStatus.$Properties | undefined;
  /** Output of the task for the log broker. */
  logs(options: TaskLogOptions, signal: AbortSignal): AsyncIterable<TaskLogLine>;
}

export interface TaskLogOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Lines from the end; undefined: all. */
  readonly tail?: number;
  /** Nanoseconds since 1970. */
  readonly sinceNs?: bigint;
}

export interface TaskLogLine {
  readonly stream: "stdout" | "stderr";
  readonly timeNs: bigint;
  /** With its newline, as it was written. */
  readonly text: Uint8Array;
}

/** Marks an error after which the same act may well succeed a second later: a registry that is away, a full disk. */
export interface Temporary {
  readonly temporary: true;
}

export function isTemporary(error: unknown): boolean {
  return typeof error === "object" && error !== null && (error as Partial<Temporary>).temporary === true;
}
