/* Extended attributes by path, links followed. Where a filesystem or a system has none, there are none. */
#include "fs.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/xattr.h>
#endif

#if defined(__linux__)

#define SCRATCH "e2b.server.scratch"
#define TRIES 4 /* somebody may add attributes between asking for a size and asking for the bytes */

typedef struct {
    char *names, *value;
} scratch;

static int scratch_release(lua_State *L)
{
    scratch *s = luaL_checkudata(L, 1, SCRATCH);
    free(s->names);
    free(s->value);
    s->names = s->value = NULL;
    return 0;
}

static ssize_t read_names(const char *path, char **names)
{
    int i;
    for (i = 0; i < TRIES; i++) {
        ssize_t size = listxattr(path, NULL, 0);
        char *grown;
        if (size <= 0)
            return size;
        grown = realloc(*names, (size_t)size);
        if (grown == NULL) {
            errno = ENOMEM;
            return -1;
        }
        *names = grown;
        size = listxattr(path, *names, (size_t)size);
        if (size >= 0 || errno != ERANGE)
            return size;
    }
    return -1;
}

static ssize_t read_value(const char *path, const char *name, char **value)
{
    int i;
    for (i = 0; i < TRIES; i++) {
        ssize_t size = getxattr(path, name, NULL, 0);
        char *grown;
        if (size <= 0)
            return size;
        grown = realloc(*value, (size_t)size);
        if (grown == NULL) {
            errno = ENOMEM;
            return -1;
        }
        *value = grown;
        size = getxattr(path, name, *value, (size_t)size);
        if (size >= 0 || errno != ERANGE)
            return size;
    }
    return -1;
}

/* xattrs(path, prefix) -> { [name without prefix] = value } | nil when there are none of that prefix */
static int fs_xattrs(lua_State *L)
{
    const char *path = e2b_native_path(L, 1), *prefix = luaL_checkstring(L, 2), *at;
    size_t length = strlen(prefix);
    ssize_t size;
    scratch *s;
    int found = 0;
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    /* Nearly every file has none: no garbage for those. */
    size = listxattr(path, NULL, 0);
    if (size == 0)
        return 0;
    if (size < 0)
        return e2b_fs_fail(L, errno);
    s = e2b_newuserdata(L, sizeof(*s));
    s->names = s->value = NULL;
    luaL_setmetatable(L, SCRATCH);
    size = read_names(path, &s->names);
    if (size < 0)
        return e2b_fs_fail(L, errno);
    lua_newtable(L);
    for (at = s->names; size > 0 && at < s->names + size; at += strlen(at) + 1) {
        ssize_t got;
        if (strncmp(at, prefix, length) != 0)
            continue;
        got = read_value(path, at, &s->value);
        if (got < 0)
            continue;
        lua_pushstring(L, at + length);
        lua_pushlstring(L, got > 0 ? s->value : "", (size_t)got);
        lua_rawset(L, -3);
        found = 1;
    }
    return found;
}

static int fs_setxattr(lua_State *L)
{
    size_t size;
    const char *path = e2b_native_path(L, 1), *name = luaL_checkstring(L, 2), *value = luaL_checklstring(L, 3, &size);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    if (setxattr(path, name, value, size, 0) != 0)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static int fs_removexattr(lua_State *L)
{
    const char *path = e2b_native_path(L, 1), *name = luaL_checkstring(L, 2);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    if (removexattr(path, name) != 0)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static const luaL_Reg functions[] = {
    {"fs_xattrs", fs_xattrs},
    {"fs_setxattr", fs_setxattr},
    {"fs_removexattr", fs_removexattr},
    {NULL, NULL},
};

void e2b_native_xattr(lua_State *L)
{
    e2b_native_type(L, SCRATCH, NULL, scratch_release, NULL);
    luaL_setfuncs(L, functions, 0);
}

#else

static int none(lua_State *L)
{
    return e2b_fs_fail(L, ENOTSUP);
}

static const luaL_Reg functions[] = {
    {"fs_xattrs", none},
    {"fs_setxattr", none},
    {"fs_removexattr", none},
    {NULL, NULL},
};

void e2b_native_xattr(lua_State *L)
{
    luaL_setfuncs(L, functions, 0);
}

#endif
