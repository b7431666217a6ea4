/*
 * Traffic for `bench -- net`; every program of it ends by itself or with its parent.
 *
 *   net-load serve PORT                          prints "ready"; a connection that begins with '?' is answered, one that
 *                                                begins with anything else is read to its end and told how much that was
 *   net-load stream ADDRESS PORT SECONDS         prints Mbit/s as the other end counted them
 *   net-load datagrams ADDRESS PORT SECONDS      prints the nanoseconds of processor that its own packets of 64 bytes take on
 *                                                their way, all of which this end pays where the way is on this machine:
 *                                                the quarter of the short rounds that took least
 *   net-load connect ADDRESS PORT SECONDS COUNT  COUNT at a time: connect, ask, read, close; prints connections per second
 *   net-load await ADDRESS PORT SECONDS          prints "refused" when nobody is there, and, when somebody then answers, the
 *                                                microseconds since 1970
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FILES 1024
#define PROCESSORS 64

/* The server's answer to a stream. */
struct counted {
    uint64_t bytes;
    uint64_t processor_ns;
};

static char buffer[256 * 1024];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Of this process, the kernel's work for it included. */
static uint64_t processor_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Packets that nobody's call handles are handled by ksoftirqd, one a processor. */
static int softirq_threads(char paths[PROCESSORS][64])
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int count = 0;

    while (processes != NULL && count < PROCESSORS && (entry = readdir(processes)) != NULL) {
        char path[64], name[32] = "";
        FILE *file;
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid <= 0)
            continue;
        snprintf(path, sizeof path, "/proc/%ld/comm", pid);
        if ((file = fopen(path, "r")) == NULL)
            continue;
        if (fgets(name, sizeof name, file) != NULL && strncmp(name, "ksoftirqd/", 10) == 0)
            snprintf(paths[count++], 64, "/proc/%ld/schedstat", pid);
        fclose(file);
    }
    if (processes != NULL)
        closedir(processes);
    return count;
}

static uint64_t softirq_ns(char paths[PROCESSORS][64], int count)
{
    uint64_t sum = 0, one = 0;
    for (int at = 0; at < count; at++) {
        FILE *file = fopen(paths[at], "r");
        if (file == NULL)
            continue;
        if (fscanf(file, "%" SCNu64, &one) == 1)
            sum += one;
        fclose(file);
    }
    return sum;
}

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static struct sockaddr_in address_of(const char *text, const char *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
        exit(2);
    return address;
}

static void watch(int poll, int operation, int fd, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.fd = fd };
    epoll_ctl(poll, operation, fd, &event);
}

/* A process of its own, which ends with its parent. A question is answered, so that trackers see both directions. */
static int serve_datagrams(const char *port)
{
    struct sockaddr_in own = address_of("0.0.0.0", port), from;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0)
        return failed("serve datagrams");
    if (fork() != 0)
        return close(fd);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        socklen_t size = sizeof from;
        if (recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &size) > 0 && buffer[0] == '?')
            sendto(fd, "!", 1, 0, (struct sockaddr *)&from, size);
    }
}

static int ascending(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return difference < 0 ? -1 : difference > 0;
}

static int datagrams(const char *address, const char *port, double seconds)
{
    enum { DATAGRAMS = 200, ROUNDS = 4096 };
    static double took[ROUNDS];
    struct sockaddr_in there = address_of(address, port);
    struct timeval patience = { .tv_sec = 3 };
    int fd = socket(AF_INET, SOCK_DGRAM, 0), count = 0;
    double started;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&there, sizeof there) < 0 || send(fd, "?", 1, 0) != 1 || recv(fd, buffer, 1, 0) != 1)
        return failed("answer");
    memset(buffer, 'x', sizeof buffer);
    started = now();
    do {
        uint64_t before = processor_ns();
        for (int at = 0; at < DATAGRAMS; at++)
            if (send(fd, buffer, 64, 0) != 64)
                return failed("send");
        took[count++] = (double)(processor_ns() - before) / DATAGRAMS;
    } while (count < ROUNDS && now() - started < seconds);
    qsort(took, (size_t)count, sizeof *took, ascending);
    printf("%.1f\n", took[count / 4]);
    return 0;
}

static int serve(const char *port)
{
    static uint64_t counts[FILES], began[FILES];
    struct sockaddr_in own = address_of("0.0.0.0", port);
    struct epoll_event events[64];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0), on = 1;

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) < 0 || listen(listener, 4096) < 0)
        return failed("serve");
    watch(poll, EPOLL_CTL_ADD, listener, EPOLLIN);
    if (serve_datagrams(port) != 0)
        return 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poll, events, 64, -1);
        for (int at = 0; at < count; at++) {
            int fd = events[at].data.fd;
            ssize_t got;
            if (fd == listener) {
                int news;
                while ((news = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (news >= FILES) {
                        close(news);
                        continue;
                    }
                    setsockopt(news, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    counts[news] = 0;
                    watch(poll, EPOLL_CTL_ADD, news, EPOLLIN);
                }
                continue;
            }
            got = read(fd, buffer, sizeof buffer);
            if (got > 0 && counts[fd] == 0 && buffer[0] == '?') {
                if (write(fd, "!", 1) != 1)
                    close(fd);
            } else if (got > 0) {
                if (counts[fd] == 0)
                    began[fd] = processor_ns();
                counts[fd] += (uint64_t)got;
            } else if (got == 0 || errno != EAGAIN) {
                struct counted answer = { counts[fd], processor_ns() - began[fd] };
                if (counts[fd] > 0 && write(fd, &answer, sizeof answer) < 0)
                    failed("count");
                close(fd);
            }
        }
    }
}

static int stream(const char *address, const char *port, double seconds)
{
    struct sockaddr_in there = address_of(address, port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct counted counted;
    char threads[PROCESSORS][64];
    int thread_count = softirq_threads(threads);
    uint64_t spent;
    double started, took;

    memset(buffer, 'x', sizeof buffer);
    if (connect(fd, (struct sockaddr *)&there, sizeof there) < 0)
        return failed("connect");
    spent = processor_ns() + softirq_ns(threads, thread_count);
    started = now();
    while (now() - started < seconds)
        if (write(fd, buffer, sizeof buffer) < 0)
            return failed("write");
    shutdown(fd, SHUT_WR);
    if (read(fd, &counted, sizeof counted) != sizeof counted)
        return failed("count");
    took = now() - started;
    spent = processor_ns() + softirq_ns(threads, thread_count) - spent + counted.processor_ns;
    printf("%.1f %.1f\n", (double)counted.bytes * 8 / took / 1e6, (double)spent / (double)counted.bytes * 1024);
    return 0;
}

static void open_one(int poll, const struct sockaddr_in *there, char *stages)
{
    /* Reset at the end: no port waits, so they do not run out. */
    struct linger linger = { 1, 0 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

    if (fd < 0 || fd >= FILES)
        exit(failed("socket"));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connect(fd, (const struct sockaddr *)there, sizeof *there);
    stages[fd] = 0;
    watch(poll, EPOLL_CTL_ADD, fd, EPOLLOUT);
}

static int connections(const char *address, const char *port, double seconds, int parallel)
{
    static char stages[FILES];
    struct sockaddr_in there = address_of(address, port);
    struct epoll_event events[64];
    int poll = epoll_create1(0), open = 0;
    long answered = 0;
    double started = now(), ended = started;

    for (; open < parallel; open++)
        open_one(poll, &there, stages);
    while (open > 0) {
        int count = epoll_wait(poll, events, 64, 3000);
        if (count <= 0) {
            fputs("no answer in 3 s\n", stderr);
            return 1;
        }
        for (int at = 0; at < count; at++) {
            int fd = events[at].data.fd, error = 0;
            socklen_t size = sizeof error;
            if (stages[fd] == 0) {
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
                if (error != 0 || write(fd, "?", 1) != 1) {
                    errno = error != 0 ? error : errno;
                    return failed("connect");
                }
                stages[fd] = 1;
                watch(poll, EPOLL_CTL_MOD, fd, EPOLLIN);
                continue;
            }
            if (read(fd, buffer, 1) != 1)
                return failed("answer");
            answered++;
            close(fd);
            open--;
            ended = now();
            if (ended - started < seconds) {
                open_one(poll, &there, stages);
                open++;
            }
        }
    }
    printf("%.1f\n", (double)answered / (ended - started));
    return 0;
}

static int answers(const struct sockaddr_in *there)
{
    struct timeval patience = { .tv_usec = 200000 };
    struct linger linger = { 1, 0 };
    int fd = socket(AF_INET, SOCK_STREAM, 0), answered;

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    answered = connect(fd, (const struct sockaddr *)there, sizeof *there) == 0 && write(fd, "?", 1) == 1 && read(fd, buffer, 1) == 1;
    close(fd);
    return answered;
}

static int await(const char *address, const char *port, double seconds)
{
    struct sockaddr_in there = address_of(address, port);
    struct timespec pause = { .tv_nsec = 2000000 }, time;
    double started = now();
    int refused = 0;

    for (; now() - started < seconds; nanosleep(&pause, NULL)) {
        if (!answers(&there)) {
            if (!refused) {
                puts("refused");
                fflush(stdout);
            }
            refused = 1;
        } else if (refused) {
            clock_gettime(CLOCK_REALTIME, &time);
            printf("%" PRIu64 "\n", (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000);
            return 0;
        }
    }
    fputs("no answer\n", stderr);
    return 1;
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (count == 3 && strcmp(words[1], "serve") == 0)
        return serve(words[2]);
    if (count == 5 && strcmp(words[1], "stream") == 0)
        return stream(words[2], words[3], atof(words[4]));
    if (count == 5 && strcmp(words[1], "datagrams") == 0)
        return datagrams(words[2], words[3], atof(words[4]));
    if (count == 5 && strcmp(words[1], "await") == 0)
        return await(words[2], words[3], atof(words[4]));
    if (count == 6 && strcmp(words[1], "connect") == 0)
        return connections(words[2], words[3], atof(words[4]), atoi(words[5]));
    return 2;
}
