/**
 * Requests that real clients sent, replayed against our API. What a recording takes to be there is made first; placeholders
 * of a recording are bound to the ids of our objects as answers show them.
 */
import { readFileSync } from "node:fs";

import { ClusterError } from "../../lib/pure/errors.ts";
import { skep } from "../../proto/index.ts";
import { ApiWorld, type ApiAnswer } from "./api-world.ts";

const { NodeAvailability, NodeRole, NodeState, Reachability, TaskState } = skep.objects;

export interface RecordedRequest {
  readonly why?: string;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly contentType?: string;
  readonly body?: unknown;
  readonly response?: { readonly status?: number; readonly body?: unknown };
}

export interface Recording {
  readonly command: string;
  readonly requests: readonly RecordedRequest[];
}

export const readRecording = (file: string): Recording => JSON.parse(readFileSync(file, "utf8")) as Recording;

/** Of the objects of a swarm, and not of what runs on one node. */
export function isOurs({ path, method, body, response }: RecordedRequest): boolean {
  const plain = path.replace(/^\/v1\.\d+/, "").split("?")[0] ?? "";
  if (!/^\/(swarm|nodes|services|tasks|secrets|configs|networks|_ping|version|info)(\/|$)/.test(plain)) return false;
  if (/^\/networks\/[^/]+\/(dis)?connect$/.test(plain)) return false;
  if (/^\/networks\/(nb1|br6)$/.test(plain)) return false;
  // Networks of one node come with its data plane.
  if (method === "POST" && plain === "/networks/create" && response?.status !== 404) {
    const { Driver, Scope } = (body ?? {}) as { Driver?: string; Scope?: string };
    return Driver === "overlay" || Scope === "swarm";
  }
  return true;
}

class Standing extends ClusterError {
  readonly code: string;
  constructor(code: string) {
    super(`as the daemon says: ${code}`);
    this.code = code;
  }
}

type Shown = Readonly<Record<string, unknown>>;
const placeholder = /\{\{(\w+?)(?::12)?\}\}/g;

export class Replay {
  readonly world: ApiWorld;
  readonly #bound = new Map<string, string>();
  readonly #made = new Map<string, { readonly ID: string; readonly Id: string }>();
  #nodes = 0;
  #tasks = 0;

  readonly #name: string;

  private constructor(world: ApiWorld, name: string) {
    this.world = world;
    this.#name = name;
  }

  static async open(name: string, recording: Recording): Promise<Replay> {
    const standing = name.startsWith("noswarm")
      ? "NOT_IN_SWARM"
      : name.startsWith("swarm-worker")
        ? "NOT_A_SWARM_MANAGER"
        : name.startsWith("swarm-lock-locked")
          ? "SWARM_LOCKED"
          : undefined;
    const fail = (code: string): Promise<never> => Promise.reject(new Standing(code));
    const world = await ApiWorld.open({
      logs: {
        async *read() {
          yield await Promise.resolve({
            lines: [
              { serviceId: "s", taskId: "t", nodeId: "n", stream: 1, time: { seconds: 1 }, text: Buffer.from("out\n") },
            ],
          });
        },
      },
      ...(standing === undefined
        ? {}
        : { state: { manager: false, state: standing === "SWARM_LOCKED" ? "locked" : "inactive" } }),
      swarm: {
        init: () =>
          name === "swarm-init-badaddr"
            ? fail("ADDRESS_REFUSED")
            : name === "swarm-init"
              ? Promise.resolve(world.nodeId)
              : fail("ALREADY_IN_SWARM"),
        join: () =>
          name === "swarm-join-bad-token"
            ? fail("JOIN_TOKEN_INVALID")
            : name === "swarm-join-again"
              ? fail("ALREADY_IN_SWARM")
              : Promise.resolve(),
        leave: (force) =>
          name === "node-leave-manager-refused"
            ? fail("LEAVE_NEEDS_FORCE")
            : standing !== undefined && !force
              ? fail(standing)
              : Promise.resolve(),
        unlock: () =>
          name === "swarm-lock-unlock-bad"
            ? fail("UNLOCK_KEY_WRONG")
            : name === "swarm-lock-unlock-again"
              ? fail("NOT_LOCKED")
              : Promise.resolve(),
      },
    });
    const replay = new Replay(world, name);
    if (standing !== undefined) world.refusal = new Standing(standing);
    try {
      await replay.#prepare(name, recording);
    } catch (error) {
      await world.close();
      throw error;
    }
    return replay;
  }

  /** Sends it as it was sent. */
  async send(request: RecordedRequest): Promise<ApiAnswer> {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(request.query ?? {})) {
      for (const one of Array.isArray(value) ? (value as unknown[]) : [value]) {
        query.append(key, this.#fill(typeof one === "string" ? one : JSON.stringify(one)));
      }
    }
    // The beginning of an id, as a person typed it.
    const path = this.#name.endsWith("-prefix")
      ? request.path.replace(/(?<=\/(nodes|services)\/)[a-z0-9]{5,6}$/, (typed) =>
          this.#fill("{{id1}}").slice(0, typed.length),
        )
      : this.#fill(request.path);
    if (query.has("version")) query.set("version", String(await this.#versionOf(path)));
    const now = path.includes("version=CURRENT") ? path.replace("CURRENT", String(await this.#versionOf(path))) : path;
    const text = query.toString();
    const answer = await this.world.send({
      method: request.method,
      path: `${now}${text === "" ? "" : `${path.includes("?") ? "&" : "?"}${text}`}`,
      ...(request.body === undefined ? {} : { body: await this.#bodyOf(request, path) }),
      headers: Object.fromEntries(
        Object.entries(request.headers ?? {})
          .filter(([name]) => !/^(connection|upgrade|content-length)$/i.test(name))
          .map(([name, value]) => [name.toLowerCase(), value]),
      ),
    });
    this.#bind(request.response?.body, answer.body);
    return answer;
  }

  async #bodyOf(request: RecordedRequest, path: string): Promise<unknown> {
    if (request.body === "<current spec>") {
      const shown = await this.world.send({ method: "GET", path: path.replace(/\/update.*$/, "") });
      return (shown.body as { Spec?: object }).Spec ?? {};
    }
    if (typeof request.body === "string") return request.body;
    return JSON.parse(this.#fill(JSON.stringify(request.body))) as unknown;
  }

  #fill(text: string): string {
    return text.replaceAll(placeholder, (whole, name: string) => {
      if (name === "node") return this.world.nodeId;
      return this.#bound.get(name) ?? (whole.startsWith("{{hex") ? "f".repeat(64) : "0".repeat(25));
    });
  }

  async #versionOf(path: string): Promise<number> {
    const target = path.replace(/\/update(\?.*)?$/, "");
    const { body } = await this.world.send({ method: "GET", path: target });
    return (body as { Version?: { Index: number } }).Version?.Index ?? 1;
  }

  /** Placeholders of the recorded answer are what stands in the same place of ours. */
  #bind(recorded: unknown, ours: unknown): void {
    if (typeof recorded === "string") {
      const [whole, name] = /^\{\{(\w+)\}\}$/.exec(recorded) ?? [];
      if (whole !== undefined && name !== undefined && typeof ours === "string" && !this.#bound.has(name)) {
        this.#bound.set(name, ours);
      }
      return;
    }
    if (typeof recorded !== "object" || recorded === null || typeof ours !== "object" || ours === null) return;
    for (const [key, value] of Object.entries(recorded)) this.#bind(value, (ours as Shown)[key]);
  }

  // ---------------------------------------------------------------------------------------------------- what was there

  async #prepare(name: string, { requests }: Recording): Promise<void> {
    if (this.world.refusal !== undefined) return;
    const created = new Set<string>();
    const shown: [kind: string, object: Shown][] = [];
    for (const request of requests) {
      const { kind, reference, isCreate } = partsOf(request);
      const { status = 0, body } = request.response ?? {};
      if (isCreate && status === 201) {
        created.add(`${kind} ${String((request.body as Shown | undefined)?.["Name"])}`);
        for (const id of Object.values((body ?? {}) as Shown)) if (typeof id === "string") created.add(`${kind} ${id}`);
      }
      if (isCreate && status === 409)
        shown.push([kind, { ...(request.body as Shown), Spec: request.body, Scope: "swarm" }]);
      if (kind === "services" && request.method === "POST" && typeof request.body === "object") {
        const { Networks = [] } = ((request.body as Shown)["TaskTemplate"] ?? {}) as {
          Networks?: { Target: string }[];
        };
        const { Secrets = [], Configs = [] } = (((request.body as Shown)["TaskTemplate"] as Shown | undefined)?.[
          "ContainerSpec"
        ] ?? {}) as { Secrets?: Record<string, string>[]; Configs?: Record<string, string>[] };
        for (const one of Secrets) shown.push(["secrets", { ID: one["SecretID"], called: one["SecretName"] }]);
        for (const one of Configs) shown.push(["configs", { ID: one["ConfigID"], called: one["ConfigName"] }]);
        for (const { Target } of Networks)
          if (!Target.startsWith("{{")) shown.push(["networks", { Name: Target, Scope: "swarm" }]);
      }
      if (request.method === "GET" && status === 200) {
        for (const object of Array.isArray(body) ? (body as unknown[]) : [body]) {
          if (typeof object !== "object" || object === null) continue;
          const called = reference !== "" && !reference.startsWith("{{") ? { called: reference } : {};
          shown.push([kind, { ...called, ...object }]);
        }
      }
      // What answers do not show, or show cut short: whatever is removed or updated was there.
      if (["DELETE", "POST"].includes(request.method) && reference !== "" && !isCreate && status !== 404) {
        shown.push([
          kind,
          reference.startsWith("{{")
            ? { ID: reference, Id: reference, Scope: "swarm" }
            : { called: reference, Scope: "swarm" },
        ]);
      }
    }
    if (name === "service-create-publish-dup") {
      const Ports = [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress" }];
      shown.push(["services", { Spec: { Name: "pub", EndpointSpec: { Ports } } }]);
    }
    // Tasks belong to services, so they come last.
    for (const wantsTasks of [false, true]) {
      for (const [kind, object] of shown) {
        if ((kind === "tasks") !== wantsTasks || created.has(`${kind} ${nameOf(kind, object)}`)) continue;
        if (created.has(`${kind} ${String(object["ID"] ?? object["Id"])}`)) continue;
        await this.#make(kind, object);
      }
    }
    if (name === "service-secret-rm-inuse") await this.#useSecret("sec2");
  }

  async #useSecret(secret: string): Promise<void> {
    const { body } = await this.world.send({ method: "GET", path: `/secrets/${secret}` });
    const Secrets = [{ SecretID: (body as { ID: string }).ID, SecretName: secret, File: { Name: "s", Mode: 292 } }];
    await this.#create("services", { Name: "user", TaskTemplate: { ContainerSpec: { Image: "bb:1", Secrets } } });
  }

  async #make(kind: string, shown: Shown): Promise<void> {
    const id = textOf(shown["ID"] ?? shown["Id"]);
    const bound = /^\{\{(\w+)\}\}$/.exec(id)?.[1];
    if (bound !== undefined && this.#bound.has(bound)) return;
    const called = nameOf(kind, shown) || `unnamed-${bound ?? "x"}`;
    const before = this.#made.get(`${kind} ${called}`);
    if (before !== undefined) {
      this.#bind({ ID: shown["ID"], Id: shown["Id"] }, before);
      return;
    }
    const spec = (shown["Spec"] ?? {}) as Shown;
    switch (kind) {
      case "services":
        await this.#makeService(called, spec, shown);
        return;
      case "secrets":
      case "configs": {
        const Data = Buffer.from(called === "sx" ? "x" : called).toString("base64");
        const sent = typeof spec["Data"] === "string" ? spec["Data"] : (dataOf[called] ?? Data);
        const made = await this.#create(kind, { Name: called, Labels: spec["Labels"] ?? {}, Data: sent });
        this.#made.set(`${kind} ${called}`, made);
        this.#bind(shown, made);
        return;
      }
      case "networks":
        if (shown["Scope"] !== "swarm" || ["host", "bridge", "none"].includes(called)) return;
        const network = await this.#create(kind, {
          Name: called,
          Driver: "overlay",
          Attachable: true,
          Labels: shown["Labels"] ?? {},
        });
        this.#made.set(`${kind} ${called}`, network);
        this.#bind(shown, network);
        return;
      case "nodes":
        await this.#makeNode(shown);
        return;
      case "tasks":
        await this.#makeTask(shown);
        return;
      case "info": {
        const swarm = (shown["Swarm"] ?? {}) as Shown;
        this.#bind({ NodeID: swarm["NodeID"] }, { NodeID: this.world.nodeId });
        return;
      }
    }
  }

  async #makeService(called: string, spec: Shown, shown: Shown): Promise<void> {
    const mode = JSON.stringify(spec["Mode"] ?? {}).includes("…") ? {} : (spec["Mode"] ?? {});
    const base = {
      Name: called,
      Labels: JSON.stringify(spec["Labels"] ?? {}).includes("…") ? {} : (spec["Labels"] ?? {}),
      TaskTemplate: { ContainerSpec: { Image: "bb:1" } },
      Mode: mode,
      ...(spec["EndpointSpec"] === undefined || JSON.stringify(spec["EndpointSpec"]).includes("…")
        ? {}
        : { EndpointSpec: spec["EndpointSpec"] }),
    };
    const made = await this.#create("services", base);
    this.#made.set(`services ${called}`, made);
    this.#bind({ ID: shown["ID"] }, made);
    if (shown["PreviousSpec"] === undefined) return;
    const path = `/services/${made.ID}`;
    await this.world.send({
      method: "POST",
      path: `${path}/update?version=${await this.#versionOf(path)}`,
      body: { ...base, TaskTemplate: { ContainerSpec: { Image: "bb:2" } } },
    });
  }

  async #create(kind: string, body: object): Promise<{ readonly ID: string; readonly Id: string }> {
    const { text, status } = await this.world.send({ method: "POST", path: `/${kind}/create`, body });
    if (status !== 201) throw new Error(`cannot prepare ${kind} ${JSON.stringify(body)}: ${text}`);
    const { ID, Id } = JSON.parse(text) as { ID?: string; Id?: string };
    return { ID: ID ?? Id ?? "", Id: Id ?? ID ?? "" };
  }

  async #makeNode(shown: Shown): Promise<void> {
    const status = shown["Status"] as { State?: string } | undefined;
    const manager = shown["ManagerStatus"] as { Leader?: boolean } | undefined;
    if (manager?.Leader === true) {
      this.#bind({ ID: shown["ID"] }, { ID: this.world.nodeId });
      return;
    }
    const id = `node${String(++this.#nodes).padStart(21, "0")}`;
    const role = manager === undefined ? NodeRole.WORKER : NodeRole.MANAGER;
    const isDown = status?.State === "down" || this.#name === "swarm-leave-node-rm";
    await this.world.write((tx) =>
      tx.create("node", {
        id,
        spec: { role, availability: NodeAvailability.ACTIVE },
        role,
        description: { hostname: `other-${this.#nodes}`, platform: { os: "linux", architecture: "x86_64" } },
        status: { state: isDown ? NodeState.NODE_DOWN : NodeState.NODE_READY, addr: "10.0.0.2" },
        ...(manager === undefined ? {} : { managerStatus: { reachability: Reachability.REACHABLE, memberId: 2 } }),
      }),
    );
    this.#bind({ ID: shown["ID"] }, { ID: id });
  }

  async #makeTask(shown: Shown): Promise<void> {
    const service = /^\{\{(\w+)\}\}$/.exec(textOf(shown["ServiceID"]))?.[1] ?? "";
    const serviceId =
      this.#bound.get(service) ?? (this.#name === "service-task-inspect" ? this.world.nodeId : undefined);
    // Of a service that the recording itself creates: its tasks are not of this test.
    if (serviceId === undefined) return;
    const id = `task${String(++this.#tasks).padStart(21, "0")}`;
    await this.world.write((tx) =>
      tx.create("task", {
        id,
        serviceId,
        name: `x.1.${id}`,
        slot: Number(shown["Slot"] ?? 0),
        nodeId: this.world.nodeId,
        spec: { containerSpec: { image: "bb:1" } },
        desiredState: TaskState.RUNNING,
        status: {
          state: TaskState.RUNNING,
          timestampUs: 1_700_000_000_000_001,
          message: "started",
          containerStatus: { containerId: "c", pid: 1 },
        },
      }),
    );
    this.#bind(
      { ID: shown["ID"], ServiceID: shown["ServiceID"], NodeID: shown["NodeID"] },
      { ID: id, ServiceID: serviceId, NodeID: this.world.nodeId },
    );
  }
}

/** What secrets and configs of the recordings hold where a later request sends it again. */
const dataOf: Readonly<Record<string, string>> = { st_s1: "c2Vj", st_c1: "Y29uZg==" };

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");

function nameOf(kind: string, shown: Shown): string {
  if (kind === "nodes" || kind === "tasks" || kind === "info") return "";
  const spec = shown["Spec"] as Shown | undefined;
  const name = shown["Name"] ?? spec?.["Name"] ?? shown["called"];
  return typeof name === "string" ? name : "";
}

function partsOf({ method, path }: RecordedRequest): {
  readonly kind: string;
  readonly reference: string;
  readonly isCreate: boolean;
} {
  const [, kind = "", second = ""] = (path.replace(/^\/v1\.\d+/, "").split("?")[0] ?? "").split("/");
  const isCreate = method === "POST" && second === "create";
  const reference = ["create", "prune", "update", "unlockkey", "init", "join", "leave", "unlock"].includes(second)
    ? ""
    : second;
  return { kind, reference: reference === "{{node}}" ? "" : reference, isCreate };
}
