/** What of a network's options others than its own rooms have to know. */
import type { skep } from "./gen/skep.js";

/** As in the reference, the option counts by being there. */
export function isEncryptedNetwork(spec: skep.objects.NetworkSpec.$Properties | null | undefined): boolean {
  const options = spec?.driver?.options ?? {};
  return "encrypted" in options && options["encrypted"] !== "false";
}
