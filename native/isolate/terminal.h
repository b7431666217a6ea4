/* Pseudo-terminals (pty(7)): made in the container's devpts, handed to the console socket or to the parent. */
#ifndef ISOLATE_TERMINAL_H
#define ISOLATE_TERMINAL_H

#include "common/error.h"

#include <stdbool.h>

struct setup;
struct process_config;

/* Opens a pair of the devpts below `root_fd`, sizes it, and binds the slave on /dev/console. */
int terminal_open(const struct setup *setup, int root_fd, int *master, struct error *error);

/* The same for exec, in a namespace whose root is the container's; no /dev/console. */
int terminal_open_here(const struct process_config *process, int *master, struct error *error);

/* Makes the slave the controlling terminal and descriptors 0, 1 and 2 of this process; needs a fresh session. */
int terminal_become_stdio(int master, const struct process_config *process, struct error *error);

/* Connects to a console socket by path. */
int terminal_connect(const char *path, int *out, struct error *error);

/* Sends the master over a connected console socket. */
int terminal_send(int socket_fd, int master, struct error *error);

/*
 * Accompanies a child in the foreground until `pidfd` tells its end: forwards signals, and with a master (else -1)
 * copies between it and this process's terminal. The caller has blocked the signals with terminal_block_signals().
 */
int terminal_accompany(int master, int pidfd, struct error *error);

/* Blocks what is to be forwarded, so that nothing is lost between create and the loop above. */
void terminal_block_signals(void);

#endif
