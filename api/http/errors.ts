/** What the HTTP side itself refuses, and which status an error's code becomes. */
import { ClusterError } from "../../lib/pure/errors.ts";

/** The request is not one: a field, a filter, a body. The words are the reference's where it has some. */
export class BadRequest extends ClusterError {
  readonly code = "BAD_REQUEST";
  constructor(found: string, fix?: string) {
    super(found, { fix: fix ?? "Correct the request; the API is described by the Engine API 1.50" });
  }
}

export class PageNotFound extends ClusterError {
  readonly code = "PAGE_NOT_FOUND";
  constructor() {
    super("page not found", { fix: "Check the path, the method and the API version" });
  }
}

export class ApiVersionUnsupported extends ClusterError {
  readonly code = "API_VERSION_UNSUPPORTED";
  constructor(found: string) {
    super(found, { fix: "Let the client negotiate, or set DOCKER_API_VERSION to a version in between" });
  }
}

export class BodyTooLarge extends ClusterError {
  readonly code = "BODY_TOO_LARGE";
  constructor(limitBytes: number) {
    super(`http: request body too large: more than ${limitBytes} bytes`, { fix: "Send less" });
  }
}

export class BodyTooSlow extends ClusterError {
  readonly code = "BODY_TOO_SLOW";
  constructor(seconds: number) {
    super(`the request body did not arrive within ${seconds} s`, { fix: "Send the whole body without pauses" });
  }
}

/** What the API has and skep leaves out. */
export class NotOffered extends ClusterError {
  readonly code = "NOT_OFFERED";
  constructor(what: string) {
    super(`${what} is not supported`, { fix: "Do without it; README.md lists what is not there" });
  }
}

const statuses: ReadonlyMap<string, number> = new Map([
  ["BAD_REQUEST", 400],
  ["API_VERSION_UNSUPPORTED", 400],
  ["BODY_TOO_LARGE", 413],
  ["BODY_TOO_SLOW", 408],
  ["PAGE_NOT_FOUND", 404],
  ["NOT_OFFERED", 501],
  // control
  ["SPEC_INVALID", 400],
  ["NO_SUCH_OBJECT", 404],
  ["REFERENCE_AMBIGUOUS", 400],
  ["NAME_CONFLICT", 409],
  // As moby has it; its tests and some scripts look for 500 with these words.
  ["UPDATE_OUT_OF_SEQUENCE", 500],
  ["CHANGE_REFUSED", 400],
  ["CHANGE_UNSUPPORTED", 501],
  ["OBJECT_IN_USE", 400],
  ["OBJECT_PREDEFINED", 403],
  ["ENTRY_TOO_LARGE", 400],
  ["NO_LEADER", 503],
  ["NOT_LEADER", 503],
  ["BACKPRESSURE", 503],
  ["OUTCOME_UNKNOWN", 503],
  ["RPC_UNAVAILABLE", 503],
  ["RPC_DEADLINE_EXCEEDED", 503],
  // what runs on this node
  ["CONTAINER_AMBIGUOUS", 400],
  ["CONTAINER_CONFIG_INVALID", 400],
  ["CONTAINER_NOT_FOUND", 404],
  ["CONTAINER_PATH_NOT_FOUND", 404],
  ["CONTAINER_NAME_IN_USE", 409],
  ["CONTAINER_NOT_RUNNING", 409],
  ["CONTAINER_STATE_CONFLICT", 409],
  ["CONTAINER_START_FAILED", 400],
  ["EXEC_NOT_FOUND", 404],
  ["EXEC_FAILED", 400],
  ["IMAGE_REFERENCE_INVALID", 400],
  ["IMAGE_NOT_FOUND", 404],
  ["IMAGE_IN_USE", 409],
  ["IMAGE_CONTENT_INVALID", 400],
  ["IMAGE_TOO_LARGE", 400],
  ["IMAGE_PLATFORM_MISSING", 404],
  ["REGISTRY_DENIED", 401],
  ["VOLUME_NOT_FOUND", 404],
  ["VOLUME_IN_USE", 409],
  ["VOLUME_INVALID", 400],
  ["VOLUME_DRIVER_UNKNOWN", 404],
  ["CONTAINER_NETWORK_NOT_FOUND", 404],
  ["CONTAINER_NETWORK_INVALID", 400],
  ["CONTAINER_NETWORK_CONFLICT", 409],
  ["CONFIG_NETWORK_IN_USE", 403],
  ["LOCAL_NETWORK_NOT_FOUND", 404],
  ["LOCAL_NETWORK_EXISTS", 409],
  ["LOCAL_NETWORK_INVALID", 400],
  ["LOCAL_NETWORK_OVERLAPS", 403],
  ["LOCAL_NETWORK_IN_USE", 403],
  ["LOCAL_NETWORK_PREDEFINED", 403],
  ["LOCAL_NETWORK_DRIVER_UNKNOWN", 404],
  ["LOCAL_ADDRESS_IN_USE", 403],
  ["PLUGIN_NOT_FOUND", 404],
  // this node in a swarm
  ["DATA_PATH_REFUSED", 400],
  ["DATA_PATH_FAMILY", 400],
  ["NOT_IN_SWARM", 503],
  ["NOT_A_SWARM_MANAGER", 503],
  ["SWARM_LOCKED", 503],
  ["ALREADY_IN_SWARM", 503],
  ["LEAVE_NEEDS_FORCE", 503],
  ["NOT_LOCKED", 409],
  ["UNLOCK_KEY_WRONG", 401],
  ["JOIN_TIMED_OUT", 503],
  ["MANAGER_START_TIMED_OUT", 503],
  ["JOIN_UNREACHABLE", 503],
  ["NO_MANAGER_KNOWN", 503],
]);

/** For errors of rooms that the API serves: the beginning of the code says where it comes from. */
const families: readonly (readonly [RegExp, number])[] = [[/^(?:JOIN|CA|ADDRESS|DURATION|BYTE_SIZE|CONSTRAINT)_/, 400]];

/** 500 for what is not listed. */
export function statusOf(error: ClusterError): number {
  return (
    (error as { readonly status?: number }).status ??
    statuses.get(error.code) ??
    families.find(([pattern]) => pattern.test(error.code))?.[1] ??
    500
  );
}
