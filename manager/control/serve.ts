/** Serves control to the node's own daemon and to other managers. */
import { ClusterError } from "../../lib/pure/errors.ts";
import type { CallContext, RpcServer, RpcStream } from "../../lib/rpc/index.ts";

import { controlMethods, skep } from "../../proto/index.ts";
import type { Change, ClusterSchema, Store, WatchEvent } from "../store/index.ts";
import type { Control } from "./control.ts";
import { SpecInvalid } from "./core/errors.ts";
import { find, isThere, kindOf, type Kind } from "./find.ts";
import type { Leader, LogSource } from "./ports.ts";
import { shown } from "./redact.ts";
import { why } from "./why.ts";

const { ChangeAct } = skep.control;

export interface ControlService {
  readonly control: Control;
  readonly store: Store<ClusterSchema>;
  readonly leader: Leader;
  /** Without it, logs are not served. */
  readonly logs: LogSource | undefined;
}

export function serveControl(server: RpcServer, service: ControlService): void {
  const { control, leader } = service;
  server.unary(controlMethods.get, (request, { signal }) => control.get(request, signal));
  server.unary(controlMethods.list, (request, { signal }) => control.list(request, signal));
  server.unary(controlMethods.unlockKey, (request, { signal }) => control.unlockKey(request, signal));
  server.unary(controlMethods.why, (request, { signal }) =>
    control.read(request.stale, signal, (view) => why(view, request)),
  );
  server.unary(controlMethods.create, (request, context) => {
    const asked = { ...request, actor: actorOf(request.actor, context) };
    return leader.run(controlMethods.create, asked, context, (signal) => control.create(asked, asked.actor, signal));
  });
  server.unary(controlMethods.update, (request, context) => {
    const asked = { ...request, actor: actorOf(request.actor, context) };
    return leader.run(controlMethods.update, asked, context, (signal) => control.update(asked, asked.actor, signal));
  });
  server.unary(controlMethods.remove, (request, context) => {
    const asked = { ...request, actor: actorOf(request.actor, context) };
    return leader.run(controlMethods.remove, asked, context, (signal) => control.remove(asked, asked.actor, signal));
  });
  server.bidi(controlMethods.watch, (stream) =>
    serveStream(stream, (request, signal) => watch(service, request, stream, signal)),
  );
  const source = service.logs;
  if (source === undefined) return;
  server.bidi(controlMethods.logs, (stream) =>
    serveStream(stream, (request, signal) => logs(service, source, request, stream, signal)),
  );
}

const actorMax = 128;

/** Who asked the daemon, as it says, at which node, as its certificate says; a manager passes on what it was told. */
function actorOf(said: string | null | undefined, { peer }: CallContext): string {
  return (said || `api@${peer?.identity.nodeId ?? ""}`).slice(0, actorMax);
}

/** One request, then messages until either end has enough. */
function serveStream<Request, Response>(
  stream: RpcStream<Response>,
  run: (request: Request, signal: AbortSignal) => Promise<void>,
): { message(request: Request): void; finished(): void; closed(): void } {
  const stop = new AbortController();
  let asked = false;
  return {
    message: (request) => {
      if (asked) throw new SpecInvalid("a stream takes one request");
      asked = true;
      run(request, stop.signal).then(
        () => stream.end(),
        (error: unknown) => {
          if (stop.signal.aborted || stream.closed) return;
          if (!(error instanceof ClusterError)) throw error;
          stream.abort(error);
        },
      );
    },
    finished: () => {},
    closed: () => stop.abort(),
  };
}

async function watch(
  { store }: ControlService,
  request: skep.control.IWatchObjectsRequest,
  stream: RpcStream<skep.control.IWatchObjectsEvent>,
  signal: AbortSignal,
): Promise<void> {
  const kinds = (request.kinds ?? []).map(kindOf).filter((kind) => kind !== undefined);
  // Leaving the loop closes the watch.
  for await (const event of store.watch({ signal, kinds: kinds.length > 0 ? kinds : allKinds })) {
    if (stream.closed) return;
    if (!stream.write(toWire(event))) await stream.drained(signal);
  }
}

const allKinds: readonly Kind[] = ["cluster", "node", "service", "task", "network", "secret", "config", "volume"];

function toWire(event: WatchEvent<ClusterSchema>): skep.control.IWatchObjectsEvent {
  if (event.kind === "view") return { resync: true };
  return { changes: event.changes.flatMap((change) => changeOf(change) ?? []) };
}

/** An object that is being taken down was removed when that began. */
function changeOf(change: Change<ClusterSchema>): skep.control.IObjectChange | undefined {
  if (change.kind === "resource" || change.kind === "extension") return undefined;
  const { kind, index, timeUs, actor, cause } = change;
  const before = change.before !== undefined && isThere(change.before) ? shown(kind, change.before as never) : null;
  const after = change.after !== undefined && isThere(change.after) ? shown(kind, change.after as never) : null;
  if (before === null && after === null) return undefined;
  const act = before === null ? ChangeAct.CREATED : after === null ? ChangeAct.REMOVED : ChangeAct.UPDATED;
  return { act, index, timeUs, actor, cause, before, after };
}

/** Only who leads has the agents' streams, so another manager relays. */
async function logs(
  { control, leader }: ControlService,
  source: LogSource,
  request: skep.control.ILogsRequest,
  stream: RpcStream<skep.control.ILogsMessage>,
  signal: AbortSignal,
): Promise<void> {
  const channel = request.forwarded === true ? undefined : await leader.channel(signal);
  if (channel !== undefined) {
    await relay(channel, request, stream, signal);
    return;
  }
  const asked = await control.read(false, signal, (view) => ({
    ...request,
    services: (request.services ?? []).map((reference) => find(view, "service", reference).id),
    tasks: (request.tasks ?? []).map((reference) => find(view, "task", reference).id),
  }));
  for await (const message of source.read(asked, signal)) {
    if (stream.closed) return;
    if (!stream.write(message)) await stream.drained(signal);
  }
}

function relay(
  channel: NonNullable<Awaited<ReturnType<Leader["channel"]>>>,
  request: skep.control.ILogsRequest,
  stream: RpcStream<skep.control.ILogsMessage>,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const ask = channel.open(controlMethods.logs, {
      message: (message) => {
        if (stream.write(message)) return;
        ask.pause();
        stream.drained(signal).then(
          () => ask.resume(),
          () => ask.abort(undefined),
        );
      },
      closed: (error) => {
        signal.removeEventListener("abort", leave);
        if (error === undefined) resolve();
        else reject(error);
      },
    });
    const leave = (): void => ask.abort(undefined);
    signal.addEventListener("abort", leave, { once: true });
    ask.write({ ...request, forwarded: true });
  });
}
