/**
 * The flat table of commands: what leads to a command, what it does in a line, and where it is. A command's file is read
 * when it is run, so that `skep node ls` does not load what `skep run` needs.
 */
import type { Entry } from "./grammar/command.ts";

/** Each with what its help says. */
export const groups: Readonly<Record<string, string>> = {
  container: "Manage containers",
  system: "Manage the daemon",
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
  common: ["run", "exec", "ps", "why", "pull", "push", "images", "version", "info"],
  swarm: ["config", "node", "secret", "service", "stack", "swarm", "task"],
  node: ["container", "context", "image", "network", "system", "volume"],
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
const container = () => import("./container.ts");
const run = () => import("./container/run.ts");
const system = () => import("./system.ts");
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
  entry("network doctor", "Say what is wrong with this node's network", async () => (await network()).doctor),
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

  entry("container attach", "Attach to the streams of a container", async () => (await run()).attach, "attach"),
  entry("container commit", "Make an image of a container", async () => (await container()).commit, "commit"),
  entry(
    "container cp",
    "Copy files between a container and this machine",
    async () => (await import("./container/cp.ts")).cp,
    "cp",
  ),
  entry("container create", "Create a container", async () => (await run()).create, "create"),
  entry("container diff", "Show what a container changed in its files", async () => (await container()).diff, "diff"),
  entry(
    "container exec",
    "Run a command in a running container",
    async () => (await import("./container/exec.ts")).exec,
    "exec",
  ),
  entry(
    "container export",
    "Write a container's files as a tar archive",
    async () => (await container()).exportTar,
    "export",
  ),
  entry("container inspect", "Show everything about containers", async () => (await container()).inspect),
  entry("container kill", "Send containers a signal", async () => (await container()).kill, "kill"),
  entry("container logs", "Show the logs of a container", async () => (await container()).logs, "logs"),
  entry("container ls", "List containers", async () => (await container()).ls, "container list", "container ps", "ps"),
  entry("container pause", "Pause all processes of containers", async () => (await container()).pause, "pause"),
  entry("container port", "Show a container's published ports", async () => (await container()).port, "port"),
  entry("container prune", "Remove all stopped containers", async () => (await container()).prune),
  entry("container rename", "Rename a container", async () => (await container()).rename, "rename"),
  entry("container restart", "Restart containers", async () => (await container()).restart, "restart"),
  entry("container rm", "Remove containers", async () => (await container()).rm, "container remove", "rm"),
  entry("container run", "Create and start a container", async () => (await run()).run, "run"),
  entry("container start", "Start stopped containers", async () => (await run()).start, "start"),
  entry(
    "container stats",
    "Show what containers use, again and again",
    async () => (await import("./container/stats.ts")).stats,
    "stats",
  ),
  entry("container stop", "Stop containers", async () => (await container()).stop, "stop"),
  entry("container top", "List the processes of a container", async () => (await container()).top, "top"),
  entry("container unpause", "Let paused containers go on", async () => (await container()).unpause, "unpause"),
  entry("container update", "Change the limits of containers", async () => (await container()).update, "update"),
  entry(
    "container wait",
    "Wait until containers end, and print their exit codes",
    async () => (await run()).wait,
    "wait",
  ),

  entry("image history", "Show the layers of an image", async () => (await image()).history, "history"),
  entry("image import", "Make an image of a tar archive of files", async () => (await image()).importTar, "import"),
  entry("image inspect", "Show everything about images", async () => (await image()).inspect),
  entry("image load", "Load images from a tar archive or standard input", async () => (await image()).load, "load"),
  entry("image ls", "List images", async () => (await image()).ls, "image list", "images"),
  entry("image prune", "Remove unused images", async () => (await image()).prune),
  entry("image pull", "Get an image from a registry", async () => (await image()).pull, "pull"),
  entry("image push", "Send an image to a registry", async () => (await image()).push, "push"),
  entry("image rm", "Remove images", async () => (await image()).rm, "image remove", "rmi"),
  entry("image save", "Write images as a tar archive", async () => (await image()).save, "save"),
  entry("image tag", "Give an image another name", async () => (await image()).tag, "tag"),

  entry("system df", "Show what takes the disk's space", async () => (await system()).df),
  entry("system events", "Show what happens, as it happens", async () => (await system()).events, "events"),
  entry("system info", "Show the state of the daemon", async () => (await system()).info, "info"),
  entry("system prune", "Remove what is not used", async () => (await system()).prune),
  entry("version", "Show the versions of client and daemon", async () => (await system()).version),
  entry("completion", "Write the script that lets a shell complete commands", async () =>
    (await import("./completion.ts")).completionOf(entries, groups),
  ),
  entry("inspect", "Show everything about objects of any kind", async () => (await import("./inspect.ts")).inspect),
];
