/**
 * What users of a cluster were told, and so what has to be there: each object with the revisions that it may have. One whose
 * change was not answered may be as before or as after, until somebody reads it.
 */

export const kinds = ["services", "networks", "secrets"] as const;
export type Kind = (typeof kinds)[number];

/** In place of a revision: there is no such object. */
export const absent = "absent";

export type Outcome = "acknowledged" | "refused" | "unknown";

export interface Entry {
  readonly kind: Kind;
  readonly name: string;
  /** As acknowledged; "": not yet. */
  id: string;
  /** One user at a time changes it. */
  isTaken: boolean;
  possible: ReadonlySet<string>;
}

/** @param status  of HTTP; undefined: no answer */
export function outcomeOf(status: number | undefined): Outcome {
  if (status === undefined || status >= 500) return "unknown";
  return status < 300 ? "acknowledged" : "refused";
}

export class Ledger {
  readonly #entries = new Map<string, Entry>();
  readonly counts: Record<Outcome, number> = { acknowledged: 0, refused: 0, unknown: 0 };
  #made = 0;

  /** Never the same twice. */
  next(prefix: string): string {
    return `${prefix}${++this.#made}`;
  }

  add(kind: Kind, name: string): Entry {
    const entry: Entry = { kind, name, id: "", isTaken: false, possible: new Set([absent]) };
    this.#entries.set(`${kind}/${name}`, entry);
    return entry;
  }

  all(kind: Kind): Entry[] {
    return [...this.#entries.values()].filter((entry) => entry.kind === kind);
  }

  /** Those that are there for certain, and nobody's at the moment. */
  free(kind: Kind): Entry[] {
    return this.all(kind).filter(({ possible, isTaken }) => !isTaken && !possible.has(absent));
  }

  note(entry: Entry, revision: string, outcome: Outcome): void {
    this.counts[outcome]++;
    if (outcome === "acknowledged") entry.possible = new Set([revision]);
    else if (outcome === "unknown") entry.possible = new Set([...entry.possible, revision]);
  }

  /**
   * Compares with what was read when nothing was under way any more.
   * @param seen  revisions by name
   * @returns     what must not be
   */
  compare(kind: Kind, seen: ReadonlyMap<string, string>): string[] {
    const wrong: string[] = [];
    for (const entry of this.all(kind)) {
      const revision = seen.get(entry.name) ?? absent;
      if (!entry.possible.has(revision)) {
        wrong.push(`${kind} ${entry.name} is ${revision}, and may be ${[...entry.possible].join(" or ")}`);
      }
      entry.possible = new Set([revision]);
      if (revision === absent) this.#entries.delete(`${kind}/${entry.name}`);
    }
    const known = new Set(this.all(kind).map(({ name }) => name));
    for (const name of seen.keys()) if (!known.has(name)) wrong.push(`${kind} ${name} is there, and nobody made it`);
    return wrong;
  }
}
