/** One task on this node: its container, and what has to be there before it. Contract: contract.ts. */
import type { Container, Containers, HostConfig } from "../containers/index.ts";
import { ClusterError } from "../../lib/pure/errors.ts";
import { templateData, type skep } from "../../proto/index.ts";
import type { Clock } from "../../lib/runtime/index.ts";
import type { ExitReport, Needs, NodeFacts, TaskController, TaskLogLine, TaskLogOptions } from "./contract.ts";
import {
  containerSpecOf,
  environmentOfTask,
  payloadFunctions,
  planContainer,
  TaskSpecInvalid,
  type TaskContainerPlan,
} from "./core/container-of-task.ts";
import { expandTemplate } from "../../lib/pure/template.ts";
import { TaskContainerGone, TaskDependencyMissing, TaskExitedEarly, TaskUnhealthy } from "./errors.ts";
import type { ImagePulls, PullReport } from "./image-pulls.ts";
import type { SecretFile, SecretFiles } from "./secret-files.ts";
import { planTaskNetwork, portStatusOf, type TaskNetworks } from "./task-networks.ts";

/** Of containers in a sandbox; which, their task's id tells. As the reference has it for tasks. */
const sandboxMode = "default";

type Report = (reason: skep.objects.Reason.$Properties) => void;

/** What all controllers of an executor share. */
export interface ControllerHost {
  readonly containers: Containers;
  readonly pulls: ImagePulls;
  readonly files: SecretFiles;
  /** Absent: this node has no networks of its own. */
  readonly networks?: TaskNetworks;
  readonly clock: Clock;
  /** The container that was made for a task, if there is one. */
  find(taskId: string): Container | undefined;
}

/** Swarm's reason shows progress; more often than that nobody reads. */
const progressMs = 500;
const unhealthyOutputMax = 4096;

interface FileWish {
  readonly file: SecretFile;
  readonly target: string;
}

export class ContainerTask implements TaskController {
  readonly #host: ControllerHost;
  readonly #needs: Needs;
  readonly #facts: NodeFacts;
  #task: skep.objects.Task;
  /** Secrets and networks are in place, by this controller: nothing but the end of its process takes them away. */
  #isInPlace = false;

  constructor(host: ControllerHost, task: skep.objects.Task, needs: Needs, facts: NodeFacts) {
    this.#host = host;
    this.#task = task;
    this.#needs = needs;
    this.#facts = facts;
  }

  async update(task: skep.objects.Task): Promise<void> {
    this.#task = task;
  }

  async prepare(signal: AbortSignal, report: Report): Promise<void> {
    signal.throwIfAborted();
    if (this.#host.find(this.#task.id) !== undefined) return;
    try {
      await this.#orNoSecrets(() => this.#prepare(signal, report));
    } catch (error) {
      await this.#forgetNetworks();
      throw error;
    }
  }

  async #prepare(signal: AbortSignal, report: Report): Promise<void> {
    const networkMode = await this.#connect(report, signal);
    const { spec, plan } = await this.#plan(networkMode, report);
    const sinceUs = Math.round(this.#host.clock.wallMs() * 1000);
    await this.#host.pulls.ensure(
      plan.config.Image,
      spec.pullOptions?.registryAuth ?? "",
      this.#throttled(plan.config.Image, sinceUs, report),
      signal,
    );
    signal.throwIfAborted();
    const { mounts, config, hostConfig, name } = plan;
    await this.#host.containers.create({ name, config, hostConfig: { ...(hostConfig as HostConfig), Mounts: mounts } });
    this.#isInPlace = true;
  }

  /** Builds the networks that the container will start in; the same again when it is called again. @returns its network mode */
  async #connect(report: Report, signal: AbortSignal): Promise<string> {
    const { networks } = this.#host;
    try {
      const plan = planTaskNetwork(this.#task, this.#needs, networks?.abilities);
      if (plan.mode !== "sandbox") return plan.mode;
      await networks?.sandboxes.attach(this.#task.id, plan.request, signal);
      return sandboxMode;
    } catch (error) {
      if (error instanceof ClusterError) report(this.#networkReason(error));
      throw error;
    }
  }

  /** Some errors say themselves why a task cannot run: a port that is in use. */
  #networkReason(error: ClusterError): skep.objects.Reason.$Properties {
    const { reason } = error as { reason?: skep.objects.Reason.$Properties };
    const networkId = this.#task.spec?.networks?.[0]?.target ?? "";
    return { ...(reason ?? { networkNotReady: { networkId, detail: error.message } }), sinceUs: this.#nowUs() };
  }

  /** Decides everything and puts the secrets in place; the same again when it is called again. */
  async #plan(
    networkMode: string,
    report: Report,
  ): Promise<{ spec: skep.objects.ContainerSpec.$Properties; plan: TaskContainerPlan }> {
    const spec = containerSpecOf(this.#task);
    const wishes = this.#fileWishes(spec, report);
    const paths = await this.#host.files.write(
      this.#task.id,
      wishes.map(({ file }) => file),
    );
    const files = wishes.map(({ target }, at) => ({ source: paths[at] ?? "", target }));
    return { spec, plan: planContainer(this.#task, this.#facts, networkMode, files) };
  }

  #fileWishes(spec: skep.objects.ContainerSpec.$Properties, report: Report): FileWish[] {
    const data = templateData(this.#task, this.#facts);
    const read = (payload: { data?: Uint8Array | null } | null | undefined): string | undefined =>
      payload?.data == null ? undefined : Buffer.from(payload.data).toString("utf8");
    const functions = payloadFunctions(spec, environmentOfTask(this.#task, spec, data), {
      secret: (id) => read(this.#needs.secret(id)?.spec),
      config: (id) => read(this.#needs.config(id)?.spec),
    });
    const wish = (
      kind: "secret" | "config",
      id: string,
      name: string,
      target: skep.objects.FileTarget.$Properties,
    ): FileWish => {
      const payload = this.#needs[kind](id)?.spec;
      if (payload == null) {
        report({ dependencyMissing: { kind, reference: name === "" ? id : name }, sinceUs: this.#nowUs() });
        throw new TaskDependencyMissing(kind, name === "" ? id : name);
      }
      const templating = payload.templating?.name ?? "";
      if (templating !== "" && templating !== "golang") {
        throw new TaskSpecInvalid(`${kind} ${name} wants the template driver "${templating}"`, "Use the driver golang");
      }
      const raw = payload.data ?? new Uint8Array();
      const where = `${kind} ${name}`;
      const bytes =
        templating === ""
          ? raw
          : Buffer.from(expandTemplate(where, Buffer.from(raw).toString("utf8"), data, functions));
      const file = { bytes, uid: ownerOf(target.uid), gid: ownerOf(target.gid), mode: target.mode ?? 0o444 };
      return { file, target: targetOf(target.name ?? name, kind) };
    };
    return [
      ...(spec.secrets ?? []).map((one) =>
        wish("secret", one.secretId ?? "", one.secretName ?? "", one.file ?? { name: one.secretName ?? "" }),
      ),
      // A config with a runtime target is for the runtime, not a file.
      ...(spec.configs ?? []).flatMap((one) =>
        one.file == null ? [] : [wish("config", one.configId ?? "", one.configName ?? "", one.file)],
      ),
    ];
  }

  #throttled(image: string, sinceUs: number, report: Report): (progress: PullReport) => void {
    let lastMs = -Infinity;
    return ({ bytesDone, bytesTotal }) => {
      const nowMs = this.#host.clock.monotonicMs();
      if (nowMs - lastMs < progressMs) return;
      lastMs = nowMs;
      report({ pulling: { image, bytesDone, bytesTotal }, sinceUs });
    };
  }

  async start(signal: AbortSignal, report: Report): Promise<void> {
    signal.throwIfAborted();
    const container = this.#container();
    // A task lives once: one that ended is never started again, `wait` tells how it ended.
    if (container.record.state.startedAtMs === 0) {
      await this.#orNoSecrets(async () => {
        // After a reboot the container is still here; its secrets and its namespace are not.
        if (!this.#isInPlace) await this.#plan(await this.#connect(report, signal), report);
        await container.start();
      });
    }
    await this.#untilHealthy(container, signal, report);
  }

  async #untilHealthy(container: Container, signal: AbortSignal, report: Report): Promise<void> {
    for (;;) {
      const change = container.changed(signal);
      change.catch(() => undefined); // awaited below, unless it is over
      const { health, exit, status } = container.record.state;
      const ended = !container.running && (exit !== undefined || status === "removing");
      if (health.status === "none" || health.status === "healthy") return;
      if (health.status === "unhealthy") {
        report(this.#unhealthy(container));
        await this.#stop(container);
        throw new TaskUnhealthy(health.failingStreak);
      }
      if (ended) {
        await this.#forgetSecrets();
        throw new TaskExitedEarly(exit?.code ?? 0);
      }
      await change;
    }
  }

  async wait(signal: AbortSignal): Promise<ExitReport> {
    const container = this.#container();
    let unhealthy: Pick<ExitReport, "error" | "reason"> | undefined;
    for (;;) {
      const change = container.changed(signal);
      change.catch(() => undefined); // awaited below, unless it is over
      const { state } = container.record;
      if (this.#host.find(this.#task.id) === undefined) throw new TaskContainerGone(this.#task.id);
      if (!container.running && state.exit !== undefined) {
        await this.#forgetSecrets();
        return { exitCode: state.exit.code, oomKilled: state.exit.oomKilled, ...unhealthy };
      }
      if (state.health.status === "unhealthy" && unhealthy === undefined) {
        unhealthy = { error: new TaskUnhealthy(state.health.failingStreak), reason: this.#unhealthy(container) };
        await this.#stop(container);
        continue;
      }
      await change;
    }
  }

  #unhealthy(container: Container): skep.objects.Reason.$Properties {
    const { health } = container.record.state;
    const last = health.log.at(-1);
    const output = (last?.output ?? "").slice(0, unhealthyOutputMax);
    return {
      unhealthy: { failingStreak: health.failingStreak, exitCode: last?.exitCode ?? 0, output },
      sinceUs: this.#nowUs(),
    };
  }

  async #stop(container: Container): Promise<void> {
    const { stopGraceMs } = planContainer(this.#task, this.#facts, "none", []);
    await container.stop({ seconds: stopGraceMs / 1000 });
    await this.#forgetSecrets();
  }

  /** A task is never started again: what it was trusted with goes as soon as it has ended, long before the rest of it. */
  async #forgetSecrets(): Promise<void> {
    // It is no less ended if that fails; they go with the task, or when the daemon starts again.
    await this.#host.files.remove(this.#task.id).catch(() => undefined);
  }

  /**
   * A task of which nothing will run stays in the history for long: its ports and addresses are for others, such as the task
   * that takes its place on this node.
   */
  async #forgetNetworks(): Promise<void> {
    if ((this.#host.find(this.#task.id)?.record.state.startedAtMs ?? 0) !== 0) return; // they go with its process
    // What stays of them goes with the task, or when the daemon starts again.
    await this.#host.networks?.sandboxes.release(this.#task.id).catch(() => undefined);
  }

  async #orNoSecrets(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.#isInPlace = false;
      await this.#forgetSecrets();
      throw error;
    }
  }

  async shutdown(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const container = this.#host.find(this.#task.id);
    if (container !== undefined) await abortable(this.#stop(container), signal);
    await this.#forgetNetworks();
  }

  async terminate(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const container = this.#host.find(this.#task.id);
    if (container === undefined) return;
    const kill = async (): Promise<void> => {
      await container.stop({ seconds: 0, signal: "KILL" });
      await this.#forgetSecrets();
    };
    await abortable(kill(), signal);
    await this.#forgetNetworks();
  }

  async remove(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await removeTask(this.#host, this.#task.id);
  }

  containerStatus(): skep.objects.ContainerStatus.$Properties | undefined {
    const container = this.#host.find(this.#task.id);
    if (container === undefined) return undefined;
    const { pid, exit } = container.record.state;
    return { containerId: container.id, pid, exitCode: exit?.code ?? 0 };
  }

  /** A task in the host's network opens its ports itself. */
  portStatus(): skep.objects.PortStatus.$Properties | undefined {
    const sandbox = this.#host.networks?.sandboxes.get(this.#task.id);
    return sandbox === undefined ? undefined : portStatusOf(sandbox);
  }

  networkStatus(): skep.objects.NetworkStatus.$Properties | undefined {
    const address = this.#host.networks?.sandboxes.get(this.#task.id)?.gatewayAddress;
    return address === undefined ? undefined : { gatewayAddresses: [address] };
  }

  async *logs(options: TaskLogOptions, signal: AbortSignal): AsyncGenerator<TaskLogLine, void, undefined> {
    const { stdout, stderr, follow, tail, sinceNs } = options;
    const wish = {
      stdout,
      stderr,
      follow,
      ...(tail === undefined ? {} : { tail }),
      ...(sinceNs === undefined ? {} : { sinceNs }),
    };
    const container = this.#container();
    if (follow) await this.#untilStarted(container, signal);
    for await (const line of container.logs(wish, signal)) {
      yield { stream: line.stream === "stderr" ? "stderr" : "stdout", timeNs: line.timeNs, text: line.text };
    }
  }

  /** What was never started has written nothing, and looks as if it were over. */
  async #untilStarted(container: Container, signal: AbortSignal): Promise<void> {
    for (;;) {
      const change = container.changed(signal);
      const { status, exit } = container.record.state;
      const waits = status === "created" && exit === undefined && this.#host.find(this.#task.id) === container;
      if (!waits) {
        change.catch(() => undefined); // nobody waits for it any more
        return;
      }
      await change;
    }
  }

  #container(): Container {
    const container = this.#host.find(this.#task.id);
    if (container === undefined) throw new TaskContainerGone(this.#task.id);
    return container;
  }

  #nowUs(): number {
    return Math.round(this.#host.clock.wallMs() * 1000);
  }
}

/** Secrets first: what is left after a crash in between has none any more. Its networks last: nothing of it uses them then. */
export async function removeTask(
  host: Pick<ControllerHost, "files" | "find" | "networks">,
  taskId: string,
): Promise<void> {
  await host.files.remove(taskId);
  const container = host.find(taskId);
  try {
    await container?.remove({ force: true, volumes: true });
  } catch (error) {
    if (host.find(taskId) !== undefined) throw error; // else somebody else removed it meanwhile
  }
  await host.networks?.sandboxes.release(taskId);
}

/** Leaves the work to itself when the signal aborts; it goes on to its end. */
async function abortable(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const left = Promise.withResolvers<never>();
  const leave = (): void => left.reject(signal.reason as Error);
  signal.addEventListener("abort", leave, { once: true });
  try {
    await Promise.race([work, left.promise]);
  } finally {
    signal.removeEventListener("abort", leave);
    work.catch(() => undefined); // who left does not hear of it; the next act finds what it did
  }
}

/** Numbers only, as Swarm: names would be looked up in the image. */
function ownerOf(text: string | null | undefined): number {
  if (text == null || text === "") return 0;
  if (!/^[0-9]{1,9}$/.test(text)) throw new TaskSpecInvalid(`the owner "${text}" of a secret or config is no number`);
  return Number(text);
}

function targetOf(name: string, kind: "secret" | "config"): string {
  if (name === "" || name.includes("\0") || name.split("/").includes("..")) {
    throw new TaskSpecInvalid(`a ${kind} cannot be put at "${name}"`);
  }
  if (name.startsWith("/")) return name;
  return kind === "secret" ? `/run/secrets/${name}` : `/${name}`;
}
