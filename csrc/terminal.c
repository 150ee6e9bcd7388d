/* This terminal: its size, raw mode, bytes without ever blocking. While it is raw a guard process stands by that puts it
 * back when this process is gone without having done so, killed with SIGKILL included. */
#include "e2b.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#define E2B_TERMINAL "e2b.terminal"

#define READ_BYTES 16384
#define PATIENCE 20        /* milliseconds that a write waits for room */
#define SMALL_WRITE 256    /* bytes that a terminal with room takes without blocking */
#define GUARD_LOOKS 1000   /* milliseconds between two looks of the guard at its parent */

#define RAW_I ((tcflag_t)(BRKINT | ICRNL | IGNCR | INLCR | INPCK | ISTRIP | IXANY | IXOFF | IXON | PARMRK))
#define RAW_O ((tcflag_t)OPOST)
#define RAW_L ((tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL | ICANON | IEXTEN | ISIG))

typedef struct e2b_terminal {
    int in, out;             /* what is read and written; -1: closed */
    int own_in, own_out;     /* opened here, do not block, are closed here */
    int is_raw;
    pid_t owner;             /* the process that made it raw; a forked child leaves it alone */
    pid_t guard;             /* 0: none */
    int leash;               /* our end of what ties the guard to us, or -1 */
    struct termios saved;
} e2b_terminal;

/* ---- the guard ---- */

static int looks_raw(const struct termios *t)
{
    return (t->c_iflag & RAW_I) == 0 && (t->c_oflag & RAW_O) == 0 && (t->c_lflag & RAW_L) == 0;
}

static void make_raw(struct termios *t)
{
    t->c_iflag &= ~RAW_I;
    t->c_oflag &= ~RAW_O;
    t->c_lflag &= ~RAW_L;
    t->c_cc[VMIN] = 1;
    t->c_cc[VTIME] = 0;
}

void e2b_close_from(int first)
{
    struct rlimit limit;
    int fd, end = 65536;
#if defined(SYS_close_range)
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0U) == 0)
        return;
#endif
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)end)
        end = (int)limit.rlim_cur;
    for (fd = first; fd < end; fd++)
        close(fd);
}

/* Between fork and here, and in here, only what may be called in the child of a process with threads. All signals are
 * blocked, SIGTTOU with them. Our connections must not live on in here, so every other descriptor is closed. */
static void stand_guard(int leash, int tty, pid_t parent, const struct termios *saved)
{
    struct pollfd one;
    struct termios now;
    setsid(); /* a signal to the whole process group is not for the guard */
    if (leash < 2)
        leash = fcntl(leash, F_DUPFD, 2);
    if (tty < 2)
        tty = fcntl(tty, F_DUPFD, 2);
    if (leash < 0 || tty < 0 || dup2(leash, 0) < 0 || dup2(tty, 1) < 0)
        _exit(1);
    e2b_close_from(2);
    if (chdir("/") != 0 || write(0, "", 1) != 1)
        _exit(1);
    do {
        one.fd = 0;
        one.events = POLLIN;
        one.revents = 0;
    } while (poll(&one, 1, GUARD_LOOKS) <= 0 && getppid() == parent);
    /* Not when somebody has it otherwise by now: a shell with its next prompt is quick. */
    if (tcgetattr(1, &now) == 0 && looks_raw(&now))
        tcsetattr(1, TCSANOW, saved);
    _exit(0);
}

static void dismiss_guard(e2b_terminal *t)
{
    int status;
    pid_t collected;
    if (t->leash >= 0)
        close(t->leash);
    t->leash = -1;
    /* 0 says that it is there and nobody has collected it, so the number is no other process's. A stopped one would
     * not see the end of its leash. */
    if (t->guard > 0 && t->owner == getpid() && waitpid(t->guard, &status, WNOHANG) == 0) {
        kill(t->guard, SIGKILL);
        do {
            collected = waitpid(t->guard, &status, 0);
        } while (collected < 0 && errno == EINTR);
    }
    t->guard = 0;
}

static int post_guard(e2b_terminal *t)
{
    int ends[2], i, error;
    char byte;
    ssize_t n;
    sigset_t all, before;
    pid_t parent = getpid(), pid;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        return errno;
    for (i = 0; i < 2; i++)
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid = fork();
    if (pid == 0) {
        close(ends[1]);
        stand_guard(ends[0], t->in, parent, &t->saved);
    }
    error = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(ends[0]);
    if (pid < 0) {
        close(ends[1]);
        return error;
    }
    t->guard = pid;
    t->leash = ends[1];
    /* Not before it stands where no signal to our process group reaches it. */
    do {
        n = read(t->leash, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 1)
        return 0;
    dismiss_guard(t);
    return ECHILD;
}

/* ---- what Lua calls ---- */

static e2b_terminal *check(lua_State *L)
{
    e2b_terminal *t = luaL_checkudata(L, 1, E2B_TERMINAL);
    if (t->in < 0)
        luaL_error(L, "attempt to use a closed terminal");
    return t;
}

static int failed(lua_State *L, const char *what, int error)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", what, strerror(error));
    return 2;
}

/* Puts it back; 0 or an errno. A process in the background is not stopped for it. */
static int put_back(e2b_terminal *t)
{
    int error = 0;
    sigset_t ours, before;
    if (!t->is_raw)
        return 0;
    t->is_raw = 0;
    if (t->owner == getpid()) {
        sigemptyset(&ours);
        sigaddset(&ours, SIGTTOU);
        sigprocmask(SIG_BLOCK, &ours, &before);
        if (tcsetattr(t->in, TCSANOW, &t->saved) != 0)
            error = errno;
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    dismiss_guard(t);
    return error;
}

/* A description of the file that is ours alone, so that not blocking is nobody else's business. -1: none to be had. */
static int open_again(int fd, int flags)
{
    char name[256];
    struct stat theirs, ours;
    int again;
    if (ttyname_r(fd, name, sizeof name) != 0)
        return -1;
    again = open(name, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (again < 0)
        return -1;
    if (fstat(fd, &theirs) == 0 && fstat(again, &ours) == 0 && theirs.st_rdev == ours.st_rdev && isatty(again))
        return again;
    close(again);
    return -1;
}

/* core.terminal(in, out) -> terminal | nil, message */
static int terminal_new(lua_State *L)
{
    int in = (int)luaL_checkinteger(L, 1), out = (int)luaL_checkinteger(L, 2);
    e2b_terminal *t = e2b_newuserdata(L, sizeof *t);
    memset(t, 0, sizeof *t);
    t->in = t->out = t->leash = -1;
    luaL_setmetatable(L, E2B_TERMINAL);
    if (!isatty(in) || !isatty(out)) {
        lua_pushnil(L);
        lua_pushfstring(L, "%s is not a terminal", isatty(in) ? "the output" : "the input");
        return 2;
    }
    t->in = open_again(in, O_RDONLY);
    t->own_in = t->in >= 0;
    if (!t->own_in)
        t->in = in;
    t->out = open_again(out, O_WRONLY);
    t->own_out = t->out >= 0;
    if (!t->own_out)
        t->out = out;
    return 1;
}

/* terminal:size() -> columns, rows */
static int terminal_size(lua_State *L)
{
    const e2b_terminal *t = check(L);
    struct winsize size;
    memset(&size, 0, sizeof size);
    if ((ioctl(t->out, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) && ioctl(t->in, TIOCGWINSZ, &size) != 0)
        memset(&size, 0, sizeof size);
    lua_pushinteger(L, size.ws_col > 0 ? size.ws_col : 80);
    lua_pushinteger(L, size.ws_row > 0 ? size.ws_row : 24);
    return 2;
}

/* A shell gives it back cooked to a process that was stopped; one in the background keeps its hands off. */
static void keep_raw(const e2b_terminal *t)
{
    struct termios now;
    pid_t front = tcgetpgrp(t->in);
    if ((front < 0 || front == getpgrp()) && tcgetattr(t->in, &now) == 0 && !looks_raw(&now)) {
        make_raw(&now);
        tcsetattr(t->in, TCSANOW, &now);
    }
}

/* terminal:raw() -> true | nil, message. Once more: makes sure of it. */
static int terminal_raw(lua_State *L)
{
    e2b_terminal *t = check(L);
    struct termios raw;
    int error;
    if (t->is_raw && t->owner == getpid()) {
        keep_raw(t);
        lua_pushboolean(L, 1);
        return 1;
    }
    put_back(t);
    if (tcgetattr(t->in, &t->saved) != 0)
        return failed(L, "the terminal's settings", errno);
    t->owner = getpid();
    error = post_guard(t);
    if (error != 0)
        return failed(L, "the process that guards the terminal", error);
    raw = t->saved;
    make_raw(&raw);
    t->is_raw = 1;
    if (tcsetattr(t->in, TCSANOW, &raw) != 0) {
        error = errno;
        put_back(t);
        return failed(L, "raw mode", error);
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* terminal:restore() -> true | nil, message */
static int terminal_restore(lua_State *L)
{
    int error = put_back(check(L));
    if (error != 0)
        return failed(L, "the terminal's settings", error);
    lua_pushboolean(L, 1);
    return 1;
}

static int gone(int error)
{
    return error != EAGAIN && error != EWOULDBLOCK && error != EINTR;
}

/* terminal:read() -> bytes | false | nil */
static int terminal_read(lua_State *L)
{
    const e2b_terminal *t = check(L);
    char bytes[READ_BYTES];
    struct pollfd one;
    ssize_t n;
    one.fd = t->in;
    one.events = POLLIN;
    one.revents = 0;
    n = poll(&one, 1, 0);
    if (n == 0 || (n < 0 && errno == EINTR)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    n = read(t->in, bytes, sizeof bytes);
    if (n > 0) {
        lua_pushlstring(L, bytes, (size_t)n);
    } else if (n < 0 && !gone(errno)) {
        lua_pushboolean(L, 0);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

/* terminal:write(bytes[, skip]) -> how many of those after `skip` were taken, maybe 0 | nil, message */
static int terminal_write(lua_State *L)
{
    const e2b_terminal *t = check(L);
    size_t len, skip;
    const char *bytes = luaL_checklstring(L, 2, &len);
    lua_Number from = luaL_optnumber(L, 3, 0);
    struct pollfd one;
    ssize_t n = -1;
    luaL_argcheck(L, from >= 0 && from <= (lua_Number)len, 3, "outside of the bytes");
    skip = (size_t)from;
    len -= skip;
    bytes += skip;
    errno = EAGAIN;
    if (t->own_out)
        n = write(t->out, bytes, len);
    if (n < 0 && !gone(errno)) {
        one.fd = t->out;
        one.events = POLLOUT;
        errno = EAGAIN;
        if (poll(&one, 1, PATIENCE) > 0)
            n = write(t->out, bytes, t->own_out || len < SMALL_WRITE ? len : SMALL_WRITE);
    }
    if (n < 0 && gone(errno))
        return failed(L, "the terminal", errno);
    lua_pushinteger(L, n > 0 ? (lua_Integer)n : 0);
    return 1;
}

/* terminal:fd() -> descriptor to wait on for input */
static int terminal_fd(lua_State *L)
{
    lua_pushinteger(L, check(L)->in);
    return 1;
}

static int terminal_close(lua_State *L)
{
    e2b_terminal *t = luaL_checkudata(L, 1, E2B_TERMINAL);
    if (t->in < 0)
        return 0;
    put_back(t);
    dismiss_guard(t);
    if (t->own_in)
        close(t->in);
    if (t->own_out)
        close(t->out);
    t->in = t->out = -1;
    return 0;
}

static int terminal_tostring(lua_State *L)
{
    const e2b_terminal *t = luaL_checkudata(L, 1, E2B_TERMINAL);
    lua_pushfstring(L, "e2b.terminal (%s)", t->in < 0 ? "closed" : t->is_raw ? "raw" : "as it was");
    return 1;
}

int e2b_terminal_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "size", terminal_size }, { "raw", terminal_raw },     { "restore", terminal_restore },
        { "read", terminal_read }, { "write", terminal_write }, { "fd", terminal_fd },
        { "close", terminal_close }, { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", terminal_close }, { "__tostring", terminal_tostring }, { NULL, NULL },
    };
    static const luaL_Reg functions[] = { { "terminal", terminal_new }, { NULL, NULL } };
    int top = lua_gettop(L);
    luaL_newmetatable(L, E2B_TERMINAL);
    luaL_setfuncs(L, meta, 0);
    lua_pushliteral(L, E2B_TERMINAL);
    lua_setfield(L, -2, "__name");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_settop(L, top);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
