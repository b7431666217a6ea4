#include "monitor/loop.h"

#include "common/fd.h"
#include "monitor/fault.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

void json_escape(char *out, size_t size, const char *text)
{
    size_t at = 0;
    for (; *text != '\0' && at + 7 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            out[at++] = '\\';
            out[at++] = (char)c;
        } else if (c < 0x20 || c >= 0x7f) {
            /* Bytes that are not ASCII may be a cut or broken sequence; as Latin-1 they are at least valid. */
            at += (size_t)snprintf(out + at, size - at, "\\u%04x", c);
        } else {
            out[at++] = (char)c;
        }
    }
    out[at] = '\0';
}

/* `{"memory":"/sys/fs/cgroup/memory/a", ...}`; version 2 has the empty name. */
static size_t cgroups_text(const struct cgroups *groups, char *out, size_t size)
{
    size_t at = 0;
    char escaped[CGROUP_PATH_MAX * 2];
    at += (size_t)snprintf(out, size, "{");
    for (unsigned i = 0; i < groups->count && at + sizeof escaped + 80 < size; i++) {
        json_escape(escaped, sizeof escaped, groups->place[i].path);
        at += (size_t)snprintf(out + at, size - at, "%s\"%s\":\"%s\"", i == 0 ? "" : ",", groups->place[i].controllers,
                               escaped);
    }
    at += (size_t)snprintf(out + at, size - at, "}");
    return at;
}

int record_state(struct monitor *m, struct error *error)
{
    uint64_t own_start = 0;
    pid_t parent;
    if (process_identity(getpid(), &own_start, &parent, error) < 0)
        return -1;
    char *text = (char *)m->message; /* no message is in it between two events */
    size_t size = sizeof m->message;
    size_t at = (size_t)snprintf(text, size,
                                 "{\"version\":1,\"id\":\"%s\",\"pid\":%d,\"startTime\":%llu,\"bootId\":\"%s\","
                                 "\"monitorPid\":%d,\"monitorStartTime\":%llu,\"createdAt\":%llu,\"cgroups\":",
                                 m->options.id, (int)m->init, (unsigned long long)m->init_start, m->boot_id,
                                 (int)getpid(), (unsigned long long)own_start, (unsigned long long)now_realtime_ns());
    at += cgroups_text(&m->cgroups, text + at, size - at);
    at += (size_t)snprintf(text + at, size - at, "}\n");
    fault_point("before-state");
    /* Not synced: after a crash of the machine it would tell of another boot, and be ignored. That saves a start two disk writes. */
    return replace_file_at(m->state, "state.json", text, at, 0600, false, error);
}

int record_exit(struct monitor *m, struct error *error)
{
    char text[512];
    int length = snprintf(text, sizeof text,
                          "{\"pid\":%d,\"startTime\":%llu,\"code\":%d,\"signal\":%d,\"oomKilled\":%s,"
                          "\"finishedAt\":%llu,\"logBytes\":%llu,\"dropped\":%llu}\n",
                          (int)m->init, (unsigned long long)m->init_start, exit_code_of(m->exit_status),
                          signal_of(m->exit_status), m->oom_count > 0 ? "true" : "false",
                          (unsigned long long)m->exited_ns, (unsigned long long)m->log.written,
                          (unsigned long long)m->log.dropped);
    fault_point("before-exit-json");
    int result = replace_file_at(m->state, "exit.json", text, (size_t)length, 0600, true, error);
    fault_point("after-exit-json");
    return result;
}

int record_exec(struct monitor *m, const struct exec_session *e, struct error *error)
{
    cleanup_fd int directory = openat(m->state, "exec", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (directory < 0)
        return fail(error, errno, "open the folder of exec results");
    char name[CTL_ID_MAX + 8], text[128];
    snprintf(name, sizeof name, "%s.json", e->id);
    int length = snprintf(text, sizeof text, "{\"pid\":%d,\"code\":%d,\"signal\":%d,\"finishedAt\":%llu}\n",
                          (int)e->pid, exit_code_of(e->status), signal_of(e->status),
                          (unsigned long long)now_realtime_ns());
    return replace_file_at(directory, name, text, (size_t)length, 0600, false, error);
}

size_t stats_text(struct monitor *m, char *out, size_t size)
{
    unsigned execs = 0;
    for (unsigned i = 0; i < EXECS_MAX; i++)
        execs += m->execs[i].used;
    size_t at = (size_t)snprintf(out, size,
                                 "{\"pid\":%d,\"logBytes\":%llu,\"dropped\":%llu,\"oomKills\":%llu,\"execs\":%u,"
                                 "\"connections\":%u,\"cgroups\":",
                                 (int)m->init, (unsigned long long)m->log.written, (unsigned long long)m->log.dropped,
                                 (unsigned long long)m->oom_count, execs, connections_open(m));
    at += cgroups_text(&m->cgroups, out + at, size - at);
    at += (size_t)snprintf(out + at, size - at, "}");
    return at;
}
