/* A journal: lines that several processes append to one file, and that one of them may replace. Whoever has it open has
 * it locked, for the moment that a line takes. */
#define _FILE_OFFSET_BITS 64
#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define E2B_JOURNAL "e2b.journal"
#define LOCK_SECONDS 5.0 /* a process that is stopped while it has the lock must not stop all others */
#define NEW_SUFFIX ".new"

typedef struct journal {
    int fd;       /* -1: closed */
    char path[1]; /* and the rest of it, behind this struct */
} journal;

static void journal_release(journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
}

static journal *check_journal(lua_State *L)
{
    journal *j = luaL_checkudata(L, 1, E2B_JOURNAL);
    if (j->fd < 0)
        luaL_error(L, "attempt to use a closed journal");
    return j;
}

static int journal_failed(lua_State *L, const journal *j, int error)
{
    return e2b_file_failed(L, "use journal", j->path, error);
}

/* ---- to the disk ---- */

static int sync_fd(int fd)
{
#if defined(F_FULLFSYNC)
    if (fcntl(fd, F_FULLFSYNC) == 0)
        return 0;
#endif
    return fsync(fd) == 0 ? 0 : errno;
}

/* A new name is not safe before its directory is. Where directories can't be synced nothing is lost by not trying. */
static int sync_dir(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);
    int fd, error;
    if (len >= sizeof folder)
        return ENAMETOOLONG;
    memcpy(folder, path, len);
    folder[len] = '\0';
    fd = e2b_openat(AT_FDCWD, len > 0 ? folder : slash != NULL ? "/" : ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return errno == EACCES ? 0 : errno;
    error = sync_fd(fd);
    close(fd);
    return error == EINVAL || error == ENOTSUP || error == EROFS ? 0 : error;
}

/* ---- opening ---- */

static void sleep_a_little(void)
{
    struct timespec pause = { 0, 2000000 };
    nanosleep(&pause, NULL);
}

/* What somebody else could have put there would have us kill what they like. */
static const char *wrong_with(const struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return "it is not a regular file";
    if (st->st_uid != geteuid() && geteuid() != 0)
        return "it belongs to another user";
    if ((st->st_mode & 022) != 0)
        return "others may write to it; chmod 600 changes that";
    return NULL;
}

static int open_or_make(const char *path, int make, int *made)
{
    int flags = O_RDWR | O_APPEND | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, fd;
    do {
        fd = e2b_openat(AT_FDCWD, path, flags, 0);
        if (fd >= 0 || errno != ENOENT || !make)
            return fd;
        fd = e2b_openat(AT_FDCWD, path, flags | O_CREAT | O_EXCL, 0600);
        if (fd >= 0)
            *made = 1;
    } while (fd < 0 && errno == EEXIST);
    return fd;
}

/* Opens and locks the file that has the name now: it may be another one than a moment ago. 0, an errno, or -1 with
 * *why. */
static int open_locked(journal *j, int make, const char **why)
{
    double until = e2b_now() + LOCK_SECONDS;
    struct stat st, named;
    int made = 0;
    for (;;) {
        int error = 0;
        j->fd = open_or_make(j->path, make, &made);
        if (j->fd < 0 || fstat(j->fd, &st) != 0)
            return errno;
        *why = wrong_with(&st);
        if (*why != NULL)
            return -1;
        while (flock(j->fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK && errno != EINTR)
                return errno;
            if (e2b_now() > until) {
                *why = "another process has it locked";
                return -1;
            }
            sleep_a_little();
        }
        if (stat(j->path, &named) == 0) {
            if (named.st_dev == st.st_dev && named.st_ino == st.st_ino)
                /* Whoever made it may not have got so far. */
                return made || st.st_size == 0 ? sync_dir(j->path) : 0;
        } else {
            error = errno;
        }
        journal_release(j);
        if (error != 0 && error != ENOENT)
            return error;
    }
}

/* core.journal_open(path[, make]) -> journal | nil, message, errno */
static int journal_open(lua_State *L)
{
    size_t len;
    const char *path = e2b_path_arg(L, 1, &len), *why = NULL;
    int make = lua_toboolean(L, 2), error;
    journal *j;
    if (path == NULL)
        return e2b_path_nul(L, "use journal", 1);
    j = e2b_newuserdata(L, sizeof *j + len + sizeof NEW_SUFFIX);
    j->fd = -1;
    memcpy(j->path, path, len + 1);
    luaL_setmetatable(L, E2B_JOURNAL);
    error = open_locked(j, make, &why);
    if (error == 0)
        return 1;
    journal_release(j);
    if (error == ELOOP)
        why = "it is a link";
    if (why != NULL)
        return e2b_file_refused(L, "use journal", path, why, error > 0 ? error : EINVAL);
    return journal_failed(L, j, error);
}

/* ---- methods ---- */

/* journal:read() -> text | nil, message, errno */
static int journal_read(lua_State *L)
{
    const journal *j = check_journal(L);
    struct stat st;
    size_t size, at = 0;
    char *bytes;
    if (fstat(j->fd, &st) != 0)
        return journal_failed(L, j, errno);
    size = (size_t)st.st_size;
    bytes = e2b_newuserdata(L, size + 1);
    while (at < size) {
        ssize_t got = pread(j->fd, bytes + at, size - at, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return journal_failed(L, j, errno);
        if (got == 0)
            break;
        at += (size_t)got;
    }
    lua_pushlstring(L, bytes, at);
    return 1;
}

/* journal:size() -> bytes */
static int journal_size(lua_State *L)
{
    struct stat st;
    e2b_pushwhole(L, fstat(check_journal(L)->fd, &st) == 0 ? (long long)st.st_size : 0);
    return 1;
}

/* journal:append(text) -> true | nil, message, errno: all of it or nothing. What a process that died left behind without
 * a line's end is ended first, so that it doesn't spoil this. */
static int journal_append(lua_State *L)
{
    const journal *j = check_journal(L);
    static char end[] = "\n";
    struct iovec parts[2];
    struct stat st;
    size_t len;
    const char *text = luaL_checklstring(L, 2, &len);
    char last = '\n';
    ssize_t done;
    if (fstat(j->fd, &st) != 0)
        return journal_failed(L, j, errno);
    if (st.st_size > 0 && pread(j->fd, &last, 1, st.st_size - 1) < 0)
        return journal_failed(L, j, errno);
    parts[0].iov_base = end;
    parts[0].iov_len = last != '\n';
    parts[1].iov_base = (void *)text; /* it is only read */
    parts[1].iov_len = len;
    do
        done = writev(j->fd, parts, 2);
    while (done < 0 && errno == EINTR);
    if (done < 0)
        return journal_failed(L, j, errno);
    if ((size_t)done != len + parts[0].iov_len) {
        /* Should this fail as well, half a line stays, and is told from a whole one by its sum. */
        if (ftruncate(j->fd, st.st_size) != 0)
            return journal_failed(L, j, errno);
        return journal_failed(L, j, ENOSPC);
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t done = write(fd, bytes, len);
        if (done < 0 && errno != EINTR)
            return errno;
        if (done > 0) {
            bytes += done;
            len -= (size_t)done;
        }
    }
    return 0;
}

/* Like the old one: its mode, and its owner when that is not who does this. */
static int write_new(const journal *j, const char *name, const char *text, size_t len)
{
    struct stat st;
    int fd, error;
    if (fstat(j->fd, &st) != 0)
        return errno;
    if (unlink(name) != 0 && errno != ENOENT) /* of somebody who was killed in the middle of this */
        return errno;
    fd = e2b_openat(AT_FDCWD, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    error = write_all(fd, text, len);
    if (error == 0 && ((st.st_uid != geteuid() && fchown(fd, st.st_uid, st.st_gid) != 0) ||
                       fchmod(fd, st.st_mode & 0777) != 0))
        error = errno;
    if (error == 0)
        error = sync_fd(fd);
    if (close(fd) != 0 && errno != EINTR && error == 0)
        error = errno;
    return error;
}

/* journal:replace(text) -> true | nil, message, errno: the file is the old one or the new one, whatever happens. With
 * the new one in its place the journal is closed. */
static int journal_replace(lua_State *L)
{
    journal *j = check_journal(L);
    size_t len, path_len = strlen(j->path);
    const char *text = luaL_checklstring(L, 2, &len);
    char *name = e2b_newuserdata(L, path_len + sizeof NEW_SUFFIX);
    int error;
    memcpy(name, j->path, path_len);
    memcpy(name + path_len, NEW_SUFFIX, sizeof NEW_SUFFIX);
    error = write_new(j, name, text, len);
    if (error == 0 && rename(name, j->path) != 0)
        error = errno;
    if (error != 0) {
        unlink(name);
        return journal_failed(L, j, error);
    }
    error = sync_dir(j->path);
    journal_release(j);
    if (error != 0)
        return journal_failed(L, j, error);
    lua_pushboolean(L, 1);
    return 1;
}

/* journal:close([sync]) -> true | nil, message, errno. The others needn't wait for our disk: whoever replaces the file
 * meanwhile has what was appended, and syncs it. */
static int journal_close(lua_State *L)
{
    journal *j = luaL_checkudata(L, 1, E2B_JOURNAL);
    int error = 0;
    if (j->fd >= 0 && lua_toboolean(L, 2)) {
        flock(j->fd, LOCK_UN);
        error = sync_fd(j->fd);
    }
    journal_release(j);
    if (error != 0)
        return journal_failed(L, j, error);
    lua_pushboolean(L, 1);
    return 1;
}

static int journal_gc(lua_State *L)
{
    journal_release(luaL_checkudata(L, 1, E2B_JOURNAL));
    return 0;
}

/* core.path_whole(path) -> the path from the root on; as it is where the working directory can't be told */
static int path_whole(lua_State *L)
{
    char folder[4096];
    const char *path = luaL_checkstring(L, 1);
    if (path[0] == '/' || getcwd(folder, sizeof folder) == NULL)
        lua_pushvalue(L, 1);
    else
        lua_pushfstring(L, "%s/%s", folder, path);
    return 1;
}

int e2b_journal_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "read", journal_read },       { "size", journal_size },   { "append", journal_append },
        { "replace", journal_replace }, { "close", journal_close }, { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", journal_gc }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "journal_open", journal_open }, { "path_whole", path_whole }, { NULL, NULL },
    };
    e2b_type(L, E2B_JOURNAL, methods, meta);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
