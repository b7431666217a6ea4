/** What the API may do to the objects: the only door for changes that people ask for. */
import type { ClusterError } from "../../lib/pure/errors.ts";
import { skep } from "../../proto/index.ts";
import {
  Conflict,
  NameInUse,
  NotLeader,
  VersionConflict,
  type ClusterSchema,
  type Store,
  type Tx,
  type View,
} from "../store/index.ts";
import { updateCluster, type Chance } from "./cluster.ts";
import { ChangeUnsupported, NameConflict, NoLeader, SpecInvalid, UpdateOutOfSequence } from "./core/errors.ts";
import { find, kindOf, theCluster, type Found, type Kind } from "./find.ts";
import { countsOf, listed, type ListFacts } from "./list.ts";
import { createNetwork, removeNetwork, updateNetwork } from "./networks.ts";
import { removeNode, updateNode } from "./nodes.ts";
import { shown } from "./redact.ts";
import { createData, removeData, updateData } from "./secrets.ts";
import { createService, removeService, updateService } from "./services.ts";

type ClusterTx = Tx<ClusterSchema>;
type Reply = skep.control.IObjectReply;

export interface ControlOptions extends Chance, ListFacts {
  readonly store: Store<ClusterSchema>;
}

/** A list is told in parts of about this size; a message takes 4 MiB. */
const listBytesMax = 2 * 1024 * 1024;
/** A change that met another one is made again so often. */
const triesMax = 5;

export class Control {
  readonly #options: ControlOptions;

  constructor(options: ControlOptions) {
    this.#options = options;
  }

  // -------------------------------------------------------------------------------------------------------- reading

  async get(request: skep.control.IGetObjectRequest, signal: AbortSignal): Promise<Reply> {
    const kind = checkedKind(request.kind);
    return this.read(request.stale, signal, (view) => ({
      object: shown(kind, find(view, kind, request.reference ?? "")),
    }));
  }

  async list(request: skep.control.IListObjectsRequest, signal: AbortSignal): Promise<skep.control.IListObjectsReply> {
    const kind = checkedKind(request.kind);
    return this.read(request.stale, signal, (view) => {
      const objects: skep.control.IObject[] = [];
      const counts: skep.control.IServiceCounts[] = [];
      let bytes = 0;
      const sizes = new Sizes();
      for (const object of listed(view, kind, request.filters ?? [], request.after ?? "", this.#options)) {
        const one = shown(kind, object);
        bytes += sizes.next(kind, one);
        if (bytes > listBytesMax && objects.length > 0) {
          return { objects, counts, next: idOf(objects.at(-1)) };
        }
        objects.push(one);
        if (request.withStatus === true && kind === "service") counts.push(countsOf(view, object as Found<"service">));
      }
      return { objects, counts };
    });
  }

  async unlockKey(request: skep.control.IUnlockKeyRequest, signal: AbortSignal): Promise<skep.control.IUnlockKeyReply> {
    return this.read(request.stale, signal, (view) => ({ key: theCluster(view)?.unlockKey ?? new Uint8Array(0) }));
  }

  /** Acknowledged state, or with `stale` this manager's own. @throws NoLeader, and what `look` throws */
  async read<T>(
    stale: boolean | null | undefined,
    signal: AbortSignal,
    look: (view: View<ClusterSchema>) => T,
  ): Promise<T> {
    const { store } = this.#options;
    if (stale === true) return store.view(look);
    try {
      return await store.read(look, signal);
    } catch (error) {
      throw error instanceof NotLeader ? new NoLeader(error) : error;
    }
  }

  // ------------------------------------------------------------------------------------------- changing, on the leader

  async create(request: skep.control.ICreateObjectRequest, actor: string, signal: AbortSignal): Promise<Reply> {
    const { service, network, secret, config } = request.spec ?? {};
    const id = this.#options.newId();
    const make = (kind: Kind, act: (tx: ClusterTx) => void): Promise<Reply> =>
      this.#change(kind, "create", actor, signal, (tx) => {
        act(tx);
        return id;
      });
    if (service != null) return make("service", (tx) => createService(tx, id, service));
    if (network != null) return make("network", (tx) => createNetwork(tx, id, network));
    if (secret != null) return make("secret", (tx) => createData(tx, "secret", id, secret));
    if (config != null) return make("config", (tx) => createData(tx, "config", id, config));
    throw new SpecInvalid("there is no such object to create");
  }

  async update(request: skep.control.IUpdateObjectRequest, actor: string, signal: AbortSignal): Promise<Reply> {
    const kind = checkedKind(request.kind);
    const version = request.version ?? 0;
    return this.#change(kind, "update", actor, signal, (tx) => {
      const object = find(tx, kind, request.reference ?? "") as Found<Kind>;
      // Also when it is being changed at this moment, and so has no version yet.
      if (object.meta?.version !== version) throw new UpdateOutOfSequence();
      tx.expectVersion(kind, object.id, version);
      this.#write(tx, kind, object, request);
      return object.id;
    });
  }

  async remove(
    request: skep.control.IRemoveObjectRequest,
    actor: string,
    signal: AbortSignal,
  ): Promise<skep.control.IRemoveObjectReply> {
    const kind = checkedKind(request.kind);
    let id = "";
    await this.#change(kind, "remove", actor, signal, (tx) => {
      const object = find(tx, kind, request.reference ?? "");
      id = object.id;
      switch (kind) {
        case "service":
          removeService(tx, object as Found<"service">);
          break;
        case "node":
          removeNode(tx, object as Found<"node">, request.force ?? false);
          break;
        case "network":
          removeNetwork(tx, object as Found<"network">);
          break;
        case "secret":
        case "config":
          removeData(tx, kind, object);
          break;
        case "task":
          tx.remove("task", id);
          break;
        case "cluster":
        case "volume":
          throw new ChangeUnsupported(`removing a ${kind} is not supported`, "Leave it as it is");
      }
      return id;
    });
    return { id };
  }

  #write(tx: ClusterTx, kind: Kind, object: Found<Kind>, request: skep.control.IUpdateObjectRequest): void {
    const { cluster, node, service, secret, config } = request.spec ?? {};
    switch (kind) {
      case "service":
        updateService(tx, object as Found<"service">, {
          spec: service ?? {},
          rollback: request.rollback ?? false,
          registryAuthFromPrevious: request.registryAuthFromPrevious ?? false,
        });
        break;
      case "node":
        updateNode(tx, object as Found<"node">, node ?? {});
        break;
      case "secret":
        updateData(tx, "secret", object as Found<"secret">, secret ?? {});
        break;
      case "config":
        updateData(tx, "config", object as Found<"config">, config ?? {});
        break;
      case "cluster":
        updateCluster(
          tx,
          object as Found<"cluster">,
          { spec: cluster ?? {}, rotate: request.rotate ?? {} },
          this.#options,
        );
        break;
      case "network":
        updateNetwork();
        break;
      case "task":
      case "volume":
        throw new ChangeUnsupported(`updating a ${kind} is not supported`, "Update the service that it belongs to");
    }
  }

  /** Again when another change came between reading and applying, unless the caller insisted on a version. */
  async #change(
    kind: Kind,
    act: string,
    actor: string,
    signal: AbortSignal,
    change: (tx: ClusterTx) => string,
  ): Promise<Reply> {
    const { store } = this.#options;
    for (let tries = 1; ; tries++) {
      try {
        const { result: id } = await store.update(change, { actor, cause: `${kind} ${act}`, signal });
        const object = store.current().get(kind, id);
        return object === undefined ? {} : { object: shown(kind, object) };
      } catch (error) {
        if (error instanceof VersionConflict || (error instanceof Conflict && act === "update")) {
          throw new UpdateOutOfSequence(error);
        }
        if (error instanceof NameInUse) throw new NameConflict(nameConflictText(kind, error));
        if (error instanceof Conflict && tries < triesMax) continue;
        if (error instanceof NotLeader && error.leader === undefined) throw new NoLeader(error);
        throw error;
      }
    }
  }
}

/** Tasks of a list are many and much alike: one of sixteen is measured. */
class Sizes {
  #count = 0;
  #last = 0;

  next(kind: Kind, object: skep.control.IObject): number {
    if (kind !== "task" || this.#count++ % 16 === 0) this.#last = skep.control.Object.encode(object).len;
    return this.#last;
  }
}

function nameConflictText(kind: Kind, error: ClusterError): string {
  const name = /its name "([^"]*)"/.exec(error.message)?.[1] ?? "";
  if (kind === "service") return `name conflicts with an existing object: service ${name} already exists`;
  if (kind === "network") return `network with name ${name} already exists`;
  return `${kind} ${name} already exists`;
}

function checkedKind(kind: skep.control.ObjectKind | null | undefined): Kind {
  const known = kindOf(kind);
  if (known === undefined) throw new SpecInvalid(`there is no kind of objects ${kind ?? 0}`);
  return known;
}

function idOf(object: skep.control.IObject | undefined): string {
  const [only] = Object.values(object ?? {}) as ({ readonly id?: string } | null | undefined)[];
  return only?.id ?? "";
}
