/** config.md: version, root, mounts, process, user, names, extensibility. */
import assert from "node:assert/strict";
import { chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { type Case, execute, type Json, type Lab, ours, until } from "./harness.ts";

async function output(lab: Lab, script: string, change: (config: Json) => void = () => {}): Promise<string> {
  const done = await lab.script(script, change);
  assert.equal(done.code, 0, `${done.stderr}${done.stdout}`);
  return done.stdout.trim();
}

async function refused(lab: Lab, change: (config: Json) => void): Promise<void> {
  const container = lab.container(change);
  const done = await container.run();
  assert.notEqual(done.code, 0, "must be an error");
}

const tmpfs = (destination: string, ...options: string[]): Json => ({
  destination,
  type: "tmpfs",
  source: "tmpfs",
  options,
});

const bind = (source: string, destination: string, ...options: string[]): Json => ({
  destination,
  type: "none",
  source,
  options: ["bind", ...options],
});

/** Options of the mount at `path` as mountinfo tells them, mount and superblock together. */
const mountOptions = (path: string): string =>
  `awk -v p=${path} '$5 == p { o = $6; s = $NF } END { print o " " s }' /proc/self/mountinfo`;

/** An option that shows as a word in mountinfo when it works. */
function visible(option: string, word: string, absent = false): Case {
  return {
    clause: "config.md Linux mount options",
    name: `option ${option} ${absent ? "clears" : "sets"} ${word}`,
    run: async (lab) => {
      const options = absent ? [word, option] : [option];
      const text = await output(lab, mountOptions("/mnt"), (config) => config.mounts.push(tmpfs("/mnt", ...options)));
      assert.equal(text.split(/[ ,]/).includes(word), !absent, text);
    },
  };
}

/** An option that must be accepted and shows nowhere. */
function accepted(option: string): Case {
  return {
    clause: "config.md Linux mount options",
    name: `option ${option} is accepted`,
    run: async (lab) => {
      const text = await output(lab, mountOptions("/mnt"), (config) => config.mounts.push(tmpfs("/mnt", option)));
      assert.match(text, /rw|ro/);
    },
  };
}

function propagation(option: string, expected: RegExp): Case {
  return {
    clause: "config.md Linux mount options",
    name: `option ${option} sets the propagation`,
    run: async (lab) => {
      const source = lab.directory("source");
      const text = await output(lab, "grep ' /mnt ' /proc/self/mountinfo", (config) =>
        config.mounts.push(bind(source, "/mnt", option)),
      );
      // Fields between the options and the hyphen.
      const tags = text.split(" - ")[0]!.split(" ").slice(6).join(" ");
      assert.match(tags, expected);
    },
  };
}

function capability(set: string, field: string): Case {
  return {
    clause: "config.md Linux Process",
    name: `capabilities.${set} is what the process has`,
    run: async (lab) => {
      const text = await output(lab, `grep ${field} /proc/self/status`, (config) => {
        const wanted = ["CAP_CHOWN", "CAP_KILL"];
        config.process.user = { uid: 1000, gid: 1000 };
        config.process.capabilities = {
          bounding: wanted,
          permitted: wanted,
          effective: wanted,
          inheritable: wanted,
          ambient: wanted,
        };
      });
      assert.equal(BigInt(`0x${text.split(/\s+/)[1]}`), (1n << 0n) | (1n << 5n));
    },
  };
}

/** Accepts one console socket connection and tells the terminal's size and what a program wrote to it. */
async function withTerminal(lab: Lab, change: (config: Json) => void, script: string): Promise<string> {
  const socket = join(lab.directory("console"), "sock");
  // Node cannot receive descriptors, so a helper of the host does: it prints what comes out of the master.
  const helper = `
import socket, sys, os, array
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + ".new"); s.listen(1); os.rename(sys.argv[1] + ".new", sys.argv[1])
c, _ = s.accept()
m, anc, _, _ = c.recvmsg(64, socket.CMSG_SPACE(4))
fd = array.array("i", anc[0][2])[0]
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data: break
    os.write(1, data)
`;
  const received = execute("/usr/bin/python3", ["-c", helper, socket]);
  await until(() => existsSync(socket), "the console socket listens");
  const container = lab.container((config) => {
    config.process.terminal = true;
    config.process.args = ["/bin/sh", "-c", script];
    change(config);
  });
  const created = await container.create(["--console-socket", socket]);
  assert.equal(created.code, 0, created.stderr);
  const started = await container.verb("start");
  assert.equal(started.code, 0, started.stderr);
  return (await received).stdout.replaceAll("\r", "");
}

export const config: readonly Case[] = [
  {
    clause: "config.md Specification version",
    name: "an ociVersion that is no semantic version is an error",
    run: async (lab) => {
      for (const version of ["1.0", "one", "1.0.0.0", "01.0.0"]) await refused(lab, (c) => (c.ociVersion = version));
    },
  },
  {
    clause: "config.md Specification version",
    name: "an ociVersion of another major version is an error",
    run: async (lab) => await refused(lab, (c) => (c.ociVersion = "2.0.0")),
  },
  {
    clause: "config.md Specification version",
    name: "ociVersion is required",
    run: async (lab) => await refused(lab, (c) => delete c.ociVersion),
  },
  {
    clause: "config.md Root",
    name: "root.path may be absolute",
    run: async (lab) => {
      const container = lab.container();
      container.config.root.path = container.rootfs;
      writeFileSync(join(container.bundle, "config.json"), JSON.stringify(container.config));
      const done = await container.run();
      assert.equal(done.code, 0, done.stderr);
    },
  },
  {
    clause: "config.md Root",
    name: "a root.path that does not exist is an error",
    run: async (lab) => await refused(lab, (c) => (c.root.path = "nothing")),
  },
  {
    clause: "config.md Root",
    name: "a root.path that is a file is an error",
    run: async (lab) => await refused(lab, (c) => (c.root.path = "config.json")),
  },
  {
    clause: "config.md Root",
    name: "root.readonly makes the root read-only",
    run: async (lab) =>
      assert.equal(
        await output(lab, "touch /x 2>/dev/null && echo rw || echo ro", (c) => (c.root.readonly = true)),
        "ro",
      ),
  },
  {
    clause: "config.md Root",
    name: "without root.readonly the root is writable",
    run: async (lab) => assert.equal(await output(lab, "touch /x && echo rw"), "rw"),
  },
  {
    clause: "config.md Mounts",
    name: "mounts happen in the listed order",
    run: async (lab) => {
      const text = await output(lab, "ls /mnt", (c) =>
        c.mounts.push(tmpfs("/mnt"), tmpfs("/mnt/first"), tmpfs("/mnt"), tmpfs("/mnt/second")),
      );
      assert.equal(text, "second");
    },
  },
  {
    clause: "config.md Mounts",
    name: "a relative destination counts from the root",
    run: async (lab) =>
      assert.match(await output(lab, mountOptions("/mnt"), (c) => c.mounts.push(tmpfs("mnt", "size=64k"))), /size=64k/),
  },
  {
    clause: "config.md Mounts",
    name: "a destination that does not exist is made",
    run: async (lab) =>
      assert.match(
        await output(lab, mountOptions("/a/b/c"), (c) => c.mounts.push(tmpfs("/a/b/c", "size=64k"))),
        /size=64k/,
      ),
  },
  {
    clause: "config.md Mounts",
    name: "a filesystem type that the kernel does not know is an error",
    run: async (lab) =>
      await refused(lab, (c) => c.mounts.push({ destination: "/mnt", type: "nosuchfs", source: "x" })),
  },
  {
    clause: "config.md Mounts",
    name: "a bind source may be relative to the bundle",
    run: async (lab) => {
      const container = lab.container((c) => {
        c.mounts.push(bind("data", "/mnt"));
        c.process.args = ["/bin/cat", "/mnt/file"];
      });
      mkdirSync(join(container.bundle, "data"));
      writeFileSync(join(container.bundle, "data/file"), "relative");
      const done = await container.run();
      assert.equal(done.stdout, "relative", done.stderr);
    },
  },
  {
    clause: "config.md Mounts",
    name: "a file can be bound on a path that does not exist",
    run: async (lab) => {
      const file = join(lab.directory("source"), "file");
      writeFileSync(file, "content");
      assert.equal(await output(lab, "cat /etc/conf/x", (c) => c.mounts.push(bind(file, "/etc/conf/x"))), "content");
    },
  },
  {
    clause: "config.md Mounts",
    name: "a bind source that does not exist is an error",
    run: async (lab) => await refused(lab, (c) => c.mounts.push(bind("/no/such/source", "/mnt"))),
  },
  {
    clause: "config.md Mounts",
    name: "options that only the filesystem knows reach it",
    run: async (lab) =>
      assert.match(
        await output(lab, `stat -c %a /mnt; ${mountOptions("/mnt")}`, (c) =>
          c.mounts.push(tmpfs("/mnt", "mode=0710", "size=128k", "nr_inodes=77")),
        ),
        /^710\n.*size=128k.*nr_inodes=77|^710\n.*nr_inodes=77.*size=128k/s,
      ),
  },
  {
    clause: "config.md Mounts",
    name: "an option that nobody knows is an error of the filesystem",
    run: async (lab) => await refused(lab, (c) => c.mounts.push(tmpfs("/mnt", "nosuchoption=1"))),
  },
  visible("ro", "ro"),
  visible("rw", "ro", true),
  visible("nosuid", "nosuid"),
  visible("suid", "nosuid", true),
  visible("nodev", "nodev"),
  visible("dev", "nodev", true),
  visible("noexec", "noexec"),
  visible("exec", "noexec", true),
  visible("noatime", "noatime"),
  visible("atime", "noatime", true),
  visible("nodiratime", "nodiratime"),
  visible("diratime", "nodiratime", true),
  visible("relatime", "relatime"),
  visible("sync", "sync"),
  visible("async", "sync", true),
  visible("dirsync", "dirsync"),
  visible("lazytime", "lazytime"),
  visible("nolazytime", "lazytime", true),
  {
    clause: "config.md Linux mount options",
    name: "option strictatime leaves neither relatime nor noatime",
    run: async (lab) =>
      assert.doesNotMatch(
        await output(lab, mountOptions("/mnt"), (c) => c.mounts.push(tmpfs("/mnt", "strictatime"))),
        /relatime|noatime/,
      ),
  },
  ...["defaults", "iversion", "noiversion", "norelatime", "nostrictatime", "silent", "loud"].map(accepted),
  {
    clause: "config.md Linux mount options",
    name: "option bind shows the source without what is mounted below it, rbind with it",
    run: async (lab) => {
      const source = lab.directory("source");
      mkdirSync(join(source, "below"));
      const mounted = await execute("/bin/mount", ["-t", "tmpfs", "tmpfs", join(source, "below")]);
      assert.equal(mounted.code, 0, mounted.stderr);
      lab.defer(async () => void (await execute("/bin/umount", ["-l", join(source, "below")])));
      writeFileSync(join(source, "below/inner"), "");
      assert.equal(await output(lab, "ls /mnt/below", (c) => c.mounts.push(bind(source, "/mnt"))), "");
      assert.equal(await output(lab, "ls /mnt/below", (c) => c.mounts.push(bind(source, "/mnt", "rbind"))), "inner");
    },
  },
  {
    clause: "config.md Linux mount options",
    name: "bind with ro refuses writes and leaves the source writable",
    run: async (lab) => {
      const source = lab.directory("source");
      const text = await output(lab, "touch /mnt/x 2>/dev/null && echo rw || echo ro", (c) =>
        c.mounts.push(bind(source, "/mnt", "ro")),
      );
      assert.equal(text, "ro");
      writeFileSync(join(source, "y"), "");
    },
  },
  propagation("private", /^$/),
  propagation("rprivate", /^$/),
  propagation("slave", /^$|master:/),
  propagation("rslave", /^$|master:/),
  propagation("shared", /shared:/),
  propagation("rshared", /shared:/),
  propagation("unbindable", /unbindable/),
  propagation("runbindable", /unbindable/),
  {
    clause: "config.md Linux mount options",
    name: "option remount changes a mount that is there",
    run: async (lab) =>
      assert.match(
        await output(lab, mountOptions("/mnt"), (c) =>
          c.mounts.push(tmpfs("/mnt", "size=64k"), {
            destination: "/mnt",
            type: "tmpfs",
            source: "tmpfs",
            options: ["remount", "ro", "size=128k"],
          }),
        ),
        /^ro.*size=128k/,
      ),
  },
  {
    clause: "config.md Linux mount options",
    name: "option rro makes the whole tree read-only",
    run: async (lab) => {
      const source = lab.directory("source");
      mkdirSync(join(source, "below"));
      await execute("/bin/mount", ["-t", "tmpfs", "tmpfs", join(source, "below")]);
      lab.defer(async () => void (await execute("/bin/umount", ["-l", join(source, "below")])));
      assert.equal(
        await output(lab, "touch /mnt/below/x 2>/dev/null && echo rw || echo ro", (c) =>
          c.mounts.push(bind(source, "/mnt", "rbind", "rro")),
        ),
        "ro",
      );
    },
  },
  {
    clause: "config.md Linux mount options",
    name: "idmap without mappings and without a user namespace is an error",
    run: async (lab) => await refused(lab, (c) => c.mounts.push(bind("/tmp", "/mnt", "idmap"))),
  },
  {
    clause: "config.md POSIX-platform Mounts",
    name: "uidMappings of a mount shift the owners of its files",
    run: async (lab) => {
      const source = lab.directory("source");
      writeFileSync(join(source, "file"), "");
      chownSync(join(source, "file"), 1000, 1000);
      const map = [{ containerID: 1000, hostID: 7000, size: 10 }];
      assert.equal(
        await output(lab, "stat -c %u:%g /mnt/file", (c) =>
          c.mounts.push({ ...bind(source, "/mnt", "idmap"), uidMappings: map, gidMappings: map }),
        ),
        "7000:7000",
      );
    },
  },
  {
    clause: "config.md Process",
    name: "args[0] is found by PATH of the process",
    run: async (lab) => {
      const container = lab.container((c) => {
        c.process.args = ["echo", "found"];
        c.process.env = ["PATH=/nowhere:/bin"];
      });
      assert.equal((await container.run()).stdout, "found\n");
    },
  },
  {
    clause: "config.md Process",
    name: "empty args are an error",
    run: async (lab) => await refused(lab, (c) => (c.process.args = [])),
  },
  {
    clause: "config.md Process",
    name: "env is the whole environment",
    run: async (lab) => {
      const container = lab.container((c) => {
        c.process.args = ["/bin/env"];
        c.process.env = ["A=1", "B=two words", "PATH=/bin"];
      });
      const done = await container.run();
      const got = done.stdout
        .trim()
        .split("\n")
        .filter((line) => !line.startsWith("HOME="))
        .sort();
      assert.deepEqual(got, ["A=1", "B=two words", "PATH=/bin"]);
    },
  },
  {
    clause: "config.md Process",
    name: "cwd is the working directory",
    run: async (lab) => assert.equal(await output(lab, "pwd", (c) => (c.process.cwd = "/etc")), "/etc"),
  },
  {
    clause: "config.md Process",
    name: "a relative cwd is an error",
    run: async (lab) => await refused(lab, (c) => (c.process.cwd = "etc")),
  },
  {
    clause: "config.md Process",
    name: "cwd is required",
    run: async (lab) => await refused(lab, (c) => delete c.process.cwd),
  },
  {
    clause: "config.md Process",
    name: "terminal gives the process a terminal on its standard streams",
    run: async (lab) => {
      const text = await withTerminal(lab, () => {}, "test -t 0 && test -t 1 && test -t 2 && echo terminal; tty");
      assert.match(text, /terminal\n\/dev\/(pts\/\d+|console)/);
    },
  },
  {
    clause: "config.md Process",
    name: "consoleSize is the size of the terminal",
    run: async (lab) => {
      const text = await withTerminal(lab, (c) => (c.process.consoleSize = { height: 33, width: 77 }), "stty size");
      assert.equal(text.trim(), "33 77");
    },
  },
  {
    clause: "config.md Process",
    name: "consoleSize without terminal is ignored",
    run: async (lab) =>
      assert.equal(await output(lab, "echo fine", (c) => (c.process.consoleSize = { height: 33, width: 77 })), "fine"),
  },
  {
    clause: "config.md POSIX process",
    name: "rlimits set soft and hard limit",
    run: async (lab) =>
      assert.match(
        await output(lab, "grep 'open files' /proc/self/limits", (c) => {
          c.process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 100, hard: 200 }];
        }),
        /100\s+200/,
      ),
  },
  {
    clause: "config.md POSIX process",
    name: "an rlimit that getrlimit(2) does not know is an error",
    run: async (lab) => await refused(lab, (c) => (c.process.rlimits = [{ type: "RLIMIT_NOTHING", soft: 1, hard: 1 }])),
  },
  {
    clause: "config.md POSIX process",
    name: "the same rlimit twice is an error",
    run: async (lab) =>
      await refused(
        lab,
        (c) =>
          (c.process.rlimits = [
            { type: "RLIMIT_CORE", soft: 1, hard: 1 },
            { type: "RLIMIT_CORE", soft: 2, hard: 2 },
          ]),
      ),
  },
  capability("bounding", "CapBnd"),
  capability("permitted", "CapPrm"),
  capability("effective", "CapEff"),
  capability("inheritable", "CapInh"),
  capability("ambient", "CapAmb"),
  {
    clause: "config.md Linux Process",
    name: "a capability that is not known is a warning, not an error",
    run: async (lab) =>
      assert.equal(
        await output(lab, "echo fine", (c) => c.process.capabilities.bounding.push("CAP_NO_SUCH_THING")),
        "fine",
      ),
  },
  {
    clause: "config.md Linux Process",
    name: "without capabilities sets are empty for the root user of the container too",
    run: async (lab) =>
      assert.match(
        await output(lab, "grep -E 'CapBnd|CapPrm|CapEff' /proc/self/status", (c) => (c.process.capabilities = {})),
        /CapPrm:\s0+\nCapEff:\s0+\nCapBnd:\s0+/,
      ),
  },
  {
    clause: "config.md Linux Process",
    name: "noNewPrivileges is set when asked for",
    run: async (lab) =>
      assert.match(
        await output(lab, "grep NoNewPrivs /proc/self/status", (c) => (c.process.noNewPrivileges = true)),
        /1$/,
      ),
  },
  {
    clause: "config.md Linux Process",
    name: "noNewPrivileges is not set otherwise",
    run: async (lab) =>
      assert.match(
        await output(lab, "grep NoNewPrivs /proc/self/status", (c) => (c.process.noNewPrivileges = false)),
        /0$/,
      ),
  },
  {
    clause: "config.md Linux Process",
    name: "oomScoreAdj is set",
    run: async (lab) =>
      assert.equal(await output(lab, "cat /proc/self/oom_score_adj", (c) => (c.process.oomScoreAdj = 333)), "333"),
  },
  {
    clause: "config.md Linux Process",
    name: "without oomScoreAdj the value is left alone",
    run: async (lab) => {
      assert.equal(
        await output(lab, "cat /proc/self/oom_score_adj"),
        readFileSync("/proc/self/oom_score_adj", "utf8").trim(),
      );
    },
  },
  {
    clause: "config.md User",
    name: "uid and gid are those of the process",
    run: async (lab) =>
      assert.match(await output(lab, "id", (c) => (c.process.user = { uid: 1234, gid: 4321 })), /uid=1234 gid=4321/),
  },
  {
    clause: "config.md User",
    name: "additionalGids are added",
    run: async (lab) =>
      assert.match(
        await output(lab, "grep Groups /proc/self/status", (c) => (c.process.user.additionalGids = [7, 9])),
        /7 9/,
      ),
  },
  {
    clause: "config.md User",
    name: "umask is set",
    run: async (lab) => assert.equal(await output(lab, "umask", (c) => (c.process.user.umask = 0o27)), "0027"),
  },
  {
    clause: "config.md Hostname",
    name: "hostname is set",
    run: async (lab) => assert.equal(await output(lab, "hostname", (c) => (c.hostname = "mrsdalloway")), "mrsdalloway"),
  },
  {
    clause: "config.md Domainname",
    name: "domainname is set",
    run: async (lab) =>
      assert.equal(
        await output(lab, "cat /proc/sys/kernel/domainname", (c) => (c.domainname = "foobarbaz.test")),
        "foobarbaz.test",
      ),
  },
  {
    clause: "config.md Extensibility",
    name: "properties that are not known are ignored",
    run: async (lab) =>
      assert.equal(
        await output(lab, "echo fine", (c) => {
          c.nobodyKnows = { a: 1 };
          c.process.nobodyKnows = true;
          c.linux.nobodyKnows = [];
        }),
        "fine",
      ),
  },
  {
    clause: "config.md Annotations",
    name: "annotations that are not known are ignored",
    run: async (lab) =>
      assert.equal(await output(lab, "echo fine", (c) => (c.annotations = { "com.example.x": "y" })), "fine"),
  },
  {
    clause: "config.md Valid values",
    name: "a value of the wrong type is an error",
    run: async (lab) => await refused(lab, (c) => (c.process.args = "true")),
  },
  {
    clause: "runtime-linux.md File descriptors",
    name: "only the standard streams are open",
    run: async (lab) => {
      const text = await output(lab, "ls /proc/self/fd");
      // ls itself opens the directory as the next free number.
      assert.equal(text.split(/\s+/).length, 4, text);
    },
  },
  {
    clause: "runtime-linux.md Dev symbolic links",
    name: "/dev/fd, stdin, stdout and stderr are links",
    run: async (lab) =>
      assert.equal(
        await output(lab, "for n in fd stdin stdout stderr; do readlink /dev/$n; done"),
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2",
      ),
  },
];

/** Things that are ours beyond the specification. */
export const oursOnly: readonly Case[] = [
  {
    clause: "docs/design/isolate.md",
    name: "annotation dev.skep.rootfs mounts the overlay inside the container's mount namespace",
    run: async (lab) => {
      const folder = lab.directory("overlay");
      for (const name of ["upper", "work", "top"]) mkdirSync(join(folder, name));
      writeFileSync(join(folder, "top/hello"), "from the top layer");
      const container = lab.container((c) => {
        c.process.args = ["/bin/sh", "-c", "cat /hello; echo written > /new"];
      });
      container.config.annotations = {
        "dev.skep.rootfs": JSON.stringify({
          lower: [join(folder, "top"), container.rootfs],
          upper: join(folder, "upper"),
          work: join(folder, "work"),
        }),
      };
      writeFileSync(join(container.bundle, "config.json"), JSON.stringify(container.config));
      const done = await container.run();
      assert.equal(done.stdout, "from the top layer", done.stderr);
      assert.equal(readFileSync(join(folder, "upper/new"), "utf8"), "written\n");
      assert.equal(existsSync(join(container.rootfs, "new")), false);
      assert.equal(readFileSync("/proc/self/mounts", "utf8").includes(folder), false);
    },
  },
  {
    clause: "runtime.md §2 P2",
    name: "what is not supported is refused by name",
    run: async (lab) => {
      const wishes: readonly [string, (c: Json) => void][] = [
        ["linux.intelRdt", (c) => (c.linux.intelRdt = { closID: "x" })],
        ["linux.netDevices", (c) => (c.linux.netDevices = { eth0: {} })],
        ["linux.memoryPolicy", (c) => (c.linux.memoryPolicy = { mode: "MPOL_BIND" })],
        ["linux.personality", (c) => (c.linux.personality = { domain: "LINUX32" })],
        ["process.scheduler", (c) => (c.process.scheduler = { policy: "SCHED_FIFO" })],
        ["process.ioPriority", (c) => (c.process.ioPriority = { class: "IOPRIO_CLASS_IDLE" })],
        ["process.execCPUAffinity", (c) => (c.process.execCPUAffinity = { initial: "0" })],
        ["linux.resources.hugepageLimits", (c) => (c.linux.resources.hugepageLimits = [{ pageSize: "2MB", limit: 1 }])],
        ["linux.resources.rdma", (c) => (c.linux.resources.rdma = { a: { hcaHandles: 1 } })],
        ["linux.resources.network", (c) => (c.linux.resources.network = { classID: 1 })],
        ["tmpcopyup", (c) => c.mounts.push(tmpfs("/mnt", "tmpcopyup"))],
        [
          "SCMP_ACT_NOTIFY",
          (c) =>
            (c.linux.seccomp = {
              defaultAction: "SCMP_ACT_ALLOW",
              syscalls: [{ names: ["mkdir"], action: "SCMP_ACT_NOTIFY" }],
            }),
        ],
      ];
      for (const [name, change] of wishes) {
        const done = await lab.container(change).run();
        assert.notEqual(done.code, 0, name);
        assert.match(done.stderr, /not supported/, name);
        assert.ok(done.stderr.includes(name.split(".").at(-1)!), `${name}: ${done.stderr}`);
      }
    },
  },
  {
    clause: "runc's command line",
    name: "the last line of the JSON log is the error",
    run: async (lab) => {
      const log = join(lab.folder, "log.json");
      const done = await execute(ours.path, [
        "--root",
        lab.root,
        "--log",
        log,
        "--log-format",
        "json",
        "state",
        "nobody",
      ]);
      assert.notEqual(done.code, 0);
      const last = JSON.parse(readFileSync(log, "utf8").trim().split("\n").at(-1)!);
      assert.equal(last.level, "error");
      assert.match(last.msg, /does not exist/);
    },
  },
];
