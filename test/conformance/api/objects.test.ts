/** What may be done to objects, and what not, through the API as clients use it. */
import assert from "node:assert/strict";
import { after, beforeEach, afterEach, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import Docker from "dockerode";
import { parse } from "yaml";

import { skep } from "../../../proto/index.ts";
import { ApiWorld, type ApiAnswer } from "../../support/api-world.ts";

const { NodeAvailability, NodeRole, NodeState, TaskState } = skep.objects;

let world: ApiWorld;
const bugs: unknown[] = [];

beforeEach(async () => {
  world = await ApiWorld.open();
});
afterEach(async () => {
  bugs.push(...world.bugs);
  await world.close();
});
after(() => assert.deepEqual(bugs, []));

const get = (path: string): Promise<ApiAnswer> => world.send({ method: "GET", path });
const post = (path: string, body: unknown = {}): Promise<ApiAnswer> => world.send({ method: "POST", path, body });
const remove = (path: string): Promise<ApiAnswer> => world.send({ method: "DELETE", path });

interface Shown {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: Readonly<Record<string, unknown>> & {
    readonly TaskTemplate: { readonly ContainerSpec: { Image: string } };
  };
  readonly PreviousSpec?: Shown["Spec"];
  readonly UpdateStatus?: { readonly State: string };
  readonly JobStatus?: { readonly JobIteration: { readonly Index: number } };
}

async function shown(path: string): Promise<Shown> {
  const { status, text, body } = await get(path);
  assert.equal(status, 200, text);
  return body as Shown;
}

async function create(path: string, body: object): Promise<string> {
  const { status, text, body: answer } = await post(`${path}/create`, body);
  assert.equal(status, 201, text);
  const { ID, Id } = answer as { ID?: string; Id?: string };
  return ID ?? Id ?? "";
}

const spec = (name: string, more: object = {}, container: object = {}): object => ({
  Name: name,
  TaskTemplate: { ContainerSpec: { Image: "bb:1", ...container } },
  ...more,
});

async function update(path: string, change: (spec: Record<string, unknown>) => void, query = ""): Promise<ApiAnswer> {
  const { Version, Spec } = await shown(path);
  const changed = structuredClone(Spec) as Record<string, unknown>;
  change(changed);
  return post(`${path}/update?version=${Version.Index}${query}`, changed);
}

const image = (name: string) => (changed: Record<string, unknown>) => {
  (changed["TaskTemplate"] as Shown["Spec"]["TaskTemplate"]).ContainerSpec.Image = name;
};

test("an update keeps the spec before, a rollback swaps them, and a service that was never updated has none", async () => {
  await create("/services", spec("web"));
  const { Version } = await shown("/services/web");
  const none = await post(`/services/web/update?version=${Version.Index}&rollback=previous`);
  assert.equal(none.status, 400);
  assert.match(none.text, /does not have a previous spec/);
  assert.equal((await update("/services/web", image("bb:2"))).status, 200);
  assert.equal((await shown("/services/web")).PreviousSpec?.TaskTemplate.ContainerSpec.Image, "bb:1");
  assert.equal((await update("/services/web", () => {}, "&rollback=previous")).status, 200);
  const back = await shown("/services/web");
  assert.equal(back.Spec.TaskTemplate.ContainerSpec.Image, "bb:1");
  assert.equal(back.PreviousSpec?.TaskTemplate.ContainerSpec.Image, "bb:2");
  assert.equal(back.UpdateStatus?.State, "rollback_started");
});

test("more than one spec before is kept, five at most, and one that changes nothing is none of them", async () => {
  const id = await create("/services", spec("web"));
  for (let at = 2; at <= 8; at++) assert.equal((await update("/services/web", image(`bb:${at}`))).status, 200);
  assert.equal((await update("/services/web", () => {})).status, 200);
  const kept = world.cluster.store.current().get("service", id)?.previousSpecs ?? [];
  assert.deepEqual(
    kept.map(({ taskTemplate }) => taskTemplate?.containerSpec?.image),
    ["bb:7", "bb:6", "bb:5", "bb:4", "bb:3"],
  );
  assert.equal(world.cluster.store.current().get("service", id)?.specVersion, 9);
});

test("a large service can be updated as often as a small one; it keeps fewer specs before", async () => {
  const id = await create("/services", spec("large", {}, { Env: [`A=${"x".repeat(300_000)}`] }));
  for (let at = 2; at <= 5; at++) {
    const { status, text } = await update("/services/large", image(`bb:${at}`));
    assert.equal(status, 200, text);
  }
  const images = world.cluster.store.current().get("service", id)?.previousSpecs ?? [];
  assert.deepEqual(
    images.map(({ taskTemplate }) => taskTemplate?.containerSpec?.image),
    ["bb:4", "bb:3"],
  );
});

test("of two updates from one version the second is out of sequence", async () => {
  await create("/services", spec("web"));
  const { Version } = await shown("/services/web");
  const path = `/services/web/update?version=${Version.Index}`;
  const both = await Promise.all([
    post(path, spec("web", { Labels: { a: "1" } })),
    post(path, spec("web", { Labels: { a: "2" } })),
  ]);
  assert.deepEqual(
    both.map(({ status }) => status).toSorted((a, b) => a - b),
    [200, 500],
  );
  assert.match(both.find(({ status }) => status === 500)?.text ?? "", /update out of sequence.*UPDATE_OUT_OF_SEQUENCE/);
});

test("a service keeps its name and its mode", async () => {
  await create("/services", spec("web"));
  const renamed = await update("/services/web", (changed) => (changed["Name"] = "other"));
  assert.equal(renamed.status, 501);
  assert.match(renamed.text, /renaming services is not supported.*CHANGE_UNSUPPORTED/);
  const global = await update("/services/web", (changed) => (changed["Mode"] = { Global: {} }));
  assert.equal(global.status, 501);
  assert.match(global.text, /service mode change is not allowed/);
});

test("names are taken once, and free as soon as a service is being removed", async () => {
  const first = await create("/services", spec("web"));
  const again = await post("/services/create", spec("web"));
  assert.equal(again.status, 409);
  assert.match(again.text, /name conflicts with an existing object: service web already exists.*NAME_CONFLICT/);
  assert.equal((await remove("/services/web")).status, 200);
  assert.equal((await get(`/services/${first}`)).status, 404);
  assert.equal((await remove(`/services/${first}`)).status, 404);
  const second = await create("/services", spec("web"));
  assert.notEqual(second, first);
  assert.equal(((await get("/services")).body as unknown[]).length, 1);
});

test("many creations of one name at once make one service", async () => {
  const answers = await Promise.all(Array.from({ length: 10 }, () => post("/services/create", spec("one"))));
  assert.deepEqual(
    answers.map(({ status }) => status).toSorted((a, b) => a - b),
    [201, ...Array.from({ length: 9 }, () => 409)],
  );
});

test("a published port of the mesh is one service's, and one of the hosts may be several's", async () => {
  const ports = (mode: string): object => ({
    EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: 8080, PublishMode: mode }] },
  });
  const first = await create("/services", spec("a", ports("host")));
  await create("/services", spec("b", ports("host")));
  const clash = await post("/services/create", spec("c", ports("ingress")));
  assert.equal(clash.status, 400);
  assert.match(clash.text, new RegExp(`port '8080' is already in use by service '(a|b)' .* as a host-published port`));
  await remove("/services/a");
  await remove("/services/b");
  await create("/services", spec("c", ports("ingress")));
  const again = await post("/services/create", spec("d", ports("ingress")));
  assert.match(again.text, /port '8080' is already in use by service 'c' \([0-9a-z]{25}\) as an ingress port/);
  assert.notEqual(first, "");
});

test("a job starts anew with each update, and takes no update config", async () => {
  await create("/services", spec("job", { Mode: { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 5 } } }));
  assert.equal((await shown("/services/job")).JobStatus?.JobIteration.Index, 0);
  await update("/services/job", (changed) => ((changed["TaskTemplate"] as { ForceUpdate: number }).ForceUpdate = 1));
  assert.equal((await shown("/services/job")).JobStatus?.JobIteration.Index, 1);
  assert.deepEqual((await shown("/services/job")).Spec["Mode"], {
    ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 5 },
  });
});

test("what is used is not removed, and says by whom it is used", async () => {
  const secret = await create("/secrets", { Name: "s1", Data: "eA==" });
  const network = await create("/networks", { Name: "net1", Driver: "overlay" });
  const reference = { SecretID: secret, SecretName: "s1", File: { Name: "s", UID: "0", GID: "0", Mode: 292 } };
  await create("/services", {
    Name: "web",
    TaskTemplate: { ContainerSpec: { Image: "bb:1", Secrets: [reference] }, Networks: [{ Target: "net1" }] },
  });
  const kept = await remove("/secrets/s1");
  assert.equal(kept.status, 400);
  assert.match(kept.text, /secret 's1' is in use by the following service: web.*OBJECT_IN_USE/);
  assert.match((await remove("/networks/net1")).text, new RegExp(`network ${network} is in use by service`));
  await remove("/services/web");
  assert.equal((await remove("/secrets/s1")).status, 204);
  assert.equal((await remove("/networks/net1")).status, 204);
});

test("a network goes when its last tasks are on their way out, and its name is free at once", async () => {
  const id = await create("/networks", { Name: "net1", Driver: "overlay" });
  await world.write((tx) =>
    tx.create("task", {
      id: "t".repeat(25),
      serviceId: "s".repeat(25),
      desiredState: TaskState.REMOVE,
      status: { state: TaskState.RUNNING },
      networksAttachments: [{ networkId: id, addresses: ["10.0.0.5/24"] }],
    }),
  );
  assert.equal((await remove("/networks/net1")).status, 204);
  assert.equal((await get("/networks/net1")).status, 404);
  assert.notEqual(await create("/networks", { Name: "net1", Driver: "overlay" }), id);
});

test("the data of a secret never changes and never leaves; labels change", async () => {
  await create("/secrets", { Name: "s1", Data: Buffer.from("hidden").toString("base64") });
  const { Version } = await shown("/secrets/s1");
  const changed = await post(`/secrets/s1/update?version=${Version.Index}`, { Name: "s1", Data: "eA==" });
  assert.equal(changed.status, 400);
  assert.match(changed.text, /only updates to Labels are allowed/);
  const labels = await post(`/secrets/s1/update?version=${Version.Index}`, { Name: "s1", Labels: { a: "b" } });
  assert.equal(labels.status, 200, labels.text);
  for (const path of ["/secrets", "/secrets/s1"]) assert.doesNotMatch((await get(path)).text, /Data|aGlkZGVu/);
  assert.deepEqual((await shown("/secrets/s1")).Spec["Labels"], { a: "b" });
  const stored = [...world.cluster.store.current().list("secret")][0];
  assert.equal(Buffer.from(stored?.spec?.data ?? []).toString(), "hidden");
});

test("credentials for the registry stay with the service and are never shown", async () => {
  const auth = Buffer.from(JSON.stringify({ username: "u", password: "p" })).toString("base64");
  const made = await world.send({
    method: "POST",
    path: "/services/create",
    body: spec("web"),
    headers: { "x-registry-auth": auth },
  });
  const { ID } = made.body as { ID: string };
  const credentials = (): string | null | undefined =>
    world.cluster.store.current().get("service", ID)?.spec?.taskTemplate?.containerSpec?.pullOptions?.registryAuth;
  assert.equal(credentials(), auth);
  assert.doesNotMatch((await get("/services/web")).text, /PullOptions|registry/i);
  await update("/services/web", image("bb:2"));
  assert.equal(credentials(), auth);
  // dockerode sends a service's spec there, the CLI "e30=".
  await world.send({
    method: "POST",
    path: "/services/create",
    body: spec("x"),
    headers: { "x-registry-auth": "e30=" },
  });
  const none = [...world.cluster.store.current().find("service", "name", "x")][0];
  assert.equal(none?.spec?.taskTemplate?.containerSpec?.pullOptions ?? null, null);
});

test("nodes: availability, labels and roles change; the last manager stays one; who is up is not removed", async () => {
  const worker = "w".repeat(25);
  await world.write((tx) =>
    tx.create("node", {
      id: worker,
      spec: { role: NodeRole.WORKER, availability: NodeAvailability.ACTIVE },
      description: { hostname: "host-2" },
      status: { state: NodeState.NODE_READY },
    }),
  );
  const drained = await update("/nodes/host-2", (changed) =>
    Object.assign(changed, { Availability: "drain", Labels: { zone: "a" } }),
  );
  assert.equal(drained.status, 200, drained.text);
  assert.deepEqual((await shown("/nodes/host-2")).Spec, {
    Labels: { zone: "a" },
    Role: "worker",
    Availability: "drain",
  });
  assert.deepEqual(
    ((await get('/nodes?filters={"node.label":["zone=a"]}')).body as Shown[]).map(({ ID }) => ID),
    [worker],
  );
  const demoted = await update("/nodes/host-1", (changed) => (changed["Role"] = "worker"));
  assert.equal(demoted.status, 400);
  assert.match(demoted.text, /attempting to demote the last manager of the swarm.*CHANGE_REFUSED/);
  const up = await remove("/nodes/host-2");
  assert.equal(up.status, 400);
  assert.match(up.text, new RegExp(`node ${worker} is not down and can't be removed`));
  assert.match((await remove("/nodes/host-1?force=1")).text, /is a member of the raft cluster\. It must be demoted/);
  assert.equal((await remove("/nodes/host-2?force=1")).status, 200);
  assert.equal((await get("/nodes/host-2")).status, 404);
});

test("names and beginnings of ids that fit several objects are ambiguous", async () => {
  for (const id of ["abc1", "abc2"]) {
    await world.write((tx) => tx.create("node", { id: id.padEnd(25, "0"), description: { hostname: "twin" } }));
  }
  const byName = await get("/nodes/twin");
  assert.equal(byName.status, 400);
  assert.match(byName.text, /node twin is ambiguous \(2 matches found based on name\).*REFERENCE_AMBIGUOUS/);
  assert.match((await get("/nodes/abc")).text, /node abc is ambiguous \(2 matches found based on ID prefix\)/);
  assert.equal((await shown("/nodes/abc1")).ID, "abc1".padEnd(25, "0"));
});

test("tokens and the unlock key are rotated when asked, and only then", async () => {
  interface Swarm extends Shown {
    readonly JoinTokens: { readonly Worker: string; readonly Manager: string };
  }
  const swarm = async (): Promise<Swarm> => (await shown("/swarm")) as Swarm;
  const before = await swarm();
  const turn = async (query: string, body: object = {}): Promise<void> => {
    const { status, text } = await post(`/swarm/update?version=${(await swarm()).Version.Index}${query}`, body);
    assert.equal(status, 200, text);
  };
  const unlockKey = async (): Promise<string> =>
    ((await get("/swarm/unlockkey")).body as { UnlockKey: string }).UnlockKey;
  await turn("&rotateWorkerToken=true");
  const after = await swarm();
  assert.notEqual(after.JoinTokens.Worker, before.JoinTokens.Worker);
  assert.match(after.JoinTokens.Worker, /^SWMTKN-1-d{50}-[0-9a-z]{25}$/);
  assert.equal(after.JoinTokens.Manager, before.JoinTokens.Manager);
  assert.equal(await unlockKey(), "");
  await turn("", { EncryptionConfig: { AutoLockManagers: true } });
  const first = await unlockKey();
  assert.match(first, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
  await turn("&rotateManagerUnlockKey=1", { EncryptionConfig: { AutoLockManagers: true } });
  assert.notEqual(await unlockKey(), first);
  await turn("", { EncryptionConfig: { AutoLockManagers: false } });
  assert.equal(await unlockKey(), "");
  for (const secret of ["UnlockKey", "SigningCAKey", "PRIVATE"])
    assert.doesNotMatch((await get("/swarm")).text, new RegExp(secret));
});

test("what an update of the swarm does not name stays as it is", async () => {
  const { Version } = await shown("/swarm");
  await post(`/swarm/update?version=${Version.Index}`, { Orchestration: { TaskHistoryRetentionLimit: 2 } });
  const next = await shown("/swarm");
  await post(`/swarm/update?version=${next.Version.Index}`, { Dispatcher: { HeartbeatPeriod: 1_000_000_000 } });
  const { Spec } = await shown("/swarm");
  assert.deepEqual(
    [Spec["Orchestration"], Spec["Dispatcher"]],
    [{ TaskHistoryRetentionLimit: 2 }, { HeartbeatPeriod: 1_000_000_000 }],
  );
});

test("only up-to-date tasks are shown to who asks for them, and a change of labels outdates none", async () => {
  const id = await create("/services", spec("web"));
  const task = async (name: string, specVersion: number): Promise<void> => {
    const stored = world.cluster.store.current().get("service", id);
    await world.write((tx) =>
      tx.create("task", {
        id: name.padEnd(25, "0"),
        serviceId: id,
        slot: 1,
        nodeId: world.nodeId,
        spec: stored?.spec?.taskTemplate ?? {},
        endpoint: { spec: stored?.spec?.endpointSpec ?? null },
        specVersion,
        desiredState: TaskState.RUNNING,
        status: { state: TaskState.RUNNING },
      }),
    );
  };
  await task("a", 1);
  await update("/services/web", (changed) => (changed["Labels"] = { a: "b" }));
  const upToDate = async (): Promise<number> =>
    ((await get(`/tasks?filters={"service":{"${id}":true},"_up-to-date":{"true":true}}`)).body as unknown[]).length;
  assert.equal(await upToDate(), 1);
  await update("/services/web", image("bb:2"));
  assert.equal(await upToDate(), 0);
  await task("b", 3);
  assert.equal(await upToDate(), 1);
  const [listed] = (await get("/services?status=1")).body as { ServiceStatus: object }[];
  assert.deepEqual(listed?.ServiceStatus, { RunningTasks: 2, DesiredTasks: 1, CompletedTasks: 0 });
});

test("a list that is longer than a message comes whole", async () => {
  for (let at = 0; at < 8; at++) {
    await create("/configs", { Name: `c${at}`, Data: Buffer.alloc(600_000, at).toString("base64") });
  }
  const { status, body } = await get("/configs");
  assert.equal(status, 200);
  assert.deepEqual(
    (body as Shown[]).map(({ Spec }) => String(Spec["Name"])).toSorted((a, b) => (a < b ? -1 : 1)),
    Array.from({ length: 8 }, (_, at) => `c${at}`),
  );
});

test("without a leader the answer is 503 in the reference's words", async () => {
  world.cluster.group.elect(undefined);
  for (const answer of [await get("/services"), await post("/services/create", spec("web"))]) {
    assert.equal(answer.status, 503, answer.text);
    assert.match(
      answer.text,
      /The swarm does not have a leader\. It's possible that too few managers are online\..*NO_LEADER/,
    );
  }
});

test("why names the reason, the nearest miss and what would change it", async () => {
  const id = await create("/services", spec("web"));
  await world.write((tx) =>
    tx.create("task", {
      id: "t".repeat(25),
      name: `web.1.${"t".repeat(25)}`,
      serviceId: id,
      slot: 1,
      specVersion: 1,
      serviceAnnotations: { name: "web" },
      desiredState: TaskState.RUNNING,
      status: {
        state: TaskState.PENDING,
        reason: {
          noSuitableNode: {
            nodes: 3,
            refusals: [
              { filter: "resource", nodes: 2, detail: "256 MiB of memory are missing" },
              { filter: "constraint", nodes: 1 },
            ],
            nearestNodeId: world.nodeId,
            nearestMiss: ["128 MiB less memory is reserved"],
          },
        },
      },
    }),
  );
  interface Why {
    readonly settled: boolean;
    readonly summary: string;
    readonly causes: readonly {
      readonly code: string;
      readonly text: string;
      readonly facts: Readonly<Record<string, string>>;
    }[];
    readonly nearestMiss: { readonly node: string; readonly text: string } | null;
    readonly fix: string;
  }
  const why = async (path: string): Promise<Why> => (await get(`/skep/v1/${path}/why`)).body as Why;
  const service = await why("services/web");
  assert.equal(service.settled, false);
  assert.match(
    service.summary,
    /^0 of 1 tasks are running: none of 3 nodes is suitable; refused by resource: 2 \(256 MiB/,
  );
  assert.equal(service.causes[0]?.code, "no_suitable_node");
  assert.equal(service.causes[0]?.facts["refused_by_constraint"], "1");
  assert.deepEqual(service.nearestMiss, { node: "host-1", text: "host-1: 128 MiB less memory is reserved" });
  assert.match((await why(`tasks/${"t".repeat(5)}`)).summary, /^it is pending: none of 3 nodes/);
  const node = await why("nodes/host-1");
  assert.equal(node.settled, true);
  assert.match(node.causes[0]?.text ?? "", /^web would fit here but for this: 128 MiB less/);
  await update("/nodes/host-1", (changed) => (changed["Availability"] = "drain"));
  assert.match((await why("nodes/host-1")).summary, /^it is drained/);
  assert.equal((await get("/skep/v1/services/nosuch/why")).status, 404);
  // Every answer fits our own description, which is served too.
  const { status, text } = await get("/skep/v1/openapi.yaml");
  assert.equal(status, 200);
  const { components } = parse(text) as { components: { schemas: object } };
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  ajv.addSchema({ $id: "skep", components });
  for (const path of ["services/web", `tasks/${"t".repeat(5)}`, "nodes/host-1"]) {
    assert.ok(ajv.validate({ $ref: "skep#/components/schemas/Why" }, await why(path)), ajv.errorsText());
  }
});

test("changes become events, with what was before and after", async () => {
  await create("/services", spec("web"));
  await update("/services/web", (changed) => (changed["Mode"] = { Replicated: { Replicas: 3 } }));
  await remove("/services/web");
  const untilMs = performance.now() + 20_000;
  while (world.events.filter(({ type }) => type === "service").length < 3 && performance.now() < untilMs) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  const seen = world.events.filter(({ type }) => type === "service");
  assert.deepEqual(
    seen.map(({ action, attributes }) => [action, attributes]),
    [
      ["create", { name: "web" }],
      ["update", { name: "web", "replicas.old": "1", "replicas.new": "3" }],
      ["remove", { name: "web" }],
    ],
  );
});

test("dockerode creates, updates and removes a service", async () => {
  const docker = new Docker({ socketPath: world.socket });
  const { id } = (await docker.createService({
    Name: "dsvc",
    TaskTemplate: { ContainerSpec: { Image: "bb:1" } },
    Mode: { Replicated: { Replicas: 1 } },
  } as Docker.CreateServiceOptions)) as unknown as { id: string };
  const service = docker.getService(id);
  const found = (await service.inspect()) as unknown as Shown;
  await service.update({ version: found.Version.Index, ...found.Spec, Mode: { Replicated: { Replicas: 2 } } });
  assert.deepEqual(((await service.inspect()) as unknown as Shown).Spec["Mode"], { Replicated: { Replicas: 2 } });
  assert.equal((await docker.listServices({ filters: { name: ["dsvc"] } })).length, 1);
  await service.remove();
  await assert.rejects(service.inspect(), /404/);
  const secret = (await docker.createSecret({ Name: "ds", Labels: {}, Data: "eA==" })) as unknown as { id: string };
  await docker.getSecret(secret.id).remove();
  assert.equal((await docker.listNodes()).length, 1);
});
