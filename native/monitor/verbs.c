/*
 * Calls of the OCI runtime. The builtin one runs in a fork of the monitor, without an exec: what it allocates goes with it.
 * An external one is executed. Both get the same command line and neither is waited for: their end is an event.
 */
#include "monitor/loop.h"

#include "common/fd.h"
#include "monitor/monitor.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { VERB_ARGUMENTS_MAX = 40 };

static void log_name(const struct monitor *m, const struct verb *verb, char *out, size_t size)
{
    snprintf(out, size, "verb-%u.log", (unsigned)(verb - m->verbs));
}

/* In the child: nothing of the monitor's is left but the descriptors that it is given. */
static void enter_child(const struct monitor *m, const int fds[4])
{
    cleanup_fd int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0) {
        /* Best effort: without CAP_SYS_RESOURCE the monitor could not lower it either. */
        ssize_t ignored = write(score, m->inherited_oom_score, strlen(m->inherited_oom_score));
        (void)ignored;
    }
    int moved[4], count = fds[3] < 0 ? 3 : 4;
    for (int i = 0; i < count; i++)
        moved[i] = fcntl(fds[i], F_DUPFD, 16); /* out of the way of 0 to 3, wherever they came from */
    for (int i = 0; i < count; i++)
        if (moved[i] < 0 || dup2(moved[i], i) < 0)
            _exit(126);
    if (syscall(SYS_close_range, (unsigned)count, ~0u, 0u) < 0)
        for (int fd = count; fd < 4096; fd++)
            close(fd);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    umask(0022); /* what a container starts with if its process.umask is not set */
}

struct verb *verb_start(struct monitor *m, enum verb_kind kind, const char *const *arguments, const int fds[4],
                        struct error *error)
{
    struct verb *verb = NULL;
    for (unsigned i = 0; i < VERBS_MAX && verb == NULL; i++)
        if (m->verbs[i].kind == VERB_NONE)
            verb = &m->verbs[i];
    if (verb == NULL) {
        fail(error, EBUSY, "call the runtime while %d calls are under way", VERBS_MAX);
        return NULL;
    }
    char name[32], path[STATE_PATH_MAX + 32];
    log_name(m, verb, name, sizeof name);
    snprintf(path, sizeof path, "%s/%s", m->options.state_directory, name);
    (void)unlinkat(m->state, name, 0);

    const char *argv[VERB_ARGUMENTS_MAX];
    int argc = 0;
    bool builtin = strcmp(m->options.runtime, "builtin") == 0;
    if (builtin && isolate_main == NULL) {
        fail(error, ENOSYS, "use the builtin runtime: this program was linked without it");
        return NULL;
    }
    argv[argc++] = builtin ? "isolate" : m->options.runtime;
    argv[argc++] = "--root";
    argv[argc++] = m->options.runtime_root;
    argv[argc++] = "--log";
    argv[argc++] = path;
    argv[argc++] = "--log-format";
    argv[argc++] = "json";
    for (unsigned i = 0; i < m->options.runtime_argument_count; i++)
        argv[argc++] = m->options.runtime_arguments[i];
    while (*arguments != NULL && argc < VERB_ARGUMENTS_MAX - 1)
        argv[argc++] = *arguments++;
    argv[argc] = NULL;

    pid_t pid = fork();
    if (pid < 0) {
        fail(error, errno, "fork for the runtime");
        return NULL;
    }
    if (pid == 0) {
        enter_child(m, fds);
        if (builtin)
            _exit(isolate_main(argc, (char **)(uintptr_t)argv));
        execv(argv[0], (char **)(uintptr_t)argv);
        _exit(errno == ENOENT ? 127 : 126);
    }
    *verb = (struct verb){.kind = kind,
                          .pid = pid,
                          .connection = -1,
                          .exec = -1,
                          .deadline_ms = now_ms() + 1000ull * m->options.verb_seconds};
    return verb;
}

/* The last line of the runtime's log, as containerd reads it. The agent takes the `msg` out of it. */
static __attribute__((noinline)) void last_log_line(const struct monitor *m, const struct verb *verb, char *out, size_t size)
{
    char name[32], text[4096];
    log_name(m, verb, name, sizeof name);
    out[0] = '\0';
    cleanup_fd int fd = openat(m->state, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    off_t end = lseek(fd, 0, SEEK_END);
    off_t start = end > (off_t)sizeof text - 1 ? end - ((off_t)sizeof text - 1) : 0;
    ssize_t got = TEMP_FAILURE_RETRY(pread(fd, text, sizeof text - 1, start));
    while (got > 0 && (text[got - 1] == '\n' || text[got - 1] == ' '))
        got--;
    if (got <= 0)
        return;
    text[got] = '\0';
    const char *line = strrchr(text, '\n');
    snprintf(out, size, "%.*s", (int)size - 1, line == NULL ? text : line + 1);
}

bool verb_reaped(struct monitor *m, pid_t pid, int status)
{
    for (unsigned i = 0; i < VERBS_MAX; i++) {
        if (m->verbs[i].kind == VERB_NONE || m->verbs[i].pid != pid)
            continue;
        struct verb verb = m->verbs[i];
        char *failure = (char *)m->chunk; /* nothing is in it between two events, and no answer is built in it */
        const size_t failure_size = 4096;
        failure[0] = '\0';
        bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        if (failed) {
            last_log_line(m, &m->verbs[i], failure, failure_size);
            if (failure[0] == '\0')
                snprintf(failure, failure_size, "the runtime ended with %s %d and wrote no reason",
                         WIFEXITED(status) ? "exit code" : "signal",
                         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        }
        char name[32];
        log_name(m, &m->verbs[i], name, sizeof name);
        (void)unlinkat(m->state, name, 0);
        m->verbs[i].kind = VERB_NONE;
        verb_finished(m, &verb, failed ? failure : NULL);
        return true;
    }
    return false;
}

bool verbs_running(const struct monitor *m, enum verb_kind kind)
{
    for (unsigned i = 0; i < VERBS_MAX; i++)
        if (m->verbs[i].kind != VERB_NONE && (kind == VERB_NONE || m->verbs[i].kind == kind))
            return true;
    return false;
}

void verbs_expire(struct monitor *m, uint64_t now)
{
    for (unsigned i = 0; i < VERBS_MAX; i++)
        if (m->verbs[i].kind != VERB_NONE && now >= m->verbs[i].deadline_ms) {
            (void)kill(m->verbs[i].pid, SIGKILL); /* our own unreaped child: the pid is still its */
            m->verbs[i].deadline_ms = now + 1000;
        }
}
