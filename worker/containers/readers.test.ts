import assert from "node:assert/strict";
import { test } from "node:test";

import { mountsBelow } from "./leftovers.ts";
import { hostsText, resolvText } from "./network-files.ts";
import { runtimeMessage } from "./programs.ts";
import { commonDirectory, parsePrinted } from "./root-access.ts";
import { parseBlkio, parseIoStat, parseKeyed, parseNetDev, parseSystemCpuNs } from "./stats.ts";

test("files of the kernel are read as they are written", () => {
  assert.deepEqual(parseKeyed("cache 10\nrss 20\nbad x\n"), { cache: 10, rss: 20 });
  assert.equal(parseSystemCpuNs("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 ..."), 28 * 10_000_000);
  assert.deepEqual(parseBlkio("8:0 Read 4096\n8:0 Write 1\nTotal 4097\n"), [
    { major: 8, minor: 0, op: "read", value: 4096 },
    { major: 8, minor: 0, op: "write", value: 1 },
  ]);
  assert.deepEqual(
    parseIoStat("8:16 rbytes=5 wbytes=6 rios=1 wios=2\n", ["rbytes", "wbytes"]).map(({ value }) => value),
    [5, 6],
  );
  const net = parseNetDev(
    "h1\nh2\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 0 0 0 0 0 30 4 0 0 0 0 0 0\n",
  );
  assert.deepEqual([Object.keys(net), net["eth0"]?.["rx_bytes"], net["eth0"]?.["tx_bytes"]], [["eth0"], 10, 30]);
});

test("mounts below a directory are found, deepest first, with spaces in their names", () => {
  const info =
    "1 0 8:1 / / rw - ext4 x rw\n2 1 8:1 / /d/a rw - ext4 x rw\n3 1 8:1 / /d/a/b\\040c rw - ext4 x rw\n4 1 8:1 / /dd rw - ext4 x rw\n";
  assert.deepEqual(mountsBelow(info, "/d"), ["/d/a/b c", "/d/a"]);
});

test("hosts and resolv.conf hold what was asked for, and no resolver that cannot be reached", () => {
  assert.match(hostsText(["a:1.2.3.4", "b=::1"], undefined), /1\.2\.3\.4\ta\n::1\tb\n$/);
  const host = "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch home\noptions edns0\n";
  assert.equal(
    resolvText(host, {}, { sharesHost: false, resolver: undefined }),
    "search home\nnameserver 9.9.9.9\noptions edns0\n",
  );
  assert.equal(
    resolvText(host, {}, { sharesHost: true, resolver: undefined }),
    "search home\nnameserver 127.0.0.53\nnameserver 9.9.9.9\noptions edns0\n",
  );
  assert.equal(
    resolvText(host, { Dns: ["1.1.1.1"], DnsSearch: ["x"] }, { sharesHost: false, resolver: undefined }),
    "search x\nnameserver 1.1.1.1\noptions edns0\n",
  );
});

test("printed files, common directories and messages of runtimes are understood", () => {
  assert.deepEqual(parsePrinted(Buffer.from("3\nabc-1\n0\n"), 3), ["abc", undefined, ""]);
  assert.throws(() => parsePrinted(Buffer.from("3\nabc"), 2), RangeError);
  assert.equal(commonDirectory(["/a/b/c", "/a/b/d/e", "/a/b/c"]), "/a/b");
  assert.equal(commonDirectory(["/a", "/b"]), "/");
  assert.equal(runtimeMessage('{"level":"error","msg":"no","time":"x"}'), "no");
  assert.equal(runtimeMessage("plain"), "plain");
});
