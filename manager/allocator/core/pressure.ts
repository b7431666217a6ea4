/** How much of what can be given out is given out: told before nothing is left. */
import { gatewayRange, nodeNumberMax } from "../../../lib/pure/node-number.ts";
import type { skep } from "../../../proto/index.ts";

/** Of one network. */
export interface Pressure {
  readonly networkId: string;
  readonly name: string;
  readonly subnets: string;
  readonly size: number;
  readonly used: number;
}

/** Few are left from here on, and not before it is less than the other: a warning does not come and go with each task. */
const lowFrom = 0.8;
const lowUntil = 0.7;

/** @param wasLow  what was said last */
export function isLow({ size, used }: Pick<Pressure, "size" | "used">, wasLow: boolean): boolean {
  return size > 0 && used >= size * (wasLow ? lowUntil : lowFrom);
}

/** No node can be given a number: each has a block of gateway addresses, and there are no more blocks. */
export function numbersFull(used: number): skep.objects.Reason.$Properties {
  return { addressPoolFull: { networkId: "", subnet: gatewayRange, size: nodeNumberMax, used } };
}
