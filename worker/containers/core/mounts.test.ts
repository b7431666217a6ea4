import assert from "node:assert/strict";
import { test } from "node:test";

import { cleanPath, planMounts } from "./mounts.ts";
import type { HostConfig } from "./types.ts";

function plan(host: HostConfig, volumes: readonly string[] = []): unknown {
  const result = planMounts({}, host, { Volumes: Object.fromEntries(volumes.map((path) => [path, {}])) });
  return result.ok
    ? result.mounts.map(
        (mount) =>
          `${mount.type} ${mount.name ?? mount.source}>${mount.destination} ${mount.readOnly ? "ro" : "rw"} ${mount.propagation}`,
      )
    : result.why;
}

test("binds, volumes, tmpfs and the image's volumes become one list, parents first", () => {
  assert.deepEqual(
    plan({ Binds: ["/a/../b:/x/y:ro,rslave", "data:/x", "/anon"], Tmpfs: { "/t": "size=1m" } }, ["/x/", "/v"]),
    [
      "volume data>/x rw rprivate",
      "volume >/anon rw rprivate",
      "tmpfs >/t rw rprivate",
      "volume >/v rw rprivate",
      "bind /b>/x/y ro rslave",
    ],
  );
});

test("what makes no sense is refused with a reason", () => {
  const wrong: [HostConfig, RegExp][] = [
    [{ Binds: ["/a:/b:rw:x"] }, /invalid volume specification/],
    [{ Binds: ["/a:b"] }, /must be absolute/],
    [{ Binds: ["/a:/"] }, /can't be '\/'/],
    [{ Binds: ["/a:/x/.."] }, /can't be '\/'/],
    [{ Binds: ["/a:/b:fast"] }, /invalid mode: fast/],
    [{ Binds: ["../a:/b"] }, /invalid characters/],
    [{ Binds: ["/a:/b", "/c:/b/"] }, /Duplicate mount point: \/b/],
    [{ Mounts: [{ Type: "bind", Target: "/x", Source: "rel" }] }, /absolute path/],
    [
      { Mounts: [{ Type: "bind", Target: "/x", Source: "/a", BindOptions: { Propagation: "odd" } }] },
      /invalid propagation/,
    ],
  ];
  for (const [host, reason] of wrong) assert.match(String(plan(host)), reason);
  assert.equal(cleanPath("/../a/./b//c/.."), "/a/b");
});
