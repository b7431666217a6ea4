/** A host of its own for netplane: a network and a mount namespace that a sleeping process holds, and netplane inside. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { Random } from "../../../lib/pure/prng.ts";
import { realClock, silentLogger } from "../../../lib/runtime/index.ts";
import { Netplane } from "../../../worker/network/netplane.ts";
import type { NamespaceChanged } from "../../../worker/network/netplane-types.ts";

const native = resolve(import.meta.dirname, "../../../native/build");

/** NETPLANE names another build of the program, such as native/build/asan/netplane, whose reports then fail the test. */
export const netplaneProgram = resolve(process.env["NETPLANE"] ?? join(native, "netplane"));
export const nativeBuild = native;

export class NetplaneHost {
  readonly folder: string;
  readonly netplane: Netplane;
  readonly #holder: ChildProcess;
  readonly #changes: (NamespaceChanged | undefined)[] = [];
  #wake: () => void = () => undefined;

  private constructor(folder: string, holder: ChildProcess, netplane: Netplane) {
    this.folder = folder;
    this.#holder = holder;
    this.netplane = netplane;
    netplane.onChange((change) => {
      this.#changes.push(change);
      this.#wake();
    });
  }

  /** @param command  starts netplane; what it leaves in files `report*` of the folder fails the test */
  static async open(command: (folder: string) => readonly string[] = () => [netplaneProgram]): Promise<NetplaneHost> {
    const folder = mkdtempSync(join(tmpdir(), "skepnp-"));
    const holder = spawn(
      "unshare",
      ["--net", "--mount", "--propagation", "private", "sh", "-c", "ip link set lo up && echo ready && exec sleep 600"],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    try {
      await once(holder.stdout, "data");
      const script = `echo $$ > ${folder}/pid; ASAN_OPTIONS=log_path=${folder}/report exec "$@"`;
      const netplane = await Netplane.open({
        program: "nsenter",
        args: [...NetplaneHost.#inside(holder), "sh", "-c", script, "sh", ...command(folder)],
        clock: realClock,
        random: new Random(1),
        logger: silentLogger,
      });
      return new NetplaneHost(folder, holder, netplane);
    } catch (error) {
      holder.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  static #inside(holder: ChildProcess): string[] {
    return [`--mount=/proc/${holder.pid}/ns/mnt`, `--net=/proc/${holder.pid}/ns/net`];
  }

  /** Where the file of a namespace of this host is. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** Arguments of nsenter(1) that lead into a namespace of this host; "" is the host's own. */
  into(namespace: string): string[] {
    const net = namespace === "" ? [] : [`--net=${namespace}`];
    // The file of the namespace is looked for before the mount namespace is entered, unless nsenter is started inside.
    return [...NetplaneHost.#inside(this.#holder), "nsenter", ...net];
  }

  /** Runs a command line in a namespace and answers what it printed. Throws when it fails. */
  sh(namespace: string, command: string): string {
    return execFileSync("nsenter", [...this.into(namespace), "sh", "-c", command], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      timeout: 60_000,
      // Whatever the language of whoever runs this.
      env: { ...process.env, LC_ALL: "C" },
    });
  }

  /** What was told since the last time, by namespace; waits for at least one. */
  async changes(): Promise<(NamespaceChanged | undefined)[]> {
    while (this.#changes.length === 0) await new Promise<void>((wake) => (this.#wake = wake));
    return this.#changes.splice(0);
  }

  /** Without waiting. */
  changesSoFar(): (NamespaceChanged | undefined)[] {
    return this.#changes.splice(0);
  }

  /** Of the netplane that runs now. */
  pid(): number {
    return Number(readFileSync(this.path("pid"), "utf8"));
  }

  async close(): Promise<void> {
    await this.netplane[Symbol.asyncDispose]();
    const ended = once(this.#holder, "exit");
    this.#holder.kill("SIGKILL");
    await ended;
    const reports = readdirSync(this.folder).filter((name) => name.startsWith("report"));
    const said = reports.map((name) => readFileSync(this.path(name), "utf8")).join("");
    rmSync(this.folder, { recursive: true, force: true });
    if (said !== "") throw new Error(said);
  }
}
