/** Random users of a cluster: services, networks, secrets and nodes come, change and go, and the ledger notes what was told. */
import type { Host } from "../../deploy/quickstart/hosts.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { healthcheck } from "../cluster/web.ts";
import { ask, type Answer } from "../cluster/world.ts";
import { absent, outcomeOf, type Entry, type Kind, type Ledger } from "./chaos-ledger.ts";

const second = 1_000_000_000;
const servicesMax = 8;
const othersMax = 4;
/** Of the published ports. */
export const firstPort = 9000;

type Spec = Record<string, unknown> & { Labels?: Record<string, string> };
interface Stored {
  readonly Version: { readonly Index: number };
  readonly Spec: Spec;
}
export interface NodeShape extends Stored {
  readonly ID: string;
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability: string };
}

/** undefined: whoever was asked ended, or was cut off. */
export async function answerOf<T>(asks: () => Promise<Answer<T>>): Promise<Answer<T> | undefined> {
  try {
    return await asks();
  } catch {
    return undefined;
  }
}

export class Users {
  readonly #ledger: Ledger;
  readonly #random: Random;
  readonly #managers: () => readonly Host[];
  readonly #tell: (line: string) => void;
  #lastPort = firstPort;

  constructor(ledger: Ledger, random: Random, managers: () => readonly Host[], tell: (line: string) => void) {
    this.#ledger = ledger;
    this.#random = random;
    this.#managers = managers;
    this.#tell = tell;
  }

  async act(): Promise<void> {
    const random = this.#random;
    const ledger = this.#ledger;
    const at = random.pick(this.#managers());
    const draw = random.int(0, 100);
    if (draw < 25) {
      if (ledger.all("services").length < servicesMax) await this.#create(at, "services", "s", this.#serviceSpec());
    } else if (draw < 50) {
      const service = this.#anyOf("services");
      if (service !== undefined) await this.#update(at, service);
    } else if (draw < 58) {
      const service = ledger.free("services").length > 2 ? this.#anyOf("services") : undefined;
      if (service !== undefined) await this.#remove(at, service);
    } else if (draw < 64) {
      const wish = { Driver: "overlay", Attachable: true };
      if (ledger.all("networks").length < othersMax) await this.#create(at, "networks", "n", wish);
    } else if (draw < 70) {
      const wish = { Data: Buffer.from("secret").toString("base64") };
      if (ledger.all("secrets").length < othersMax) await this.#create(at, "secrets", "x", wish);
    } else if (draw < 76) {
      const entry = this.#anyOf(random.pick(["networks", "secrets"]));
      if (entry !== undefined) await this.#remove(at, entry);
    } else if (draw < 90) await this.#changeNode(at);
    else await answerOf(() => ask(at, "GET", random.pick(["/services?status=1", "/tasks", "/networks", "/info"])));
  }

  #anyOf(kind: Kind): Entry | undefined {
    const free = this.#ledger.free(kind);
    return free.length === 0 ? undefined : this.#random.pick(free);
  }

  #serviceSpec(): Spec {
    const random = this.#random;
    const kind = random.pick(["plain", "web", "web", "global", "job", "secret", "volume"] as const);
    const container: Record<string, unknown> = { Image: "hello:1", StopGracePeriod: 2 * second };
    const task: Record<string, unknown> = {
      ContainerSpec: container,
      RestartPolicy: { Condition: kind === "job" ? "on-failure" : "any", Delay: random.pick([0, second / 10, second]) },
    };
    const spec: Spec = { TaskTemplate: task, Mode: { Replicated: { Replicas: random.int(1, 5) } } };
    const order = random.pick(["stop-first", "start-first"]);
    const updates = { Parallelism: random.int(0, 4), Monitor: second / 2, FailureAction: "continue", Order: order };
    if (kind !== "job") spec["UpdateConfig"] = updates;
    if (kind === "global") spec["Mode"] = { Global: {} };
    if (kind === "job") {
      spec["Mode"] = { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: random.int(1, 5) } };
      container["Command"] = ["/bin/sh", "-c", "sleep 0.3"];
    }
    if (kind === "volume") container["Mounts"] = [{ Type: "volume", Target: "/data" }];
    const secret = kind === "secret" ? this.#anyOf("secrets") : undefined;
    if (secret !== undefined) {
      const file = { Name: "secret", UID: "0", GID: "0", Mode: 0o400 };
      container["Secrets"] = [{ SecretID: secret.id, SecretName: secret.name, File: file }];
    }
    if (kind === "web") {
      Object.assign(container, { Image: "web:1", Hostname: "{{.Service.Name}}", Healthcheck: healthcheck });
      const network = this.#anyOf("networks");
      if (network !== undefined) task["Networks"] = [{ Target: network.name }];
      spec["EndpointSpec"] = { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: this.#lastPort++ }] };
    }
    return spec;
  }

  async #create(at: Host, kind: Kind, prefix: string, wish: Spec): Promise<void> {
    const entry = this.#ledger.add(kind, this.#ledger.next(prefix));
    const revision = this.#ledger.next("r");
    const spec = { ...wish, Name: entry.name, Labels: { chaos: "yes", revision } };
    const answer = await this.#change(entry, revision, () =>
      ask<{ ID?: string; Id?: string }>(at, "POST", `/${kind}/create`, spec),
    );
    if (answer?.status === 201 || answer?.status === 200) entry.id = answer.body.ID ?? answer.body.Id ?? "";
  }

  async #remove(at: Host, entry: Entry): Promise<void> {
    await this.#change(entry, absent, () => ask(at, "DELETE", `/${entry.kind}/${entry.name}`));
  }

  async #update(at: Host, entry: Entry): Promise<void> {
    entry.isTaken = true;
    const path = `/services/${entry.name}`;
    const before = await answerOf(() => ask<Stored>(at, "GET", path));
    entry.isTaken = false;
    if (before?.status !== 200) return;
    const { Version, Spec } = before.body;
    const revision = this.#ledger.next("r");
    const spec = structuredClone(Spec) as Spec & {
      Mode: { Replicated?: { Replicas: number } };
      TaskTemplate: { ContainerSpec: { Env?: string[]; Image: string }; ForceUpdate?: number };
    };
    spec.Labels = { ...spec.Labels, revision };
    const container = spec.TaskTemplate.ContainerSpec;
    const what = this.#random.pick(["image", "environment", "replicas", "force", "label"] as const);
    if (what === "image" && container.Image.startsWith("hello"))
      container.Image = container.Image.startsWith("hello:1") ? "hello:2" : "hello:1";
    if (what === "environment") container.Env = [`REVISION=${revision}`];
    if (what === "force") spec.TaskTemplate.ForceUpdate = (spec.TaskTemplate.ForceUpdate ?? 0) + 1;
    if (what === "replicas" && spec.Mode.Replicated !== undefined)
      spec.Mode.Replicated.Replicas = this.#random.int(0, 6);
    await this.#change(entry, revision, () => ask(at, "POST", `${path}/update?version=${Version.Index}`, spec));
  }

  async #change<T>(entry: Entry, revision: string, asks: () => Promise<Answer<T>>): Promise<Answer<T> | undefined> {
    entry.isTaken = true;
    try {
      const answer = await answerOf(asks);
      this.#ledger.note(entry, revision, outcomeOf(answer?.status));
      this.#tell(`${entry.kind} ${entry.name} ${revision}: ${answer?.status ?? "no answer"}`);
      return answer;
    } finally {
      entry.isTaken = false;
    }
  }

  /** Two nodes at least take tasks, and three are managers. */
  async #changeNode(at: Host): Promise<void> {
    const answer = await answerOf(() => ask<NodeShape[]>(at, "GET", "/nodes"));
    if (answer?.status !== 200) return;
    const nodes = answer.body;
    const node = this.#random.pick(nodes);
    const others = (field: string, value: string): number =>
      nodes.filter(({ ID, Spec }) => ID !== node.ID && Spec[field] === value).length;
    const spec = { ...node.Spec };
    const what = this.#random.pick(["Availability", "Availability", "Role"]);
    if (what === "Availability") {
      spec["Availability"] = this.#random.pick(["active", "drain"]);
      if (others("Availability", "active") < 2) spec["Availability"] = "active";
    } else spec["Role"] = others("Role", "manager") < 3 ? "manager" : this.#random.pick(["manager", "worker"]);
    await answerOf(() => ask(at, "POST", `/nodes/${node.ID}/update?version=${node.Version.Index}`, spec));
    this.#tell(`node ${node.Description.Hostname}: ${String(spec["Availability"])} ${String(spec["Role"])}`);
  }
}
