import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { PassThrough } from "node:stream";
import { mock, test } from "node:test";

import { readText } from "./body.ts";

test("a body that does not arrive in time is given up", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const request = Object.assign(new PassThrough(), { headers: {} }) as unknown as IncomingMessage;
    const reading = readText(request, 1000);
    (request as unknown as PassThrough).write("{");
    mock.timers.tick(60_000);
    await assert.rejects(reading, { code: "BODY_TOO_SLOW" });
  } finally {
    mock.timers.reset();
  }
});
