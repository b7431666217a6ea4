/** Why an entry had no effect: decided at apply, equally on every member, and kept with a session's reply. */
import { skep } from "../../../proto/index.ts";
import {
  Conflict,
  LevelRefused,
  NameInUse,
  SessionExpired,
  SessionLimit,
  SessionStale,
  type UpdateFailed,
} from "./errors.ts";

export type Refusal =
  | { readonly code: "conflict"; readonly kind: string; readonly id: string }
  | {
      readonly code: "nameInUse";
      readonly kind: string;
      readonly index: string;
      readonly key: string;
      readonly holder: string;
    }
  | { readonly code: "sessionExpired"; readonly id: string }
  | { readonly code: "sessionStale"; readonly id: string; readonly number: number }
  | { readonly code: "sessionLimit"; readonly kind: "sessions" | "replies" | "reply bytes"; readonly number: number }
  | { readonly code: "level"; readonly number: number; readonly holder: string };

export function refusalError(refusal: Refusal): UpdateFailed {
  switch (refusal.code) {
    case "conflict":
      return new Conflict(refusal.kind, refusal.id);
    case "nameInUse":
      return new NameInUse(refusal.kind, refusal.index, refusal.key, refusal.holder);
    case "sessionExpired":
      return new SessionExpired(refusal.id);
    case "sessionStale":
      return new SessionStale(refusal.id, refusal.number);
    case "sessionLimit":
      return new SessionLimit(refusal.kind, refusal.number);
    case "level":
      break;
  }
  return new LevelRefused(refusal.number, refusal.holder);
}

export function encodeRefusal(refusal: Refusal): skep.store.Refusal.$Properties {
  return { ...refusal };
}

/** Only what a transaction can be refused for is ever kept. */
export function decodeRefusal(kept: skep.store.Refusal.$Properties): Refusal {
  const { code, kind, id, index, key, holder } = skep.store.Refusal.create(kept);
  return code === "nameInUse" ? { code, kind, index, key, holder } : { code: "conflict", kind, id };
}
