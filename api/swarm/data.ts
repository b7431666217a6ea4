/** Secrets and configs: the same routes twice. */
import type { skep } from "../../proto/index.ts";
import type { JsonObject, Route } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { fromApi } from "./mapper.ts";
import { configToApi, secretToApi } from "./objects.ts";

const filterKeys = ["id", "label", "name", "names"];

export function dataRoutes(control: ControlClient): readonly Route[] {
  return [
    ...routesOf(control, {
      kind: ObjectKind.SECRET,
      word: "secret",
      toApi: (object) => secretToApi(object.secret ?? {}),
      toSpec: (json, minor) => ({ secret: fromApi("SecretSpec", json, minor) }),
    }),
    ...routesOf(control, {
      kind: ObjectKind.CONFIG,
      word: "config",
      toApi: (object) => configToApi(object.config ?? {}),
      toSpec: (json, minor) => ({ config: fromApi("ConfigSpec", json, minor) }),
    }),
  ];
}

interface DataKind {
  readonly kind: skep.control.ObjectKind;
  readonly word: "secret" | "config";
  readonly toApi: (object: skep.control.IObject) => JsonObject;
  readonly toSpec: (json: JsonObject, minor: number) => skep.control.IObjectSpec;
}

function routesOf(control: ControlClient, { kind, word, toApi, toSpec }: DataKind): readonly Route[] {
  const root = `/${word}s`;
  return [
    {
      method: "GET",
      path: root,
      handle: async ({ query, signal }) => {
        const { objects } = await control.list(kind, query.filters(filterKeys), signal);
        return { json: objects.map(toApi) };
      },
    },
    {
      method: "POST",
      path: `${root}/create`,
      handle: async (call) => {
        const { id } = await control.create(toSpec(await call.json(), call.minor), call.signal);
        return { status: 201, json: { ID: id } };
      },
    },
    {
      method: "GET",
      path: `${root}/:id`,
      handle: async ({ params, signal }) => ({ json: toApi(await control.get(kind, params["id"] ?? "", signal)) }),
    },
    {
      method: "POST",
      path: `${root}/:id/update`,
      handle: async (call) => {
        const version = call.query.version(word);
        const spec = toSpec(await call.json(), call.minor);
        await control.update({ kind, reference: call.params["id"] ?? "", version, spec }, call.signal);
        return {};
      },
    },
    {
      method: "DELETE",
      path: `${root}/:id`,
      handle: async ({ params, signal }) => {
        await control.remove(kind, params["id"] ?? "", signal);
        return { status: 204 };
      },
    },
  ];
}
