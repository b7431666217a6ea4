/** Which route a path belongs to. Segment by segment, a word goes before a parameter, and a parameter before the rest. */
import { invariant } from "../../lib/pure/errors.ts";

export interface Found<T> {
  readonly value: T;
  /** Decoded; "*" is the rest of the path. */
  readonly params: Readonly<Record<string, string>>;
}

interface Leaf<T> {
  readonly value: T;
  readonly names: readonly string[];
}

interface Branch<T> {
  readonly words: Map<string, Branch<T>>;
  parameter: Branch<T> | undefined;
  rest: Leaf<T> | undefined;
  end: Leaf<T> | undefined;
}

/** Longer ones are nobody's name. */
const parameterLengthMax = 4096;

export class Router<T> {
  readonly #root: Branch<T> = emptyBranch();

  /** @param path  "/services/:id/update"; "/images/*" takes the rest */
  add(path: string, value: T): void {
    const names: string[] = [];
    let branch = this.#root;
    for (const segment of segmentsOf(path)) {
      invariant(branch.rest === undefined || segment !== "*", "a path has one route", { path });
      if (segment === "*") {
        branch.rest = { value, names };
        return;
      }
      if (segment.startsWith(":")) {
        names.push(segment.slice(1));
        branch = branch.parameter ??= emptyBranch();
      } else {
        const next = branch.words.get(segment) ?? emptyBranch<T>();
        branch.words.set(segment, next);
        branch = next;
      }
    }
    invariant(branch.end === undefined, "a path has one route", { path });
    branch.end = { value, names };
  }

  /**
   * @param path  of a request, without its query; one slash at the end says nothing
   * @throws      URIError if it cannot be decoded
   */
  find(path: string): Found<T> | undefined {
    const segments = segmentsOf(path).map((segment) => decodeURIComponent(segment));
    return match(this.#root, segments, 0, []);
  }
}

function match<T>(
  branch: Branch<T>,
  segments: readonly string[],
  at: number,
  taken: readonly string[],
): Found<T> | undefined {
  const segment = segments[at];
  if (segment === undefined) return branch.end === undefined ? undefined : found(branch.end, taken);
  const word = branch.words.get(segment);
  const byWord = word === undefined ? undefined : match(word, segments, at + 1, taken);
  if (byWord !== undefined) return byWord;
  if (branch.parameter !== undefined && segment !== "" && segment.length <= parameterLengthMax) {
    const byParameter = match(branch.parameter, segments, at + 1, [...taken, segment]);
    if (byParameter !== undefined) return byParameter;
  }
  if (branch.rest === undefined) return undefined;
  const { value, params } = found(branch.rest, taken);
  return { value, params: { ...params, "*": segments.slice(at).join("/") } };
}

function found<T>({ value, names }: Leaf<T>, taken: readonly string[]): Found<T> {
  return { value, params: Object.fromEntries(names.map((name, at) => [name, taken[at] ?? ""])) };
}

function segmentsOf(path: string): string[] {
  const trimmed = path.endsWith("/") ? path.slice(0, -1) : path;
  return trimmed.split("/").slice(1);
}

function emptyBranch<T>(): Branch<T> {
  return { words: new Map(), parameter: undefined, rest: undefined, end: undefined };
}
