/* What happens in a new process before its program: between fork and exec there are system calls only, no memory, no
 * Lua. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#define NAME_MAX_SHOWN 400 /* bytes of the program's name */

static void give_up(const e2b_plan *p, int step)
{
    e2b_failure why;
    why.error = errno;
    why.step = step;
    while (write(p->report[1], &why, sizeof why) < 0 && errno == EINTR)
        continue;
    _exit(127);
}

/* Bounded: the parent does not read yet, so more than a pipe holds would wait for ever. */
static void complain(const char *program, const char *what, int status)
{
    static char before[] = "sh: 1: exec: ", between[] = ": ", after[] = "\n";
    struct iovec parts[] = {
        { before, sizeof before - 1 },
        { (char *)program, strnlen(program, NAME_MAX_SHOWN) },
        { between, sizeof between - 1 },
        { (char *)what, strlen(what) },
        { after, sizeof after - 1 },
    };
    ssize_t ignored = writev(2, parts, sizeof parts / sizeof parts[0]);
    (void)ignored;
    _exit(status);
}

static void reset_signals(void)
{
    struct sigaction standard;
    sigset_t none;
    int number;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    sigemptyset(&standard.sa_mask);
    for (number = 1; number < NSIG; number++)
        sigaction(number, &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Nothing but the three standard descriptors goes to the program, whoever opened the others and how. */
static void close_on_exec(void)
{
    struct rlimit limit;
    int fd, end = 65536;
#if defined(SYS_close_range)
    if (syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */) == 0)
        return;
#endif
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)end)
        end = (int)limit.rlim_cur;
    for (fd = 3; fd < end; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void limit_descriptors(const e2b_plan *p)
{
    struct rlimit limit;
    if (p->descriptors <= 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = (rlim_t)p->descriptors;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        give_up(p, STEP_SETUP);
}

static void become_user(const e2b_plan *p)
{
    if (p->change_groups && setgroups(p->group_count, p->groups) != 0)
        give_up(p, STEP_GROUPS);
    if (p->change_ids && (setgid(p->gid) != 0 || setuid(p->uid) != 0))
        give_up(p, STEP_USER);
}

static void run(const e2b_plan *p)
{
    size_t i;
    int error = ENOENT;
    for (i = 0; p->programs[i] != NULL; i++) {
        execve(p->programs[i], (char *const *)p->argv, (char *const *)p->env);
        if (errno == ENOEXEC) {
            p->shell[1] = p->programs[i];
            execve(p->shell[0], (char *const *)p->shell, (char *const *)p->env);
        }
        /* A name that is there but cannot be run is worth more than one that is not there. */
        if (errno != ENOENT && errno != ENOTDIR)
            error = errno;
    }
    /* Arguments too long for any program: as if it had not been started. */
    if (error == E2BIG || error == ENOMEM) {
        errno = error;
        give_up(p, STEP_SETUP);
    }
    if (error == ENOENT)
        complain(p->argv[0], "not found", 127);
    complain(p->argv[0], error == EACCES ? "Permission denied" : "cannot be run", 126);
}

void e2b_child(const e2b_plan *p)
{
    int i;
    reset_signals();
    if ((p->terminal || p->session) && setsid() < 0)
        give_up(p, STEP_SETUP);
    for (i = 0; i < FD_COUNT; i++) {
        if (p->child[i] >= 0 && dup2(p->child[i], i) < 0)
            give_up(p, STEP_SETUP);
    }
    if (p->terminal && ioctl(0, TIOCSCTTY, 0) != 0)
        give_up(p, STEP_SETUP);
    close_on_exec();
    limit_descriptors(p);
    become_user(p);
    if (p->cwd != NULL && chdir(p->cwd) != 0)
        give_up(p, STEP_CWD);
#if defined(__linux__)
    if (p->death_signal != 0 && prctl(PR_SET_PDEATHSIG, p->death_signal, 0, 0, 0) != 0)
        give_up(p, STEP_SETUP);
    /* It may have died before that. */
    if (p->death_signal != 0 && getppid() != p->parent)
        _exit(127);
#endif
    run(p);
}
