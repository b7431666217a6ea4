/** Versions of the API: 1.MINOR. Paths without one mean the newest. */
import { ApiVersionUnsupported } from "./errors.ts";

export const newestMinor = 50;
export const oldestMinor = 24;

export interface VersionedPath {
  readonly path: string;
  /** MINOR of "1.MINOR". */
  readonly minor: number;
  /** Set if this version is not served: the answer to any request. */
  readonly refusal: ApiVersionUnsupported | undefined;
}

/** @param url  path and query of a request */
export function splitVersion(url: string): VersionedPath {
  const found = /^\/v(\d{1,4})\.(\d{1,4})(?=[/?]|$)/.exec(url);
  if (found === null) return { path: url, minor: newestMinor, refusal: undefined };
  const [matched, major = "", minor = ""] = found;
  const path = url.slice(matched.length);
  const text = `${Number(major)}.${Number(minor)}`;
  const tooNew = Number(major) > 1 || (Number(major) === 1 && Number(minor) > newestMinor);
  const tooOld = Number(major) < 1 || (Number(major) === 1 && Number(minor) < oldestMinor);
  const refusal = tooNew
    ? new ApiVersionUnsupported(`client version ${text} is too new. Maximum supported API version is 1.${newestMinor}`)
    : tooOld
      ? new ApiVersionUnsupported(
          `client version ${text} is too old. Minimum supported API version is 1.${oldestMinor}, please upgrade your client to a newer version`,
        )
      : undefined;
  return { path: path === "" ? "/" : path, minor: Number(minor), refusal };
}
