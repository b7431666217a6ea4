/** `why`: what keeps a service, task or node from what it should be, and what would change it. */
import { inPath } from "./api/client.ts";
import { CommandError, isNotFound } from "./errors.ts";
import { command, exactly, type Command, type Completes } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { printObjects } from "./output/list.ts";
import { resolveSelf } from "./service/self.ts";
import type { Session } from "./session.ts";

/** GET /skep/v1/{services,tasks,nodes}/{id}/why */
interface Why {
  readonly summary: string;
  readonly causes?: readonly {
    readonly text: string;
    readonly code?: string;
    readonly fix?: string;
    readonly facts?: Readonly<Record<string, unknown>>;
  }[];
  readonly nearestMiss?: string | { readonly text?: string; readonly node?: string } | null;
  readonly fix?: string;
}

type Kind = "services" | "tasks" | "nodes";

const flags = { format: flag.text("Print through a Go template, or 'json'", { short: "f" }) };

const whyOf = (kind: Kind, usage: string, completes: Completes | undefined): Command =>
  command({
    usage: `[OPTIONS] ${usage}`,
    args: exactly(1),
    flags,
    ...(completes === undefined ? {} : { completes }),
    async run(session, flags, [name = ""]) {
      const [id = name] = kind === "nodes" ? await resolveSelf(session, [name]) : [name];
      print(session, await ask(session, kind, id), flags.format);
    },
  });

export const service = whyOf("services", "SERVICE", "services");
export const task = whyOf("tasks", "TASK", undefined);
export const node = whyOf("nodes", "self|NODE", "nodes");

/** Whatever bears the name: a service, then a task, then a node. */
export const any = command({
  usage: "[OPTIONS] SERVICE|TASK|NODE",
  args: exactly(1),
  flags,
  completes: "services",
  async run(session, flags, [name = ""]) {
    const kinds: readonly Kind[] = name === "self" ? ["nodes"] : ["services", "tasks", "nodes"];
    const [id = name] = await resolveSelf(session, [name]);
    for (const kind of kinds) {
      const found = await ask(session, kind, id).catch((error: unknown) => {
        if (isNotFound(error)) return undefined;
        throw error;
      });
      if (found === undefined) continue;
      print(session, found, flags.format);
      return;
    }
    throw new CommandError(`no service, task or node is called ${name}`);
  },
});

async function ask(session: Session, kind: Kind, id: string): Promise<Why> {
  const api = await session.api();
  return api.get<Why>(`/skep/v1/${kind}/${inPath(id)}/why`);
}

function print(session: Session, why: Why, format: string | undefined): void {
  if (format !== undefined) {
    printObjects(session, [why], format);
    return;
  }
  session.print(why.summary);
  for (const cause of why.causes ?? []) {
    session.print(`  - ${cause.text}${cause.code === undefined ? "" : ` [${cause.code}]`}`);
    for (const [name, fact] of Object.entries(cause.facts ?? {})) session.print(`      ${name}: ${shown(fact)}`);
    if (cause.fix) session.print(`      to fix: ${cause.fix}`);
  }
  const miss = typeof why.nearestMiss === "string" ? why.nearestMiss : (why.nearestMiss?.text ?? why.nearestMiss?.node);
  if (miss) session.print(`nearest miss: ${miss}`);
  const isTold = (why.causes ?? []).some(({ fix }) => fix === why.fix);
  if (why.fix && !isTold) session.print(`to fix: ${why.fix}`);
}

function shown(fact: unknown): string {
  return typeof fact === "string" ? fact : JSON.stringify(fact);
}
