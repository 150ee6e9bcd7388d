/* What spawn.c prepares and child.c carries out. */
#ifndef E2B_SERVER_SPAWN_H
#define E2B_SERVER_SPAWN_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

#define FD_COUNT 3 /* standard input, output and error */

/* What the child needs; all of it is made before the fork and owned by a userdata or by the options. */
typedef struct {
    const char **argv;
    const char **env;
    const char **programs; /* the paths to try, one after the other */
    const char **shell;    /* "/bin/sh", the path, argv[1] …: for a script without a first line; the path is filled in */
    const char *cwd;
    gid_t *groups;
    size_t group_count;
    uid_t uid;
    gid_t gid;
    int change_ids;
    int change_groups;
    int terminal; /* the child leads a session, and standard input is its terminal */
    int session;
    int death_signal;
    pid_t parent;
    long descriptors; /* how many the program may have open; 0: as many as this process */
    int child[FD_COUNT];
    int report[2];
    sigset_t signals; /* what was blocked before the fork */
} e2b_plan;

/* A failure of the child before its program ran. */
typedef struct {
    int error;
    int step;
} e2b_failure;

enum { STEP_SETUP, STEP_GROUPS, STEP_USER, STEP_CWD };

/* The child's side, after the fork: becomes the program, or reports a failure and ends. Makes system calls only. */
void e2b_child(const e2b_plan *p);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
