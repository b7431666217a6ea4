/** A resolver of a test at a port that the kernel chooses. */
import type { Resolver } from "../dns/index.ts";

/** What is free by UDP may be somebody's by TCP, who listens on all addresses: then another is chosen. @returns the port */
export async function listenAt(resolver: Resolver, address: string): Promise<number> {
  for (let tries = 1; ; tries++) {
    try {
      return await resolver.listen(address);
    } catch (error) {
      if (tries === 8) throw error;
    }
  }
}
