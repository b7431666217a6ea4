/** The engine itself: what it says of itself, disk usage, login (Engine API, "System"). */
import { readFile } from "node:fs/promises";
import { cpus, release, totalmem } from "node:os";
import { arch } from "node:process";

import { BadRequest } from "../http/index.ts";
import { credentialsOf } from "../../worker/images/index.ts";
import { machineName } from "../../worker/executor/index.ts";
import { PluginNotFound } from "./errors.ts";
import { json, type Answer, type Call, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import { summaryJson } from "./core/container-json.ts";
import { imageSummaryJson } from "./core/image-json.ts";
import { imageRows } from "./images.ts";
import { networkFacts } from "./networks.ts";
import { volumeJson } from "./volumes.ts";

export function systemRoutes(context: LocalContext): LocalRoute[] {
  return [
    { method: "GET", path: "/system/df", handle: (call) => diskUsage(context, call) },
    { method: "POST", path: "/auth", handle: (call) => login(context, call) },
    // There is no builder here, and so nothing of it to remove.
    {
      method: "POST",
      path: "/build/prune",
      handle: async () => json({ CachesDeleted: null, SpaceReclaimed: 0 }),
    },
    // Plugins: none, but a list of them is asked for by many clients.
    { method: "GET", path: "/plugins", handle: async () => json([]) },
    {
      method: "GET",
      path: "/plugins/*name/json",
      handle: async (call) => {
        throw new PluginNotFound(call.params["name"] ?? "");
      },
    },
    { method: "POST", path: "/build/cancel", handle: async () => ({ kind: "empty", status: 204 }) },
  ];
}

async function osRelease(): Promise<Readonly<Record<string, string>>> {
  const text = await readFile("/etc/os-release", "utf8").catch(() => ""); // a minimal host may have none
  const pairs = [...text.matchAll(/^([A-Z_]+)=(?:"([^"\n]*)"|([^\n]*))$/gm)];
  return Object.fromEntries(pairs.map(([, name = "", quoted, plain]) => [name, quoted ?? plain ?? ""]));
}

/** `GET /info` without its member `Swarm`. */
export async function engineInfo(context: LocalContext): Promise<Readonly<Record<string, unknown>>> {
  const { engine, local, clock } = context;
  const records = local.containers.list().map(({ record }) => record.state.status);
  const count = (...statuses: readonly string[]): number => records.filter((one) => statuses.includes(one)).length;
  const os = await osRelease();
  const running = count("running", "restarting");
  const paused = count("paused");
  const secure = (name: string): boolean => !engine.insecureRegistries.includes(name);
  return {
    ID: engine.id,
    Containers: records.length,
    ContainersRunning: running,
    ContainersPaused: paused,
    ContainersStopped: records.length - running - paused,
    Images: (await local.images.list()).length,
    Driver: "overlay2",
    DriverStatus: [["Supports d_type", "true"]],
    Plugins: {
      Volume: ["local"],
      Network: local.networks === undefined ? ["host", "null"] : ["bridge", "host", "null", "overlay"],
      Authorization: null,
      Log: ["json-file", "local"],
    },
    MemoryLimit: true,
    SwapLimit: true,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    IPv4Forwarding: true,
    Debug: engine.debug,
    NFd: 0,
    OomKillDisable: local.containers.cgroupVersion === 1,
    NGoroutines: 0,
    SystemTime: new Date(clock.wallMs()).toISOString(),
    LoggingDriver: "json-file",
    CgroupDriver: "cgroupfs",
    CgroupVersion: String(local.containers.cgroupVersion),
    NEventsListener: 0,
    KernelVersion: release(),
    OperatingSystem: os["PRETTY_NAME"] ?? "Linux",
    OSVersion: os["VERSION_ID"] ?? "",
    OSType: "linux",
    Architecture: machineName(arch),
    IndexServerAddress: "https://index.docker.io/v1/",
    RegistryConfig: {
      InsecureRegistryCIDRs: ["127.0.0.0/8"],
      IndexConfigs: {
        "docker.io": { Name: "docker.io", Mirrors: engine.mirrors, Secure: true, Official: true },
        ...Object.fromEntries(
          engine.insecureRegistries.map((name) => [
            name,
            { Name: name, Mirrors: [], Secure: secure(name), Official: false },
          ]),
        ),
      },
      Mirrors: engine.mirrors,
    },
    NCPU: cpus().length,
    MemTotal: totalmem(),
    GenericResources: null,
    DockerRootDir: engine.dataRoot,
    HttpProxy: "",
    HttpsProxy: "",
    NoProxy: "",
    Name: engine.hostname,
    Labels: Object.entries(engine.labels).map(([key, value]) => `${key}=${value}`),
    ExperimentalBuild: false,
    ServerVersion: engine.version,
    Runtimes: { isolate: { path: "isolate" } },
    DefaultRuntime: "isolate",
    LiveRestoreEnabled: true,
    Isolation: "",
    InitBinary: engine.init ? "docker-init" : "",
    ContainerdCommit: { ID: "" },
    RuncCommit: { ID: "" },
    InitCommit: { ID: "" },
    SecurityOptions: ["name=seccomp,profile=builtin", "name=cgroupns"],
    Warnings: null,
  };
}

/** `type` narrows it: container, image, volume, build-cache; without it, all. */
async function diskUsage(context: LocalContext, call: Call): Promise<Answer> {
  const { containers, images, volumes } = context.local;
  const types = call.query.all("type");
  const unknown = types.find((type) => !["container", "image", "volume", "build-cache"].includes(type));
  if (unknown !== undefined) throw new BadRequest(`unknown object type: ${unknown.slice(0, 64)}`);
  const wants = (type: string): boolean => types.length === 0 || types.includes(type);
  const nowMs = context.clock.wallMs();
  const all = await images.list();
  const sizeOf = new Map(all.map(({ id, sizeBytes }) => [id as string, sizeBytes]));
  // Begun when they are waited for: a failure before that would be nobody's, and end the process.
  const rowsOfImages = (): Promise<object[]> =>
    imageRows(context, all, (summary, labels) => ({
      ...imageSummaryJson(summary, labels, call.minor),
      SharedSize: 0,
      Containers: summary.containers,
    }));
  const rowsOfContainers = containers.list().map((container) => async (): Promise<object> => {
    const { record } = container;
    const rw = await container.writtenBytes();
    const sizes = { rw, rootFs: rw + (sizeOf.get(record.imageId) ?? 0) };
    return summaryJson(record, { networks: networkFacts(context, record), sizes }, nowMs);
  });
  const rowsOfVolumes = volumes.list().map((record) => async (): Promise<object> => ({
    ...volumeJson(context, record),
    UsageData: { Size: await volumes.size(record.name), RefCount: volumes.usedBy(record.name).length },
  }));
  return json({
    ...(wants("image") ? { LayersSize: await images.layersBytes(), Images: await rowsOfImages() } : {}),
    ...(wants("container") ? { Containers: await Promise.all(rowsOfContainers.map((row) => row())) } : {}),
    ...(wants("volume") ? { Volumes: await Promise.all(rowsOfVolumes.map((row) => row())) } : {}),
    ...(wants("build-cache") ? { BuildCache: [] } : {}),
    BuilderSize: 0,
  });
}

async function login(context: LocalContext, call: Call): Promise<Answer> {
  const body = await call.json();
  const credentials = credentialsOf(body);
  if (credentials === undefined) throw new BadRequest("no username and password, and no token");
  const address = typeof body["serveraddress"] === "string" ? body["serveraddress"] : "";
  // Clients send Docker Hub's old index address, with scheme and path.
  const host = address.replace(/^https?:\/\//, "").replace(/\/.*$/, "");
  await context.local.images.login(
    host === "" || host === "index.docker.io" ? "docker.io" : host,
    credentials,
    call.signal,
  );
  return json({ Status: "Login Succeeded", IdentityToken: "" });
}
