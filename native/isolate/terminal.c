#include "isolate/terminal.h"
#include "common/fd.h"
#include "common/path.h"
#include "isolate/mounts.h"
#include "isolate/setup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <termios.h>

/* CVE-2025-52565: what is opened must be the multiplexer of a devpts, whatever the image put at that name. */
static int check_multiplexer(int fd, struct error *error)
{
    struct stat status;
    struct statfs filesystem;
    if (fstat(fd, &status) < 0 || fstatfs(fd, &filesystem) < 0)
        return fail(error, errno, "check /dev/pts/ptmx");
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(5, 2) || filesystem.f_type != DEVPTS_SUPER_MAGIC)
        return fail(error, ENODEV, "open a terminal: /dev/pts/ptmx of the container is not the devpts multiplexer");
    return 0;
}

static int open_pair(int root_fd, const struct process_config *process, int *out, struct error *error)
{
    cleanup_fd int master = open_resolved(root_fd, "dev/pts/ptmx", O_RDWR | O_NOCTTY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
    int unlock = 0;
    if (master < 0)
        return fail(error, errno, "open a terminal: /dev/pts/ptmx of the container");
    if (check_multiplexer(master, error) < 0)
        return -1;
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return fail(error, errno, "unlock the terminal");
    struct winsize size = {.ws_row = process->height, .ws_col = process->width};
    if (size.ws_row != 0 && size.ws_col != 0 && ioctl(master, TIOCSWINSZ, &size) < 0)
        return fail(error, errno, "size the terminal");
    *out = take_fd(&master);
    return 0;
}

/* The slave by its master, never by the name /dev/pts/N (ioctl_tty(2) TIOCGPTPEER, Linux 4.13). */
static int open_peer(int master, int *out, struct error *error)
{
    *out = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*out < 0)
        return fail(error, errno, "open the terminal's other side");
    return 0;
}

int terminal_open(const struct setup *setup, int root_fd, int *out, struct error *error)
{
    cleanup_fd int master = -1, peer = -1, console = -1, tree = -1;
    if (open_pair(root_fd, &setup->config->process, &master, error) < 0 || open_peer(master, &peer, error) < 0 ||
        make_file_in_root(root_fd, "/dev/console", 0600, &console, error) < 0 ||
        mount_clone(peer, false, &tree, "the terminal", error) < 0 ||
        mount_attach(tree, console, "/dev/console", error) < 0)
        return -1;
    *out = take_fd(&master);
    return 0;
}

int terminal_open_here(const struct process_config *process, int *master, struct error *error)
{
    cleanup_fd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail(error, errno, "open the root of the container");
    return open_pair(root, process, master, error);
}

int terminal_become_stdio(int master, const struct process_config *process, struct error *error)
{
    cleanup_fd int peer = -1;
    if (open_peer(master, &peer, error) < 0)
        return -1;
    if (fchown(peer, process->uid, (gid_t)-1) < 0 && errno != EPERM && errno != EROFS)
        return fail(error, errno, "give the terminal to user %u", process->uid);
    if (ioctl(peer, TIOCSCTTY, 0) < 0)
        return fail(error, errno, "take the terminal as controlling terminal");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(peer, fd) < 0)
            return fail(error, errno, "use the terminal as descriptor %d", fd);
    return 0;
}

int terminal_connect(const char *path, int *out, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(error, errno, "make a socket for the console");
    if (strlen(path) >= sizeof address.sun_path)
        return fail(error, ENAMETOOLONG, "connect to console socket %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return fail(error, errno, "connect to console socket %s", path);
    *out = take_fd(&fd);
    return 0;
}

int terminal_send(int socket_fd, int master, struct error *error)
{
    static const char name[] = "/dev/ptmx";
    if (send_fds(socket_fd, name, sizeof name - 1, &master, 1, error) < 0)
        return fail_in(error, "send the terminal to the console socket");
    return 0;
}

/* ---- relay ---- */

static void copy_size(int master)
{
    struct winsize size;
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        (void)ioctl(master, TIOCSWINSZ, &size); /* a size is a courtesy: nothing fails for it */
}

static void forward(int signals, int master, int pidfd)
{
    struct signalfd_siginfo info;
    if (TEMP_FAILURE_RETRY(read(signals, &info, sizeof info)) != sizeof info)
        return;
    if (info.ssi_signo == SIGWINCH && master >= 0)
        copy_size(master);
    else if (info.ssi_signo != SIGCHLD && info.ssi_signo != SIGWINCH)
        (void)pidfd_send_signal(pidfd, (int)info.ssi_signo, NULL, 0); /* it may be gone: the loop sees that */
}

/* Ends when the process has ended and the terminal, if there is one, has nothing left to read. */
static int relay_loop(int master, int pidfd, int signals, struct error *error)
{
    char buffer[16384];
    struct pollfd polled[4] = {{.fd = master, .events = POLLIN}, {.fd = master < 0 ? -1 : STDIN_FILENO, .events = POLLIN},
                               {.fd = signals, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    bool ended = false;
    while (!ended || polled[0].fd >= 0) {
        int ready = (int)TEMP_FAILURE_RETRY(poll(polled, 4, ended ? 100 : -1));
        if (ready < 0)
            return fail(error, errno, "wait for the container");
        if (ready == 0)
            return 0; /* somebody else holds the terminal open: what is written after the end is not ours */
        if (polled[0].revents != 0) {
            ssize_t got = TEMP_FAILURE_RETRY(read(master, buffer, sizeof buffer));
            if (got <= 0)
                polled[0].fd = polled[1].fd = -1; /* EIO: every slave is closed (pty(7)) */
            else if (write_all(STDOUT_FILENO, buffer, (size_t)got, "standard output", error) < 0)
                return -1;
        }
        if (polled[1].fd >= 0 && polled[1].revents != 0) {
            ssize_t got = TEMP_FAILURE_RETRY(read(STDIN_FILENO, buffer, sizeof buffer));
            struct error ignored; /* the other side is gone; its end is told by pidfd */
            if (got <= 0 || write_all(master, buffer, (size_t)got, "the terminal", &ignored) < 0)
                polled[1].fd = -1;
        }
        if (polled[2].revents != 0)
            forward(signals, master, pidfd);
        if (polled[3].revents != 0) {
            ended = true;
            polled[3].fd = -1;
        }
    }
    return 0;
}

static void forwarded_signals(sigset_t *set)
{
    sigfillset(set);
    sigdelset(set, SIGKILL);
    sigdelset(set, SIGSTOP);
    sigdelset(set, SIGTSTP);
    sigdelset(set, SIGTTIN);
    sigdelset(set, SIGTTOU);
    sigdelset(set, SIGSEGV);
    sigdelset(set, SIGBUS);
    sigdelset(set, SIGFPE);
    sigdelset(set, SIGILL);
    sigdelset(set, SIGABRT);
}

void terminal_block_signals(void)
{
    sigset_t set;
    forwarded_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

int terminal_accompany(int master, int pidfd, struct error *error)
{
    struct termios saved;
    bool raw_mode = master >= 0 && tcgetattr(STDIN_FILENO, &saved) == 0;
    sigset_t set;
    forwarded_signals(&set);
    cleanup_fd int signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (signals < 0)
        return fail(error, errno, "watch for signals");
    if (raw_mode) {
        struct termios raw = saved;
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        copy_size(master);
    }
    int result = relay_loop(master, pidfd, signals, error);
    if (raw_mode)
        tcsetattr(STDIN_FILENO, TCSANOW, &saved);
    return result;
}
