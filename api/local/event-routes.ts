/** `GET /events`: what is remembered, then what comes (Engine API, "System"). */
import { sleep } from "../../lib/runtime/index.ts";
import { lines, type Answer, type Call, type LocalRoute } from "./call.ts";
import type { LocalContext } from "./context.ts";
import type { EngineEvent } from "./events.ts";
import type { Filters } from "./query.ts";

const filterKeys = [
  "config",
  "container",
  "daemon",
  "event",
  "image",
  "label",
  "network",
  "node",
  "plugin",
  "scope",
  "secret",
  "service",
  "type",
  "volume",
] as const;

export function eventRoutes(context: LocalContext): LocalRoute[] {
  return [{ method: "GET", path: "/events", handle: async (call) => events(context, call) }];
}

function events(context: LocalContext, call: Call): Answer {
  const { query } = call;
  const filters = query.filters(filterKeys);
  const sinceNs = query.timeNs("since");
  const untilNs = query.timeNs("until") || undefined; // 0 is how some say: none
  const stop = new AbortController();
  const signal = AbortSignal.any([call.signal, stop.signal]);
  // Before the history is read, so that nothing falls in between.
  const coming = context.events.watch(signal);
  const past = sinceNs === undefined ? [] : context.events.since(sinceNs);
  return lines(async (line) => {
    let lastNs = 0n;
    const tell = async (event: EngineEvent): Promise<void> => {
      if (event.timeNs <= lastNs) return;
      lastNs = event.timeNs;
      if (fitsEventFilters(event, filters)) await line(eventJson(event));
    };
    try {
      for (const event of past) {
        if (untilNs !== undefined && event.timeNs > untilNs) return;
        await tell(event);
      }
      if (untilNs !== undefined) {
        const leftMs = Number(untilNs) / 1e6 - context.clock.wallMs();
        if (leftMs <= 0) return;
        void sleep(context.clock, leftMs, signal).then(
          () => stop.abort(),
          () => undefined, // the client was faster
        );
      }
      for await (const event of coming) await tell(event);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      stop.abort();
      await coming.return();
    }
  });
}

/** Containers and images have a second, older form in the same object. */
function eventJson({ type, action, id, attributes, scope, timeNs }: EngineEvent): object {
  return {
    ...(type === "container" || type === "image"
      ? { status: action, id, ...(type === "container" ? { from: attributes["image"] ?? "" } : {}) }
      : {}),
    Type: type,
    Action: action,
    Actor: { ID: id, Attributes: attributes },
    scope,
    time: timeNs / 1_000_000_000n,
    timeNano: timeNs,
  };
}

export function fitsEventFilters(event: EngineEvent, filters: Filters): boolean {
  const { type, action, id, attributes, scope } = event;
  const kinds = ["config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"] as const;
  const named = kinds.filter((kind) => filters.has(kind));
  const name = attributes["name"] ?? "";
  return (
    filters.some("type", (value) => value === type) &&
    filters.some("scope", (value) => value === scope) &&
    filters.some("event", (value) => value === action || action.startsWith(`${value}:`)) &&
    filters.labels(attributes) &&
    // Objects of different kinds are alternatives.
    (named.length === 0 ||
      named.some(
        (kind) => kind === type && filters.values(kind).some((value) => id.startsWith(value) || name.startsWith(value)),
      )) &&
    filters.some("image", (value) => {
      const image = type === "image" ? name || id : (attributes["image"] ?? "");
      return image === value || image.split(/[:@]/, 1)[0] === value || id === value;
    })
  );
}
