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
  stack: "Manage stacks",
  secret: "Manage secrets of the swarm",
  config: "Manage configs of the swarm",
  task: "Explain tasks",
  network: "Manage networks",
  volume: "Manage volumes",
  image: "Manage images",
  context: "Manage contexts: daemons by name",
};

/** How the help of `skep` itself is ordered. */
export const groupOrder: Readonly<Record<"common" | "swarm" | "node", readonly string[]>> = {
  common: [],
  swarm: ["config", "node", "secret", "service", "stack", "swarm", "task"],
  node: ["context", "image", "network", "volume"],
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
const files = () => import("./stored-file.ts");
const stack = () => import("./stack.ts");
const network = () => import("./network.ts");
const volume = () => import("./volume.ts");
const context = () => import("./context.ts");
const why = () => import("./why.ts");
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

  entry("stack config", "Print the Compose file as it is understood", async () => (await stack()).config),
  entry("stack deploy", "Deploy a stack from a Compose file", async () => (await stack()).deploy, "stack up"),
  entry("stack ls", "List stacks", async () => (await stack()).ls, "stack list"),
  entry("stack ps", "List the tasks of a stack", async () => (await stack()).ps),
  entry("stack rm", "Remove stacks", async () => (await stack()).rm, "stack remove", "stack down"),
  entry("stack services", "List the services of a stack", async () => (await stack()).services),

  entry("secret create", "Create a secret from a file or standard input", async () => (await files()).secret.create),
  entry(
    "secret inspect",
    "Show everything about secrets but their content",
    async () => (await files()).secret.inspect,
  ),
  entry("secret ls", "List secrets", async () => (await files()).secret.ls, "secret list"),
  entry("secret rm", "Remove secrets", async () => (await files()).secret.rm, "secret remove"),
  entry("config create", "Create a config from a file or standard input", async () => (await files()).config.create),
  entry("config inspect", "Show everything about configs", async () => (await files()).config.inspect),
  entry("config ls", "List configs", async () => (await files()).config.ls, "config list"),
  entry("config rm", "Remove configs", async () => (await files()).config.rm, "config remove"),

  entry("why", "Explain why a service, task or node is not as it should be", async () => (await why()).any),
  entry("service why", "Explain why a service is not as it should be", async () => (await why()).service),
  entry("task why", "Explain why a task is not running", async () => (await why()).task),
  entry("node why", "Explain why a node takes no tasks", async () => (await why()).node),

  entry("network connect", "Connect a container to a network", async () => (await network()).connect),
  entry("network create", "Create a network", async () => (await network()).create),
  entry("network disconnect", "Disconnect a container from a network", async () => (await network()).disconnect),
  entry("network inspect", "Show everything about networks", async () => (await network()).inspect),
  entry("network ls", "List networks", async () => (await network()).ls, "network list"),
  entry("network prune", "Remove all unused networks", async () => (await network()).prune),
  entry("network rm", "Remove networks", async () => (await network()).rm, "network remove"),

  entry("volume create", "Create a volume", async () => (await volume()).create),
  entry("volume inspect", "Show everything about volumes", async () => (await volume()).inspect),
  entry("volume ls", "List volumes", async () => (await volume()).ls, "volume list"),
  entry("volume prune", "Remove unused volumes", async () => (await volume()).prune),
  entry("volume rm", "Remove volumes", async () => (await volume()).rm, "volume remove"),

  entry("context create", "Create a context", async () => (await context()).create),
  entry("context inspect", "Show everything about contexts", async () => (await context()).inspect),
  entry("context ls", "List contexts", async () => (await context()).ls, "context list"),
  entry("context rm", "Remove contexts", async () => (await context()).rm, "context remove"),
  entry("context use", "Choose the context that commands use", async () => (await context()).use),

  entry("image load", "Load images from a tar archive or standard input", async () => (await image()).load, "load"),
];
