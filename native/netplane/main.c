/*
 * netplane: programs links, addresses, routes, neighbours, rules, nftables and tracked connections of any network namespace
 * for the daemon that started it. Requests on standard input, answers and events on standard output: u32 little-endian length and JSON
 * (docs/design/netplane.md). It ends when its input ends; what it did stays.
 */
#include "common/fd.h"
#include "netplane/events.h"
#include "netplane/run.h"

#include <endian.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum {
    HEADER_BYTES = 4,
    INPUT_BYTES_KEPT = 128 * 1024,
    EVENTS_TOGETHER = 16,
    TEXT_BYTES_KEPT = 256 * 1024,
    GATHERED_BYTES_MAX = 32 * 1024,
    GATHERED_NS_MAX = 1000 * 1000,
};

struct input {
    uint8_t *bytes;
    size_t length;
    size_t room;
};

static struct runner runner;
static struct text answered; /* its memory serves the next answer, too */
/* Frames that are still to be written: who asked several things at once is woken once, and not in between. */
static struct text gathered;
static uint64_t gathered_since_ns;

static int write_gathered(struct error *error)
{
    if (gathered.failed)
        return fail(error, ENOMEM, "build an answer");
    int result = write_all(STDOUT_FILENO, gathered.bytes, gathered.length, "standard output", error);
    gathered.length = 0;
    if (gathered.room > TEXT_BYTES_KEPT)
        text_release(&gathered);
    return result;
}

static int put_frame(const struct text *text, struct error *error)
{
    if (text->failed)
        return fail(error, ENOMEM, "build an answer");
    uint32_t header = htole32((uint32_t)text->length);
    if (gathered.length == 0)
        gathered_since_ns = monotonic_ns();
    text_put(&gathered, (const char *)&header, sizeof header);
    if (gathered.length + text->length <= GATHERED_BYTES_MAX) {
        text_put(&gathered, text->bytes, text->length);
        return 0;
    }
    /* A large one is not copied. */
    return write_gathered(error) < 0 ? -1 : write_all(STDOUT_FILENO, text->bytes, text->length, "standard output", error);
}

static int tell_events(struct error *error)
{
    cleanup_text struct text text = {0};
    while (watches_next(&runner.namespaces, monotonic_ns(), &text)) {
        if (put_frame(&text, error) < 0)
            return -1;
        text.length = 0;
    }
    return write_gathered(error);
}

static int read_events(struct error *error)
{
    struct epoll_event events[EVENTS_TOGETHER];
    int count = (int)TEMP_FAILURE_RETRY(epoll_wait(runner.epoll_fd, events, EVENTS_TOGETHER, 0));
    if (count < 0)
        return fail(error, errno, "wait for events");
    for (int i = 0; i < count; i++) {
        struct namespace *namespace = watch_find(&runner.namespaces, events[i].data.u64);
        if (namespace != NULL)
            watch_read(&runner.namespaces, namespace, 0);
    }
    return 0;
}

static int answer(uint8_t *request, size_t length, struct error *error)
{
    answered.length = 0;
    answered.failed = false;
    run_request(&runner, (char *)request, length, &answered);
    int result = put_frame(&answered, error);
    if (answered.room > TEXT_BYTES_KEPT)
        text_release(&answered);
    /* The first does not wait for long. */
    return result == 0 && gathered.length > 0 && monotonic_ns() - gathered_since_ns > GATHERED_NS_MAX ? write_gathered(error) : result;
}

/* Room for the frame that has begun, or for any. */
static int make_room(struct input *input, struct error *error)
{
    size_t wanted = INPUT_BYTES_KEPT;
    if (input->length >= HEADER_BYTES) {
        uint32_t length;
        memcpy(&length, input->bytes, sizeof length);
        length = le32toh(length);
        /* What follows could not be told from its inside, so there is no going on. */
        if (length > REQUEST_BYTES_MAX)
            return fail(error, 0, "a request of %u bytes: at most %d are accepted", length, REQUEST_BYTES_MAX);
        wanted = length + HEADER_BYTES > wanted ? length + HEADER_BYTES : wanted;
    }
    if (wanted == input->room || input->length > wanted)
        return 0;
    uint8_t *grown = realloc(input->bytes, wanted);
    if (grown == NULL)
        return fail(error, ENOMEM, "read a request");
    input->bytes = grown;
    input->room = wanted;
    return 0;
}

/* Answers the whole frames that have come. */
static int answer_frames(struct input *input, struct error *error)
{
    size_t at = 0;
    while (input->length - at >= HEADER_BYTES) {
        uint32_t length;
        memcpy(&length, input->bytes + at, sizeof length);
        length = le32toh(length);
        if (input->length - at - HEADER_BYTES < length)
            break;
        if (answer(input->bytes + at + HEADER_BYTES, length, error) < 0)
            return -1;
        at += HEADER_BYTES + length;
    }
    input->length -= at;
    if (at > 0 && input->length > 0)
        memmove(input->bytes, input->bytes + at, input->length);
    return write_gathered(error) < 0 ? -1 : make_room(input, error);
}

/* 1 at the end of the input. */
static int read_input(struct input *input, struct error *error)
{
    ssize_t got = TEMP_FAILURE_RETRY(read(STDIN_FILENO, input->bytes + input->length, input->room - input->length));
    if (got < 0)
        return errno == EAGAIN ? 0 : fail(error, errno, "read standard input");
    if (got == 0)
        return input->length == 0 ? 1 : fail(error, 0, "standard input ended inside a request");
    input->length += (size_t)got;
    return answer_frames(input, error);
}

/* Until the next event is due, or something can be made in advance. */
static int wait_ms(void)
{
    int due = watches_wait_ms(&runner.namespaces, monotonic_ns());
    int idle = namespaces_spare_wait_ms(&runner.namespaces);
    return idle >= 0 && (due < 0 || due > idle) ? idle : due;
}

static int serve(struct input *input, struct error *error)
{
    if (make_room(input, error) < 0)
        return -1;
    for (;;) {
        struct pollfd waits[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = runner.epoll_fd, .events = POLLIN}};
        int ready = poll(waits, 2, wait_ms());
        if (ready < 0 && errno != EINTR)
            return fail(error, errno, "wait for requests");
        struct error ignored; /* whoever asks for a namespace hears why there is none */
        if (ready == 0)
            (void)namespaces_spare(&runner.namespaces, &ignored);
        if (ready > 0 && waits[1].revents != 0 && read_events(error) < 0)
            return -1;
        if (tell_events(error) < 0)
            return -1;
        int result = ready > 0 && waits[0].revents != 0 ? read_input(input, error) : 0;
        if (result != 0)
            return result < 0 ? -1 : 0;
    }
}

/* A namespace takes up to six descriptors, a port one. */
static void raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* with less, EMFILE names the operation that wanted more */
    }
}

/* The daemon may hand in descriptors that do not block; here nothing is to be done while one blocks. */
static void make_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK) != 0)
        (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc != 1) {
        fprintf(stderr, "netplane: it takes no arguments; requests come on standard input (docs/design/netplane.md)\n");
        return 2;
    }
    struct error error = {0};
    struct input input = {0};
    /* What requests are made of is small and goes soon: lists that are joined again and again cost more than they spare. */
    (void)mallopt(M_MXFAST, 0);
    (void)signal(SIGPIPE, SIG_IGN);
    /* These come to all of a terminal or a unit at once; the daemon still has work for us then, and its end ends us. */
    static const int others[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        (void)signal(others[i], SIG_IGN);
    raise_limits();
    make_blocking(STDIN_FILENO);
    make_blocking(STDOUT_FILENO);
    runner.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int result = runner.epoll_fd < 0 ? fail(&error, errno, "wait for events") : namespaces_init(&runner.namespaces, &error);
    if (result == 0)
        result = serve(&input, &error);
    namespaces_release(&runner.namespaces);
    out_release(&runner.route);
    out_release(&runner.elements);
    close_fd(&runner.epoll_fd);
    text_release(&answered);
    text_release(&gathered);
    free(input.bytes);
    /* A daemon that is gone needs no message. */
    if (result < 0 && error.number != EPIPE)
        fprintf(stderr, "netplane: %s\n", error.text);
    return result < 0 && error.number != EPIPE ? 1 : 0;
}
