/** What of networks, and of how nodes carry them, others than their own rooms have to know. */
import { frameAddress } from "./address.ts";
import type { skep } from "./gen/skep.js";

/** As in the reference, the option counts by being there. */
export function isEncryptedNetwork(spec: skep.objects.NetworkSpec.$Properties | null | undefined): boolean {
  const options = spec?.driver?.options ?? {};
  return "encrypted" in options && options["encrypted"] !== "false";
}

/** A key that managers did not take from it leads nobody to it. */
export function carriesEncrypted({ description }: Pick<skep.objects.Node.$Properties, "description">): boolean {
  const network = description?.network;
  return network?.capabilities?.includes("encrypted") === true && (network.wireguardPublicKey?.length ?? 0) > 0;
}

/** Where other nodes send a node's frames; undefined: it has not told yet, or nobody can send them there. */
export function frameAddressOf({
  description,
  status,
}: Pick<skep.objects.Node.$Properties, "description" | "status">): string | undefined {
  const said = description?.network?.dataPathAddr ?? "";
  return frameAddress(said === "" ? (status?.addr ?? "") : said);
}
