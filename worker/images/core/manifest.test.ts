import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ClusterError } from "../../../lib/pure/errors.ts";
import { ImageContentInvalid, ImagePlatformMissing } from "./errors.ts";
import { choosePlatform, compressionOf, mediaTypes, parseConfig, parseManifest } from "./manifest.ts";

const digest = `sha256:${"a".repeat(64)}`;
const descriptor = { mediaType: mediaTypes.ociLayerGzip, digest, size: 10 };
const config = { mediaType: mediaTypes.ociConfig, digest, size: 10 };
const bytes = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

test("a manifest that is an index at once is refused (CVE-2021-41190)", () => {
  const both = { schemaVersion: 2, manifests: [], config, layers: [] };
  assert.throws(() => parseManifest(bytes(both), undefined), ImageContentInvalid);
  const lying = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, config, layers: [descriptor] };
  assert.throws(() => parseManifest(bytes(lying), undefined), /does not fit its media type/);
});

test("manifests out of bounds are refused", () => {
  const bad: unknown[] = [
    [],
    { schemaVersion: 1 },
    { schemaVersion: 2, layers: [descriptor] },
    { schemaVersion: 2, config, layers: Array.from({ length: 128 }, () => descriptor) },
    { schemaVersion: 2, config, layers: [{ ...descriptor, size: -1 }] },
    { schemaVersion: 2, config, layers: [{ ...descriptor, size: 2 ** 60 }] },
    { schemaVersion: 2, config, layers: [{ ...descriptor, digest: "sha256:zz" }] },
    { schemaVersion: 2, config, layers: [{ ...descriptor, mediaType: "application/x-sh" }] },
    { schemaVersion: 2, config: { ...config, size: 100_000_000 }, layers: [] },
  ];
  for (const document of bad)
    assert.throws(() => parseManifest(bytes(document), undefined), ImageContentInvalid, JSON.stringify(document));
  assert.throws(() => parseManifest(Buffer.alloc(5_000_000, 0x20), undefined), ImageContentInvalid);
  assert.throws(() => parseManifest(Buffer.from("{"), undefined), ImageContentInvalid);
  assert.throws(() => parseManifest(Buffer.from([0x22, 0xff, 0x22]), undefined), ImageContentInvalid);
});

test("any document ends in a value or in a typed error, never in another one", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.jsonValue(),
        fc.record({
          schemaVersion: fc.constant(2),
          config: fc.jsonValue(),
          layers: fc.jsonValue(),
          manifests: fc.jsonValue(),
        }),
      ),
      (value) => {
        for (const parse of [
          (): unknown => parseManifest(bytes(value), undefined),
          (): unknown => parseConfig(bytes(value), undefined),
        ]) {
          try {
            parse();
          } catch (error) {
            assert.ok(error instanceof ClusterError, String(error));
          }
        }
      },
    ),
    { numRuns: 2000 },
  );
});

test("the platform's own manifest is chosen, by variant if it can be", () => {
  const entry = (architecture: string, variant: string, size: number): object => ({
    ...descriptor,
    size,
    platform: { os: "linux", architecture, variant },
  });
  const index = parseManifest(
    bytes({
      schemaVersion: 2,
      manifests: [
        entry("arm64", "v8", 1),
        entry("arm", "v6", 2),
        entry("arm", "v7", 3),
        { ...descriptor, platform: { os: "unknown", architecture: "unknown" } },
      ],
    }),
    mediaTypes.ociIndex,
  );
  assert.equal(index.kind, "index");
  if (index.kind !== "index") return;
  assert.equal(choosePlatform(index, { os: "linux", architecture: "arm", variant: "v7" }, "x").size, 3);
  assert.equal(choosePlatform(index, { os: "linux", architecture: "arm64", variant: "" }, "x").size, 1);
  assert.throws(
    () => choosePlatform(index, { os: "linux", architecture: "amd64", variant: "" }, "x"),
    ImagePlatformMissing,
  );
});

test("layers that are no tar, or are encrypted, are refused by their media type", () => {
  assert.equal(compressionOf(mediaTypes.dockerLayerGzip), "gzip");
  assert.equal(compressionOf("application/vnd.oci.image.layer.v1.tar+zstd"), "zstd");
  assert.equal(compressionOf(mediaTypes.ociLayer), "none");
  assert.throws(() => compressionOf("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), ImageContentInvalid);
  assert.throws(() => compressionOf("application/vnd.docker.plugin.v1+json"), ImageContentInvalid);
});

test("a configuration has as many layers as its manifest, and its texts hold no NUL", () => {
  const document = {
    os: "linux",
    architecture: "amd64",
    rootfs: { diff_ids: [digest] },
    config: { Env: ["A=1"], Cmd: ["sh"] },
  };
  assert.deepEqual(parseConfig(bytes(document), 1).run.env, ["A=1"]);
  assert.throws(() => parseConfig(bytes(document), 2), /describes 1 layers/);
  assert.throws(() => parseConfig(bytes({ ...document, config: { Env: ["A=\0"] } }), 1), ImageContentInvalid);
  assert.throws(() => parseConfig(bytes({ ...document, config: { Cmd: "sh" } }), 1), ImageContentInvalid);
});
