/** Credentials as clients send them: the X-Registry-Auth header, base64 of JSON (Engine API, "Authentication"). */
import type { Credentials } from "./auth.ts";

const headerMax = 64 * 1024;

/**
 * What does not decode to an object is no login, as the Engine treats it: some clients send other things in the header.
 * @param text  base64 or base64url; empty and `e30=` ("{}") mean none
 */
export function parseRegistryAuth(text: string | undefined): Credentials | undefined {
  if (text === undefined || text === "" || text.length > headerMax) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(text, "base64").toString("utf8")); // Node.js takes both alphabets
  } catch {
    return undefined;
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return undefined;
  return credentialsOf(parsed as Readonly<Record<string, unknown>>);
}

/** The body of `POST /auth`, or one entry of a client's configuration. */
export function credentialsOf(auth: Readonly<Record<string, unknown>>): Credentials | undefined {
  const text = (key: string): string => (typeof auth[key] === "string" ? auth[key] : "");
  const pair = Buffer.from(text("auth"), "base64").toString("utf8");
  const colon = pair.indexOf(":");
  const username = text("username") || (colon > 0 ? pair.slice(0, colon) : "");
  const password = text("password") || (colon > 0 ? pair.slice(colon + 1) : "");
  const credentials: Credentials = {
    ...(username === "" ? {} : { username, password }),
    ...(text("identitytoken") === "" ? {} : { identityToken: text("identitytoken") }),
    ...(text("registrytoken") === "" ? {} : { registryToken: text("registrytoken") }),
  };
  return Object.keys(credentials).length === 0 ? undefined : credentials;
}
