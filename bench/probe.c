/*
 * What a worker of nginx is looked at with.
 *
 *   probe latency PORT PATH SECONDS GAP_US    one kept-alive connection, a request every GAP_US: prints
 *                                                  "p50 p99 max" in us, each counted from when it was due
 *   probe burst PORT PATH N                        N connections, a request on each at once: prints "wall bad" in us
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int dial(int port)
{
    struct sockaddr_in address;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("probe: connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static int ask(int fd, const char *path, const char *connection)
{
    char text[512];
    int len = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n", path, connection);
    return write(fd, text, (size_t)len) == len;
}

/* One whole answer with a Content-Length; 0: none. */
static int answer(int fd)
{
    char text[4096];
    size_t len = 0;
    for (;;) {
        char *end, *length;
        ssize_t n = read(fd, text + len, sizeof text - 1 - len);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        text[len] = '\0';
        end = strstr(text, "\r\n\r\n");
        length = strcasestr(text, "content-length: ");
        if (end != NULL && length != NULL && (size_t)(end + 4 - text) + (size_t)atol(length + 16) <= len)
            return strncmp(text + 9, "200", 3) == 0;
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int latency(int port, const char *path, double seconds, double gap)
{
    size_t most = (size_t)(seconds * 1e6 / gap), n = 0;
    double *took = malloc((most + 1) * sizeof *took), begin;
    int fd = dial(port);
    if (took == NULL || !ask(fd, path, "keep-alive") || !answer(fd))
        return 1;
    begin = now_us();
    for (n = 0; n < most; n++) {
        double due = begin + (double)n * gap, early = due - now_us();
        if (early > 0) {
            struct timespec rest;
            rest.tv_sec = (time_t)(early / 1e6);
            rest.tv_nsec = (long)(early * 1e3) % 1000000000L;
            nanosleep(&rest, NULL);
        }
        if (!ask(fd, path, "keep-alive") || !answer(fd))
            return 1;
        took[n] = now_us() - due;
    }
    qsort(took, n, sizeof *took, by_size);
    printf("%.0f %.0f %.0f\n", took[n / 2], took[n * 99 / 100], took[n - 1]);
    free(took);
    return 0;
}

static int burst(int port, const char *path, int n)
{
    struct pollfd *fds = calloc((size_t)n, sizeof *fds);
    int i, left = n, bad = 0;
    double begin;
    if (fds == NULL)
        return 1;
    for (i = 0; i < n; i++) {
        fds[i].fd = dial(port);
        fds[i].events = POLLIN;
    }
    begin = now_us();
    for (i = 0; i < n; i++)
        ask(fds[i].fd, path, "close");
    while (left > 0 && poll(fds, (nfds_t)n, 60000) > 0) {
        for (i = 0; i < n; i++) {
            if (fds[i].fd < 0 || fds[i].revents == 0)
                continue;
            bad += !answer(fds[i].fd);
            close(fds[i].fd);
            fds[i].fd = -1;
            left--;
        }
    }
    printf("%.0f %d\n", now_us() - begin, bad + left);
    free(fds);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "latency") == 0)
        return latency(atoi(argv[2]), argv[3], atof(argv[4]), atof(argv[5]));
    if (argc == 5 && strcmp(argv[1], "burst") == 0)
        return burst(atoi(argv[2]), argv[3], atoi(argv[4]));
    fprintf(stderr, "usage: probe latency PORT PATH SECONDS GAP_US | probe burst PORT PATH N\n");
    return 2;
}
