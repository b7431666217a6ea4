/* Looks a name up as programs do, by getaddrinfo(3) of whatever C library it was built with. Usage: look-up NAME; prints its addresses. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **arguments)
{
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (count != 2)
        return 2;
    int failed = getaddrinfo(arguments[1], NULL, &wanted, &found);
    if (failed != 0) {
        fprintf(stderr, "%s\n", gai_strerror(failed));
        return 1;
    }
    for (const struct addrinfo *one = found; one != NULL; one = one->ai_next) {
        char text[INET6_ADDRSTRLEN];
        const void *address = one->ai_family == AF_INET ? (const void *)&((const struct sockaddr_in *)one->ai_addr)->sin_addr
                                                        : (const void *)&((const struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        if (inet_ntop(one->ai_family, address, text, sizeof text) != NULL)
            puts(text);
    }
    freeaddrinfo(found);
    return 0;
}
