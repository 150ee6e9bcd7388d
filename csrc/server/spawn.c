/* Starting a process with pipes or with a terminal of its own. Everything that needs memory or Lua happens before the
 * fork; the child makes system calls only. What fails in it before the program runs comes back through a pipe; that
 * the program cannot be run is no failure here: the child says so on its standard error and exits with 127 or 126, as
 * a shell does. */
#include "native.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static const char *const STEPS[] = { "setup", "groups", "user", "cwd" };

/* ---- descriptors ---- */

/* The six ends: [0] the child's, [1] ours; -1 none. */
typedef struct {
    int ends[FD_COUNT][2];
    int report[2];
    int pty;
} descriptors;

static void close_all(descriptors *d)
{
    int i, j;
    for (i = 0; i < FD_COUNT; i++) {
        for (j = 0; j < 2; j++) {
            e2b_native_close(d->ends[i][j]);
            d->ends[i][j] = -1;
        }
    }
    for (j = 0; j < 2; j++) {
        e2b_native_close(d->report[j]);
        d->report[j] = -1;
    }
    e2b_native_close(d->pty);
    d->pty = -1;
}

/* Moves a descriptor out of the way of the child's standard ones. */
static int lift(int fd)
{
    int higher;
    if (fd < 0 || fd >= FD_COUNT)
        return fd;
    higher = fcntl(fd, F_DUPFD_CLOEXEC, FD_COUNT);
    e2b_native_close(fd);
    return higher;
}

static int make_pipe(int *reading, int *writing)
{
    int ends[2];
    if (pipe(ends) != 0)
        return 0;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    *reading = lift(ends[0]);
    *writing = lift(ends[1]);
    return *reading >= 0 && *writing >= 0;
}

static int stop_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static int open_null(int i)
{
    return lift(open("/dev/null", (i == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC));
}

/* One standard descriptor: "pipe", "null" or "inherit". */
static int open_standard(descriptors *d, int i, const char *how)
{
    if (strcmp(how, "inherit") == 0)
        return 1;
    if (strcmp(how, "null") == 0)
        return (d->ends[i][0] = open_null(i)) >= 0;
    if (i == 0 ? !make_pipe(&d->ends[i][0], &d->ends[i][1]) : !make_pipe(&d->ends[i][1], &d->ends[i][0]))
        return 0;
    return stop_blocking(d->ends[i][1]);
}

static int open_terminal(descriptors *d, const struct winsize *size, const e2b_plan *p)
{
    const char *name;
    int i, slave;
    d->pty = lift(posix_openpt(O_RDWR | O_NOCTTY));
    if (d->pty < 0 || fcntl(d->pty, F_SETFD, FD_CLOEXEC) != 0)
        return 0;
    if (grantpt(d->pty) != 0 || unlockpt(d->pty) != 0 || (name = ptsname(d->pty)) == NULL)
        return 0;
    slave = lift(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (slave < 0)
        return 0;
    d->ends[0][0] = slave;
    if (ioctl(d->pty, TIOCSWINSZ, size) != 0 || !stop_blocking(d->pty))
        return 0;
    /* So that the user can open the terminal by its name; without the right to that it works by its descriptor. */
    if (p->change_ids && fchown(slave, p->uid, (gid_t)-1) != 0)
        errno = 0;
    for (i = 1; i < FD_COUNT; i++) {
        d->ends[i][0] = fcntl(slave, F_DUPFD_CLOEXEC, FD_COUNT);
        if (d->ends[i][0] < 0)
            return 0;
    }
    return 1;
}

/* ---- the options ---- */

static const char *string_of(lua_State *L, const char *what)
{
    size_t len;
    const char *text;
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "spawn: %s must be a string", what);
    text = lua_tolstring(L, -1, &len);
    if (strlen(text) != len)
        luaL_error(L, "spawn: %s holds a zero byte", what);
    return text;
}

/* The strings of the list on top of the stack, which stays there and owns them; NULL at the end. */
static const char **strings_of(lua_State *L, const char *what, size_t spare)
{
    size_t count, i;
    const char **list;
    int from = lua_gettop(L);
    if (!lua_istable(L, from))
        luaL_error(L, "spawn: %s must be a list", what);
    count = lua_rawlen(L, from);
    list = e2b_newuserdata(L, (count + 1 + spare) * sizeof *list);
    for (i = 0; i < count; i++) {
        lua_rawgeti(L, from, (int)i + 1);
        list[i] = string_of(L, what);
        lua_pop(L, 1);
    }
    list[count] = NULL;
    return list;
}

static lua_Integer integer_field(lua_State *L, int options, const char *name, lua_Integer otherwise)
{
    lua_Integer value = otherwise;
    lua_getfield(L, options, name);
    if (!lua_isnil(L, -1))
        value = (lua_Integer)luaL_checknumber(L, -1);
    lua_pop(L, 1);
    return value;
}

/* Pushes the paths under which the program may be: by the child's PATH, unless its name has a slash. */
static const char **programs_of(lua_State *L, const e2b_plan *p)
{
    const char *name = p->argv[0] != NULL ? p->argv[0] : "", *path = DEFAULT_PATH, *end;
    size_t i, count = 0;
    lua_newtable(L);
    if (strchr(name, '/') != NULL || *name == '\0') {
        lua_pushstring(L, name);
        lua_rawseti(L, -2, 1);
        return strings_of(L, "argv", 0);
    }
    for (i = 0; p->env[i] != NULL; i++) {
        if (strncmp(p->env[i], "PATH=", 5) == 0)
            path = p->env[i] + 5;
    }
    for (;; path = end + 1) {
        end = strchr(path, ':');
        if (end == NULL)
            end = path + strlen(path);
        lua_pushlstring(L, path, (size_t)(end - path));
        if (end > path)
            lua_pushliteral(L, "/");
        else
            lua_pushliteral(L, "./");
        lua_pushstring(L, name);
        lua_concat(L, 3);
        lua_rawseti(L, -2, (int)++count);
        if (*end == '\0')
            return strings_of(L, "argv", 0);
    }
}

static void read_groups(lua_State *L, int options, e2b_plan *p)
{
    size_t i;
    lua_getfield(L, options, "groups");
    if (lua_isnil(L, -1))
        return;
    luaL_checktype(L, -1, LUA_TTABLE);
    p->change_groups = 1;
    p->group_count = lua_rawlen(L, -1);
    p->groups = e2b_newuserdata(L, (p->group_count + 1) * sizeof *p->groups);
    for (i = 0; i < p->group_count; i++) {
        lua_rawgeti(L, -2, (int)i + 1);
        p->groups[i] = (gid_t)luaL_checknumber(L, -1);
        lua_pop(L, 1);
    }
}

/* Everything but descriptors. Leaves on the stack what owns the memory. */
static void read_plan(lua_State *L, int options, e2b_plan *p)
{
    size_t count, i;
    memset(p, 0, sizeof *p);
    for (i = 0; i < FD_COUNT; i++)
        p->child[i] = -1;
    lua_getfield(L, options, "argv");
    p->argv = strings_of(L, "argv", 0);
    luaL_argcheck(L, p->argv[0] != NULL, 1, "argv is empty");
    for (count = 0; p->argv[count] != NULL; count++)
        continue;
    lua_getfield(L, options, "env");
    p->env = strings_of(L, "env", 0);
    p->programs = programs_of(L, p);
    p->shell = e2b_newuserdata(L, (count + 2) * sizeof *p->shell);
    p->shell[0] = "/bin/sh";
    p->shell[1] = NULL;
    for (i = 1; i <= count; i++)
        p->shell[i + 1] = p->argv[i];
    lua_getfield(L, options, "cwd");
    if (!lua_isnil(L, -1))
        p->cwd = string_of(L, "cwd");
    p->uid = (uid_t)integer_field(L, options, "uid", -1);
    p->gid = (gid_t)integer_field(L, options, "gid", -1);
    p->change_ids = p->uid != (uid_t)-1;
    luaL_argcheck(L, !p->change_ids || p->gid != (gid_t)-1, 1, "a uid needs a gid");
    read_groups(L, options, p);
    lua_getfield(L, options, "session");
    p->session = lua_toboolean(L, -1);
    p->death_signal = (int)integer_field(L, options, "death_signal", 0);
    p->descriptors = (long)integer_field(L, options, "descriptors", 0);
}

/* How the standard descriptor i is to be opened. */
static const char *manner(lua_State *L, int options, int i)
{
    static const char *const NAMES[] = { "stdin", "stdout", "stderr" };
    const char *how;
    lua_getfield(L, options, NAMES[i]);
    how = luaL_optstring(L, -1, "pipe");
    if (strcmp(how, "pipe") != 0 && strcmp(how, "null") != 0 && strcmp(how, "inherit") != 0)
        luaL_error(L, "spawn: %s must be \"pipe\", \"null\" or \"inherit\"", NAMES[i]);
    return how; /* the value stays on the stack */
}

/* ---- starting ---- */

/* Forks. Nothing of Lua is called here: the descriptors have no other owner. Returns the pid, or -1 with errno. */
static pid_t start(e2b_plan *p, descriptors *d, e2b_failure *why)
{
    sigset_t all;
    pid_t pid;
    ssize_t got;
    int i, saved;
    why->error = 0;
    if (!make_pipe(&d->report[0], &d->report[1]))
        return -1;
    for (i = 0; i < FD_COUNT; i++)
        p->child[i] = d->ends[i][0];
    p->report[1] = d->report[1];
    p->parent = getpid();
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &p->signals);
    pid = fork();
    if (pid == 0)
        e2b_child(p);
    saved = errno;
    sigprocmask(SIG_SETMASK, &p->signals, NULL);
    errno = saved;
    if (pid < 0)
        return -1;
    e2b_native_close(d->report[1]);
    d->report[1] = -1;
    do {
        got = read(d->report[0], why, sizeof *why);
    } while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof *why) {
        why->error = 0;
        return pid;
    }
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    errno = why->error;
    return -1;
}

static void fill_result(lua_State *L, const int *fds, pid_t pid)
{
    static const char *const NAMES[] = { "stdin", "stdout", "stderr", "pty" };
    int i;
    lua_pushinteger(L, (lua_Integer)pid);
    lua_setfield(L, -2, "pid");
    for (i = 0; i < 4; i++) {
        if (fds[i] >= 0)
            lua_pushinteger(L, fds[i]);
        else
            lua_pushnil(L);
        lua_setfield(L, -2, NAMES[i]);
    }
}

/* spawn{ argv, env, cwd?, uid?, gid?, groups?, stdin?, stdout?, stderr? = "pipe" | "null" | "inherit",
 *        pty? = { cols, rows }, session?, death_signal?, descriptors? (the most it may have open) }
 *   -> { pid, stdin, stdout, stderr, pty }   our ends, which do not block, as far as there are any
 *   nil, message, errno, step ("setup", "groups", "user", "cwd") */
static int l_spawn(lua_State *L)
{
    e2b_plan p;
    descriptors d;
    e2b_failure why;
    struct winsize size;
    const char *how[FD_COUNT];
    int i, made, fds[4];
    pid_t pid;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_checkstack(L, 32, NULL);
    read_plan(L, 1, &p);
    for (i = 0; i < FD_COUNT; i++)
        how[i] = manner(L, 1, i);
    memset(&size, 0, sizeof size);
    lua_getfield(L, 1, "pty");
    p.terminal = !lua_isnil(L, -1);
    if (p.terminal) {
        luaL_checktype(L, -1, LUA_TTABLE);
        size.ws_col = (unsigned short)(integer_field(L, lua_gettop(L), "cols", 0) & 0xFFFF);
        size.ws_row = (unsigned short)(integer_field(L, lua_gettop(L), "rows", 0) & 0xFFFF);
    }
    /* The answer is made first, with its fields, so that nothing can be raised once there are descriptors. */
    lua_newtable(L);
    for (i = 0; i < 4; i++)
        fds[i] = 0;
    fill_result(L, fds, 0);

    memset(&d, -1, sizeof d);
    made = 1;
    if (p.terminal)
        made = open_terminal(&d, &size, &p);
    for (i = 0; made && !p.terminal && i < FD_COUNT; i++)
        made = open_standard(&d, i, how[i]);
    why.step = STEP_SETUP;
    pid = made ? start(&p, &d, &why) : -1;
    if (pid < 0) {
        int error = errno;
        close_all(&d);
        e2b_fs_fail(L, error);
        lua_pushstring(L, STEPS[why.error != 0 ? why.step : STEP_SETUP]);
        return 4;
    }
    for (i = 0; i < FD_COUNT; i++) {
        fds[i] = d.ends[i][1];
        d.ends[i][1] = -1;
    }
    fds[3] = d.pty;
    d.pty = -1;
    close_all(&d);
    fill_result(L, fds, pid);
    return 1;
}

int e2b_native_spawn(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "spawn", l_spawn },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
    return 0;
}
