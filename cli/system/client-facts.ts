/** What the client says about itself. */
import { currentContext } from "../contexts.ts";
import type { Session } from "../session.ts";
import { cliVersion } from "../version.ts";

export interface ClientFacts {
  readonly Version: string;
  readonly ApiVersion: string;
  readonly NodeVersion: string;
  readonly Os: string;
  readonly Arch: string;
  readonly Context: string;
}

export function clientFacts(session: Session, apiVersion: string): ClientFacts {
  const architectures: Readonly<Record<string, string>> = { x64: "amd64" };
  return {
    Version: cliVersion,
    ApiVersion: apiVersion,
    NodeVersion: process.version,
    Os: process.platform,
    Arch: architectures[process.arch] ?? process.arch,
    Context: session.contextFlag ?? currentContext(session.env, session.configFolder),
  };
}
