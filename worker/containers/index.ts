/**
 * Containers: makes, runs and forgets the containers of one worker.
 * In:    what a user asks for, in the Engine API's shapes; layers from a RootfsProvider.
 * Out:   processes that outlive this one: each container belongs to its monitor (native/monitor), which holds its streams,
 *        its log and its exit status. The record of each is in `level`.
 * core/  config.json, seccomp, capabilities, users, mounts; restart and health; log frames; the monitor's protocol. Pure.
 * Uses:  lib, native/isolate, native/archive, or another OCI runtime by its path.
 * Used by: executor, api.   Design: docs/design/containers.md, docs/design/monitor.md
 */
export { Containers, type CreateRequest, type RecoveryReport } from "./containers.ts";
export { Container, lostExitCode, type ExecConfig, type ExecSession, type WaitCondition } from "./container.ts";
export { formatTimeNs, type LogLine } from "./core/log-frames.ts";
export type {
  ContainerConfig,
  ContainerId,
  ContainerRecord,
  ContainerStatus,
  EndpointSettings,
  ExecId,
  ExitStatus,
  HealthState,
  HostConfig,
  ImageConfig,
  PortBinding,
  Resources,
} from "./core/types.ts";
export * from "./errors.ts";
export type { ContainerEvent } from "./events.ts";
export type { LogOptions } from "./log-reader.ts";
export { DirectoryRootfs, type CommitRequest, type PreparedRootfs, type RootfsProvider } from "./rootfs.ts";
export type { ContainerNetwork, ContainerSettings, NetworkProvider, Programs } from "./settings.ts";
export type { ContainerStats } from "./stats.ts";
export type { Attachment, AttachOptions, ExecStream, OutputChunk } from "./streams.ts";
export type { VolumeProvider, VolumeWish } from "./volumes.ts";
