#include "isolate/self.h"
#include "common/fd.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

extern char **environ;

static const int all_seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

static int copy_to_memory(int image, int *out, struct error *error)
{
    struct stat status;
    if (fstat(image, &status) < 0)
        return fail(error, errno, "read the size of this program");
    /* MFD_EXEC is known since Linux 6.3 and needed where vm.memfd_noexec is 1. */
    cleanup_fd int copy = memfd_create("isolate", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (copy < 0 && errno == EINVAL)
        copy = memfd_create("isolate", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copy < 0)
        return fail(error, errno, "make a memory file for this program");
    for (off_t done = 0; done < status.st_size;) {
        ssize_t sent = TEMP_FAILURE_RETRY(sendfile(copy, image, &done, (size_t)(status.st_size - done)));
        if (sent <= 0)
            return fail(error, sent == 0 ? EIO : errno, "copy this program to memory");
    }
    if (fcntl(copy, F_ADD_SEALS, all_seals) < 0)
        return fail(error, errno, "seal the copy of this program");
    *out = take_fd(&copy);
    return 0;
}

/* Where memory files may not be executed (vm.memfd_noexec=2): the same file by a mount that refuses writes. */
static int open_read_only(int *out, struct error *error)
{
    cleanup_fd int tree = open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) < 0)
        return fail(error, errno, "make a read-only mount of this program");
    *out = take_fd(&tree);
    return 0;
}

static bool is_protected(int image)
{
    int seals = fcntl(image, F_GET_SEALS);
    if (seals >= 0 && (seals & all_seals) == all_seals)
        return true;
    return getenv("_ISOLATE_READONLY") != NULL && access("/proc/self/exe", W_OK) < 0 && errno == EROFS;
}

int self_seal(char *const *argv, struct error *error)
{
    cleanup_fd int image = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), copy = -1;
    if (image < 0)
        return fail(error, errno, "open the image of this program");
    if (is_protected(image))
        return unsetenv("_ISOLATE_READONLY");
    struct error first;
    if (copy_to_memory(image, &copy, &first) == 0)
        syscall(SYS_execveat, copy, "", argv, environ, AT_EMPTY_PATH);
    if (open_read_only(&copy, error) < 0)
        return -1;
    if (setenv("_ISOLATE_READONLY", "1", 1) == 0)
        syscall(SYS_execveat, copy, "", argv, environ, AT_EMPTY_PATH);
    return fail(error, errno, "execute the protected copy of this program");
}
