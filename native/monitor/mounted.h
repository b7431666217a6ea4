/*
 * `isolate monitor mounted`: looks at, or works in, the root filesystem of a container that is not running. The overlay is
 * mounted in a mount namespace of this process alone, so that it is gone with it, whatever happens.
 *
 *   mounted --overlay-lower DIR... [--overlay-upper DIR --overlay-work DIR] --overlay-target DIR
 *           [--bind SOURCE --at PATH]... [--make-directory PATH]... [--print PATH]... [-- COMMAND ARGUMENT...]
 *   mounted --mount-ns FILE [--print PATH]...          the same reading in a container that runs
 *
 * `--bind` brings in the volumes; PATH is resolved inside the root. `--print` writes for each file one line with its length
 * in bytes (-1: there is none) and then its content, at most 1 MiB. The command replaces this process.
 */
#ifndef MONITOR_MOUNTED_H
#define MONITOR_MOUNTED_H

int mounted_main(int argc, char **argv);

#endif
