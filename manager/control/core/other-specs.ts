/** What the specs of secrets, configs, networks, nodes and the cluster may say, apart from what they refer to. */
import { isAddressOrRange } from "../../../proto/address.ts";
import { wrongClusterSpec, type skep } from "../../../proto/index.ts";
import { SpecInvalid } from "./errors.ts";
import { checkDataName, checkDnsName, checkDriver, checkLabels } from "./names.ts";

const secretBytesMax = 500 * 1024;
const configBytesMax = 1000 * 1024;
/** Each spec goes into an entry of the log, with room for what surrounds it. */
const optionsMax = 200;

/** @throws SpecInvalid */
export function checkSecretSpec(spec: skep.objects.SecretSpec.$Properties): void {
  checkDataName(spec);
  checkTemplating(spec.templating);
  const bytes = spec.data?.length ?? 0;
  if (spec.driver != null) {
    checkDriver(spec.driver, "secret driver");
    if (bytes > 0) throw new SpecInvalid("secret data must be empty when a secret driver is used");
    // Accepted, the task that wants it could never be started.
    throw new SpecInvalid(
      `plugin ${JSON.stringify(spec.driver.name ?? "")} not found`,
      "Give the secret's data instead",
    );
  }
  if (bytes < 1 || bytes >= secretBytesMax) {
    throw new SpecInvalid(`secret data must be larger than 0 and less than ${secretBytesMax} bytes`);
  }
}

/** @throws SpecInvalid */
export function checkConfigSpec(spec: skep.objects.ConfigSpec.$Properties): void {
  checkDataName(spec);
  checkTemplating(spec.templating);
  const bytes = spec.data?.length ?? 0;
  if (bytes < 1 || bytes >= configBytesMax) {
    throw new SpecInvalid(`config data must be larger than 0 and less than ${configBytesMax} bytes`);
  }
}

function checkTemplating(driver: skep.objects.Driver.$Properties | null | undefined): void {
  if (driver == null || (driver.name ?? "") === "") return;
  if (driver.name !== "golang") throw new SpecInvalid(`unrecognized template driver: ${driver.name}`);
}

/** @throws SpecInvalid */
export function checkNetworkSpec(spec: skep.objects.NetworkSpec.$Properties): void {
  checkDnsName(spec);
  if (Object.keys(spec.driver?.options ?? {}).length > optionsMax) {
    throw new SpecInvalid(`more than ${optionsMax} driver options`);
  }
  if (spec.ingress === true && spec.attachable === true) throw new SpecInvalid("ingress network cannot be attachable");
  if (spec.ingress === true && spec.internal === true) throw new SpecInvalid("ingress network cannot be internal");
  if (spec.enableIpv4 === false) throw new SpecInvalid("IPv4 cannot be disabled in a network of the swarm");
  checkMtu(spec);
  const configs = spec.ipam?.config ?? [];
  for (const { subnet, ipRange, gateway, auxiliaryAddresses } of configs) {
    checkRange(subnet, "subnet");
    checkRange(ipRange, "ip-range");
    checkAddress(gateway, "gateway");
    for (const address of Object.values(auxiliaryAddresses ?? {})) checkAddress(address, "auxiliary address");
  }
}

const mtuOption = "com.docker.network.driver.mtu";
/** What the least of links carries (RFC 791, RFC 8200 §5), and what an IP packet has room for; 0: what the path carries. */
const mtuMin = { ip4: 68, ip6: 1280 } as const;
const mtuMax = 65_535;

function checkMtu({ driver, enableIpv6 }: skep.objects.NetworkSpec.$Properties): void {
  const text = driver?.options?.[mtuOption] ?? "";
  const min = enableIpv6 === true ? mtuMin.ip6 : mtuMin.ip4;
  const mtu = /^\d{1,5}$/.test(text) ? Number(text) : -1;
  if (text === "" || mtu === 0 || (mtu >= min && mtu <= mtuMax)) return;
  throw new SpecInvalid(`invalid value of option ${mtuOption}: a number of bytes from ${min} to ${mtuMax} is needed`);
}

function checkRange(range: string | null | undefined, what: string): void {
  const text = range ?? "";
  if (text === "") return;
  if (!text.includes("/") || !isAddressOrRange(text)) {
    throw new SpecInvalid(`ipam configuration : invalid ${what} ${text.slice(0, 64)}`);
  }
}

function checkAddress(address: string | null | undefined, what: string): void {
  const text = (address ?? "").split("/")[0] ?? "";
  if (text !== "" && !isAddressOrRange(text)) {
    throw new SpecInvalid(`ipam configuration : invalid ${what} ${text.slice(0, 64)}`);
  }
}

/** @throws SpecInvalid */
export function checkNodeSpec(spec: skep.objects.NodeSpec.$Properties): void {
  checkLabels(spec.labels);
  if ((spec.name ?? "") !== "") checkDnsName(spec);
}

/** @param knownUrls  see wrongClusterSpec. @throws SpecInvalid */
export function checkClusterSpec(spec: skep.objects.ClusterSpec.$Properties, knownUrls: readonly string[]): void {
  checkLabels(spec.labels);
  const wrong = wrongClusterSpec(spec, knownUrls);
  if (wrong !== undefined) throw new SpecInvalid(wrong);
  checkDriver(spec.taskDefaults?.logDriver, "TaskDefaults: LogDriver");
}
