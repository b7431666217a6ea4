import assert from "node:assert/strict";
import { test } from "node:test";

import { hostOf } from "./address.ts";

test("the host of an address is compared without what surrounds it", () => {
  const hosts: Readonly<Record<string, string>> = {
    "10.0.0.1:2377": "10.0.0.1",
    "[fd00::1]:2377": "fd00::1",
    "::1:2377": "::1",
    "[::ffff:10.0.0.1]:2377": "10.0.0.1",
    "::ffff:10.0.0.1:41000": "10.0.0.1",
    "manager.example:1": "manager.example",
    "": "",
    unknown: "",
  };
  for (const [address, host] of Object.entries(hosts)) assert.equal(hostOf(address), host, address);
});
