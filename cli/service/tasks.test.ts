import assert from "node:assert/strict";
import { test } from "node:test";
import type { Task } from "../api/types.ts";
import type { Session } from "../session.ts";
import { printTasks } from "./tasks.ts";

const task = (id: string, createdAt: string): Task =>
  ({
    ID: id,
    ServiceID: "web",
    Slot: 1,
    NodeID: "n1",
    CreatedAt: createdAt,
    DesiredState: "running",
    Status: { State: "running", Timestamp: createdAt },
    Spec: { ContainerSpec: { Image: "bb:1" } },
  }) as unknown as Task;

async function printed(format: string | undefined): Promise<string> {
  let out = "";
  const session = {
    stdout: { write: (text: string) => void (out += text) },
    print: (line: string) => void (out += `${line}\n`),
    api: () => Promise.resolve(undefined),
  } as unknown as Session;
  const tasks = [task("old", "2026-01-01T00:00:00Z"), task("new", "2026-01-02T00:00:00Z")];
  await printTasks(session, tasks, {
    filter: undefined,
    format,
    quiet: false,
    "no-trunc": true,
    "no-resolve": true,
  });
  return out;
}

test("earlier tasks of a slot hang below the newest in a table, and bear their plain name anywhere else", async () => {
  assert.match(await printed(undefined), /\nnew +web\.1 .*\nold +\\_ web\.1 /);
  assert.equal(await printed("table {{.Name}}"), "NAME\nweb.1\n \\_ web.1\n");
  assert.equal(await printed("{{.ID}} {{.Name}}"), "new web.1\nold web.1\n");
  assert.match(await printed("json"), /"ID":"old".*"Name":"web\.1"/);
});
