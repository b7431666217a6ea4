/*
 * The life of a monitor: become a daemon, create the container, tell the agent, wait for `start`, carry its output, write
 * down how it ended, clean up. One process, one thread, one level-triggered epoll loop.
 */
#include "monitor/monitor.h"

#include "common/fd.h"
#include "monitor/fault.h"
#include "monitor/frame.h"
#include "monitor/loop.h"
#include "monitor/mounted.h"
#include "monitor/overlay.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

enum { PAGE_BYTES = 4096, STACK_BYTES = 128 * 1024, EVENTS_PER_TURN = 16, LISTEN_BACKLOG = 64, CONSOLE_RETRY_MS = 100 };

uint64_t now_ms(void)
{
    return monotonic_ns() / 1000000u;
}

uint64_t now_realtime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int signal_init(const struct monitor *m, int signal)
{
    if (m->init <= 0 || m->init_reaped) {
        errno = ESRCH;
        return -1;
    }
    if (m->init_pidfd >= 0)
        return (int)syscall(SYS_pidfd_send_signal, m->init_pidfd, signal, NULL, 0);
    /* Before Linux 5.3: as long as we have not reaped our child, its pid is nobody else's. */
    return kill(m->init, signal);
}

int exit_code_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int signal_of(int status)
{
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static uint64_t watch_tag(enum watch_kind kind, unsigned index)
{
    return (uint64_t)kind << 32 | index;
}

int watch_fd(struct monitor *m, int fd, uint32_t events, enum watch_kind kind, unsigned index)
{
    struct epoll_event event = {.events = events, .data.u64 = watch_tag(kind, index)};
    return epoll_ctl(m->epoll, EPOLL_CTL_ADD, fd, &event);
}

/*
 * With no events wanted the descriptor leaves the set: EPOLLHUP cannot be masked, and a pipe whose writers are gone while
 * its reader waits for a slow client would wake the loop without end.
 */
void rewatch_fd(struct monitor *m, int fd, uint32_t events, enum watch_kind kind, unsigned index)
{
    struct epoll_event event = {.events = events, .data.u64 = watch_tag(kind, index)};
    if (events == 0)
        (void)epoll_ctl(m->epoll, EPOLL_CTL_DEL, fd, NULL);
    else if (epoll_ctl(m->epoll, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT)
        (void)epoll_ctl(m->epoll, EPOLL_CTL_ADD, fd, &event);
}

void unwatch_fd(struct monitor *m, int *fd)
{
    if (*fd < 0)
        return;
    /* A process that inherited the open file keeps it in the set after our close (epoll(7), questions and answers). */
    (void)epoll_ctl(m->epoll, EPOLL_CTL_DEL, *fd, NULL);
    close_fd(fd);
}

/* ---- the agent's answer ---- */

static void answer_agent(struct monitor *m, const char *failure)
{
    if (m->create_answered)
        return;
    m->create_answered = true;
    if (m->options.sync_fd < 0)
        return;
    char *text = (char *)m->message; /* no message is in it between two events */
    size_t size = sizeof m->message;
    size_t at;
    if (failure == NULL) {
        at = (size_t)snprintf(text, size, "{\"ok\":true,\"pid\":%d,\"startTime\":%llu}\n", (int)m->init,
                              (unsigned long long)m->init_start);
    } else {
        at = (size_t)snprintf(text, size, "{\"ok\":false,\"error\":\"");
        json_escape(text + at, size - at - 4, failure);
        at += strlen(text + at);
        at += (size_t)snprintf(text + at, size - at, "\"}\n");
    }
    struct error ignored; /* the agent may be gone; it will find us by our directory */
    (void)write_all(m->options.sync_fd, text, at, "sync pipe", &ignored);
    close_fd(&m->options.sync_fd);
}

/* ---- set-up ---- */

static int listen_on(struct monitor *m, const char *name, int type, int *fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* unix(7): 107 bytes of path; through the descriptor of the directory its own length does not matter. */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", m->state, name);
    (void)unlinkat(m->state, name, 0);
    cleanup_fd int listener = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, LISTEN_BACKLOG) < 0)
        return fail(error, errno, "listen on %s", name);
    *fd = take_fd(&listener);
    return 0;
}

static int open_state(struct monitor *m, struct error *error)
{
    const char *path = m->options.state_directory;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return fail(error, errno, "make state directory %s", path);
    m->state = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (m->state < 0)
        return fail(error, errno, "open state directory %s", path);
    struct stat status;
    if (fstat(m->state, &status) < 0)
        return fail(error, errno, "look at state directory %s", path);
    if (status.st_uid != geteuid())
        return fail(error, EPERM, "use state directory %s, which belongs to uid %u", path, (unsigned)status.st_uid);
    if (fchmod(m->state, 0700) < 0)
        return fail(error, errno, "close state directory %s to others", path);
    return 0;
}

int make_stream(int number, bool piped, bool blocks, int *ours, int *theirs, struct error *error)
{
    int ends[2];
    if (!piped) {
        *theirs = open("/dev/null", O_RDWR | O_CLOEXEC);
        return *theirs < 0 ? fail(error, errno, "open /dev/null") : 0;
    }
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(error, errno, "make a pipe");
    *theirs = ends[number == 0 ? 0 : 1];
    *ours = ends[number == 0 ? 1 : 0];
    /* Only our end: a program that is started with a non-blocking stdout would be surprised. */
    if (!blocks && fcntl(*ours, F_SETFL, O_NONBLOCK) < 0)
        return fail(error, errno, "make a pipe non-blocking");
    return 0;
}

static int make_stdio(struct monitor *m, int theirs[3], struct error *error)
{
    int *const ours[] = {&m->in, &m->out, &m->err};
    for (int i = 0; i < 3; i++) {
        bool piped = !m->options.terminal && (i != 0 || m->options.open_stdin);
        if (make_stream(i, piped, false, ours[i], &theirs[i], error) < 0)
            return -1;
    }
    return 0;
}

/* The other end of m->pause, for the runtime. */
static int make_pause(struct monitor *m, int *theirs, struct error *error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fail(error, errno, "make a socket to the runtime");
    m->pause = pair[0];
    *theirs = pair[1];
    if (watch_fd(m, m->pause, EPOLLIN, WATCH_CREATED, 0) < 0)
        return fail(error, errno, "watch the runtime");
    return 0;
}

static int begin_create(struct monitor *m, struct error *error)
{
    char pid_path[STATE_PATH_MAX + 160], console[128];
    const char *arguments[16];
    int count = 0;
    /* Another runtime has no place to wait for us between the two: it is called twice. */
    bool run = m->options.start_at_once && strcmp(m->options.runtime, "builtin") == 0;
    snprintf(pid_path, sizeof pid_path, "%s/init.pid", m->options.state_directory);
    (void)unlinkat(m->state, "init.pid", 0);
    arguments[count++] = run ? "run" : "create";
    if (run) {
        arguments[count++] = "--detach";
        arguments[count++] = "--pause-fd";
        arguments[count++] = "3";
    }
    arguments[count++] = "--bundle";
    arguments[count++] = m->options.bundle;
    arguments[count++] = "--pid-file";
    arguments[count++] = pid_path;
    if (m->options.terminal) {
        if (console_path(m, "t", console, sizeof console, error) < 0 ||
            console_listen(m, "t", &m->console_listener, error) < 0)
            return -1;
        if (watch_fd(m, m->console_listener, EPOLLIN, WATCH_CONSOLE, 0) < 0)
            return fail(error, errno, "watch the console socket");
        arguments[count++] = "--console-socket";
        arguments[count++] = console;
    }
    arguments[count++] = m->options.id;
    arguments[count] = NULL;
    int theirs[4] = {-1, -1, -1, -1};
    int result = make_stdio(m, theirs, error);
    if (result == 0 && run)
        result = make_pause(m, &theirs[3], error);
    if (result == 0 && verb_start(m, run ? VERB_RUN : VERB_CREATE, arguments, theirs, error) == NULL)
        result = -1;
    for (int i = 0; i < 4; i++)
        close_fd(&theirs[i]);
    return result;
}

static int set_up(struct monitor *m, struct error *error)
{
    if (open_state(m, error) < 0 || read_boot_id(m->boot_id, error) < 0)
        return -1;
    /* A file of an earlier life in the same directory would be read as this one's. */
    (void)unlinkat(m->state, "exit.json", 0);
    (void)unlinkat(m->state, "state.json", 0);
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    /* The agent's service manager may stop us as part of the agent; the container goes on until it is told otherwise. */
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    if (m->epoll < 0 || sigprocmask(SIG_SETMASK, &signals, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
        signal(SIGXFSZ, SIG_IGN) == SIG_ERR) /* a limit on file size is a full disk, and no reason to die */
        return fail(error, errno, "prepare the event loop");
    m->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (m->signals < 0 || watch_fd(m, m->signals, EPOLLIN, WATCH_SIGNALS, 0) < 0)
        return fail(error, errno, "watch for signals");
    if (listen_on(m, "ctl", SOCK_SEQPACKET, &m->listen_packet, error) < 0 ||
        listen_on(m, "stream", SOCK_STREAM, &m->listen_stream, error) < 0)
        return -1;
    if (watch_fd(m, m->listen_packet, EPOLLIN, WATCH_LISTEN_PACKET, 0) < 0 ||
        watch_fd(m, m->listen_stream, EPOLLIN, WATCH_LISTEN_STREAM, 0) < 0)
        return fail(error, errno, "watch the control sockets");
    char own_log[STATE_PATH_MAX + 16];
    struct log_options log = m->options.log;
    const char *path = m->options.log_path;
    if (path == NULL) {
        /* No log is kept, but attach clients still read from one: two small files of which only the last bytes matter. */
        snprintf(own_log, sizeof own_log, "%s/output", m->options.state_directory);
        path = own_log;
        log = (struct log_options){.format = LOG_FRAMED, .max_size = 1 << 20, .max_files = 1};
        m->options.log = log;
        (void)unlinkat(m->state, "output", 0);
    }
    if (logfile_open(&m->log, path, &log, error) < 0)
        return -1;
    if (!m->options.host_mounts && enter_private_mounts(error) < 0)
        return -1;
    if (m->options.overlay.target != NULL && overlay_mount(&m->options.overlay, error) < 0)
        return -1;
    fault_point("before-create");
    return begin_create(m, error);
}

/* ---- the container's output ---- */

static void watch_output(struct monitor *m)
{
    if (m->out >= 0)
        (void)watch_fd(m, m->out, EPOLLIN, WATCH_OUTPUT, FRAME_STDOUT);
    if (m->err >= 0)
        (void)watch_fd(m, m->err, EPOLLIN, WATCH_OUTPUT, FRAME_STDERR);
}

/* The clock, a little later than for the last frame; one that was set back by more than a second is followed. */
static uint64_t frame_time(struct monitor *m)
{
    uint64_t now = now_realtime_ns();
    if (now <= m->frame_ns && m->frame_ns - now < 1000000000u)
        now = m->frame_ns + 1;
    m->frame_ns = now;
    return now;
}

/* Reads one chunk; false when there is nothing now. */
static bool read_output(struct monitor *m, uint8_t stream)
{
    int *fd = stream == FRAME_STDOUT ? &m->out : &m->err;
    uint8_t *chunk = m->chunk + CHUNK_HEADROOM;
    if (*fd < 0)
        return false;
    ssize_t got = TEMP_FAILURE_RETRY(read(*fd, chunk, CHUNK_BYTES));
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got < 0 && errno == EIO && m->options.terminal && !m->init_reaped) {
        /* pty(7): no process has the terminal open at the moment; one may open it again. */
        rewatch_fd(m, *fd, 0, WATCH_OUTPUT, stream);
        m->console_hung_up = true;
        m->console_retry_ms = now_ms() + CONSOLE_RETRY_MS;
        return false;
    }
    if (got <= 0) {
        unwatch_fd(m, fd);
        return false;
    }
    uint64_t now = frame_time(m);
    logfile_write(&m->log, stream, now, chunk, (size_t)got);
    connections_live(m, stream, now, chunk, (size_t)got);
    return true;
}

/* ---- phases ---- */

static void release_descriptors(struct monitor *m)
{
    unwatch_fd(m, &m->out);
    unwatch_fd(m, &m->err);
    unwatch_fd(m, &m->in);
    unwatch_fd(m, &m->console_listener);
    unwatch_fd(m, &m->pause); /* who waits there is not to go on */
}

static void begin_delete(struct monitor *m)
{
    struct error ignored = {0};
    const char *arguments[] = {"delete", "--force", m->options.id, NULL};
    cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    m->delete_done = null < 0 || verb_start(m, VERB_DELETE, arguments, (const int[4]){null, null, null, -1}, &ignored) == NULL;
}

/* Nothing was created: tell the agent why, and leave no trace. */
static void give_up(struct monitor *m, const char *why)
{
    answer_agent(m, why);
    release_descriptors(m);
    m->phase = PHASE_ENDING;
    m->exit_written = false;
    m->delete_done = true;
    m->linger_deadline_ms = 0;
    (void)unlinkat(m->state, "ctl", 0);
    (void)unlinkat(m->state, "stream", 0);
    unwatch_fd(m, &m->listen_packet);
    unwatch_fd(m, &m->listen_stream);
}

/* While the runtime waits for us, what it created is its child; then it is ours, since we are the reaper of orphans. */
static int adopt_init(struct monitor *m, pid_t creator, struct error *error)
{
    pid_t parent;
    if (read_pid_file(m->state, "init.pid", &m->init, error) < 0)
        return -1;
    m->init_pidfd = (int)syscall(SYS_pidfd_open, m->init, 0);
    if (m->init_pidfd < 0 && errno != ENOSYS)
        return fail(error, errno, "open the container's first process %d", (int)m->init);
    /* Opened first, looked at afterwards: a child of ours that is not reaped cannot have been replaced in between. */
    if (process_identity(m->init, &m->init_start, &parent, error) < 0)
        return -1;
    if (parent != creator)
        return fail(error, ECHILD, "adopt process %d, whose parent is %d", (int)m->init, (int)parent);
    if (cgroups_of(m->init, &m->cgroups, error) < 0 || oom_watch(&m->cgroups, &m->oom_fd, error) < 0)
        return -1;
    if (m->oom_fd >= 0 && watch_fd(m, m->oom_fd, EPOLLIN, WATCH_OOM, 0) < 0)
        return fail(error, errno, "watch for memory shortage");
    m->oom_base = oom_kills(&m->cgroups);
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)m->init);
    /* With the mount namespace held, the kernel tells of the end before it takes the namespace down (0.4 ms sooner). */
    m->mount_pin = open(path, O_RDONLY | O_CLOEXEC);
    return record_state(m, error);
}

/* Whole pages of a range, whose content nobody needs any more. */
static void give_back(void *from, void *to)
{
    uintptr_t first = ((uintptr_t)from + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    uintptr_t last = (uintptr_t)to & ~(uintptr_t)(PAGE_BYTES - 1);
    if (first < last)
        (void)madvise((void *)first, last - first, MADV_DONTNEED); /* ENOMEM: parts of it were never mapped */
}

/*
 * A container runs for weeks, its start takes milliseconds: what the start needed of stack and buffers is given back, a
 * third of the monitor's own memory. The stack below this frame is free; the margin covers the red zone and our callees.
 */
static void shrink(struct monitor *m)
{
    char *frame = __builtin_frame_address(0);
    give_back(frame - STACK_BYTES, frame - PAGE_BYTES);
    give_back(m->message, m->message + sizeof m->message);
    give_back(m->chunk, m->chunk + sizeof m->chunk);
}

static void init_ended(struct monitor *m, int status)
{
    m->init_reaped = true;
    m->exit_status = status;
    m->exited_ns = now_realtime_ns();
    fault_point("init-ended");
    if (m->phase == PHASE_CREATING)
        return; /* the runtime's own end follows and tells why */
    m->phase = PHASE_DRAINING;
    m->drain_deadline_ms = now_ms() + DRAIN_MS;
    if (m->console_hung_up)
        unwatch_fd(m, &m->out);
}

/* The end of a start that nobody asked for separately. */
static void started_at_once(struct monitor *m, const char *failure)
{
    if (m->create_answered)
        return; /* given up before */
    if (failure != NULL) {
        m->failure = strdup(failure);
        int status;
        if (m->init_reaped)
            return;
        (void)signal_init(m, SIGKILL);
        /* The runtime, whose child it was, may have reaped it. */
        pid_t reaped = waitpid(m->init, &status, WNOHANG);
        if (reaped != 0)
            init_ended(m, reaped < 0 ? 127 << 8 : status);
        return;
    }
    if (m->phase == PHASE_STARTING)
        m->phase = PHASE_RUNNING;
    fault_point("started");
    fault_point("before-answer");
    answer_agent(m, NULL);
    fault_point("after-answer");
    shrink(m);
}

static void start_at_once(struct monitor *m)
{
    struct error error = {0};
    m->phase = PHASE_STARTING;
    if (m->pause >= 0) {
        /* If it is gone, its end says why. */
        (void)!send(m->pause, "s", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        unwatch_fd(m, &m->pause);
        return;
    }
    const char *arguments[] = {"start", m->options.id, NULL};
    cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        fail(&error, errno, "open /dev/null");
    if (null < 0 || verb_start(m, VERB_START, arguments, (const int[4]){null, null, null, -1}, &error) == NULL)
        started_at_once(m, error.text);
}

static void created(struct monitor *m, const char *failure, pid_t creator)
{
    struct error error = {0};
    if (m->console_listener >= 0) {
        /* The terminal was sent before the runtime ended, so it is there by now. */
        if (failure == NULL && m->out < 0 && console_accept(m->console_listener, &m->out, &error) < 0)
            failure = error.text;
        unwatch_fd(m, &m->console_listener);
        (void)unlinkat(m->state, "t", 0);
    }
    if (failure != NULL) {
        give_up(m, failure);
        return;
    }
    if (m->options.terminal)
        m->in = fcntl(m->out, F_DUPFD_CLOEXEC, 3);
    if (adopt_init(m, creator, &error) < 0) {
        begin_delete(m);
        give_up(m, error.text);
        m->delete_done = !verbs_running(m, VERB_DELETE);
        return;
    }
    (void)unlinkat(m->state, "init.pid", 0);
    if (m->in >= 0)
        (void)watch_fd(m, m->in, 0, WATCH_STDIN, 0);
    watch_output(m);
    if (m->options.start_at_once) {
        start_at_once(m);
        return;
    }
    m->phase = PHASE_CREATED;
    m->created_deadline_ms = now_ms() + 1000ull * m->options.created_seconds;
    fault_point("before-answer");
    answer_agent(m, NULL);
    fault_point("after-answer");
}

static void write_exit(struct monitor *m)
{
    struct error error = {0};
    uint64_t kills = oom_kills(&m->cgroups);
    if (kills > m->oom_base && kills - m->oom_base > m->oom_count)
        m->oom_count = kills - m->oom_base;
    if (m->log.fd >= 0 && logfile_end(&m->log) > 0)
        (void)fdatasync(m->log.fd);
    /* A full disk: keep trying for a while, since the exit status is the one thing that nobody else knows. */
    for (int attempt = 0; record_exit(m, &error) < 0 && attempt < 50; attempt++) {
        struct timespec pause = {.tv_nsec = 100000000};
        nanosleep(&pause, NULL);
    }
    m->exit_written = true;
}

static void end(struct monitor *m)
{
    release_descriptors(m);
    m->phase = PHASE_ENDING;
    write_exit(m);
    connections_tell_exit(m);
    /* What is cleared up from here on is nothing that a client has to wait for. */
    connections_end_whole(m);
    cgroups_kill(&m->cgroups, SIGKILL);
    close_fd(&m->mount_pin);
    unwatch_fd(m, &m->oom_fd);
    m->linger_deadline_ms = now_ms() + LINGER_MS;
    m->delete_done = true;
    if (m->options.auto_cleanup)
        begin_delete(m);
}

void verb_finished(struct monitor *m, const struct verb *verb, const char *failure)
{
    struct connection *c = connection_alive(m, verb->connection, verb->connection_generation);
    switch (verb->kind) {
    case VERB_CREATE:
        created(m, failure, getpid());
        return;
    case VERB_RUN:
        if (m->phase == PHASE_CREATING)
            created(m, failure != NULL ? failure : "the runtime ended before it had created anything", 0);
        else
            started_at_once(m, failure);
        return;
    case VERB_START:
        if (m->options.start_at_once && verb->connection < 0) {
            started_at_once(m, failure);
            return;
        }
        if (m->phase == PHASE_STARTING)
            m->phase = PHASE_RUNNING;
        fault_point("started");
        if (c != NULL)
            connection_answer(m, c, verb->tag, failure, failure != NULL ? EINVAL : 0);
        if (failure != NULL && !m->init_reaped)
            (void)signal_init(m, SIGKILL);
        shrink(m);
        return;
    case VERB_EXEC:
        exec_started(m, &m->execs[verb->exec], failure);
        return;
    case VERB_DELETE:
        m->delete_done = true;
        return;
    case VERB_NONE:
        return;
    }
}

/* ---- the loop ---- */

static void reap(struct monitor *m)
{
    struct signalfd_siginfo info;
    while (read(m->signals, &info, sizeof info) == (ssize_t)sizeof info)
        continue;
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0)
            return;
        if (pid == m->init && !m->init_reaped) {
            init_ended(m, status);
        } else if (!verb_reaped(m, pid, status) && !exec_reaped(m, pid, status)) {
            /* An orphan of the container, or a program of exec whose pid is not known yet. */
            m->strays[m->stray_next % STRAYS_MAX].pid = pid;
            m->strays[m->stray_next % STRAYS_MAX].status = status;
            m->stray_next++;
        }
        if (!verbs_running(m, VERB_NONE))
            memset(m->strays, 0, sizeof m->strays);
    }
}

static void take_oom(struct monitor *m)
{
    uint8_t event[4096];
    while (read(m->oom_fd, event, sizeof event) > 0)
        continue;
    uint64_t kills = oom_kills(&m->cgroups);
    uint64_t count = kills > m->oom_base ? kills - m->oom_base : 0;
    if (count <= m->oom_count)
        return; /* inotify tells of every change, an eventfd also of the removal of the group */
    m->oom_count = count;
    connections_tell_oom(m);
}

/* The runtime has created the container and waits, or has ended; then its end tells. */
static void hear_runtime(struct monitor *m)
{
    char byte;
    if (m->pause < 0)
        return;
    if (TEMP_FAILURE_RETRY(recv(m->pause, &byte, 1, MSG_DONTWAIT)) != 1) {
        unwatch_fd(m, &m->pause);
        return;
    }
    for (unsigned i = 0; i < VERBS_MAX; i++)
        if (m->verbs[i].kind == VERB_RUN && m->phase == PHASE_CREATING)
            created(m, NULL, m->verbs[i].pid);
}

static void dispatch(struct monitor *m, uint64_t tag, uint32_t events)
{
    unsigned index = (unsigned)tag;
    switch ((enum watch_kind)(tag >> 32)) {
    case WATCH_SIGNALS:
        reap(m);
        return;
    case WATCH_LISTEN_PACKET:
        connections_accept(m, false);
        return;
    case WATCH_LISTEN_STREAM:
        connections_accept(m, true);
        return;
    case WATCH_CONSOLE: {
        struct error error = {0};
        if (m->console_listener >= 0 && m->out < 0)
            (void)console_accept(m->console_listener, &m->out, &error); /* without it the runtime fails and says why */
        if (m->console_listener >= 0)
            rewatch_fd(m, m->console_listener, 0, WATCH_CONSOLE, 0);
        return;
    }
    case WATCH_CREATED:
        hear_runtime(m);
        return;
    case WATCH_OUTPUT:
        read_output(m, (uint8_t)index);
        return;
    case WATCH_STDIN:
        if (m->in >= 0)
            rewatch_fd(m, m->in, 0, WATCH_STDIN, 0);
        connections_unblock_stdin(m, -1);
        return;
    case WATCH_OOM:
        if (m->oom_fd >= 0)
            take_oom(m);
        return;
    case WATCH_CONNECTION:
        connection_ready(m, index, events);
        return;
    case WATCH_EXEC_CONSOLE:
        exec_console(m, index);
        return;
    case WATCH_EXEC_OUT:
        exec_output(m, index, false);
        return;
    case WATCH_EXEC_ERR:
        exec_output(m, index, true);
        return;
    case WATCH_EXEC_STDIN:
        if (m->execs[index].in >= 0)
            rewatch_fd(m, m->execs[index].in, 0, WATCH_EXEC_STDIN, index);
        connections_unblock_stdin(m, (int)index);
        return;
    }
}

static void sooner(uint64_t *deadline, uint64_t other)
{
    if (other < *deadline)
        *deadline = other;
}

static int patience_ms(const struct monitor *m)
{
    if (m->pump_again)
        return 0;
    uint64_t deadline = UINT64_MAX, now = now_ms();
    if (m->phase == PHASE_CREATED)
        sooner(&deadline, m->created_deadline_ms);
    if (m->phase == PHASE_DRAINING)
        sooner(&deadline, m->drain_deadline_ms);
    if (m->phase == PHASE_ENDING)
        sooner(&deadline, m->linger_deadline_ms);
    if (m->console_hung_up)
        sooner(&deadline, m->console_retry_ms);
    for (unsigned i = 0; i < VERBS_MAX; i++)
        if (m->verbs[i].kind != VERB_NONE)
            sooner(&deadline, m->verbs[i].deadline_ms);
    for (unsigned i = 0; i < EXECS_MAX; i++)
        if (m->execs[i].used && m->execs[i].exited)
            sooner(&deadline, m->execs[i].drain_deadline_ms);
    if (deadline == UINT64_MAX)
        return -1;
    return deadline <= now ? 0 : deadline - now > 60000 ? 60000 : (int)(deadline - now);
}

static void tick(struct monitor *m)
{
    uint64_t now = now_ms();
    verbs_expire(m, now);
    execs_expire(m, now);
    if (m->console_hung_up && now >= m->console_retry_ms && m->out >= 0) {
        m->console_hung_up = false;
        rewatch_fd(m, m->out, EPOLLIN, WATCH_OUTPUT, FRAME_STDOUT);
    }
    if (m->phase == PHASE_CREATED && now >= m->created_deadline_ms) {
        /* An agent that holds a connection is alive and means to start it; one that died does not. */
        if (connections_open(m) > 0)
            m->created_deadline_ms = now + 1000;
        else
            (void)signal_init(m, SIGKILL);
    }
    if (m->phase == PHASE_DRAINING) {
        bool open = m->out >= 0 || m->err >= 0;
        if (open && now >= m->drain_deadline_ms) {
            /* Something inherited the pipes. What is in them by now is taken, bounded; the rest is not ours to wait for. */
            for (unsigned i = 0; i < DRAIN_CHUNKS && (read_output(m, FRAME_STDOUT) || read_output(m, FRAME_STDERR)); i++)
                continue;
            open = false;
        }
        /* The answer to `start` goes out before the exit. */
        if (!open && !verbs_running(m, VERB_START) && !verbs_running(m, VERB_RUN))
            end(m);
    }
}

/* Whether the last thing has been done. */
static bool over(struct monitor *m)
{
    if (m->phase != PHASE_ENDING || !m->delete_done || verbs_running(m, VERB_NONE))
        return false;
    uint64_t now = now_ms();
    /* Told that the container runs, the agent comes to wait for its end, however soon that was. */
    if (m->options.start_at_once && !m->met && m->failure == NULL && now < m->linger_deadline_ms)
        return false;
    return now >= m->linger_deadline_ms || (!connections_behind(m) && !execs_unfinished(m));
}

static void run(struct monitor *m)
{
    while (!over(m)) {
        struct epoll_event events[EVENTS_PER_TURN];
        int count = epoll_wait(m->epoll, events, EVENTS_PER_TURN, patience_ms(m));
        for (int i = 0; i < count; i++)
            dispatch(m, events[i].data.u64, events[i].events);
        connections_pump(m);
        if (m->phase == PHASE_ENDING)
            connections_end_whole(m);
        tick(m);
    }
}

static void leave(struct monitor *m)
{
    connections_end(m);
    unwatch_fd(m, &m->listen_packet);
    unwatch_fd(m, &m->listen_stream);
    (void)unlinkat(m->state, "ctl", 0);
    (void)unlinkat(m->state, "stream", 0);
    if (m->options.log_path == NULL)
        (void)unlinkat(m->state, "output", 0);
    logfile_close(&m->log);
    /* The agent sees the end of its connections last, when nothing of the container is left. */
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        if (m->connections[i].fd >= 0)
            connection_close(m, &m->connections[i]);
    if (m->failure != NULL)
        answer_agent(m, m->failure);
    free(m->failure);
}

/* ---- becoming a daemon ---- */

static void lower_oom_score(struct monitor *m)
{
    snprintf(m->inherited_oom_score, sizeof m->inherited_oom_score, "0");
    cleanup_fd int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, m->inherited_oom_score, sizeof m->inherited_oom_score - 1);
    if (got > 0)
        m->inherited_oom_score[strcspn(m->inherited_oom_score, "\n")] = '\0';
    /* Best effort: it needs CAP_SYS_RESOURCE. */
    ssize_t ignored = write(fd, "-999", 4);
    (void)ignored;
}

/* Only the sync pipe survives of what the agent had open; standard streams lead nowhere. */
static int close_inherited(struct monitor *m, struct error *error)
{
    cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        return fail(error, errno, "open /dev/null");
    if (m->options.sync_fd >= 0) {
        int high = fcntl(m->options.sync_fd, F_DUPFD_CLOEXEC, 3);
        if (high < 0)
            return fail(error, errno, "take the sync pipe");
        if (high != 3 && dup3(high, 3, O_CLOEXEC) < 0)
            return fail(error, errno, "take the sync pipe");
        m->options.sync_fd = 3;
    }
    unsigned first = m->options.sync_fd >= 0 ? 4 : 3;
    (void)take_fd(&null); /* closed with the others */
    if (syscall(SYS_close_range, first, ~0u, 0u) < 0)
        return fail(error, errno, "close inherited descriptors");
    return 0;
}

static int become_daemon(struct monitor *m, struct error *error)
{
    if (setsid() < 0 && errno != EPERM)
        return fail(error, errno, "start a session");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return fail(error, errno, "become the reaper of orphans");
    /* CVE-2016-9962: nobody but root may look into a process that shares files with a container. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(error, errno, "refuse to be traced");
    (void)prctl(PR_SET_NAME, "isolate-monitor", 0, 0, 0);
    umask(0077);
    if (chdir("/") < 0)
        return fail(error, errno, "go to /");
    lower_oom_score(m);
    return close_inherited(m, error);
}

int monitor_main(int argc, char **argv)
{
    /* Large, mostly never touched, and zero at the start: untouched pages cost nothing. */
    static struct monitor monitor;
    struct monitor *m = &monitor;
    struct error error = {0};
    if (argc > 1 && strcmp(argv[1], "mounted") == 0)
        return mounted_main(argc - 1, argv + 1);
    m->state = m->epoll = m->signals = m->listen_packet = m->listen_stream = m->console_listener = -1;
    m->pause = m->out = m->err = m->in = m->init_pidfd = m->mount_pin = m->oom_fd = -1;
    m->log.fd = m->log.previous_fd = m->log.directory = -1;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        m->connections[i].fd = m->connections[i].exec = -1;
    if (monitor_parse_options(argc, argv, &m->options, &error) < 0) {
        fprintf(stderr, "isolate monitor: Cannot %s\n", error.text);
        return 2;
    }
    pid_t child = m->options.stay ? 0 : fork();
    if (child < 0) {
        fprintf(stderr, "isolate monitor: Cannot fork: %s\n", strerror(errno));
        return 1;
    }
    if (child > 0)
        return 0; /* the agent reaps this process at once; what it wants to know comes through the sync pipe */
    if (become_daemon(m, &error) < 0 || set_up(m, &error) < 0)
        give_up(m, error.text);
    run(m);
    leave(m);
    return m->exit_written ? 0 : 1;
}
