/*
 * The state of a monitor and the pieces of its one event loop. Everything has a fixed size: after the container has
 * started the monitor allocates nothing.
 */
#ifndef MONITOR_LOOP_H
#define MONITOR_LOOP_H

#include "monitor/cgroups.h"
#include "monitor/ctl.h"
#include "monitor/options.h"
#include "monitor/process.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

enum {
    CONNECTIONS_MAX = 64,
    EXECS_MAX = 32,
    VERBS_MAX = 16,
    STRAYS_MAX = 64,
    CHUNK_BYTES = 32 * 1024,
    CHUNK_HEADROOM = 64, /* before a chunk, for the headers of an attach message */
    DRAIN_MS = 200,   /* how long output is awaited after the first process died and something inherited its pipes */
    DRAIN_CHUNKS = 64, /* what is taken after that time: twice the largest pipe an ordinary user may have (pipe(7)) */
    LINGER_MS = 2000, /* how long the end of the log is offered to attach clients that are behind */
    DROP_BEHIND_BYTES = 1 << 20,
};

enum phase {
    PHASE_CREATING,
    PHASE_CREATED,
    PHASE_STARTING,
    PHASE_RUNNING,
    PHASE_DRAINING, /* the first process is dead, its output not yet at its end */
    PHASE_ENDING,   /* exit.json is on disk; clients catch up, the runtime deletes */
};

/* Who a readiness event is for. */
enum watch_kind {
    WATCH_SIGNALS = 1,
    WATCH_LISTEN_PACKET,
    WATCH_LISTEN_STREAM,
    WATCH_CONSOLE,
    WATCH_OUTPUT, /* index: enum frame_stream */
    WATCH_STDIN,
    WATCH_OOM,
    WATCH_CONNECTION,
    WATCH_EXEC_CONSOLE,
    WATCH_EXEC_OUT,
    WATCH_EXEC_ERR,
    WATCH_EXEC_STDIN,
    WATCH_CREATED,
};

/* VERB_RUN is create and start in one call, which waits for us in between. */
enum verb_kind { VERB_NONE, VERB_CREATE, VERB_START, VERB_RUN, VERB_EXEC, VERB_DELETE };

/* A call of the OCI runtime under way. */
struct verb {
    enum verb_kind kind;
    pid_t pid;
    int connection; /* who asked, or -1 */
    unsigned connection_generation;
    uint16_t tag;
    int exec;
    uint64_t deadline_ms;
};

struct connection {
    int fd; /* -1: free */
    unsigned generation;
    bool framed; /* a stream socket: each message is preceded by its length */
    bool waiting;
    uint16_t wait_tag;
    bool attached;
    bool attach_output;
    uint16_t attach_tag;
    uint64_t position; /* of the next log byte to send */
    uint64_t lost;     /* bytes skipped, not yet told */
    int exec;          /* the exec session whose output comes here, or -1 */
    unsigned exec_generation;
    size_t stdin_done; /* bytes of the STDIN message at the head of the queue that are already in the pipe */
    bool stdin_blocked;
};

struct exec_session {
    bool used;
    unsigned generation;
    char id[CTL_ID_MAX + 1];
    uint8_t flags;
    uint16_t rows, columns;
    pid_t pid; /* 0 until the runtime has started it */
    int console_listener;
    int out, err, in; /* our ends; for a tty `out` is the master and `in` a duplicate of it */
    bool out_paused, err_paused;
    bool exited;
    bool started; /* EXEC_OK was sent */
    int status;
    uint64_t drain_deadline_ms;
    int connection;
    unsigned connection_generation;
    uint16_t tag;
};

struct monitor {
    struct monitor_options options;
    char boot_id[BOOT_ID_BYTES + 1];
    char inherited_oom_score[16];
    int state; /* the state directory */
    int epoll, signals, listen_packet, listen_stream, console_listener;
    int out, err, in;
    bool console_hung_up;
    uint64_t console_retry_ms;
    enum phase phase;
    pid_t init;
    int init_pidfd;
    int mount_pin;
    uint64_t init_start;
    bool init_reaped;
    int exit_status;
    uint64_t exited_ns; /* realtime */
    uint64_t frame_ns;  /* time of the last frame; times grow, so that a reader can go on after one of them */
    uint64_t drain_deadline_ms, linger_deadline_ms, created_deadline_ms;
    bool create_answered;
    bool met;       /* a client has been here */
    int pause;      /* to the runtime that waits between create and start, or -1 */
    char *failure;  /* of a start at once: told when nothing is left of it */
    bool exit_written;
    bool delete_done;
    bool pump_again;
    struct logfile log;
    struct cgroups cgroups;
    int oom_fd;
    uint64_t oom_base, oom_count;
    struct connection connections[CONNECTIONS_MAX];
    struct exec_session execs[EXECS_MAX];
    struct verb verbs[VERBS_MAX];
    struct {
        pid_t pid;
        int status;
    } strays[STRAYS_MAX];
    unsigned stray_next;
    uint8_t message[CTL_MESSAGE_MAX + 4];
    uint8_t chunk[2 * CHUNK_BYTES + CHUNK_HEADROOM];
};

/* monitor.c */
uint64_t now_ms(void);
uint64_t now_realtime_ns(void);
int watch_fd(struct monitor *m, int fd, uint32_t events, enum watch_kind kind, unsigned index);
void rewatch_fd(struct monitor *m, int fd, uint32_t events, enum watch_kind kind, unsigned index);
void unwatch_fd(struct monitor *m, int *fd);
/*
 * One of a program's standard streams (0 to 2): /dev/null, or a pipe, of which one end is `*ours`. `*theirs` is handed to the
 * runtime and closed by the caller, also after a failure.
 */
int make_stream(int number, bool piped, bool blocks, int *ours, int *theirs, struct error *error);
/* Signals the container's first process; -1 with errno. */
int signal_init(const struct monitor *m, int signal);
int exit_code_of(int status);
int signal_of(int status);

/* verbs.c: calls of the runtime */
/* `fds` are standard input, output and error of the call, and its descriptor 3 or -1. */
struct verb *verb_start(struct monitor *m, enum verb_kind kind, const char *const *arguments, const int fds[4],
                        struct error *error);
/* Whether the pid was a verb; if so it is finished by verb_finished(). */
bool verb_reaped(struct monitor *m, pid_t pid, int status);
bool verbs_running(const struct monitor *m, enum verb_kind kind);
void verbs_expire(struct monitor *m, uint64_t now);
/* monitor.c: what follows the end of a verb; `failure` is NULL on success. */
void verb_finished(struct monitor *m, const struct verb *verb, const char *failure);

/* console.c: terminals come over a socket from the runtime */
int console_listen(struct monitor *m, const char *name, int *fd, struct error *error);
int console_path(const struct monitor *m, const char *name, char *out, size_t size, struct error *error);
int console_accept(int listener, int *master, struct error *error);
int console_resize(int master, uint16_t rows, uint16_t columns, struct error *error);

/* connections.c */
void connections_accept(struct monitor *m, bool framed);
void connection_ready(struct monitor *m, unsigned index, uint32_t events);
void connection_close(struct monitor *m, struct connection *c);
struct connection *connection_alive(struct monitor *m, int index, unsigned generation);
bool connection_writable(const struct connection *c);
void connection_send(struct monitor *m, struct connection *c, const struct ctl_writer *w, const int *fds, size_t count);
void connection_answer(struct monitor *m, struct connection *c, uint16_t tag, const char *failure, int number);
void connections_pump(struct monitor *m);
void connections_live(struct monitor *m, uint8_t stream, uint64_t time_ns, uint8_t *bytes, size_t length);
void connections_tell_oom(struct monitor *m);
void connections_tell_exit(struct monitor *m);
void connections_unblock_stdin(struct monitor *m, int exec);
bool connections_behind(const struct monitor *m);
/* Ends those that have had all that there is; once the container has ended, that is. */
void connections_end_whole(struct monitor *m);
void connections_end(struct monitor *m);
unsigned connections_open(const struct monitor *m);

/* execs.c */
void exec_begin(struct monitor *m, struct connection *c, const struct ctl_request *request);
void exec_started(struct monitor *m, struct exec_session *e, const char *failure);
bool exec_reaped(struct monitor *m, pid_t pid, int status);
void exec_console(struct monitor *m, unsigned index);
void exec_output(struct monitor *m, unsigned index, bool is_err);
void exec_resume(struct monitor *m, struct connection *c);
void execs_expire(struct monitor *m, uint64_t now);
struct exec_session *exec_by_id(struct monitor *m, const char *id);
bool execs_unfinished(const struct monitor *m);

/* records.c: the files that outlive the monitor */
int record_state(struct monitor *m, struct error *error);
int record_exit(struct monitor *m, struct error *error);
int record_exec(struct monitor *m, const struct exec_session *e, struct error *error);
/* Puts text into a JSON string, without the quotes; cut where the room ends. */
void json_escape(char *out, size_t size, const char *text);
size_t stats_text(struct monitor *m, char *out, size_t size);

#endif
