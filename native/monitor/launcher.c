/*
 * The launcher: an agent of a hundred megabytes takes milliseconds to fork, during which it does nothing else; this process
 * takes a tenth of one. One poll loop: requests from standard input, answers of monitors to standard output.
 */
#include "monitor/launch.h"

#include "common/fd.h"
#include "monitor/loop.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum {
    UNDER_WAY_MAX = 256,
    ANSWER_BYTES = 4096,
    /* More than a monitor's own patience with a runtime that creates and one that starts (monitor/options.c). */
    START_MS_MAX = 300 * 1000,
};

/* A monitor that has not said yet whether it made its container. */
struct under_way {
    uint32_t tag;
    int sync_fd;
    int pid_fd; /* -1: it has ended already */
    uint64_t deadline_ms;
};

struct launcher {
    const char *program; /* what monitors are; NULL: this very program */
    int image;           /* of this program */
    int null;
    char *request;
    size_t room, have;
    struct under_way under_way[UNDER_WAY_MAX];
    unsigned count;
};

static uint64_t patience_ms(void)
{
#ifdef ISOLATE_FAULTS
    const char *wanted = getenv("LAUNCHER_PATIENCE_MS");
    if (wanted != NULL)
        return strtoull(wanted, NULL, 10);
#endif
    return START_MS_MAX;
}

static void put_u32(uint8_t *out, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const char *in)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++)
        value |= (uint32_t)(uint8_t)in[i] << (8 * i);
    return value;
}

static int answer(uint32_t tag, const void *bytes, size_t length, struct error *error)
{
    uint8_t message[LAUNCH_HEAD_BYTES + ANSWER_BYTES];
    put_u32(message, tag);
    put_u32(message + 4, (uint32_t)length);
    memcpy(message + LAUNCH_HEAD_BYTES, bytes, length);
    return write_all(STDOUT_FILENO, message, LAUNCH_HEAD_BYTES + length, "standard output", error);
}

static int refuse(uint32_t tag, const char *text, struct error *error)
{
    if (answer(tag, text, strlen(text), error) < 0)
        return -1;
    return answer(tag, "", 0, error);
}

/* ---- the child ---- */

/* Whatever is written to the pipe and is no answer of a monitor is taken for the reason why there is none. */
static void __attribute__((noreturn)) become_monitor(const struct launcher *l, const struct launch *launch, int sync)
{
    struct error error = {0};
    /* Inherited by execve(2), and no business of a container's. */
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    if (launch_prepare(launch, &error) < 0)
        goto failed;
    /* The pipe is descriptor 3, and standard error until the monitor lets go of that: what it cannot understand it says there. */
    if (dup2(l->null, 0) < 0 || dup2(l->null, 1) < 0 || dup2(sync, 2) < 0 || (sync != 3 && dup2(sync, 3) < 0) ||
        (sync == 3 && fcntl(3, F_SETFD, 0) < 0)) {
        fail(&error, errno, "hand on the sync pipe");
        goto failed;
    }
    if (l->program != NULL)
        execv(l->program, launch->arguments);
    else
        syscall(SYS_execveat, l->image, "", launch->arguments, environ, AT_EMPTY_PATH);
    fail(&error, errno, "execute the monitor");
failed:
    (void)!write(sync, error.text, strlen(error.text));
    _exit(1);
}

static int start(struct launcher *l, uint32_t tag, char *texts, size_t length, struct error *error)
{
    static struct launch launch;
    struct error why = {0};
    int ends[2];
    if (launch_parse(texts, length, &launch, &why) < 0)
        return refuse(tag, why.text, error);
    if (pipe2(ends, O_CLOEXEC) < 0) {
        fail(&why, errno, "make a sync pipe");
        return refuse(tag, why.text, error);
    }
    cleanup_fd int reads = ends[0], writes = ends[1];
    pid_t child = fork();
    if (child == 0)
        become_monitor(l, &launch, writes);
    if (child < 0) {
        fail(&why, errno, "fork for a monitor");
        return refuse(tag, why.text, error);
    }
    l->under_way[l->count++] = (struct under_way){
        .tag = tag,
        .sync_fd = take_fd(&reads),
        .pid_fd = (int)syscall(SYS_pidfd_open, child, 0),
        .deadline_ms = now_ms() + patience_ms(),
    };
    return 0;
}

/* ---- the loop ---- */

/* Starts what is there as a whole. -1: nothing more can be understood, or nobody listens. */
static int take_requests(struct launcher *l, struct error *error)
{
    size_t done = 0;
    while (l->count < UNDER_WAY_MAX && l->have - done >= LAUNCH_HEAD_BYTES) {
        char *at = l->request + done;
        size_t length = get_u32(at);
        if (length < 4 || length > LAUNCH_BYTES_MAX)
            return fail(error, EINVAL, "take a request of %zu bytes", length);
        if (l->have - done < 4 + length)
            break;
        if (start(l, get_u32(at + 4), at + LAUNCH_HEAD_BYTES, length - 4, error) < 0)
            return -1;
        done += 4 + length;
    }
    l->have -= done;
    memmove(l->request, l->request + done, l->have);
    return 0;
}

/* 0 at the end of standard input. */
static int read_requests(struct launcher *l, struct error *error)
{
    if (l->room - l->have < 64 * 1024) {
        size_t room = l->room + (l->have < 128 * 1024 ? 256 * 1024 : l->have);
        char *larger = realloc(l->request, room);
        if (larger == NULL)
            return fail(error, ENOMEM, "take a request");
        l->request = larger;
        l->room = room;
    }
    ssize_t got = TEMP_FAILURE_RETRY(read(STDIN_FILENO, l->request + l->have, l->room - l->have));
    if (got < 0)
        return errno == EAGAIN ? 1 : fail(error, errno, "read standard input");
    l->have += (size_t)got;
    return got > 0;
}

static int end(struct under_way *one, struct error *error)
{
    close_fd(&one->sync_fd);
    close_fd(&one->pid_fd);
    return answer(one->tag, "", 0, error) < 0 ? -1 : 1;
}

/* Passes on what a monitor says. True when that was all. */
static int hear(struct under_way *one, struct error *error)
{
    uint8_t said[ANSWER_BYTES];
    ssize_t got = TEMP_FAILURE_RETRY(read(one->sync_fd, said, sizeof said));
    if (got > 0)
        return answer(one->tag, said, (size_t)got, error);
    return end(one, error);
}

static int hear_all(struct launcher *l, const struct pollfd *polled, struct error *error)
{
    for (unsigned i = l->count; i-- > 0;) {
        if (polled[i].revents == 0)
            continue;
        int over = hear(&l->under_way[i], error);
        if (over < 0)
            return -1;
        if (over > 0)
            l->under_way[i] = l->under_way[--l->count];
    }
    return 0;
}

/* One that hangs would keep its place for ever, and when all places are such nothing starts any more. */
static int give_up(struct launcher *l, struct error *error)
{
    uint64_t now = now_ms();
    for (unsigned i = l->count; i-- > 0;) {
        struct under_way *one = &l->under_way[i];
        if (now < one->deadline_ms)
            continue;
        if (one->pid_fd >= 0)
            (void)syscall(SYS_pidfd_send_signal, one->pid_fd, SIGKILL, NULL, 0); /* it may just have ended */
        if (end(one, error) < 0)
            return -1;
        *one = l->under_way[--l->count];
    }
    return 0;
}

static int wait_ms(const struct launcher *l)
{
    uint64_t first = UINT64_MAX, now = now_ms();
    for (unsigned i = 0; i < l->count; i++)
        first = l->under_way[i].deadline_ms < first ? l->under_way[i].deadline_ms : first;
    return first == UINT64_MAX ? -1 : first <= now ? 0 : (int)(first - now);
}

static int serve(struct launcher *l, struct error *error)
{
    for (;;) {
        struct pollfd polled[UNDER_WAY_MAX + 1];
        for (unsigned i = 0; i < l->count; i++)
            polled[i] = (struct pollfd){.fd = l->under_way[i].sync_fd, .events = POLLIN};
        /* With too many under way the others wait in the pipe. */
        unsigned input = l->count;
        polled[input] = (struct pollfd){.fd = l->count < UNDER_WAY_MAX ? STDIN_FILENO : -1, .events = POLLIN};
        if (TEMP_FAILURE_RETRY(poll(polled, input + 1, wait_ms(l))) < 0)
            return fail(error, errno, "wait for requests");
        if (hear_all(l, polled, error) < 0 || give_up(l, error) < 0)
            return -1;
        if (polled[input].revents != 0) {
            int more = read_requests(l, error);
            if (more <= 0)
                return more;
        }
        if (take_requests(l, error) < 0)
            return -1;
    }
}

static int tell_image(const struct launcher *l, struct error *error)
{
    char path[64];
    int seals = fcntl(l->image, F_GET_SEALS);
    /* Where the image is no memory file, the program on disk is as good. */
    bool sealed = l->program == NULL && seals >= 0 && (seals & F_SEAL_WRITE) != 0;
    int length = sealed ? snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), l->image) : 0;
    if (length > 0 && answer(0, path, (size_t)length, error) < 0)
        return -1;
    return answer(0, "", 0, error);
}

/* Out of the way of the descriptors that a monitor begins with. */
static int open_high(const char *path, int flags)
{
    cleanup_fd int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10);
}

int launcher_run(const char *program, struct error *error)
{
    static struct launcher launcher;
    struct launcher *l = &launcher;
    umask(0022);
    /* Nobody waits for a monitor: what it has to say comes through its pipe. */
    if (signal(SIGCHLD, SIG_IGN) == SIG_ERR || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return fail(error, errno, "let monitors end unheard");
    /* Left open for as long as the process lives: its number is part of the path. */
    l->program = program;
    l->image = open_high("/proc/self/exe", O_RDONLY);
    l->null = open_high("/dev/null", O_RDWR);
    if (l->image < 0 || l->null < 0)
        return fail(error, errno, "open the image of this program");
    if (tell_image(l, error) < 0)
        return -1;
    return serve(l, error);
}
