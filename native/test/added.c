/*
 * What a monitor adds to the start of a container: ISOLATE ROOT BUNDLE FOLDER ROUNDS GAP_US
 * Each round starts a container twice, in turn: with the runtime's own `create` and `start`, and through a monitor, as the
 * agent does. One line a round, two columns: microseconds until the container runs. Its end and removal are not counted.
 * ISOLATE is best the sealed memfd that the agent makes, as in the other measurements (see alternate.c on the gap).
 */
#include "monitor/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

struct setting {
    const char *isolate, *root, *bundle, *folder;
};

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

_Noreturn static void give_up(const char *act)
{
    fprintf(stderr, "added: %s: %s\n", act, strerror(errno));
    exit(1);
}

/* Runs a program to its end; `sync` becomes its descriptor 3. Standard streams lead nowhere: a container would hold a pipe. */
static void call(char *const *arguments, int sync)
{
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0)
        give_up("prepare");
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (sync >= 0)
        posix_spawn_file_actions_adddup2(&actions, sync, 3);
    pid_t pid;
    int status = 0;
    errno = posix_spawn(&pid, arguments[0], &actions, NULL, arguments, environ);
    if (errno != 0)
        give_up(arguments[0]);
    posix_spawn_file_actions_destroy(&actions);
    if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        errno = EPROTO;
        give_up(arguments[1]);
    }
}

static double start_directly(const struct setting *s, char *id)
{
    char *isolate = (char *)(size_t)s->isolate, *root = (char *)(size_t)s->root, *bundle = (char *)(size_t)s->bundle;
    double began = now_us();
    call((char *[]){isolate, "--root", root, "create", "--bundle", bundle, id, NULL}, -1);
    call((char *[]){isolate, "--root", root, "start", id, NULL}, -1);
    double took = now_us() - began;
    call((char *[]){isolate, "--root", root, "delete", "--force", id, NULL}, -1);
    return took;
}

static int dial(const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/ctl", state) >= sizeof address.sun_path)
        give_up("name the control socket");
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        give_up("reach the monitor");
    return fd;
}

static double start_monitored(const struct setting *s, char *id)
{
    char state[100], log[112], answer[4352];
    snprintf(state, sizeof state, "%.80s/%.16s", s->folder, id);
    snprintf(log, sizeof log, "%s.log", state);
    char *arguments[] = {(char *)(size_t)s->isolate, "monitor", "--id", id, "--bundle", (char *)(size_t)s->bundle,
                         "--state-dir", state, "--runtime", "builtin", "--runtime-root", (char *)(size_t)s->root,
                         "--log-path", log, "--auto-cleanup", "--sync-fd", "3", NULL};
    double began = now_us();
    int sync[2];
    if (pipe2(sync, O_CLOEXEC) < 0)
        give_up("make the sync pipe");
    call(arguments, sync[1]);
    close(sync[1]);
    ssize_t got = TEMP_FAILURE_RETRY(read(sync[0], answer, sizeof answer - 1));
    if (got <= 0 || memcmp(answer, "{\"ok\":true", 10) != 0) {
        errno = EPROTO;
        give_up("create through the monitor");
    }
    close(sync[0]);
    int ctl = dial(state);
    const unsigned char start[CTL_HEADER_BYTES] = {CTL_START, 0, 1, 0};
    if (send(ctl, start, sizeof start, MSG_NOSIGNAL) != sizeof start ||
        TEMP_FAILURE_RETRY(recv(ctl, answer, sizeof answer, 0)) < CTL_HEADER_BYTES || (unsigned char)answer[0] != CTL_OK)
        give_up("start through the monitor");
    double took = now_us() - began;
    /* The end of the connection is the monitor's last act. */
    while (TEMP_FAILURE_RETRY(recv(ctl, answer, sizeof answer, 0)) > 0)
        continue;
    close(ctl);
    return took;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    const struct setting s = {.isolate = argv[1], .root = argv[2], .bundle = argv[3], .folder = argv[4]};
    int rounds = atoi(argv[5]);
    unsigned gap = (unsigned)atoi(argv[6]);
    for (int round = -1; round < rounds; round++) {
        char id[2][16];
        snprintf(id[0], sizeof id[0], "d%d", round + 1);
        snprintf(id[1], sizeof id[1], "m%d", round + 1);
        usleep(gap);
        double directly = start_directly(&s, id[0]);
        usleep(gap);
        double monitored = start_monitored(&s, id[1]);
        if (round >= 0)
            printf("%.1f %.1f\n", directly, monitored);
    }
    return 0;
}
