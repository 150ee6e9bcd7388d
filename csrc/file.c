/* Local files: read from, or written under a temporary name that takes the place of the target when it is whole. */
#define _FILE_OFFSET_BITS 64
#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_LINKS 40       /* followed one after the other, as kernels do */
#define LINK_SIZE 4096      /* of a symbolic link's target */
#define MOST_READ (1 << 20) /* bytes a call */

/* ---- errors and arguments ---- */

int e2b_file_refused(lua_State *L, const char *what, const char *path, const char *text, int error)
{
    lua_pushnil(L);
    lua_pushfstring(L, "cannot %s '%s': %s", what, path, text);
    lua_pushinteger(L, error);
    return 3;
}

int e2b_file_failed(lua_State *L, const char *what, const char *path, int error)
{
    return e2b_file_refused(L, what, path, strerror(error), error);
}

int e2b_path_nul(lua_State *L, const char *what, int index)
{
    return e2b_file_refused(L, what, lua_tostring(L, index), "a path cannot hold a NUL byte", EINVAL);
}

const char *e2b_path_arg(lua_State *L, int index, size_t *len)
{
    const char *path = luaL_checklstring(L, index, len);
    return memchr(path, 0, *len) == NULL ? path : NULL;
}

mode_t e2b_mode_arg(lua_State *L, int index, mode_t otherwise)
{
    lua_Number mode;
    if (lua_isnoneornil(L, index))
        return otherwise;
    mode = luaL_checknumber(L, index);
    luaL_argcheck(L, mode >= 0 && mode < 2147483648.0 && mode == (lua_Number)(unsigned)mode, index,
                  "must be a file's mode");
    return (mode_t)((unsigned)mode & 0777u);
}

int e2b_openat(int dir, const char *name, int flags, mode_t mode)
{
    int fd;
    do
        fd = openat(dir, name, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* ---- the userdata ---- */

e2b_file *e2b_file_new(lua_State *L, const char *path, size_t len)
{
    e2b_file *f = e2b_newuserdata(L, sizeof *f + len);
    memset(f, 0, sizeof *f);
    f->fd = f->dir = -1;
    f->pid = getpid();
    memcpy(f->path, path, len);
    f->path[len] = '\0';
    luaL_setmetatable(L, E2B_FILE);
    return f;
}

void e2b_file_release(e2b_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    if (f->temp[0] != '\0' && f->pid == getpid()) /* a forked child leaves its parent's file alone */
        unlinkat(f->dir, f->temp, 0);
    if (f->dir >= 0)
        close(f->dir);
    free(f->buffer);
    f->fd = f->dir = -1;
    f->temp[0] = '\0';
    f->buffer = NULL;
    f->cap = 0;
}

static e2b_file *check_file(lua_State *L)
{
    e2b_file *f = luaL_checkudata(L, 1, E2B_FILE);
    if (f->fd < 0)
        luaL_error(L, "attempt to use a closed file");
    return f;
}

/* ---- opening ---- */

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode))
        return "it is a directory";
    if (S_ISCHR(mode) || S_ISBLK(mode))
        return "it is a device, not a file";
    if (S_ISSOCK(mode))
        return "it is a socket, not a file";
    if (S_ISFIFO(mode))
        return "it is a pipe, not a file";
    return "it is not a regular file";
}

static int kind_errno(mode_t mode)
{
    return S_ISDIR(mode) ? EISDIR : EINVAL;
}

/* core.file_open(path) -> file | nil, message, errno */
static int file_open(lua_State *L)
{
    size_t len;
    const char *path = e2b_path_arg(L, 1, &len);
    struct stat st;
    e2b_file *f;
    int error = 0;
    if (path == NULL)
        return e2b_path_nul(L, "read", 1);
    f = e2b_file_new(L, path, len);
    if (stat(path, &st) != 0)
        return e2b_file_failed(L, "read", path, errno);
    /* Looked at before it is opened: opening a device may do something. A pipe can keep a reader waiting without end;
     * no clock of ours would stop that, as libcurl reads from here by itself. */
    if (S_ISFIFO(st.st_mode))
        return e2b_file_refused(L, "read", path, "it is a pipe, not a file: a function that reads it can be given",
                                EINVAL);
    if (!S_ISREG(st.st_mode))
        return e2b_file_refused(L, "read", path, kind_of(st.st_mode), kind_errno(st.st_mode));
    f->fd = e2b_openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (f->fd < 0 || fstat(f->fd, &st) != 0)
        error = errno;
    else if (!S_ISREG(st.st_mode))
        error = EINVAL;
    if (error != 0) {
        e2b_file_release(f);
        return e2b_file_failed(L, "read", path, error);
    }
    return 1;
}

/* Opens the directory of `path`, seen from f->dir, and takes the last part as the name. 0 or an errno. */
static int enter(e2b_file *f, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    char folder[LINK_SIZE];
    size_t len = slash != NULL ? (size_t)(slash - path) : 0;
    int dir;
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return EISDIR;
    if (strlen(name) >= sizeof f->name || len + 2 > sizeof folder)
        return ENAMETOOLONG;
    if (slash == NULL) {
        folder[len++] = '.';
    } else {
        memcpy(folder, path, len);
        if (len == 0)
            folder[len++] = '/';
    }
    folder[len] = '\0';
    dir = e2b_openat(f->dir >= 0 ? f->dir : AT_FDCWD, folder, E2B_O_DIRECTORY, 0);
    if (dir < 0)
        return errno;
    if (f->dir >= 0)
        close(f->dir);
    f->dir = dir;
    memcpy(f->name, name, strlen(name) + 1);
    return 0;
}

/* Finds where the file really is: a link keeps being one, what it points to is replaced, also when it isn't there. */
static int resolve(e2b_file *f, const char *path)
{
    char target[LINK_SIZE];
    int links, error = enter(f, path);
    for (links = 0; error == 0; links++) {
        ssize_t len = readlinkat(f->dir, f->name, target, sizeof target - 1);
        if (len < 0)
            return errno == EINVAL || errno == ENOENT ? 0 : errno;
        if (len == (ssize_t)sizeof target - 1)
            return ENAMETOOLONG;
        if (links == MOST_LINKS)
            return ELOOP;
        target[len] = '\0';
        error = enter(f, target);
    }
    return error;
}

/* core.file_temp(path) -> file | nil, message, errno */
static int file_temp(lua_State *L)
{
    size_t len;
    const char *path = e2b_path_arg(L, 1, &len);
    struct stat st;
    e2b_file *f;
    int error;
    if (path == NULL)
        return e2b_path_nul(L, "write", 1);
    f = e2b_file_new(L, path, len);
    if (stat(path, &st) == 0) {
        if (!S_ISREG(st.st_mode))
            return e2b_file_refused(L, "write", path, kind_of(st.st_mode), kind_errno(st.st_mode));
        if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0) /* a rename would not ask */
            return e2b_file_failed(L, "write", path, errno);
    }
    error = len == 0 ? ENOENT : resolve(f, path);
    if (error == 0)
        error = e2b_file_begin(f);
    if (error != 0) {
        e2b_file_release(f);
        return e2b_file_failed(L, "write", path, error);
    }
    return 1;
}

/* ---- methods ---- */

/* file:fd() */
static int file_fd(lua_State *L)
{
    lua_pushinteger(L, check_file(L)->fd);
    return 1;
}

/* file:size() -> bytes, or nil where it has none */
static int file_size(lua_State *L)
{
    const e2b_file *f = check_file(L);
    struct stat st;
    if (fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode))
        e2b_pushwhole(L, (long long)st.st_size);
    else
        lua_pushnil(L);
    return 1;
}

/* file:read(n) -> bytes | nil at the end | nil, message, errno */
static int file_read(lua_State *L)
{
    e2b_file *f = check_file(L);
    lua_Number wanted = luaL_optnumber(L, 2, 65536);
    size_t n;
    ssize_t got;
    luaL_argcheck(L, wanted >= 1, 2, "must be a number of bytes");
    n = wanted < MOST_READ ? (size_t)wanted : MOST_READ;
    if (f->cap < n) {
        char *more = realloc(f->buffer, n);
        if (more == NULL)
            return luaL_error(L, "not enough memory");
        f->buffer = more;
        f->cap = n;
    }
    do
        got = read(f->fd, f->buffer, n);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return e2b_file_failed(L, "read", f->path, errno);
    if (got > 0)
        lua_pushlstring(L, f->buffer, (size_t)got);
    else
        lua_pushnil(L);
    return 1;
}

/* file:write(bytes) -> true | nil, message, errno */
static int file_write(lua_State *L)
{
    const e2b_file *f = check_file(L);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    while (len > 0) {
        ssize_t done = write(f->fd, data, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return e2b_file_failed(L, "write", f->path, errno);
        data += done;
        len -= (size_t)done;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* file:commit([mode]) -> true | nil, message, errno; closed either way */
static int file_commit(lua_State *L)
{
    e2b_file *f = check_file(L);
    mode_t mode = e2b_mode_arg(L, 2, f->mode);
    int error, fd;
    luaL_argcheck(L, f->dir >= 0, 1, "it was opened for reading");
    error = e2b_file_finish(f, f->has_mode || !lua_isnoneornil(L, 2) ? &mode : NULL);
    fd = f->fd;
    f->fd = -1;
    /* some file systems tell here that the disk was full */
    if (close(fd) != 0 && errno != EINTR && error == 0)
        error = errno;
    if (error == 0) {
        if (renameat(f->dir, f->temp, f->dir, f->name) == 0)
            f->temp[0] = '\0';
        else
            error = errno;
    }
    e2b_file_release(f);
    if (error != 0)
        return e2b_file_failed(L, "write", f->path, error);
    lua_pushboolean(L, 1);
    return 1;
}

/* file:close(); also __gc and __close */
static int file_close(lua_State *L)
{
    e2b_file_release(luaL_checkudata(L, 1, E2B_FILE));
    return 0;
}

static int file_tostring(lua_State *L)
{
    const e2b_file *f = luaL_checkudata(L, 1, E2B_FILE);
    if (f->fd < 0)
        lua_pushliteral(L, "e2b.file (closed)");
    else
        lua_pushfstring(L, "e2b.file (%s)", f->path);
    return 1;
}

int e2b_file_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "fd", file_fd },         { "size", file_size },     { "read", file_read }, { "write", file_write },
        { "commit", file_commit }, { "close", file_close }, { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", file_close }, { "__close", file_close }, { "__tostring", file_tostring }, { NULL, NULL },
    };
    static const luaL_Reg functions[] = { { "file_open", file_open }, { "file_temp", file_temp }, { NULL, NULL } };
    e2b_type(L, E2B_FILE, methods, meta);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
