/** config-linux.md: namespaces, ids, devices, cgroups, sysctl, seccomp, propagation, masks. */
import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { type Case, type Container, execute, groupDirectories, groupParent, type Json, type Lab } from "./harness.ts";

async function output(lab: Lab, script: string, change: (config: Json) => void = () => {}): Promise<string> {
  const done = await lab.script(script, change);
  assert.equal(done.code, 0, `${done.stderr}${done.stdout}`);
  return done.stdout.trim();
}

async function refused(lab: Lab, change: (config: Json) => void): Promise<void> {
  const done = await lab.container(change).run();
  assert.notEqual(done.code, 0, "must be an error");
}

const kinds: readonly (readonly [type: string, file: string])[] = [
  ["pid", "pid"],
  ["network", "net"],
  ["mount", "mnt"],
  ["ipc", "ipc"],
  ["uts", "uts"],
  ["cgroup", "cgroup"],
  ["time", "time"],
];

function without(config: Json, type: string): void {
  config.linux.namespaces = config.linux.namespaces.filter((entry: Json) => entry.type !== type);
}

function sleeping(lab: Lab, change: (config: Json) => void): Container {
  return lab.container((config) => {
    config.process.args = ["/bin/sleep", "100"];
    change(config);
  });
}

const newNamespaces = kinds.map(([type, file]): Case => ({
  clause: "config-linux.md Namespaces",
  name: `a ${type} namespace without path is a new one`,
  run: async (lab) => {
    const container = await sleeping(lab, (config) => {
      without(config, type);
      config.linux.namespaces.push({ type });
    }).started();
    const { pid } = await container.state();
    assert.notEqual(readlinkSync(`/proc/${pid}/ns/${file}`), readlinkSync(`/proc/self/ns/${file}`));
  },
}));

const inherited = kinds.map(([type, file]): Case => ({
  clause: "config-linux.md Namespaces",
  name: `without a ${type} entry the runtime's namespace is inherited`,
  run: async (lab) => {
    const container = await sleeping(lab, (config) => {
      without(config, type);
      if (type === "uts") delete config.hostname;
      if (type === "network" || type === "mount")
        config.mounts = config.mounts.filter((mount: Json) => mount.type !== "sysfs");
      if (type === "mount") config.mounts = [];
    }).started();
    const { pid } = await container.state();
    assert.equal(readlinkSync(`/proc/${pid}/ns/${file}`), readlinkSync(`/proc/self/ns/${file}`));
  },
}));

const joined = (["network", "ipc", "uts", "pid"] as const).map((type): Case => ({
  clause: "config-linux.md Namespaces",
  name: `a ${type} namespace with path is joined`,
  run: async (lab) => {
    const file = type === "network" ? "net" : type;
    const first = await sleeping(lab, () => {}).started();
    const path = `/proc/${(await first.state()).pid}/ns/${file}`;
    const second = await sleeping(lab, (config) => {
      without(config, type);
      config.linux.namespaces.push({ type, path });
    }).started();
    const { pid } = await second.state();
    assert.equal(readlinkSync(`/proc/${pid}/ns/${file}`), readlinkSync(path));
  },
}));

const userNamespace = (config: Json): void => {
  config.linux.namespaces.push({ type: "user" });
  config.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 5000 }];
  config.linux.gidMappings = [{ containerID: 0, hostID: 200000, size: 5000 }];
};

/** The root of a container of another user must be reachable and his. */
async function givenAway(lab: Lab, script: string, change: (config: Json) => void = () => {}): Promise<string> {
  const container = lab.container((config) => {
    config.process.args = ["/bin/sh", "-c", script];
    userNamespace(config);
    change(config);
  });
  for (const path of [lab.folder, container.bundle]) chmodSync(path, 0o755);
  const chowned = await execute("/bin/chown", ["100000:200000", container.rootfs, container.path("dev")]);
  assert.equal(chowned.code, 0, chowned.stderr);
  const done = await container.run();
  assert.equal(done.code, 0, `${done.stderr}${done.stdout}`);
  return done.stdout.trim();
}

/** v1: one file of one controller of the container's group; undefined on hosts where it is not. */
function v1(container: Container, controller: string, file: string): string {
  return readFileSync(join("/sys/fs/cgroup", controller, groupParent, container.id, file), "utf8").trim();
}
const isV1 = existsSync("/sys/fs/cgroup/memory/cgroup.procs");
const needsV1 = (): string | undefined => (isV1 ? undefined : "needs cgroup v1 controllers");
const needsV2 = (): string | undefined =>
  existsSync("/sys/fs/cgroup/cgroup.controllers") ? undefined : "needs cgroup v2 with controllers";

function limit(name: string, resources: Json, controller: string, file: string, expected: string | RegExp): Case {
  return {
    clause: "config-linux.md Control groups",
    name,
    skip: () =>
      needsV1() ??
      (existsSync(join("/sys/fs/cgroup", controller, "tasks")) &&
      (existsSync(join("/sys/fs/cgroup", controller, file)) || !file.includes("memsw"))
        ? undefined
        : `this kernel has no ${file}`),
    run: async (lab) => {
      const container = await sleeping(lab, (config) => Object.assign(config.linux.resources, resources)).made();
      const value = v1(container, controller, file);
      if (typeof expected === "string") assert.equal(value, expected);
      else assert.match(value, expected);
    },
  };
}

function limitV2(name: string, resources: Json, file: string, expected: string): Case {
  return {
    clause: "config-linux.md Control groups",
    name: `v2: ${name}`,
    skip: needsV2,
    run: async (lab) => {
      const container = await sleeping(lab, (config) => Object.assign(config.linux.resources, resources)).made();
      const path = join("/sys/fs/cgroup", groupParent, container.id, file);
      assert.equal(readFileSync(path, "utf8").trim(), expected);
    },
  };
}

/** Seccomp that allows all but what `syscalls` says. */
const seccomp = (...syscalls: Json[]): Json => ({
  defaultAction: "SCMP_ACT_ALLOW",
  architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"].slice(
    process.arch === "x64" ? 0 : 1,
    process.arch === "x64" ? 1 : 2,
  ),
  syscalls,
});

const makeDirectory = ["mkdir", "mkdirat"];

function seccompCase(name: string, profile: Json, script: string, expected: RegExp): Case {
  return {
    clause: "config-linux.md Seccomp",
    name,
    run: async (lab) => {
      for (const noNewPrivileges of [true, false])
        assert.match(
          await output(lab, script, (config) => {
            config.linux.seccomp = profile;
            config.process.noNewPrivileges = noNewPrivileges;
          }),
          expected,
        );
    },
  };
}

const device = { type: "c", path: "/dev/skep", major: 1, minor: 3, fileMode: 0o640, uid: 11, gid: 12 };

export const linux: readonly Case[] = [
  ...newNamespaces,
  ...inherited,
  ...joined,
  {
    clause: "config-linux.md Namespaces",
    name: "a namespace path of another type is an error",
    run: async (lab) =>
      await refused(lab, (config) => {
        without(config, "network");
        config.linux.namespaces.push({ type: "network", path: "/proc/self/ns/ipc" });
      }),
  },
  {
    clause: "config-linux.md Namespaces",
    name: "a namespace path that does not exist is an error",
    run: async (lab) =>
      await refused(lab, (config) => {
        without(config, "network");
        config.linux.namespaces.push({ type: "network", path: "/no/such/namespace" });
      }),
  },
  {
    clause: "config-linux.md Namespaces",
    name: "a namespace path that is no namespace is an error",
    run: async (lab) =>
      await refused(lab, (config) => {
        without(config, "network");
        config.linux.namespaces.push({ type: "network", path: "/etc/passwd" });
      }),
  },
  {
    clause: "config-linux.md Namespaces",
    name: "a relative namespace path is an error",
    run: async (lab) =>
      await refused(lab, (config) => {
        without(config, "network");
        config.linux.namespaces.push({ type: "network", path: "proc/self/ns/net" });
      }),
  },
  {
    clause: "config-linux.md Namespaces",
    name: "the same type twice is an error",
    run: async (lab) => await refused(lab, (config) => config.linux.namespaces.push({ type: "ipc" })),
  },
  {
    clause: "config-linux.md Namespaces",
    name: "a type that is not known is an error",
    run: async (lab) => await refused(lab, (config) => config.linux.namespaces.push({ type: "dreams" })),
  },
  {
    clause: "config-linux.md User namespace mappings",
    name: "ids are mapped as configured",
    run: async (lab) => {
      const text = await givenAway(lab, "id -u; cat /proc/self/uid_map /proc/self/gid_map");
      assert.match(text, /^0\n\s+0\s+100000\s+5000\n\s+0\s+200000\s+5000$/);
    },
  },
  {
    clause: "config-linux.md User namespace mappings",
    name: "default devices are there in a user namespace",
    run: async (lab) => {
      const text = await givenAway(lab, "echo x > /dev/null && head -c 4 /dev/zero | wc -c; stat -c %t:%T /dev/null");
      assert.equal(text, "4\n1:3");
    },
  },
  {
    clause: "config-linux.md User namespace mappings",
    name: "a user namespace and a joined network namespace go together",
    run: async (lab) => {
      const first = await sleeping(lab, () => {}).started();
      const path = `/proc/${(await first.state()).pid}/ns/net`;
      const text = await givenAway(lab, "readlink /proc/self/ns/net", (config) => {
        without(config, "network");
        config.linux.namespaces.push({ type: "network", path });
        config.mounts = config.mounts.filter((mount: Json) => mount.type !== "sysfs");
      });
      assert.equal(text, readlinkSync(path));
    },
  },
  {
    clause: "config-linux.md Offset for Time Namespace",
    name: "timeOffsets shift the clocks",
    run: async (lab) => {
      const text = await output(lab, "cat /proc/self/timens_offsets", (config) => {
        config.linux.namespaces.push({ type: "time" });
        config.linux.timeOffsets = { monotonic: { secs: 1000, nanosecs: 5 }, boottime: { secs: 2000 } };
      });
      assert.match(text, /monotonic\s+1000\s+5\nboottime\s+2000\s+0/);
    },
  },
  {
    clause: "config-linux.md Devices",
    name: "a listed device is there with its numbers, mode and owner",
    run: async (lab) =>
      assert.equal(
        await output(lab, "stat -c '%F %t:%T %a %u:%g' /dev/skep", (config) => (config.linux.devices = [device])),
        "character special file 1:3 640 11:12",
      ),
  },
  {
    clause: "config-linux.md Devices",
    name: "a device may be outside of /dev",
    run: async (lab) =>
      assert.equal(
        await output(lab, "stat -c %t:%T /mnt/deep/null", (config) => {
          config.linux.devices = [{ ...device, path: "/mnt/deep/null" }];
        }),
        "1:3",
      ),
  },
  {
    clause: "config-linux.md Devices",
    name: "a fifo can be listed",
    run: async (lab) =>
      assert.equal(
        await output(
          lab,
          "stat -c %F /dev/pipe",
          (config) => (config.linux.devices = [{ type: "p", path: "/dev/pipe" }]),
        ),
        "fifo",
      ),
  },
  {
    clause: "config-linux.md Devices",
    name: "a file that stands where another device should be is an error",
    run: async (lab) => {
      const container = lab.container((config) => (config.linux.devices = [{ ...device, path: "/mnt/taken" }]));
      writeFileSync(container.path("mnt/taken"), "");
      assert.notEqual((await container.run()).code, 0);
    },
  },
  {
    clause: "config-linux.md Default Devices",
    name: "null, zero, full, random, urandom and tty are there",
    run: async (lab) =>
      assert.equal(
        await output(lab, "for n in null zero full random urandom tty; do stat -c '%F %t:%T' /dev/$n; done"),
        ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"].map((n) => `character special file ${n}`).join("\n"),
      ),
  },
  {
    clause: "config-linux.md Default Devices",
    name: "/dev/ptmx is the container's own multiplexer",
    run: async (lab) =>
      assert.match(
        await output(lab, "readlink /dev/ptmx || grep ' /dev/ptmx ' /proc/self/mountinfo"),
        /pts\/ptmx|ptmx/,
      ),
  },
  {
    clause: "config-linux.md Default Devices",
    name: "default devices can be used with everything else denied",
    run: async (lab) =>
      assert.equal(
        await output(lab, "echo x > /dev/null && head -c 2 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c"),
        "2\n2",
      ),
  },
  {
    clause: "config-linux.md Allowed Device list",
    name: "a denied device cannot be opened although its node is there",
    run: async (lab) => {
      const text = await output(lab, "mknod /dev/kmsg2 c 1 11 && head -c 1 /dev/kmsg2 2>&1 || echo denied");
      assert.match(text, /denied|not permitted/);
    },
  },
  {
    clause: "config-linux.md Allowed Device list",
    name: "entries apply in the listed order",
    skip: () => (existsSync("/dev/fuse") ? undefined : "needs /dev/fuse, a device that anybody may open"),
    run: async (lab) => {
      const rule = (allow: boolean): Json => ({ allow, type: "c", major: 10, minor: 229, access: "rwm" });
      const script = "mknod /dev/k c 10 229; (exec 3</dev/k) 2>/dev/null && echo open || echo denied";
      const deny = { allow: false, access: "rwm" };
      const set = (rules: Json[]) => (config: Json) => (config.linux.resources.devices = rules);
      assert.equal(await output(lab, script, set([deny, rule(true)])), "open");
      assert.equal(await output(lab, script, set([deny, rule(true), rule(false)])), "denied");
    },
  },
  {
    clause: "config-linux.md Cgroups Path",
    name: "an absolute cgroupsPath counts from the hierarchy's mount point",
    run: async (lab) => {
      const container = await sleeping(lab, () => {}).made();
      const { pid } = await container.state();
      const found = groupDirectories(`${groupParent}/${container.id}`).filter(existsSync);
      assert.ok(found.length > 0);
      const inside = found.filter((path) =>
        readFileSync(join(path, "cgroup.procs"), "utf8").split("\n").includes(String(pid)),
      );
      assert.ok(inside.length > 0, "the first process is in the group");
    },
  },
  {
    clause: "config-linux.md Cgroups Path",
    name: "a relative cgroupsPath leads to the same place each time",
    run: async (lab) => {
      const group = async (): Promise<string> => {
        const container = await sleeping(
          lab,
          (config) => (config.linux.cgroupsPath = `${groupParent}-relative`),
        ).made();
        const { pid } = await container.state();
        const text = readFileSync(`/proc/${pid}/cgroup`, "utf8");
        await lab.call(["delete", "--force", container.id]);
        return text;
      };
      assert.equal(await group(), await group());
    },
  },
  limit("memory.limit", { memory: { limit: 64 << 20 } }, "memory", "memory.limit_in_bytes", String(64 << 20)),
  limit(
    "memory.reservation",
    { memory: { reservation: 32 << 20 } },
    "memory",
    "memory.soft_limit_in_bytes",
    String(32 << 20),
  ),
  limit(
    "memory.swap",
    { memory: { limit: 64 << 20, swap: 96 << 20 } },
    "memory",
    "memory.memsw.limit_in_bytes",
    String(96 << 20),
  ),
  limit("memory.swappiness", { memory: { swappiness: 10 } }, "memory", "memory.swappiness", "10"),
  limit(
    "memory.disableOOMKiller",
    { memory: { disableOOMKiller: true } },
    "memory",
    "memory.oom_control",
    /oom_kill_disable 1/,
  ),
  limit("cpu.shares", { cpu: { shares: 512 } }, "cpu", "cpu.shares", "512"),
  limit("cpu.quota", { cpu: { quota: 50000, period: 100000 } }, "cpu", "cpu.cfs_quota_us", "50000"),
  limit("cpu.period", { cpu: { quota: 20000, period: 50000 } }, "cpu", "cpu.cfs_period_us", "50000"),
  limit("cpu.cpus", { cpu: { cpus: "0" } }, "cpuset", "cpuset.cpus", "0"),
  limit("cpu.mems", { cpu: { mems: "0" } }, "cpuset", "cpuset.mems", "0"),
  limit("pids.limit", { pids: { limit: 77 } }, "pids", "pids.max", "77"),
  limit("pids.limit of -1 is no limit", { pids: { limit: -1 } }, "pids", "pids.max", "max"),
  limitV2("memory.limit", { memory: { limit: 64 << 20 } }, "memory.max", String(64 << 20)),
  limitV2("memory.swap", { memory: { limit: 64 << 20, swap: 96 << 20 } }, "memory.swap.max", String(32 << 20)),
  limitV2("memory.reservation", { memory: { reservation: 32 << 20 } }, "memory.low", String(32 << 20)),
  limitV2("cpu.quota and period", { cpu: { quota: 20000, period: 50000 } }, "cpu.max", "20000 50000"),
  limitV2("pids.limit", { pids: { limit: 77 } }, "pids.max", "77"),
  limitV2("unified", { unified: { "memory.high": String(48 << 20) } }, "memory.high", String(48 << 20)),
  {
    clause: "config-linux.md PIDs",
    name: "a limit of processes holds",
    run: async (lab) => {
      const done = await lab.script("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait", (config) => {
        config.linux.resources.pids = { limit: 4 };
      });
      assert.match(done.stderr, /fork|Resource temporarily unavailable/);
    },
  },
  {
    clause: "config-linux.md Unified",
    name: "a controller that is not there is an error",
    run: async (lab) => await refused(lab, (config) => (config.linux.resources.unified = { "nosuch.max": "1" })),
  },
  {
    clause: "config-linux.md Memory",
    name: "a program above the memory limit is killed",
    run: async (lab) => {
      const done = await lab.script("head -c 60000000 /dev/zero | tail -c 60000000 | wc -c; true", (config) => {
        config.linux.resources.memory = {
          limit: 16 << 20,
          ...(existsSync("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes") ? { swap: 16 << 20 } : {}),
        };
        config.process.args = ["/bin/sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' 'x'); echo survived"];
      });
      assert.doesNotMatch(done.stdout, /survived/);
    },
  },
  {
    clause: "config-linux.md Sysctl",
    name: "a kernel parameter of the network namespace is set",
    run: async (lab) =>
      assert.equal(
        await output(lab, "cat /proc/sys/net/ipv4/ip_forward", (config) => {
          config.linux.sysctl = { "net.ipv4.ip_forward": "1" };
        }),
        "1",
      ),
  },
  {
    clause: "config-linux.md Sysctl",
    name: "a kernel parameter of the ipc namespace is set",
    run: async (lab) =>
      assert.equal(
        await output(lab, "cat /proc/sys/kernel/shmmni", (config) => (config.linux.sysctl = { "kernel.shmmni": "77" })),
        "77",
      ),
  },
  seccompCase(
    "SCMP_ACT_ERRNO answers EPERM by default",
    seccomp({ names: makeDirectory, action: "SCMP_ACT_ERRNO" }),
    "mkdir /x 2>&1; echo after",
    /not permitted\nafter/,
  ),
  seccompCase(
    "errnoRet is the answer",
    seccomp({ names: makeDirectory, action: "SCMP_ACT_ERRNO", errnoRet: 28 }),
    "mkdir /x 2>&1; echo after",
    /No space left/,
  ),
  seccompCase(
    "defaultErrnoRet is the answer of the default action",
    {
      defaultAction: "SCMP_ACT_ERRNO",
      defaultErrnoRet: 28,
      architectures: seccomp().architectures,
      syscalls: [{ names: everythingBut(makeDirectory), action: "SCMP_ACT_ALLOW" }],
    },
    "mkdir /x 2>&1; echo after",
    /No space left/,
  ),
  seccompCase(
    "SCMP_ACT_KILL ends the caller",
    seccomp({ names: makeDirectory, action: "SCMP_ACT_KILL" }),
    "(mkdir /x); echo $?",
    /159/,
  ),
  seccompCase(
    "SCMP_ACT_KILL_PROCESS ends the caller",
    seccomp({ names: makeDirectory, action: "SCMP_ACT_KILL_PROCESS" }),
    "(mkdir /x); echo $?",
    /159/,
  ),
  seccompCase(
    "SCMP_ACT_TRAP sends SIGSYS",
    seccomp({ names: makeDirectory, action: "SCMP_ACT_TRAP" }),
    "(mkdir /x); echo $?",
    /159/,
  ),
  seccompCase(
    "SCMP_ACT_LOG lets the call pass",
    seccomp({ names: makeDirectory, action: "SCMP_ACT_LOG" }),
    "mkdir /tmp/$$ && echo made",
    /made/,
  ),
  seccompCase(
    "names that the kernel does not have are passed over",
    seccomp({ names: ["no_such_call", ...makeDirectory], action: "SCMP_ACT_ERRNO" }),
    "mkdir /x 2>&1; echo after",
    /not permitted/,
  ),
  ...(
    [
      ["SCMP_CMP_EQ", 15, 0, "TERM"],
      ["SCMP_CMP_NE", 10, 0, "TERM"],
      ["SCMP_CMP_GT", 14, 0, "TERM"],
      ["SCMP_CMP_GE", 15, 0, "TERM"],
      ["SCMP_CMP_MASKED_EQ", 15, 15, "TERM"],
    ] as const
  ).map(([op, value, valueTwo]) =>
    seccompCase(
      `${op} compares an argument`,
      seccomp({
        names: ["kill"],
        action: "SCMP_ACT_ERRNO",
        errnoRet: 28,
        args: [{ index: 1, value, ...(valueTwo === 0 ? {} : { valueTwo }), op }],
      }),
      // kill -10 of oneself is caught, kill -15 is what the filter answers.
      "trap 'echo caught' USR1; kill -USR1 $$; kill -TERM $$ 2>&1; echo after",
      /^caught\n(?=[^]*(No space left|kill))[^]*after$/,
    ),
  ),
  ...(
    [
      ["SCMP_CMP_LT", 15],
      ["SCMP_CMP_LE", 14],
    ] as const
  ).map(([op, value]) =>
    seccompCase(
      `${op} compares an argument`,
      seccomp({ names: ["kill"], action: "SCMP_ACT_ERRNO", errnoRet: 28, args: [{ index: 1, value, op }] }),
      "trap 'echo caught' TERM; kill -USR1 $$ 2>&1; kill -TERM $$; echo after",
      /(No space left|kill)[^]*caught\nafter$/,
    ),
  ),
  {
    clause: "config-linux.md Seccomp",
    name: "errnoRet with an action that has none is an error",
    run: async (lab) =>
      await refused(
        lab,
        (config) => (config.linux.seccomp = seccomp({ names: makeDirectory, action: "SCMP_ACT_KILL", errnoRet: 5 })),
      ),
  },
  {
    clause: "config-linux.md Seccomp",
    name: "an action that is not known is an error",
    run: async (lab) =>
      await refused(
        lab,
        (config) => (config.linux.seccomp = seccomp({ names: makeDirectory, action: "SCMP_ACT_DANCE" })),
      ),
  },
  {
    clause: "config-linux.md Seccomp",
    name: "names must not be empty",
    run: async (lab) =>
      await refused(lab, (config) => (config.linux.seccomp = seccomp({ names: [], action: "SCMP_ACT_ERRNO" }))),
  },
  {
    clause: "config-linux.md Seccomp",
    name: "a flag that is not known is an error",
    run: async (lab) =>
      await refused(lab, (config) => (config.linux.seccomp = { ...seccomp(), flags: ["SECCOMP_FILTER_FLAG_NOPE"] })),
  },
  {
    clause: "config-linux.md Rootfs Mount Propagation",
    name: "shared makes the root shared",
    run: async (lab) =>
      assert.match(
        await output(lab, "grep ' / / \\| / rw' /proc/self/mountinfo | head -1", (config) => {
          config.linux.rootfsPropagation = "shared";
        }),
        /shared:/,
      ),
  },
  {
    clause: "config-linux.md Rootfs Mount Propagation",
    name: "unbindable makes the root unbindable",
    run: async (lab) =>
      assert.match(
        await output(lab, "awk '$5 == \"/\"' /proc/self/mountinfo", (config) => {
          config.linux.rootfsPropagation = "unbindable";
        }),
        /unbindable/,
      ),
  },
  {
    clause: "config-linux.md Rootfs Mount Propagation",
    name: "private makes the root private",
    run: async (lab) =>
      assert.doesNotMatch(
        await output(lab, "awk '$5 == \"/\"' /proc/self/mountinfo", (config) => {
          config.linux.rootfsPropagation = "private";
        }),
        /shared:|master:/,
      ),
  },
  {
    clause: "config-linux.md Rootfs Mount Propagation",
    name: "a value that is not known is an error",
    run: async (lab) => await refused(lab, (config) => (config.linux.rootfsPropagation = "generous")),
  },
  {
    clause: "config-linux.md Masked Paths",
    name: "a masked file reads as empty",
    run: async (lab) =>
      assert.equal(
        await output(lab, "wc -c < /proc/version", (config) => (config.linux.maskedPaths = ["/proc/version"])),
        "0",
      ),
  },
  {
    clause: "config-linux.md Masked Paths",
    name: "a masked directory is empty and stays so",
    run: async (lab) =>
      assert.equal(
        await output(lab, "ls /bin2; touch /bin2/x 2>/dev/null && echo written || echo refused", (config) => {
          config.linux.maskedPaths = ["/bin2"];
          config.mounts.push({ destination: "/bin2", type: "none", source: "rootfs/bin", options: ["bind"] });
        }),
        "refused",
      ),
  },
  {
    clause: "config-linux.md Masked Paths",
    name: "a masked path that does not exist is no error",
    run: async (lab) =>
      assert.equal(await output(lab, "echo fine", (config) => (config.linux.maskedPaths = ["/no/such"])), "fine"),
  },
  {
    clause: "config-linux.md Readonly Paths",
    name: "a read-only path cannot be written",
    run: async (lab) =>
      assert.equal(
        await output(lab, "touch /etc/x 2>/dev/null && echo rw || echo ro; touch /tmp/x && echo rw", (config) => {
          config.linux.readonlyPaths = ["/etc"];
        }),
        "ro\nrw",
      ),
  },
  {
    clause: "config-linux.md Default Filesystems",
    name: "/proc, /sys, /dev/pts and /dev/shm are of their types",
    run: async (lab) =>
      assert.equal(
        await output(
          lab,
          "for p in /proc /sys /dev/pts /dev/shm; do awk -v p=$p '$2 == p { print $3 }' /proc/mounts; done",
        ),
        "proc\nsysfs\ndevpts\ntmpfs",
      ),
  },
  {
    clause: "config-linux.md Control groups",
    name: "exec joins the groups and namespaces of the container",
    run: async (lab) => {
      const container = await sleeping(lab, () => {}).started();
      const { pid } = await container.state();
      const done = await container.exec(
        "cat /proc/self/cgroup | sort; for n in pid net mnt ipc uts; do readlink /proc/self/ns/$n; done",
      );
      assert.equal(done.code, 0, done.stderr);
      const groups = readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n").sort();
      const expected = [
        ...groups,
        ...["pid", "net", "mnt", "ipc", "uts"].map((name) => readlinkSync(`/proc/${pid}/ns/${name}`)),
      ];
      assert.deepEqual(done.stdout.trim().split("\n"), expected);
    },
  },
  {
    clause: "config-linux.md Cgroups Path",
    name: "a group that was there before serves one container after another, each killed",
    run: async (lab) => {
      const path = `${groupParent}/reused`;
      for (const directory of groupDirectories(path)) mkdirSync(directory, { recursive: true });
      for (let i = 0; i < 3; i++) {
        const container = await sleeping(lab, (config) => (config.linux.cgroupsPath = `/${path}`)).started();
        assert.equal((await lab.call(["exec", container.id, "/bin/true"])).code, 0);
        assert.equal((await lab.call(["kill", "--all", container.id, "KILL"])).code, 0);
        await container.becomes("stopped");
        assert.equal((await container.verb("delete")).code, 0);
      }
    },
  },
  {
    clause: "runc's command line",
    name: "pause freezes and resume thaws",
    run: async (lab) => {
      const container = await sleeping(lab, () => {}).started();
      assert.equal((await container.verb("pause")).code, 0);
      assert.equal((await container.state()).status, "paused");
      assert.equal((await container.verb("resume")).code, 0);
      assert.equal((await container.state()).status, "running");
    },
  },
  {
    clause: "runc's command line",
    name: "update changes the limits of a running container",
    skip: needsV1,
    run: async (lab) => {
      const container = await sleeping(
        lab,
        (config) => (config.linux.resources.memory = { limit: 32 << 20 }),
      ).started();
      const resources = JSON.stringify({ memory: { limit: 48 << 20 }, cpu: { shares: 300 }, pids: { limit: 55 } });
      const done = await lab.call(["update", "--resources", "-", container.id], { input: resources });
      assert.equal(done.code, 0, done.stderr);
      assert.equal(v1(container, "memory", "memory.limit_in_bytes"), String(48 << 20));
      assert.equal(v1(container, "cpu", "cpu.shares"), "300");
      assert.equal(v1(container, "pids", "pids.max"), "55");
    },
  },
  {
    clause: "runc's command line",
    name: "kill --all reaches every process of the container",
    run: async (lab) => {
      const container = await lab
        .container((config) => {
          without(config, "pid");
          config.process.args = ["/bin/sh", "-c", "sleep 100 & sleep 100 & wait"];
        })
        .started();
      assert.equal((await lab.call(["kill", "--all", container.id, "KILL"])).code, 0);
      await container.becomes("stopped");
    },
  },
];

/** Calls that busybox and libc make around what a test denies: everything named here is allowed. */
function everythingBut(denied: readonly string[]): string[] {
  const all =
    "read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap madvise dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket clone clone3 fork vfork execve execveat exit wait4 waitid kill uname fcntl flock fsync truncate ftruncate getdents getcwd chdir fchdir rename mkdir mkdirat rmdir creat link unlink symlink readlink chmod fchmod chown umask gettimeofday getrlimit getrusage sysinfo times getuid getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid getsid capget capset sigaltstack arch_prctl prctl gettid futex set_tid_address exit_group set_robust_list openat newfstatat unlinkat readlinkat faccessat faccessat2 dup3 pipe2 prlimit64 getrandom rseq statx getdents64 ppoll pselect6 clock_gettime clock_nanosleep close_range sendto sendmsg recvmsg seccomp tgkill statfs fstatfs".split(
      " ",
    );
  return all.filter((name) => !denied.includes(name));
}
