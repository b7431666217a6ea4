/*
 * Runs programs in turn and tells how long each took from posix_spawn to its end, in microseconds:
 *   alternate ROUNDS GAP_US -- program args... -- program args...
 * "%d" in an argument becomes a number that no other run gets. One line a round, one column a program. The gap before
 * each run lets the kernel come to rest, as a node does between two containers: in a tight loop the grace periods that a
 * runtime waits for are already under way. Written in C because a spawn from Node takes as long as a start of isolate.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { PROGRAMS_MAX = 16, ARGUMENTS_MAX = 64 };

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static double run(char *const *template, int number, const posix_spawn_file_actions_t *actions)
{
    char *arguments[ARGUMENTS_MAX + 1] = {NULL};
    char texts[ARGUMENTS_MAX][512];
    for (int i = 0; template[i] != NULL && i < ARGUMENTS_MAX; i++) {
        const char *mark = strstr(template[i], "%d");
        if (mark == NULL)
            snprintf(texts[i], sizeof texts[i], "%s", template[i]);
        else
            snprintf(texts[i], sizeof texts[i], "%.*s%d%s", (int)(mark - template[i]), template[i], number, mark + 2);
        arguments[i] = texts[i];
    }
    pid_t pid;
    int status = 0;
    double started = now_us();
    if (posix_spawn(&pid, arguments[0], actions, NULL, arguments, environ) != 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    double took = now_us() - started;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? took : -1;
}

int main(int argc, char **argv)
{
    char **programs[PROGRAMS_MAX];
    int count = 0, number = 0;
    posix_spawn_file_actions_t actions;
    if (argc < 5 || posix_spawn_file_actions_init(&actions) != 0)
        return 2;
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    int rounds = atoi(argv[1]);
    unsigned gap = (unsigned)atoi(argv[2]);
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--") != 0)
            continue;
        argv[i] = NULL;
        if (count < PROGRAMS_MAX)
            programs[count++] = &argv[i + 1];
    }
    for (int round = -1; round < rounds; round++) {
        for (int i = 0; i < count; i++) {
            usleep(gap);
            double took = run(programs[i], number++, &actions);
            if (took < 0) {
                fprintf(stderr, "alternate: %s failed\n", programs[i][0]);
                return 1;
            }
            if (round >= 0)
                printf("%.1f%c", took, i == count - 1 ? '\n' : ' ');
        }
    }
    return 0;
}
