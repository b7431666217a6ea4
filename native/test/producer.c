/*
 * Writes BYTES bytes to standard output as fast as it can be taken: lines of 64 bytes, each with its number, so that no two
 * are alike and a missing, doubled or swapped one changes the digest of the whole. For the tests of the log path: a shell
 * makes a few megabytes a second, this some gigabytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 64, DIGITS = 20, LINES = 1024 };

static void count_up(char *digits)
{
    for (int at = DIGITS - 1; at >= 0; at--) {
        if (digits[at] < '9') {
            digits[at]++;
            return;
        }
        digits[at] = '0';
    }
}

int main(int argc, char **argv)
{
    static char buffer[LINES * LINE];
    char digits[DIGITS];
    unsigned long long left = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
    memset(buffer, '.', sizeof buffer);
    memset(digits, '0', sizeof digits);
    while (left > 0) {
        for (int line = 0; line < LINES; line++) {
            count_up(digits);
            memcpy(buffer + (size_t)line * LINE, digits, sizeof digits);
            buffer[(size_t)line * LINE + LINE - 1] = '\n';
        }
        size_t length = left < sizeof buffer ? (size_t)left : sizeof buffer;
        for (size_t done = 0; done < length;) {
            ssize_t written = write(STDOUT_FILENO, buffer + done, length - done);
            if (written < 0 && errno != EINTR) {
                fprintf(stderr, "producer: write: %s\n", strerror(errno));
                return 1;
            }
            done += written > 0 ? (size_t)written : 0;
        }
        left -= length;
    }
    return 0;
}
