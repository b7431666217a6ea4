import { CommandError } from "../errors.ts";
import type { Session } from "../session.ts";

/** "self" is this node, for the CLI only. */
export async function resolveSelf(session: Session, names: readonly string[]): Promise<string[]> {
  if (!names.includes("self")) return [...names];
  const api = await session.api();
  const info = await api.get<{ Swarm?: { NodeID?: string } }>("/info");
  const id = info.Swarm?.NodeID ?? "";
  if (id === "") {
    // The daemon says best why there is none.
    await api.get("/nodes");
    throw new CommandError("this node is not part of a swarm");
  }
  return names.map((name) => (name === "self" ? id : name));
}
