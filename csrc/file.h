/* Between file.c, temp.c, local.c and tree.c: local files. */
#ifndef E2B_FILE_H
#define E2B_FILE_H

#include "engine.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/types.h>

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

#define E2B_FILE "e2b.file"
#define E2B_NAME_SIZE 256 /* one file name with its zero: no file system takes more */
#define E2B_TEMP_SIZE 32

/* A directory that is only gone through: its owner may have left out the permission to list it. */
#if defined(O_PATH)
#define E2B_O_DIRECTORY (O_PATH | O_DIRECTORY | O_CLOEXEC)
#else
#define E2B_O_DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif

typedef struct e2b_file {
    int fd;  /* -1: closed */
    int dir; /* temporary files: the directory of both names; else -1 */
    pid_t pid;
    char temp[E2B_TEMP_SIZE]; /* "": it has no name yet, nothing to remove */
    char name[E2B_NAME_SIZE]; /* what temp is to become */
    int has_mode;
    mode_t mode; /* when commit() is given none */
    char *buffer;
    size_t cap;
    char path[1]; /* for messages */
} e2b_file;

/* file.c */
e2b_file *e2b_file_new(lua_State *L, const char *path, size_t len); /* pushes it */
void e2b_file_release(e2b_file *f);
int e2b_openat(int dir, const char *name, int flags, mode_t mode);

/* The path at that index; NULL when it holds a NUL byte. */
const char *e2b_path_arg(lua_State *L, int index, size_t *len);
/* Push nil, "cannot <what> '<path>': <text>" and the errno; return 3. */
int e2b_file_failed(lua_State *L, const char *what, const char *path, int error);
int e2b_file_refused(lua_State *L, const char *what, const char *path, const char *text, int error);
int e2b_path_nul(lua_State *L, const char *what, int index);
/* The mode at that index, or `otherwise`. The bits that lend someone's rights are never taken over. */
mode_t e2b_mode_arg(lua_State *L, int index, mode_t otherwise);

/* temp.c */
void e2b_temp_name(char *to);    /* a new name of E2B_TEMP_SIZE bytes */
int e2b_file_begin(e2b_file *f); /* makes the file that becomes f->name in f->dir; 0 or an errno */
/* Gives it a name, temporary still, and its mode (NULL: as usual there) and owner; 0 or an errno. */
int e2b_file_finish(e2b_file *f, const mode_t *mode);

/* local.c: sets mode (unless NULL) and time (unless NULL) of dir/name without following a link; 0 or an errno */
int e2b_touch(int dir, const char *name, const mode_t *mode, const double *mtime);
/* The time at that index into *mtime; NULL when there is none. */
const double *e2b_mtime_arg(lua_State *L, int index, double *mtime);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
