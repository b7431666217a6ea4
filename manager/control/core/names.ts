/** What names, labels and references to images may look like. */
import type { skep } from "../../../proto/index.ts";
import { SpecInvalid } from "./errors.ts";

interface Annotations {
  readonly name?: string | null;
  readonly labels?: Readonly<Record<string, string>> | null;
}

const serviceName = /^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$/;
const dataName = /^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$/;
const labelsMax = 1000;
const labelBytesMax = 64 * 1024;

/** @throws SpecInvalid unless it can be a name in DNS: services and networks */
export function checkDnsName(spec: Annotations): void {
  const name = spec.name ?? "";
  if (name === "") throw new SpecInvalid("meta: name must be provided");
  if (name.length > 63) throw new SpecInvalid("name must be 63 characters or fewer");
  if (!serviceName.test(name)) throw new SpecInvalid("name must be valid as a DNS name component");
  checkLabels(spec.labels);
}

/** @throws SpecInvalid unless a secret or config may be called so */
export function checkDataName(spec: Annotations): void {
  const name = spec.name ?? "";
  if (name === "" || name.length > 64 || !dataName.test(name)) {
    throw new SpecInvalid(
      "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
    );
  }
  checkLabels(spec.labels);
}

/** @throws SpecInvalid */
export function checkLabels(labels: Readonly<Record<string, string>> | null | undefined): void {
  const entries = Object.entries(labels ?? {});
  if (entries.length > labelsMax) throw new SpecInvalid(`more than ${labelsMax} labels`);
  for (const [key, value] of entries) {
    if (key === "") throw new SpecInvalid("invalid label: its key is empty");
    if (key.length + value.length > labelBytesMax) {
      throw new SpecInvalid(`invalid label '${key.slice(0, 64)}': more than ${labelBytesMax} characters`);
    }
  }
}

const pathPart = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const host =
  "(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?";
const imagePattern = new RegExp(
  `^(?:${host}/)?${pathPart}(?:/${pathPart})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$`,
);

/** Of a reference to an image, as the distribution grammar has it. */
export function isImageReference(text: string): boolean {
  // A name of 64 hexadecimal digits would be taken for an id.
  return text.length <= 4096 && imagePattern.test(text) && !/^[a-f0-9]{64}$/.test(text);
}

const driverName = /^[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,254}$/;

/** @throws SpecInvalid */
export function checkDriver(driver: skep.objects.Driver.$Properties | null | undefined, what: string): void {
  if (driver == null) return;
  const name = driver.name ?? "";
  if (name === "") throw new SpecInvalid(`${what}: driver name must be provided`);
  if (!driverName.test(name)) throw new SpecInvalid(`${what}: "${name.slice(0, 64)}" is not a valid driver name`);
}
