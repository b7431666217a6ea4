/**
 * The host's namespace as a part of the model: this node and its peers, the mesh, and of each sandbox the veths that end
 * here and the ports that lead to it. It is made anew when the node itself changes; what must outlive that (which ports
 * this node may take, the local networks) is with its owner, `HostSide`.
 */
import { bridgeObjects, type BridgeNetwork } from "./bridges.ts";
import { addressOf, parseCidr } from "./cidr.ts";
import { isV6, parseCidr6, subnetText6 } from "./cidr6.ts";
import { gatewayOf, hostObjects, ownGateway, peerObjects, type HostFacts } from "./host.ts";
import { bridgeObjects6, hostObjects6, peerObjects6 } from "./host6.ts";
import { defaultBridgeName } from "./local-network.ts";
import { IngressMesh } from "./mesh.ts";
import { gateway6Of, nodeOfGateway } from "../../../lib/pure/node-number.ts";
import type { ForgottenConnections } from "./namespace.ts";
import type { NetObject } from "./objects.ts";
import type { BridgeEndpoint, MakePart, Part, Placement, SandboxFacts, Self } from "./part.ts";
import { subnetText } from "./pools.ts";
import { allAddresses6, type HostPort } from "./port-claims.ts";
import type { EndpointRecord, OverlayWish, PeerRecord, ServiceRecord } from "./records.ts";
import { tunnelObjects, tunnelOverheadBytes } from "./tunnel.ts";
import type { TunnelKey } from "./tunnel-key.ts";
import { routedVeth, type RoutedVeth } from "./routed-veth.ts";
import { boundElements, connectionsOf, portElement, slotElement, SlotChains, type PortKey } from "./slots.ts";
import { macOfAddress } from "./cidr.ts";
import { mtuMin6 } from "./underlay.ts";

/** Outer Ethernet, IPv4, UDP and VXLAN headers. */
const vxlanOverheadBytes = 50;
const linkMtu = 1500;
const hostPath = "";
const insideGroup = "host side";

export interface HostSideOptions {
  /** UDP port of VXLAN. */
  readonly dataPort: number;
  /** Whether IPv6 that is not ours is routed between foreign links, as it was before we came. */
  readonly forwardsForOthers6: boolean;
  /** As of now; a network is there before its first sandbox. */
  readonly bridge: (networkId: string) => BridgeNetwork | undefined;
  /** As of now; undefined: an encrypted mesh is closed here. */
  readonly tunnelKey: () => TunnelKey | undefined;
  /** The host's kernel has IPv6. */
  readonly has6: boolean;
  /** As it was in the life before: so it is until services are told. */
  readonly was: MeshKind;
}

/** What the mesh's network was made to be. */
export interface MeshKind {
  readonly encrypted: boolean;
  readonly has6: boolean;
}

/** Owns the part through its lives. */
export class HostSide {
  readonly #options: HostSideOptions;
  #open: ReadonlySet<string> = new Set();
  #forwardsForOthers = true;
  #isTold = false;
  #part: HostPart | undefined;

  constructor(options: HostSideOptions) {
    this.#options = options;
  }

  readonly make: MakePart = (self, placement) => {
    const { was } = this.#options;
    this.#part = new HostPart(self, placement, {
      ...this.#options,
      forwardsForOthers: this.#forwardsForOthers,
      was: this.#isTold ? { encrypted: false, has6: false } : was,
    });
    this.#part.setOpen(this.#open);
    return this.#part;
  };

  /** Of this node; 0: in no swarm. */
  get number(): number {
    return this.#part?.number ?? 0;
  }

  /** Where this node's VXLAN frames come and go; empty: in no swarm. */
  get underlay(): string {
    return this.#part?.underlay ?? "";
  }

  /** Ports of the mesh that this node should take, on all addresses of a family each. */
  wantedPorts(): readonly HostPort[] {
    return this.#part?.wantedPorts() ?? [];
  }

  /** Those that it may take, by `portText`: the others are a process's of the host. */
  setOpen(open: ReadonlySet<string>): void {
    this.#open = open;
    this.#part?.setOpen(open);
  }

  /** This node says with another key from now on. */
  tunnelKeyChanged(): void {
    this.#part?.meshChanged();
  }

  /** All services are known from now on. */
  told(): void {
    this.#isTold = true;
    this.#part?.told();
  }

  get isMeshEncrypted(): boolean {
    return this.#part?.isMeshEncrypted === true;
  }

  /** The mesh's network has IPv6, and this node as well. */
  get hasMesh6(): boolean {
    return this.#part?.hasMesh6 === true;
  }

  /** Whether gw0 of a sandbox on these has IPv6: it leads out by it, or is led to. */
  hasGateway6(overlays: readonly OverlayWish[]): boolean {
    return this.#options.has6 && (this.#part?.carriesMesh6 === true || leadsOut6(overlays));
  }

  /** Whether what is not ours is routed between foreign links. @param forwards  false: it was not before we came */
  setForwardsForOthers(forwards: boolean): void {
    if (forwards === this.#forwardsForOthers) return;
    this.#forwardsForOthers = forwards;
    this.#part?.setForwardsForOthers(forwards);
  }
}

type PartOptions = HostSideOptions & { readonly forwardsForOthers: boolean };

class HostPart implements Part {
  readonly #self: Self;
  readonly #placement: Placement;
  readonly #options: PartOptions;
  readonly #chains: SlotChains;
  readonly #mesh: IngressMesh;
  /** Services of an encrypted mesh, and all nodes, by key: what they want of the mesh depends on the tunnel. */
  readonly #encrypted = new Map<string, ServiceRecord>();
  readonly #peers = new Map<string, PeerRecord>();
  /** Services of a mesh with IPv6, by key. */
  readonly #sixes = new Set<string>();
  /** Sandboxes with gw0, whose IPv6 depends on the mesh's. */
  readonly #behindGateway = new Map<string, SandboxFacts>();
  /** Of sandboxes and networks of this node, those that have use of IPv6 on the host. */
  readonly #users6 = new Set<string>();
  #forwardsForOthers: boolean;
  #was: MeshKind;
  /** Sandboxes on each local network. */
  readonly #onBridge = new Map<string, Set<string>>();

  constructor(self: Self, placement: Placement, options: PartOptions) {
    this.#self = self;
    this.#placement = placement;
    this.#options = options;
    const groups = {
      set: (group: string, objects: readonly NetObject[]) => placement.set(hostPath, group, objects),
      forget: (connections: ForgottenConnections) => placement.forget(hostPath, connections),
    };
    this.#chains = new SlotChains(groups);
    this.#mesh = new IngressMesh(groups, this.#chains);
    this.#forwardsForOthers = options.forwardsForOthers;
    this.#was = options.was;
    this.#host();
  }

  setForwardsForOthers(forwardsForOthers: boolean): void {
    this.#forwardsForOthers = forwardsForOthers;
    this.#host();
  }

  get #facts(): HostFacts {
    const { number, addr, underlayMtu } = this.#self;
    return {
      number,
      underlay: addr,
      dataPort: this.#options.dataPort,
      mtu: underlayMtu - vxlanOverheadBytes,
      mesh: this.#meshState,
      has6: this.carriesMesh6,
      forwardsForOthers: this.#forwardsForOthers,
    };
  }

  #host(): void {
    const facts = this.#facts;
    const key = this.#options.tunnelKey();
    this.#set("host", hostObjects(facts));
    this.#set("mesh tunnel", facts.mesh === "tunnel" && key !== undefined ? tunnelObjects(this.#self, key) : []);
    this.#host6();
  }

  /** There while anything has use of it. */
  #host6(): void {
    const isUsed = this.carriesMesh6 || this.#users6.size > 0;
    const forwardsForOthers = this.#options.forwardsForOthers6;
    this.#set("host6", isUsed ? hostObjects6({ ...this.#facts, forwardsForOthers }) : []);
    this.#chains.set6(isUsed);
    this.#mesh.set6(this.carriesMesh6);
  }

  #use6(user: string, uses: boolean): void {
    if (uses === this.#users6.has(user)) return;
    if (uses) this.#users6.add(user);
    else this.#users6.delete(user);
    if (this.#users6.size === (uses ? 1 : 0)) this.#host6();
  }

  get isMeshEncrypted(): boolean {
    return this.#encrypted.size > 0 || this.#was.encrypted;
  }

  get hasMesh6(): boolean {
    return this.#options.has6 && (this.#sixes.size > 0 || this.#was.has6);
  }

  /** On links that are too narrow the kernel has no IPv6 (RFC 8200 §5); the doctor tells, and IPv4 goes on. */
  get carriesMesh6(): boolean {
    const mtu = this.#self.underlayMtu - vxlanOverheadBytes - (this.isMeshEncrypted ? tunnelOverheadBytes : 0);
    return this.hasMesh6 && mtu >= mtuMin6;
  }

  told(): void {
    const { encrypted, has6 } = this.#was;
    if (!encrypted && !has6) return;
    const before = { encrypted: this.isMeshEncrypted, has6: this.carriesMesh6 };
    this.#was = { encrypted: false, has6: false };
    this.#compare(before);
  }

  /** The way is there before anything is led to it. */
  #compare(before: MeshKind): void {
    if (before.encrypted !== this.isMeshEncrypted || before.has6 !== this.carriesMesh6) this.meshChanged();
  }

  get #meshState(): "open" | "tunnel" | "closed" {
    if (!this.isMeshEncrypted) return "open";
    return this.#self.number === 0 || this.#options.tunnelKey() === undefined ? "closed" : "tunnel";
  }

  /** It is encrypted or has IPv6 from now on, or not any more; or the tunnel that it needs has come or gone. */
  meshChanged(): void {
    this.#host();
    for (const key of this.#peers.keys()) this.#peer(key);
    for (const facts of this.#behindGateway.values()) this.#connect(facts.id, facts, facts);
    const isClosed = this.#meshState === "closed";
    for (const [id, record] of this.#encrypted) this.#mesh.setService(id, isClosed ? undefined : record);
  }

  /** That of the mesh's link: nobody is told of an answer that is too long for it (host.ts, `answerRules`). */
  get #gatewayMtu(): number {
    const tunnel = this.#meshState === "tunnel" ? tunnelOverheadBytes : 0;
    return this.#self.underlayMtu - vxlanOverheadBytes - tunnel;
  }

  get number(): number {
    return this.#self.number;
  }

  get underlay(): string {
    return this.#self.addr;
  }

  wantedPorts(): readonly HostPort[] {
    return this.#mesh.wantedPorts();
  }

  setOpen(open: ReadonlySet<string>): void {
    this.#mesh.setOpen(open);
  }

  #set(group: string, objects: readonly NetObject[]): void {
    this.#placement.set(hostPath, group, objects);
  }

  peer(key: string, after: PeerRecord | undefined): void {
    if (after === undefined) this.#peers.delete(key);
    else this.#peers.set(key, after);
    this.#peer(key);
  }

  #peer(key: string): void {
    const peer = this.#peers.get(key);
    const { number } = this.#self;
    const isKnown = peer !== undefined && number > 0;
    this.#set(`peer ${key}`, isKnown ? peerObjects(peer, number, this.#meshState) : []);
    this.#set(`peer6 ${key}`, isKnown && this.carriesMesh6 ? peerObjects6(peer, number, this.#meshState) : []);
  }

  endpoint(key: string, after: EndpointRecord | undefined, before: EndpointRecord | undefined): void {
    // Endpoints of the ingress network have no address in it.
    if ((after ?? before)?.addresses.length === 0) this.#mesh.setEndpoint(key, after);
  }

  service(_key: string, after: ServiceRecord | undefined, before: ServiceRecord | undefined): void {
    // Only the ingress network's have ports.
    const ports = (after?.ports.length ?? 0) + (before?.ports.length ?? 0);
    const serviceId = (after ?? before)?.serviceId ?? "";
    if (ports === 0) return;
    const was = { encrypted: this.isMeshEncrypted, has6: this.carriesMesh6 };
    const isOpen = after !== undefined && after.ports.length > 0;
    if (isOpen && after.encrypted === true) this.#encrypted.set(serviceId, after);
    else this.#encrypted.delete(serviceId);
    if (isOpen && after.has6 === true) this.#sixes.add(serviceId);
    else this.#sixes.delete(serviceId);
    this.#compare(was);
    const isClosed = after?.encrypted === true && this.#meshState === "closed";
    this.#mesh.setService(serviceId, isClosed ? undefined : after);
  }

  sandbox(id: string, after: SandboxFacts | undefined, before: SandboxFacts | undefined): void {
    for (const { wish } of before?.bridges ?? []) this.#leaveBridge(wish.networkId, id, after);
    for (const { wish } of after?.bridges ?? []) this.#joinBridge(wish.networkId, id);
    if (after === undefined || after.gatewayAddress === "") this.#behindGateway.delete(id);
    else this.#behindGateway.set(id, after);
    this.#connect(id, after, before);
  }

  #connect(id: string, after: SandboxFacts | undefined, before: SandboxFacts | undefined): void {
    this.#use6(`sandbox ${id}`, after !== undefined && this.#gateway6(after) !== "");
    const veths = after === undefined ? [] : this.#veths(after).map(routedVeth);
    this.#set(
      `sandbox ${id}`,
      veths.flatMap(({ host }) => host),
    );
    const namespacePath = (after ?? before)?.namespacePath;
    if (namespacePath !== undefined) {
      this.#placement.set(
        namespacePath,
        insideGroup,
        veths.flatMap(({ inside }) => inside),
      );
    }
    this.#ports(id, after);
    const kept = this.#ledTo(after);
    for (const address of this.#ledTo(before)) {
      if (!kept.includes(address)) this.#placement.forget(hostPath, connectionsOf(address));
    }
  }

  /** Its addresses that others may have been led to, by its ports or the mesh: what they sent to the host goes there. */
  #ledTo(facts: SandboxFacts | undefined): string[] {
    if (facts === undefined) return [];
    const { gatewayAddress, bridges, ports } = facts;
    const local = bridges.flatMap(({ address, address6 }) => [
      addressOf(address) ?? "",
      parseCidr6(address6 ?? "")?.address ?? "",
    ]);
    const gateways = [gatewayAddress, this.#gateway6(facts)];
    // The mesh leads to tasks alone.
    const isTask = nodeOfGateway(gatewayAddress) !== undefined;
    const led = [...(isTask || ports.length > 0 ? gateways : []), ...(ports.length > 0 ? local : [])];
    return led.filter((address) => address !== "");
  }

  /** Of gw0; empty: it has none. */
  #gateway6({ gatewayAddress, overlays }: SandboxFacts): string {
    const has6 = this.carriesMesh6 || (this.#options.has6 && leadsOut6(overlays.map(({ wish }) => wish)));
    return has6 ? gateway6Of(gatewayAddress) : "";
  }

  #joinBridge(networkId: string, sandboxId: string): void {
    const sandboxes = this.#onBridge.get(networkId);
    if (sandboxes !== undefined) {
      sandboxes.add(sandboxId);
      return;
    }
    const network = this.#options.bridge(networkId);
    if (network === undefined) return;
    this.#onBridge.set(networkId, new Set([sandboxId]));
    this.#use6(`network ${networkId}`, network.subnet6 !== undefined);
    this.#set(`network ${networkId}`, [...bridgeObjects(network), ...bridgeObjects6(network)]);
  }

  #leaveBridge(networkId: string, sandboxId: string, after: SandboxFacts | undefined): void {
    if (after?.bridges.some(({ wish }) => wish.networkId === networkId) === true) return;
    const sandboxes = this.#onBridge.get(networkId);
    sandboxes?.delete(sandboxId);
    if (sandboxes?.size !== 0) return;
    this.#onBridge.delete(networkId);
    this.#set(`network ${networkId}`, []);
    this.#use6(`network ${networkId}`, false);
  }

  #veths(facts: SandboxFacts): RoutedVeth[] {
    const { id, namespacePath: namespace, gatewayAddress } = facts;
    const veths: RoutedVeth[] = [];
    const isTold = isToldNames(facts, this.#options.bridge);
    const gateway6 = this.#gateway6(facts);
    if (gatewayAddress !== "") {
      const inSwarm = nodeOfGateway(gatewayAddress) !== undefined;
      const gateway = inSwarm ? gatewayOf(this.#self.number) : ownGateway;
      veths.push({
        sandboxId: id,
        namespace,
        interfaceName: "gw0",
        kind: "gateway",
        address: gatewayAddress,
        subnet: "",
        gateway,
        ...(gateway6 === ""
          ? {}
          : { v6: { address: gateway6, subnet: "", gateway: gateway6Of(gateway), isDefaultRoute: true } }),
        mac: macOfAddress(gatewayAddress),
        mtu: inSwarm ? this.#gatewayMtu : linkMtu,
        // Also for one that is isolated: answers to who came through the mesh go this way, and nothing else may.
        isDefaultRoute: true,
        leadsToHost: false,
        leadsToResolver: isTold,
        isIsolated: facts.internal,
      });
    }
    const outward = facts.bridges.find(({ wish }) => this.#options.bridge(wish.networkId)?.internal === false);
    for (const [at, endpoint] of facts.bridges.entries()) {
      const isDefaultRoute = gatewayAddress === "" && endpoint === outward;
      const leadsToHost = gatewayAddress === "" && outward === undefined && at === 0;
      const leadsToResolver = isTold && (isDefaultRoute || leadsToHost);
      const isDefaultRoute6 = gateway6 === "" && endpoint === outward;
      const routes = { isDefaultRoute, isDefaultRoute6, leadsToHost, leadsToResolver };
      const veth = this.#bridgeVeth(facts, endpoint, routes);
      if (veth !== undefined) veths.push(veth);
    }
    return veths;
  }

  #bridgeVeth(
    facts: SandboxFacts,
    endpoint: BridgeEndpoint,
    {
      isDefaultRoute6,
      ...routes
    }: Pick<RoutedVeth, "isDefaultRoute" | "leadsToHost" | "leadsToResolver"> & { readonly isDefaultRoute6: boolean },
  ): RoutedVeth | undefined {
    const network = this.#options.bridge(endpoint.wish.networkId);
    const cidr = parseCidr(endpoint.address);
    if (network === undefined || cidr === undefined) return undefined;
    return {
      sandboxId: facts.id,
      namespace: facts.namespacePath,
      interfaceName: endpoint.interfaceName,
      kind: "local",
      address: cidr.address,
      subnet: subnetText(cidr),
      gateway: endpoint.gateway,
      ...v6Of(endpoint, isDefaultRoute6),
      mac: endpoint.macAddress,
      mtu: network.mtu === 0 ? linkMtu : network.mtu,
      ...routes,
      isIsolated: network.internal,
    };
  }

  #ports(id: string, facts: SandboxFacts | undefined): void {
    const target = facts === undefined ? "" : this.#targetOf(facts);
    const ports = target === "" ? [] : (facts?.ports ?? []);
    const target6 = facts === undefined ? "" : this.#target6Of(facts);
    this.#set(
      `ports ${id}`,
      ports.flatMap(({ protocol, publishedPort, targetPort, hostAddress }) => {
        const key: PortKey = { protocol, port: publishedPort };
        const family = isV6(hostAddress) ? "ip6" : "ip";
        const to = family === "ip6" ? target6 : target;
        if (to === "") return [];
        if (hostAddress !== "" && hostAddress !== allAddresses6) return boundElements(hostAddress, key, to, targetPort);
        this.#chains.use(protocol, 1, family);
        return [slotElement(key, 0, to, targetPort), portElement(key, 1, family)];
      }),
    );
  }

  #target6Of(facts: SandboxFacts): string {
    const gateway6 = this.#gateway6(facts);
    if (gateway6 !== "") return gateway6;
    const outward = facts.bridges.find(({ wish }) => this.#options.bridge(wish.networkId)?.internal === false);
    return parseCidr6(outward?.address6 ?? "")?.address ?? "";
  }

  /** Where its ports lead: gw0, or the first network that is open to the outside. Empty: nowhere. */
  #targetOf({ gatewayAddress, internal, bridges }: SandboxFacts): string {
    if (gatewayAddress !== "") return internal ? "" : gatewayAddress;
    const outward = bridges.find(({ wish }) => this.#options.bridge(wish.networkId)?.internal === false);
    return outward === undefined ? "" : (addressOf(outward.address) ?? "");
  }
}

function v6Of({ address6, gateway6 }: BridgeEndpoint, isDefaultRoute: boolean): Pick<RoutedVeth, "v6"> {
  const cidr = parseCidr6(address6 ?? "");
  if (cidr === undefined || gateway6 === undefined) return {};
  return { v6: { address: cidr.address, subnet: subnetText6(cidr), gateway: gateway6, isDefaultRoute } };
}

/** By a network with IPv6 that is not internal. */
const leadsOut6 = (overlays: readonly OverlayWish[]): boolean =>
  overlays.some(
    ({ network, address6 }) => address6 !== undefined && network.subnet6 !== undefined && !network.internal,
  );

/** The node answers for names of overlays and of networks that users make; the network `bridge` never had names. */
export function isToldNames(
  { overlays, bridges }: Pick<SandboxFacts, "overlays" | "bridges">,
  bridge: HostSideOptions["bridge"],
): boolean {
  return overlays.length > 0 || bridges.some(({ wish }) => bridge(wish.networkId)?.name !== defaultBridgeName);
}
