/**
 * Who has which subnet, VXLAN number, address and port. Everything in it stands in the store as well: it is read from there
 * when leadership begins, and what is given out is booked at once, before it is committed. An owner that asks again gets
 * what it has.
 */
import { gatewayRange, gatewayRange6, meshVni } from "../../../lib/pure/node-number.ts";
import { networksOfService, parseAddress, skep } from "../../../proto/index.ts";
import { PortBook } from "./ports.ts";
import type { Pressure } from "./pressure.ts";
import { networkMissing, networkNotReady, poolFull, poolsFull, portInUse, type Refusal } from "./refusal.ts";
import { AddressPool, formatSubnet, freeSubnet, isInside, overlap, parseSubnet, type Subnet } from "./subnet.ts";

type Network = Readonly<skep.objects.Network>;
type Service = Readonly<skep.objects.Service>;
type Task = Readonly<skep.objects.Task>;
type Attachment = skep.objects.NetworkAttachment.$Properties;
type AttachmentConfig = skep.objects.NetworkAttachmentConfig.$Properties;
type Port = skep.objects.EndpointPortConfig.$Properties;
type VirtualIp = skep.objects.VirtualIp.$Properties;
type IpamConfig = skep.objects.IpamConfig.$Properties;

const { EndpointMode, PublishMode } = skep.objects;

export interface NetworkGrant {
  readonly ipam: skep.objects.Ipam.$Properties;
  readonly vni: number;
  readonly driverState: skep.objects.Driver.$Properties;
}

export interface TaskGrant {
  readonly attachments: readonly Attachment[];
  readonly endpoint: skep.objects.Endpoint.$Properties;
}

export type Answer<T> =
  { readonly kind: "granted"; readonly grant: T } | { readonly kind: "refused"; readonly refusal: Refusal };

const granted = <T>(grant: T): Answer<T> => ({ kind: "granted", grant });
const refused = (refusal: Refusal): { readonly kind: "refused"; readonly refusal: Refusal } => ({
  kind: "refused",
  refusal,
});

/** Swarm's. */
const vniFirst = 4096;
const vniLast = 2 ** 24 - 1;
const vniOption = "com.docker.network.driver.overlay.vxlanid_list";
const subnetSizeDefault = 24;
const poolDefault = "10.0.0.0/8";
/** Unique local addresses (RFC 4193), for networks that want IPv6 and name no subnet; each gets a /64. */
const pool6: Subnet = parseSubnet("fd73:6b65:7000::/48") as Subnet;
const subnetSize6 = 64;
/** A subnet of four addresses has one for a host beside the gateway; smaller ones have none. */
const prefixMax = { 32: 30, 128: 126 } as const;

/** No network's: the nodes' own gateway and link addresses, and what is no host's anywhere. */
const reserved: readonly Subnet[] = [
  gatewayRange,
  gatewayRange6,
  "169.254.0.0/16",
  "127.0.0.0/8",
  "0.0.0.0/8",
  "224.0.0.0/3",
  "::/8",
  "fe80::/10",
  "ff00::/8",
].map((text) => parseSubnet(text) as Subnet);

interface NetworkBook {
  readonly id: string;
  readonly name: string;
  readonly isIngress: boolean;
  /** Of each node's own (host, none, a bridge): nothing is given out. */
  readonly isLocal: boolean;
  /** 0: none yet. */
  vni: number;
  /** Given, and perhaps not committed yet: nothing is taken out of them before it is. */
  subnets: readonly Subnet[];
  pools: readonly AddressPool[];
  /** Why it has none. */
  refusal: Refusal | undefined;
}

/** What one service or task has. */
interface Holding {
  readonly addresses: { readonly networkId: string; readonly value: bigint; readonly pool: AddressPool }[];
  ports: { readonly protocol: number; readonly port: number }[];
}

export class Ledger {
  readonly #networks = new Map<string, NetworkBook>();
  readonly #byName = new Map<string, string>();
  readonly #vnis = new Map<number, string>();
  readonly #ports = new PortBook();
  readonly #holdings = new Map<string, Holding>();
  #pools: readonly Subnet[] = [parseSubnet(poolDefault) as Subnet];
  #poolTexts: readonly string[] = [poolDefault];
  #subnetSize = subnetSizeDefault;
  #releases = 0;

  /** Grows with everything that is given back, and with every network that is ready: then it is worth asking again. */
  get releases(): number {
    return this.#releases;
  }

  setCluster(cluster: Readonly<skep.objects.Cluster>): void {
    const pools = cluster.defaultAddrPool.flatMap((text) => {
      const subnet = parseSubnet(text);
      return subnet?.bits === 32 ? [subnet] : [];
    });
    this.#pools = pools.length > 0 ? pools : [parseSubnet(poolDefault) as Subnet];
    this.#poolTexts = pools.length > 0 ? cluster.defaultAddrPool : [poolDefault];
    this.#subnetSize = cluster.subnetSize > 0 ? cluster.subnetSize : subnetSizeDefault;
  }

  // --------------------------------------------------------------------------------------------------------- networks

  /** Takes over a network as it stands in the store. @returns whether it still has to be given addresses */
  setNetwork(network: Network): boolean {
    const { id, spec } = network;
    const name = spec?.name ?? "";
    const known = this.#networks.get(id);
    this.#byName.set(name, id);
    if (known !== undefined) {
      if (known.pools.length === 0 && network.vni !== 0) this.#open(known, network);
      return !known.isLocal && known.vni === 0;
    }
    const book: NetworkBook = {
      id,
      name,
      isIngress: spec?.ingress === true,
      isLocal: isLocal(network),
      vni: 0,
      subnets: [],
      pools: [],
      refusal: undefined,
    };
    this.#networks.set(id, book);
    this.#releases++;
    if (network.vni !== 0) this.#open(book, network);
    return !book.isLocal && book.vni === 0;
  }

  removeNetwork(id: string): void {
    const book = this.#networks.get(id);
    if (book === undefined) return;
    this.#networks.delete(id);
    if (this.#byName.get(book.name) === id) this.#byName.delete(book.name);
    if (this.#vnis.get(book.vni) === id) this.#vnis.delete(book.vni);
    this.#releases++;
  }

  /** A number and subnets for a network that has none; what is asked for is given, or refused. */
  grantNetwork(network: Network): Answer<NetworkGrant> {
    const book = this.#networks.get(network.id);
    if (book === undefined) return refused(networkMissing(network.id));
    const answer = this.#grantNetwork(network);
    book.refusal = answer.kind === "refused" ? answer.refusal : undefined;
    if (answer.kind === "granted") {
      const { vni, ipam } = answer.grant;
      book.vni = vni;
      this.#vnis.set(vni, book.id);
      book.subnets = subnetsOf(ipam);
    }
    return answer;
  }

  /** The grant was not committed. */
  takeBackNetwork(id: string): void {
    const book = this.#networks.get(id);
    if (book === undefined) return;
    if (this.#vnis.get(book.vni) === id) this.#vnis.delete(book.vni);
    book.vni = 0;
    book.subnets = [];
  }

  #grantNetwork({ id, spec }: Network): Answer<NetworkGrant> {
    const vni = this.#chooseVni(id, spec?.driver?.options?.[vniOption]);
    if (typeof vni !== "number") return refused(vni);
    const taken = [...this.#networks.values()].flatMap(({ subnets }) => subnets);
    const config: IpamConfig[] = [];
    for (const { bits, ...each } of wishesOf(spec)) {
      const own = config.map((made) => parseSubnet(made.subnet ?? "") as Subnet);
      const subnet = this.#chooseSubnet(id, each, bits, [...reserved, ...taken], own);
      if ("reason" in subnet) return refused(subnet);
      taken.push(subnet);
      const range = each.ipRange ?? "";
      if (range !== "" && !isInside(parseSubnet(range), subnet))
        return refused(networkNotReady(id, `range ${range} is not in ${formatSubnet(subnet)}`));
      const gateway = gatewayOf(subnet, each);
      if (typeof gateway !== "string") return refused(networkNotReady(id, gateway.detail));
      config.push({ ...each, subnet: formatSubnet(subnet), gateway });
    }
    const name = spec?.driver?.name || "overlay";
    return granted({
      ipam: { driver: spec?.ipam?.driver || "default", config, options: spec?.ipam?.options ?? {} },
      vni,
      driverState: { name, options: { ...spec?.driver?.options, [vniOption]: String(vni) } },
    });
  }

  #chooseVni(id: string, asked: string | undefined): number | Refusal {
    if (asked !== undefined && asked !== "") {
      const vni = Number(asked.split(",")[0]);
      if (!Number.isSafeInteger(vni) || vni < 1 || vni > vniLast)
        return networkNotReady(id, `"${asked}" is no VXLAN number between 1 and ${vniLast}`);
      if (vni === meshVni) return networkNotReady(id, `VXLAN number ${vni} is the mesh's, on every node`);
      const owner = this.#vnis.get(vni);
      return owner === undefined || owner === id
        ? vni
        : networkNotReady(id, `network ${owner} has VXLAN number ${vni}`);
    }
    for (let vni = vniFirst; vni <= vniLast; vni++) if (!this.#vnis.has(vni)) return vni;
    return networkNotReady(id, "every VXLAN number is in use");
  }

  /** @param own  of the same network, chosen before */
  #chooseSubnet(
    id: string,
    asked: IpamConfig,
    bits: 32 | 128,
    taken: readonly Subnet[],
    own: readonly Subnet[],
  ): Subnet | Refusal {
    const text = asked.subnet ?? "";
    if (text === "" && bits === 128)
      return freeSubnet([pool6], subnetSize6, taken) ?? poolsFull(id, formatSubnet(pool6));
    if (text === "")
      return freeSubnet(this.#pools, this.#subnetSize, taken) ?? poolsFull(id, this.#poolTexts.join(", "));
    const subnet = parseSubnet(text);
    if (subnet === undefined || subnet.prefix > prefixMax[subnet.bits])
      return networkNotReady(id, `"${text}" is no subnet with room for a gateway and a task`);
    const kept = reserved.find((each) => overlap(each, subnet));
    if (kept !== undefined)
      return networkNotReady(id, `subnet ${text} overlaps ${formatSubnet(kept)}, which is no network's`);
    if (own.some((each) => overlap(each, subnet))) return networkNotReady(id, `subnet ${text} is asked for twice`);
    const other = [...this.#networks.values()].find(({ subnets }) => subnets.some((each) => overlap(each, subnet)));
    return other === undefined ? subnet : networkNotReady(id, `subnet ${text} overlaps one of network ${other.name}`);
  }

  /** The network has what stands here. */
  #open(
    book: NetworkBook,
    { vni, ipam }: { readonly vni: number; readonly ipam?: skep.objects.Ipam.$Properties | null },
  ): void {
    book.vni = vni;
    this.#vnis.set(vni, book.id);
    book.refusal = undefined;
    book.subnets = subnetsOf(ipam);
    book.pools = (ipam?.config ?? []).flatMap((config) => {
      const subnet = parseSubnet(config.subnet ?? "");
      if (subnet === undefined) return [];
      const pool = new AddressPool(subnet, parseSubnet(config.ipRange ?? ""));
      const reserved = [config.gateway ?? "", ...Object.values(config.auxiliaryAddresses ?? {})];
      for (const text of reserved) {
        const value = pool.parse(text);
        if (value !== undefined) pool.claim(value, `network/${book.id}`);
      }
      return [pool];
    });
    this.#releases++;
  }

  /** Of each network that has addresses. */
  *pressures(): IterableIterator<Pressure> {
    for (const { id, name, pools: all, isIngress } of this.#networks.values()) {
      // No subnet of IPv6 has ever been full.
      const pools = all.filter(({ subnet }) => subnet.bits === 32);
      // Nobody waits for an address of the mesh's network.
      if (pools.length === 0 || isIngress) continue;
      const size = pools.reduce((sum, pool) => sum + pool.size, 0);
      const used = pools.reduce((sum, pool) => sum + pool.used, 0);
      yield { networkId: id, name, subnets: pools.map(({ subnet }) => formatSubnet(subnet)).join(", "), size, used };
    }
  }

  // --------------------------------------------------------------------------------------------------------- services

  /**
   * Takes over what a service has, as it stands in the store.
   * @returns whether that is what its spec asks for
   */
  setService(service: Service): boolean {
    const owner = `service/${service.id}`;
    const addresses = (service.endpoint?.virtualIps ?? []).map(({ networkId, addr }) => ({
      networkId: networkId ?? "",
      text: addr ?? "",
    }));
    const ports = (service.endpoint?.ports ?? []).filter(isIngress);
    this.#replace(owner, addresses, ports);
    return this.#isSettled(service);
  }

  removeService(id: string): void {
    this.#drop(`service/${id}`);
  }

  /** What its spec asks for. Nothing is given if not all of it can be. */
  grantService(service: Service): Answer<skep.objects.Endpoint.$Properties> {
    const owner = `service/${service.id}`;
    const before = this.#copyOf(owner);
    const answer = this.#grantService(service, owner);
    if (answer.kind === "refused") this.#restore(owner, before);
    return answer;
  }

  #grantService(service: Service, owner: string): Answer<skep.objects.Endpoint.$Properties> {
    const spec = service.spec?.endpointSpec ?? null;
    const holding = this.#holding(owner);
    const ports = this.#grantPorts(owner, holding, spec?.ports ?? [], service.endpoint?.ports ?? []);
    if ("reason" in ports) return refused(ports);
    const virtualIps: VirtualIp[] = [];
    if ((spec?.mode ?? EndpointMode.VIP) === EndpointMode.VIP) {
      for (const { target } of networksOfService(service)) {
        const book = this.#find(target ?? "");
        if (book === undefined) return refused(networkMissing(target ?? ""));
        if (book.isLocal) continue;
        const addresses = this.#virtualIps(book, owner, holding);
        if ("reason" in addresses) return refused(addresses);
        virtualIps.push(...addresses.map((addr) => ({ networkId: book.id, addr })));
      }
      const ingress = ports.some(isIngress) ? this.#ingress() : undefined;
      // The mesh finds the tasks without it, so a full ingress network keeps nobody from publishing ports.
      const addresses = ingress === undefined ? [] : this.#virtualIps(ingress, owner, holding);
      if (ingress !== undefined && !("reason" in addresses))
        virtualIps.push(...addresses.map((addr) => ({ networkId: ingress.id, addr })));
    }
    this.#keepOnly(owner, holding, virtualIps, ports);
    return granted({ spec, ports: [...ports], virtualIps });
  }

  #grantPorts(
    owner: string,
    holding: Holding,
    wanted: readonly Port[],
    before: readonly Port[],
  ): readonly Port[] | Refusal {
    const found: Port[] = [];
    // Those that are asked for by number go first, so that none of them is given to another port of this service.
    const inOrder = [...wanted].sort(
      (a, b) => Number((a.publishedPort ?? 0) === 0) - Number((b.publishedPort ?? 0) === 0),
    );
    const numbers = new Map<Port, number>();
    for (const port of inOrder) {
      if (!isIngress(port)) continue;
      const protocol: number = port.protocol ?? 0;
      const had = before.find((other) => isIngress(other) && samePort(other, port))?.publishedPort ?? 0;
      let number = port.publishedPort ?? 0;
      if (number === 0 && had !== 0 && ![...numbers.values()].includes(had) && this.#ports.claim(protocol, had, owner))
        number = had;
      else if (number === 0) {
        const chosen = this.#ports.take(protocol, owner);
        if (chosen === undefined) return portInUse(port, "");
        number = chosen;
      } else if (!this.#ports.claim(protocol, number, owner)) {
        const usedBy = (this.#ports.owner(protocol, number) ?? "").replace("service/", "");
        return portInUse(port, usedBy);
      }
      numbers.set(port, number);
      if (!holding.ports.some((each) => each.protocol === protocol && each.port === number))
        holding.ports.push({ protocol, port: number });
    }
    for (const port of wanted) found.push({ ...port, publishedPort: numbers.get(port) ?? port.publishedPort ?? 0 });
    return found;
  }

  /** One of each family that the network has, IPv4 first; those that it has already stay. */
  #virtualIps(book: NetworkBook, owner: string, holding: Holding): readonly string[] | Refusal {
    if (book.pools.length === 0) return book.refusal ?? networkNotReady(book.id, "it has no addresses yet");
    const found: string[] = [];
    for (const bits of familiesOf(book)) {
      const has = holding.addresses.find(({ networkId, pool }) => networkId === book.id && pool.subnet.bits === bits);
      const address = has === undefined ? this.#take(book, owner, holding, bits) : has.pool.format(has.value);
      if (typeof address !== "string") return address;
      found.push(address);
    }
    return found;
  }

  /** Of what the owner had, what is not in the endpoint any more. */
  #keepOnly(owner: string, holding: Holding, virtualIps: readonly VirtualIp[], ports: readonly Port[]): void {
    const networks = new Set(virtualIps.map(({ networkId }) => networkId));
    for (const { networkId, pool, value } of holding.addresses)
      if (!networks.has(networkId)) this.#release(pool, value, owner);
    holding.addresses.splice(
      0,
      holding.addresses.length,
      ...holding.addresses.filter(({ networkId }) => networks.has(networkId)),
    );
    const kept = new Set(ports.filter(isIngress).map((port) => `${port.protocol ?? 0}/${port.publishedPort}`));
    for (const { protocol, port } of holding.ports)
      if (!kept.has(`${protocol}/${port}`)) this.#releasePort(protocol, port, owner);
    holding.ports = holding.ports.filter(({ protocol, port }) => kept.has(`${protocol}/${port}`));
    if (holding.addresses.length === 0 && holding.ports.length === 0) this.#holdings.delete(owner);
  }

  #isSettled(service: Service): boolean {
    const spec = service.spec?.endpointSpec ?? null;
    const networks = networksOfService(service);
    const wantsPorts = (spec?.ports ?? []).length > 0;
    const { endpoint } = service;
    if (!wantsPorts && networks.length === 0)
      return (endpoint?.virtualIps ?? []).length === 0 && (endpoint?.ports ?? []).length === 0;
    if (endpoint == null || !sameSpec(endpoint.spec, spec)) return false;
    const wanted = new Set<string>();
    if ((spec?.mode ?? EndpointMode.VIP) === EndpointMode.VIP)
      for (const { target } of networks) {
        const book = this.#find(target ?? "");
        if (book === undefined) return false;
        if (book.isLocal) continue;
        if (book.pools.length === 0) return false;
        for (const bits of familiesOf(book)) wanted.add(`${book.id} ${bits}`);
      }
    const ingress = this.#ingress();
    const has = new Set(
      (endpoint.virtualIps ?? []).flatMap(({ networkId, addr }) =>
        networkId === ingress?.id ? [] : [`${networkId} ${parseSubnet(addr ?? "")?.bits}`],
      ),
    );
    return has.size === wanted.size && [...wanted].every((one) => has.has(one));
  }

  // ------------------------------------------------------------------------------------------------------------ tasks

  /** Takes over what a task has, as it stands in the store. */
  setTask(task: Task): void {
    // It has what it was given until it ends: that never changes.
    if (this.#holdings.has(`task/${task.id}`)) return;
    const addresses = task.networksAttachments.flatMap(({ networkId, addresses }) =>
      (addresses ?? []).map((text) => ({ networkId: networkId ?? "", text })),
    );
    if (addresses.length > 0) this.#replace(`task/${task.id}`, addresses, []);
  }

  removeTask(id: string): void {
    this.#drop(`task/${id}`);
  }

  /** @param service  undefined: of no service (a container attached by hand) */
  grantTask(task: Task, service: Service | undefined): Answer<TaskGrant> {
    const owner = `task/${task.id}`;
    const before = this.#copyOf(owner);
    const answer = this.#grantTask(task, service, owner);
    if (answer.kind === "refused") this.#restore(owner, before);
    return answer;
  }

  #grantTask(task: Task, service: Service | undefined, owner: string): Answer<TaskGrant> {
    const attachments: Attachment[] = [];
    const own = task.spec?.networks ?? [];
    for (const config of own.length > 0 || service === undefined ? own : networksOfService(service)) {
      const target = config.target ?? "";
      const book = this.#find(target);
      if (book === undefined) return refused(networkMissing(target));
      const addresses = book.isLocal ? [] : this.#addresses(book, owner, config);
      if ("reason" in addresses) return refused(addresses);
      const { aliases, driverOpts } = config;
      attachments.push({
        networkId: book.id,
        addresses: [...addresses],
        aliases: aliases ?? [],
        driverOpts: driverOpts ?? {},
      });
    }
    const spec = task.endpoint?.spec ?? null;
    const now = service?.endpoint;
    const isCurrent = now != null && sameSpec(now.spec, spec);
    const ports = isCurrent ? (now.ports ?? []) : (spec?.ports ?? []);
    return granted({ attachments, endpoint: { spec, ports, virtualIps: now?.virtualIps ?? [] } });
  }

  /** One of each family that the network has; or those asked for. */
  #addresses(book: NetworkBook, owner: string, config: AttachmentConfig): readonly string[] | Refusal {
    if (book.pools.length === 0) return book.refusal ?? networkNotReady(book.id, "it has no addresses yet");
    const holding = this.#holding(owner);
    const has = holding.addresses.filter((each) => each.networkId === book.id);
    if (has.length > 0) return has.map(({ pool, value }) => pool.format(value));
    const asked = config.addresses ?? [];
    const fixed = asked.length > 0 ? this.#asked(book, owner, holding, asked) : [];
    if ("reason" in fixed) return fixed;
    const found: string[] = [];
    for (const bits of familiesOf(book)) {
      const own = fixed.filter((text) => parseSubnet(text)?.bits === bits);
      found.push(...own);
      if (own.length > 0) continue;
      const address = this.#take(book, owner, holding, bits);
      if (typeof address !== "string") return address;
      found.push(address);
    }
    return found;
  }

  #asked(book: NetworkBook, owner: string, holding: Holding, asked: readonly string[]): readonly string[] | Refusal {
    const found: string[] = [];
    for (const text of asked) {
      const pool = book.pools.find((each) => each.parse(text) !== undefined);
      const value = pool?.parse(text);
      if (pool === undefined || value === undefined)
        return networkNotReady(book.id, `address ${text} is in none of its subnets`);
      if (!pool.isHost(value)) return networkNotReady(book.id, `address ${text} is no host's`);
      if (!pool.claim(value, owner))
        return networkNotReady(book.id, `address ${text} belongs to ${pool.owner(value)?.replace("/", " ")}`);
      holding.addresses.push({ networkId: book.id, value, pool });
      found.push(pool.format(value));
    }
    return found;
  }

  // ----------------------------------------------------------------------------------------------------------- holdings

  #take(book: NetworkBook, owner: string, holding: Holding, bits?: 32 | 128): string | Refusal {
    const pools = book.pools.filter(({ subnet }) => bits === undefined || subnet.bits === bits);
    for (const pool of pools) {
      const value = pool.take(owner);
      if (value === undefined) continue;
      holding.addresses.push({ networkId: book.id, value, pool });
      return pool.format(value);
    }
    const size = pools.reduce((sum, pool) => sum + pool.size, 0);
    const used = pools.reduce((sum, pool) => sum + pool.used, 0);
    return poolFull(book, pools.map(({ subnet }) => formatSubnet(subnet)).join(", "), size, used);
  }

  #holding(owner: string): Holding {
    const known = this.#holdings.get(owner);
    if (known !== undefined) return known;
    const holding: Holding = { addresses: [], ports: [] };
    this.#holdings.set(owner, holding);
    return holding;
  }

  /** The owner has this and nothing else. */
  #replace(
    owner: string,
    addresses: readonly { readonly networkId: string; readonly text: string }[],
    ports: readonly Port[],
  ): void {
    const before = this.#holdings.get(owner);
    if (before === undefined && addresses.length === 0 && ports.length === 0) return;
    const now: Holding = { addresses: [], ports: [] };
    for (const { networkId, text } of addresses) {
      for (const pool of this.#networks.get(networkId)?.pools ?? []) {
        const value = pool.parse(text);
        if (value === undefined || !pool.claim(value, owner)) continue;
        now.addresses.push({ networkId, value, pool });
      }
    }
    for (const { protocol, publishedPort } of ports)
      if (this.#ports.claim(protocol ?? 0, publishedPort ?? 0, owner))
        now.ports.push({ protocol: protocol ?? 0, port: publishedPort ?? 0 });
    this.#holdings.set(owner, now);
    for (const { pool, value } of before?.addresses ?? [])
      if (!now.addresses.some((each) => each.pool === pool && each.value === value)) this.#release(pool, value, owner);
    for (const { protocol, port } of before?.ports ?? [])
      if (!now.ports.some((each) => each.protocol === protocol && each.port === port))
        this.#releasePort(protocol, port, owner);
    if (now.addresses.length === 0 && now.ports.length === 0) this.#holdings.delete(owner);
  }

  #drop(owner: string): void {
    const holding = this.#holdings.get(owner);
    this.#holdings.delete(owner);
    for (const { pool, value } of holding?.addresses ?? []) this.#release(pool, value, owner);
    for (const { protocol, port } of holding?.ports ?? []) this.#releasePort(protocol, port, owner);
  }

  #copyOf(owner: string): Holding {
    const holding = this.#holdings.get(owner);
    return { addresses: [...(holding?.addresses ?? [])], ports: [...(holding?.ports ?? [])] };
  }

  /** Only what was taken since is given back; that frees nothing that somebody waited for. */
  #restore(owner: string, before: Holding): void {
    const now = this.#holdings.get(owner);
    const releases = this.#releases;
    for (const { pool, value } of now?.addresses ?? [])
      if (!before.addresses.some((each) => each.pool === pool && each.value === value)) pool.release(value, owner);
    for (const { protocol, port } of now?.ports ?? [])
      if (!before.ports.some((each) => each.protocol === protocol && each.port === port))
        this.#ports.release(protocol, port, owner);
    this.#releases = releases;
    if (before.addresses.length === 0 && before.ports.length === 0) this.#holdings.delete(owner);
    else this.#holdings.set(owner, before);
  }

  #release(pool: AddressPool, value: bigint, owner: string): void {
    pool.release(value, owner);
    this.#releases++;
  }

  #releasePort(protocol: number, port: number, owner: string): void {
    this.#ports.release(protocol, port, owner);
    this.#releases++;
  }

  #find(reference: string): NetworkBook | undefined {
    return this.#networks.get(reference) ?? this.#networks.get(this.#byName.get(reference) ?? "");
  }

  #ingress(): NetworkBook | undefined {
    for (const book of this.#networks.values()) if (book.isIngress) return book;
    return undefined;
  }
}

const familiesOf = ({ pools }: NetworkBook): (32 | 128)[] =>
  ([32, 128] as const).filter((bits) => pools.some(({ subnet }) => subnet.bits === bits));

/** What a network is to have, in the order in which it is given: as asked, and one of each family that it wants. */
function wishesOf(
  spec: skep.objects.NetworkSpec.$Properties | null | undefined,
): readonly (IpamConfig & { readonly bits: 32 | 128 })[] {
  const wantsV6 = spec?.enableIpv6 === true;
  const asked = (spec?.ipam?.config ?? []).map((config) => ({
    ...config,
    bits: parseSubnet(config.subnet ?? "")?.bits ?? (32 as const),
  }));
  const v4 = asked.filter(({ bits }) => bits === 32);
  const v6 = asked.filter(({ bits }) => bits === 128);
  return [
    ...(v4.length > 0 ? v4 : spec?.enableIpv4 === false ? [] : [{ bits: 32 as const }]),
    // As in the reference, subnets of a family that the network has not are not looked at.
    ...(wantsV6 ? (v6.length > 0 ? v6 : [{ bits: 128 as const }]) : []),
  ];
}

function subnetsOf(ipam: skep.objects.Ipam.$Properties | null | undefined): readonly Subnet[] {
  return (ipam?.config ?? []).flatMap(({ subnet }) => {
    const parsed = parseSubnet(subnet ?? "");
    return parsed === undefined ? [] : [parsed];
  });
}

function isLocal({ spec }: Network): boolean {
  if (spec?.configOnly === true || (spec?.configFrom ?? "") !== "") return true;
  const driver = spec?.driver?.name ?? "";
  return (driver !== "" && driver !== "overlay") || spec?.scope === "local" || spec?.scope === "node";
}

const isIngress = ({ publishMode }: Port): boolean => (publishMode ?? PublishMode.INGRESS) === PublishMode.INGRESS;

const samePort = (a: Port, b: Port): boolean =>
  (a.protocol ?? 0) === (b.protocol ?? 0) &&
  (a.targetPort ?? 0) === (b.targetPort ?? 0) &&
  (a.name ?? "") === (b.name ?? "");

function sameSpec(
  a: skep.objects.EndpointSpec.$Properties | null | undefined,
  b: skep.objects.EndpointSpec.$Properties | null | undefined,
): boolean {
  if ((a?.mode ?? 0) !== (b?.mode ?? 0)) return false;
  const one = a?.ports ?? [];
  const other = b?.ports ?? [];
  return (
    one.length === other.length &&
    one.every((port, at) => {
      const same = other[at] as Port;
      return (
        samePort(port, same) &&
        (port.publishedPort ?? 0) === (same.publishedPort ?? 0) &&
        (port.publishMode ?? 0) === (same.publishMode ?? 0)
      );
    })
  );
}

function gatewayOf(subnet: Subnet, { gateway, auxiliaryAddresses }: IpamConfig): string | { readonly detail: string } {
  const pool = new AddressPool(subnet, undefined);
  for (const text of Object.values(auxiliaryAddresses ?? {})) {
    const value = pool.parse(text);
    if (value === undefined) return { detail: `address ${text} is not in ${formatSubnet(subnet)}` };
    pool.claim(value, "auxiliary");
  }
  if (gateway !== null && gateway !== undefined && gateway !== "") {
    const value = parseAddress(gateway) === undefined ? undefined : pool.parse(gateway);
    if (value === undefined) return { detail: `gateway ${gateway} is not in ${formatSubnet(subnet)}` };
    if (!pool.isHost(value)) return { detail: `gateway ${gateway} is no host's address` };
    if (pool.owner(value) !== undefined) return { detail: `gateway ${gateway} is an auxiliary address, too` };
    return pool.formatPlain(value);
  }
  for (let value = subnet.base + 1n; ; value++) if (pool.owner(value) === undefined) return pool.formatPlain(value);
}
