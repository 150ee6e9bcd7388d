/* Processes: waiting for those that ended, signals, and who descends from this one. */
#include "native.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

/* wait() -> pid, exited, exit code | signal, core dumped   of one child that has ended; nil when none has */
static int l_wait(lua_State *L)
{
    int status = 0;
    pid_t pid;
    do {
        pid = waitpid(-1, &status, WNOHANG);
    } while (pid < 0 && errno == EINTR);
    if (pid <= 0) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)pid);
    lua_pushboolean(L, WIFEXITED(status));
    lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
#if defined(WCOREDUMP)
    lua_pushboolean(L, WIFSIGNALED(status) && WCOREDUMP(status));
#else
    lua_pushboolean(L, 0);
#endif
    return 4;
}

/* kill(pid, signal) -> true | nil, message, errno */
static int l_kill(lua_State *L)
{
    if (kill((pid_t)luaL_checkinteger(L, 1), (int)luaL_checkinteger(L, 2)) != 0)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

/* subreaper() -> true when orphans among its descendants become children of this process */
static int l_subreaper(lua_State *L)
{
#if defined(__linux__) && defined(PR_SET_CHILD_SUBREAPER)
    lua_pushboolean(L, prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
#else
    lua_pushboolean(L, 0);
#endif
    return 1;
}

/* session() -> true: this process leads a session of its own, out of reach of its parent's terminal */
static int l_session(lua_State *L)
{
    lua_pushboolean(L, setsid() >= 0);
    return 1;
}

static int l_pid(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)getpid());
    return 1;
}

typedef struct {
    pid_t pid, parent;
    char state;
    int ours;
} entry;

/* Reads /proc/<name>/stat. The command in it may hold anything, so what follows its last parenthesis counts. */
static int read_entry(const char *name, entry *one)
{
    char path[64], text[1024], *rest;
    ssize_t got;
    int fd;
    long parent;
    snprintf(path, sizeof path, "/proc/%.20s/stat", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    rest = strrchr(text, ')');
    if (rest == NULL || sscanf(rest, ") %c %ld", &one->state, &parent) != 2)
        return 0;
    one->pid = (pid_t)strtol(name, NULL, 10);
    one->parent = (pid_t)parent;
    one->ours = 0;
    return 1;
}

static size_t read_entries(entry *list, size_t room)
{
    DIR *proc = opendir("/proc");
    struct dirent *found;
    size_t count = 0;
    if (proc == NULL)
        return 0;
    while ((found = readdir(proc)) != NULL) {
        if (!isdigit((unsigned char)found->d_name[0]))
            continue;
        if (count < room) {
            if (read_entry(found->d_name, &list[count]))
                count++;
        } else {
            count++; /* says how much room there should be */
        }
    }
    closedir(proc);
    return count;
}

static int by_pid(const void *a, const void *b)
{
    const entry *one = a, *other = b;
    return one->pid < other->pid ? -1 : one->pid > other->pid;
}

/* Sorts the list and marks the descendants of root. Most children have a higher pid than their parent. */
static void mark(entry *list, size_t count, pid_t root)
{
    size_t i;
    int found = 1;
    entry *parent, key;
    memset(&key, 0, sizeof key);
    qsort(list, count, sizeof *list, by_pid);
    for (i = 0; i < count; i++)
        list[i].ours = list[i].parent == root;
    while (found) {
        found = 0;
        for (i = 0; i < count; i++) {
            if (list[i].ours)
                continue;
            key.pid = list[i].parent;
            parent = bsearch(&key, list, count, sizeof *list, by_pid);
            if (parent != NULL && parent->ours)
                list[i].ours = found = 1;
        }
    }
}

/* descendants() -> list of pids, list of their states ("R", "S", "T" stopped, "Z" ended …), list of their parents
 * what descends from this process; empty lists without /proc */
static int l_descendants(lua_State *L)
{
    size_t room = 256, count, i;
    lua_Integer at = 0;
    entry *list;
    for (;;) {
        list = e2b_newuserdata(L, room * sizeof *list);
        count = read_entries(list, room);
        if (count <= room)
            break;
        lua_pop(L, 1);
        room = count + 256;
    }
    mark(list, count, getpid());
    lua_newtable(L);
    lua_newtable(L);
    lua_newtable(L);
    for (i = 0; i < count; i++) {
        if (!list[i].ours)
            continue;
        at++;
        lua_pushinteger(L, (lua_Integer)list[i].pid);
        lua_rawseti(L, -4, (int)at);
        lua_pushlstring(L, &list[i].state, 1);
        lua_rawseti(L, -3, (int)at);
        lua_pushinteger(L, (lua_Integer)list[i].parent);
        lua_rawseti(L, -2, (int)at);
    }
    return 3;
}

int e2b_native_process(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "wait", l_wait },       { "kill", l_kill }, { "subreaper", l_subreaper },
        { "session", l_session }, { "pid", l_pid },   { "descendants", l_descendants },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
    return 0;
}
