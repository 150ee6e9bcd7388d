/* inotify as a value: its descriptor can be polled, its events come as tables. */
#include "fs.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/inotify.h>

#define INOTIFY "e2b.server.inotify"
#define WATCHED                                                                                                        \
    (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_ATTRIB | IN_MODIFY | IN_MOVE_SELF | IN_DELETE | IN_DELETE_SELF)

typedef struct {
    int fd;
} notifier;

static int notifier_release(lua_State *L)
{
    notifier *n = luaL_checkudata(L, 1, INOTIFY);
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
    return 0;
}

static notifier *check_notifier(lua_State *L)
{
    notifier *n = luaL_checkudata(L, 1, INOTIFY);
    if (n->fd < 0)
        luaL_error(L, "attempt to use a closed watcher");
    return n;
}

static int native_inotify(lua_State *L)
{
    notifier *n = e2b_newuserdata(L, sizeof(*n));
    n->fd = -1;
    luaL_setmetatable(L, INOTIFY);
    n->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (n->fd < 0)
        return e2b_fs_fail(L, errno);
    return 1;
}

static int notifier_fd(lua_State *L)
{
    lua_pushinteger(L, check_notifier(L)->fd);
    return 1;
}

/* add(path) -> the number its events will carry */
static int notifier_add(lua_State *L)
{
    notifier *n = check_notifier(L);
    const char *path = e2b_native_path(L, 2);
    int wd;
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    wd = inotify_add_watch(n->fd, path, WATCHED | IN_ONLYDIR);
    if (wd < 0)
        return e2b_fs_fail(L, errno);
    lua_pushinteger(L, wd);
    return 1;
}

static int notifier_remove(lua_State *L)
{
    notifier *n = check_notifier(L);
    if (inotify_rm_watch(n->fd, (int)luaL_checkinteger(L, 2)) != 0)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static const struct {
    unsigned int bit;
    const char *name;
} bits[] = {
    {IN_CREATE, "create"},           {IN_MOVED_TO, "moved_to"},   {IN_MOVED_FROM, "moved_from"},
    {IN_ATTRIB, "attrib"},           {IN_MODIFY, "modify"},       {IN_DELETE, "delete"},
    {IN_DELETE_SELF, "delete_self"}, {IN_MOVE_SELF, "move_self"}, {IN_ISDIR, "is_dir"},
    {IN_IGNORED, "ignored"},         {IN_Q_OVERFLOW, "overflow"}, {IN_UNMOUNT, "unmount"},
};

static void push_event(lua_State *L, const struct inotify_event *event)
{
    size_t i;
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, event->wd);
    lua_setfield(L, -2, "wd");
    if (event->len > 0) {
        lua_pushstring(L, event->name);
        lua_setfield(L, -2, "name");
    }
    for (i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        if (event->mask & bits[i].bit) {
            lua_pushboolean(L, 1);
            lua_setfield(L, -2, bits[i].name);
        }
}

/* read() -> list of events | false when there are none now | nil, message, errno.
 * An event: wd, name (absent for the watched directory itself), and true under each word that applies. */
static int notifier_read(lua_State *L)
{
    union {
        char bytes[16384];
        struct inotify_event aligned;
    } buffer;
    notifier *n = check_notifier(L);
    ssize_t got, at = 0;
    int count = 0;
    do
        got = read(n->fd, buffer.bytes, sizeof(buffer.bytes));
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (got < 0)
        return e2b_fs_fail(L, errno);
    lua_newtable(L);
    while (at + (ssize_t)sizeof(struct inotify_event) <= got) {
        const struct inotify_event *event = (const struct inotify_event *)(const void *)(buffer.bytes + at);
        push_event(L, event);
        lua_rawseti(L, -2, ++count);
        at += (ssize_t)(sizeof(struct inotify_event) + event->len);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    {"fd", notifier_fd},     {"add", notifier_add},         {"remove", notifier_remove},
    {"read", notifier_read}, {"close", notifier_release}, {NULL, NULL},
};

static const luaL_Reg functions[] = {{"inotify", native_inotify}, {NULL, NULL}};

void e2b_native_inotify(lua_State *L)
{
    e2b_native_type(L, INOTIFY, methods, notifier_release, NULL);
    luaL_setfuncs(L, functions, 0);
}

#else

static int native_inotify(lua_State *L)
{
    return e2b_fs_fail(L, ENOTSUP);
}

static const luaL_Reg functions[] = {{"inotify", native_inotify}, {NULL, NULL}};

void e2b_native_inotify(lua_State *L)
{
    luaL_setfuncs(L, functions, 0);
}

#endif
