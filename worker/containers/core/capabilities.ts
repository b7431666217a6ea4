/** Capabilities (capabilities(7)) of a container: the default set, and what is added and dropped. */

/** In the order of their numbers; CHECKPOINT_RESTORE came with Linux 5.9. */
export const allCapabilities = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
] as const;

/** What the Engine gives to a container that asks for nothing. */
export const defaultCapabilities: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];

/** `net_admin`, `CAP_NET_ADMIN`, `ALL` in their full spelling; undefined for what is none. */
export function normalizeCapability(name: string): string | undefined {
  const upper = name.toUpperCase();
  if (upper === "ALL" || upper === "CAP_ALL") return "ALL";
  const full = upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  return (allCapabilities as readonly string[]).includes(full) ? full : undefined;
}

export interface CapabilityWish {
  /** Normalized names. */
  readonly add: readonly string[];
  readonly drop: readonly string[];
  readonly privileged: boolean;
  /** What the daemon itself may hand out; a privileged container gets no more than that. */
  readonly available: readonly string[];
}

/** `ALL` first, then single names; a name that is both added and dropped is dropped. */
export function decideCapabilities(wish: CapabilityWish): string[] {
  if (wish.privileged) return [...wish.available];
  const base = wish.add.includes("ALL") ? wish.available : wish.drop.includes("ALL") ? [] : defaultCapabilities;
  const added = wish.add.filter((name) => name !== "ALL");
  const kept = base.filter((name) => !wish.drop.includes(name));
  return [...new Set([...kept, ...added.filter((name) => !wish.drop.includes(name))])];
}
