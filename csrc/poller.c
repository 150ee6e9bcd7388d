/* Many sockets behind one descriptor that any loop can wait on: epoll on Linux, kqueue elsewhere. A second, private
 * descriptor makes it readable when something was done outside of a step (a start, an unpause), so that a loop asleep
 * with an old timeout wakes up. */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/eventfd.h>
#else
#include <sys/event.h>
#include <sys/time.h>
#include <sys/types.h>
#endif

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

#if defined(__linux__)

static int control(e2b_poller *p, int operation, int fd, int want)
{
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.data.fd = fd;
    event.events = ((want & E2B_WANT_IN) ? (unsigned)EPOLLIN : 0u) | ((want & E2B_WANT_OUT) ? (unsigned)EPOLLOUT : 0u);
    return epoll_ctl(p->fd, operation, fd, &event) == 0 ? 0 : errno;
}

int e2b_poller_open(e2b_poller *p)
{
    int error;
    p->waked = 0;
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    p->wake[0] = p->wake[1] = p->fd >= 0 ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    error = p->wake[0] >= 0 ? control(p, EPOLL_CTL_ADD, p->wake[0], E2B_WANT_IN) : errno;
    if (error != 0)
        e2b_poller_close(p);
    return error;
}

void e2b_poller_close(e2b_poller *p)
{
    close_fd(&p->wake[0]);
    p->wake[1] = -1;
    close_fd(&p->fd);
}

void e2b_poller_forked(e2b_poller *p)
{
    e2b_poller_close(p); /* closing a copy takes nothing out of the parent's epoll */
}

int e2b_poller_set(e2b_poller *p, int fd, int had, int want)
{
    int error;
    if (want == 0) {
        if (had != 0)
            control(p, EPOLL_CTL_DEL, fd, 0); /* fails when fd was closed already: it's out then */
        return 0;
    }
    error = control(p, had != 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, want);
    if (error == ENOENT) /* closed behind our back, and its number is another socket's now */
        error = control(p, EPOLL_CTL_ADD, fd, want);
    else if (error == EEXIST)
        error = control(p, EPOLL_CTL_MOD, fd, want);
    return error;
}

int e2b_poller_ready(e2b_poller *p, e2b_ready *ready, int max)
{
    struct epoll_event events[64];
    int i, n, count = 0;
    n = epoll_wait(p->fd, events, max < 64 ? max : 64, 0);
    for (i = 0; i < n; i++) {
        unsigned what = events[i].events;
        if (events[i].data.fd == p->wake[0])
            continue;
        ready[count].fd = events[i].data.fd;
        ready[count].what = ((what & (EPOLLIN | EPOLLHUP)) ? E2B_WANT_IN : 0) | ((what & EPOLLOUT) ? E2B_WANT_OUT : 0) |
                            ((what & EPOLLERR) ? E2B_WANT_ERROR : 0);
        count++;
    }
    return count;
}

#else

int e2b_poller_open(e2b_poller *p)
{
    int i, error = 0;
    p->waked = 0;
    p->wake[0] = p->wake[1] = -1;
    p->fd = kqueue();
    if (p->fd < 0 || pipe(p->wake) != 0)
        error = errno;
    if (error == 0) {
        fcntl(p->fd, F_SETFD, FD_CLOEXEC);
        for (i = 0; i < 2; i++) {
            fcntl(p->wake[i], F_SETFD, FD_CLOEXEC);
            fcntl(p->wake[i], F_SETFL, O_NONBLOCK);
        }
        error = e2b_poller_set(p, p->wake[0], 0, E2B_WANT_IN);
    }
    if (error != 0)
        e2b_poller_close(p);
    return error;
}

void e2b_poller_close(e2b_poller *p)
{
    close_fd(&p->wake[0]);
    close_fd(&p->wake[1]);
    close_fd(&p->fd);
}

void e2b_poller_forked(e2b_poller *p)
{
    p->fd = -1; /* a kqueue is not inherited: its number may be somebody else's here */
    e2b_poller_close(p);
}

int e2b_poller_set(e2b_poller *p, int fd, int had, int want)
{
    static const struct {
        int bit;
        short filter;
    } filters[] = { { E2B_WANT_IN, EVFILT_READ }, { E2B_WANT_OUT, EVFILT_WRITE } };
    int i, error = 0;
    for (i = 0; i < 2; i++) {
        struct kevent change;
        int had_it = had & filters[i].bit, wants_it = want & filters[i].bit;
        if (!had_it == !wants_it && !wants_it)
            continue;
        EV_SET(&change, (uintptr_t)fd, filters[i].filter, wants_it ? EV_ADD : EV_DELETE, 0, 0, 0);
        if (kevent(p->fd, &change, 1, NULL, 0, NULL) != 0 && wants_it)
            error = errno;
    }
    return error;
}

int e2b_poller_ready(e2b_poller *p, e2b_ready *ready, int max)
{
    struct kevent events[64];
    struct timespec none = { 0, 0 };
    int i, n, count = 0;
    n = kevent(p->fd, NULL, 0, events, max < 64 ? max : 64, &none);
    for (i = 0; i < n; i++) {
        if ((int)events[i].ident == p->wake[0])
            continue;
        ready[count].fd = (int)events[i].ident;
        ready[count].what = events[i].filter == EVFILT_WRITE ? E2B_WANT_OUT : E2B_WANT_IN;
        if (events[i].flags & EV_ERROR)
            ready[count].what |= E2B_WANT_ERROR;
        count++;
    }
    return count;
}

#endif

void e2b_poller_wake(e2b_poller *p)
{
    static const char one[8] = { 1, 0, 0, 0, 0, 0, 0, 0 };
    if (p->fd < 0 || p->waked)
        return;
    p->waked = 1;
    if (write(p->wake[1], one, sizeof one) < 0)
        p->waked = 0; /* full: readable already */
}

void e2b_poller_rest(e2b_poller *p)
{
    char bytes[64];
    if (!p->waked)
        return;
    p->waked = 0;
    while (read(p->wake[0], bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ;
}
