/**
 * Runtime: what every shell needs to wait, to own work and to tell.
 * clock          monotonic and wall time, timers, waits that take a signal; virtual-clock moves only when told
 * turn-clock     calls at once share turns of a bounded length
 * task-group     owns started work until it ends
 * bounded-queue  waits, refuses, or drops and tells to resync when full
 * group-commit   many writers, one sync of the disk; level-writer on a database that a full disk does not tear
 * logger         JSON lines without secrets
 * random-pool    bytes for ids, many at a call
 * listening      servers outlive connections that cannot be accepted
 * remove-folder  for folders that others remove from, too
 * with-streams   a child that was started has them
 * standard-error never makes the process wait for who reads it
 * memory         given back by a process at rest
 * Uses: lib/pure, pino.   Used by: every shell.
 */
export { BoundedQueue, QueueClosed, ResyncQueue, type QueueOptions, type ResyncItem } from "./bounded-queue.ts";
export { deadline, realClock, sleep, type Clock, type Deadline, type Timer } from "./clock.ts";
export { directoryBytes } from "./directory-bytes.ts";
export { LevelWriter } from "./level-writer.ts";
export { listening } from "./listening.ts";
export { createLogger, logLevels, silentLogger, type Facts, type Logger, type LogLevel } from "./logger.ts";
export { fillFromPool } from "./random-pool.ts";
export { removeFolder } from "./remove-folder.ts";
export { standardError } from "./standard-error.ts";
export { collectAtRest } from "./memory.ts";
export { TaskGroup } from "./task-group.ts";
export { TurnClock } from "./turn-clock.ts";
export { VirtualClock } from "./virtual-clock.ts";
export { withStreams } from "./with-streams.ts";
