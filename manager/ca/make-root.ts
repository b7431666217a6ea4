/** The next root in the real world: drawn by the system, or brought and checked. */
import { Authority, checkRoot, createAuthority } from "../../lib/pki/index.ts";
import type { MakeRoot } from "./rotator.ts";

export const makeRoot: MakeRoot = ({ clusterId, nowMs, old, brought }, done) => {
  const make = async (): Promise<void> => {
    if (brought !== undefined) await checkRoot(brought, nowMs);
    const next = brought ?? (await createAuthority(clusterId, nowMs));
    const crossSignedPem = await new Authority(old).vouchFor(next.certificatePem, nowMs);
    done(undefined, { ...next, crossSignedPem });
  };
  make().catch((error: unknown) => done(error as Error, undefined));
};
