/* Removes a tree in steps, so that one thread can do other things between them. At most two descriptors are open however
 * deep the tree is, no path grows with the depth, and no symbolic link is ever followed: going up, ".." must be the very
 * directory that was left. */
#include "fs.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REMOVER "e2b.server.remover"

typedef struct {
    dev_t dev;
    ino_t ino;
    char *name; /* of the directory below it that is being emptied */
} level;

typedef struct {
    int fd;   /* the directory being emptied, -1 when there is none */
    DIR *dir; /* its listing, over a descriptor of its own */
    level *levels;
    size_t depth, room;
    char *root; /* the path to remove */
    int force;  /* directories of ours that can't be read are made readable */
    int done;
} remover;

static void stop(remover *r)
{
    if (r->dir != NULL)
        closedir(r->dir);
    r->dir = NULL;
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    while (r->depth > 0)
        free(r->levels[--r->depth].name);
    free(r->levels);
    r->levels = NULL;
    r->room = 0;
    free(r->root);
    r->root = NULL;
    r->done = 1;
}

static int remover_release(lua_State *L)
{
    stop(luaL_checkudata(L, 1, REMOVER));
    return 0;
}

static int list_again(remover *r)
{
    int copy;
    if (r->dir != NULL)
        closedir(r->dir);
    r->dir = NULL;
    copy = openat(r->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0)
        return -1;
    r->dir = fdopendir(copy);
    if (r->dir == NULL) {
        close(copy);
        return -1;
    }
    return 0;
}

static int open_dir(const remover *r, int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES && r->force) {
        struct stat st;
        /* Without following: what was a directory a moment ago must still be one. */
        if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
            fchmodat(at, name, 0700, 0) == 0)
            fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        else
            errno = EACCES;
    }
    return fd;
}

static void make_writable(int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && (st.st_mode & 0700) != 0700)
        (void)fchmod(fd, 0700);
}

static int descend(remover *r, const char *name)
{
    struct stat st;
    int fd = open_dir(r, r->fd, name);
    char *copy;
    if (fd < 0)
        return -1;
    if (r->force)
        make_writable(fd);
    if (r->depth == r->room) {
        size_t room = r->room ? r->room * 2 : 16;
        level *levels = realloc(r->levels, room * sizeof(level));
        if (levels == NULL) {
            close(fd);
            return -1;
        }
        r->levels = levels;
        r->room = room;
    }
    copy = strdup(name);
    if (copy == NULL || fstat(r->fd, &st) != 0) {
        free(copy);
        close(fd);
        return -1;
    }
    r->levels[r->depth].dev = st.st_dev;
    r->levels[r->depth].ino = st.st_ino;
    r->levels[r->depth].name = copy;
    r->depth++;
    close(r->fd);
    r->fd = fd;
    return list_again(r);
}

/* The directory is empty: leaves it and removes it. */
static int ascend(remover *r)
{
    struct stat st;
    level *up;
    int fd, result;
    if (r->dir != NULL)
        closedir(r->dir);
    r->dir = NULL;
    if (r->depth == 0) {
        close(r->fd);
        r->fd = -1;
        if (rmdir(r->root) != 0 && errno != ENOENT)
            return -1;
        r->done = 1;
        return 0;
    }
    up = &r->levels[r->depth - 1];
    fd = openat(r->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) != 0 || st.st_dev != up->dev || st.st_ino != up->ino) {
        close(fd);
        errno = EAGAIN; /* somebody moved it away meanwhile */
        return -1;
    }
    close(r->fd);
    r->fd = fd;
    result = unlinkat(fd, up->name, AT_REMOVEDIR);
    if (result != 0 && errno == ENOENT)
        result = 0;
    if (result != 0 && errno == ENOTEMPTY) {
        /* Filled again while it was being emptied: once more. */
        result = 0;
    }
    free(up->name);
    r->depth--;
    if (result != 0)
        return -1;
    return list_again(r);
}

static int is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Removes one entry, or goes one directory down or up. */
static int one(remover *r)
{
    struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(r->dir);
    } while (entry != NULL && is_dot(entry->d_name));
    if (entry == NULL)
        return errno != 0 ? -1 : ascend(r);
    if (unlinkat(r->fd, entry->d_name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    {
        int error = errno;
        if (unlinkat(r->fd, entry->d_name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno == ENOTDIR) {
            errno = error;
            return -1;
        }
    }
    return descend(r, entry->d_name);
}

static int begin(remover *r)
{
    int error;
    if (unlink(r->root) == 0 || errno == ENOENT || errno == ENOTDIR) {
        r->done = 1;
        return 0;
    }
    error = errno;
    if (rmdir(r->root) == 0 || errno == ENOENT) {
        r->done = 1;
        return 0;
    }
    if (errno == ENOTDIR) {
        errno = error;
        return -1;
    }
    r->fd = open_dir(r, AT_FDCWD, r->root);
    if (r->fd < 0)
        return -1;
    if (r->force)
        make_writable(r->fd);
    return list_again(r);
}

/* step(n) -> true when all is gone | false after n entries with more to do | nil, message, errno (and it is over) */
static int remover_step(lua_State *L)
{
    remover *r = luaL_checkudata(L, 1, REMOVER);
    lua_Integer left = luaL_optinteger(L, 2, 256);
    while (!r->done && left-- > 0) {
        int result = r->fd < 0 ? begin(r) : one(r);
        if (result != 0) {
            int error = errno;
            stop(r);
            return e2b_fs_fail(L, error);
        }
    }
    if (r->done)
        stop(r);
    lua_pushboolean(L, r->done);
    return 1;
}

/* remover(path[, force]) -> a value whose step(n) removes; what isn't there is removed already */
static int fs_remover(lua_State *L)
{
    const char *path = e2b_native_path(L, 1);
    remover *r;
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    r = e2b_newuserdata(L, sizeof(*r));
    memset(r, 0, sizeof(*r));
    r->fd = -1;
    r->force = lua_toboolean(L, 2);
    luaL_setmetatable(L, REMOVER);
    r->root = strdup(path);
    if (r->root == NULL)
        return e2b_fs_fail(L, ENOMEM);
    return 1;
}

static const luaL_Reg methods[] = {{"step", remover_step}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"fs_remover", fs_remover}, {NULL, NULL}};

void e2b_native_tree(lua_State *L)
{
    e2b_native_type(L, REMOVER, methods, remover_release, NULL);
    luaL_setfuncs(L, functions, 0);
}
