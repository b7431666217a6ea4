/**
 * The kernel of the machine in test/vm: Debian's own, taken out of its package. It is not installed: nothing but a folder
 * below build/ knows of it, and what boots this host stays as it is.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

export interface MachineKernel {
  readonly image: string;
  /** What uname -r says in it. */
  readonly release: string;
  /** As /lib/modules is: one folder for each release. */
  readonly modules: string;
}

/** The package without a version: it depends on the newest. */
const anyKernel = "linux-image-amd64";
const downloadMs = 300_000;

/** Takes the one that is there from the last time. @param folder  made when it is missing */
export function machineKernel(folder: string): MachineKernel {
  const tree = join(folder, "kernel");
  if (!existsSync(tree)) {
    const fresh = join(folder, "kernel.new");
    rmSync(fresh, { recursive: true, force: true });
    mkdirSync(fresh, { recursive: true });
    const depends = run("apt-cache", ["depends", anyKernel], folder);
    const name = /Depends: (linux-image-\S+)/u.exec(depends)?.[1];
    if (name === undefined) throw new Error(`Cannot find the kernel that ${anyKernel} stands for: run apt-get update`);
    run("apt-get", ["download", name], fresh);
    const deb = readdirSync(fresh).find((file) => file.endsWith(".deb")) ?? "";
    run("dpkg-deb", ["-x", deb, "."], fresh);
    rmSync(join(fresh, deb));
    const [release = ""] = readdirSync(join(fresh, "lib/modules"));
    run("depmod", ["-b", fresh, release], fresh);
    renameSync(fresh, tree);
  }
  const modules = join(tree, "lib/modules");
  const [release = ""] = readdirSync(modules);
  return { image: join(tree, "boot", `vmlinuz-${release}`), release, modules };
}

/** Files of these modules and of all that they need, each after what it needs. Paths below the release's folder. */
export function modulesInOrder({ modules, release }: MachineKernel, names: readonly string[]): string[] {
  const needs = new Map<string, string[]>();
  for (const line of readFileSync(join(modules, release, "modules.dep"), "utf8").split("\n")) {
    const [file = "", list = ""] = line.split(":");
    if (file !== "") needs.set(file, list.split(" ").filter(Boolean));
  }
  const order = new Set<string>();
  const add = (file: string): void => {
    if (order.has(file)) return;
    for (const needed of needs.get(file) ?? []) add(needed);
    order.add(file);
  };
  for (const name of names) {
    const file = [...needs.keys()].find((path) => path.endsWith(`/${name}.ko`));
    if (file === undefined) throw new Error(`Cannot boot kernel ${release}: it has no module ${name}`);
    add(file);
  }
  return [...order];
}

const run = (command: string, args: readonly string[], cwd: string): string =>
  execFileSync(command, [...args], {
    cwd,
    encoding: "utf8",
    timeout: downloadMs,
    stdio: ["ignore", "pipe", "inherit"],
  });
