/** `--change` of commit and import: single instructions of a Dockerfile, as changes of an image's configuration. Pure. */

export type ChangesReading =
  | { readonly ok: true; readonly changes: Readonly<Record<string, unknown>> }
  | { readonly ok: false; readonly why: string };

const changesMax = 200;

/**
 * @param base  what Env, Labels, ExposedPorts and Volumes are added to
 */
export function readImageChanges(
  lines: readonly string[],
  base: {
    readonly Env?: readonly string[] | null;
    readonly Labels?: Readonly<Record<string, string>> | null;
    readonly ExposedPorts?: Readonly<Record<string, object>> | null;
    readonly Volumes?: Readonly<Record<string, object>> | null;
  } = {},
): ChangesReading {
  if (lines.length > changesMax) return { ok: false, why: "too many changes" };
  const changes: Record<string, unknown> = {};
  const env = new Map((base.Env ?? []).map((text) => [text.split("=", 1)[0] ?? "", text]));
  const labels: Record<string, string> = { ...base.Labels };
  const ports: Record<string, object> = { ...base.ExposedPorts };
  const volumes: Record<string, object> = { ...base.Volumes };
  for (const line of lines) {
    const parts = /^\s*([A-Za-z]+)\s+(.*\S)\s*$/s.exec(line);
    if (parts === null) return { ok: false, why: `dockerfile parse error: ${line.slice(0, 80)}` };
    const [, word = "", rest = ""] = parts;
    switch (word.toUpperCase()) {
      case "CMD":
        changes["Cmd"] = command(rest);
        break;
      case "ENTRYPOINT":
        changes["Entrypoint"] = command(rest);
        break;
      case "USER":
        changes["User"] = rest;
        break;
      case "WORKDIR":
        changes["WorkingDir"] = rest;
        break;
      case "STOPSIGNAL":
        changes["StopSignal"] = rest;
        break;
      case "ENV":
        for (const [key, value] of pairs(rest)) env.set(key, `${key}=${value}`);
        changes["Env"] = [...env.values()];
        break;
      case "LABEL":
        for (const [key, value] of pairs(rest)) labels[key] = value;
        changes["Labels"] = labels;
        break;
      case "EXPOSE":
        for (const port of rest.split(/\s+/)) {
          if (!/^[0-9]{1,5}(\/(tcp|udp|sctp))?$/.test(port))
            return { ok: false, why: `invalid containerPort: ${port}` };
          ports[port.includes("/") ? port : `${port}/tcp`] = {};
        }
        changes["ExposedPorts"] = ports;
        break;
      case "VOLUME":
        for (const path of command(rest, false)) volumes[path] = {};
        changes["Volumes"] = volumes;
        break;
      case "ONBUILD":
        changes["OnBuild"] = [...((changes["OnBuild"] as string[] | undefined) ?? []), rest];
        break;
      default:
        return { ok: false, why: `${word.toUpperCase()} is not a valid change command` };
    }
  }
  return { ok: true, changes };
}

/** `["a", "b"]` as it is; other text for a shell, or split at white space. */
function command(text: string, shell = true): string[] {
  if (text.startsWith("[")) {
    try {
      const parsed: unknown = JSON.parse(text);
      if (Array.isArray(parsed) && parsed.every((one) => typeof one === "string")) return parsed;
    } catch {
      // no JSON: taken as words, as the Engine does
    }
  }
  return shell ? ["/bin/sh", "-c", text] : text.split(/\s+/);
}

/** `A=1 B="two words"`, or the old form `A one value`. */
function pairs(text: string): [string, string][] {
  if (!/^[^\s=]+=/.test(text)) {
    const [key = "", ...words] = text.split(/\s+/);
    return [[key, words.join(" ")]];
  }
  const found: [string, string][] = [];
  for (const match of text.matchAll(/([^\s=]+)=("(?:[^"\\]|\\.)*"|'[^']*'|(?:[^\s\\]|\\.)*)/g)) {
    const raw = match[2] ?? "";
    const bare = /^["']/.test(raw) ? raw.slice(1, -1) : raw;
    found.push([match[1] ?? "", raw.startsWith("'") ? bare : bare.replace(/\\(.)/g, "$1")]);
  }
  return found;
}
