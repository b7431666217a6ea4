/* list and ps: what runs. */
#include "common/fd.h"
#include "common/json.h"
#include "isolate/options.h"
#include "isolate/runtime.h"
#include "isolate/state.h"
#include "isolate/verbs.h"

#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

enum { PS_BYTES_MAX = 16 * 1024 * 1024 };

static int check_format(const char *format, struct error *error)
{
    if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return fail(error, EINVAL, "--format is table or json, not \"%s\"", format);
    return 0;
}

static void free_texts(char **texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(texts[i]);
    free(texts);
}

static int list_one(const struct invocation *invocation, const char *id, bool json, struct json_object *array,
                    struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    enum container_status status;
    struct error gone; /* a container that was deleted since the listing is not worth a failure */
    if (runtime_load(invocation->root, id, &container, &gone) < 0)
        return 0;
    if (runtime_status(&container, &status, error) < 0)
        return -1;
    if (json) {
        struct json_object *state = NULL;
        if (runtime_state(&container, status, &state, error) < 0)
            return -1;
        if (json_object_array_add(array, state) < 0) {
            json_object_put(state);
            return fail(error, ENOMEM, "list the containers");
        }
        return 0;
    }
    printf("%-24s %-11d %-11s %-35s %-31s %u\n", id, status == CONTAINER_STOPPED ? 0 : (int)container.pid,
           container_status_name(status), container.bundle, container.created, container.owner);
    return 0;
}

int verb_list(const struct invocation *invocation, struct error *error)
{
    const char *format = "table";
    bool quiet = false;
    int next = 0, result = 0;
    char **ids = NULL;
    size_t count = 0;
    const struct option_spec specs[] = {{"format", "f", OPTION_TEXT, &format}, {"quiet", "q", OPTION_FLAG, &quiet}};
    if (options_read(specs, 2, invocation->argc, invocation->argv, &next, error) < 0 || check_format(format, error) < 0)
        return -1;
    cleanup_json struct json_object *array = json_object_new_array();
    if (array == NULL)
        return fail(error, ENOMEM, "list the containers");
    result = state_list(invocation->root, &ids, &count, error);
    bool json = strcmp(format, "json") == 0;
    if (result == 0 && !quiet && !json)
        printf("%-24s %-11s %-11s %-35s %-31s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
    for (size_t i = 0; i < count && result == 0; i++) {
        if (quiet)
            puts(ids[i]);
        else
            result = list_one(invocation, ids[i], json, array, error);
    }
    free_texts(ids, count);
    if (result == 0 && json && !quiet)
        puts(json_object_to_json_string_ext(array, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    return result;
}

/* ---- ps ---- */

static int print_json(const pid_t *pids, size_t count, struct error *error)
{
    cleanup_json struct json_object *array = json_object_new_array();
    for (size_t i = 0; array != NULL && i < count; i++) {
        struct json_object *pid = json_object_new_int(pids[i]);
        if (pid == NULL || json_object_array_add(array, pid) < 0)
            return fail(error, ENOMEM, "list the processes");
    }
    if (array == NULL)
        return fail(error, ENOMEM, "list the processes");
    puts(json_object_to_json_string_ext(array, JSON_C_TO_STRING_PLAIN));
    return 0;
}

/* Runs the host's ps(1) with the caller's options and returns what it printed. */
static int run_ps(char *const *arguments, char **out, struct error *error)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return fail(error, errno, "make a pipe for ps");
    cleanup_fd int reading = pipes[0], writing = pipes[1];
    pid_t pid = fork();
    if (pid < 0)
        return fail(error, errno, "fork for ps");
    if (pid == 0) {
        if (dup2(writing, STDOUT_FILENO) >= 0)
            execvp("ps", arguments);
        _exit(127);
    }
    close_fd(&writing);
    int result = read_all(reading, PS_BYTES_MAX, out, NULL, "the output of ps", error), status = 0;
    TEMP_FAILURE_RETRY(waitpid(pid, &status, 0));
    if (result == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        free(*out);
        *out = NULL;
        return fail(error, 0, "ps failed with status %d", WEXITSTATUS(status));
    }
    return result;
}

/* Keeps the heading and the lines whose PID column is one of ours. */
static int print_table(char *text, const pid_t *pids, size_t count, struct error *error)
{
    char *rest = text, *heading = strsep(&rest, "\n");
    int column = -1, index = 0;
    cleanup_free char *words = strdup(heading);
    char *word_rest = words;
    for (char *word = words == NULL ? NULL : strtok_r(words, " \t", &word_rest); word != NULL;
         word = strtok_r(NULL, " \t", &word_rest), index++)
        if (strcmp(word, "PID") == 0)
            column = index;
    if (column < 0)
        return fail(error, EINVAL, "the output of ps has no PID column");
    puts(heading);
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        const char *at = line + strspn(line, " ");
        for (int i = 0; i < column; i++) {
            at += strcspn(at, " ");
            at += strspn(at, " ");
        }
        long pid = strtol(at, NULL, 10);
        for (size_t i = 0; i < count; i++)
            if (pids[i] == pid)
                puts(line);
    }
    return 0;
}

int verb_ps(const struct invocation *invocation, struct error *error)
{
    static char program[] = "ps", standard[] = "-ef";
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    const char *format = "table";
    int next = 0;
    size_t count = 0;
    cleanup_free pid_t *pids = NULL;
    const struct option_spec specs[] = {{"format", "f", OPTION_TEXT, &format}};
    if (options_read(specs, 1, invocation->argc, invocation->argv, &next, error) < 0 || check_format(format, error) < 0)
        return -1;
    if (next >= invocation->argc)
        return fail(error, EINVAL, "the container's id is missing");
    if (runtime_load(invocation->root, invocation->argv[next], &container, error) < 0 ||
        runtime_processes(&container, &pids, &count, error) < 0)
        return -1;
    if (strcmp(format, "json") == 0)
        return print_json(pids, count, error);
    int given = invocation->argc - next - 1;
    cleanup_free char **arguments = calloc((size_t)given + 3, sizeof *arguments);
    cleanup_free char *text = NULL;
    if (arguments == NULL)
        return fail(error, ENOMEM, "run ps");
    arguments[0] = program;
    arguments[1] = standard;
    for (int i = 0; i < given; i++)
        arguments[1 + i] = invocation->argv[next + 1 + i];
    if (run_ps(arguments, &text, error) < 0)
        return -1;
    return print_table(text, pids, count, error);
}
