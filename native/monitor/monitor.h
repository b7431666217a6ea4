/*
 * `isolate monitor`: one small process for each container. It owns the container's stdio or terminal, its log file, its
 * exit status and its exec sessions, so that the agent may be restarted or upgraded while containers run.
 * Design: docs/design/monitor.md.
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

int monitor_main(int argc, char **argv);

/*
 * The command line of the OCI runtime, as a function that returns the exit code. Weak: the tests of the monitor are linked
 * without it and use a runtime given by its path.
 */
int isolate_main(int argc, char **argv) __attribute__((weak));

#endif
