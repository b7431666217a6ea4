/** Creates, changes and removes secrets and configs. Their data never changes; only labels do. */
import type { skep } from "../../proto/index.ts";
import type { ClusterSchema, Tx } from "../store/index.ts";
import { NameConflict, ObjectInUse, SpecInvalid } from "./core/errors.ts";
import { checkConfigSpec, checkSecretSpec } from "./core/other-specs.ts";
import { checkLabels } from "./core/names.ts";
import { isThere, type Found } from "./find.ts";

type ClusterTx = Tx<ClusterSchema>;
type Spec<K extends DataKind> = K extends "secret"
  ? skep.objects.SecretSpec.$Properties
  : skep.objects.ConfigSpec.$Properties;

export type DataKind = "secret" | "config";

/** @throws SpecInvalid, NameConflict */
export function createData<K extends DataKind>(tx: ClusterTx, kind: K, id: string, spec: Spec<K>): void {
  if (kind === "secret") checkSecretSpec(spec);
  else checkConfigSpec(spec);
  const name = spec.name ?? "";
  if (tx.first(kind, "name", name) !== undefined) throw new NameConflict(`${kind} ${name} already exists`);
  if (kind === "secret") tx.create("secret", { id, spec });
  else tx.create("config", { id, spec });
}

/** @throws SpecInvalid */
export function updateData<K extends DataKind>(tx: ClusterTx, kind: K, object: Found<K>, spec: Spec<K>): void {
  const before: Spec<DataKind> = (object as Found<DataKind>).spec ?? {};
  const sent = spec.data ?? new Uint8Array(0);
  // Whoever was shown the secret without its data sends it back without.
  const sameData = sent.length === 0 || Buffer.compare(sent, before.data ?? new Uint8Array(0)) === 0;
  if ((spec.name ?? "") !== (before.name ?? "") || !sameData) {
    throw new SpecInvalid(
      "only updates to Labels are allowed",
      `Create a ${kind} of another name, and update the services to use it`,
    );
  }
  checkLabels(spec.labels);
  const labels = spec.labels ?? {};
  if (kind === "secret") tx.update("secret", { ...(object as Found<"secret">), spec: { ...before, labels } });
  else tx.update("config", { ...(object as Found<"config">), spec: { ...before, labels } });
}

/** @throws ObjectInUse */
export function removeData(tx: ClusterTx, kind: DataKind, object: Found<DataKind>): void {
  const users = [...tx.find("service", kind, object.id)]
    .filter(isThere)
    .map((service) => service.spec?.name ?? service.id);
  if (users.length > 0) {
    const which = users.length === 1 ? "service" : "services";
    throw new ObjectInUse(`${kind} '${object.spec?.name}' is in use by the following ${which}: ${users.join(", ")}`);
  }
  tx.remove(kind, object.id);
}
