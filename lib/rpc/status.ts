/**
 * Errors and gRPC statuses, both ways, in one place. The status is for generic clients; between ourselves the error's
 * own code, message and fix travel in a trailer.
 */
import { Metadata, status, type ServiceError, type StatusObject } from "@grpc/grpc-js";

import { ClusterError, isAbort } from "../pure/errors.ts";
import { RemoteError, RpcDeadlineExceeded, RpcFailed, RpcTooLarge, RpcUnavailable } from "./errors.ts";

/** By code; what is not listed is FAILED_PRECONDITION: expected, and trying again unchanged will not help. */
const statuses: ReadonlyMap<string, status> = new Map([
  ["PEER_NOT_AUTHENTICATED", status.UNAUTHENTICATED],
  ["CERTIFICATE_INVALID", status.UNAUTHENTICATED],
  ["CERTIFICATE_EXPIRED", status.UNAUTHENTICATED],
  ["CERTIFICATE_NOT_YET_VALID", status.UNAUTHENTICATED],
  ["PEER_NOT_TRUSTED", status.PERMISSION_DENIED],
  ["REINSTATEMENT_REFUSED", status.PERMISSION_DENIED],
  ["NODE_REVOKED", status.PERMISSION_DENIED],
  ["JOIN_TOKEN_WRONG", status.PERMISSION_DENIED],
  ["JOIN_TOKEN_OF_ANOTHER_CLUSTER", status.PERMISSION_DENIED],
  ["JOIN_TOKEN_INVALID", status.INVALID_ARGUMENT],
  ["JOIN_TOO_OFTEN", status.RESOURCE_EXHAUSTED],
  ["CA_NOT_READY", status.UNAVAILABLE],
  ["RAFT_PEER_REMOVED", status.PERMISSION_DENIED],
  ["RAFT_PEER_UNKNOWN", status.PERMISSION_DENIED],
  ["RAFT_PEER_REPLACED", status.PERMISSION_DENIED],
  ["MESSAGE_UNREADABLE", status.INVALID_ARGUMENT],
  ["RAFT_MESSAGE_MALFORMED", status.INVALID_ARGUMENT],
  ["CERTIFICATE_REQUEST_INVALID", status.INVALID_ARGUMENT],
  ["RPC_TOO_LARGE", status.RESOURCE_EXHAUSTED],
  ["RPC_INTERNAL", status.INTERNAL],
  ["QUEUE_CLOSED", status.UNAVAILABLE],
  ["RPC_UNAVAILABLE", status.UNAVAILABLE],
  ["RPC_DEADLINE_EXCEEDED", status.DEADLINE_EXCEEDED],
]);

const detailKey = "skep-error-bin";
const detailBytesMax = 4096;
const textMax = 1024;

/** For the end that serves. What is not a ClusterError is our own bug or secret: the caller learns nothing of it. */
export function toStatus(error: unknown): Pick<StatusObject, "code" | "details" | "metadata"> {
  const metadata = new Metadata();
  if (error instanceof ClusterError) {
    const said = { code: error.code, message: error.message.slice(0, textMax), fix: error.fix?.slice(0, textMax) };
    metadata.set(detailKey, Buffer.from(JSON.stringify(said)));
    return { code: statuses.get(error.code) ?? status.FAILED_PRECONDITION, details: said.message, metadata };
  }
  if (isAbort(error)) return { code: status.CANCELLED, details: "cancelled", metadata };
  return { code: status.INTERNAL, details: "internal error", metadata };
}

/**
 * For the end that called.
 * @param where  address and path, for messages
 */
export function fromStatus(
  failed: Pick<ServiceError, "code" | "details" | "metadata">,
  where: { readonly address: string; readonly path: string },
): ClusterError {
  const said = readDetail(failed.metadata);
  if (said !== undefined) return new RemoteError(said.code, said.message, said.fix, undefined);
  const details = failed.details.slice(0, textMax);
  switch (failed.code) {
    case status.UNAVAILABLE:
      return new RpcUnavailable(where.address, details);
    case status.DEADLINE_EXCEEDED:
      return new RpcDeadlineExceeded(where.path);
    case status.RESOURCE_EXHAUSTED:
      return new RpcTooLarge(where.path, details);
    default:
      return new RpcFailed(where.path, `${status[failed.code] ?? failed.code}: ${details}`);
  }
}

/** Only what has the right shape counts: the other end may be anyone. */
function readDetail(
  metadata: Metadata | undefined,
): { code: string; message: string; fix: string | undefined } | undefined {
  const [detail] = metadata?.get(detailKey) ?? [];
  if (!Buffer.isBuffer(detail) || detail.length > detailBytesMax) return undefined;
  let said: { code?: unknown; message?: unknown; fix?: unknown } | null;
  try {
    said = JSON.parse(detail.toString("utf8")) as typeof said;
  } catch {
    return undefined; // what another program puts under our name is as good as nothing
  }
  const { code, message, fix } = said ?? {};
  if (typeof code !== "string" || !/^[A-Z][A-Z0-9_]{0,63}$/.test(code) || typeof message !== "string") return undefined;
  return { code, message: message.slice(0, textMax), fix: typeof fix === "string" ? fix.slice(0, textMax) : undefined };
}
