/** Credentials of registries, as `docker login` left them in its configuration file. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Session } from "../session.ts";

interface DockerConfig {
  readonly auths?: Readonly<Record<string, { readonly auth?: string; readonly identitytoken?: string }>>;
}

const hub = "https://index.docker.io/v1/";

/** The value of X-Registry-Auth for an image's registry; "{}" when nothing is known. */
export function registryAuth(session: Session, image: string): string {
  const first = image.split("/")[0] ?? "";
  const isHost = image.includes("/") && (first.includes(".") || first.includes(":") || first === "localhost");
  const server = isHost ? first : hub;
  const known = readDockerConfig(session).auths?.[server];
  if (known?.auth === undefined && known?.identitytoken === undefined) return encode({});
  const [username = "", ...password] = Buffer.from(known.auth ?? "", "base64")
    .toString("utf8")
    .split(":");
  return encode({
    username,
    password: password.join(":"),
    ...(known.identitytoken === undefined ? {} : { identitytoken: known.identitytoken }),
    serveraddress: server,
  });
}

function encode(value: object): string {
  // Go's URL encoding keeps the padding that Node's leaves out.
  return Buffer.from(JSON.stringify(value)).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}

function readDockerConfig({ env }: Session): DockerConfig {
  const folder = env["DOCKER_CONFIG"] ?? join(env["HOME"] ?? "/", ".docker");
  try {
    return JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as DockerConfig;
  } catch {
    return {}; // No docker here, or never logged in.
  }
}
