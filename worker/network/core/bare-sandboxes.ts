/**
 * Sandboxes that are on no network. A namespace is there while something is wanted in it, and the container in this one goes
 * on and may be put on a network again: so loopback is wanted.
 */
import { loopback } from "./objects.ts";
import type { MakePart, SandboxFacts } from "./part.ts";

const isBare = ({ overlays, bridges, gatewayAddress }: SandboxFacts): boolean =>
  overlays.length === 0 && bridges.length === 0 && gatewayAddress === "";

export const makeBareSandboxes: MakePart = (_self, placement) => ({
  peer: () => undefined,
  endpoint: () => undefined,
  service: () => undefined,
  sandbox: (_id, after, before) => {
    const path = (after ?? before)?.namespacePath;
    if (path !== undefined) placement.set(path, "bare", after !== undefined && isBare(after) ? [loopback] : []);
  },
});
