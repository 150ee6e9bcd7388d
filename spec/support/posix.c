/* What specs of the core need from the system on every Lua: fork, exit at once, wait, the descriptor of a Lua file, and
 * terminals. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
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

/* terminal(cols, rows) -> our end, path of the other */
static int l_terminal(lua_State *L)
{
    struct winsize size;
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    memset(&size, 0, sizeof size);
    size.ws_col = (unsigned short)luaL_checkinteger(L, 1);
    size.ws_row = (unsigned short)luaL_checkinteger(L, 2);
    if (fd < 0 || grantpt(fd) != 0 || unlockpt(fd) != 0)
        return luaL_error(L, "no terminal: %s", strerror(errno));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    ioctl(fd, TIOCSWINSZ, &size);
    lua_pushinteger(L, fd);
    lua_pushstring(L, ptsname(fd));
    return 2;
}

/* resize(fd, cols, rows) */
static int l_resize(lua_State *L)
{
    struct winsize size;
    memset(&size, 0, sizeof size);
    size.ws_col = (unsigned short)luaL_checkinteger(L, 2);
    size.ws_row = (unsigned short)luaL_checkinteger(L, 3);
    lua_pushboolean(L, ioctl((int)luaL_checkinteger(L, 1), TIOCSWINSZ, &size) == 0);
    return 1;
}

/* run_at(path, word, ...) -> pid of a program whose terminal is that of the path, in a session of its own */
static int l_run_at(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *words[64];
    int i, n = lua_gettop(L) - 1;
    pid_t pid;
    luaL_argcheck(L, n > 0 && n < 63, 2, "words expected");
    for (i = 0; i < n; i++)
        words[i] = luaL_checkstring(L, i + 2);
    words[n] = NULL;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        int fd;
        setsid();
        fd = open(path, O_RDWR);
        ioctl(fd, TIOCSCTTY, 0);
        if (fd < 0 || dup2(fd, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
            _exit(126);
        if (fd > 2)
            close(fd);
        execvp(words[0], (char *const *)words);
        _exit(127);
    }
    lua_pushinteger(L, (lua_Integer)pid);
    return 1;
}

/* settings(fd) -> all of a terminal's settings as a text, whether it is raw */
static int l_settings(lua_State *L)
{
    struct termios t;
    char text[128];
    if (tcgetattr((int)luaL_checkinteger(L, 1), &t) != 0)
        return 0;
    snprintf(text, sizeof text, "%lx:%lx:%lx:%lx:%d:%d", (unsigned long)t.c_iflag, (unsigned long)t.c_oflag,
             (unsigned long)t.c_cflag, (unsigned long)t.c_lflag, t.c_cc[VMIN], t.c_cc[VTIME]);
    lua_pushstring(L, text);
    lua_pushboolean(L, (t.c_lflag & (ICANON | ECHO | ISIG)) == 0);
    return 2;
}

/* read(fd) -> bytes | false nothing now | nil the end */
static int l_read(lua_State *L)
{
    char bytes[65536];
    ssize_t n = read((int)luaL_checkinteger(L, 1), bytes, sizeof bytes);
    if (n > 0)
        lua_pushlstring(L, bytes, (size_t)n);
    else if (n < 0 && (errno == EAGAIN || errno == EINTR))
        lua_pushboolean(L, 0);
    else
        lua_pushnil(L);
    return 1;
}

static int l_write(lua_State *L)
{
    size_t len;
    const char *bytes = luaL_checklstring(L, 2, &len);
    ssize_t n = write((int)luaL_checkinteger(L, 1), bytes, len);
    lua_pushinteger(L, n > 0 ? (lua_Integer)n : 0);
    return 1;
}

/* kill(pid, signal) -> is there such a process */
static int l_kill(lua_State *L)
{
    lua_pushboolean(L, kill((pid_t)luaL_checkinteger(L, 1), (int)luaL_checkinteger(L, 2)) == 0);
    return 1;
}

/* ended(pid) -> exit code or 128 + signal | nil it runs */
static int l_ended(lua_State *L)
{
    int status = 0;
    if (waitpid((pid_t)luaL_checkinteger(L, 1), &status, WNOHANG) <= 0)
        return 0;
    lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return 1;
}

/* connect(path) -> descriptor of a unix socket that doesn't block | nil, why not */
static int l_connect(lua_State *L)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, luaL_checkstring(L, 1), sizeof address.sun_path - 1);
    if (fd < 0 || connect(fd, (const struct sockaddr *)(const void *)&address, sizeof address) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(errno));
        if (fd >= 0)
            close(fd);
        return 2;
    }
    lua_pushinteger(L, fd);
    return 1;
}

/* exec(program, word ...): only returns when that could not be done */
static int l_exec(lua_State *L)
{
    const char *words[16];
    int i, n = lua_gettop(L);
    for (i = 0; i < n && i < 15; i++)
        words[i] = luaL_checkstring(L, i + 1);
    words[i] = NULL;
    execvp(words[0], (char *const *)words);
    return 0;
}

int luaopen_e2b_spec_posix(lua_State *L);

int luaopen_e2b_spec_posix(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "fork", l_fork },   { "exit", l_exit }, { "wait", l_wait },       { "fileno", l_fileno },
        { "pipe", l_pipe },   { "close", l_close }, { "is_open", l_is_open }, { "is_cloexec", l_is_cloexec },
        { "open", l_open },   { "poll", l_poll }, { "on_signal", l_on_signal },
        { "terminal", l_terminal }, { "resize", l_resize }, { "run_at", l_run_at }, { "settings", l_settings },
        { "read", l_read },   { "write", l_write }, { "kill", l_kill },     { "ended", l_ended },
        { "connect", l_connect },
        { "exec", l_exec },
        { NULL, NULL },
    };
    int i;
    lua_newtable(L);
    for (i = 0; functions[i].name != NULL; i++) {
        lua_pushcfunction(L, functions[i].func);
        lua_setfield(L, -2, functions[i].name);
    }
    return 1;
}
