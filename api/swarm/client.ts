/** Control of the manager on this node, as the routes use it. */
import type { Channel, UnaryMethod } from "../../lib/rpc/index.ts";
import { controlMethods } from "../../proto/control-methods.ts";
import { skep } from "../../proto/index.ts";
import type { Swarm } from "../ports.ts";
import { managerWords, unlessEnding, worded } from "./wording.ts";

const { ObjectKind } = skep.control;
export { ObjectKind };

type Object_ = skep.control.IObject;
type Filter = readonly [key: string, values: readonly string[]];

/** Swarm's daemon gives up after so long. */
const timeoutMs = 20_000;

export class ControlClient {
  readonly #swarm: Swarm;

  constructor(swarm: Swarm) {
    this.#swarm = swarm;
  }

  /** @throws Worded when this node has no manager to ask */
  channel(): Channel {
    try {
      return this.#swarm.control();
    } catch (error) {
      throw worded(error, managerWords);
    }
  }

  async get(kind: skep.control.ObjectKind, reference: string, signal: AbortSignal): Promise<Object_> {
    const { object } = await this.#call(controlMethods.get, { kind, reference }, signal);
    return object ?? {};
  }

  /** The whole list, in as many parts as it takes. */
  async list(
    kind: skep.control.ObjectKind,
    filters: Iterable<Filter>,
    signal: AbortSignal,
    options: { readonly withStatus?: boolean } = {},
  ): Promise<{ readonly objects: readonly Object_[]; readonly counts: readonly skep.control.IServiceCounts[] }> {
    const objects: Object_[] = [];
    const counts: skep.control.IServiceCounts[] = [];
    const request = {
      kind,
      filters: Array.from(filters, ([key, values]) => ({ key, values: [...values] })),
      withStatus: options.withStatus ?? false,
    };
    for (let after = ""; ;) {
      const part = await this.#call(controlMethods.list, { ...request, after }, signal);
      objects.push(...(part.objects ?? []));
      counts.push(...(part.counts ?? []));
      if ((part.next ?? "") === "") return { objects, counts };
      after = part.next ?? "";
    }
  }

  async create(spec: skep.control.IObjectSpec, signal: AbortSignal): Promise<{ readonly id: string }> {
    const { object } = await this.#call(controlMethods.create, { spec }, signal);
    const made = object?.service ?? object?.network ?? object?.secret ?? object?.config;
    return { id: made?.id ?? "" };
  }

  async update(request: skep.control.IUpdateObjectRequest, signal: AbortSignal): Promise<void> {
    await this.#call(controlMethods.update, request, signal);
  }

  async remove(kind: skep.control.ObjectKind, reference: string, signal: AbortSignal, force = false): Promise<void> {
    await this.#call(controlMethods.remove, { kind, reference, force }, signal);
  }

  async unlockKey(signal: AbortSignal): Promise<Uint8Array> {
    const { key } = await this.#call(controlMethods.unlockKey, {}, signal);
    return key ?? new Uint8Array(0);
  }

  why(request: skep.control.IWhyRequest, signal: AbortSignal): Promise<skep.control.IWhyReply> {
    return this.#call(controlMethods.why, request, signal);
  }

  async #call<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    signal: AbortSignal,
  ): Promise<Response> {
    await this.#swarm.ready(signal);
    return this.channel()
      .call(method, request, { timeoutMs, signal })
      .catch((error: unknown) => {
        throw unlessEnding(error);
      });
  }
}
