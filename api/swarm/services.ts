/** Services and tasks. */
import { randomInt } from "node:crypto";

import { ClusterError } from "../../lib/pure/errors.ts";
import { inventName } from "../../lib/pure/invented-name.ts";
import { skep } from "../../proto/index.ts";
import { BadRequest, type Call, type JsonObject, type Route } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { withDefaults } from "./defaults.ts";
import { fromApi } from "./mapper.ts";
import { serviceToApi, taskToApi } from "./objects.ts";
import { registryAuthOf } from "./registry-auth.ts";

const { TaskState } = skep.objects;

const serviceFilters = ["id", "label", "mode", "name", "runtime"];
const taskFilters = ["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];
const noWarnings = { Warnings: null };
/** `?status=` came with it. */
const statusMinor = 41;

type Spec = Awaited<ReturnType<typeof readServiceSpec>>;

async function create(control: ControlClient, spec: Spec, { signal }: Call): Promise<string> {
  const { id } = await control.create({ service: spec }, signal);
  return id ?? "";
}

/** As the reference, whoever gives no name has one invented; one that is taken is tried once more with a number. */
async function createUnnamed(control: ControlClient, spec: Spec, call: Call): Promise<string> {
  const chance = (): number => randomInt(2 ** 32) / 2 ** 32;
  const name = inventName([chance(), chance()]);
  try {
    return await create(control, { ...spec, name }, call);
  } catch (error) {
    if (!(error instanceof ClusterError && error.code === "NAME_CONFLICT")) throw error;
    return create(control, { ...spec, name: `${name}${randomInt(1_000_000)}` }, call);
  }
}

export function serviceRoutes(control: ControlClient): readonly Route[] {
  return [
    {
      method: "GET",
      path: "/services",
      handle: async ({ query, minor, signal }) => {
        const withStatus = minor >= statusMinor && query.bool("status");
        const { objects, counts } = await control.list(ObjectKind.SERVICE, query.filters(serviceFilters), signal, {
          withStatus,
        });
        const byService = new Map(counts.map((count) => [count.serviceId ?? "", count]));
        return {
          json: objects.map(({ service }) => serviceToApi(service ?? {}, byService.get(service?.id ?? ""))),
        };
      },
    },
    {
      method: "POST",
      path: "/services/create",
      handle: async (call) => {
        const spec = await readServiceSpec(call);
        const id =
          (spec.name ?? "") === "" ? await createUnnamed(control, spec, call) : await create(control, spec, call);
        return { status: 201, json: { ID: id, ...noWarnings } };
      },
    },
    {
      method: "GET",
      path: "/services/:id",
      handle: async ({ params, query, signal }) => {
        const { service } = await control.get(ObjectKind.SERVICE, params["id"] ?? "", signal);
        const shown = service ?? {};
        return {
          json: serviceToApi(query.bool("insertDefaults") ? { ...shown, spec: withDefaults(shown.spec ?? {}) } : shown),
        };
      },
    },
    {
      method: "POST",
      path: "/services/:id/update",
      handle: async (call) => {
        const { params, query, signal } = call;
        const version = query.version("service");
        const rollback = query.text("rollback");
        if (rollback !== "" && rollback !== "previous") {
          throw new BadRequest(`unrecognized rollback option ${rollback.slice(0, 64)}`, 'Use "previous"');
        }
        const spec = await readServiceSpec(call, rollback !== "");
        await control.update(
          {
            kind: ObjectKind.SERVICE,
            reference: params["id"] ?? "",
            version,
            spec: { service: spec },
            rollback: rollback === "previous",
            registryAuthFromPrevious: query.text("registryAuthFrom") === "previous-spec",
          },
          signal,
        );
        return { json: noWarnings };
      },
    },
    {
      method: "DELETE",
      path: "/services/:id",
      handle: async ({ params, signal }) => {
        await control.remove(ObjectKind.SERVICE, params["id"] ?? "", signal);
        return {};
      },
    },
    {
      method: "GET",
      path: "/tasks",
      handle: async ({ query, signal }) => {
        const filters = query.filters(taskFilters);
        for (const state of filters.get("desired-state") ?? []) {
          if (TaskState[state.toUpperCase() as keyof typeof TaskState] === undefined) {
            throw new BadRequest(
              `Invalid desired-state filter: '${state.slice(0, 64)}'`,
              "Use running, shutdown or another state",
            );
          }
        }
        const { objects } = await control.list(ObjectKind.TASK, filters, signal);
        const tasks = objects.map(({ task }) => task ?? {});
        const networks = await networksOf(control, tasks, signal);
        return { json: tasks.map((task) => taskToApi(task, networks)) };
      },
    },
    {
      method: "GET",
      path: "/tasks/:id",
      handle: async ({ params, signal }) => {
        const { task } = await control.get(ObjectKind.TASK, params["id"] ?? "", signal);
        return { json: taskToApi(task ?? {}, await networksOf(control, [task ?? {}], signal)) };
      },
    },
  ];
}

/** Attachments are shown with their whole network; most tasks of a list share a few. */
async function networksOf(
  control: ControlClient,
  tasks: readonly skep.objects.Task.$Properties[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, skep.objects.Network.$Properties>> {
  if (!tasks.some((task) => (task.networksAttachments ?? []).length > 0)) return new Map();
  const { objects } = await control.list(ObjectKind.NETWORK, [], signal);
  return new Map(objects.map(({ network }) => [network?.id ?? "", network ?? {}]));
}

/** @param lenient  of a rollback the body is not looked at */
async function readServiceSpec(call: Call, lenient = false): Promise<skep.objects.ServiceSpec.$Properties> {
  const body = await call.json();
  if (lenient) return {};
  const read = fromApi("ServiceSpec", body, call.minor) as skep.objects.ServiceSpec.$Properties;
  const spec = { ...read, ...allAtOnce("updateConfig", read), ...allAtOnce("rollbackConfig", read) };
  checkUnion(body);
  const container = spec.taskTemplate?.containerSpec;
  const registryAuth = registryAuthOf(call.headers["x-registry-auth"]);
  if (container == null || registryAuth === undefined) return spec;
  return {
    ...spec,
    taskTemplate: { ...spec.taskTemplate, containerSpec: { ...container, pullOptions: { registryAuth } } },
  };
}

/** In the API a config that does not name its parallelism means 0, all at once; only no config at all means one by one. */
function allAtOnce(
  name: "updateConfig" | "rollbackConfig",
  { [name]: config }: skep.objects.ServiceSpec.$Properties,
): skep.objects.ServiceSpec.$Properties {
  return config == null ? {} : { [name]: { ...config, parallelism: config.parallelism ?? 0 } };
}

/** One of several that exclude each other: of two the last would win in silence. */
function checkUnion(body: JsonObject): void {
  const mode = body["Mode"];
  if (typeof mode !== "object" || mode === null) return;
  const said = Object.entries(mode).filter(([, value]) => value !== null && value !== undefined);
  if (said.length > 1) throw new BadRequest("must specify only one service mode");
}
