#include "netplane/ruleset.h"
#include "common/fd.h"

#include <fcntl.h>
#include <nftables/libnftables.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum {
    RULESET_PRINTED_MAX = 8 * 1024 * 1024,
    RULESET_WAIT_MS = 30 * 1000, /* nft needs milliseconds; a child that stands still is ended */
};

/* From a file nft tells lines and columns of mistakes, from a buffer it does not. */
static int run_file(struct nft_ctx *nft, const char *commands)
{
    struct error error;
    cleanup_fd int fd = memfd_create("ruleset", MFD_CLOEXEC);
    if (fd < 0 || write_all(fd, commands, strlen(commands), "a ruleset", &error) < 0)
        return -1;
    return nft_run_cmd_from_filename(nft, fd_path(fd).text);
}

/* The child's answer: '+' and what was printed, or '-' and why not. */
static void answer(int fd, const char *mark, const char *text)
{
    struct error ignored; /* the parent finds out by the missing answer */
    if (write_all(fd, mark, 1, "the parent", &ignored) == 0)
        (void)write_all(fd, text, strlen(text), "the parent", &ignored);
}

static void run_commands(const struct namespace *namespace, const char *commands, int fd)
{
    struct error error;
    if (namespace_enter(namespace, &error) < 0) {
        answer(fd, "-", error.text);
        return;
    }
    struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
    if (nft == NULL || nft_ctx_buffer_output(nft) != 0 || nft_ctx_buffer_error(nft) != 0) {
        answer(fd, "-", "nftables does not start");
        return;
    }
    nft_ctx_output_set_flags(nft, NFT_CTX_OUTPUT_STATELESS | NFT_CTX_OUTPUT_TERSE | NFT_CTX_OUTPUT_NUMERIC_PROTO);
    if (run_file(nft, commands) == 0)
        answer(fd, "+", nft_ctx_get_output_buffer(nft));
    else
        answer(fd, "-", nft_ctx_get_error_buffer(nft));
}

/* All that the child says, until it closes the pipe. */
static int listen_to(int fd, struct text *out, struct error *error)
{
    char piece[16 * 1024];
    uint64_t end = monotonic_ns() + RULESET_WAIT_MS * 1000000ull;
    for (;;) {
        uint64_t now = monotonic_ns();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = now >= end ? 0 : (int)TEMP_FAILURE_RETRY(poll(&wait, 1, (int)((end - now) / 1000000) + 1));
        if (ready < 0)
            return fail(error, errno, "wait for nftables");
        if (ready == 0)
            return fail(error, ETIMEDOUT, "wait for nftables");
        ssize_t got = TEMP_FAILURE_RETRY(read(fd, piece, sizeof piece));
        if (got < 0)
            return fail(error, errno, "read what nftables says");
        if (got == 0)
            return 0;
        text_put(out, piece, (size_t)got);
        if (out->failed || out->length > RULESET_PRINTED_MAX)
            return fail(error, EMSGSIZE, "read what nftables says");
    }
}

/* The library answers with words alone; the kernel's refusal stands in them as strerror(3) says it. EINVAL: it is nft's own. */
static int errno_of(const char *said)
{
    static const char error_mark[] = "Error: ", rule_mark[] = "Could not process rule: ";
    const char *reason = strstr(said, error_mark);
    if (reason == NULL)
        return EINVAL;
    reason += sizeof error_mark - 1;
    if (strncmp(reason, rule_mark, sizeof rule_mark - 1) == 0)
        reason += sizeof rule_mark - 1;
    /* What the library itself does not find it says with a full stop or a question behind it. */
    size_t length = strcspn(reason, "\n;.");
    for (int number = 1; number < 134; number++) {
        const char *known = strerrordesc_np(number);
        if (known != NULL && strlen(known) == length && strncmp(known, reason, length) == 0)
            return number;
    }
    return EINVAL;
}

/* nft's first error, without the marks below it. */
static int fail_with(const struct text *said, struct error *error)
{
    const char *text = said->length > 1 ? said->bytes + 1 : "";
    size_t length = said->length > 1 ? said->length - 1 : 0;
    const char *mark = length > 0 ? memchr(text, '\n', length) : NULL;
    /* The name of the file says nothing. The next line is the command at fault. */
    size_t name = text[0] == '/' ? strcspn(text, ":") + 1 : 0;
    if (name < length && (mark == NULL || text + name < mark)) {
        text += name;
        length -= name;
    }
    size_t first = mark == NULL ? length : (size_t)(mark - text);
    const char *rest = mark == NULL ? "" : mark + 1;
    size_t rest_length = mark == NULL ? 0 : strcspn(rest, "\n") < length - first - 1 ? strcspn(rest, "\n") : length - first - 1;
    return fail(error, errno_of(text), "run nftables commands: %.*s%s%.*s", (int)(first < 300 ? first : 300), text,
                rest_length > 0 ? ", in: " : "", (int)(rest_length < 300 ? rest_length : 300), rest);
}

int ruleset_run(const struct namespace *namespace, const char *commands, struct text *out, struct error *error)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(error, errno, "make a pipe");
    cleanup_fd int reads = ends[0];
    cleanup_fd int writes = ends[1];
    pid_t child = fork();
    if (child < 0)
        return fail(error, errno, "start a process for nftables");
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* without it the child ends by itself, only later */
        run_commands(namespace, commands, writes);
        _exit(0);
    }
    close_fd(&writes);
    cleanup_text struct text said = {0};
    int result = listen_to(reads, &said, error);
    if (result < 0)
        (void)kill(child, SIGKILL);
    int status = 0;
    if (TEMP_FAILURE_RETRY(waitpid(child, &status, 0)) < 0)
        return fail(error, errno, "wait for the end of nftables");
    if (result < 0)
        return -1;
    if (said.length == 0)
        return fail(error, EIO, "nftables ended without an answer (status %d)", status);
    text_put(&said, "", 1);
    said.length--;
    if (said.failed)
        return fail(error, ENOMEM, "read what nftables says");
    if (said.bytes[0] != '+')
        return fail_with(&said, error);
    if (out != NULL)
        text_quote(out, said.bytes + 1, said.length - 1);
    return 0;
}
