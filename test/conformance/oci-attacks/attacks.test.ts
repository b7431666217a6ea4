/**
 * One attack for each line of the security table of the runtime (docs/design/isolate.md): it is attempted, and fails.
 * The number in the name is the CVE that taught the lesson. Races are run a bounded number of times.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import { execute, groupParent, type Json, Lab, ours, until, whyNot } from "../oci/harness.ts";

const absent = whyNot();

function attack(name: string, run: (lab: Lab, context: TestContext) => Promise<void>): void {
  test(name, { skip: absent ?? false, timeout: 900_000 }, async (context) => {
    const lab = new Lab(ours);
    try {
      await run(lab, context);
    } finally {
      await lab[Symbol.asyncDispose]();
    }
  });
}

const shell = (config: Json, script: string): void => {
  config.process.args = ["/bin/sh", "-c", script];
};

const without = (config: Json, destination: string): void => {
  config.mounts = config.mounts.filter((mount: Json) => mount.destination !== destination);
};

/** A folder of the host that must stay as it is. */
function bait(lab: Lab): { path: string; untouched: () => void } {
  const path = lab.directory("host");
  writeFileSync(join(path, "secret"), "host secret");
  const before = readdirSync(path).sort();
  return {
    path,
    untouched: () => {
      assert.deepEqual(readdirSync(path).sort(), before, "something appeared on the host");
      assert.equal(readFileSync(join(path, "secret"), "utf8"), "host secret");
    },
  };
}

attack("CVE-2016-9962: a process of another user cannot look into one that joins the container", async (lab) => {
  const container = await lab.container((config) => shell(config, "sleep 100")).started();
  // From inside, look at every process as fast as possible while exec'd ones pass by.
  const watcher = container.exec(
    "i=0; while [ $i -lt 300 ]; do for p in /proc/[0-9]*; do ls -l $p/fd 2>/dev/null; readlink $p/exe; done; i=$((i+1)); done | grep -E '/run/|state|isolate|memfd' | head -3",
  );
  for (let i = 0; i < 40; i++) await container.exec("true");
  const seen = (await watcher).stdout;
  assert.equal(seen.trim(), "", "descriptors or the image of the runtime were seen");
});

attack(
  "CVE-2016-9962: memory of the waiting first process belongs to root although it is another user",
  async (lab) => {
    const container = await lab.container((config) => (config.process.user = { uid: 1000, gid: 1000 })).made();
    const { pid } = await container.state();
    assert.equal(statSync(`/proc/${pid}/mem`).uid, 0);
    assert.match(readFileSync(`/proc/${pid}/status`, "utf8"), /Uid:\t1000/);
  },
);

attack("CVE-2019-5736: /proc/self/exe as the program does not give the file that runs on the host", async (lab) => {
  const before = createHash("sha256").update(readFileSync(ours.path)).digest("hex");
  const container = lab.container((config) => (config.process.args = ["/proc/self/exe", "--version"]));
  await container.made();
  const { pid } = await container.state();
  const image = statSync(`/proc/${pid}/exe`);
  const file = statSync(ours.path);
  assert.ok(image.ino !== file.ino || image.dev !== file.dev, "the first process runs the host's own file");
  assert.throws(() => closeSync(openSync(`/proc/${pid}/exe`, "r+")), /ETXTBSY|EPERM|EROFS|EACCES/);
  await container.verb("kill", "KILL");
  assert.equal(createHash("sha256").update(readFileSync(ours.path)).digest("hex"), before);
});

attack("CVE-2019-5736: writing to the image of whoever enters fails during 200 execs", async (lab) => {
  const before = createHash("sha256").update(readFileSync(ours.path)).digest("hex");
  const container = await lab
    .container((config) => {
      shell(config, "sleep 100");
      config.process.capabilities.bounding.push("CAP_SYS_PTRACE", "CAP_SYS_ADMIN");
      config.process.capabilities.effective.push("CAP_SYS_PTRACE", "CAP_SYS_ADMIN");
      config.process.capabilities.permitted.push("CAP_SYS_PTRACE", "CAP_SYS_ADMIN");
    })
    .started();
  const writer = container.exec(
    "i=0; while [ $i -lt 400 ]; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in *busybox*) ;; *) echo x 2>/dev/null >> $p/exe && echo WROTE $(readlink $p/exe);; esac; done; i=$((i+1)); done",
  );
  for (let i = 0; i < 200; i++) await container.exec("true");
  assert.doesNotMatch((await writer).stdout, /WROTE \S/);
  assert.equal(createHash("sha256").update(readFileSync(ours.path)).digest("hex"), before);
});

attack("CVE-2019-16884, CVE-2019-19921: a volume cannot stand over /proc or inside it", async (lab) => {
  const volume = lab.directory("volume");
  mkdirSync(join(volume, "self/attr"), { recursive: true });
  for (const destination of ["/proc", "/proc/self/attr", "/proc/sys", "/x/../proc", "//proc/", "/link"]) {
    const container = lab.container((config) =>
      config.mounts.push({ destination, type: "none", source: volume, options: ["bind"] }),
    );
    symlinkSync("/proc/sys", container.path("link"));
    const done = await container.run();
    assert.notEqual(done.code, 0, destination);
  }
});

attack("CVE-2019-16884: procfs first and a tmpfs over its parts is refused, a file of lxcfs is not", async (lab) => {
  const volume = lab.directory("volume");
  writeFileSync(join(volume, "meminfo"), "MemTotal: 1 kB\n");
  const tmpfs = lab.container((config) =>
    config.mounts.push({ destination: "/proc/sys/kernel", type: "tmpfs", source: "tmpfs" }),
  );
  assert.notEqual((await tmpfs.run()).code, 0);
  const file = lab.container((config) => {
    shell(config, "cat /proc/meminfo");
    config.mounts.push({
      destination: "/proc/meminfo",
      type: "none",
      source: join(volume, "meminfo"),
      options: ["bind", "ro"],
    });
  });
  assert.equal((await file.run()).stdout, "MemTotal: 1 kB\n");
});

for (const name of ["proc", "sys"])
  attack(`CVE-2023-27561, CVE-2023-28642: /${name} of the image is a link`, async (lab) => {
    const host = bait(lab);
    for (const target of ["/tmp", host.path, "../../../../../../../../tmp"]) {
      const container = lab.container();
      rmSync(container.path(name), { recursive: true });
      symlinkSync(target, container.path(name));
      const done = await container.run();
      assert.notEqual(done.code, 0, target);
      host.untouched();
    }
  });

attack("CVE-2021-30465, CVE-2019-18837: the destination of a mount is a link out of the root", async (lab) => {
  const host = bait(lab);
  for (const target of [host.path, `../../../../../../../../../..${host.path}`]) {
    const container = lab.container((config) => {
      shell(config, "cat /proc/self/mountinfo");
      config.mounts.push({ destination: "/evil/new/dir", type: "tmpfs", source: "tmpfs" });
      config.mounts.push({ destination: "/evil", type: "tmpfs", source: "tmpfs" });
    });
    symlinkSync(target, container.path("evil"));
    await container.run();
    host.untouched();
    assert.equal(existsSync(join(host.path, "new")), false);
  }
});

attack(
  "CVE-2021-30465, CVE-2024-45310: a destination that flips between directory and link for 300 creates",
  async (lab) => {
    const host = bait(lab);
    const volume = lab.directory("volume");
    mkdirSync(join(volume, "a"));
    symlinkSync(host.path, join(volume, "b"));
    // RENAME_EXCHANGE in a loop, from a process of its own.
    const flipper = spawn("/usr/bin/python3", [
      "-c",
      `import ctypes,os
libc = ctypes.CDLL(None, use_errno=True)
a, b = os.fsencode("${volume}/a"), os.fsencode("${volume}/b")
while os.getppid() != 1:
    libc.renameat2(-100, a, -100, b, 2)`,
    ]);
    try {
      for (let i = 0; i < 300; i++) {
        const container = lab.container((config) => {
          config.mounts.push({ destination: "/vol", type: "none", source: volume, options: ["bind"] });
          config.mounts.push({ destination: "/vol/a/deep/er", type: "tmpfs", source: "tmpfs" });
          config.mounts.push({ destination: "/vol/a", type: "tmpfs", source: "tmpfs" });
        });
        await container.run();
      }
    } finally {
      flipper.kill("SIGKILL");
    }
    host.untouched();
    assert.equal(readFileSync("/proc/self/mounts", "utf8").includes(host.path), false);
  },
);

attack("CVE-2021-43784: very many and very long mounts and maps are an error, not an overflow", async (lab) => {
  const long = lab.container((config) => {
    const destination = `/${"d".repeat(200)}`.repeat(400);
    config.mounts.push({ destination, type: "tmpfs", source: "tmpfs" });
  });
  assert.notEqual((await long.run()).code, 0);
  const many = lab.container((config) => {
    config.linux.namespaces.push({ type: "user" });
    const map = Array.from({ length: 70_000 }, (_, i) => ({ containerID: i, hostID: i + 100000, size: 1 }));
    config.linux.uidMappings = map;
    config.linux.gidMappings = map;
  });
  const done = await many.run();
  assert.equal(done.code, 1);
  assert.match(done.stderr, /uidMappings|at most/);
});

attack(
  "CVE-2022-29162, CVE-2022-27650, CVE-2022-24769: inheritable capabilities are empty, in exec too",
  async (lab) => {
    const container = await lab.container((config) => shell(config, "sleep 100")).started();
    const done = await lab.call([
      "exec",
      "--cap",
      "CAP_SYS_NICE",
      container.id,
      "/bin/grep",
      "Cap",
      "/proc/self/status",
    ]);
    assert.match(done.stdout, /CapInh:\s0+\n/);
    assert.match(done.stdout, /CapAmb:\s0+$/m);
    const { pid } = await container.state();
    assert.match(readFileSync(`/proc/${pid}/status`, "utf8"), /CapInh:\s0+\n/);
  },
);

attack("CVE-2023-25809: without a view of its own, a user's container cannot write the host's groups", async (lab) => {
  const container = lab.container((config) => {
    shell(
      config,
      "find /sys/fs/cgroup -name cgroup.procs | head -20; for d in /sys/fs/cgroup/*; do mkdir $d/evil && echo WROTE; done 2>&1",
    );
    config.mounts.push({ destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["nosuid", "rw"] });
    config.linux.namespaces.push({ type: "user" });
    config.linux.uidMappings = [{ containerID: 0, hostID: 0, size: 1000 }];
    config.linux.gidMappings = [{ containerID: 0, hostID: 0, size: 1000 }];
  });
  const done = await container.run();
  assert.match(done.stdout, /cgroup.procs/, done.stderr);
  assert.doesNotMatch(done.stdout, /WROTE/);
});

attack("CVE-2024-21626: a working directory through a leaked descriptor is refused", async (lab) => {
  const host = bait(lab);
  const leaked = openSync(host.path, "r");
  try {
    for (let fd = 3; fd <= 15; fd++) {
      const container = lab.container((config) => {
        shell(config, "pwd; cat ./secret ../secret 2>/dev/null");
        config.process.cwd = `/proc/self/fd/${fd}`;
      });
      // The caller hands a directory of the host on as descriptors 3 to 6.
      const done = await lab.call(["run", "--bundle", container.bundle, container.id], {
        extraFds: [leaked, leaked, leaked, leaked],
      });
      assert.doesNotMatch(done.stdout, /host secret/, `fd ${fd}`);
    }
    const container = await lab.container((config) => shell(config, "sleep 100")).started();
    for (let fd = 3; fd <= 15; fd++) {
      const done = await lab.call(["exec", "--cwd", `/proc/self/fd/${fd}`, container.id, "/bin/cat", "./secret"], {
        extraFds: [leaked, leaked, leaked, leaked],
      });
      assert.doesNotMatch(done.stdout, /host secret/, `exec fd ${fd}`);
    }
  } finally {
    closeSync(leaked);
  }
});

attack("CVE-2024-21626: descriptors of the caller do not reach the program", async (lab) => {
  const host = bait(lab);
  const leaked = openSync(host.path, "r");
  try {
    const container = lab.container((config) => shell(config, "ls -l /proc/self/fd"));
    const done = await lab.call(["run", "--bundle", container.bundle, container.id], { extraFds: [leaked, leaked] });
    assert.doesNotMatch(done.stdout, new RegExp(host.path));
  } finally {
    closeSync(leaked);
  }
});

attack("CVE-2025-31133: masks do not use the container's /dev/null", async (lab) => {
  const container = lab.container((config) => {
    without(config, "/dev");
    without(config, "/dev/pts");
    without(config, "/dev/shm");
    without(config, "/dev/mqueue");
    shell(config, "cat /proc/version; wc -c < /proc/version");
    config.linux.maskedPaths = ["/proc/version"];
  });
  // The image's /dev/null is a link to what the attacker wants to see or to write.
  symlinkSync("/proc/sys/kernel/core_pattern", container.path("dev/null"));
  const done = await container.run();
  if (done.code === 0) assert.equal(done.stdout.trim(), "0");
  else assert.match(done.stderr, /dev\/null/);
});

attack("CVE-2025-52565: /dev/console is bound from the terminal itself, not from a name", async (lab) => {
  const host = bait(lab);
  const dev = lab.directory("dev");
  mkdirSync(join(dev, "pts"));
  const container = lab.container((config) => {
    config.process.terminal = true;
    without(config, "/dev/pts");
    config.mounts = config.mounts.map((mount: Json) =>
      mount.destination === "/dev" ? { destination: "/dev", type: "none", source: dev, options: ["bind"] } : mount,
    );
    config.mounts.push({ destination: "/dev/shm", type: "tmpfs", source: "shm" });
  });
  // A multiplexer that is none: a link to the host's secret.
  symlinkSync(join(host.path, "secret"), join(dev, "pts/ptmx"));
  symlinkSync(join(host.path, "secret"), join(dev, "console"));
  const done = await container.create(["--console-socket", "/nowhere"]);
  assert.notEqual(done.code, 0);
  host.untouched();
});

attack("CVE-2025-52881: sysctl writes reach only procfs, whatever the volumes show", async (lab) => {
  const volume = lab.directory("volume");
  mkdirSync(join(volume, "net/ipv4"), { recursive: true });
  writeFileSync(join(volume, "net/ipv4/ip_forward"), "");
  const container = lab.container((config) => {
    shell(config, "cat /proc/sys/net/ipv4/ip_forward");
    config.linux.sysctl = { "net.ipv4.ip_forward": "1" };
    config.mounts.push({ destination: "/mnt", type: "none", source: volume, options: ["bind"] });
  });
  const done = await container.run();
  assert.equal(done.stdout.trim(), "1", done.stderr);
  assert.equal(readFileSync(join(volume, "net/ipv4/ip_forward"), "utf8"), "");
});

attack("CVE-2026-41579, CVE-2026-47766: /dev of the image is a link to a folder of the host", async (lab) => {
  const host = bait(lab);
  for (const target of [host.path, `../../../../../../../..${host.path}`]) {
    const container = lab.container((config) => {
      for (const destination of ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]) without(config, destination);
      config.linux.devices = [{ type: "c", path: "/dev/made", major: 1, minor: 3 }];
    });
    rmSync(container.path("dev"), { recursive: true });
    symlinkSync(target, container.path("dev"));
    await container.run();
    host.untouched();
  }
});

attack("CVE-2026-30892: --user is read strictly", async (lab) => {
  const container = await lab.container((config) => shell(config, "sleep 100")).started();
  const user = async (text: string) => await lab.call(["exec", "--user", text, container.id, "/bin/id"]);
  for (const text of [
    "",
    " 1",
    "1 ",
    "+1",
    "-1",
    "010",
    "0x10",
    "1e3",
    "4294967295",
    "4294967296",
    "1:",
    ":1",
    "1:2:3",
    "root",
    "1.0",
  ])
    assert.notEqual((await user(text)).code, 0, JSON.stringify(text));
  assert.match((await user("1000")).stdout, /uid=1000 gid=0/);
  assert.match((await user("1000:2000")).stdout, /uid=1000 gid=2000/);
});

attack("CVE-2022-0811: only kernel parameters of the container's own namespaces can be set", async (lab) => {
  const before = readFileSync("/proc/sys/kernel/core_pattern", "utf8");
  for (const key of [
    "kernel.core_pattern",
    "kernel/core_pattern",
    "net..ipv4",
    "net/../kernel/core_pattern",
    "kernel/shm_rmid_forced/../core_pattern",
    "net.ipv4.ip_forward+kernel.core_pattern",
    "net.",
    ".net.x",
    "vm.overcommit_memory",
    "kernel.shm/../core_pattern",
  ]) {
    const done = await lab.container((config) => (config.linux.sysctl = { [key]: "1" })).run();
    assert.notEqual(done.code, 0, key);
  }
  const shared = lab.container((config) => {
    config.linux.namespaces = config.linux.namespaces.filter((entry: Json) => entry.type !== "network");
    without(config, "/sys");
    config.linux.sysctl = { "net.ipv4.ip_forward": "1" };
  });
  assert.notEqual((await shared.run()).code, 0, "the host's network namespace");
  assert.equal(readFileSync("/proc/sys/kernel/core_pattern", "utf8"), before);
});

attack("id traversal: an id is a name below the state folder", async (lab) => {
  const host = bait(lab);
  for (const id of [
    "../x",
    "..",
    ".",
    "a/../../b",
    `..${host.path}`,
    "x\u0000y".replace("\u0000", "%00"),
    "a".repeat(1025),
  ]) {
    const container = lab.container();
    for (const verb of [["create", "--bundle", container.bundle], ["delete", "--force"], ["state"], ["start"]])
      if (verb[0] !== "delete") assert.notEqual((await lab.call([...verb, id])).code, 0, `${verb[0]} ${id}`);
      else await lab.call([...verb, id]);
    host.untouched();
  }
});

attack("cgroup traversal: cgroupsPath cannot leave its hierarchy", async (lab) => {
  for (const path of ["/../../../tmp/evil", "../../evil", `/${groupParent}/../../evil`, "/", "/..", "a/../../b"]) {
    const done = await lab.container((config) => (config.linux.cgroupsPath = path)).run();
    assert.notEqual(done.code, 0, path);
  }
  assert.equal(existsSync("/tmp/evil"), false);
});

attack("crun 1.29.1: kill --all that dies in the middle leaves a container that the next one can kill", async (lab) => {
  const container = await lab.container((config) => shell(config, "sleep 100 & sleep 100 & wait")).started();
  for (let i = 0; i < 20; i++) {
    const killer = spawn(ours.path, ["--root", lab.root, "kill", "--all", container.id, "USR2"], { stdio: "ignore" });
    setTimeout(() => killer.kill("SIGKILL"), i % 5);
    await new Promise((resolve) => killer.once("exit", resolve));
    if ((await container.state()).status === "stopped") break;
  }
  assert.equal((await lab.call(["kill", "--all", container.id, "KILL"])).code, 0);
  await container.becomes("stopped");
});

attack("hostile config.json: nesting, size, NUL, equal keys and numbers out of range are errors", async (lab) => {
  const good = JSON.stringify(lab.container().config);
  const deep = `${'{"a":'.repeat(100)}1${"}".repeat(100)}`;
  const bombs: readonly string[] = [
    "",
    "[]",
    "null",
    "{",
    good.slice(0, -1),
    `${good}x`,
    good.replace('"hostname":"oci"', '"hostname":"oci","hostname":"evil"'),
    good.replace('"hostname":"oci"', '"hostname":"o\\u0000ci"'),
    good.replace('"hostname":"oci"', `"x":${deep}`),
    good.replace('"uid":0', '"uid":4294967296'),
    good.replace('"uid":0', '"uid":-1'),
    good.replace('"uid":0', '"uid":1.5'),
    good.replace('"uid":0', '"uid":99999999999999999999'),
    good.replace('"hostname":"oci"', `"x":"${"y".repeat(5 << 20)}"`),
    "[".repeat(1_000_000),
  ];
  for (const text of bombs) {
    const container = lab.container();
    writeFileSync(join(container.bundle, "config.json"), text);
    const done = await container.run();
    assert.equal(done.code, 1, `${text.slice(0, 60)}: ${done.stderr.slice(0, 200)}`);
  }
});

attack("read-only paths hold against the container's root user", async (lab) => {
  const container = lab.container((config) => {
    shell(
      config,
      "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger; do echo x > $f && echo WROTE; done; mount -o remount,rw /proc/sys && echo REMOUNTED; umount /proc/sys && echo UMOUNTED",
    );
    config.linux.readonlyPaths = ["/proc/sys", "/proc/sysrq-trigger"];
  });
  const done = await container.run();
  assert.doesNotMatch(done.stdout, /WROTE|REMOUNTED|UMOUNTED/);
});

attack("the overlay of the annotation is not a way for the image to name folders of the host", async (lab) => {
  // Paths with the separators of overlayfs in them are taken literally.
  const folder = lab.directory("overlay");
  const odd = join(folder, "a:b,c\\d");
  for (const path of [odd, join(folder, "upper"), join(folder, "work")]) mkdirSync(path);
  writeFileSync(join(odd, "marker"), "odd layer");
  const container = lab.container((config) => shell(config, "cat /marker"));
  container.config.annotations = {
    "dev.skep.rootfs": JSON.stringify({
      lower: [odd, container.rootfs],
      upper: join(folder, "upper"),
      work: join(folder, "work"),
    }),
  };
  writeFileSync(join(container.bundle, "config.json"), JSON.stringify(container.config));
  const done = await container.run();
  assert.equal(done.stdout, "odd layer", done.stderr);
});

attack("the state folder is closed to others", async (lab) => {
  const container = await lab.container((config) => shell(config, "sleep 100")).made();
  chmodSync(lab.folder, 0o755);
  assert.equal(statSync(lab.root).mode & 0o077, 0);
  assert.equal(statSync(join(lab.root, container.id)).mode & 0o077, 0);
  const socket = join(lab.root, container.id, "start.sock");
  const done = await execute("/usr/bin/python3", [
    "-c",
    `import os,socket
os.setgid(1000); os.setuid(1000)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    s.connect("${socket}"); s.send(b"g"); print("STARTED")
except OSError as e: print(e.errno)`,
  ]);
  assert.doesNotMatch(done.stdout, /STARTED/);
  assert.equal((await container.state()).status, "created");
});

attack("a container's process cannot be signalled through a pid that was given to another", async (lab) => {
  const container = await lab.container((config) => shell(config, "sleep 100")).started();
  const { pid } = await container.state();
  await container.verb("kill", "KILL");
  await until(async () => (await container.state()).status === "stopped", "stopped");
  // The state file still has the pid; point it at a living process of the host that started at another time.
  const file = join(lab.root, container.id, "state.json");
  writeFileSync(file, readFileSync(file, "utf8").replace(`"pid":${pid}`, `"pid":${process.pid}`));
  assert.equal((await container.state()).status, "stopped");
  assert.notEqual((await container.verb("kill", "KILL")).code, 0);
  const deleted = await lab.call(["delete", "--force", container.id]);
  assert.equal(deleted.code, 0, deleted.stderr);
});
