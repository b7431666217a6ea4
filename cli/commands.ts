/**
 * The flat table of commands: what leads to a command, what it does in a line, and where it is. A command's file is read
 * when it is run, so that `skep node ls` does not load what `skep run` needs.
 */
import type { Command } from "./grammar/command.ts";

export interface Entry {
  readonly path: string;
  readonly aliases: readonly string[];
  readonly summary: string;
  load(): Promise<Command>;
}

/** Each with what its help says. */
export const groups: Readonly<Record<string, string>> = {
  node: "Manage the nodes of the swarm",
  service: "Manage services",
  swarm: "Manage the swarm",
  image: "Manage images",
};

/** How the help of `skep` itself is ordered. */
export const groupOrder: Readonly<Record<"common" | "swarm" | "node", readonly string[]>> = {
  common: [],
  swarm: ["node", "service", "swarm"],
  node: ["image"],
};

const entry = (path: string, summary: string, load: Entry["load"], ...aliases: string[]): Entry => ({
  path,
  aliases,
  summary,
  load,
});

const swarm = () => import("./swarm.ts");
const node = () => import("./node.ts");
const service = () => import("./service.ts");
const image = () => import("./image.ts");

export const entries: readonly Entry[] = [
  entry("swarm ca", "Show the root certificate of the swarm, or replace it", async () => (await swarm()).ca),
  entry("swarm init", "Make a swarm of this node", async () => (await swarm()).init),
  entry("swarm join", "Join a swarm as a worker or manager", async () => (await swarm()).join),
  entry("swarm join-token", "Show or replace the tokens that let nodes join", async () => (await swarm()).joinToken),
  entry("swarm leave", "Leave the swarm", async () => (await swarm()).leave),
  entry("swarm unlock", "Unlock a manager after a restart", async () => (await swarm()).unlock),
  entry("swarm unlock-key", "Show or replace the key that unlocks managers", async () => (await swarm()).unlockKey),
  entry("swarm update", "Change the swarm's settings", async () => (await swarm()).update),

  entry("node demote", "Make managers workers", async () => (await node()).demote),
  entry("node inspect", "Show everything about nodes", async () => (await node()).inspect),
  entry("node ls", "List the nodes of the swarm", async () => (await node()).ls, "node list"),
  entry("node promote", "Make workers managers", async () => (await node()).promote),
  entry("node ps", "List the tasks of nodes; of this node when none is named", async () => (await node()).ps),
  entry("node rm", "Remove nodes from the swarm", async () => (await node()).rm, "node remove"),
  entry("node update", "Change a node", async () => (await node()).update),

  entry("service create", "Create a service", async () => (await service()).create),
  entry("service inspect", "Show everything about services", async () => (await service()).inspect),
  entry("service logs", "Show the logs of a service or task", async () => (await service()).logs),
  entry("service ls", "List services", async () => (await service()).ls, "service list"),
  entry("service ps", "List the tasks of services", async () => (await service()).ps),
  entry("service rm", "Remove services", async () => (await service()).rm, "service remove"),
  entry("service rollback", "Go back to the previous specification", async () => (await service()).rollback),
  entry("service scale", "Set the number of tasks of services", async () => (await service()).scale),
  entry("service update", "Change a service", async () => (await service()).update),

  entry("image load", "Load images from a tar archive or standard input", async () => (await image()).load, "load"),
];
