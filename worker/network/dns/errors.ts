/** Why the resolver does not serve. */
import { ClusterError } from "../../../lib/pure/errors.ts";

export class ResolverNotBound extends ClusterError {
  readonly code = "RESOLVER_NOT_BOUND";
  constructor(address: string, port: number, cause: unknown) {
    const found = (cause as { code?: string }).code ?? String(cause);
    const taken = found === "EADDRINUSE";
    super(`Cannot serve names at ${address}:${port}: ${found}`, {
      fix: taken
        ? "Let the host's own DNS server listen at single addresses instead of all (dnsmasq: bind-interfaces; BIND: listen-on)"
        : "Check that this node has the address, and that skepd may bind ports below 1024",
      cause,
    });
  }
}
