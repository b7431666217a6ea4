/**
 * Stories that need a machine of their own: they run in fresh network, mount and process namespaces, so that whatever they
 * add or break is gone with them, also when they are killed.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { execFileSync } from "node:child_process";
import type { TestContext } from "node:test";

export const needsRoot = process.getuid?.() === 0 ? false : "needs root, for namespaces of its own";

/** Long versions run on demand: SKEP_FULL=1. */
export const isFull = process.env["SKEP_FULL"] === "1";

/** Runs `file` and returns what it told, in order. Fails with its own words when it fails. */
export function runStory<Told>(
  t: TestContext,
  file: string,
  withinMs: number,
  args: readonly string[] = [],
): Promise<Told[]> {
  return new Promise((resolve, reject) => {
    // The first process of the new process namespace is the story; when unshare is killed, so is everything in it.
    const namespaces = [
      "--net",
      "--mount",
      "--pid",
      "--fork",
      "--mount-proc",
      "--kill-child=SIGKILL",
      "--propagation",
      "private",
    ];
    const child = spawn("unshare", [...namespaces, process.execPath, file, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const told: Told[] = [];
    let words = "";
    const timer = setTimeout(() => {
      words += `\nnot done within ${withinMs} ms`;
      child.kill("SIGKILL");
    }, withinMs);
    t.after(() => child.kill("SIGKILL"));
    createInterface({ input: child.stdout }).on("line", (line) => told.push(JSON.parse(line) as Told));
    child.stderr.on("data", (chunk: Buffer) => (words += chunk.toString()));
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      if (code === 0) resolve(told);
      else reject(new Error(`${file} ended with ${code}: ${words.slice(-6000)}`));
    });
  });
}

/** From inside a story: something the test is to know. */
export function tell(fact: unknown): void {
  process.stdout.write(`${JSON.stringify(fact)}\n`);
}

/** A tool of the system, from inside a story. @returns what it printed */
export function tool(command: string, ...args: string[]): string {
  return execFileSync(command, args, { stdio: ["ignore", "pipe", "pipe"] }).toString();
}

/** Hosts h1, h2 … as network namespaces on one bridge: 10.77.0.1, 10.77.0.2 …, and the story itself at 10.77.0.254. */
export function makeHosts(count: number): string[] {
  tool("mkdir", "-p", "/run/netns");
  tool("mount", "-t", "tmpfs", "tmpfs", "/run/netns");
  tool("ip", "link", "set", "lo", "up");
  tool("ip", "link", "add", "br0", "type", "bridge");
  tool("ip", "addr", "add", "10.77.0.254/24", "dev", "br0");
  tool("ip", "link", "set", "br0", "up");
  return Array.from({ length: count }, (_, at) => {
    const name = `h${at + 1}`;
    tool("ip", "netns", "add", name);
    tool("ip", "link", "add", `to-${name}`, "type", "veth", "peer", "name", "eth0", "netns", name);
    tool("ip", "link", "set", `to-${name}`, "master", "br0", "up");
    tool("ip", "netns", "exec", name, "ip", "addr", "add", `10.77.0.${at + 1}/24`, "dev", "eth0");
    tool("ip", "netns", "exec", name, "ip", "link", "set", "eth0", "up");
    tool("ip", "netns", "exec", name, "ip", "link", "set", "lo", "up");
    return name;
  });
}

/** Packets from `from` are dropped where `host` receives them: no reset, no answer, as behind a broken link. */
export function dropFrom(host: string, from: readonly string[]): void {
  const rules = [
    "add table inet broken",
    "add chain inet broken input { type filter hook input priority 0 ; }",
    ...from.map((address) => `add rule inet broken input ip saddr ${address} drop`),
  ];
  for (const rule of rules) tool("ip", "netns", "exec", host, "nft", rule);
}

export function heal(host: string): void {
  tool("ip", "netns", "exec", host, "nft", "delete table inet broken");
}
