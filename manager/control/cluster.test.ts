import assert from "node:assert/strict";
import { test } from "node:test";

import { createAuthority } from "../../lib/pki/index.ts";
import type { skep } from "../../proto/index.ts";
import { StoreCluster } from "../../test/support/store-cluster.ts";
import { theCluster } from "../store/index.ts";
import { updateCluster } from "./cluster.ts";

const by = { actor: "test", cause: "test" };
const chance = { newId: () => "i".repeat(25), newKey: () => new Uint8Array(32) };

test("a root that somebody brings must be able to sign, and the next forced rotation does not keep it", async () => {
  const group = new StoreCluster();
  const { store } = group;
  await store.update((tx) => tx.create("cluster", { id: "c", spec: { name: "default" } }), by);
  const update = (caConfig: skep.objects.CaConfig.$Properties): Promise<unknown> =>
    store.update((tx) => {
      updateCluster(tx, theCluster(tx)!, { spec: { name: "default", caConfig }, rotate: {} }, chance);
    }, by);
  const nowMs = group.nowUs / 1000;
  const [one, other] = [await createAuthority("c", nowMs), await createAuthority("c", nowMs)];
  const brought = { signingCaCert: one.certificatePem, forceRotate: 1 };
  await assert.rejects(update({ ...brought, signingCaKey: other.privateKeyPem }), { code: "SPEC_INVALID" });
  await assert.rejects(update({ ...brought, signingCaCert: "x", signingCaKey: "y" }), { code: "SPEC_INVALID" });
  await update({ ...brought, signingCaKey: one.privateKeyPem });
  const config = (): skep.objects.CaConfig.$Properties => theCluster(store.current())?.spec?.caConfig ?? {};
  assert.equal(config().signingCaCert, one.certificatePem);
  await update({ forceRotate: 1 });
  assert.equal(config().signingCaCert, one.certificatePem, "what is left out stays");
  await update({ forceRotate: 2 });
  assert.equal(config().signingCaCert, "");
  assert.equal(config().forceRotate, 2);
});

test("an external authority, which nobody would ask, is refused; settings that have one already can be changed", async () => {
  const { store } = new StoreCluster();
  const external = { protocol: "cfssl", url: "https://ca.example/sign" };
  await store.update((tx) => {
    tx.create("cluster", { id: "c", spec: { name: "default", caConfig: { externalCas: [external] } } });
  }, by);
  const update = (...externalCas: (typeof external)[]): Promise<unknown> =>
    store.update((tx) => {
      const spec = { name: "default", caConfig: { externalCas } };
      updateCluster(tx, theCluster(tx)!, { spec, rotate: {} }, chance);
    }, by);
  await update(external);
  const other = { protocol: "cfssl", url: "https://other.example/sign" };
  await assert.rejects(update(other), { code: "SPEC_INVALID", message: /^external CAs are not supported/u });
  await update();
  await assert.rejects(update(external), { code: "SPEC_INVALID" });
});
