import assert from "node:assert/strict";
import { test } from "node:test";

import { fstabLine, readVolumeOptions, wrongVolumeName } from "./options.ts";

test("names are two or more of Docker's characters, and never a path", () => {
  for (const name of ["ab", "a.b-c_d", "0".repeat(64)]) assert.equal(wrongVolumeName(name), undefined, name);
  for (const name of ["", "a", "/etc", "..", ".a", "a b", "a/b", "a\0b", "x".repeat(256)]) {
    assert.ok(wrongVolumeName(name) !== undefined, JSON.stringify(name));
  }
});

test("the local driver takes type, o and device, and wants them together", () => {
  assert.deepEqual(readVolumeOptions({}), { ok: true, mount: undefined });
  assert.deepEqual(readVolumeOptions({ type: "none", o: "bind", device: "/srv" }), {
    ok: true,
    mount: { type: "none", device: "/srv", options: "bind" },
  });
  const wrong: Record<string, string>[] = [
    { type: "tmpfs" },
    { device: "/x" },
    { o: "ro" },
    { color: "red" },
    { size: "1g" },
    { type: "a\nb", device: "c" },
  ];
  for (const options of wrong) assert.equal(readVolumeOptions(options).ok, false, JSON.stringify(options));
});

test("a line of fstab survives spaces and backslashes", () => {
  const line = fstabLine({ type: "cifs", device: "//host/my share", options: "password=a\\b c" }, "/v/_data");
  assert.equal(line, "//host/my\\040share /v/_data cifs password=a\\134b\\040c 0 0\n");
});
