import assert from "node:assert/strict";
import { test } from "node:test";

import { lookUpUser } from "./users.ts";

const passwd =
  "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1001:Joe:/home/joe:/bin/sh\n42:x:7:8::/seven:\nbroken line\nbad:x:-1:0:::\n";
const group = "root:x:0:\nbees:x:77:joe,root\nhive:x:78:joe\njoe:x:1001:\n";

function found(user: string, groupAdd: readonly string[] = []): unknown {
  const result = lookUpUser(user, groupAdd, passwd, group);
  return result.ok ? [result.user.uid, result.user.gid, [...result.user.additionalGids], result.user.home] : result.why;
}

test("names, numbers and pairs are looked up as the Engine does", () => {
  assert.deepEqual(found(""), [0, 0, [77], "/root"]);
  assert.deepEqual(found("joe"), [1000, 1001, [77, 78], "/home/joe"]);
  assert.deepEqual(found("1000"), [1000, 1001, [77, 78], "/home/joe"]);
  assert.deepEqual(found("joe:bees"), [1000, 77, [], "/home/joe"]);
  assert.deepEqual(found("5000"), [5000, 0, [], "/"]);
  assert.deepEqual(found("5000:6000"), [5000, 6000, [], "/"]);
  assert.deepEqual(found("42"), [7, 8, [], "/seven"]);
  assert.deepEqual(found("joe", ["hive", "90"]), [1000, 1001, [77, 78, 90], "/home/joe"]);
});

test("what is no user or group is refused, never read as another one (CVE-2026-30892)", () => {
  for (const user of ["nobody", "-1", "0x0", " 0", "1e3", "99999999999", "4294967295", "bad"])
    assert.match(String(found(user)), /unable to find user/);
  for (const user of ["joe:nope", "joe:-1", "0:+5"]) assert.match(String(found(user)), /unable to find group/);
  assert.match(String(found("joe", ["nope"])), /unable to find group/);
});
