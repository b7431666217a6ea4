import assert from "node:assert/strict";
import { test } from "node:test";

import { allCapabilities, decideCapabilities, normalizeCapability } from "./capabilities.ts";
import { noHealth } from "./health.ts";
import {
  argumentsOf,
  buildSpec,
  environmentOf,
  execProcess,
  parseDeviceRule,
  resourcesOf,
  type HostFacts,
  type OciProcess,
  type SpecInput,
} from "./oci-spec.ts";
import { defaultSeccomp } from "./seccomp.ts";
import type { ContainerConfig, ContainerId, ContainerRecord, HostConfig, ImageConfig } from "./types.ts";
import { logSize } from "./log-options.ts";
import { signalNumber, wrongConfig, wrongHostConfig, wrongUpdate } from "./validate.ts";

const facts: HostFacts = {
  cgroupVersion: 1,
  machine: "x64",
  cpus: 2,
  capabilities: allCapabilities,
  seccomp: true,
  swapAccounting: true,
  cpusOnline: "0-3",
  memoryNodesOnline: "0",
  thermalThrottlePaths: ["/sys/devices/system/cpu/cpu0/thermal_throttle"],
  devices: new Map([["/dev/fuse", { type: "c", major: 10, minor: 229, mode: 0o20666, uid: 0, gid: 0 }]]),
};

function record(config: ContainerConfig = {}, hostConfig: HostConfig = {}, image: ImageConfig = {}): ContainerRecord {
  return {
    version: 1,
    id: "abcdef0123456789".repeat(4) as ContainerId,
    name: "n",
    createdAtMs: 0,
    imageId: "i",
    config,
    hostConfig,
    image,
    mounts: [],
    anonymousVolumes: [],
    state: {
      status: "created",
      pid: 0,
      startedAtMs: 0,
      exit: undefined,
      error: "",
      restartCount: 0,
      stoppedByUser: false,
      restarting: false,
      health: noHealth,
    },
  };
}

interface Spec {
  process: OciProcess;
  hostname?: string;
  mounts: { destination: string; source: string; options: string[] }[];
  linux: {
    namespaces: { type: string; path?: string }[];
    maskedPaths: string[];
    readonlyPaths: string[];
    sysctl: object;
    seccomp?: { defaultAction: string };
    devices: { path: string }[];
    resources: { devices: { allow: boolean; major?: number; minor?: number }[] };
  };
}

function spec(config: ContainerConfig, hostConfig: HostConfig, more: Partial<SpecInput> = {}): Spec {
  return buildSpec({
    record: record(config, hostConfig),
    facts,
    user: { uid: 0, gid: 0, additionalGids: [], home: "/root" },
    rootfs: "/r",
    cgroupsPath: "/skep/x",
    files: { "/etc/hosts": "/f/hosts" },
    initProgram: "/usr/lib/skep/init",
    namespaces: { network: "private", ipc: "private", pid: "private", uts: "private", cgroup: "private" },
    seccomp: undefined,
    ...more,
  }) as unknown as Spec;
}

test("entry point and command merge as the Engine merges them", () => {
  const image = { Entrypoint: ["/entry"], Cmd: ["a"] };
  const of = (config: ContainerConfig): string[] => argumentsOf(record(config, {}, image));
  assert.deepEqual(of({}), ["/entry", "a"]);
  assert.deepEqual(of({ Cmd: ["b", "c"] }), ["/entry", "b", "c"]);
  assert.deepEqual(of({ Entrypoint: ["/mine"] }), ["/mine"]);
  assert.deepEqual(of({ Entrypoint: [""], Cmd: ["b"] }), ["b"]);
});

test("variables: the image's, then the user's, a bare name removes, the usual ones are filled in", () => {
  const env = environmentOf(
    record({ Env: ["A=2", "GONE", "C=x=y"], Tty: true }, {}, { Env: ["A=1", "GONE=1", "PATH=/p"] }),
    "host",
    "/home/x",
  );
  assert.deepEqual(env.sort(), ["A=2", "C=x=y", "HOME=/home/x", "HOSTNAME=host", "PATH=/p", "TERM=xterm"]);
});

test("a plain container is as closed as the Engine's", () => {
  const made = spec({ Cmd: ["x"] }, {});
  assert.equal(made.process.capabilities.bounding.length, 14);
  assert.deepEqual(Object.keys(made.process.capabilities).sort(), ["bounding", "effective", "permitted"]);
  assert.equal(made.linux.maskedPaths.length, 13);
  assert.ok(made.linux.readonlyPaths.includes("/proc/sys"));
  assert.equal(made.linux.seccomp?.defaultAction, "SCMP_ACT_ERRNO");
  assert.deepEqual(made.linux.resources.devices[0], { allow: false, access: "rwm" });
  assert.deepEqual(made.linux.namespaces.map(({ type }) => type).sort(), [
    "cgroup",
    "ipc",
    "mount",
    "network",
    "pid",
    "uts",
  ]);
  assert.equal(made.hostname, "abcdef012345");
  assert.ok(made.mounts.some(({ destination, source }) => destination === "/etc/hosts" && source === "/f/hosts"));
});

test("privileged opens all of it; host namespaces are left out; paths are joined", () => {
  const open = spec({ Cmd: ["x"] }, { Privileged: true });
  assert.equal(open.process.capabilities.bounding.length, allCapabilities.length);
  assert.deepEqual([open.linux.maskedPaths, open.linux.readonlyPaths, open.linux.seccomp], [[], [], undefined]);
  assert.deepEqual(
    open.linux.devices.map(({ path }) => path),
    ["/dev/fuse"],
  );
  const shared = spec(
    { Cmd: ["x"] },
    { NetworkMode: "container:other" },
    { namespaces: { network: { path: "/run/n" }, ipc: "host", pid: "host", uts: "host", cgroup: "private" } },
  );
  assert.deepEqual(shared.linux.namespaces.map(({ type, path }) => `${type} ${path ?? ""}`).sort(), [
    "cgroup ",
    "mount ",
    "network /run/n",
  ]);
  assert.deepEqual([shared.hostname, shared.linux.sysctl], [undefined, {}]);
  assert.equal(shared.mounts.find(({ destination }) => destination === "/dev/shm")?.source, "/dev/shm");
});

test("init comes in front, devices and their rules come along", () => {
  const made = spec(
    { Cmd: ["x"] },
    { Init: true, Devices: [{ PathOnHost: "/dev/fuse", PathInContainer: "/dev/f", CgroupPermissions: "r" }] },
  );
  assert.deepEqual(made.process.args, ["/sbin/docker-init", "--", "x"]);
  assert.deepEqual(
    made.linux.devices.map(({ path }) => path),
    ["/dev/f"],
  );
  assert.deepEqual(made.linux.resources.devices.at(-1), { allow: true, type: "c", major: 10, minor: 229, access: "r" });
  assert.equal(parseDeviceRule("c 1:3 rwx"), undefined);
  assert.deepEqual(parseDeviceRule("b 8:* r"), { allow: true, type: "b", major: 8, access: "r" });
});

test("limits: only what is set, NanoCpus as quota, swap twice the memory", () => {
  assert.deepEqual(resourcesOf({}, facts), {});
  assert.deepEqual(resourcesOf({ Memory: 100, NanoCpus: 1_500_000_000, PidsLimit: -1 }, facts), {
    memory: { limit: 100, swap: 200 },
    cpu: { period: 100_000, quota: 150_000 },
    pids: { limit: -1 },
  });
  assert.deepEqual(resourcesOf({ Memory: 100, MemorySwap: -1, CpuShares: 5 }, facts), {
    memory: { limit: 100, swap: -1 },
    cpu: { shares: 5 },
  });
});

test("capabilities: ALL first, then names, a dropped one is dropped", () => {
  const wish = { add: [], drop: [], privileged: false, available: allCapabilities };
  assert.equal(normalizeCapability("net_admin"), "CAP_NET_ADMIN");
  assert.equal(normalizeCapability("CAP_NOPE"), undefined);
  assert.deepEqual(decideCapabilities({ ...wish, drop: ["ALL"], add: ["CAP_NET_ADMIN"] }), ["CAP_NET_ADMIN"]);
  assert.equal(decideCapabilities({ ...wish, add: ["ALL"], drop: ["CAP_CHOWN"] }).length, allCapabilities.length - 1);
  assert.ok(!decideCapabilities({ ...wish, drop: ["CAP_KILL"] }).includes("CAP_KILL"));
});

test("the seccomp profile widens with capabilities and never allows a call twice without need", () => {
  const names = (capabilities: readonly string[]): string[] =>
    (defaultSeccomp(capabilities, "x64").syscalls ?? [])
      .filter(({ args }) => args === undefined)
      .flatMap((rule) => (rule.action === "SCMP_ACT_ALLOW" ? rule.names : []));
  const plain = names([]);
  assert.equal(new Set(plain).size, plain.length);
  for (const dangerous of [
    "mount",
    "bpf",
    "setns",
    "unshare",
    "keyctl",
    "add_key",
    "kexec_load",
    "init_module",
    "open_by_handle_at",
    "userfaultfd",
    "io_uring_setup",
    "clone3",
    "clone",
    "socket",
    "perf_event_open",
  ]) {
    assert.ok(!plain.includes(dangerous), dangerous);
  }
  assert.ok(names(["CAP_SYS_ADMIN"]).includes("mount"));
  assert.ok(plain.length > 340, String(plain.length));
});

test("exec takes the container's process and puts its own command on top", () => {
  const base: OciProcess = {
    terminal: false,
    user: { uid: 5, gid: 6 },
    args: ["a"],
    env: ["PATH=/p", "A=1", "HOME=/h"],
    cwd: "/w",
    capabilities: { bounding: ["CAP_KILL"], effective: ["CAP_KILL"], permitted: ["CAP_KILL"] },
    noNewPrivileges: true,
  };
  const plain = execProcess(
    base,
    { args: ["b"], env: ["A=2"], tty: true, user: undefined, cwd: "", privileged: false, rows: 24, columns: 80 },
    allCapabilities,
  );
  assert.deepEqual([plain.args, plain.cwd, plain.user.uid, plain.terminal], [["b"], "/w", 5, true]);
  assert.deepEqual(plain.env, ["PATH=/p", "HOME=/h", "TERM=xterm", "A=2"]);
  const other = execProcess(
    base,
    {
      args: ["b"],
      env: [],
      tty: false,
      user: { uid: 0, gid: 0, additionalGids: [], home: "/root" },
      cwd: "/x/../y",
      privileged: true,
      rows: 0,
      columns: 0,
    },
    allCapabilities,
  );
  assert.deepEqual(
    [other.cwd, other.env.at(-1), other.capabilities.effective.length],
    ["/y", "HOME=/root", allCapabilities.length],
  );
});

test("wishes that would harm the host or make no sense are refused", () => {
  const wrong: HostConfig[] = [
    { Sysctls: { "kernel.core_pattern": "|/x" } },
    { Sysctls: { "net..ipv4.ip_forward": "1" } },
    { Sysctls: { "kernel/shmmax": "1" } },
    { Sysctls: { "net.ipv4.ip_forward": "1" }, NetworkMode: "host" },
    { CgroupParent: "a/../../b" },
    { CapAdd: ["NOPE"] },
    { Memory: 1024 },
    { Memory: 1 << 24, MemorySwap: 1 << 23 },
    { RestartPolicy: { Name: "always", MaximumRetryCount: 3 } },
    { RestartPolicy: { Name: "always" }, AutoRemove: true },
    { Ulimits: [{ Name: "nofile", Soft: 5, Hard: 4 }] },
    { NetworkMode: "some network" },
    { SecurityOpt: ["nonsense"] },
    { SecurityOpt: ["apparmor=my-profile"] },
    { CpusetCpus: "0;1" },
  ];
  for (const host of wrong) assert.ok(wrongHostConfig(host, size) !== undefined, JSON.stringify(host));
  const fine: HostConfig = {
    Sysctls: { "net.ipv4.ip_forward": "1", "kernel.shmmax": "1" },
    NetworkMode: "ns:/run/x",
    SecurityOpt: ["no-new-privileges", "seccomp=unconfined"],
  };
  assert.equal(wrongHostConfig(fine, size), undefined);
  assert.match(wrongConfig({}, {}, {}, size) ?? "", /no command/);
  assert.match(wrongConfig({ Cmd: ["x"], WorkingDir: "rel" }, {}, {}, size) ?? "", /absolute/);
});

const size = { cpus: 4, cpusOnline: "0-3", memoryNodesOnline: "0" };

test("limits out of range are refused in the Engine's words", () => {
  const mb = 1 << 20;
  const wrong: [HostConfig, string][] = [
    [{ NanoCpus: 4.001e9 }, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"],
    [{ NanoCpus: -1 }, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"],
    [{ NanoCpus: 1e9, CpuQuota: 5000 }, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"],
    [{ Memory: 6 * mb - 1 }, "Minimum memory limit allowed is 6MB"],
    [{ MemoryReservation: mb }, "Minimum memory reservation allowed is 6MB"],
    [{ MemorySwappiness: 101 }, "Invalid value: 101, valid memory swappiness range is 0-100"],
    [{ CpusetCpus: "0,4" }, "Requested CPUs are not available - requested 0,4, available: 0-3"],
    [{ CpusetCpus: "3-2" }, "Invalid value 3-2 for cpuset cpus: invalid format: 3-2"],
    [{ CpusetCpus: "1," }, "Invalid value 1, for cpuset cpus: invalid format: 1,"],
    [{ CpusetMems: "1" }, "Requested memory nodes are not available - requested 1, available: 0"],
    [{ ShmSize: -1 }, "SHM size can not be less than 0"],
    [{ LogConfig: { Config: { foo: "1" } } }, "unknown log opt 'foo' for json-file log driver"],
    [{ LogConfig: { Type: "local", Config: { tag: "x" } } }, "unknown log opt 'tag' for local log driver"],
    [{ LogConfig: { Config: { "max-size": "abc" } } }, "invalid size: 'abc'"],
    [{ LogConfig: { Config: { "max-size": "0" } } }, "max-size must be a positive number"],
    [{ LogConfig: { Config: { "max-file": "0" } } }, "max-file cannot be less than 1"],
    [{ LogConfig: { Config: { mode: "fast" } } }, "logger: logging mode not supported: fast"],
    [{ Isolation: "hyperv" }, "invalid isolation 'hyperv' on linux"],
    [{ Annotations: { "": "x" } }, "invalid Annotations: the empty string is not permitted as an annotation key"],
    [{ OomScoreAdj: 1001 }, "Invalid value 1001, range for oom score adj is [-1000, 1000]"],
  ];
  for (const [host, text] of wrong) assert.equal(wrongHostConfig(host, size), text);
  const logged = { Config: { "max-size": "1.5m", "max-file": "3", mode: "non-blocking", "max-buffer-size": "1m" } };
  assert.equal(wrongHostConfig({ LogConfig: logged }, size), undefined);
  assert.deepEqual([logSize("1.5m"), logSize("10 MB"), logSize("7")], [1.5 * mb, 10 * mb, 7]);
  const fine: HostConfig = { NanoCpus: 4e9, Memory: 6 * mb, CpusetCpus: "0,2-3", CpusetMems: "0", PidsLimit: -1 };
  assert.equal(wrongHostConfig(fine, size), undefined);
  assert.equal(wrongHostConfig({ CpusetCpus: "9" }, { ...size, cpusOnline: "" }), undefined, "the kernel decides");
  assert.equal(
    wrongConfig({ Cmd: ["x"], Healthcheck: { Interval: 999_999 } }, {}, {}, size),
    "Interval in Healthcheck cannot be less than 1ms",
  );
  assert.match(wrongUpdate({ CpuQuota: 5000 }, { NanoCpus: 1e9 }) ?? "", /Nano CPUs cannot be updated as CPU Quota/);
  assert.match(wrongUpdate({ Memory: 6 * mb, MemorySwap: 8 * mb }, { Memory: 9 * mb }) ?? "", /update the memoryswap/);
  assert.equal(wrongUpdate({ MemorySwap: 8 * mb }, { Memory: 9 * mb, MemorySwap: 9 * mb }), undefined);
});

test("signals by name, number and real-time offset", () => {
  const cases: [string, number | undefined][] = [
    ["TERM", 15],
    ["sigkill", 9],
    ["9", 9],
    ["RTMIN+3", 37],
    ["SIGRTMAX-1", 63],
    ["0", undefined],
    ["65", undefined],
    ["RTMIN+99", undefined],
    ["", undefined],
    ["NOPE", undefined],
  ];
  for (const [text, number] of cases) assert.equal(signalNumber(text), number, text);
});
