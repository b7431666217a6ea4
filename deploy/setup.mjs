#!/usr/bin/env node
/**
 * Sets up a bare machine: npm packages, Debian packages, the native programs. Plain JavaScript for any Node.js, since it
 * runs before anything is installed. As root it installs what is missing; as a user it says what is missing.
 * Usage: node deploy/setup.mjs [--for run|test|bench]
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Debian packages by purpose, each with the file that proves it is there. */
const packages = {
  run: [
    ["gcc", "/usr/bin/gcc"],
    ["make", "/usr/bin/make"],
    ["libc6-dev", "/usr/include/stdio.h"],
    ["libseccomp-dev", "/usr/include/seccomp.h"],
    ["libjson-c-dev", "/usr/include/json-c/json.h"],
    ["libnftables-dev", "/usr/include/nftables/libnftables.h"],
    ["iproute2", "/sbin/ip"],
    ["nftables", "/usr/sbin/nft"],
    ["busybox-static", "/bin/busybox"],
  ],
  test: [
    ["runc", "/usr/sbin/runc"],
    ["crun", "/usr/bin/crun"],
    ["skopeo", "/usr/bin/skopeo"],
    ["docker-registry", "/usr/bin/docker-registry"],
    ["apache2-utils", "/usr/bin/htpasswd"],
    ["openssl", "/usr/bin/openssl"],
    ["e2fsprogs", "/sbin/mkfs.ext4"],
    ["libfaketime", "/usr/share/doc/libfaketime"],
    ["valgrind", "/usr/bin/valgrind"],
    ["clang-tools", "/usr/bin/scan-build"],
    ["bind9-dnsutils", "/usr/bin/dig"],
    ["conntrack", "/usr/sbin/conntrack"],
    ["ufw", "/usr/sbin/ufw"],
    ["python3-firewall", "/usr/lib/python3/dist-packages/firewall"],
    ["python3-nftables", "/usr/lib/python3/dist-packages/nftables"],
    ["python3-dbus", "/usr/lib/python3/dist-packages/dbus"],
    ["python3-gi", "/usr/lib/python3/dist-packages/gi"],
    ["dbus-daemon", "/usr/bin/dbus-daemon"],
    ["musl-tools", "/usr/bin/musl-gcc"],
  ],
  vm: [
    ["qemu-system-x86", "/usr/bin/qemu-system-x86_64"],
    ["kmod", "/sbin/depmod"],
    ["busybox-static", "/bin/busybox"],
    ["tcpdump", "/usr/bin/tcpdump"],
    ["wireguard-tools", "/usr/bin/wg"],
  ],
  bench: [
    ["etcd-server", "/usr/bin/etcd"],
    ["etcd-client", "/usr/bin/etcdctl"],
    ["docker.io", "/usr/sbin/dockerd"],
  ],
};

/**
 * Whose files alone are wanted, for tests, unpacked below build/packages: installed, firewalld would take over the machine's
 * firewall at its next start.
 */
const unpacked = ["firewalld"];

function run(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  if (done.error) throw done.error;
  if (done.status !== 0) {
    console.error(`setup: \`${command} ${args.join(" ")}\` failed with exit code ${done.status}`);
    process.exit(done.status ?? 1);
  }
}

function installNpmPackages() {
  const lock = join(root, "package-lock.json");
  const installed = join(root, "node_modules", ".package-lock.json");
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  console.log("setup: installing npm packages");
  // NODE_OPTIONS of the caller belong to the caller's program, not to npm.
  run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], { env: { ...process.env, NODE_OPTIONS: "" } });
}

function installDebianPackages(purposes) {
  const missing = purposes
    .flatMap((purpose) => packages[purpose])
    .filter(([, file]) => !existsSync(file))
    .map(([name]) => name);
  if (missing.length === 0) return;
  if (process.getuid() !== 0) {
    console.error(`setup: these Debian packages are missing: ${missing.join(" ")}`);
    console.error(`setup: install them with: sudo apt-get install ${missing.join(" ")}`);
    process.exit(1);
  }
  console.log(`setup: installing Debian packages: ${missing.join(" ")}`);
  // Packages that bring a daemon must not start it here: the tests start their own, in namespaces of their own.
  const policy = "/usr/sbin/policy-rc.d";
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    run("apt-get", ["update", "-qq"], { env });
    run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...missing], {
      env,
      stdio: ["ignore", "ignore", "inherit"],
    });
  } finally {
    if (ours) rmSync(policy, { force: true });
  }
}

function unpackDebianPackages(names) {
  const folderOf = (name) => join(root, "build", "packages", name);
  const missing = names.filter((name) => !existsSync(folderOf(name)));
  // Only tests that need root want them.
  if (missing.length === 0 || process.getuid() !== 0) return;
  console.log(`setup: unpacking Debian packages: ${missing.join(" ")}`);
  run("apt-get", ["update", "-qq"]);
  for (const name of missing) {
    const folder = folderOf(name);
    const fresh = `${folder}.new`;
    rmSync(fresh, { recursive: true, force: true });
    mkdirSync(fresh, { recursive: true });
    run("apt-get", ["download", "-qq", name], { cwd: fresh, stdio: ["ignore", "ignore", "inherit"] });
    const [file] = readdirSync(fresh);
    run("dpkg-deb", ["-x", file, "."], { cwd: fresh });
    rmSync(join(fresh, file));
    renameSync(fresh, folder);
  }
}

function buildNative() {
  if (!existsSync(join(root, "native", "Makefile"))) return;
  // The tests end processes at instants that only a build with fault hooks can be told of.
  run("make", ["-s", "-j2", "-C", "native", "all", ...(purpose === "run" ? [] : ["faults"])], {
    stdio: ["ignore", "inherit", "inherit"],
  });
}

const at = process.argv.indexOf("--for");
const purpose = at < 0 ? "run" : process.argv[at + 1];
if (!(purpose in packages)) {
  console.error(`setup: unknown purpose "${purpose}"; use one of: ${Object.keys(packages).join(", ")}`);
  process.exit(2);
}
mkdirSync(join(root, "build"), { recursive: true });
installDebianPackages(purpose === "run" ? ["run"] : purpose === "test" ? ["run", "test"] : ["run", "test", "bench"]);
unpackDebianPackages(purpose === "run" ? [] : unpacked);
installNpmPackages();
buildNative();
