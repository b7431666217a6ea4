import assert from "node:assert/strict";
import { test } from "node:test";

import { Namespace } from "./core/namespace.ts";
import type { NetObject } from "./core/objects.ts";
import { planChanges } from "./operations.ts";

test("with a link that is made anew the routes are put again that prefer an address of it, on whatever link they are", () => {
  const mesh = (port: number): NetObject => ({
    type: "link",
    name: "skepmesh",
    how: { kind: "vxlan", vni: 4095, local: "10.99.0.1", port },
    owner: "mesh",
    mac: "",
    mtu: 1450,
    master: "",
  });
  const route = (destination: string, source: string): NetObject => ({
    type: "route",
    table: 254,
    destination,
    link: "skepg1",
    via: "",
    onlink: false,
    source,
  });
  const namespace = new Namespace("");
  const address = { type: "address", link: "skepmesh", address: "100.64.4.1/32" } as const;
  const rest = [address, route("100.64.4.2/32", "100.64.4.1"), route("100.64.0.2/32", "100.64.0.1")];
  namespace.set("all", [mesh(4789), ...rest]);
  namespace.take();
  namespace.set("all", [mesh(4793), ...rest]);
  const { batches } = planChanges(namespace, namespace.take().changes, {
    recreate: false,
    partial: false,
    isGoing: () => false,
  });
  const operations = batches.flatMap((batch) => batch.operations);
  assert.deepEqual(
    operations.map((operation) => `${operation.op} ${"destination" in operation ? operation.destination : ""}`.trim()),
    ["link-delete", "link-add", "address-set", "route-replace 100.64.4.2/32"],
  );
});
