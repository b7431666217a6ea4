/*
 * Exec sessions: other programs in the running container. The runtime starts each with --detach, so that it becomes a child
 * of the monitor (the subreaper), which learns its exit code.
 */
#include "monitor/loop.h"

#include "common/fd.h"
#include "monitor/frame.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

static unsigned index_of(const struct monitor *m, const struct exec_session *e)
{
    return (unsigned)(e - m->execs);
}

struct exec_session *exec_by_id(struct monitor *m, const char *id)
{
    for (unsigned i = 0; i < EXECS_MAX; i++)
        if (m->execs[i].used && strcmp(m->execs[i].id, id) == 0)
            return &m->execs[i];
    return NULL;
}

bool execs_unfinished(const struct monitor *m)
{
    for (unsigned i = 0; i < EXECS_MAX; i++)
        if (m->execs[i].used && m->execs[i].started)
            return true;
    return false;
}

static void release(struct monitor *m, struct exec_session *e)
{
    unwatch_fd(m, &e->out);
    unwatch_fd(m, &e->err);
    unwatch_fd(m, &e->in);
    unwatch_fd(m, &e->console_listener);
    char name[32];
    snprintf(name, sizeof name, "t%u", index_of(m, e));
    (void)unlinkat(m->state, name, 0);
    e->used = false;
    e->generation++;
}

static int open_exec_folder(const struct monitor *m, struct error *error)
{
    if (mkdirat(m->state, "exec", 0700) < 0 && errno != EEXIST)
        return fail(error, errno, "make the folder of exec sessions");
    int directory = openat(m->state, "exec", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return directory < 0 ? fail(error, errno, "open the folder of exec sessions") : directory;
}

static int make_pipes(struct exec_session *e, int theirs[3], struct error *error)
{
    bool attached = (e->flags & (CTL_EXEC_RELAY | CTL_EXEC_FDS)) != 0 && (e->flags & CTL_EXEC_TTY) == 0;
    bool blocks = (e->flags & CTL_EXEC_RELAY) == 0;
    int *const ours[] = {&e->in, &e->out, &e->err};
    for (int i = 0; i < 3; i++) {
        bool piped = attached && (i != 0 || (e->flags & CTL_EXEC_STDIN) != 0);
        if (make_stream(i, piped, blocks, ours[i], &theirs[i], error) < 0)
            return -1;
    }
    return 0;
}

static int spawn(struct monitor *m, struct exec_session *e, const struct ctl_request *request, struct connection *c,
                 struct error *error)
{
    cleanup_fd int directory = open_exec_folder(m, error);
    if (directory < 0)
        return -1;
    char document[CTL_ID_MAX + 16], document_path[STATE_PATH_MAX + 160], pid_path[STATE_PATH_MAX + 160], console[128], slot[32];
    snprintf(document, sizeof document, "%s.process.json", e->id);
    if (request->bytes_length > 0 &&
        replace_file_at(directory, document, request->bytes, request->bytes_length, 0600, false, error) < 0)
        return -1;
    snprintf(document_path, sizeof document_path, "%s/exec/%s", m->options.state_directory, document);
    snprintf(slot, sizeof slot, "exec-%u.pid", index_of(m, e));
    (void)unlinkat(m->state, slot, 0);
    snprintf(pid_path, sizeof pid_path, "%s/%s", m->options.state_directory, slot);

    const char *arguments[12];
    int count = 0;
    arguments[count++] = "exec";
    arguments[count++] = "--process";
    arguments[count++] = document_path;
    arguments[count++] = "--pid-file";
    arguments[count++] = pid_path;
    arguments[count++] = "--detach";
    if ((e->flags & CTL_EXEC_TTY) != 0) {
        char name[32];
        snprintf(name, sizeof name, "t%u", index_of(m, e));
        if (console_path(m, name, console, sizeof console, error) < 0 ||
            console_listen(m, name, &e->console_listener, error) < 0 ||
            watch_fd(m, e->console_listener, EPOLLIN, WATCH_EXEC_CONSOLE, index_of(m, e)) < 0)
            return error->text[0] != '\0' ? -1 : fail(error, errno, "watch the console socket");
        arguments[count++] = "--console-socket";
        arguments[count++] = console;
    }
    arguments[count++] = m->options.id;
    arguments[count] = NULL;

    int theirs[4] = {-1, -1, -1, -1};
    struct verb *verb = NULL;
    if (make_pipes(e, theirs, error) == 0)
        verb = verb_start(m, VERB_EXEC, arguments, theirs, error);
    for (int i = 0; i < 3; i++)
        close_fd(&theirs[i]);
    if (verb == NULL)
        return -1;
    verb->exec = (int)index_of(m, e);
    e->connection = (int)(c - m->connections);
    e->connection_generation = c->generation;
    e->tag = request->tag;
    return 0;
}

void exec_begin(struct monitor *m, struct connection *c, const struct ctl_request *request)
{
    struct error error = {0};
    struct exec_session *e = NULL;
    if (m->phase != PHASE_RUNNING) {
        connection_answer(m, c, request->tag, "the container is not running", ESRCH);
        return;
    }
    if (exec_by_id(m, request->id) != NULL) {
        connection_answer(m, c, request->tag, "an exec session of this id is running", EEXIST);
        return;
    }
    for (unsigned i = 0; i < EXECS_MAX && e == NULL; i++)
        if (!m->execs[i].used)
            e = &m->execs[i];
    if (e == NULL || (c->exec >= 0 && m->execs[c->exec].generation == c->exec_generation)) {
        connection_answer(m, c, request->tag,
                          e == NULL ? "32 exec sessions are running in this container" : "this connection has an exec session",
                          EBUSY);
        return;
    }
    unsigned generation = e->generation;
    *e = (struct exec_session){.used = true,
                               .generation = generation,
                               .flags = request->flags,
                               .rows = request->rows,
                               .columns = request->columns,
                               .console_listener = -1,
                               .out = -1,
                               .err = -1,
                               .in = -1,
                               .connection = -1};
    memcpy(e->id, request->id, sizeof e->id);
    if (spawn(m, e, request, c, &error) < 0) {
        release(m, e);
        connection_answer(m, c, request->tag, error.text, error.number);
        return;
    }
    c->exec = (int)index_of(m, e);
    c->exec_generation = e->generation;
}

void exec_console(struct monitor *m, unsigned index)
{
    struct exec_session *e = &m->execs[index];
    struct error error = {0};
    int master = -1;
    if (!e->used || e->console_listener < 0)
        return;
    int result = console_accept(e->console_listener, &master, &error);
    unwatch_fd(m, &e->console_listener);
    if (result < 0)
        return; /* the runtime fails for want of a console, and its reason is what the client gets */
    e->out = master;
    if (e->rows > 0 && e->columns > 0)
        (void)console_resize(master, e->rows, e->columns, &error);
}

static void watch_output(struct monitor *m, struct exec_session *e)
{
    unsigned index = index_of(m, e);
    if ((e->flags & CTL_EXEC_RELAY) == 0)
        return;
    if ((e->flags & CTL_EXEC_TTY) != 0 && e->out >= 0)
        e->in = fcntl(e->out, F_DUPFD_CLOEXEC, 3);
    if (e->out >= 0)
        (void)watch_fd(m, e->out, EPOLLIN, WATCH_EXEC_OUT, index);
    if (e->err >= 0)
        (void)watch_fd(m, e->err, EPOLLIN, WATCH_EXEC_ERR, index);
    if (e->in >= 0)
        (void)watch_fd(m, e->in, 0, WATCH_EXEC_STDIN, index);
}

static void finish(struct monitor *m, struct exec_session *e)
{
    struct error ignored = {0};
    /* The agent reads the code from the connection; the file is for one that was not there. Losing it is not fatal. */
    (void)record_exec(m, e, &ignored);
    struct connection *c = connection_alive(m, e->connection, e->connection_generation);
    if (c != NULL) {
        uint8_t out[32];
        struct ctl_writer w;
        c->exec = -1;
        c->stdin_blocked = false;
        ctl_begin(&w, out, sizeof out, CTL_EXEC_EXIT, e->tag);
        ctl_put(&w, (uint32_t)exit_code_of(e->status), 4);
        ctl_put(&w, (uint32_t)signal_of(e->status), 4);
        connection_send(m, c, &w, NULL, 0);
    }
    release(m, e);
}

static void finish_if_over(struct monitor *m, struct exec_session *e)
{
    if (e->used && e->started && e->exited && e->out < 0 && e->err < 0)
        finish(m, e);
}

/* The runtime's call is over: the program runs (or has ended already), or there is a reason why not. */
void exec_started(struct monitor *m, struct exec_session *e, const char *failure)
{
    struct error error = {0};
    char name[CTL_ID_MAX + 32];
    snprintf(name, sizeof name, "exec/%s.process.json", e->id);
    (void)unlinkat(m->state, name, 0); /* it may hold secrets in its environment */
    snprintf(name, sizeof name, "exec-%u.pid", index_of(m, e));
    if (failure == NULL && read_pid_file(m->state, name, &e->pid, &error) < 0)
        failure = error.text;
    (void)unlinkat(m->state, name, 0);
    struct connection *c = connection_alive(m, e->connection, e->connection_generation);
    if (failure != NULL) {
        if (c != NULL) {
            c->exec = -1;
            connection_answer(m, c, e->tag, failure, EINVAL);
        }
        release(m, e);
        return;
    }
    e->started = true;
    if (c != NULL) {
        uint8_t out[16];
        struct ctl_writer w;
        int fds[3];
        size_t count = 0;
        ctl_begin(&w, out, sizeof out, CTL_EXEC_OK, e->tag);
        ctl_put(&w, (uint32_t)e->pid, 4);
        if ((e->flags & CTL_EXEC_FDS) != 0 && !c->framed) {
            if (e->in >= 0)
                fds[count++] = e->in;
            if (e->out >= 0)
                fds[count++] = e->out;
            if (e->err >= 0)
                fds[count++] = e->err;
        }
        connection_send(m, c, &w, fds, count);
    }
    if ((e->flags & CTL_EXEC_FDS) != 0) {
        close_fd(&e->in);
        close_fd(&e->out);
        close_fd(&e->err);
    }
    watch_output(m, e);
    /* It may have ended before its pid was known. */
    for (unsigned i = 0; i < STRAYS_MAX; i++)
        if (m->strays[i].pid == e->pid) {
            m->strays[i].pid = 0;
            exec_reaped(m, e->pid, m->strays[i].status);
            return;
        }
    c = connection_alive(m, e->connection, e->connection_generation);
    if (c != NULL && c->exec >= 0)
        connections_unblock_stdin(m, c->exec);
}

bool exec_reaped(struct monitor *m, pid_t pid, int status)
{
    for (unsigned i = 0; i < EXECS_MAX; i++) {
        struct exec_session *e = &m->execs[i];
        if (!e->used || e->pid != pid || e->exited)
            continue;
        e->exited = true;
        e->status = status;
        e->drain_deadline_ms = now_ms() + DRAIN_MS;
        finish_if_over(m, e);
        return true;
    }
    return false;
}

/* Passes one chunk on; false when there is nothing now, or the client has no room for it. */
static bool pass_output(struct monitor *m, struct exec_session *e, bool is_err)
{
    int *fd = is_err ? &e->err : &e->out;
    if (!e->used || *fd < 0)
        return false;
    struct connection *c = connection_alive(m, e->connection, e->connection_generation);
    if (c != NULL && !connection_writable(c)) {
        /* The client is slow: stop reading, so that the program is slowed. Nothing else is. */
        *(is_err ? &e->err_paused : &e->out_paused) = true;
        rewatch_fd(m, *fd, 0, is_err ? WATCH_EXEC_ERR : WATCH_EXEC_OUT, index_of(m, e));
        return false;
    }
    struct ctl_writer w;
    ctl_begin(&w, m->chunk, sizeof m->chunk, CTL_EXEC_DATA, e->tag);
    ctl_put(&w, is_err ? FRAME_STDERR : FRAME_STDOUT, 1);
    ssize_t got = TEMP_FAILURE_RETRY(read(*fd, m->chunk + w.length, CHUNK_BYTES));
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got <= 0) { /* end of file, or EIO of a terminal whose last user is gone */
        unwatch_fd(m, fd);
        return false;
    }
    w.length += (size_t)got;
    if (c != NULL)
        connection_send(m, c, &w, NULL, 0);
    return true;
}

void exec_output(struct monitor *m, unsigned index, bool is_err)
{
    struct exec_session *e = &m->execs[index];
    (void)pass_output(m, e, is_err);
    finish_if_over(m, e);
}

void execs_expire(struct monitor *m, uint64_t now)
{
    for (unsigned i = 0; i < EXECS_MAX; i++) {
        struct exec_session *e = &m->execs[i];
        if (!e->used || !e->started || !e->exited || now < e->drain_deadline_ms)
            continue;
        /*
         * The deadline is for heirs of the pipe that never close it, not for us: a monitor that was kept from running, or
         * by a slow disk, finds it passed while the pipe is full. What is in it by now is taken.
         */
        for (unsigned chunks = 0; chunks < DRAIN_CHUNKS && (pass_output(m, e, false) || pass_output(m, e, true)); chunks++)
            continue;
        /* A client that reads slowly gets all of the output. */
        if ((e->out_paused || e->err_paused) && connection_alive(m, e->connection, e->connection_generation) != NULL)
            e->drain_deadline_ms = now + DRAIN_MS;
        else
            finish(m, e);
    }
}

void exec_resume(struct monitor *m, struct connection *c)
{
    struct exec_session *e = &m->execs[c->exec];
    if (!e->used || e->generation != c->exec_generation)
        return;
    unsigned index = index_of(m, e);
    if (e->out_paused && e->out >= 0)
        rewatch_fd(m, e->out, EPOLLIN, WATCH_EXEC_OUT, index);
    if (e->err_paused && e->err >= 0)
        rewatch_fd(m, e->err, EPOLLIN, WATCH_EXEC_ERR, index);
    e->out_paused = e->err_paused = false;
}
