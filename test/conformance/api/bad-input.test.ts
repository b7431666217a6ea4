/** Every field out of range, unknown references, conflicts, stale versions: reference status and wording, nothing half done. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ApiWorld } from "../../support/api-world.ts";

let world: ApiWorld;

before(async () => {
  world = await ApiWorld.open();
});
after(() => world.close());

const container = { Image: "bb:1" };
const service = (more: object = {}, template: object = {}, of: object = {}): object => ({
  Name: "bad",
  TaskTemplate: { ContainerSpec: { ...container, ...of }, ...template },
  ...more,
});

type Row = readonly [what: string, body: object, status: number, message: string | RegExp];

const services: readonly Row[] = [
  ["a name of 64", service({ Name: "a".repeat(64) }), 400, "name must be 63 characters or fewer"],
  ["a name with a space", service({ Name: "a b" }), 400, "name must be valid as a DNS name component"],
  ["no container", { Name: "bad" }, 400, "mismatched Runtime and *Spec fields"],
  ["another runtime", service({}, { Runtime: "plugin" }), 400, "mismatched Runtime and *Spec fields"],
  [
    "a template of what is not there",
    service({}, {}, { Hostname: "{{.Node.Nothing}}" }),
    400,
    'expanding hostname failed: map has no entry for key "Nothing"',
  ],
  ["a template that is not closed", service({}, {}, { Env: ["A={{.Task.Slot"] }), 400, /^expanding env failed/],
  [
    "a template in a mount",
    service({}, {}, { Mounts: [{ Type: "volume", Source: "{{.Bogus}}", Target: "/a" }] }),
    400,
    /^expanding mounts failed/,
  ],
  ["an unknown endpoint mode", service({ EndpointSpec: { Mode: "magic" } }), 400, 'invalid resolution mode: "magic"'],
  ["no image", service({}, {}, { Image: "" }), 400, "ContainerSpec: image reference must be provided"],
  [
    "a bad image",
    service({}, {}, { Image: "UPPER:bad" }),
    400,
    'ContainerSpec: "UPPER:bad" is not a valid repository/tag',
  ],
  ["an image that looks like an id", service({}, {}, { Image: "a".repeat(64) }), 400, /is not a valid repository\/tag/],
  [
    "too little CPU",
    service({}, { Resources: { Limits: { NanoCPUs: 1 } } }),
    400,
    /invalid cpu value .*: Must be at least 0\.001/,
  ],
  [
    "too little memory",
    service({}, { Resources: { Reservations: { MemoryBytes: 1048576 } } }),
    400,
    "invalid memory value 1048576: Must be at least 4MiB",
  ],
  ["negative pids", service({}, { Resources: { Limits: { Pids: -1 } } }), 400, /pids/],
  [
    "a named generic resource",
    service(
      {},
      { Resources: { Reservations: { GenericResources: [{ NamedResourceSpec: { Kind: "gpu", Value: "x" } }] } } },
    ),
    400,
    /invalid generic resource 'gpu'/,
  ],
  [
    "no generic resource",
    service(
      {},
      { Resources: { Reservations: { GenericResources: [{ DiscreteResourceSpec: { Kind: "gpu", Value: 0 } }] } } },
    ),
    400,
    /Must be at least 1/,
  ],
  [
    "a negative delay",
    service({}, { RestartPolicy: { Delay: -1 } }),
    400,
    "TaskSpec: restart-delay cannot be negative",
  ],
  [
    "a negative window",
    service({}, { RestartPolicy: { Window: -1 } }),
    400,
    "TaskSpec: restart-window cannot be negative",
  ],
  [
    "an unknown condition",
    service({}, { RestartPolicy: { Condition: "never" } }),
    400,
    'invalid RestartCondition: "never"',
  ],
  [
    "a bad constraint",
    service({}, { Placement: { Constraints: ["foo"] } }),
    400,
    "constraint expected one operator from ==, !=",
  ],
  [
    "a negative update delay",
    service({ UpdateConfig: { Delay: -1 } }),
    400,
    "TaskSpec: update-delay cannot be negative",
  ],
  [
    "a negative monitor",
    service({ RollbackConfig: { Monitor: -1 } }),
    400,
    "TaskSpec: rollback-monitor cannot be negative",
  ],
  [
    "a ratio above 1",
    service({ UpdateConfig: { MaxFailureRatio: 1.5 } }),
    400,
    "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
  ],
  [
    "a rollback of a rollback",
    service({ RollbackConfig: { FailureAction: "rollback" } }),
    400,
    /rollback-failure-action cannot be rollback/,
  ],
  [
    "an unknown failure action",
    service({ UpdateConfig: { FailureAction: "explode" } }),
    400,
    "unrecognized update failure action explode",
  ],
  ["an unknown order", service({ UpdateConfig: { Order: "both" } }), 400, "unrecognized update order both"],
  [
    "dnsrr with an ingress port",
    service({ EndpointSpec: { Mode: "dnsrr", Ports: [{ TargetPort: 80 }] } }),
    400,
    "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
  ],
  [
    "a port twice",
    service({
      EndpointSpec: {
        Ports: [
          { TargetPort: 1, PublishedPort: 99 },
          { TargetPort: 2, PublishedPort: 99 },
        ],
      },
    }),
    400,
    "EndpointSpec: duplicate published ports provided",
  ],
  ["a port of 70000", service({ EndpointSpec: { Ports: [{ TargetPort: 70000 }] } }), 400, /invalid port 70000/],
  [
    "an unknown protocol",
    service({ EndpointSpec: { Ports: [{ TargetPort: 1, Protocol: "icmp" }] } }),
    400,
    /invalid protocol value/,
  ],
  [
    "two modes",
    service({ Mode: { Replicated: { Replicas: 1 }, Global: {} } }),
    400,
    "must specify only one service mode",
  ],
  [
    "negative replicas",
    service({ Mode: { Replicated: { Replicas: -1 } } }),
    400,
    /cannot unmarshal number -1 .*Replicas of type uint64/,
  ],
  [
    "replicas beyond 2^53",
    service({ Mode: { Replicated: { Replicas: 9007199254740993n } } }),
    400,
    /cannot unmarshal number 9007199254740993 /,
  ],
  [
    "more replicas than managers could hold",
    service({ Mode: { Replicated: { Replicas: 99_999_999_999 } } }),
    400,
    "99999999999 tasks are asked for, and a service may have 1000000",
  ],
  [
    "a job of more tasks than managers could hold",
    service({ Mode: { ReplicatedJob: { MaxConcurrent: 1, TotalCompletions: 1_000_001 } } }),
    400,
    "1000001 tasks are asked for, and a service may have 1000000",
  ],
  [
    "an update config for a job",
    service({ Mode: { GlobalJob: {} }, UpdateConfig: { Parallelism: 1 } }),
    400,
    /job-mode services cannot have/,
  ],
  [
    "a relative mount",
    service({}, {}, { Mounts: [{ Type: "volume", Target: "rel" }] }),
    400,
    /mount path must be absolute/,
  ],
  ["a mount on /", service({}, {}, { Mounts: [{ Type: "tmpfs", Target: "/" }] }), 400, /destination can't be '\/'/],
  [
    "a mount twice",
    service(
      {},
      {},
      {
        Mounts: [
          { Type: "tmpfs", Target: "/a" },
          { Type: "tmpfs", Target: "/a/" },
        ],
      },
    ),
    400,
    "ContainerSpec: duplicate mount point: /a/",
  ],
  [
    "an unknown mount",
    service({}, {}, { Mounts: [{ Type: "magic", Target: "/a" }] }),
    400,
    'invalid MountType: "magic"',
  ],
  [
    "a bind without source",
    service({}, {}, { Mounts: [{ Type: "bind", Target: "/a" }] }),
    400,
    /field Source must not be empty/,
  ],
  [
    "a hasty health check",
    service({}, {}, { Healthcheck: { Interval: 10 } }),
    400,
    "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
  ],
  [
    "negative retries",
    service({}, {}, { Healthcheck: { Retries: -1 } }),
    400,
    "ContainerSpec: Retries in HealthConfig cannot be negative",
  ],
  ["an OOM score of 5000", service({}, {}, { OomScoreAdj: 5000 }), 400, /range for oom score adj/],
  [
    "an ulimit upside down",
    service({}, {}, { Ulimits: [{ Name: "nofile", Soft: 2, Hard: 1 }] }),
    400,
    /ulimit soft limit/,
  ],
  [
    "a secret without a name",
    service({}, {}, { Secrets: [{ SecretID: "x", File: { Name: "a" } }] }),
    400,
    "malformed secret reference",
  ],
  [
    "a secret without a target",
    service({}, {}, { Secrets: [{ SecretID: "x", SecretName: "x" }] }),
    400,
    "malformed file secret reference, no target provided",
  ],
  [
    "a secret that is not there",
    service({}, {}, { Secrets: [{ SecretID: "x", SecretName: "xs", File: { Name: "a" } }] }),
    400,
    "secret not found: xs",
  ],
  [
    "two secrets in one place",
    service(
      {},
      {},
      {
        Secrets: [
          { SecretID: "x", SecretName: "x", File: { Name: "a" } },
          { SecretID: "y", SecretName: "y", File: { Name: "a" } },
        ],
      },
    ),
    400,
    "secret references 'x' and 'y' have a conflicting target: 'a'",
  ],
  [
    "a config that is not there",
    service({}, {}, { Configs: [{ ConfigID: "x", ConfigName: "xc", File: { Name: "a" } }] }),
    400,
    "config not found: xc",
  ],
  ["a network that is not there", service({}, { Networks: [{ Target: "nosuch" }] }), 404, "network nosuch not found"],
  [
    "a number for a name",
    service({ Name: 5 }),
    400,
    "invalid JSON: json: cannot unmarshal number into Go struct field ServiceSpec.Name of type string",
  ],
  [
    "a text for a list",
    service({}, {}, { Env: "A=1" }),
    400,
    /cannot unmarshal string into Go struct field ContainerSpec\.Env of type \[\]string/,
  ],
  ["half a number", service({}, {}, { StopGracePeriod: 1.5 }), 400, /of type time\.Duration/],
  [
    "a spec of a megabyte",
    service({}, {}, { Env: Array.from({ length: 40 }, (_, at) => `A${at}=${"x".repeat(20_000)}`) }),
    400,
    /the service spec has \d+ bytes/,
  ],
];

const others: readonly (readonly [
  what: string,
  method: string,
  path: string,
  body: unknown,
  status: number,
  message: string | RegExp,
])[] = [
  [
    "a secret without data",
    "POST",
    "/secrets/create",
    { Name: "s" },
    400,
    "secret data must be larger than 0 and less than 512000 bytes",
  ],
  [
    "a secret that is too large",
    "POST",
    "/secrets/create",
    { Name: "s", Data: Buffer.alloc(512_000).toString("base64") },
    400,
    /less than 512000 bytes/,
  ],
  ["a secret that is no base64", "POST", "/secrets/create", { Name: "s", Data: "%%" }, 400, /illegal base64 data/],
  ["a secret with a slash", "POST", "/secrets/create", { Name: "a/b", Data: "eA==" }, 400, /^invalid name, only 64/],
  [
    "a driver of secrets that is not there",
    "POST",
    "/secrets/create",
    { Name: "s", Driver: { Name: "vault" } },
    400,
    'plugin "vault" not found',
  ],
  [
    "an unknown template",
    "POST",
    "/secrets/create",
    { Name: "s", Data: "eA==", Templating: { Name: "perl" } },
    400,
    /unrecognized template driver/,
  ],
  [
    "a config that is too large",
    "POST",
    "/configs/create",
    { Name: "c", Data: Buffer.alloc(1_024_000).toString("base64") },
    400,
    /less than 1024000 bytes/,
  ],
  ["a network without a name", "POST", "/networks/create", { Driver: "overlay" }, 400, "meta: name must be provided"],
  ["an unknown driver", "POST", "/networks/create", { Name: "n", Driver: "nosuch" }, 404, 'plugin "nosuch" not found'],
  [
    "a subnet that is none",
    "POST",
    "/networks/create",
    { Name: "n", Driver: "overlay", IPAM: { Config: [{ Subnet: "10.0.0" }] } },
    400,
    /invalid subnet 10\.0\.0/,
  ],
  [
    "a link that carries no number of bytes",
    "POST",
    "/networks/create",
    { Name: "n", Driver: "overlay", Options: { "com.docker.network.driver.mtu": "15OO" } },
    400,
    /a number of bytes from 68 to 65535 is needed/,
  ],
  [
    "a link too narrow for IPv6",
    "POST",
    "/networks/create",
    { Name: "n", Driver: "overlay", EnableIPv6: true, Options: { "com.docker.network.driver.mtu": "1279" } },
    400,
    /a number of bytes from 1280 to 65535 is needed/,
  ],
  [
    "an attachable ingress",
    "POST",
    "/networks/create",
    { Name: "n", Driver: "overlay", Ingress: true, Attachable: true },
    400,
    "ingress network cannot be attachable",
  ],
  [
    "a removal of bridge",
    "DELETE",
    "/networks/bridge",
    undefined,
    403,
    "bridge is a pre-defined network and cannot be removed",
  ],
  ["no version", "POST", "/nodes/host-1/update", {}, 400, /^invalid node version ''/],
  ["no role", "POST", "/nodes/host-1/update?version=1", { Availability: "active" }, 400, 'invalid Role: ""'],
  [
    "an expiry of a minute",
    "POST",
    "/swarm/update?version=VERSION",
    { CAConfig: { NodeCertExpiry: 60_000_000_000 } },
    400,
    "minimum certificate expiry time must be: 1h0m0s",
  ],
  [
    "another cluster name",
    "POST",
    "/swarm/update?version=VERSION",
    { Name: "other" },
    400,
    "modification of cluster name is not allowed",
  ],
  ["a stale cluster", "POST", "/swarm/update?version=1", {}, 500, "update out of sequence"],
  ["a subnet of 30 bits", "POST", "/swarm/init", { SubnetSize: 30 }, 400, /subnet size/],
  [
    "a new cluster whose certificates live for a minute",
    "POST",
    "/swarm/init",
    { Spec: { CAConfig: { NodeCertExpiry: 60_000_000_000 } } },
    400,
    "minimum certificate expiry time must be: 1h0m0s",
  ],
  [
    "an authority that nobody would ask",
    "POST",
    "/swarm/init",
    { Spec: { CAConfig: { ExternalCAs: [{ Protocol: "cfssl", URL: "https://ca.example/sign" }] } } },
    400,
    /^external CAs are not supported/u,
  ],
  [
    "a data path port below 1024",
    "POST",
    "/swarm/init",
    { DataPathPort: 80 },
    400,
    /Datapath port number is not in valid range/,
  ],
  ["a join to nobody", "POST", "/swarm/join", {}, 400, "at least 1 RemoteAddr is required to join"],
  [
    "an unknown availability",
    "POST",
    "/swarm/join",
    { RemoteAddrs: ["x"], Availability: "away" },
    400,
    'invalid Availability: "away"',
  ],
  ["an unknown filter", "GET", '/services?filters={"foo":["x"]}', undefined, 400, "invalid filter 'foo'"],
  ["a filter that is a number", "GET", '/services?filters={"name":5}', undefined, 400, /invalid filter 'name'/],
  [
    "filters that are no JSON",
    "GET",
    "/tasks?filters=notjson",
    undefined,
    400,
    "invalid character 'o' in literal null (expecting 'u')",
  ],
  ["a role that is none", "GET", '/nodes?filters={"role":["boss"]}', undefined, 400, "Invalid role filter: 'boss'"],
  ["tasks of no service", "GET", '/tasks?filters={"service":["nosuch"]}', undefined, 404, "service nosuch not found"],
  ["logs of no stream", "GET", "/tasks/x/logs", undefined, 400, "Bad parameters: you must choose at least one stream"],
  [
    "the last lines, how many in words",
    "GET",
    "/services/x/logs?stdout=1&tail=ten",
    undefined,
    400,
    'tail value must be a positive integer or "all"',
  ],
  [
    "fewer lines than none",
    "GET",
    "/tasks/x/logs?stdout=1&tail=-1",
    undefined,
    400,
    "negative tail values not supported",
  ],
  ["an unknown path", "GET", "/v1.50/nosuch", undefined, 404, "page not found"],
  ["a method that a path has not", "PUT", "/v1.50/services", undefined, 404, "page not found"],
  [
    "a version too new",
    "GET",
    "/v1.99/services",
    undefined,
    400,
    "client version 1.99 is too new. Maximum supported API version is 1.50",
  ],
  [
    "a version too old",
    "GET",
    "/v1.0/services",
    undefined,
    400,
    /^client version 1\.0 is too old\. Minimum supported API version is 1\.24/,
  ],
  [
    "bad JSON",
    "POST",
    "/services/create",
    "{bad",
    400,
    "invalid JSON: invalid character 'b' looking for beginning of object key string",
  ],
  ["JSON cut short", "POST", "/services/create", '{"Name":', 400, "invalid JSON: unexpected EOF"],
  ["two JSON values", "POST", "/services/create", "{} {}", 400, "unexpected content after JSON"],
  ["a list", "POST", "/services/create", "[]", 400, /cannot unmarshal array/],
];

const json = (value: unknown): string =>
  JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "bigint" ? (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(String(part)) : part,
  );

function check(
  answer: { status: number; text: string; body: unknown },
  status: number,
  message: string | RegExp,
): void {
  assert.equal(answer.status, status, answer.text);
  const said = (answer.body as { message: string }).message;
  if (typeof message === "string") assert.equal(said, message);
  else assert.match(said, message);
  assert.ok((answer.body as { code?: string }).code, "an error has its code");
}

for (const [what, body, status, message] of services) {
  test(`a service with ${what} is refused`, async () => {
    const before = world.cluster.store.current().index;
    check(await world.send({ method: "POST", path: "/v1.50/services/create", body: json(body) }), status, message);
    assert.equal(world.cluster.store.current().index, before, "nothing was written");
  });
}

for (const [what, method, path, body, status, message] of others) {
  test(`${what} is refused`, async () => {
    const { body: swarm } = await world.send({ method: "GET", path: "/swarm" });
    const version = String((swarm as { Version: { Index: number } }).Version.Index);
    const before = world.cluster.store.current().index;
    const sent = body === undefined ? {} : { body: typeof body === "string" ? body : json(body) };
    const answer = await world.send({ method, path: encodeURI(path.replace("VERSION", version)), ...sent });
    check(answer, status, message);
    assert.equal(world.cluster.store.current().index, before, "nothing was written");
  });
}

test("a body of another type is refused, and an empty one of any type is an empty object", async () => {
  const sent = { method: "POST", path: "/secrets/create", body: "{}" };
  const other = await world.send({ ...sent, headers: { "content-type": "text/plain" } });
  check(other, 400, "unsupported Content-Type header (text/plain): must be 'application/json'");
  const empty = await world.send({
    method: "POST",
    path: "/services/create",
    headers: { "content-type": "text/plain" },
  });
  check(empty, 400, /mismatched/);
});

const codes: readonly (readonly [code: string, method: string, path: string, body?: object])[] = [
  ["BAD_REQUEST", "GET", "/services?filters=x"],
  ["PAGE_NOT_FOUND", "GET", "/nosuch"],
  ["API_VERSION_UNSUPPORTED", "GET", "/v1.99/info"],
  ["NOT_OFFERED", "POST", "/networks/create", { Name: "n", Driver: "macvlan" }],
  ["NO_SUCH_PLUGIN", "POST", "/networks/create", { Name: "n", Driver: "nosuch" }],
  ["OBJECT_PREDEFINED", "DELETE", "/networks/host"],
  ["NO_SUCH_OBJECT", "GET", "/services/nosuch"],
  ["SPEC_INVALID", "POST", "/secrets/create", { Name: "s" }],
];

for (const [code, method, path, body] of codes) {
  test(`an error of ${method} ${path} has its code and says what to do`, async () => {
    const answer = await world.send({ method, path, ...(body === undefined ? {} : { body }) });
    const said = answer.body as { code: string; fix: string };
    assert.equal(said.code, code);
    assert.ok(said.fix.length > 0);
  });
}

test("none of it was a bug of ours", () => assert.deepEqual(world.bugs, []));
