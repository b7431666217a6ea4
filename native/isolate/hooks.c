#include "isolate/hooks.h"
#include "common/fd.h"
#include "isolate/config.h"
#include "isolate/log.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

extern char **environ;

static void become_hook(const struct hook *hook, int input)
{
    static char *const empty[] = {NULL};
    char *fallback[] = {(char *)(uintptr_t)hook->path, NULL};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* so that a timeout reaches the hook's children too */
    if (dup2(input, STDIN_FILENO) < 0 || close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        _exit(127);
    execve(hook->path, hook->args == NULL || hook->args[0] == NULL ? fallback : (char *const *)(uintptr_t)hook->args,
           hook->env == NULL ? empty : (char *const *)(uintptr_t)hook->env);
    dprintf(STDERR_FILENO, "isolate: run hook %s: %s\n", hook->path, strerrordesc_np(errno));
    _exit(127);
}

/*
 * Writes the state to a socket, not a pipe: send(2) has MSG_NOSIGNAL, so a hook that does not read its stdin ends
 * neither us by SIGPIPE nor the hook by an error.
 */
static void send_state(int fd, const char *state, uint64_t deadline_ns)
{
    size_t length = strlen(state), sent = 0;
    while (sent < length) {
        ssize_t wrote = TEMP_FAILURE_RETRY(send(fd, state + sent, length - sent, MSG_NOSIGNAL | MSG_DONTWAIT));
        if (wrote > 0) {
            sent += (size_t)wrote;
            continue;
        }
        if (wrote < 0 && errno != EAGAIN)
            return; /* the hook does not want it */
        struct pollfd polled = {.fd = fd, .events = POLLOUT};
        uint64_t now = monotonic_ns();
        int wait_ms = deadline_ns == 0 ? -1 : deadline_ns <= now ? 0 : (int)((deadline_ns - now) / 1000000) + 1;
        if (TEMP_FAILURE_RETRY(poll(&polled, 1, wait_ms)) <= 0)
            return;
    }
}

static int run_hook(const struct hook *hook, const char *kind, size_t index, const char *state, struct error *error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail(error, errno, "make the standard input of %s hook %s", kind, hook->path);
    cleanup_fd int ours = pair[0], theirs = pair[1];
    uint64_t deadline_ns = hook->timeout_seconds == 0 ? 0 : monotonic_ns() + (uint64_t)hook->timeout_seconds * 1000000000u;
    pid_t pid = fork();
    if (pid < 0)
        return fail(error, errno, "fork for %s hook %s", kind, hook->path);
    if (pid == 0)
        become_hook(hook, theirs);
    cleanup_fd int pidfd = pidfd_open(pid, 0);
    close_fd(&theirs);
    send_state(ours, state, deadline_ns);
    close_fd(&ours);
    if (deadline_ns != 0 && pidfd >= 0) {
        struct pollfd polled = {.fd = pidfd, .events = POLLIN};
        uint64_t now = monotonic_ns();
        int wait_ms = deadline_ns <= now ? 0 : (int)((deadline_ns - now) / 1000000) + 1;
        if (TEMP_FAILURE_RETRY(poll(&polled, 1, wait_ms)) == 0) {
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            TEMP_FAILURE_RETRY(waitpid(pid, NULL, 0));
            return fail(error, ETIMEDOUT, "%s hook %zu (%s) did not end within %d s", kind, index, hook->path,
                        hook->timeout_seconds);
        }
    }
    int status = 0;
    if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) < 0)
        return fail(error, errno, "wait for %s hook %s", kind, hook->path);
    if (WIFSIGNALED(status))
        return fail(error, 0, "%s hook %zu (%s) was ended by signal %d", kind, index, hook->path, WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return fail(error, 0, "%s hook %zu (%s) failed with exit status %d", kind, index, hook->path, WEXITSTATUS(status));
    return 0;
}

int hooks_run(const struct hook_list *list, const char *kind, const char *state, struct error *error)
{
    for (size_t i = 0; i < list->count; i++)
        if (run_hook(&list->hooks[i], kind, i, state, error) < 0)
            return -1;
    return 0;
}

void hooks_run_tolerant(const struct hook_list *list, const char *kind, const char *state)
{
    for (size_t i = 0; i < list->count; i++) {
        struct error error;
        if (run_hook(&list->hooks[i], kind, i, state, &error) < 0)
            log_warning("%s", error.text);
    }
}
