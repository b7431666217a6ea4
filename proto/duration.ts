/** Durations of the objects, in nanoseconds as far as a comparison needs it. */
import type { skep } from "./gen/skep.js";

type Duration = skep.objects.Duration.$Properties | null | undefined;

export const isNegative = (duration: Duration): boolean => (duration?.seconds ?? 0) < 0 || (duration?.nanos ?? 0) < 0;

/** Exact below 104 days, which is what is compared. */
export const nanos = (duration: Duration): number => (duration?.seconds ?? 0) * 1e9 + (duration?.nanos ?? 0);

export const isSet = (duration: Duration): boolean => nanos(duration) !== 0;
