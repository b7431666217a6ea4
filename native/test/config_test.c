/* config.json: each rule of config.c, by one change of a good configuration. */
#include "test/check.h"

#include "common/json.h"
#include "isolate/config.h"

static const char good[] =
    "{\"ociVersion\":\"1.0.2\",\"root\":{\"path\":\"rootfs\"},\"hostname\":\"h\","
    "\"process\":{\"cwd\":\"/\",\"args\":[\"a\"],\"env\":[\"A=b\"],\"user\":{\"uid\":1,\"gid\":2}},"
    "\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"}],"
    "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"mount\"},{\"type\":\"uts\"},{\"type\":\"ipc\"}],\"resources\":{}}}";

/* Sets the property at `path` (names separated by blanks) to a JSON value; "" removes it. 0 when accepted. */
static int with(const char *path, const char *value, char *why, size_t room)
{
    struct json_object *root = json_tokener_parse(good), *at = root;
    struct config *config = NULL;
    struct error error = {0};
    char names[256], *rest = names;
    snprintf(names, sizeof names, "%s", path);
    for (char *name = strsep(&rest, " "); name != NULL; name = strsep(&rest, " ")) {
        if (rest == NULL) {
            if (*value == '\0')
                json_object_object_del(at, name);
            else
                json_object_object_add(at, name, json_tokener_parse(value));
        } else {
            struct json_object *below = NULL;
            if (!json_object_object_get_ex(at, name, &below)) {
                below = json_object_new_object();
                json_object_object_add(at, name, below);
            }
            at = below;
        }
    }
    int result = config_parse(root, &config, &error);
    snprintf(why, room, "%s", error.text);
    config_free(config);
    return result;
}

static void accepted(const char *path, const char *value)
{
    char why[1024];
    int result = with(path, value, why, sizeof why);
    if (result != 0)
        fprintf(stderr, "%s = %s: %s\n", path, value, why);
    CHECK(result == 0);
}

static void refused(const char *path, const char *value, const char *reason)
{
    char why[1024];
    CHECK(with(path, value, why, sizeof why) < 0);
    if (strstr(why, reason) == NULL)
        fprintf(stderr, "%s = %s: \"%s\" does not tell \"%s\"\n", path, value, why, reason);
    CHECK(strstr(why, reason) != NULL);
}

int main(void)
{
    accepted("x", "1");
    accepted("process", "");
    accepted("process", "null");
    accepted("ociVersion", "\"1.2.1-dev+x\"");
    refused("ociVersion", "\"1.0\"", "ociVersion");
    refused("ociVersion", "\"2.0.0\"", "not supported");
    refused("ociVersion", "", "ociVersion is required");
    refused("root", "", "root is required");
    refused("root path", "\"\"", "root.path is empty");
    refused("process cwd", "\"a\"", "process.cwd");
    refused("process args", "[]", "process.args");
    refused("process args", "[1]", "args[0]");
    refused("process user uid", "4294967295", "uid");
    refused("process user umask", "512", "umask");
    refused("process user additionalGids", "[-1]", "additionalGids[0]");
    refused("process oomScoreAdj", "1001", "oomScoreAdj");
    refused("process rlimits", "[{\"type\":\"RLIMIT_X\",\"soft\":1,\"hard\":1}]", "RLIMIT_X");
    refused("process rlimits", "[{\"type\":\"RLIMIT_CORE\",\"soft\":2,\"hard\":1}]", "above the hard");
    refused("process scheduler", "{\"policy\":\"SCHED_FIFO\"}", "process.scheduler is not supported");
    accepted("process scheduler", "{}");
    refused("linux intelRdt", "{\"closID\":\"a\"}", "linux.intelRdt is not supported");
    refused("linux namespaces", "[{\"type\":\"pid\"},{\"type\":\"pid\"}]", "twice");
    refused("linux namespaces", "[{\"type\":\"nope\"}]", "not known");
    refused("linux namespaces", "[{\"type\":\"pid\",\"path\":\"a\"}]", "absolute");
    refused("linux namespaces", "[{\"type\":\"pid\"}]", "uts namespace");
    refused("linux uidMappings", "[{\"containerID\":0,\"hostID\":0,\"size\":1}]", "user namespace");
    refused("linux sysctl", "{\"kernel.core_pattern\":\"x\"}", "not a parameter");
    refused("linux sysctl", "{\"net.core.somaxconn\":\"1\"}", "would change the host");
    accepted("linux sysctl", "{\"kernel.shmmni\":\"1\"}");
    refused("linux maskedPaths", "[\"a\"]", "maskedPaths[0]");
    refused("linux timeOffsets", "{\"monotonic\":{\"secs\":1}}", "time namespace");
    refused("linux devices", "[{\"type\":\"x\",\"path\":\"/a\",\"major\":1,\"minor\":1}]", "type");
    refused("linux devices", "[{\"type\":\"c\",\"path\":\"/a\"}]", "major and minor");
    refused("linux resources devices", "[{\"type\":\"c\"}]", "allow");
    refused("linux resources devices", "[{\"allow\":true,\"access\":\"rwx\"}]", "access");
    refused("linux resources unified", "{\"../x.y\":\"1\"}", "not the name");
    refused("linux resources unified", "{\"cpu.max\":1}", "must be a string");
    refused("linux resources cpu", "{\"cpus\":\"0-1\\nx\"}", "cpus");
    refused("linux resources cpu", "{\"quota\":10,\"burst\":11}", "burst");
    refused("linux resources memory", "{\"limit\":10,\"swap\":5}", "swap");
    refused("linux resources hugepageLimits", "[{}]", "not supported");
    refused("linux rootfsPropagation", "\"x\"", "rootfsPropagation");
    refused("linux seccomp", "{\"defaultAction\":\"SCMP_ACT_NOTIFY\"}", "not supported");
    refused("linux seccomp", "{\"defaultAction\":\"SCMP_ACT_KILL\",\"defaultErrnoRet\":1}", "takes no");
    refused("hooks prestart", "[{\"path\":\"a\"}]", "hooks.prestart[0]");
    refused("hooks prestart", "[{\"path\":\"/a\",\"timeout\":0}]", "timeout");
    refused("annotations", "{\"\":\"a\"}", "empty");
    refused("annotations", "{\"a\":1}", "string");
    accepted("annotations", "{\"dev.skep.rootfs\":\"{\\\"lower\\\":[\\\"/a\\\"]}\"}");
    refused("annotations", "{\"dev.skep.rootfs\":\"{\\\"lower\\\":[\\\"a\\\"]}\"}", "absolute");
    refused("annotations", "{\"dev.skep.rootfs\":\"{\\\"lower\\\":[\\\"/a\\\"],\\\"upper\\\":\\\"/u\\\"}\"}", "upper and work");
    refused("mounts", "[{\"destination\":\"/a\"}]", "type");
    refused("mounts", "[{\"destination\":\"/a\",\"options\":[\"bind\"]}]", "source");
    refused("mounts", "[{\"destination\":\"/a\",\"source\":\"/b\",\"options\":[\"bind\",\"idmap\"]}]", "idmap");
    refused("mounts", "[{\"destination\":\"/a\",\"source\":\"/b\",\"options\":[\"bind\"],\"uidMappings\":[{\"containerID\":0,\"hostID\":1,\"size\":1}]}]", "together");
    return checks_end("config");
}
