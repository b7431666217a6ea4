/** Names that a specification mentions are looked up before it is sent: networks, secrets, configs, the image's digest. */
import { filtersQuery, inPath, type Api } from "../api/client.ts";
import type {
  ConfigReference,
  Network,
  NetworkAttachment,
  Placement,
  SecretReference,
  ServiceSpec,
  StoredFile,
} from "../api/types.ts";
import { registryAuth } from "../api/registry.ts";
import { ApiError, CommandError } from "../errors.ts";
import type { Session } from "../session.ts";

/** Names to ids. @throws ApiError `network x not found` */
export async function networksById(api: Api, networks: readonly NetworkAttachment[]): Promise<NetworkAttachment[]> {
  const found: NetworkAttachment[] = [];
  for (const network of networks) {
    const { Id } = await api.get<Network>(`/networks/${inPath(network.Target)}`, { query: { scope: "swarm" } });
    found.push({ ...network, Target: Id });
  }
  return found.toSorted((a, b) => (a.Target < b.Target ? -1 : 1));
}

export async function secretsById(api: Api, references: readonly SecretReference[]): Promise<SecretReference[]> {
  checkTargets(references, "secret");
  const ids = await idsOf(
    api,
    "secret",
    references.map((one) => one.SecretName),
  );
  return references.map(({ File, SecretName }) => ({
    ...(File === undefined ? {} : { File }),
    SecretID: ids.get(SecretName) ?? "",
    SecretName,
  }));
}

export async function configsById(api: Api, references: readonly ConfigReference[]): Promise<ConfigReference[]> {
  checkTargets(references, "config");
  const ids = await idsOf(
    api,
    "config",
    references.map((one) => one.ConfigName),
  );
  return references.map(({ File, Runtime, ConfigName }) => ({
    ...(File === undefined ? {} : { File }),
    ...(Runtime === undefined ? {} : { Runtime }),
    ConfigID: ids.get(ConfigName) ?? "",
    ConfigName,
  }));
}

function checkTargets(references: readonly (SecretReference | ConfigReference)[], what: string): void {
  const seen = new Set<string>();
  for (const { File } of references) {
    if (File === undefined) continue;
    if (seen.has(File.Name)) throw new CommandError(`duplicate ${what} target for ${File.Name} not allowed`);
    seen.add(File.Name);
  }
}

async function idsOf(api: Api, what: "secret" | "config", names: readonly string[]): Promise<Map<string, string>> {
  if (names.length === 0) return new Map();
  const wanted = new Map([["name", [...new Set(names)]]]);
  const found = await api.get<StoredFile[] | null>(`/${what}s`, { query: { filters: filtersQuery(wanted) } });
  // The filter matches prefixes too.
  const ids = new Map((found ?? []).map((one) => [one.Spec.Name, one.ID]));
  const missing = names.find((name) => !ids.has(name));
  if (missing !== undefined) throw new CommandError(`${what} not found: ${missing}`);
  return ids;
}

interface Distribution {
  readonly Descriptor: { readonly digest?: string };
  readonly Platforms?: readonly { readonly architecture?: string; readonly os?: string }[] | null;
}

/**
 * Pins the image to the digest that its tag has now, so that every node runs the same, and notes the platforms that
 * it is made for. When the registry does not answer, each node resolves the tag by itself.
 * @returns a warning about that, or undefined
 */
export async function pinImage(session: Session, spec: ServiceSpec, withAuth: boolean): Promise<string | undefined> {
  const container = spec.TaskTemplate.ContainerSpec;
  const image = container.Image ?? "";
  if (image === "" || image.includes("@")) return undefined;
  const api = await session.api();
  try {
    const headers = withAuth ? { "X-Registry-Auth": registryAuth(session, image) } : {};
    const found = await api.get<Distribution>(`/distribution/${inPath(image)}/json`, { headers });
    if (found.Descriptor.digest !== undefined) {
      const tagged = /:[^/]+$/.test(image) ? image : `${image}:latest`;
      container.Image = `${tagged}@${found.Descriptor.digest}`;
    }
    const platforms = (found.Platforms ?? []).map((one) => ({
      ...(one.architecture ? { Architecture: one.architecture } : {}),
      ...(one.os ? { OS: one.os } : {}),
    }));
    if (platforms.length > 0) {
      const placement: Placement = (spec.TaskTemplate.Placement ??= {});
      placement.Platforms = platforms;
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return `image ${image} could not be accessed on a registry to record\nits digest. Each node will access ${image} independently,\npossibly leading to different nodes running different\nversions of the image.\n`;
  }
}
