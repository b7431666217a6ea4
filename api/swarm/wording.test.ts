import assert from "node:assert/strict";
import { test } from "node:test";

import { ClusterError } from "../../lib/pure/errors.ts";
import { RpcUnavailable, type Channel } from "../../lib/rpc/index.ts";
import type { Swarm } from "../ports.ts";
import { ControlClient, ObjectKind } from "./client.ts";

class Closed extends ClusterError {
  readonly code = "STORE_CLOSED";
}

test("a manager that is ending says so, and one that another cannot reach is named", async () => {
  const asked = async (error: Error): Promise<unknown> => {
    const channel = { call: () => Promise.reject(error) } as unknown as Channel;
    const swarm = { ready: () => Promise.resolve(), control: () => channel } as unknown as Swarm;
    return new ControlClient(swarm)
      .list(ObjectKind.NODE, [], new AbortController().signal)
      .catch((why: unknown) => why);
  };
  for (const error of [
    new Closed("Cannot use the store: it is closed"),
    new RpcUnavailable("unix:/run/skep/manager/control.sock", "read ECONNRESET"),
  ]) {
    const why = (await asked(error)) as { readonly message: string; readonly status: number; readonly cause: unknown };
    assert.match(why.message, /^The manager of this node is ending: .* run this command on another manager node/);
    assert.deepEqual([why.status, why.cause], [503, error]);
  }
  const other = new RpcUnavailable("10.0.0.1:2377", "connect ECONNREFUSED");
  assert.equal(await asked(other), other);
});
