/** Credentials for a registry in a header. */
const headerMax = 64 * 1024;

/**
 * Some clients send other things there, and "e30=" ("{}") means no login: what does not say who logs in counts as none.
 * @returns the header as it was, for the node that pulls
 */
export function registryAuthOf(header: string | readonly string[] | undefined): string | undefined {
  if (typeof header !== "string" || header === "" || header.length > headerMax) return undefined;
  try {
    const auth: unknown = JSON.parse(Buffer.from(header, "base64").toString("utf8"));
    if (typeof auth !== "object" || auth === null) return undefined;
    const { username, auth: pair, identitytoken, registrytoken } = auth as Record<string, unknown>;
    const said = [username, pair, identitytoken, registrytoken].some((part) => typeof part === "string" && part !== "");
    return said ? header : undefined;
  } catch {
    return undefined; // not credentials: as if there were none
  }
}
