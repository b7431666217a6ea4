/** What must not leave the managers is taken out of what is shown: keys, secrets, registry credentials. */
import type { skep } from "../../proto/index.ts";
import type { Found, Kind } from "./find.ts";

type Shown = skep.control.IObject;

/** Objects of the store are frozen: what changes is copied. */
export function shown<K extends Kind>(kind: K, object: Found<K>): Shown {
  switch (kind) {
    case "cluster":
      return { cluster: cluster(object as Found<"cluster">) };
    case "node":
      return { node: object as Found<"node"> };
    case "service":
      return { service: service(object as Found<"service">) };
    case "task":
      return { task: task(object as Found<"task">) };
    case "network":
      return { network: object };
    case "secret":
      return { secret: secret(object as Found<"secret">) };
    case "config":
      return { config: object };
    case "volume":
      return { volume: object };
  }
}

function cluster(object: Found<"cluster">): skep.objects.Cluster.$Properties {
  const { rootCa, spec } = object;
  return {
    ...object,
    rootCa:
      rootCa == null
        ? null
        : {
            ...rootCa,
            key: "",
            rotation: rootCa.rotation == null ? null : { ...rootCa.rotation, key: "" },
          },
    spec:
      spec == null
        ? null
        : {
            ...spec,
            caConfig: spec.caConfig == null ? null : { ...spec.caConfig, signingCaCert: "", signingCaKey: "" },
          },
    unlockKey: null,
    networkKeys: [],
  };
}

function service(object: Found<"service">): skep.objects.Service.$Properties {
  return {
    ...object,
    spec: serviceSpec(object.spec ?? null),
    previousSpecs: object.previousSpecs.map((spec) => serviceSpec(spec)),
  };
}

function serviceSpec<T extends skep.objects.ServiceSpec.$Properties | null | undefined>(spec: T): T {
  return spec == null ? spec : { ...spec, taskTemplate: taskSpec(spec.taskTemplate ?? null) };
}

function task(object: Found<"task">): skep.objects.Task.$Properties {
  return { ...object, spec: taskSpec(object.spec ?? null) };
}

function taskSpec<T extends skep.objects.TaskSpec.$Properties | null | undefined>(spec: T): T {
  if (spec?.containerSpec?.pullOptions == null) return spec;
  return { ...spec, containerSpec: { ...spec.containerSpec, pullOptions: null } };
}

function secret(object: Found<"secret">): skep.objects.Secret.$Properties {
  return { ...object, spec: object.spec == null ? null : { ...object.spec, data: null } };
}
