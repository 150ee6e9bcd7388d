/* What specs of the core need from the system on every Lua: fork, exit at once, wait, and the descriptor of a Lua file.
 * */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int l_fork(lua_State *L)
{
    fflush(NULL);
    lua_pushinteger(L, (lua_Integer)fork());
    return 1;
}

static int l_exit(lua_State *L)
{
    fflush(NULL);
    _exit((int)luaL_checkinteger(L, 1));
}

static int l_wait(lua_State *L)
{
    int status = 0;
    pid_t pid = waitpid((pid_t)luaL_checkinteger(L, 1), &status, 0);
    if (pid < 0)
        return 0;
    lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return 1;
}

/* A FILE * is the first thing in a file's userdata on every Lua. */
static int l_fileno(lua_State *L)
{
    FILE **file = luaL_checkudata(L, 1, LUA_FILEHANDLE);
    lua_pushinteger(L, fileno(*file));
    return 1;
}

/* pipe() -> reading end, writing end; neither blocks */
static int l_pipe(lua_State *L)
{
    int ends[2], i;
    if (pipe(ends) != 0)
        return luaL_error(L, "no pipe");
    for (i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
        lua_pushinteger(L, ends[i]);
    }
    return 2;
}

static int l_close(lua_State *L)
{
    lua_pushinteger(L, close((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int l_open(lua_State *L)
{
    lua_pushinteger(L, open(luaL_checkstring(L, 1), (int)luaL_optinteger(L, 2, O_RDONLY)));
    return 1;
}

/* Is this descriptor open in this process? */
static int l_is_open(lua_State *L)
{
    lua_pushboolean(L, fcntl((int)luaL_checkinteger(L, 1), F_GETFD) >= 0);
    return 1;
}

static int l_is_cloexec(lua_State *L)
{
    int flags = fcntl((int)luaL_checkinteger(L, 1), F_GETFD);
    lua_pushboolean(L, flags >= 0 && (flags & FD_CLOEXEC) != 0);
    return 1;
}

/* poll(fd, seconds) -> is it readable? */
static int l_poll(lua_State *L)
{
    struct pollfd one;
    one.fd = (int)luaL_checkinteger(L, 1);
    one.events = POLLIN;
    lua_pushboolean(L, poll(&one, 1, (int)(luaL_checknumber(L, 2) * 1000) + 1) > 0);
    return 1;
}

static void nothing(int number)
{
    (void)number;
}

/* From now on this signal interrupts system calls and does nothing else. */
static int l_on_signal(lua_State *L)
{
    struct sigaction action;
    action.sa_handler = nothing;
    action.sa_flags = 0;
    sigemptyset(&action.sa_mask);
    sigaction((int)luaL_checkinteger(L, 1), &action, NULL);
    return 0;
}

int luaopen_e2b_spec_posix(lua_State *L);

int luaopen_e2b_spec_posix(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "fork", l_fork },   { "exit", l_exit }, { "wait", l_wait },       { "fileno", l_fileno },
        { "pipe", l_pipe },   { "close", l_close }, { "is_open", l_is_open }, { "is_cloexec", l_is_cloexec },
        { "open", l_open },   { "poll", l_poll }, { "on_signal", l_on_signal }, { NULL, NULL },
    };
    int i;
    lua_newtable(L);
    for (i = 0; functions[i].name != NULL; i++) {
        lua_pushcfunction(L, functions[i].func);
        lua_setfield(L, -2, functions[i].name);
    }
    return 1;
}
