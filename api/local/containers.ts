/** Routes of containers: their life, and what can be seen of them (Engine API, "Container"). */
import type { Container, ContainerConfig, HostConfig, Resources } from "../../worker/containers/index.ts";
import {
  networkMode,
  networksOf,
  wrongNetworking,
  wrongPorts,
  type Networks,
} from "../../worker/container-networks/index.ts";
import { BadRequest } from "../http/index.ts";
import { empty, json, type Answer, type Call, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import {
  containerFilterKeys,
  fitsContainerFilters,
  wrongContainerFilter,
  type ContainerFilterFacts,
} from "./core/container-filters.ts";
import { inspectJson, labelsOf, summaryJson } from "./core/container-json.ts";
import { NoSuchImage } from "./errors.ts";
import { platformOf } from "./image-progress.ts";
import { networkFacts } from "./networks.ts";
import type { Filters } from "./query.ts";
import { checkShape, createContainerShape, fields, resourcesShape, restartPolicyShape } from "./shapes.ts";

export function containerRoutes(context: LocalContext): LocalRoute[] {
  const { containers } = context.local;
  const named = (call: Call): Container => containers.get(call.params["id"] ?? "");
  const act =
    (work: (container: Container, call: Call) => Promise<Answer>) =>
    async (call: Call): Promise<Answer> =>
      work(named(call), call);
  const stopping = (call: Call): { seconds?: number; signal?: string } => {
    const seconds = call.query.integer("t");
    const signal = call.query.text("signal");
    return { ...(seconds === undefined ? {} : { seconds }), ...(signal === "" ? {} : { signal }) };
  };
  return [
    { method: "GET", path: "/containers/json", handle: (call) => listContainers(context, call) },
    { method: "POST", path: "/containers/create", handle: (call) => createContainer(context, call) },
    { method: "POST", path: "/containers/prune", handle: (call) => pruneContainers(context, call) },
    {
      method: "GET",
      path: "/containers/:id/json",
      handle: act(async (container, call) => json(await inspectContainer(context, container, call.query.flag("size")))),
    },
    {
      method: "POST",
      path: "/containers/:id/start",
      handle: act(async (container) => empty((await container.start()) ? 204 : 304)),
    },
    {
      method: "POST",
      path: "/containers/:id/stop",
      handle: act(async (container, call) => empty((await container.stop(stopping(call))) ? 204 : 304)),
    },
    {
      method: "POST",
      path: "/containers/:id/restart",
      handle: act(async (container, call) => {
        await container.restart(stopping(call));
        return empty();
      }),
    },
    {
      method: "POST",
      path: "/containers/:id/kill",
      handle: act(async (container, call) => {
        await container.kill(call.query.text("signal") || "KILL");
        return empty();
      }),
    },
    {
      method: "POST",
      path: "/containers/:id/pause",
      handle: act(async (container) => {
        await container.pause();
        return empty();
      }),
    },
    {
      method: "POST",
      path: "/containers/:id/unpause",
      handle: act(async (container) => {
        await container.unpause();
        return empty();
      }),
    },
    {
      method: "POST",
      path: "/containers/:id/rename",
      handle: async (call) => {
        const name = call.query.text("name");
        if (name === "" || name === "/") throw new BadRequest("Neither old nor new names may be empty");
        await containers.rename(call.params["id"] ?? "", name);
        return empty();
      },
    },
    {
      method: "POST",
      path: "/containers/:id/resize",
      handle: act(async (container, call) => {
        await container.resize(...terminalSize(call));
        return empty(200);
      }),
    },
    {
      method: "POST",
      path: "/containers/:id/update",
      handle: act(async (container, call) => {
        const wish = await call.json();
        const known = { ...resourcesShape, RestartPolicy: restartPolicyShape };
        checkShape(wish, fields(known), "UpdateConfig");
        const chosen: Resources = Object.fromEntries(Object.entries(wish).filter(([key]) => Object.hasOwn(known, key)));
        await container.update(chosen);
        return json({ Warnings: null });
      }),
    },
    {
      method: "DELETE",
      path: "/containers/:id",
      handle: act(async (container, call) => {
        if (call.query.flag("link")) throw new BadRequest("links between containers are not supported");
        await container.remove({ force: call.query.flag("force"), volumes: call.query.flag("v") });
        return empty();
      }),
    },
    {
      method: "GET",
      path: "/containers/:id/top",
      handle: act(async (container, call) => {
        const args = call.query
          .text("ps_args")
          .split(/\s+/)
          .filter((word) => word !== "");
        const { titles, processes } = await container.top(args.length > 0 ? args : ["-ef"]);
        return json({ Titles: titles, Processes: processes });
      }),
    },
    {
      method: "GET",
      path: "/containers/:id/changes",
      handle: act(async (container) => {
        const changes = await container.changes();
        return json(changes.length === 0 ? null : changes.map(({ path, kind }) => ({ Path: path, Kind: kind })));
      }),
    },
  ];
}

/** Rows, columns. */
export function terminalSize(call: Call): [number, number] {
  const rows = call.query.integer("h") ?? 0;
  const columns = call.query.integer("w") ?? 0;
  if (rows < 0 || columns < 0 || rows > 65_535 || columns > 65_535) throw new BadRequest("invalid terminal size");
  return [rows, columns];
}

async function inspectContainer(context: LocalContext, container: Container, size: boolean): Promise<object> {
  return inspectJson(container.record, {
    directory: container.directory,
    networkFiles: container.networkFilesDirectory,
    logPath: container.logPath,
    networks: networkFacts(context, container.record),
    execIds: context.local.containers.execIds(container.id),
    ...(size ? { sizes: await sizesOf(context, container) } : {}),
  });
}

async function sizesOf(context: LocalContext, container: Container): Promise<{ rw: number; rootFs: number }> {
  const rw = await container.writtenBytes();
  const images = await context.local.images.list();
  return { rw, rootFs: rw + (images.find(({ id }) => id === container.record.imageId)?.sizeBytes ?? 0) };
}

async function listContainers(context: LocalContext, call: Call): Promise<Answer> {
  const { query } = call;
  const filters = query.filters(containerFilterKeys);
  const wrong = wrongContainerFilter(filters);
  if (wrong !== undefined) throw new BadRequest(wrong);
  const limit = query.integer("limit") ?? 0;
  const all = query.flag("all") || limit > 0 || filters.has("status") || filters.has("exited");
  const facts = await filterFacts(context, filters);
  const chosen = context.local.containers
    .list()
    .filter(({ record }) => all || ["running", "paused", "restarting"].includes(record.state.status))
    .filter(({ record }) => fitsContainerFilters(record, filters, facts));
  const size = query.flag("size");
  const nowMs = context.clock.wallMs();
  const rows = (limit > 0 ? chosen.slice(0, limit) : chosen).map(async (container) => {
    const networks = networkFacts(context, container.record);
    return summaryJson(
      container.record,
      { networks, ...(size ? { sizes: await sizesOf(context, container) } : {}) },
      nowMs,
    );
  });
  return json(await Promise.all(rows));
}

async function filterFacts(context: LocalContext, filters: Filters): Promise<ContainerFilterFacts> {
  const { containers, images } = context.local;
  const ancestors = new Set<string>();
  for (const reference of filters.values("ancestor")) {
    ancestors.add(reference);
    const found = await images.inspect(reference).catch(() => undefined); // an image that is not here has no containers
    if (found !== undefined) ancestors.add(found.image.id);
  }
  const moments = (key: string): number[] =>
    filters.values(key).map((reference) => containers.get(reference).record.createdAtMs);
  return {
    ancestors,
    beforeMs: Math.min(Infinity, ...moments("before")),
    sinceMs: Math.max(-Infinity, ...moments("since")),
    networks: (record) => networkFacts(context, record),
  };
}

async function createContainer(context: LocalContext, call: Call): Promise<Answer> {
  const { containers, images } = context.local;
  const body = await call.json();
  const wish = { ...body, Cmd: words(body["Cmd"]), Entrypoint: words(body["Entrypoint"]) };
  checkShape(wish, createContainerShape, "ContainerConfigWrapper");
  const {
    HostConfig: host,
    NetworkingConfig: networking,
    ...config
  } = wish as ContainerConfig & {
    HostConfig?: HostConfig | null;
    NetworkingConfig?: { readonly EndpointsConfig?: Networks | null } | null;
    MacAddress?: string;
  };
  const { hostConfig, warnings, networks } = readHostConfig(context, host ?? {}, config, networking?.EndpointsConfig);
  const name = call.query.text("name");
  const image = config.Image ?? "";
  if (image === "") throw new BadRequest("Config.Image cannot be empty in order to create a container");
  // Asked first, so that a client which pulls on 404 gets it in the words that it knows.
  const found = await images.inspect(image).catch((error: unknown) => {
    throw (error as { code?: unknown }).code === "IMAGE_NOT_FOUND" ? new NoSuchImage(withTag(image)) : error;
  });
  checkPlatform(image, found.config.platform, call.query.text("platform"));
  const container = await containers
    .create({
      ...(name === "" ? {} : { name }),
      config,
      hostConfig,
      ...(networks === undefined ? {} : { networks }),
    })
    .catch((error: unknown) => {
      // Not with 404, which clients take for an image that is missing.
      const { code, message } = error as { code?: unknown; message: string };
      throw code === "VOLUME_DRIVER_UNKNOWN" ? new BadRequest(message, "Use the driver local") : error;
    });
  return json({ Id: container.id, Warnings: warnings }, 201);
}

type Platform = NonNullable<ReturnType<typeof platformOf>>;

/** @throws NoSuchImage, after which clients pull the image for that platform */
function checkPlatform(image: string, own: Platform, text: string): void {
  const wanted = platformOf(text);
  if (wanted === undefined) return;
  const isSame =
    wanted.os === own.os &&
    wanted.architecture === own.architecture &&
    (wanted.variant === "" || own.variant === "" || wanted.variant === own.variant);
  if (isSame) return;
  const [has, asked] = [own, wanted].map((one) => [one.os, one.architecture, one.variant].filter(Boolean).join("/"));
  const differs = `its platform (${has}) does not match the specified platform (${asked})`;
  throw new NoSuchImage(image, `image with reference ${image} was found but ${differs}`);
}

/** As the Engine names an image that is missing. */
export function withTag(image: string): string {
  return /[:@][^/]*$/.test(image) ? image : `${image}:latest`;
}

/** The Engine takes a text where it wants words. */
function words(value: unknown): unknown {
  return typeof value === "string" ? [value] : value;
}

type WireHostConfig = HostConfig & {
  readonly VolumesFrom?: readonly string[] | null;
  readonly DeviceRequests?: readonly object[] | null;
  readonly UsernsMode?: string;
};

interface HostWish {
  readonly hostConfig: HostConfig;
  readonly warnings: readonly string[];
  /** Undefined: of this engine's making are none. */
  readonly networks: Networks | undefined;
}

/** What this worker makes of the wish; what it cannot do is refused, and what it leaves out is told. */
function readHostConfig(
  context: LocalContext,
  wire: WireHostConfig,
  config: ContainerConfig & { readonly MacAddress?: string },
  endpoints: Networks | null | undefined,
): HostWish {
  const refuse = (what: string): never => {
    throw new BadRequest(`${what} is not supported by this engine`);
  };
  if ((wire.VolumesFrom ?? []).length > 0) refuse("volumes-from");
  if ((wire.DeviceRequests ?? []).length > 0) refuse("a device request");
  if (!["", "host"].includes(wire.UsernsMode ?? "")) refuse(`the user namespace mode "${wire.UsernsMode ?? ""}"`);
  if (!["", "isolate", "runc"].includes(wire.Runtime ?? "")) refuse(`the runtime "${wire.Runtime ?? ""}"`);
  const driver = wire.LogConfig?.Type ?? "";
  if (!["", "json-file", "local", "none"].includes(driver)) {
    throw new BadRequest(`logger: no log driver named '${driver}' is registered`);
  }
  const { NetworkMode, warnings, networks } = readNetworks(context, wire, config, endpoints ?? {});
  const { MemorySwappiness, PidsLimit } = wire;
  return {
    hostConfig: {
      ...wire,
      NetworkMode,
      // Clients say -1 and 0 where they mean nothing.
      ...(MemorySwappiness === -1 ? { MemorySwappiness: null } : {}),
      ...(PidsLimit === 0 ? { PidsLimit: null } : {}),
    },
    warnings,
    networks,
  };
}

function readNetworks(
  context: LocalContext,
  wire: WireHostConfig,
  config: ContainerConfig & { readonly MacAddress?: string },
  endpoints: Networks,
): { NetworkMode: string; warnings: string[]; networks: Networks | undefined } {
  const ours = context.local.networks;
  const wrong = wrongPorts(config, wire) ?? wrongNetworking(config, wire, endpoints);
  if (wrong !== undefined) throw new BadRequest(wrong);
  const mode = networkMode(wire.NetworkMode ?? "");
  const warnings: string[] = [];
  if (ours === undefined && mode === "bridge") {
    warnings.push(
      "There is no bridge network on this node: the container gets the network none. Use --network host for the host's.",
    );
  }
  const NetworkMode = ours === undefined && mode === "bridge" ? "none" : mode;
  const networks = networksOf(NetworkMode, endpoints, config);
  for (const [name, settings] of Object.entries(networks)) {
    // Not with 404, which clients take for an image that is missing.
    if (ours?.isKnown(name) !== true)
      throw new BadRequest(`network ${name} not found`, "List the networks with `skep network ls`");
    const impossible = ours.wrongWish(name, settings);
    if (impossible !== undefined) throw new BadRequest(impossible);
  }
  const publishes = Object.keys(wire.PortBindings ?? {}).length > 0 || wire.PublishAllPorts === true;
  if (publishes && ["host", "none"].includes(NetworkMode)) {
    warnings.push(`Published ports are discarded when using ${NetworkMode} network mode`);
  }
  return { NetworkMode, warnings, networks: ours === undefined ? undefined : networks };
}

async function pruneContainers(context: LocalContext, call: Call): Promise<Answer> {
  const filters = call.query.filters(["label", "label!", "until"]);
  const untilMs = filters.untilMs(context.clock.wallMs()) ?? Infinity;
  const { containers } = context.local;
  const bytes = new Map<string, number>();
  for (const container of containers.list()) bytes.set(container.id, await container.writtenBytes());
  const removed = await containers.prune(
    ({ record }) => record.createdAtMs >= untilMs || !filters.labels(labelsOf(record)),
  );
  return json({
    ContainersDeleted: removed.length === 0 ? null : removed,
    SpaceReclaimed: removed.reduce((sum, id) => sum + (bytes.get(id) ?? 0), 0),
  });
}
