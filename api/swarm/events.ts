/** Changes of the swarm's objects as events, as long as a manager runs on this node. */
import { isAbort } from "../../lib/pure/errors.ts";
import { sleep, TaskGroup, type Clock, type Logger } from "../../lib/runtime/index.ts";
import { controlMethods } from "../../proto/control-methods.ts";
import { skep } from "../../proto/index.ts";
import type { Swarm } from "../ports.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { toApi } from "./mapper.ts";

const { ChangeAct } = skep.control;

export interface SwarmEvent {
  /** service, node, network, secret or config. */
  readonly type: string;
  readonly action: "create" | "update" | "remove";
  readonly id: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly scope: "swarm";
  readonly timeMs: number;
}

export interface SwarmEventsOptions {
  readonly swarm: Swarm;
  readonly control: ControlClient;
  readonly emit: (event: SwarmEvent) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A manager that is started, restarted or promoted is found within this. */
const retryMs = 1000;

export class SwarmEvents implements AsyncDisposable {
  readonly #options: SwarmEventsOptions;
  readonly #tasks: TaskGroup;

  constructor(options: SwarmEventsOptions) {
    this.#options = options;
    this.#tasks = new TaskGroup((_name, error) => options.logger.error("events of the swarm have ended", { error }));
  }

  start(): void {
    this.#tasks.start("swarm events", async (signal) => {
      while (!signal.aborted) {
        const { state, manager } = this.#options.swarm.state();
        if (state === "active" && manager) await this.#follow(signal);
        await sleep(this.#options.clock, retryMs, signal);
      }
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#tasks[Symbol.asyncDispose]();
  }

  /** Until the stream ends, for whatever reason: what happens meanwhile is not told. */
  async #follow(signal: AbortSignal): Promise<void> {
    const { control, emit, logger } = this.#options;
    let channel;
    try {
      channel = control.channel();
    } catch (error) {
      if (!isAbort(error)) logger.debug("no manager to hear events from", { error });
      return;
    }
    await new Promise<void>((resolve) => {
      const stream = channel.open(controlMethods.watch, {
        message: ({ changes }) => {
          for (const change of changes ?? []) {
            const event = eventOf(change);
            if (event !== undefined) emit(event);
          }
        },
        closed: () => {
          signal.removeEventListener("abort", leave);
          resolve();
        },
      });
      const leave = (): void => stream.abort(undefined);
      signal.addEventListener("abort", leave, { once: true });
      stream.write({
        kinds: [ObjectKind.SERVICE, ObjectKind.NODE, ObjectKind.NETWORK, ObjectKind.SECRET, ObjectKind.CONFIG],
      });
    });
  }
}

const actions = {
  [ChangeAct.CREATED]: "create",
  [ChangeAct.UPDATED]: "update",
  [ChangeAct.REMOVED]: "remove",
} as const;

type Shown = skep.control.IObject;

/** Undefined for kinds that the API has no events of. */
export function eventOf(change: skep.control.IObjectChange): SwarmEvent | undefined {
  const before = change.before ?? {};
  const after = change.after ?? {};
  const described = describe(before, after);
  if (described === undefined) return undefined;
  const { type, id, name, pairs } = described;
  const attributes: Record<string, string> = { name };
  for (const [key, old, now] of pairs) {
    if (change.act !== ChangeAct.UPDATED || old === now) continue;
    if (old !== "") attributes[`${key}.old`] = old;
    if (now !== "") attributes[`${key}.new`] = now;
  }
  return {
    type,
    action: actions[change.act ?? ChangeAct.CREATED],
    id,
    attributes,
    scope: "swarm",
    timeMs: Math.floor((change.timeUs ?? 0) / 1000),
  };
}

interface Described {
  readonly type: string;
  readonly id: string;
  readonly name: string;
  /** Key, before, after. */
  readonly pairs: readonly (readonly [key: string, old: string, now: string])[];
}

function describe(before: Shown, after: Shown): Described | undefined {
  const service = after.service ?? before.service;
  if (service != null) {
    return {
      type: "service",
      id: service.id ?? "",
      name: service.spec?.name ?? "",
      pairs: [
        ["name", before.service?.spec?.name ?? "", after.service?.spec?.name ?? ""],
        ["replicas", replicasOf(before.service), replicasOf(after.service)],
        ["image", imageOf(before.service), imageOf(after.service)],
        ["updatestate", updateStateOf(before.service), updateStateOf(after.service)],
      ],
    };
  }
  const node = after.node ?? before.node;
  if (node != null) {
    return {
      type: "node",
      id: node.id ?? "",
      name: node.description?.hostname ?? "",
      pairs: [
        ["name", before.node?.spec?.name ?? "", after.node?.spec?.name ?? ""],
        ["state", word("NodeStatus", "State", before.node?.status), word("NodeStatus", "State", after.node?.status)],
        [
          "availability",
          word("NodeSpec", "Availability", before.node?.spec),
          word("NodeSpec", "Availability", after.node?.spec),
        ],
        ["role", word("NodeSpec", "Role", before.node?.spec), word("NodeSpec", "Role", after.node?.spec)],
        ["leader", leaderOf(before.node), leaderOf(after.node)],
        [
          "reachability",
          word("ManagerStatus", "Reachability", before.node?.managerStatus),
          word("ManagerStatus", "Reachability", after.node?.managerStatus),
        ],
      ],
    };
  }
  for (const type of ["network", "secret", "config"] as const) {
    const object = after[type] ?? before[type];
    if (object != null) return { type, id: object.id ?? "", name: object.spec?.name ?? "", pairs: [] };
  }
  return undefined;
}

function word(message: string, field: string, object: object | null | undefined): string {
  const value = object == null ? undefined : toApi(message, object)[field];
  return typeof value === "string" ? value : "";
}

function replicasOf(service: skep.objects.Service.$Properties | null | undefined): string {
  const mode = service?.spec?.mode;
  if (service == null || mode?.global != null || mode?.globalJob != null || mode?.replicatedJob != null) return "";
  return String(mode?.replicated?.replicas ?? 1);
}

const imageOf = (service: skep.objects.Service.$Properties | null | undefined): string =>
  service?.spec?.taskTemplate?.containerSpec?.image ?? "";
const updateStateOf = (service: skep.objects.Service.$Properties | null | undefined): string =>
  word("UpdateStatus", "State", service?.updateStatus);
const leaderOf = (node: skep.objects.Node.$Properties | null | undefined): string =>
  node?.managerStatus == null ? "" : String(node.managerStatus.leader ?? false);
