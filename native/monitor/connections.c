/*
 * The control sockets: requests, attach clients, relayed exec sessions.
 *
 * Attach clients read from the log file. Each has a position in it and gets what follows when its socket has room, so a
 * client that reads slowly, or is stopped, costs no memory and holds up nobody; one that falls out of the files at hand is
 * let go with a reason (`block`) or skips ahead and is told how many bytes it missed (`drop`).
 *
 * Connections are edge-triggered. A message is looked at with MSG_PEEK and taken only when it is there as a whole, so no
 * connection needs a buffer of its own.
 */
#include "monitor/loop.h"

#include "common/fd.h"
#include "monitor/frame.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static unsigned index_of(const struct monitor *m, const struct connection *c)
{
    return (unsigned)(c - m->connections);
}

struct connection *connection_alive(struct monitor *m, int index, unsigned generation)
{
    if (index < 0 || m->connections[index].fd < 0 || m->connections[index].generation != generation)
        return NULL;
    return &m->connections[index];
}

unsigned connections_open(const struct monitor *m)
{
    unsigned open = 0;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        open += m->connections[i].fd >= 0;
    return open;
}

void connection_close(struct monitor *m, struct connection *c)
{
    unwatch_fd(m, &c->fd);
    c->generation++;
    if (c->exec >= 0)
        exec_resume(m, c); /* its output now goes nowhere, but it must still be read */
    c->exec = -1;
}

bool connection_writable(const struct connection *c)
{
    struct pollfd poll_fd = {.fd = c->fd, .events = POLLOUT};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLOUT) != 0;
}

void connection_send(struct monitor *m, struct connection *c, const struct ctl_writer *w, const int *fds, size_t count)
{
    uint8_t prefix[4];
    for (unsigned i = 0; i < 4; i++)
        prefix[i] = (uint8_t)(w->length >> (8 * i));
    struct iovec vector[2] = {{.iov_base = prefix, .iov_len = sizeof prefix},
                              {.iov_base = w->out, .iov_len = w->length}};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = c->framed ? vector : vector + 1, .msg_iovlen = c->framed ? 2 : 1};
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    ssize_t sent = TEMP_FAILURE_RETRY(sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
    /*
     * A unix socket takes up to half its buffer as a whole. Large messages go out only when the socket is writable, so a
     * refusal here is a client that does not read the answers to its own requests: it is let go.
     */
    if (w->overflow || sent != (ssize_t)(w->length + (c->framed ? sizeof prefix : 0)))
        connection_close(m, c);
}

void connection_answer(struct monitor *m, struct connection *c, uint16_t tag, const char *failure, int number)
{
    uint8_t out[4352];
    struct ctl_writer w;
    if (failure == NULL) {
        ctl_begin(&w, out, sizeof out, CTL_OK, tag);
    } else {
        ctl_begin(&w, out, sizeof out, CTL_ERROR, tag);
        ctl_put(&w, (uint32_t)number, 4);
        char cut[4096];
        snprintf(cut, sizeof cut, "%s", failure);
        ctl_put_string(&w, cut);
    }
    connection_send(m, c, &w, NULL, 0);
}

void connections_accept(struct monitor *m, bool framed)
{
    cleanup_fd int fd =
        accept4(framed ? m->listen_stream : m->listen_packet, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return; /* the client is gone already, or descriptors ran out: it will see a closed or silent socket */
    struct ucred peer;
    socklen_t length = sizeof peer;
    /* The directory is 0700 already; this holds even if a descriptor of the socket was handed on (CVE-2020-15257). */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 || (peer.uid != 0 && peer.uid != geteuid()))
        return;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &m->connections[i];
        if (c->fd >= 0)
            continue;
        unsigned generation = c->generation;
        *c = (struct connection){.fd = -1, .generation = generation, .framed = framed, .exec = -1};
        if (watch_fd(m, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, WATCH_CONNECTION, i) == 0) {
            c->fd = take_fd(&fd);
            m->met = true;
        }
        return;
    }
}

/* Sends attach output while there is some and the socket has room. */
static void pump(struct monitor *m, struct connection *c)
{
    for (unsigned chunks = 0; c->fd >= 0 && c->attach_output && c->position < logfile_end(&m->log); chunks++) {
        if (!connection_writable(c))
            return;
        if (chunks == 8) { /* the others come first; this one is not forgotten, though it will see no new edge */
            m->pump_again = true;
            return;
        }
        struct ctl_writer w;
        uint64_t end = logfile_end(&m->log);
        bool behind = m->options.drop && end - c->position > DROP_BEHIND_BYTES;
        uint8_t *payload = m->chunk + CTL_HEADER_BYTES;
        int64_t got =
            behind ? -1 : logfile_read(&m->log, c->position, payload, sizeof m->chunk - CTL_HEADER_BYTES);
        if (got < 0 && !m->options.drop) {
            ctl_begin(&w, m->chunk, sizeof m->chunk, CTL_END, c->attach_tag);
            ctl_put_string(&w, "too slow: the log was rotated past this reader");
            connection_send(m, c, &w, NULL, 0);
            c->attach_output = false;
            return;
        }
        if (got < 0) {
            c->lost += end - c->position;
            c->position = end;
            continue;
        }
        bool damaged;
        size_t whole = frame_scan(payload, (size_t)got, &damaged);
        if (whole == 0 && damaged) { /* an imperfect disk: skip what is left of this file */
            c->lost += end - c->position;
            c->position = end;
            continue;
        }
        if (whole == 0)
            return;
        if (c->lost > 0) {
            uint8_t note[128];
            char text[64];
            int length = snprintf(text, sizeof text, "{\"event\":\"skipped\",\"bytes\":%llu}\n", (unsigned long long)c->lost);
            ctl_begin(&w, note, sizeof note, CTL_DATA, c->attach_tag);
            uint8_t header[FRAME_HEADER_BYTES];
            frame_encode(&(struct frame){.length = (uint32_t)length, .stream = FRAME_SYSTEM, .time_ns = now_realtime_ns()},
                         header);
            ctl_put_bytes(&w, header, sizeof header);
            ctl_put_bytes(&w, text, (size_t)length);
            c->lost = 0;
            connection_send(m, c, &w, NULL, 0);
            if (c->fd < 0)
                return;
        }
        ctl_begin(&w, m->chunk, sizeof m->chunk, CTL_DATA, c->attach_tag);
        w.length += whole; /* the payload is in its place already */
        c->position += whole;
        connection_send(m, c, &w, NULL, 0);
    }
}

void connections_pump(struct monitor *m)
{
    m->pump_again = false;
    if (m->options.log.format != LOG_FRAMED)
        return;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        if (m->connections[i].fd >= 0 && m->connections[i].attach_output)
            pump(m, &m->connections[i]);
}

/* `bytes` has room for both headers before it. Text logs hold no frames to catch up from: here attach is live, and a client that does not keep up is let go. */
void connections_live(struct monitor *m, uint8_t stream, uint64_t time_ns, uint8_t *bytes, size_t length)
{
    if (m->options.log.format == LOG_FRAMED)
        return;
    uint8_t *out = bytes - CTL_HEADER_BYTES - FRAME_HEADER_BYTES;
    frame_encode(&(struct frame){.length = (uint32_t)length, .stream = stream, .time_ns = time_ns},
                 out + CTL_HEADER_BYTES);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &m->connections[i];
        if (c->fd < 0 || !c->attach_output)
            continue;
        struct ctl_writer w;
        if (!connection_writable(c)) {
            if (m->options.drop) {
                c->lost += length;
                continue;
            }
            connection_close(m, c);
            continue;
        }
        ctl_begin(&w, out, CTL_HEADER_BYTES, CTL_DATA, c->attach_tag);
        w.length += FRAME_HEADER_BYTES + length; /* both are in their place already */
        connection_send(m, c, &w, NULL, 0);
    }
}

static bool is_behind(const struct monitor *m, const struct connection *c)
{
    return c->attach_output && m->options.log.format == LOG_FRAMED && c->position < logfile_end(&m->log);
}

bool connections_behind(const struct monitor *m)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        if (m->connections[i].fd >= 0 && is_behind(m, &m->connections[i]))
            return true;
    return false;
}

static void end_attach(struct monitor *m, struct connection *c, const char *reason)
{
    uint8_t out[256];
    struct ctl_writer w;
    ctl_begin(&w, out, sizeof out, CTL_END, c->attach_tag);
    ctl_put_string(&w, reason);
    c->attached = c->attach_output = false;
    connection_send(m, c, &w, NULL, 0);
}

void connections_end_whole(struct monitor *m)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &m->connections[i];
        if (c->fd >= 0 && c->attached && !is_behind(m, c))
            end_attach(m, c, "exited");
    }
}

void connections_end(struct monitor *m)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &m->connections[i];
        /* One that has not had all can read on in the log, which will not change any more. */
        if (c->fd >= 0 && c->attached)
            end_attach(m, c, is_behind(m, c) ? "behind" : "exited");
    }
}

static void tell_waiting(struct monitor *m, struct connection *c)
{
    uint8_t out[32];
    struct ctl_writer w;
    if (m->exit_written) {
        ctl_begin(&w, out, sizeof out, CTL_EXIT, c->wait_tag);
        ctl_put(&w, (uint32_t)exit_code_of(m->exit_status), 4);
        ctl_put(&w, (uint32_t)signal_of(m->exit_status), 4);
        ctl_put(&w, m->oom_count > 0, 1);
        c->waiting = false;
    } else {
        ctl_begin(&w, out, sizeof out, CTL_OOM, c->wait_tag);
        ctl_put(&w, m->oom_count, 8);
    }
    connection_send(m, c, &w, NULL, 0);
}

void connections_tell_oom(struct monitor *m)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        if (m->connections[i].fd >= 0 && m->connections[i].waiting)
            tell_waiting(m, &m->connections[i]);
}

void connections_tell_exit(struct monitor *m)
{
    connections_tell_oom(m);
}

static void answer_hello(struct monitor *m, struct connection *c, uint16_t tag)
{
    uint8_t out[128];
    struct ctl_writer w;
    struct stat status = {0};
    if (m->log.fd >= 0)
        (void)fstat(m->log.fd, &status);
    ctl_begin(&w, out, sizeof out, CTL_HELLO_OK, tag);
    ctl_put(&w, CTL_PROTOCOL, 4);
    ctl_put(&w, (uint32_t)m->init, 4);
    ctl_put(&w, m->init_start, 8);
    ctl_put_string(&w, m->boot_id);
    ctl_put(&w,
            m->phase >= PHASE_DRAINING  ? CTL_STATE_EXITED
            : m->phase == PHASE_RUNNING ? CTL_STATE_RUNNING
                                        : CTL_STATE_CREATED,
            1);
    ctl_put(&w, logfile_end(&m->log), 8);
    ctl_put(&w, (uint64_t)status.st_ino, 8);
    connection_send(m, c, &w, NULL, 0);
}

static void start_container(struct monitor *m, struct connection *c, uint16_t tag)
{
    if (m->phase != PHASE_CREATED) {
        connection_answer(m, c, tag, "the container was started before, or has ended", EINVAL);
        return;
    }
    struct error error = {0};
    cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const char *arguments[] = {"start", m->options.id, NULL};
    struct verb *verb =
        null < 0 ? NULL : verb_start(m, VERB_START, arguments, (const int[4]){null, null, null, -1}, &error);
    if (verb == NULL) {
        connection_answer(m, c, tag, error.text, error.number);
        return;
    }
    verb->connection = (int)index_of(m, c);
    verb->connection_generation = c->generation;
    verb->tag = tag;
    m->phase = PHASE_STARTING;
}

static void send_signal(struct monitor *m, struct connection *c, const struct ctl_request *request)
{
    if (m->init_reaped || m->init <= 0) {
        connection_answer(m, c, request->tag, "the container has ended", ESRCH);
        return;
    }
    if (request->signal == 0 || request->signal > 64) {
        connection_answer(m, c, request->tag, "signals go from 1 to 64", EINVAL);
        return;
    }
    if (request->all)
        cgroups_kill(&m->cgroups, (int)request->signal);
    if (signal_init(m, (int)request->signal) < 0 && errno != ESRCH) {
        connection_answer(m, c, request->tag, "the signal was refused", errno);
        return;
    }
    connection_answer(m, c, request->tag, NULL, 0);
}

static void attach(struct monitor *m, struct connection *c, const struct ctl_request *request)
{
    uint8_t out[32];
    struct ctl_writer w;
    uint64_t end = logfile_end(&m->log);
    bool live = request->offset == CTL_FROM_NOW || m->options.log.format != LOG_FRAMED;
    uint64_t oldest = m->log.previous_fd >= 0 ? m->log.previous_base : m->log.base;
    c->attached = true;
    c->attach_tag = request->tag;
    c->attach_output = (request->flags & CTL_ATTACH_OUTPUT) != 0;
    c->position = live || request->offset > end ? end : request->offset < oldest ? oldest : request->offset;
    ctl_begin(&w, out, sizeof out, CTL_ATTACHED, request->tag);
    ctl_put(&w, c->position, 8);
    connection_send(m, c, &w, NULL, 0);
    if (c->fd >= 0 && m->options.log.format == LOG_FRAMED)
        pump(m, c);
}

static void handle(struct monitor *m, struct connection *c, const struct ctl_request *request)
{
    struct error error = {0};
    switch (request->type) {
    case CTL_HELLO:
        answer_hello(m, c, request->tag);
        return;
    case CTL_START:
        start_container(m, c, request->tag);
        return;
    case CTL_KILL:
        send_signal(m, c, request);
        return;
    case CTL_RESIZE: {
        int result = m->options.terminal && m->out >= 0
                         ? console_resize(m->out, request->rows, request->columns, &error)
                         : fail(&error, ENOTTY, "resize a container without a terminal");
        connection_answer(m, c, request->tag, result < 0 ? error.text : NULL, error.number);
        return;
    }
    case CTL_ATTACH:
        attach(m, c, request);
        return;
    case CTL_EXEC:
        exec_begin(m, c, request);
        return;
    case CTL_EXEC_RESIZE: {
        struct exec_session *e = exec_by_id(m, request->id);
        int result = e != NULL && (e->flags & CTL_EXEC_TTY) != 0 && e->out >= 0
                         ? console_resize(e->out, request->rows, request->columns, &error)
                         : fail(&error, ENOENT, "resize: no such exec session with a terminal");
        connection_answer(m, c, request->tag, result < 0 ? error.text : NULL, error.number);
        return;
    }
    case CTL_EXEC_KILL: {
        struct exec_session *e = exec_by_id(m, request->id);
        /* An unreaped child of ours: the pid cannot have been given to another process. */
        int result = e != NULL && e->pid > 0 && !e->exited && request->signal <= 64
                         ? kill(e->pid, (int)request->signal)
                         : fail(&error, ESRCH, "kill: no such running exec session");
        connection_answer(m, c, request->tag, result < 0 ? "the exec session cannot be signalled" : NULL,
                          error.number != 0 ? error.number : errno);
        return;
    }
    case CTL_STATS: {
        uint8_t out[8192];
        char text[7000];
        struct ctl_writer w;
        stats_text(m, text, sizeof text);
        ctl_begin(&w, out, sizeof out, CTL_TEXT, request->tag);
        ctl_put_string(&w, text);
        connection_send(m, c, &w, NULL, 0);
        return;
    }
    case CTL_OOM_STATE: {
        uint8_t out[16];
        struct ctl_writer w;
        ctl_begin(&w, out, sizeof out, CTL_OOM, request->tag);
        ctl_put(&w, m->oom_count, 8);
        connection_send(m, c, &w, NULL, 0);
        return;
    }
    case CTL_WAIT:
        c->waiting = true;
        c->wait_tag = request->tag;
        if (m->exit_written)
            tell_waiting(m, c);
        return;
    case CTL_DETACH: {
        uint8_t out[32];
        struct ctl_writer w;
        c->attached = c->attach_output = false;
        ctl_begin(&w, out, sizeof out, CTL_END, request->tag);
        ctl_put_string(&w, "detached");
        connection_send(m, c, &w, NULL, 0);
        return;
    }
    case CTL_CLOSE_STDIN:
        if (c->exec >= 0) {
            struct exec_session *e = &m->execs[c->exec];
            if (e->generation == c->exec_generation && (e->flags & CTL_EXEC_TTY) == 0)
                unwatch_fd(m, &e->in);
        } else if (!m->options.terminal) {
            unwatch_fd(m, &m->in);
        }
        return;
    default:
        connection_answer(m, c, request->tag, "this monitor does not know that request", ENOSYS);
        return;
    }
}

/* Length of the whole message at the head of the queue, its bytes in m->message; 0: not there yet; -1: close. */
static ssize_t peek(struct monitor *m, const struct connection *c, const uint8_t **bytes)
{
    ssize_t got = TEMP_FAILURE_RETRY(recv(c->fd, m->message, sizeof m->message, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC));
    if (got < 0)
        return errno == EAGAIN ? 0 : -1;
    if (got == 0)
        return -1;
    if (!c->framed) {
        *bytes = m->message;
        return got > CTL_MESSAGE_MAX || got < CTL_HEADER_BYTES ? -1 : got;
    }
    if (got < 4)
        return 0;
    size_t length = (size_t)m->message[0] | (size_t)m->message[1] << 8 | (size_t)m->message[2] << 16 |
                    (size_t)m->message[3] << 24;
    if (length < CTL_HEADER_BYTES || length > CTL_MESSAGE_MAX)
        return -1;
    *bytes = m->message + 4;
    return (size_t)got >= length + 4 ? (ssize_t)length : 0;
}

/* Takes the message off the queue: the same bytes go to the same place, so pointers into it stay good. */
static void consume(struct monitor *m, const struct connection *c, size_t length)
{
    (void)TEMP_FAILURE_RETRY(recv(c->fd, m->message, c->framed ? length + 4 : sizeof m->message, MSG_DONTWAIT));
}

/* False when the pipe is full and the rest of the message has to wait in the socket. */
static bool feed_stdin(struct monitor *m, struct connection *c, const struct ctl_request *request)
{
    struct exec_session *e = c->exec >= 0 ? &m->execs[c->exec] : NULL;
    if (e != NULL && e->generation != c->exec_generation)
        return true;
    int *target = e != NULL ? &e->in : &m->in;
    while (*target >= 0 && c->stdin_done < request->bytes_length) {
        ssize_t written =
            TEMP_FAILURE_RETRY(write(*target, request->bytes + c->stdin_done, request->bytes_length - c->stdin_done));
        if (written < 0 && errno == EAGAIN) {
            c->stdin_blocked = true;
            rewatch_fd(m, *target, EPOLLOUT, e != NULL ? WATCH_EXEC_STDIN : WATCH_STDIN,
                       e != NULL ? (unsigned)c->exec : 0);
            return false;
        }
        if (written < 0) {
            unwatch_fd(m, target); /* the program closed its end: what is sent from now on goes nowhere */
            break;
        }
        c->stdin_done += (size_t)written;
    }
    c->stdin_done = 0;
    return true;
}

static void process(struct monitor *m, struct connection *c)
{
    unsigned generation = c->generation;
    while (c->fd >= 0 && c->generation == generation && !c->stdin_blocked) {
        const uint8_t *bytes = NULL;
        ssize_t length = peek(m, c, &bytes);
        if (length == 0)
            return;
        struct ctl_request request;
        const char *why = "";
        if (length < 0 || ctl_decode(bytes, (size_t)length, &request, &why) < 0) {
            connection_close(m, c);
            return;
        }
        /* An exec that is still starting has no stdin yet; its connection waits. */
        if ((request.type == CTL_STDIN || request.type == CTL_CLOSE_STDIN) && c->exec >= 0 &&
            m->execs[c->exec].generation == c->exec_generation && !m->execs[c->exec].started)
            return;
        if (request.type == CTL_STDIN) {
            if (!feed_stdin(m, c, &request))
                return;
            consume(m, c, (size_t)length);
            continue;
        }
        consume(m, c, (size_t)length);
        handle(m, c, &request);
    }
}

void connections_unblock_stdin(struct monitor *m, int exec)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &m->connections[i];
        if (c->fd < 0 || c->exec != exec)
            continue;
        c->stdin_blocked = false;
        process(m, c);
    }
}

void connection_ready(struct monitor *m, unsigned index, uint32_t events)
{
    struct connection *c = &m->connections[index];
    if (c->fd < 0)
        return;
    if ((events & EPOLLIN) != 0)
        process(m, c);
    if (c->fd >= 0 && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        connection_close(m, c);
        return;
    }
    if (c->fd >= 0 && (events & EPOLLOUT) != 0) {
        if (c->attach_output && m->options.log.format == LOG_FRAMED)
            pump(m, c);
        if (c->fd >= 0 && c->exec >= 0)
            exec_resume(m, c);
    }
}
