/** `skep stack`: the services, secrets, configs and networks that share a stack's label. */
import { setTimeout as sleep } from "node:timers/promises";
import { filtersQuery, inPath, type Api } from "./api/client.ts";
import type { Network, Service, StoredFile, Task } from "./api/types.ts";
import { CommandError, messageOf, throwAll } from "./errors.ts";
import { atLeast, command, exactly, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { printList } from "./output/list.ts";
import { printServices } from "./service.ts";
import { printTasks, taskListFlags } from "./service/tasks.ts";
import type { Session } from "./session.ts";

const label = "com.docker.stack.namespace";

/** Adds the stack's own condition to those of the command line. */
function ofStack(stack: string, filters: flag.Filters | undefined): flag.Filters {
  if (!/\S/.test(stack) || /['"]/.test(stack)) throw new CommandError(`invalid stack name: ${JSON.stringify(stack)}`);
  return new Map([...(filters ?? []), ["label", [...(filters?.get("label") ?? []), `${label}=${stack}`]]]);
}

export const ls = command({
  usage: "[OPTIONS]",
  args: none,
  flags: { format: flag.format() },
  async run(session, flags) {
    const api = await session.api();
    const services = await api.get<Service[] | null>("/services", {
      query: { filters: filtersQuery(new Map([["label", [label]]])) },
    });
    const counts = new Map<string, number>();
    for (const { Spec } of services ?? []) {
      const name = Spec.Labels?.[label] ?? "";
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const stacks = [...counts].toSorted(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
    printList(session, stacks, {
      columns: {
        Name: ["NAME", ([name]) => name],
        Services: ["SERVICES", ([, services]) => String(services)],
        Orchestrator: ["ORCHESTRATOR", () => "Swarm"],
      },
      shown: ["Name", "Services"],
      id: "Name",
      format: flags.format,
    });
  },
});

export const ps = command({
  usage: "[OPTIONS] STACK",
  args: exactly(1),
  flags: taskListFlags,
  completes: "stacks",
  async run(session, flags, [stack = ""]) {
    const api = await session.api();
    const tasks = await api.get<Task[] | null>("/tasks", {
      query: { filters: filtersQuery(ofStack(stack, flags.filter)) },
    });
    if (tasks === null || tasks.length === 0) throw new CommandError(`nothing found in stack: ${stack}`);
    await printTasks(session, tasks, flags);
  },
});

export const services = command({
  usage: "[OPTIONS] STACK",
  args: exactly(1),
  flags: { filter: flag.filters(), format: flag.format(), quiet: flag.quiet() },
  completes: "stacks",
  async run(session, flags, [stack = ""]) {
    const nothing = (): void => session.warn(`Nothing found in stack: ${stack}`);
    await printServices(session, { ...flags, filter: ofStack(stack, flags.filter) }, nothing);
  },
});

export const rm = command({
  usage: "[OPTIONS] STACK [STACK...]",
  args: atLeast(1),
  flags: { detach: flag.bool("Do not wait until the tasks are gone", { short: "d", shownDefault: "true" }) },
  completes: "stacks",
  async run(session, flags, stacks) {
    const errors: unknown[] = [];
    for (const stack of stacks) {
      try {
        await remove(session, stack, flags.detach === false);
      } catch (error) {
        errors.push(error);
      }
    }
    throwAll(errors);
  },
});

/** Services first, since what they use cannot be removed before. */
async function remove(session: Session, stack: string, wait: boolean): Promise<void> {
  const api = await session.api();
  const query = { filters: filtersQuery(ofStack(stack, undefined)) };
  const services = (await api.get<Service[] | null>("/services", { query })) ?? [];
  const networks = (await api.get<Network[] | null>("/networks", { query })) ?? [];
  const secrets = (await api.get<StoredFile[] | null>("/secrets", { query })) ?? [];
  const configs = (await api.get<StoredFile[] | null>("/configs", { query })) ?? [];
  const members = [
    ...byName(
      "service",
      "/services",
      services.map((one) => ({ id: one.ID, name: one.Spec.Name })),
    ),
    ...byName(
      "secret",
      "/secrets",
      secrets.map((one) => ({ id: one.ID, name: one.Spec.Name })),
    ),
    ...byName(
      "config",
      "/configs",
      configs.map((one) => ({ id: one.ID, name: one.Spec.Name })),
    ),
    ...byName(
      "network",
      "/networks",
      networks.map((one) => ({ id: one.Id, name: one.Name })),
    ),
  ];
  if (members.length === 0) {
    session.warn(`Nothing found in stack: ${stack}`);
    return;
  }
  const failed: string[] = [];
  for (const { kind, path, name } of members) {
    session.print(`Removing ${kind} ${name}`);
    try {
      await api.delete(path);
    } catch (error) {
      session.warn(`Failed to remove ${kind} ${name}: ${messageOf(error)}`);
      failed.push(name);
    }
  }
  if (failed.length > 0) throw new CommandError(`Failed to remove some resources from stack: ${stack}`);
  if (wait) await untilGone(session, api, query);
}

function byName(
  kind: string,
  base: string,
  members: readonly { readonly id: string; readonly name: string }[],
): { kind: string; path: string; name: string }[] {
  return members
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ id, name }) => ({ kind, path: `${base}/${inPath(id)}`, name }));
}

/** The tasks' own end counts, or that they are not there any more. */
async function untilGone(session: Session, api: Api, query: { filters: string | undefined }): Promise<void> {
  const over = new Set(["complete", "shutdown", "failed", "rejected", "remove", "orphaned"]);
  const signal = session.interrupted;
  for (;;) {
    const tasks = (await api.get<Task[] | null>("/tasks", { query, signal })) ?? [];
    if (tasks.every((task) => over.has(task.Status.State))) return;
    await sleep(200, undefined, { signal });
  }
}

const composeMissing = (what: string): ReturnType<typeof command> =>
  command({
    usage: "[OPTIONS] STACK",
    args: atLeast(0),
    flags: {},
    run() {
      throw new CommandError(
        `skep stack ${what} is not there yet: this version reads no Compose files.\nDeploy with 'docker stack ${what}' against the same daemon (DOCKER_HOST), which works; or use 'skep service create'.`,
      );
    },
  });

export const deploy = composeMissing("deploy");
export const config = composeMissing("config");
