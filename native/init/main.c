/*
 * init: the first process of a container that wants one (`Init`). It starts the command, passes signals on to it, reaps
 * orphans, and ends as the command ended. Usage: docker-init -- COMMAND ARGUMENT...
 * A process with pid 1 has no default signal actions (pid_namespaces(7)), which is why programs that expect them need this.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* What stops a program that uses the terminal from the background; ignored while it is handed over. */
static void ignore_terminal_stops(void (*action)(int))
{
    signal(SIGTTOU, action);
    signal(SIGTTIN, action);
}

static void run(char **command, const sigset_t *before)
{
    /* A process group of its own: Ctrl-C of a terminal reaches the command once, not once more through us. */
    setpgid(0, 0);
    if (isatty(STDIN_FILENO))
        (void)tcsetpgrp(STDIN_FILENO, getpgrp());
    ignore_terminal_stops(SIG_DFL);
    sigprocmask(SIG_SETMASK, before, NULL);
    execvp(command[0], command);
    int code = errno == ENOENT ? 127 : 126;
    fprintf(stderr, "init: Cannot run %s: %s\n", command[0], strerror(errno));
    _exit(code);
}

/* Reaps all that ended; returns the command's exit code once it is among them, else -1. */
static int reap(pid_t command)
{
    int result = -1;
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0)
            return result;
        if (pid == command)
            result = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

int main(int argc, char **argv)
{
    int first = argc > 1 && strcmp(argv[1], "--") == 0 ? 2 : 1;
    if (first >= argc) {
        fprintf(stderr, "usage: init -- COMMAND ARGUMENT...\n");
        return 2;
    }
    sigset_t all, before;
    sigfillset(&all);
    /* Faults of our own must end us, not be queued. */
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    sigdelset(&all, SIGTTOU);
    sigdelset(&all, SIGTTIN);
    if (sigprocmask(SIG_SETMASK, &all, &before) < 0) {
        perror("init: Cannot block signals");
        return 1;
    }
    ignore_terminal_stops(SIG_IGN);
    pid_t command = fork();
    if (command < 0) {
        perror("init: Cannot fork");
        return 1;
    }
    if (command == 0)
        run(argv + first, &before);
    for (;;) {
        siginfo_t info;
        int signal_number = sigwaitinfo(&all, &info);
        if (signal_number < 0)
            continue;
        if (signal_number != SIGCHLD) {
            (void)kill(command, signal_number); /* ESRCH: it ended, and SIGCHLD follows */
            continue;
        }
        int code = reap(command);
        if (code >= 0)
            return code;
    }
}
