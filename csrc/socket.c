/* Sockets. Every one that is open is in a table by its number: a forked child closes its copies with close(2) (libcurl
 * would say goodbye on the parent's TLS connections), and what libcurl waits for is known before there is a poller. */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FD_OPEN 8 /* opened by us; beside it the E2B_WANT_ bits */
#define FD_WANT (E2B_WANT_IN | E2B_WANT_OUT)

struct e2b_socket {
    ino_t inode; /* 0 unless opened by us */
    unsigned char state;
};

static e2b_socket *entry(e2b_engine *engine, curl_socket_t fd)
{
    if (fd < 0)
        return NULL;
    if ((size_t)fd >= engine->fds_cap) {
        size_t cap = engine->fds_cap > 0 ? engine->fds_cap : 64;
        e2b_socket *grown;
        while (cap <= (size_t)fd)
            cap *= 2;
        grown = realloc(engine->fds, cap * sizeof *grown);
        if (grown == NULL)
            return NULL;
        memset(grown + engine->fds_cap, 0, (cap - engine->fds_cap) * sizeof *grown);
        engine->fds = grown;
        engine->fds_cap = cap;
    }
    return &engine->fds[fd];
}

static ino_t inode_of(int fd)
{
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode) ? about.st_ino : 0;
}

/* libcurl 7.88 closes a socket behind our back when its transfer is cancelled while it connects; by now its number may
 * be any other file's. */
static int is_ours(const e2b_engine *engine, size_t fd)
{
    const e2b_socket *known = &engine->fds[fd];
    return (known->state & FD_OPEN) && known->inode == inode_of((int)fd);
}

curl_socket_t e2b_on_opensocket(void *owner, curlsocktype purpose, struct curl_sockaddr *address)
{
    e2b_engine *engine = owner;
    e2b_socket *known;
    curl_socket_t fd;
    (void)purpose;
#if defined(SOCK_CLOEXEC)
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
#else
    fd = socket(address->family, address->socktype, address->protocol);
    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
    if (fd < 0)
        return CURL_SOCKET_BAD;
    known = entry(engine, fd);
    if (known == NULL) {
        close(fd);
        return CURL_SOCKET_BAD;
    }
    known->state = FD_OPEN;
    known->inode = inode_of(fd);
    return fd;
}

int e2b_on_closesocket(void *owner, curl_socket_t fd)
{
    e2b_engine *engine = owner;
    e2b_socket *known = entry(engine, fd);
    if (known != NULL) {
        if (engine->poller.fd >= 0)
            e2b_poller_set(&engine->poller, fd, known->state & FD_WANT, 0);
        known->state = 0;
        known->inode = 0;
    }
    return close(fd);
}

/* libcurl's socket callback. */
int e2b_on_socket(CURL *easy, curl_socket_t fd, int what, void *owner, void *of_socket)
{
    e2b_engine *engine = owner;
    e2b_socket *known = entry(engine, fd);
    int had, want = 0;
    (void)easy;
    (void)of_socket;
    if (known == NULL)
        return -1;
    had = known->state & FD_WANT;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        want |= E2B_WANT_IN;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        want |= E2B_WANT_OUT;
    known->state = (unsigned char)((known->state & FD_OPEN) | want);
    if (engine->poller.fd >= 0 && e2b_poller_set(&engine->poller, fd, had, want) != 0)
        return -1;
    return 0;
}

int e2b_sockets_register(e2b_engine *engine)
{
    size_t fd;
    for (fd = 0; fd < engine->fds_cap; fd++) {
        int want = engine->fds[fd].state & FD_WANT, error;
        if (want != 0) {
            error = e2b_poller_set(&engine->poller, (int)fd, 0, want);
            if (error != 0 && error != EBADF)
                return error;
        }
    }
    return 0;
}

size_t e2b_sockets_count(const e2b_engine *engine)
{
    size_t fd, count = 0;
    for (fd = 0; fd < engine->fds_cap; fd++)
        count += (size_t)is_ours(engine, fd);
    return count;
}

void e2b_sockets_forked(e2b_engine *engine)
{
    size_t fd;
    for (fd = 0; fd < engine->fds_cap; fd++)
        if (is_ours(engine, fd))
            close((int)fd);
    if (engine->fds_cap > 0)
        memset(engine->fds, 0, engine->fds_cap * sizeof *engine->fds);
}
