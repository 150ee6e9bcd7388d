/*
 * Runs one command and tells what it cost: wall microseconds, CPU microseconds (user and system, of the command and
 * the children it waited for) and peak resident KiB, from wait4(). time(1) rounds to hundredths of a second.
 *
 *   runner COMMAND ARG...        prints "wall cpu rss"; its exit status is the command's
 *   runner --tied COMMAND ...    becomes the command, which Linux ends with its caller, however that ends
 *   runner --port                prints a loopback TCP port that is free now
 *   runner --wait PORT           waits until something listens there; 1 when nothing does for 10 s
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

static long long now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static long long timeval_us(struct timeval t)
{
    return (long long)t.tv_sec * 1000000 + t.tv_usec;
}

static int free_port(void)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0
        || getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        perror("runner: no loopback port");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    close(fd);
    return 0;
}

static int wait_for(int port)
{
    struct timespec pause = { 0, 50000000 };
    struct sockaddr_in address;
    int tries;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)port);
    for (tries = 0; tries < 200; tries++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0), up = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
        if (up)
            return 0;
        nanosleep(&pause, NULL);
    }
    fprintf(stderr, "runner: nothing listens on port %d\n", port);
    return 1;
}

static int become(char **command)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    execvp(command[0], command);
    perror(command[0]);
    return 127;
}

int main(int argc, char **argv)
{
    struct rusage used;
    long long begun, wall;
    pid_t child;
    int status;

    if (argc == 2 && strcmp(argv[1], "--port") == 0)
        return free_port();
    if (argc == 3 && strcmp(argv[1], "--wait") == 0)
        return wait_for(atoi(argv[2]));
    if (argc > 2 && strcmp(argv[1], "--tied") == 0)
        return become(argv + 2);
    if (argc < 2) {
        fprintf(stderr, "usage: runner COMMAND ARG... | --tied COMMAND ARG... | --port | --wait PORT\n");
        return 2;
    }
    begun = now_us();
    child = fork();
    if (child < 0) {
        perror("runner: fork");
        return 1;
    }
    if (child == 0)
        _exit(become(argv + 1));
    while (wait4(child, &status, 0, &used) < 0)
        ;
    wall = now_us() - begun;
#ifdef __APPLE__
    used.ru_maxrss /= 1024; /* bytes there, KiB elsewhere */
#endif
    printf("%lld %lld %ld\n", wall, timeval_us(used.ru_utime) + timeval_us(used.ru_stime), (long)used.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
