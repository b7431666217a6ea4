/** The flags of `run` and `create`. */
import * as flag from "../grammar/flags.ts";
import { hostMapping, mount, network, ulimit } from "../service/read.ts";

const map = (help: string): flag.Flag<string[]> => flag.list(help, { type: "map" });

/** `PATH:VALUE`, the value a rate or weight. */
function throttle(text: string, read: (value: string) => number): { Path: string; value: number } {
  const at = text.lastIndexOf(":");
  if (at < 1 || !text.startsWith("/dev/")) throw new Error(`bad format: ${text}`);
  return { Path: text.slice(0, at), value: read(text.slice(at + 1)) };
}
const whole = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new Error(`invalid value: ${text}`);
  return Number(text);
};
const rateFlag = (help: string): flag.Flag<{ Path: string; Rate: number }[]> =>
  flag.listOf(help, (text) => {
    const { Path, value } = throttle(text, flag.readBytes);
    return { Path, Rate: value };
  });
const iopsFlag = (help: string): flag.Flag<{ Path: string; Rate: number }[]> =>
  flag.listOf(help, (text) => {
    const { Path, value } = throttle(text, whole);
    return { Path, Rate: value };
  });

/** -1 stands for no limit. */
export const swap = (help: string): flag.Flag<number> =>
  flag.one(help, "bytes", (text) => (text === "-1" ? -1 : flag.readBytes(text)));

/** Of resources: `update` has them too. */
export const resourceFlags = {
  "blkio-weight": flag.uint("Weight of block I/O, 10 to 1000, or 0 for none", { shownDefault: "0", type: "uint16" }),
  "cpu-period": flag.int("Period of the CPU quota in microseconds"),
  "cpu-quota": flag.int("CPU quota in a period, in microseconds"),
  "cpu-rt-period": flag.int("Period of real-time CPU in microseconds"),
  "cpu-rt-runtime": flag.int("Real-time CPU in a period, in microseconds"),
  "cpu-shares": flag.int("Weight of CPU time", { short: "c" }),
  cpus: flag.cpus("Number of CPUs"),
  "cpuset-cpus": flag.text("CPUs to run on (0-3, 0,1)"),
  "cpuset-mems": flag.text("Memory nodes to use (0-3, 0,1)"),
  memory: flag.bytes("Most memory", { short: "m" }),
  "memory-reservation": flag.bytes("Memory to keep when the host is short of it"),
  "memory-swap": swap("Most memory and swap together; -1 for no limit"),
  "pids-limit": flag.int("Most processes; -1 for no limit"),
};

export const createFlags = {
  ...resourceFlags,
  "add-host": flag.listOf("Host to know by name (host:ip)", (text) =>
    hostMapping(text).split(" ").toReversed().join(":"),
  ),
  annotation: map("Annotation for the OCI runtime"),
  attach: flag.list("Attach to STDIN, STDOUT or STDERR", { short: "a" }),
  "blkio-weight-device": flag.listOf("Weight of a device's block I/O", (text) => {
    const { Path, value } = throttle(text, whole);
    return { Path, Weight: value };
  }),
  "cap-add": flag.list("Give a Linux capability"),
  "cap-drop": flag.list("Take a Linux capability away"),
  "cgroup-parent": flag.text("Cgroup to run below"),
  cgroupns: flag.choice("Cgroup namespace (host|private)", ["host", "private"]),
  cidfile: flag.text("File to write the container's id to"),
  device: flag.list("Host device to give"),
  "device-cgroup-rule": flag.list("Rule for the devices that are allowed"),
  "device-read-bps": rateFlag("Most bytes a second to read from a device"),
  "device-read-iops": iopsFlag("Most reads a second from a device"),
  "device-write-bps": rateFlag("Most bytes a second to write to a device"),
  "device-write-iops": iopsFlag("Most writes a second to a device"),
  "disable-content-trust": flag.bool("Accepted for scripts written for docker; has no effect"),
  dns: flag.list("DNS server"),
  "dns-option": flag.list("DNS option"),
  "dns-search": flag.list("DNS search domain"),
  domainname: flag.text("NIS domain name"),
  entrypoint: flag.text("Replace the image's ENTRYPOINT"),
  env: flag.list("Environment variable", { short: "e" }),
  "env-file": flag.list("File of environment variables"),
  expose: flag.list("Port, or range of ports, to expose"),
  gpus: flag.text("GPUs to give ('all' for all)", { type: "gpu-request" }),
  "group-add": flag.list("Further group of the user"),
  "health-cmd": flag.text("Command that tells whether the container is healthy"),
  "health-interval": flag.duration("Time between two health checks (ms|s|m|h)", { shownDefault: "0s" }),
  "health-retries": flag.int("Failures in a row that make it unhealthy"),
  "health-start-interval": flag.duration("Time between two checks in the start period (ms|s|m|h)", {
    shownDefault: "0s",
  }),
  "health-start-period": flag.duration("Time to start up before failures count (ms|s|m|h)", { shownDefault: "0s" }),
  "health-timeout": flag.duration("Longest time of one check (ms|s|m|h)", { shownDefault: "0s" }),
  hostname: flag.text("Host name", { short: "h" }),
  init: flag.bool("Run an init that forwards signals and reaps processes"),
  interactive: flag.bool("Keep standard input open even when not attached", { short: "i" }),
  ip: flag.text("IPv4 address"),
  ip6: flag.text("IPv6 address"),
  ipc: flag.text("IPC namespace to use"),
  isolation: flag.text("Isolation technology (Windows only)"),
  label: flag.list("Label", { short: "l" }),
  "label-file": flag.list("File of labels"),
  link: flag.list("Container to know by name"),
  "link-local-ip": flag.list("Link-local address"),
  "log-driver": flag.text("Logging driver"),
  "log-opt": flag.list("Option of the logging driver"),
  "mac-address": flag.text("MAC address"),
  "memory-swappiness": flag.int("How eagerly memory is swapped out (0 to 100)", { shownDefault: "-1" }),
  mount: flag.listOf("File system to mount", mount, { type: "mount" }),
  name: flag.text("Name of the container"),
  network: flag.listOf("Network to connect to", network, { type: "network" }),
  "network-alias": flag.list("Further name in the network"),
  "no-healthcheck": flag.bool("Switch off the image's HEALTHCHECK"),
  "oom-kill-disable": flag.bool("Do not kill when memory runs out"),
  "oom-score-adj": flag.int("Preference when the host runs out of memory (-1000 to 1000)"),
  pid: flag.text("PID namespace to use"),
  platform: flag.text("Platform of the image"),
  privileged: flag.bool("Give all privileges"),
  publish: flag.list("Publish a port of the container", { short: "p" }),
  "publish-all": flag.bool("Publish every exposed port", { short: "P" }),
  pull: flag.choice("When to pull the image", ["always", "missing", "never"], { shownDefault: '"missing"' }),
  quiet: flag.quiet("Print no progress of a pull"),
  "read-only": flag.bool("Mount the root read-only"),
  restart: flag.text("When to restart: no, on-failure[:N], always, unless-stopped", { shownDefault: '"no"' }),
  rm: flag.bool("Remove the container and its anonymous volumes when it ends"),
  runtime: flag.text("OCI runtime"),
  "security-opt": flag.list("Security option"),
  "shm-size": flag.bytes("Size of /dev/shm"),
  "stop-signal": flag.text("Signal that stops the container"),
  "stop-timeout": flag.int("Seconds between the stop signal and SIGKILL"),
  "storage-opt": flag.list("Option of the storage driver"),
  sysctl: map("Kernel parameter"),
  tmpfs: flag.list("Directory to keep in memory"),
  tty: flag.bool("Give it a terminal", { short: "t" }),
  ulimit: flag.listOf("Resource limit", ulimit, { type: "ulimit" }),
  user: flag.text("Name or id of the user (format: <name|uid>[:<group|gid>])", { short: "u" }),
  userns: flag.text("User namespace to use"),
  uts: flag.text("UTS namespace to use"),
  volume: flag.list("Volume or folder to mount", { short: "v" }),
  "volume-driver": flag.text("Driver of the volumes"),
  "volumes-from": flag.list("Container whose volumes to mount too"),
  workdir: flag.text("Working directory", { short: "w" }),
};

export const runFlags = {
  ...createFlags,
  detach: flag.bool("Run in the background and print the container's id", { short: "d" }),
  "detach-keys": flag.text("Keys that detach from the container"),
  "sig-proxy": flag.bool("Pass signals on to the process", { shownDefault: "true" }),
};

export type CreateValues = flag.Values<typeof createFlags>;
export type ResourceValues = flag.Values<typeof resourceFlags>;
