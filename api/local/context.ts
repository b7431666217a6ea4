/** What the routes of this room work with; the daemon puts it together. */
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { Local } from "../ports.ts";
import type { LocalEvents } from "./events.ts";

/** What `GET /info` says of this engine. */
export interface EngineFacts {
  /** Made once, kept by the daemon. */
  readonly id: string;
  readonly hostname: string;
  /** Of skep. */
  readonly version: string;
  readonly dataRoot: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly insecureRegistries: readonly string[];
  readonly mirrors: readonly string[];
  /** Absent: containers that ask for an init are refused. */
  readonly init: boolean;
  readonly debug: boolean;
}

export interface LocalContext {
  readonly local: Local;
  readonly events: LocalEvents;
  readonly engine: EngineFacts;
  readonly clock: Clock;
  readonly logger: Logger;
}
