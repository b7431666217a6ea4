import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import { test } from "node:test";

import { listening } from "./index.ts";

test("a server that listens goes on after any number of connections that could not be accepted", async () => {
  const server = createServer();
  const failed: Error[] = [];
  await listening(server, { port: 0, host: "127.0.0.1" }, (error) => failed.push(error));
  const { port } = server.address() as AddressInfo;
  const errors = ["ENETDOWN", "ENOBUFS"].map((code) => Object.assign(new Error(code), { code }));
  // As Node does for each.
  for (const error of errors) server.emit("error", error);
  assert.deepEqual(failed, errors);
  assert.equal(server.listening, true);
  const second = createServer();
  const refused = listening(second, { port, host: "127.0.0.1" }, () => assert.fail("it does not listen"));
  await assert.rejects(refused, { code: "EADDRINUSE" });
  server.close();
});
