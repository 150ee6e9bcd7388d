/* e2b.server.native: the system calls that the local server's daemon needs and Lua does not have. Descriptors and
 * process ids are plain numbers: whoever got one closes it or waits for it. */
#include "native.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define READ_MAX 65536
#define DESCRIPTORS_MAX 65536

void e2b_native_close(int fd)
{
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
}

static int succeed(lua_State *L, int result)
{
    if (result != 0)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

/* read(fd, most) -> bytes   false: nothing there now   nil: the end   nil, message, errno */
static int l_read(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    lua_Integer most = luaL_checkinteger(L, 2);
    char bytes[READ_MAX];
    ssize_t got;
    luaL_argcheck(L, most > 0, 2, "must be positive");
    do {
        got = read(fd, bytes, most < READ_MAX ? (size_t)most : READ_MAX);
    } while (got < 0 && errno == EINTR);
    if (got > 0)
        lua_pushlstring(L, bytes, (size_t)got);
    else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        lua_pushboolean(L, 0);
    else if (got == 0 || errno == EIO)
        lua_pushnil(L);
    else
        return e2b_fs_fail(L, errno);
    return 1;
}

/* write(fd, bytes, from = 1) -> how many were taken   false: none now   nil, message, errno */
static int l_write(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    size_t len;
    const char *bytes = luaL_checklstring(L, 2, &len);
    lua_Integer from = luaL_optinteger(L, 3, 1);
    ssize_t put;
    luaL_argcheck(L, from >= 1 && (size_t)from <= len + 1, 3, "outside the bytes");
    do {
        put = write(fd, bytes + from - 1, len - (size_t)from + 1);
    } while (put < 0 && errno == EINTR);
    if (put >= 0)
        e2b_pushwhole(L, put);
    else if (errno == EAGAIN || errno == EWOULDBLOCK)
        lua_pushboolean(L, 0);
    else
        return e2b_fs_fail(L, errno);
    return 1;
}

static int l_close(lua_State *L)
{
    /* After EINTR the descriptor is gone all the same where this runs. */
    int result = close((int)luaL_checkinteger(L, 1));
    return succeed(L, result != 0 && errno == EINTR ? 0 : result);
}

/* resize(fd, cols, rows): the size of the terminal behind fd */
static int l_resize(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    struct winsize size;
    memset(&size, 0, sizeof size);
    size.ws_col = (unsigned short)((lua_Integer)luaL_checknumber(L, 2) & 0xFFFF);
    size.ws_row = (unsigned short)((lua_Integer)luaL_checknumber(L, 3) & 0xFFFF);
    return succeed(L, ioctl(fd, TIOCSWINSZ, &size));
}

/* umask(mask) -> the one before */
static int l_umask(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)umask((mode_t)luaL_checkinteger(L, 1)));
    return 1;
}

/* ids() -> effective uid, gid */
static int l_ids(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)geteuid());
    lua_pushinteger(L, (lua_Integer)getegid());
    return 2;
}

/* raise_descriptors() -> how many this process could have open so far; from now on as many as it may ask for */
static int l_raise_descriptors(lua_State *L)
{
    struct rlimit limit;
    rlim_t before;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return e2b_fs_fail(L, errno);
    before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max > DESCRIPTORS_MAX ? DESCRIPTORS_MAX
                                                                                        : limit.rlim_max;
    if (limit.rlim_cur > before)
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    lua_pushnumber(L, before == RLIM_INFINITY ? 0 : (lua_Number)before);
    return 1;
}

E2B_EXPORT int luaopen_e2b_server_native(lua_State *L);

E2B_EXPORT int luaopen_e2b_server_native(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "read", l_read },     { "write", l_write }, { "close", l_close }, { "resize", l_resize },
        { "umask", l_umask },   { "ids", l_ids },     { "raise_descriptors", l_raise_descriptors },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_setfuncs(L, functions, 0);
    e2b_native_base64(L);
    e2b_native_process(L);
    e2b_native_spawn(L);
    e2b_native_fs(L);
    return 1;
}
