/**
 * `npm run quickstart`: a real cluster of five hosts on this machine, shown step by step with the commands that a person
 * would type. `-- --smoke` checks each step, tears all down and ends with 0 or 1; `-- --stop` ends what was left up.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { parseArgs } from "node:util";

import { build, buildOutsider, remember, tearDown, type Host, type Outsider, type Site } from "./hosts.ts";
import { imageArchive } from "./image.ts";

const root = join(import.meta.dirname, "../..");
const site: Site = {
  name: "skepqs",
  subnet: "10.77.0",
  skepd: [process.execPath, join(root, "build/skepd.js")],
  env: { NODE_COMPILE_CACHE: join(root, "build/compile-cache") },
};
const cli = [process.execPath, join(root, "build/skep.js")] as const;
const managers = 3;
const workers = 2;
const service = "hello";

const { values } = parseArgs({
  options: { smoke: { type: "boolean", default: false }, stop: { type: "boolean", default: false } },
});

interface Result {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
  readonly ms: number;
}

const plain = process.env["NO_COLOR"] !== undefined || !process.stdout.isTTY;
const bold = (text: string): string => (plain ? text : `\u001b[1m${text}\u001b[0m`);
const dim = (text: string): string => (plain ? text : `\u001b[2m${text}\u001b[0m`);
const say = (text = ""): void => void process.stdout.write(`${text}\n`);

/** Runs `skep ...` against a host's daemon. */
function ask(host: Host, args: readonly string[], input?: Buffer): Promise<Result> {
  const startedMs = performance.now();
  return new Promise((resolve, reject) => {
    const [program, ...first] = cli;
    const child = spawn(program, [...first, "--host", `unix://${host.socket}`, ...args], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", ...site.env },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.once("error", reject);
    child.once("close", (code) => resolve({ stdout, stderr, code: code ?? 1, ms: performance.now() - startedMs }));
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
  });
}

class StepFailed extends Error {}

/** Shows the command and what came of it. @throws StepFailed when it fails */
async function type(host: Host, args: readonly string[], input?: Buffer, shown = args.join(" ")): Promise<string> {
  say(`${dim(`${host.name}$`)} ${bold(`skep ${shown}`)}`);
  const { stdout, stderr, code, ms } = await ask(host, args, input);
  const output = `${stdout}${stderr}`.trimEnd();
  if (output !== "") say(output.replaceAll(/^/gmu, "    "));
  if (code !== 0) throw new StepFailed(`"skep ${shown}" ended with ${code}`);
  say(dim(`    ${ms.toFixed(0)} ms`));
  return stdout.trim();
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new StepFailed(`expected ${what}`);
}

async function until(what: string, patienceMs: number, holds: () => Promise<boolean>): Promise<number> {
  const startedMs = performance.now();
  while (!(await holds())) {
    if (performance.now() - startedMs > patienceMs) throw new StepFailed(`${what}: not within ${patienceMs / 1000} s`);
    await wait(50);
  }
  return performance.now() - startedMs;
}

let step = 0;
const title = (text: string): void => say(`\n${bold(`${++step}. ${text}`)}`);

async function tasks(host: Host, format = "{{.Name}} {{.Image}} {{.Node}} {{.CurrentState}}"): Promise<string[]> {
  const { stdout, code } = await ask(host, [
    "service",
    "ps",
    service,
    "--filter",
    "desired-state=running",
    "--format",
    format,
  ]);
  return code === 0 ? stdout.trim().split("\n").filter(Boolean) : [];
}

async function tour(): Promise<void> {
  title(`Five hosts, each a network namespace of this machine: ${managers} for managers, ${workers} for workers`);
  const hosts = build(site, managers + workers);
  for (const host of hosts) host.start(["--label", `host=${host.name}`]);
  await Promise.all(hosts.map((host) => host.answers()));
  for (const { name, address, socket } of hosts) say(`    ${name}  ${address}  unix://${socket}`);
  remember(site, { hosts: hosts.map(({ name, address, socket }) => ({ name, address, socket })) });
  const [first, second, third, ...rest] = hosts as [Host, Host, Host, ...Host[]];

  title("The first manager makes the cluster");
  await type(first, ["swarm", "init", "--advertise-addr", first.address]);

  title("The others join with a token");
  const tokens = {
    manager: await type(first, ["swarm", "join-token", "--quiet", "manager"]),
    worker: await type(first, ["swarm", "join-token", "--quiet", "worker"]),
  };
  for (const host of [second, third, ...rest]) {
    const token = rest.includes(host) ? tokens.worker : tokens.manager;
    await type(
      host,
      ["swarm", "join", "--token", token, "--advertise-addr", host.address, `${first.address}:2377`],
      undefined,
      `swarm join --token ${token.slice(0, 16)}... ${first.address}:2377`,
    );
  }
  const listed = await type(first, ["node", "ls"]);
  check(listed.split("\n").length === hosts.length + 1, `${hosts.length} nodes`);

  title("An image from files of this machine, on every host; no registry is needed");
  for (const version of ["1", "2"]) {
    const image = await imageArchive({
      name: `hello:${version}`,
      command: ["/bin/hello"],
      labels: { version },
      files: helloFiles(version),
      platform: process.arch === "arm64" ? "arm64" : "amd64",
    });
    for (const host of hosts) {
      const { code, stderr } = await ask(host, ["image", "load"], image);
      check(code === 0, `image load on ${host.name}: ${stderr}`);
    }
  }
  await type(first, ["image", "ls"]);

  title("A service of five replicas");
  await type(first, ["service", "create", "--name", service, "--replicas", "5", "--no-resolve-image", "hello:1"]);
  await type(first, ["service", "ps", service]);
  check((await tasks(first)).length === 5, "five running tasks");

  title("A rolling update, two at a time");
  await type(first, [
    "service",
    "update",
    "--image",
    "hello:2",
    "--no-resolve-image",
    "--update-parallelism",
    "2",
    service,
  ]);
  check(
    (await tasks(first, "{{.Image}}")).every((image) => image === "hello:2"),
    "every task on hello:2",
  );
  await type(first, ["service", "ls"]);

  title("The leader is killed (kill -9): another takes over");
  const leader = await leaderOf(hosts);
  say(`${dim(`${leader.name}#`)} ${bold(`kill -9 ${leader.pid ?? ""}`)}`);
  await leader.kill();
  const survivor = hosts.find((host) => host !== leader && hosts.indexOf(host) < managers) ?? second;
  const takeoverMs = await until("another leader", 20_000, async () => {
    const { code } = await ask(survivor, ["service", "update", "--detach", "--label-add", "after=failover", service]);
    return code === 0;
  });
  say(`    the first change was accepted ${takeoverMs.toFixed(0)} ms later, the command's own start included`);
  await type(survivor, ["node", "ls"]);
  leader.start(["--label", `host=${leader.name}`]);
  await leader.answers();
  say(`    ${leader.name} is started again; its containers went on running`);

  title("A worker is drained: its tasks move");
  const drained = rest[0] ?? third;
  await type(survivor, ["node", "update", "--availability", "drain", drained.name]);
  const movedMs = await until("the tasks to move", 60_000, async () => {
    const running = (await tasks(survivor)).filter((line) => line.includes("Running"));
    return running.length === 5 && running.every((line) => !line.includes(` ${drained.name} `));
  });
  say(`    moved within ${(movedMs / 1000).toFixed(1)} s`);
  await type(survivor, ["service", "ps", service, "--filter", "desired-state=running"]);
  await type(survivor, ["node", "update", "--availability", "active", drained.name]);

  title("Why is a task not running? skep tells");
  await type(survivor, [
    "service",
    "create",
    "--detach",
    "--name",
    "picky",
    "--no-resolve-image",
    "--constraint",
    "node.labels.disk==ssd",
    "hello:2",
  ]);
  await until("the reason", 10_000, async () =>
    (await ask(survivor, ["service", "why", "picky"])).stdout.includes("disk"),
  );
  await type(survivor, ["service", "why", "picky"]);
  await type(survivor, ["service", "rm", "picky"]);

  title("The world reaches the service on every host, and the service sees who it is");
  const client = buildOutsider(site);
  say(`    a client outside the cluster: ${client.address}`);
  await type(survivor, ["service", "update", "--quiet", "--publish-add", "8080:80", service]);
  for (const { address } of hosts) {
    const url = `http://${address}:8080/`;
    say(`${dim("client$")} ${bold(`curl ${url}`)}`);
    let answer = "";
    await until(`an answer of ${url}`, 20_000, async () => {
      answer = await get(client, url);
      return answer !== "";
    });
    say(`    ${answer}`);
    check(answer.endsWith(`you are ${client.address}`), `the client's own address, ${client.address}`);
  }
}

/** What the outsider is answered, by the way of `curl`; empty: nothing within two seconds. */
async function get({ namespace }: Outsider, url: string): Promise<string> {
  const fetching = `fetch(${JSON.stringify(url)}, { signal: AbortSignal.timeout(2000) })`;
  const program = `${fetching}.then((answer) => answer.text()).then(console.log, () => undefined)`;
  const child = spawn("ip", ["netns", "exec", namespace, process.execPath, "-e", program], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  let text = "";
  for await (const chunk of child.stdout.setEncoding("utf8")) text += String(chunk);
  return text.trim();
}

/** Says who it is and who asks, on port 80, until it is told to stop. */
function helloFiles(version: string): Readonly<Record<string, string>> {
  return {
    "/bin/hello": `#!/bin/sh
echo "hello from version ${version}"
busybox httpd -f -p 80 -h /www &
trap 'kill $!; exit 0' TERM
wait $!
`,
    "/www/cgi-bin/index.cgi": `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
client=\${REMOTE_ADDR##*:}
echo "hello from version ${version} on $(hostname); you are \${client%]}"
`,
  };
}

async function leaderOf(hosts: readonly Host[]): Promise<Host> {
  const [first] = hosts as [Host];
  const { stdout } = await ask(first, ["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
  const name = stdout
    .split("\n")
    .find((line) => line.endsWith(" Leader"))
    ?.split(" ")[0];
  const leader = hosts.find((host) => host.name === name);
  check(leader !== undefined, "a leader in `node ls`");
  return leader ?? first;
}

function farewell(): void {
  say(`
${bold("The cluster is up.")} Try:
    export SKEP_HOST=unix:///run/${site.name}/host2/skep.sock
    alias skep="${cli.join(" ")}"
    skep service scale ${service}=8
    skep service logs ${service}
    skep service rollback ${service}
    skep node ls
The docker command works, too: DOCKER_HOST=$SKEP_HOST docker service ls

${bold("To end it and remove every trace:")} npm run quickstart -- --stop`);
}

function refuseEarly(): void {
  if (process.getuid?.() !== 0) throw new StepFailed("the hosts are network namespaces, which need root: use sudo");
  for (const program of ["ip", "nsenter", "unshare", "/usr/bin/busybox"]) {
    if (spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0) {
      throw new StepFailed(`${program} is missing; npm run setup installs it`);
    }
  }
  if (!existsSync(join(root, "native/build/isolate")))
    throw new StepFailed("native/ is not built; npm run build:native");
}

try {
  refuseEarly();
  await tearDown(site);
  if (!values.stop) {
    try {
      await tour();
    } catch (error) {
      if (values.smoke) await tearDown(site);
      throw error;
    }
    if (values.smoke) {
      await tearDown(site);
      say("\nquickstart: every step passed, and nothing is left");
    } else farewell();
  } else say("quickstart: nothing is left");
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`\nquickstart: ${message}\n`);
  if (!values.smoke && !values.stop)
    process.stderr.write("quickstart: npm run quickstart -- --stop removes what is there\n");
  process.exitCode = 1;
}
