/**
 * The rotation of the root, step by step. Facts in, what is next out.
 *
 *   1. The next root is made or brought, and the old one vouches for it. Every node is told to trust both, and what is
 *      issued from then on is signed by the next root, with the old one's word behind it.
 *   2. Nodes are asked to renew, so many in a round. Each tells in its description who issued what it uses.
 *   3. When all use the next root's certificates it is the only one: nodes are told to trust no other, and join tokens,
 *      which name the root, are drawn anew.
 */
import type { skep } from "../../../proto/index.ts";

export interface NodeProgress {
  readonly id: string;
  /** Digest of the root that signed its latest certificate. */
  readonly issuedBy: string;
  /** It has been told to renew, and has not yet. */
  readonly asked: boolean;
  /** It uses a certificate of the next root, by its own word. */
  readonly done: boolean;
  /** Its certificate has ended: it has to join anew in any case. */
  readonly expired: boolean;
}

export interface RotationFacts {
  readonly root: skep.objects.RootCa.$Properties;
  readonly wish: skep.objects.CaConfig.$Properties;
  /** Digest of the root that the settings bring, empty if they bring none. */
  readonly broughtDigest: string;
  /** Digest of the next root while one is on its way, otherwise empty. */
  readonly nextDigest: string;
}

/** What the settings ask for that is not under way. */
export type Beginning =
  /** A fresh root, or the one that the settings bring. */
  | { readonly kind: "begin"; readonly brought: boolean }
  /** The root in force is wished back. */
  | { readonly kind: "abandon" }
  /** Asked for by number, and in force or under way already. */
  | { readonly kind: "noted" }
  | undefined;

export function whatBegins({ root, wish, broughtDigest, nextDigest }: RotationFacts): Beginning {
  const forced = (wish.forceRotate ?? 0) > (root.lastForcedRotation ?? 0);
  if (broughtDigest === "") return forced ? { kind: "begin", brought: false } : undefined;
  if (broughtDigest === nextDigest) return forced ? { kind: "noted" } : undefined;
  if (broughtDigest === root.digest) {
    if (nextDigest !== "") return { kind: "abandon" };
    return forced ? { kind: "noted" } : undefined;
  }
  return { kind: "begin", brought: true };
}

export interface Round {
  /** To be asked now. */
  readonly ask: readonly string[];
  /** Every node uses the next root's certificate. */
  readonly finished: boolean;
}

/** @param askMax  at most so many are asked and have not renewed yet */
export function nextRound(nodes: Iterable<NodeProgress>, nextDigest: string, askMax: number): Round {
  const ask: string[] = [];
  let asked = 0;
  let finished = true;
  for (const node of nodes) {
    if (node.done || node.expired) continue;
    finished = false;
    if (node.asked) asked++;
    else if (node.issuedBy !== nextDigest) ask.push(node.id);
  }
  // Those that are asked and away do not hold up the others for ever: they count for half.
  const room = Math.max(askMax - Math.floor(asked / 2), Math.ceil(askMax / 10));
  return { ask: ask.slice(0, room), finished };
}
