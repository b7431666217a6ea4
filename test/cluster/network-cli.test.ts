/** Networks as a user of the docker CLI knows them: of one node and of the swarm, on two hosts with real daemons. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { imageArchive } from "../../deploy/quickstart/image.ts";
import { ask, hindrance, World } from "./world.ts";

const why = hindrance || (spawnSync("docker", ["--version"]).status === 0 ? false : "needs the docker CLI");
const cli = join(import.meta.dirname, "../../cli/main.ts");
const slow = 60_000;

interface Said {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** As a user on the host types it; bounded. @param input  what is typed after that */
function type(host: Host, command: readonly string[], input = ""): Promise<Said> {
  const [program, args] = host.command(command);
  return new Promise((resolve, reject) => {
    const socket = `unix://${host.socket}`;
    const env = { ...process.env, DOCKER_HOST: socket, SKEP_HOST: socket, DOCKER_CONFIG: "/nonexistent" };
    const child = spawn(program, args, { env, timeout: 60_000, stdio: ["pipe", "pipe", "pipe"] });
    // Who asks nothing may have ended before.
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out: out.trim(), err: err.trim() }));
  });
}

async function docker(host: Host, ...args: readonly string[]): Promise<string> {
  const { code, out, err } = await type(host, ["docker", ...args]);
  assert.equal(code, 0, `docker ${args.join(" ")}: ${err} ${out}`);
  return out;
}

async function refused(host: Host, wanted: RegExp, ...args: readonly string[]): Promise<void> {
  const { code, err } = await type(host, ["docker", ...args]);
  assert.notEqual(code, 0, `docker ${args.join(" ")} was not refused`);
  assert.match(err, wanted);
}

/** Runs to its end on these networks. */
const once = (host: Host, flags: readonly string[], script: string): Promise<string> =>
  docker(host, "run", "--rm", ...flags, "box:1", "sh", "-c", script);
const inside = (host: Host, container: string, script: string): Promise<string> =>
  docker(host, "exec", container, "sh", "-c", script);
/** Addresses of a name, as a container is told them, in order; none: "". */
async function lookUp(host: Host, container: string, name: string): Promise<string> {
  const said = await inside(host, container, `busybox nslookup -type=a ${name} || true`);
  const answer = said.split("\n").slice(2).join("\n");
  return [...answer.matchAll(/Address: (\S+)/g)]
    .map(([, address]) => address ?? "")
    .toSorted()
    .join(" ");
}
/** Likewise of IPv6. */
async function lookUp6(host: Host, container: string, name: string): Promise<string> {
  const said = await inside(host, container, `busybox nslookup -type=aaaa ${name} || true`);
  const answer = said.split("\n").slice(2).join("\n");
  return [...answer.matchAll(/Address: (\S+)/g)]
    .map(([, address]) => address ?? "")
    .toSorted()
    .join(" ");
}
/** What it is served by whoever has the name. (The C library of a static busybox cannot look names up by itself.) */
async function fetchFrom(host: Host, container: string, name: string): Promise<string> {
  const [address = ""] = (await lookUp(host, container, name)).split(" ");
  return inside(host, container, fetch(address));
}
const addressOf = (host: Host, container: string, network: string): Promise<string> =>
  docker(host, "inspect", "-f", `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`, container);
/** Programs that look a name up by the C library: glibc's with all that it loads, and musl's in one file. */
function lookUpFiles(): Record<string, Buffer> {
  const folder = mkdtempSync(join(tmpdir(), "sknc-"));
  try {
    const source = join(import.meta.dirname, "../support/look-up.c");
    const made = (compiler: string, ...flags: readonly string[]): string => {
      const path = join(folder, compiler);
      const { status, stderr } = spawnSync(compiler, ["-O1", ...flags, "-o", path, source], { encoding: "utf8" });
      assert.equal(status, 0, `${compiler}: ${stderr}`);
      return path;
    };
    const glibc = made("gcc");
    const { stdout } = spawnSync("ldd", [glibc], { encoding: "utf8" });
    const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path ?? "");
    return {
      "/bin/look-up-glibc": readFileSync(glibc),
      "/bin/look-up-musl": readFileSync(made("musl-gcc", "-static")),
      ...Object.fromEntries(libraries.map((path) => [path, readFileSync(path)])),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Of the host on the link between them. */
const address6 = ({ address }: Host): string => `fd78::${address.split(".").at(-1)}`;
const serve = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
const fetch = (address: string): string => `busybox wget -q -O - http://${address}/group`;

describe("networks by the docker CLI", { skip: why, timeout: 600_000 }, () => {
  let world: World;
  let a: Host;
  let b: Host;

  before(async () => {
    world = await World.open("sknc", 1, 1);
    [a, b] = world.hosts as [Host, Host];
    for (const host of [a, b])
      await type(host, ["ip", "-6", "address", "add", `${address6(host)}/64`, "dev", "eth0", "nodad"]);
    const platform = process.arch === "arm64" ? "arm64" : "amd64";
    const image = await imageArchive({
      name: "box:1",
      command: ["sleep", "1000"],
      labels: {},
      files: lookUpFiles(),
      platform,
    });
    for (const host of [a, b]) assert.equal((await ask(host, "POST", "/images/load?quiet=1", image)).status, 200);
  });
  after(() => world.close());

  /** What has just been started may not listen yet, and other hosts hear of it a moment later. */
  const untilServed = (what: string, said: () => Promise<string>): Promise<number> =>
    world.until(what, slow, async () => (await said().catch(() => "")).startsWith("root:"));
  const untilPage = (from: Host, address: string): Promise<number> =>
    untilServed(`${address} from ${from.name}`, async () => {
      return (await type(from, ["busybox", "wget", "-q", "-O", "-", `http://${address}/group`])).out;
    });

  /** A busy machine may leave another node's answer waiting, which is told, too. */
  async function untilDoctor(host: Host, code: number, says: RegExp): Promise<void> {
    let last: Said | undefined;
    await world
      .until("the doctor's word", slow, async () => {
        last = await type(host, [process.execPath, cli, "network", "doctor"]);
        return last.code === code && says.test(last.out);
      })
      .catch((error: unknown) => assert.fail(`${String(error)}\n${last?.code}: ${last?.out}`));
  }

  test("a network of the node has names, aliases, fixed addresses, and nothing from other networks", async () => {
    await docker(a, "network", "create", "--subnet", "172.30.0.0/24", "--label", "k=v", "net1");
    await docker(a, "network", "create", "net2");
    await docker(
      a,
      "run",
      "-d",
      "--name",
      "db",
      "--network",
      "net1",
      "--ip",
      "172.30.0.77",
      "--network-alias",
      "store",
      "box:1",
      ...serve,
    );
    await docker(a, "run", "-d", "--name", "other", "--network", "net2", "box:1");
    await docker(a, "run", "-d", "--name", "user", "--network", "net1", "--link", "db:linked", "box:1");
    for (const name of ["db", "store", "linked", "DB", "db.net1"])
      assert.equal(await lookUp(a, "user", name), "172.30.0.77", name);
    await untilServed("db for user", () => fetchFrom(a, "user", "db"));
    assert.equal(await lookUp(a, "user", "other"), "");
    assert.equal(await lookUp(a, "other", "db"), "");
    const { code } = await type(a, ["docker", "exec", "other", "busybox", "ping", "-c", "1", "-W", "1", "172.30.0.77"]);
    assert.notEqual(code, 0, "networks of one node are apart");
    assert.match(await inside(a, "user", "busybox nslookup 172.30.0.77"), /name = db\.net1/);
    const shown = JSON.parse(await docker(a, "network", "inspect", "net1")) as { Containers: object; Labels: object }[];
    assert.equal(Object.keys(shown[0]!.Containers).length, 2);
    assert.deepEqual(shown[0]!.Labels, { k: "v" });
    assert.equal(await docker(a, "ps", "-q", "--filter", "network=net1").then((text) => text.split("\n").length), 2);
    await docker(a, "rename", "db", "depot");
    assert.equal(await lookUp(a, "user", "depot"), "172.30.0.77", "while it runs it is found by its new name");
    assert.equal(await lookUp(a, "user", "db"), "");
    await docker(a, "rename", "depot", "db");
  });

  test("ports are published, chosen, shown and refused when they are taken", async () => {
    await docker(a, "run", "-d", "--name", "p1", "-p", "8080:80", "-p", "127.0.0.1:5300:53/udp", "box:1", ...serve);
    assert.equal(await docker(a, "port", "p1", "80"), "0.0.0.0:8080");
    assert.match(
      await docker(a, "ps", "--format", "{{.Names}} {{.Ports}}"),
      /p1 (127\.0\.0\.1:5300->53\/udp, )?0\.0\.0\.0:8080->80\/tcp/,
    );
    for (const address of ["127.0.0.1:8080", `${a.address}:8080`]) await untilPage(a, address);
    await untilPage(b, `${a.address}:8080`);
    await refused(a, /port is already allocated/, "run", "-d", "--name", "p2", "-p", "8080:80", "box:1");
    await docker(a, "run", "-d", "--name", "p3", "-p", "8080-8085:80", "--expose", "90", "-P", "box:1");
    assert.equal(await docker(a, "port", "p3", "80"), "0.0.0.0:8081");
    assert.match(await docker(a, "port", "p3", "90"), /^0\.0\.0\.0:(3|4|5|6)\d{4}$/);
    assert.equal(await docker(a, "ps", "--filter", "publish=8081", "--format", "{{.Names}}"), "p3");
    await docker(a, "rm", "-f", "p1", "p2", "p3");
    await docker(a, "run", "-d", "--rm", "--name", "p4", "-p", "8080:80", "box:1");
    await docker(a, "rm", "-f", "p4");
  });

  test("a running container is connected and disconnected, and its other connections go on", async () => {
    await docker(a, "run", "-d", "--name", "mover", "box:1");
    await refused(a, /Address already in use/, "network", "connect", "--ip", "172.30.0.77", "net1", "mover");
    await refused(a, /no configured subnet contains/, "network", "connect", "--ip", "10.1.2.3", "net1", "mover");
    await refused(a, /user configured subnets/, "network", "connect", "--ip", "172.18.0.9", "net2", "mover");
    await docker(a, "network", "connect", "--alias", "al", "--ip", "172.30.0.50", "net1", "mover");
    const first = await addressOf(a, "mover", "net1");
    assert.equal(first, "172.30.0.50");
    assert.equal(await lookUp(a, "user", "al"), first);
    assert.equal(await lookUp(a, "mover", "db"), "172.30.0.77");
    assert.match(await inside(a, "mover", "cat /etc/hosts"), new RegExp(first.replaceAll(".", "\\.")));
    await refused(a, /already exists in network net1/, "network", "connect", "net1", "mover");
    await docker(a, "network", "disconnect", "bridge", "mover");
    assert.match(await fetchFrom(a, "mover", "db"), /^root:/);
    await docker(a, "restart", "-t", "0", "mover");
    assert.equal(await addressOf(a, "mover", "net1"), "172.30.0.50", "a fixed address outlives a restart");
    assert.equal(await lookUp(a, "user", "al"), "172.30.0.50");
    await docker(a, "network", "disconnect", "net1", "mover");
    assert.equal(await lookUp(a, "user", "al"), "");
    await refused(a, /is not connected to network net1/, "network", "disconnect", "net1", "mover");
    await docker(a, "network", "disconnect", "-f", "net1", "mover");
    await refused(a, /container must be created in host network mode/, "network", "connect", "host", "mover");
    // On no network it goes on, and is put on one again without being started anew.
    const links = (): Promise<string> => inside(a, "mover", "busybox ip -o link");
    assert.doesNotMatch(await links(), /eth/);
    await docker(a, "network", "connect", "net1", "mover");
    assert.match(await fetchFrom(a, "mover", "db"), /^root:/);
    await docker(a, "network", "disconnect", "net1", "mover");
    assert.doesNotMatch(await links(), /eth/);
    await docker(a, "restart", "-t", "0", "mover");
    assert.match(await addressOf(a, "mover", "bridge"), /^172\.17\./, "it starts on the network of its mode");
    assert.match(await links(), /eth/);
    await docker(a, "rm", "-f", "mover");
  });

  test("the container's own words about names are heard: dns, search, options, hosts, host-gateway", async () => {
    const flags = [
      "--dns",
      "192.0.2.1",
      "--dns-search",
      "example.org",
      "--dns-option",
      "ndots:2",
      "--add-host",
      "up:host-gateway",
      "--add-host",
      "x:1.2.3.4",
    ];
    const said = await once(
      a,
      ["--network", "net1", ...flags],
      "cat /etc/resolv.conf /etc/hosts; busybox ping -c 1 -W 2 up",
    );
    assert.match(said, /search example\.org/);
    assert.match(said, /nameserver 127\.0\.0\.11/);
    assert.match(said, /options ndots:2/);
    assert.match(said, /1\.2\.3\.4\tx/);
    assert.match(said, /1 packets received/);
    assert.match(
      await once(a, ["--dns", "192.0.2.1"], "cat /etc/resolv.conf"),
      /nameserver 192\.0\.2\.1/,
      "bridge has no names",
    );
    assert.equal(
      await once(a, ["--network", "container:db"], "cat /etc/resolv.conf"),
      await inside(a, "db", "cat /etc/resolv.conf"),
    );
  });

  test("programs find names at 127.0.0.11, by glibc and by musl, by UDP and by TCP, and none of other networks", async () => {
    const found = (flags: readonly string[], program: string, name: string): Promise<string> =>
      once(a, flags, `look-up-${program} ${name} 2>&1 || true`);
    for (const program of ["glibc", "musl"]) {
      for (const name of ["db", "store", "DB.net1"]) {
        assert.equal(await found(["--network", "net1"], program, name), "172.30.0.77", `${program} ${name}`);
      }
      assert.doesNotMatch(await found(["--network", "net2"], program, "db"), /172\.30/, program);
    }
    // By TCP alone (resolv.conf(5)); musl has no such option.
    const flags = ["--network", "net1", "--dns-option", "use-vc"];
    assert.equal(await found(flags, "glibc", "db"), "172.30.0.77");
  });

  test("an internal network has no way out, and tells no foreign names", async () => {
    await docker(a, "network", "create", "--internal", "inner");
    const said = await once(
      a,
      ["--network", "inner"],
      `busybox ip route; busybox nslookup -type=a example.com; busybox ping -c 1 -W 1 ${b.address} || echo stuck`,
    );
    assert.doesNotMatch(said, /^default/m);
    assert.match(said, /NXDOMAIN/);
    assert.match(said, /stuck/);
  });

  test("what cannot be is refused in the words that users know", async () => {
    await refused(a, /network with name net1 already exists/, "network", "create", "net1");
    await refused(
      a,
      /Pool overlaps with other one on this address space/,
      "network",
      "create",
      "--subnet",
      "172.30.0.0/25",
      "n",
    );
    await refused(a, /operation is not permitted on predefined bridge network/, "network", "create", "bridge");
    await refused(a, /plugin "nosuch" not found/, "network", "create", "-d", "nosuch", "n");
    await refused(a, /bridge is a pre-defined network and cannot be removed/, "network", "rm", "bridge");
    await refused(a, /has active endpoints/, "network", "rm", "net1");
    await refused(a, /network nosuch not found/, "run", "--rm", "--network", "nosuch", "box:1", "true");
    await refused(
      a,
      /Address already in use: 172\.30\.0\.77/,
      "run",
      "--rm",
      "--network",
      "net1",
      "--ip",
      "172.30.0.77",
      "box:1",
      "true",
    );
    await refused(a, /supported on user defined networks only/, "run", "--rm", "--ip", "172.17.0.9", "box:1", "true");
    await refused(a, /conflicting options/, "run", "--rm", "--network", "container:db", "-p", "80:80", "box:1", "true");
    await refused(a, /network "?nosuch"? not found/, "network", "inspect", "nosuch");
  });

  test("the daemon starts anew, and containers keep their networks, names and ports", async () => {
    await docker(a, "run", "-d", "--name", "kept", "--network", "net1", "-p", "8090:80", "box:1", ...serve);
    const before = await addressOf(a, "kept", "net1");
    const pid = await docker(a, "inspect", "-f", "{{.State.Pid}}", "kept");
    const query = ["nsenter", "-t", pid, "-n", "dig", "+short", "+time=5", "+tries=1", "@127.0.0.11", "db"];
    assert.equal((await type(a, query)).out, "172.30.0.77");
    await a.kill("SIGTERM");
    const { out: refusal } = await type(a, query);
    // Who waits for an answer that cannot come is told otherwise.
    assert.match(refusal, /connection refused/, "who asks while the daemon is away is told at once");
    a.start();
    await a.answers();
    assert.equal(await addressOf(a, "kept", "net1"), before);
    await world.until("names as before", slow, async () => (await type(a, query)).out === "172.30.0.77");
    assert.equal(await docker(a, "port", "kept", "80"), "0.0.0.0:8090");
    await world.until("names after the restart", slow, async () => (await lookUp(a, "user", "kept")) === before);
    await untilPage(b, `${a.address}:8090`);
    await docker(a, "rm", "-f", "kept");
    assert.equal(await lookUp(a, "user", "kept"), "");
  });

  test("an attachable network of the swarm joins containers of both hosts with services by name", async () => {
    await world.form();
    await docker(a, "network", "create", "-d", "overlay", "--attachable", "ov1");
    await docker(a, "network", "create", "-d", "overlay", "ov2");
    await docker(a, "run", "-d", "--name", "one", "--network", "ov1", "--network-alias", "uno", "box:1", ...serve);
    await docker(b, "run", "-d", "--name", "two", "--network", "ov1", "box:1", ...serve);
    const [one, two] = [await addressOf(a, "one", "ov1"), await addressOf(b, "two", "ov1")];
    for (const name of ["one", "uno", "one.ov1"]) {
      await world.until(`the name ${name}`, slow, async () => (await lookUp(b, "two", name)) === one);
    }
    await world.until("the name two", slow, async () => (await lookUp(a, "one", "two")) === two);
    await docker(b, "rename", "two", "second");
    await world.until("its new name", slow, async () => (await lookUp(a, "one", "second")) === two);
    assert.equal(await lookUp(a, "one", "two"), "");
    await docker(b, "rename", "second", "two");
    await world.until("its old name", slow, async () => (await lookUp(a, "one", "two")) === two);
    await untilServed("one for two", () => fetchFrom(b, "two", "one"));
    const service = [
      "--name",
      "web",
      "--network",
      "name=ov1,alias=www",
      "--replicas",
      "2",
      "-p",
      "8088:80",
      "--no-resolve-image",
      "--stop-grace-period",
      "1s",
      "-d",
    ];
    await docker(a, "service", "create", ...service, "box:1", ...serve);
    await world.until(
      "two tasks by name",
      slow,
      async () => (await lookUp(b, "two", "tasks.web")).split(" ").length === 2,
    );
    const listed = JSON.parse(await docker(a, "network", "inspect", "-v", "ov1")) as {
      Services: Record<string, { VIP: string; Tasks: object[] }>;
      Peers: object[];
    }[];
    const { VIP = "", Tasks = [] } = listed[0]!.Services["web"] ?? {};
    assert.equal(Tasks.length, 2);
    assert.equal(listed[0]!.Peers.length, 2);
    for (const name of ["web", "www"]) assert.equal(await lookUp(b, "two", name), VIP);
    await untilServed("www for two", () => fetchFrom(b, "two", "www"));
    assert.match(await docker(a, "service", "ls", "--format", "{{.Ports}}"), /\*:8088->80\/tcp/);
  });

  test("ports of services are chosen, shown and refused as the reference does it, in the mesh and on a node", async () => {
    const name = "pub";
    const ports = ["-p", "80", "-p", "published=8099,target=81,mode=host", "-p", "8100:53/udp"];
    const where = ["--constraint", "node.role==manager", "--no-resolve-image", "--stop-grace-period", "1s", "-d"];
    await docker(a, "service", "create", "--name", name, ...ports, ...where, "box:1", ...serve);
    const format = (text: string): readonly string[] => ["--format", text];
    await world.until("its task runs", slow, async () =>
      /Running .*\*:8099->81\/tcp/.test(
        await docker(a, "service", "ps", ...format("{{.CurrentState}} {{.Ports}}"), name),
      ),
    );
    const shown = JSON.parse(await docker(a, "service", "inspect", ...format("{{json .Endpoint.Ports}}"), name)) as {
      Protocol: string;
      TargetPort: number;
      PublishedPort: number;
      PublishMode: string;
    }[];
    const chosen = shown.find(({ TargetPort }) => TargetPort === 80)?.PublishedPort ?? 0;
    assert.ok(chosen >= 30_000 && chosen <= 32_767, String(chosen));
    assert.deepEqual(
      shown.toSorted((x, y) => x.TargetPort - y.TargetPort),
      [
        { Protocol: "udp", TargetPort: 53, PublishedPort: 8100, PublishMode: "ingress" },
        { Protocol: "tcp", TargetPort: 80, PublishedPort: chosen, PublishMode: "ingress" },
        { Protocol: "tcp", TargetPort: 81, PublishedPort: 8099, PublishMode: "host" },
      ],
    );
    // Of the mesh only: those of a node are its tasks'.
    const listed = await docker(a, "service", "ls", "--filter", `name=${name}`, ...format("{{.Ports}}"));
    assert.deepEqual(listed.split(", ").toSorted(), [`*:${chosen}->80/tcp`, "*:8100->53/udp"].toSorted());
    const id = await docker(a, "ps", "-q", "--filter", `label=com.docker.swarm.service.name=${name}`);
    assert.equal(await docker(a, "ps", "--filter", `id=${id}`, ...format("{{.Ports}}")), "0.0.0.0:8099->81/tcp");
    assert.equal(await docker(a, "port", id), "81/tcp -> 0.0.0.0:8099");
    for (const host of [a, b]) await untilPage(a, `${host.address}:${chosen}`);
    const taken = /port '8100' is already in use by service/;
    await refused(a, taken, "service", "create", "-d", "--no-resolve-image", "-p", "8100:1/udp", "box:1");
    await docker(a, "service", "update", "-d", "--publish-rm", "53/udp", "--publish-add", "8101:80", name);
    await world.until("the new port", slow, async () =>
      (await docker(a, "service", "ls", "--filter", `name=${name}`, ...format("{{.Ports}}"))).includes(
        "*:8101->80/tcp",
      ),
    );
    const after = await docker(a, "service", "ls", "--filter", `name=${name}`, ...format("{{.Ports}}"));
    assert.match(after, new RegExp(`\\*:${chosen}->80/tcp`), "a port keeps its number when others change");
    assert.doesNotMatch(after, /8100/);
    await docker(a, "service", "rm", name);
  });

  test("networks have IPv6 where it is asked for, on one node and in the swarm", async () => {
    const page = (address: string): string => `busybox wget -q -O - http://[${address}]/group`;
    const httpd = ["busybox", "httpd", "-f", "-p", "[::]:80", "-h", "/etc"];
    const field = (host: Host, container: string, network: string): Promise<string> =>
      docker(
        host,
        "inspect",
        "-f",
        `{{(index .NetworkSettings.Networks "${network}").GlobalIPv6Address}}/{{(index .NetworkSettings.Networks "${network}").GlobalIPv6PrefixLen}} {{(index .NetworkSettings.Networks "${network}").IPv6Gateway}}`,
        container,
      );
    await docker(a, "network", "create", "--ipv6", "--subnet", "172.31.0.0/24", "--subnet", "fd00:c1::/64", "six1");
    await docker(
      a,
      "run",
      "-d",
      "--name",
      "s1",
      "--network",
      "six1",
      "--ip6",
      "fd00:c1::77",
      "-p",
      "8085:80",
      "box:1",
      ...httpd,
    );
    await docker(a, "run", "-d", "--name", "s2", "--network", "six1", "box:1");
    assert.equal(await field(a, "s1", "six1"), "fd00:c1::77/64 fd00:c1::1");
    assert.equal(await docker(a, "port", "s1"), "80/tcp -> 0.0.0.0:8085\n80/tcp -> [::]:8085");
    assert.equal(
      await docker(a, "ps", "--filter", "name=s1", "--format", "{{.Ports}}"),
      "0.0.0.0:8085->80/tcp, [::]:8085->80/tcp",
    );
    await untilServed("s1 by its port", () => inside(a, "s2", "busybox wget -q -O - http://[fd00:c1::1]:8085/group"));
    assert.equal(await lookUp6(a, "s2", "s1"), "fd00:c1::77");
    await untilServed("s1 for s2", () => inside(a, "s2", page("fd00:c1::77")));
    assert.match(await inside(a, "s2", "busybox nslookup fd00:c1::77"), /name = s1\.six1/);
    assert.match(await inside(a, "s1", "cat /etc/hosts"), /^fd00:c1::77\t/m);
    const [shown] = JSON.parse(await docker(a, "network", "inspect", "six1")) as {
      EnableIPv6: boolean;
      IPAM: { Config: object[] };
      Containers: Record<string, { Name: string; IPv6Address: string }>;
    }[];
    assert.equal(shown?.EnableIPv6, true);
    assert.deepEqual(shown?.IPAM.Config, [
      { Subnet: "172.31.0.0/24", Gateway: "172.31.0.1" },
      { Subnet: "fd00:c1::/64", Gateway: "fd00:c1::1" },
    ]);
    const member = Object.values(shown?.Containers ?? {}).find(({ Name }) => Name === "s1");
    assert.equal(member?.IPv6Address, "fd00:c1::77/64");
    await docker(a, "rm", "-f", "s1", "s2");

    await docker(a, "network", "create", "-d", "overlay", "--attachable", "--ipv6", "--subnet", "fd00:c2::/64", "six2");
    await docker(a, "run", "-d", "--name", "t1", "--network", "six2", "box:1", ...httpd);
    await docker(b, "run", "-d", "--name", "t2", "--network", "six2", "--ip6", "fd00:c2::55", "box:1");
    const address = (await field(a, "t1", "six2")).split("/")[0] ?? "";
    assert.match(address, /^fd00:c2::/);
    assert.match(await field(b, "t2", "six2"), /^fd00:c2::55\/64 fd00:c2::1$/);
    await world.until("the name t1", slow, async () => (await lookUp6(b, "t2", "t1")) === address);
    await untilServed("t1 for t2", () => inside(b, "t2", page(address)));
    const service = ["--name", "six", "--network", "six2", "--no-resolve-image", "--stop-grace-period", "1s", "-d"];
    await docker(a, "service", "create", ...service, "box:1", ...httpd);
    await world.until("its task by name", slow, async () =>
      (await lookUp6(b, "t2", "tasks.six")).startsWith("fd00:c2::"),
    );
    await untilServed("its task", async () => inside(b, "t2", page(await lookUp6(b, "t2", "tasks.six"))));
    const shownIps = await docker(a, "service", "inspect", "-f", "{{json .Endpoint.VirtualIPs}}", "six");
    const [four, six, ...more] = JSON.parse(shownIps) as { NetworkID: string; Addr: string }[];
    assert.deepEqual([four?.NetworkID, more], [six?.NetworkID, []]);
    assert.match(four?.Addr ?? "", /^10\./);
    assert.match(six?.Addr ?? "", /^fd00:c2::[0-9a-f]+\/64$/);
    const virtual = six?.Addr.split("/")[0] ?? "";
    assert.equal(await lookUp6(b, "t2", "six"), virtual);
    await untilServed("its address", () => inside(b, "t2", page(virtual)));
    assert.match(await inside(b, "t2", `busybox nslookup ${virtual}`), /name = six\.six2/);
    await docker(a, "service", "rm", "six");
    await docker(a, "rm", "-f", "t1");
    await docker(b, "rm", "-f", "t2");
  });

  test("a worker knows a network of the swarm while a container of its own is on it", async () => {
    assert.match(await docker(b, "network", "ls"), /ov1 +overlay +swarm/);
    assert.doesNotMatch(await docker(b, "network", "ls"), /ov2/);
    assert.match(await docker(b, "network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "ov1"), /two/);
    await refused(b, /from a worker node/, "network", "create", "-d", "overlay", "ov3");
    const subnet = await docker(a, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "ov1");
    const overlapping = ["network", "create", "-d", "overlay", "--subnet", subnet.replace("/24", "/25"), "ov3"];
    await refused(a, /Pool overlaps with other one on this address space: .* of network ov1/, ...overlapping);
    await refused(a, /not attachable/, "run", "--rm", "--network", "ov2", "box:1", "true");
    await refused(a, /is in use by service/, "network", "rm", "ov1");
    await docker(b, "network", "connect", "net9", "two").catch((error: Error) =>
      assert.match(error.message, /network net9 not found/),
    );
  });

  test("dnsrr, a running container on an overlay, and leaving it", async () => {
    const service = [
      "--name",
      "rr",
      "--network",
      "ov1",
      "--endpoint-mode",
      "dnsrr",
      "--replicas",
      "2",
      "--no-resolve-image",
      "--stop-grace-period",
      "1s",
      "-d",
    ];
    await docker(a, "service", "create", ...service, "box:1");
    await world.until("both addresses", slow, async () => (await lookUp(a, "one", "rr")).split(" ").length === 2);
    await docker(a, "network", "connect", "ov1", "user");
    assert.equal((await lookUp(a, "user", "rr")).split(" ").length, 2);
    assert.equal(await lookUp(a, "user", "db"), "172.30.0.77", "and its other network's names");
    await docker(a, "network", "disconnect", "ov1", "user");
    assert.equal(await lookUp(a, "user", "rr"), "");
    await docker(a, "service", "rm", "rr", "web");
    await world.until("the name is gone", slow, async () => (await lookUp(a, "one", "web")) === "");
  });

  test("the ingress network is made again with IPv6, and its services are reached through each host by both families", async () => {
    const rest = ["--no-resolve-image", "--stop-grace-period", "1s", "-d", "box:1", "busybox", "httpd", "-f"];
    const create = ["service", "create", "--name", "mesh6", "--replicas", "2", "-p", "8093:80", ...rest];
    const web = [...create, "-p", "[::]:80", "-h", "/etc"];
    const remove = (answer: string): Promise<Said> => type(a, ["docker", "network", "rm", "ingress"], answer);
    await docker(a, ...web);
    assert.match((await remove("y\n")).err, /ingress network cannot be removed because service \S+ depends on it/);
    await docker(a, "service", "rm", "mesh6");
    const doubted = await remove("n\n");
    assert.match(`${doubted.out}${doubted.err}`, /Before removing the routing-mesh network.*\[y\/N\]/su);
    const named = (...flags: readonly string[]): Promise<string> =>
      docker(a, "network", "ls", "--format", "{{.Name}}", ...flags);
    assert.match(await named(), /^ingress$/mu);
    assert.equal((await remove("y\n")).code, 0);
    assert.doesNotMatch(await named(), /^ingress$/mu);

    await docker(a, "network", "create", "-d", "overlay", "--ingress", "--ipv6", "--subnet", "fd00:c9::/64", "way-in");
    assert.equal(
      await docker(a, "network", "inspect", "-f", "{{.Ingress}} {{.EnableIPv6}} {{.Driver}}", "way-in"),
      "true true overlay",
    );
    await docker(a, ...web);
    const page = async (from: Host, to: string): Promise<boolean> =>
      (await type(from, ["busybox", "wget", "-q", "-O", "-", `http://${to}:8093/group`])).out.startsWith("root:");
    for (const from of [a, b]) {
      for (const to of [a.address, b.address, `[${address6(a)}]`, `[${address6(b)}]`, "127.0.0.1", "[::1]"]) {
        await world.until(`the service by ${to} from ${from.name}`, slow, () => page(from, to));
      }
    }
    await untilDoctor(a, 0, /reached in \S+ ms, by IPv6 too/);
    await type(b, [
      "nft",
      'table ip6 cut { chain in { type filter hook input priority -300; iifname "skepmesh" drop; }; }',
    ]);
    await untilDoctor(a, 1, /answers through VXLAN by IPv4, and not by IPv6/);
    await type(b, ["nft", "delete table ip6 cut"]);
    await docker(a, "service", "rm", "mesh6");
  });

  test("networks that nobody uses are pruned, on this node and in the swarm; events tell of all of it", async () => {
    await docker(a, "rm", "-f", "one");
    await docker(b, "rm", "-f", "two");
    await docker(a, "network", "create", "empty");
    assert.match(await docker(a, "network", "ls", "--filter", "dangling=true"), /empty/);
    await world.until("ov1 is pruned", slow, async () => {
      await docker(a, "network", "prune", "-f");
      return !/ov1/.test(await docker(a, "network", "ls"));
    });
    assert.doesNotMatch(await docker(a, "network", "ls"), /empty|inner|ov2/);
    assert.match(await docker(a, "network", "ls"), /net1/);
    const events = await docker(
      a,
      "events",
      "--since",
      "10m",
      "--until",
      String(Math.ceil(Date.now() / 1000) + 1),
      "--filter",
      "type=network",
    );
    for (const wanted of [
      /network create .*name=empty, type=bridge/,
      /network connect .*name=ov1, type=overlay/,
      /network destroy .*name=empty/,
    ]) {
      assert.match(events, wanted);
    }
  });

  test("the doctor finds nothing wrong, then what was cut, and what to do", async () => {
    await untilDoctor(a, 0, /Nothing is wrong/);
    const rules = (text: string): Promise<Said> => type(b, ["nft", text]);
    await rules(
      "table ip cut { chain in { type filter hook input priority -300; udp dport 4789 udp length > 1000 drop; }; }",
    );
    await untilDoctor(a, 1, /packets of 1450 bytes do not reach node/);
    await rules("add rule ip cut in udp dport 4789 drop");
    await untilDoctor(a, 1, /Open UDP port 4789 between/);
    await rules("delete table ip cut");
    await untilDoctor(a, 0, /Nothing is wrong/);
  });
});
