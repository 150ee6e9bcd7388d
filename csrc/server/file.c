/* An open file as a value that can't leak. Regular files never block; whatever else a path may be (a pipe, a device) is
 * opened and used without blocking, because one thread serves the whole sandbox. */
#include "fs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_TYPE "e2b.server.file"
#define MAX_READ (4 * 1024 * 1024)
#define COPY_PIECE (256 * 1024)

typedef struct {
    int fd;
    char *buffer;
    size_t room;
} native_file;

static native_file *check_file(lua_State *L, int index)
{
    native_file *file = luaL_checkudata(L, index, FILE_TYPE);
    if (file->fd < 0)
        luaL_error(L, "attempt to use a closed file");
    return file;
}

static int file_release(lua_State *L)
{
    native_file *file = luaL_checkudata(L, 1, FILE_TYPE);
    int fd = file->fd;
    file->fd = -1;
    free(file->buffer);
    file->buffer = NULL;
    file->room = 0;
    if (fd >= 0 && close(fd) != 0 && errno != EINTR)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static int file_text(lua_State *L)
{
    native_file *file = luaL_checkudata(L, 1, FILE_TYPE);
    lua_pushstring(L, file->fd < 0 ? "file (closed)" : "file");
    return 1;
}

/* open(path, how[, mode]) -> file. "r" reads, "w" creates or truncates, "wx" creates and never opens what is there. */
static int fs_open(lua_State *L)
{
    static const char *const names[] = {"r", "w", "wx", NULL};
    static const int flags[] = {O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_EXCL};
    const char *path = e2b_native_path(L, 1);
    int how = luaL_checkoption(L, 2, NULL, names);
    int mode = (int)luaL_optinteger(L, 3, 0666);
    native_file *file;
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    file = e2b_newuserdata(L, sizeof(*file));
    file->fd = -1;
    file->buffer = NULL;
    file->room = 0;
    luaL_setmetatable(L, FILE_TYPE);
    do
        file->fd = open(path, flags[how] | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, (mode_t)mode);
    while (file->fd < 0 && errno == EINTR);
    if (file->fd < 0)
        return e2b_fs_fail(L, errno);
    return 1;
}

static int file_fd(lua_State *L)
{
    lua_pushinteger(L, check_file(L, 1)->fd);
    return 1;
}

static int make_room(native_file *file, size_t size)
{
    char *buffer;
    if (file->room >= size)
        return 0;
    buffer = realloc(file->buffer, size);
    if (buffer == NULL)
        return -1;
    file->buffer = buffer;
    file->room = size;
    return 0;
}

/* read(n) -> bytes | nil at the end | false when nothing is there now | nil, message, errno */
static int file_read(lua_State *L)
{
    native_file *file = check_file(L, 1);
    lua_Number wanted = luaL_checknumber(L, 2);
    ssize_t got;
    luaL_argcheck(L, wanted >= 1 && wanted <= MAX_READ, 2, "not between 1 and 4 MiB");
    if (make_room(file, (size_t)wanted) != 0)
        return e2b_fs_fail(L, ENOMEM);
    do
        got = read(file->fd, file->buffer, (size_t)wanted);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (got < 0)
        return e2b_fs_fail(L, errno);
    if (got == 0)
        return 0;
    lua_pushlstring(L, file->buffer, (size_t)got);
    return 1;
}

/* write(bytes[, from]) -> how many bytes were taken, which is fewer only when more would block */
static int file_write(lua_State *L)
{
    native_file *file = check_file(L, 1);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);
    lua_Number from = luaL_optnumber(L, 3, 1);
    size_t at, done = 0;
    luaL_argcheck(L, from >= 1 && from <= (lua_Number)length + 1, 3, "not inside the string");
    at = (size_t)from - 1;
    while (at + done < length) {
        ssize_t put = write(file->fd, bytes + at + done, length - at - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (put < 0)
            return e2b_fs_fail(L, errno);
        done += (size_t)put;
    }
    e2b_pushwhole(L, (long long)done);
    return 1;
}

/* seek(whence, offset) -> position; "set", "cur", "end" */
static int file_seek(lua_State *L)
{
    static const char *const names[] = {"set", "cur", "end", NULL};
    static const int whences[] = {SEEK_SET, SEEK_CUR, SEEK_END};
    native_file *file = check_file(L, 1);
    int how = luaL_checkoption(L, 2, "cur", names);
    off_t at = lseek(file->fd, (off_t)luaL_optnumber(L, 3, 0), whences[how]);
    if (at < 0)
        return e2b_fs_fail(L, errno);
    e2b_pushwhole(L, (long long)at);
    return 1;
}

static int file_stat(lua_State *L)
{
    struct stat st;
    if (fstat(check_file(L, 1)->fd, &st) != 0)
        return e2b_fs_fail(L, errno);
    e2b_native_push_stat(L, &st);
    return 1;
}

static int file_truncate(lua_State *L)
{
    native_file *file = check_file(L, 1);
    if (ftruncate(file->fd, (off_t)luaL_checknumber(L, 2)) != 0)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static int file_chown(lua_State *L)
{
    native_file *file = check_file(L, 1);
    if (fchown(file->fd, (uid_t)luaL_checkinteger(L, 2), (gid_t)luaL_checkinteger(L, 3)) != 0)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static int write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t put = write(fd, bytes, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        bytes += put;
        length -= (size_t)put;
    }
    return 0;
}

/* copy(source, n) -> how many bytes came over, 0 at the source's end. Inside the kernel where that is possible. */
static int file_copy(lua_State *L)
{
    native_file *to = check_file(L, 1), *from = check_file(L, 2);
    lua_Number wanted = luaL_checknumber(L, 3);
    ssize_t got = -1;
    size_t size;
    luaL_argcheck(L, wanted >= 1 && wanted <= 1024.0 * 1024 * 1024, 3, "not between 1 and 1 GiB");
#if defined(__linux__)
    got = copy_file_range(from->fd, NULL, to->fd, NULL, (size_t)wanted, 0);
    if (got > 0) {
        e2b_pushwhole(L, (long long)got);
        return 1;
    }
    if (got < 0 && errno == ENOSPC)
        return e2b_fs_fail(L, errno);
#endif
    /* Files of /proc and the like answer 0 there although they have text, and two filesystems may not go together. */
    size = wanted < COPY_PIECE ? (size_t)wanted : COPY_PIECE;
    if (make_room(to, size) != 0)
        return e2b_fs_fail(L, ENOMEM);
    do
        got = read(from->fd, to->buffer, size);
    while (got < 0 && errno == EINTR);
    if (got < 0 || write_all(to->fd, to->buffer, (size_t)got) != 0)
        return e2b_fs_fail(L, errno);
    e2b_pushwhole(L, (long long)got);
    return 1;
}

static const luaL_Reg methods[] = {
    {"fd", file_fd},       {"read", file_read},   {"write", file_write}, {"seek", file_seek},
    {"stat", file_stat},   {"copy", file_copy},   {"truncate", file_truncate}, {"chown", file_chown},
    {"close", file_release}, {NULL, NULL},
};

static const luaL_Reg functions[] = {{"fs_open", fs_open}, {NULL, NULL}};

void e2b_native_file(lua_State *L)
{
    e2b_native_type(L, FILE_TYPE, methods, file_release, file_text);
    luaL_setfuncs(L, functions, 0);
}
