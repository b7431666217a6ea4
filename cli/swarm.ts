/** `skep swarm`: making, joining and keeping a swarm. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { ExternalCa, Info, Swarm, SwarmNode, SwarmSpec } from "./api/types.ts";
import { CommandError, messageOf } from "./errors.ts";
import { command, exactly, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { csv, split } from "./service/read.ts";
import type { Session } from "./session.ts";

const availability = flag.choice("Availability of the node", ["active", "pause", "drain"], {
  shownDefault: '"active"',
});
const listenAddr = flag.text("Address to listen on (format: <ip|interface>[:port])", {
  type: "node-addr",
  shownDefault: "0.0.0.0:2377",
});
const advertiseAddr = flag.text("Address to tell the others (format: <ip|interface>[:port])");
const dataPathAddr = flag.text("Address or interface of the overlay networks' traffic (format: <ip|interface>)");
const externalCas = flag.listOf(
  "External authority (format: protocol=cfssl,url=URL); not supported, and refused",
  readExternalCa,
  {
    type: "external-ca",
  },
);

/** Of the cluster's specification: in `init` and in `update`. */
const specFlags = {
  autolock: flag.bool("Lock managers: a restart needs the unlock key"),
  "cert-expiry": flag.duration("Life of the nodes' certificates (ns|us|ms|s|m|h)", { shownDefault: "2160h0m0s" }),
  "dispatcher-heartbeat": flag.duration("Time between two heartbeats of a node (ns|us|ms|s|m|h)", {
    shownDefault: "5s",
  }),
  "external-ca": externalCas,
  "max-snapshots": flag.uint("Raft snapshots to keep besides the newest"),
  "snapshot-interval": flag.uint("Log entries between two Raft snapshots", { shownDefault: "10000" }),
  "task-history-limit": flag.int("Ended tasks to keep of each slot", { shownDefault: "5" }),
};

export const init = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    ...specFlags,
    "advertise-addr": advertiseAddr,
    availability,
    "data-path-addr": dataPathAddr,
    "data-path-port": flag.uint("Port of the overlay networks' traffic; only 4789, which 0 stands for, is there"),
    "default-addr-pool": flag.list("Address pool of networks (CIDR)", { type: "ipNetSlice" }),
    "default-addr-pool-mask-length": flag.uint("Length of a network's mask within the pool", { shownDefault: "24" }),
    "force-new-cluster": flag.bool("Make a swarm of one manager from this one's present state"),
    "listen-addr": listenAddr,
  },
  async run(session, flags) {
    const api = await session.api();
    const spec: SwarmSpec = {
      Labels: null,
      Orchestration: {},
      Raft: { ElectionTick: 0, HeartbeatTick: 0 },
      Dispatcher: {},
      CAConfig: {},
      TaskDefaults: {},
      EncryptionConfig: { AutoLockManagers: false },
    };
    applySpec(spec, flags);
    const nodeId = await api.post<string>("/swarm/init", {
      body: {
        ListenAddr: flags["listen-addr"] ?? "0.0.0.0:2377",
        AdvertiseAddr: flags["advertise-addr"] ?? "",
        DataPathAddr: flags["data-path-addr"] ?? "",
        DataPathPort: flags["data-path-port"] ?? 0,
        ForceNewCluster: flags["force-new-cluster"] ?? false,
        Spec: spec,
        AutoLockManagers: flags.autolock ?? false,
        Availability: flags.availability ?? "",
        DefaultAddrPool: (flags["default-addr-pool"] ?? []).flatMap((pools) => pools.split(",")),
        SubnetSize: flags["default-addr-pool-mask-length"] ?? 24,
      },
    });
    session.print(`Swarm initialized: current node (${nodeId}) is now a manager.\n`);
    await printJoinCommand(session, nodeId, "worker");
    session.print("To add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.\n");
    if (flags.autolock === true) await printUnlockKey(session, false);
  },
});

function applySpec(spec: SwarmSpec, flags: flag.Values<typeof specFlags>): void {
  const history = flags["task-history-limit"];
  if (history !== undefined) spec.Orchestration.TaskHistoryRetentionLimit = history;
  const heartbeat = flags["dispatcher-heartbeat"];
  if (heartbeat !== undefined) spec.Dispatcher.HeartbeatPeriod = heartbeat;
  const interval = flags["snapshot-interval"];
  if (interval !== undefined) spec.Raft.SnapshotInterval = interval;
  const kept = flags["max-snapshots"];
  if (kept !== undefined) spec.Raft.KeepOldSnapshots = kept;
  applyCa(spec, flags);
  if (flags.autolock !== undefined) spec.EncryptionConfig.AutoLockManagers = flags.autolock;
}

function applyCa(
  spec: SwarmSpec,
  flags: { "cert-expiry"?: number | undefined; "external-ca"?: ExternalCa[] | undefined },
): void {
  if (flags["cert-expiry"] !== undefined) spec.CAConfig.NodeCertExpiry = flags["cert-expiry"];
  if (flags["external-ca"] !== undefined) spec.CAConfig.ExternalCAs = flags["external-ca"];
}

export const join = command({
  usage: "[OPTIONS] HOST:PORT",
  args: exactly(1),
  flags: {
    "advertise-addr": advertiseAddr,
    availability,
    "data-path-addr": dataPathAddr,
    "listen-addr": listenAddr,
    token: flag.text("Token that lets this node in"),
  },
  async run(session, flags, [address = ""]) {
    const api = await session.api();
    await api.post("/swarm/join", {
      body: {
        ListenAddr: flags["listen-addr"] ?? "0.0.0.0:2377",
        AdvertiseAddr: flags["advertise-addr"] ?? "",
        DataPathAddr: flags["data-path-addr"] ?? "",
        RemoteAddrs: [address],
        JoinToken: flags.token ?? "",
        Availability: flags.availability ?? "",
      },
    });
    const info = await api.get<Info>("/info");
    session.print(
      info.Swarm?.ControlAvailable === true
        ? "This node joined a swarm as a manager."
        : "This node joined a swarm as a worker.",
    );
  },
});

const rotations = { worker: "rotateWorkerToken", manager: "rotateManagerToken", unlockKey: "rotateManagerUnlockKey" };

/** Posts the cluster's whole specification back. */
async function updateSwarm(session: Session, swarm: Swarm, rotate?: keyof typeof rotations): Promise<void> {
  const api = await session.api();
  const query = Object.fromEntries(Object.entries(rotations).map(([what, key]) => [key, String(what === rotate)]));
  await api.post("/swarm/update", { query: { version: swarm.Version.Index, ...query }, body: swarm.Spec });
}

async function readSwarm(session: Session): Promise<Swarm> {
  return (await session.api()).get<Swarm>("/swarm");
}

export const joinToken = command({
  usage: "[OPTIONS] (worker|manager)",
  args: exactly(1),
  flags: { quiet: flag.quiet("Print the token only"), rotate: flag.bool("Replace the token") },
  async run(session, flags, [role = ""]) {
    if (role !== "worker" && role !== "manager") throw new CommandError(`unknown role ${role}`);
    if (flags.rotate === true) {
      await updateSwarm(session, await readSwarm(session), role);
      if (flags.quiet !== true) session.print(`Successfully rotated ${role} join token.\n`);
    }
    // A worker has no token to show; the answer to this says so best.
    const { JoinTokens: tokens } = await readSwarm(session);
    if (flags.quiet === true) {
      session.print(role === "worker" ? tokens.Worker : tokens.Manager);
      return;
    }
    const info = await (await session.api()).get<Info>("/info");
    await printJoinCommand(session, info.Swarm?.NodeID ?? "", role);
  },
});

async function printJoinCommand(session: Session, nodeId: string, role: "worker" | "manager"): Promise<void> {
  const api = await session.api();
  const node = await api.get<SwarmNode>(`/nodes/${nodeId}`);
  const { JoinTokens: tokens } = await readSwarm(session);
  if (node.ManagerStatus === undefined) return;
  session.print(`To add a ${role} to this swarm, run the following command:\n`);
  session.print(
    `    skep swarm join --token ${role === "worker" ? tokens.Worker : tokens.Manager} ${node.ManagerStatus.Addr ?? ""}\n`,
  );
}

export const leave = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { force: flag.bool("Leave whatever happens to the swarm", { short: "f" }) },
  async run(session, flags) {
    const api = await session.api();
    await api.post("/swarm/leave", { query: { force: flags.force === true ? 1 : undefined } });
    session.print("Node left the swarm.");
  },
});

export const update = command({
  usage: "[OPTIONS]",
  args: none,
  flags: specFlags,
  async run(session, flags) {
    if (Object.values(flags).every((value) => value === undefined)) {
      throw new CommandError("nothing to update: see 'skep swarm update --help'");
    }
    const swarm = await readSwarm(session);
    const wasLocked = swarm.Spec.EncryptionConfig.AutoLockManagers;
    applySpec(swarm.Spec, flags);
    await updateSwarm(session, swarm);
    session.print("Swarm updated.");
    if (flags.autolock === true && !wasLocked) await printUnlockKey(session, true);
  },
});

interface UnlockKey {
  readonly UnlockKey: string;
}

async function printUnlockKey(session: Session, newlineFirst: boolean): Promise<void> {
  const { UnlockKey: key } = await (await session.api()).get<UnlockKey>("/swarm/unlockkey");
  if (newlineFirst) session.print("");
  session.print(
    `To unlock a swarm manager after it restarts, run the \`skep swarm unlock\`\ncommand and provide the following key:\n\n    ${key}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager.`,
  );
}

export const unlockKey = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { quiet: flag.quiet("Print the key only"), rotate: flag.bool("Replace the key") },
  async run(session, flags) {
    const api = await session.api();
    if (flags.rotate === true) {
      const swarm = await readSwarm(session);
      if (!swarm.Spec.EncryptionConfig.AutoLockManagers) {
        throw new CommandError("cannot rotate because autolock is not turned on");
      }
      await updateSwarm(session, swarm, "unlockKey");
      if (flags.quiet !== true) session.print("Successfully rotated manager unlock key.\n");
    }
    const { UnlockKey: key } = await api.get<UnlockKey>("/swarm/unlockkey");
    if (key === "") throw new CommandError("no unlock key is set");
    if (flags.quiet === true) session.print(key);
    else await printUnlockKey(session, false);
  },
});

export const unlock = command({
  usage: "",
  args: none,
  flags: {},
  async run(session) {
    const api = await session.api();
    const { Swarm: state } = await api.get<Info>("/info");
    switch (state?.LocalNodeState) {
      case "locked":
        break;
      case "inactive":
        throw new CommandError("Error: This node is not part of a swarm");
      default:
        throw new CommandError("Error: swarm is not locked");
    }
    const key = await askSecret(session, "Please enter unlock key: ");
    await api.post("/swarm/unlock", { body: { UnlockKey: key } });
  },
});

/** Not echoed on a terminal; from a pipe, its first line. */
async function askSecret(session: Session, prompt: string): Promise<string> {
  const { stdin, stdout } = session;
  if (stdin.isTTY !== true) {
    const lines = createInterface({ input: stdin });
    for await (const line of lines) {
      lines.close();
      return line.trim();
    }
    return "";
  }
  stdout.write(prompt);
  stdin.setRawMode?.(true);
  try {
    let typed = "";
    for await (const chunk of stdin) {
      for (const char of String(chunk)) {
        if (char === "\r" || char === "\n") return typed;
        if (char === "\u0003") throw new CommandError("", 130);
        typed = char === "\u007f" ? typed.slice(0, -1) : typed + char;
      }
    }
    return typed;
  } finally {
    stdin.setRawMode?.(false);
    stdout.write("\n");
  }
}

export const ca = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    "ca-cert": flag.one("PEM file of the new root certificate", "pem-file", readPem),
    "ca-key": flag.one("PEM file of the new root key", "pem-file", readPem),
    "cert-expiry": flag.duration("Life of the nodes' certificates (ns|us|ms|s|m|h)", { shownDefault: "2160h0m0s" }),
    detach: flag.detach("Return at once instead of waiting for the root rotation to end"),
    "external-ca": externalCas,
    quiet: flag.quiet("Print no progress"),
    rotate: flag.bool("Replace the root of trust; without a certificate and key, by a new one"),
  },
  async run(session, flags) {
    const swarm = await readSwarm(session);
    if (flags.rotate !== true) {
      for (const name of ["ca-cert", "ca-key", "cert-expiry", "external-ca"] as const) {
        if (flags[name] !== undefined)
          throw new CommandError(`\`--${name}\` flag requires the \`--rotate\` flag to update the CA`);
      }
      printRoot(session, swarm);
      return;
    }
    if (flags["ca-key"] !== undefined && flags["ca-cert"] === undefined) {
      throw new CommandError("the --ca-key flag requires that a --ca-cert flag and a value");
    }
    applyCa(swarm.Spec, flags);
    const config = swarm.Spec.CAConfig;
    if (flags["ca-cert"] === undefined) config.ForceRotate = (config.ForceRotate ?? 0) + 1;
    else config.SigningCACert = flags["ca-cert"];
    if (flags["ca-key"] !== undefined) config.SigningCAKey = flags["ca-key"];
    await updateSwarm(session, swarm);
    if (flags.detach === true) return;
    await waitForRotation(session, flags.quiet === true);
    printRoot(session, await readSwarm(session));
  },
});

function printRoot(session: Session, { TLSInfo: tls }: Swarm): void {
  if (tls?.TrustRoot === undefined || tls.TrustRoot === "") {
    throw new CommandError("No CA information available");
  }
  session.print(tls.TrustRoot.trimEnd());
}

/** Until the managers say that it is over and every node that is up trusts the new root. */
async function waitForRotation(session: Session, quiet: boolean): Promise<void> {
  const api = await session.api();
  const signal = session.interrupted;
  let told = "";
  for (;;) {
    const swarm = await api.get<Swarm>("/swarm", { signal });
    const nodes = await api.get<SwarmNode[]>("/nodes", { signal });
    const trusting = nodes.filter(({ Description: { TLSInfo: tls } }) => tls?.TrustRoot === swarm.TLSInfo?.TrustRoot);
    const digest = createHash("sha256")
      .update(swarm.TLSInfo?.TrustRoot ?? "")
      .digest("hex");
    const line = `desired root digest: sha256:${digest}, rotated TLS certificates: ${trusting.length}/${nodes.length} nodes`;
    if (!quiet && line !== told) session.warn(line);
    told = line;
    if (swarm.RootRotationInProgress !== true && trusting.length === nodes.length) return;
    await sleep(200, undefined, { signal });
  }
}

function readPem(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

function readExternalCa(text: string): ExternalCa {
  const found: ExternalCa = { Protocol: "", URL: "", CACert: "" };
  for (const field of csv(text)) {
    const [key, value] = split(field);
    if (value === undefined) throw new Error(`invalid field '${field}' must be a key=value pair`);
    switch (key.toLowerCase()) {
      case "protocol":
        if (value.toLowerCase() !== "cfssl") throw new Error(`unrecognized external CA protocol ${value}`);
        found.Protocol = "cfssl";
        break;
      case "url":
        found.URL = value;
        break;
      case "cacert":
        found.CACert = readPem(value);
        break;
      default:
        (found.Options ??= {})[key.toLowerCase()] = value;
    }
  }
  if (found.Protocol === "") throw new Error("the external-ca option needs a protocol= parameter");
  if (found.URL === "") throw new Error("the external-ca option needs a url= parameter");
  return found;
}
