/** What can go wrong between the daemon and the native program that programs the kernel's network. */
import { ClusterError } from "../../lib/pure/errors.ts";
import type { ErrnoName, NamespacePath } from "./netplane-types.ts";

export interface NetplaneFailure {
  readonly namespace: NamespacePath;
  /** Name of the operation, or "" when no operation could be read. */
  readonly operation: string;
  /** Place of the batch in the request, and of the operation in its batch. */
  readonly batch: number;
  readonly index: number;
  readonly errno: ErrnoName;
  readonly text: string;
}

/** The kernel, or netplane itself, refused an operation. Later operations of its batch may have been done. */
export class NetplaneRefused extends ClusterError {
  readonly code = "NETPLANE_REFUSED";
  readonly namespace: NamespacePath;
  readonly operation: string;
  readonly batch: number;
  readonly index: number;
  readonly errno: ErrnoName;
  constructor(failure: NetplaneFailure) {
    const where = failure.namespace === "" ? "the host's namespace" : failure.namespace;
    super(`Cannot program the network in ${where}: ${failure.text}`, {
      fix: "The message names what the kernel refused; what is missing is found and tried again by comparing with its state",
    });
    this.namespace = failure.namespace;
    this.operation = failure.operation;
    this.batch = failure.batch;
    this.index = failure.index;
    this.errno = failure.errno;
  }
}

/** It ended while requests were under way, or is being started again: nobody knows what of them was done. */
export class NetplaneGone extends ClusterError {
  readonly code = "NETPLANE_GONE";
  constructor(why: string, cause?: unknown) {
    super(`Cannot program the network: netplane ${why}`, {
      fix: "It is started again by itself; see the log for how it ended",
      cause,
    });
  }
}

export class NetplaneNotStarted extends ClusterError {
  readonly code = "NETPLANE_NOT_STARTED";
  constructor(program: string, cause: unknown) {
    super(`Cannot start ${program}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      fix: "Build the native programs (`make -C native`), or install the package again; netplane needs libnftables1",
      cause,
    });
  }
}
