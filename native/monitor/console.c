#include "monitor/loop.h"

#include "common/fd.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

int console_path(const struct monitor *m, const char *name, char *out, size_t size, struct error *error)
{
    int length = snprintf(out, size, "%s/%s", m->options.state_directory, name);
    /* unix(7): the runtime gets a path, and 107 bytes are all that an address holds. */
    if (length < 0 || (size_t)length >= size || (size_t)length >= sizeof((struct sockaddr_un *)0)->sun_path)
        return fail(error, ENAMETOOLONG, "give the runtime the console socket %s in %s", name,
                    m->options.state_directory);
    return 0;
}

int console_listen(struct monitor *m, const char *name, int *fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (console_path(m, name, address.sun_path, sizeof address.sun_path, error) < 0)
        return -1;
    (void)unlinkat(m->state, name, 0);
    cleanup_fd int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 1) < 0)
        return fail(error, errno, "listen on console socket %s", name);
    *fd = take_fd(&listener);
    return 0;
}

int console_accept(int listener, int *master, struct error *error)
{
    cleanup_fd int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return fail(error, errno, "accept the runtime's console");
    struct timeval patience = {.tv_sec = 5};
    (void)setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char name[4096];
    size_t count = 1;
    int received = -1;
    if (receive_fds(connection, name, sizeof name, &received, &count, error) < 0)
        return -1;
    cleanup_fd int terminal = count == 1 ? received : -1;
    struct termios settings;
    if (terminal < 0 || tcgetattr(terminal, &settings) < 0)
        return fail(error, count == 1 ? errno : EPROTO, "get a terminal from the runtime");
    int flags = fcntl(terminal, F_GETFL);
    if (flags < 0 || fcntl(terminal, F_SETFL, flags | O_NONBLOCK) < 0)
        return fail(error, errno, "make the terminal non-blocking");
    *master = take_fd(&terminal);
    return 0;
}

int console_resize(int master, uint16_t rows, uint16_t columns, struct error *error)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (ioctl(master, TIOCSWINSZ, &size) < 0)
        return fail(error, errno, "resize the terminal to %u rows, %u columns", rows, columns);
    return 0;
}
