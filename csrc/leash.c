/* Leashes: a socket pair between this process and a program that it starts beside itself, on its own and nobody's child,
 * which learns by the end of the leash that this process is gone, whichever way it went. Nothing here ever blocks. */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#if !defined(SYS_pidfd_open)
#define SYS_pidfd_open 434 /* the same number on every architecture */
#endif
#endif
#if defined(__APPLE__)
#include <crt_externs.h>
#define environ (*_NSGetEnviron())
#else
extern char **environ;
#endif
#if !defined(MSG_NOSIGNAL)
#define MSG_NOSIGNAL 0 /* SO_NOSIGPIPE does it there */
#endif

#define E2B_LEASH "e2b.leash"

#define ROOM 10 /* descriptors from here on are in nobody's way between fork and exec */

typedef struct e2b_leash {
    int fd;         /* -1: closed */
    int owner;      /* of the program at the other end: becomes readable when the process is gone; or -1 */
    e2b_buffer out; /* what the socket had no room for; may hold a key */
} e2b_leash;

/* What the program needs of our environment. Not the rest: keys stand there, under names that nobody knows. */
static int is_passed_on(const char *variable)
{
    static const char *const beginnings[] = {
        "PATH=",       "HOME=",        "TMPDIR=",   "TZ=",         "LANG=",      "LC_",         "LD_",
        "DYLD_",       "MALLOC_",      "ASAN_",     "LSAN_",       "UBSAN_",     "SSL_",        "NIX_SSL_",
        "OPENSSL_",    "CURL_",        "RES_",      "HOSTALIASES", "LOCALDOMAIN", "http_proxy=", "https_proxy=",
        "all_proxy=",  "no_proxy=",    "HTTPS_PROXY=", "ALL_PROXY=", "NO_PROXY=",
    };
    size_t i;
    for (i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (strncmp(variable, beginnings[i], strlen(beginnings[i])) == 0)
            return 1;
    return 0;
}

/* In the child of a child; only what may be called in the child of a process with threads. Signals stay blocked, also in
 * the program: what ends this process (a service manager's SIGTERM to all) must not end what cleans up after it. */
static void become(char **argv, char **env, int leash, int owner, int nothing)
{
    struct rlimit none;
    setsid();
    none.rlim_cur = none.rlim_max = 0; /* a core file would hold the key */
    setrlimit(RLIMIT_CORE, &none);
    leash = fcntl(leash, F_DUPFD, ROOM);
    nothing = fcntl(nothing, F_DUPFD, ROOM);
    if (owner >= 0)
        owner = fcntl(owner, F_DUPFD, ROOM);
    if (leash < 0 || nothing < 0 || dup2(leash, 0) < 0 || dup2(leash, 1) < 0 || dup2(nothing, 2) < 0)
        _exit(127);
    if (owner >= 0)
        owner = dup2(owner, 3);
    e2b_close_from(owner >= 0 ? 4 : 3);
    if (chdir("/") == 0 && argv[0] != NULL) /* there it keeps no folder busy */
        execve(argv[0], argv, env);
    _exit(127);
}

/* 0 or an errno. The one in between is collected here, so that the program is no child of ours. */
static int start(char **argv, char **env, int leash, int owner, int nothing)
{
    sigset_t all, before;
    pid_t pid, collected;
    int status = 0, error;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid = fork();
    if (pid == 0) {
        pid = fork();
        if (pid == 0)
            become(argv, env, leash, owner, nothing);
        _exit(pid < 0);
    }
    error = pid < 0 ? errno : 0;
    if (pid > 0) {
        do {
            collected = waitpid(pid, &status, 0);
        } while (collected < 0 && errno == EINTR);
        /* A host that waits for all of its children may have been faster; then the leash tells. */
        if (collected == pid && status != 0)
            error = EAGAIN;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return error;
}

static int failed(lua_State *L, const char *what, int error)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", what, strerror(error));
    return 2;
}

/* The list of words at index as a list for exec, in memory of Lua's; the words stay in their table. */
static char **words(lua_State *L, int index)
{
    size_t i, n = lua_rawlen(L, index);
    char **list = e2b_newuserdata(L, (n + 1) * sizeof *list);
    luaL_argcheck(L, n > 0 && n < 100, index, "a list of words expected");
    for (i = 0; i < n; i++) {
        union {
            const char *ours;
            char *theirs;
        } word;
        lua_rawgeti(L, index, (int)i + 1);
        word.ours = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        luaL_argcheck(L, word.ours != NULL, index, "a list of words expected");
        list[i] = word.theirs;
        lua_pop(L, 1);
    }
    list[n] = NULL;
    return list;
}

static char **environment(lua_State *L)
{
    char **list, **variable;
    size_t n = 0;
    for (variable = environ; variable != NULL && *variable != NULL; variable++)
        n++;
    list = e2b_newuserdata(L, (n + 1) * sizeof *list);
    n = 0;
    for (variable = environ; variable != NULL && *variable != NULL; variable++)
        if (is_passed_on(*variable))
            list[n++] = *variable;
    list[n] = NULL;
    return list;
}

static int open_owner(void)
{
#if defined(__linux__)
    return (int)syscall(SYS_pidfd_open, getpid(), 0); /* close-on-exec by itself */
#else
    return -1;
#endif
}

static void close_if(int fd)
{
    if (fd >= 0)
        close(fd);
}

static e2b_leash *leash_make(lua_State *L, int fd, int owner)
{
    e2b_leash *leash = e2b_newuserdata(L, sizeof *leash);
    memset(leash, 0, sizeof *leash);
    leash->fd = fd;
    leash->owner = owner;
    luaL_setmetatable(L, E2B_LEASH);
    return leash;
}

/* Close-on-exec from the beginning, where that is possible: another thread may start a program at any time. */
static int make_pair(int *ends)
{
#if defined(SOCK_CLOEXEC)
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
#else
    int i, one = 1;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        return -1;
    for (i = 0; i < 2; i++)
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
#if defined(SO_NOSIGPIPE)
    setsockopt(ends[0], SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#else
    (void)one;
#endif
    return 0;
#endif
}

/* core.leash_program(words) -> leash | nil, message */
static int leash_program(lua_State *L)
{
    int ends[2], nothing, owner, error;
    char **argv, **env;
    e2b_leash *leash;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    argv = words(L, 1);
    env = environment(L);
    leash = leash_make(L, -1, -1);
    nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0)
        return failed(L, "/dev/null", errno);
    if (make_pair(ends) != 0) {
        error = errno;
        close(nothing);
        return failed(L, "a pair of sockets", error);
    }
    owner = open_owner();
    error = start(argv, env, ends[1], owner, nothing);
    close(nothing);
    close(ends[1]);
    close_if(owner);
    leash->fd = ends[0];
    if (error != 0)
        return failed(L, "a new process", error);
    return 1;
}

/* core.leash() -> leash: this end of a program that was started so */
static int leash_mine(lua_State *L)
{
    leash_make(L, 0, fcntl(3, F_GETFD) >= 0 ? 3 : -1);
    return 1;
}

static e2b_leash *check(lua_State *L)
{
    e2b_leash *leash = luaL_checkudata(L, 1, E2B_LEASH);
    if (leash->fd < 0)
        luaL_error(L, "attempt to use a closed leash");
    return leash;
}

static int later(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ENOBUFS;
}

/* The secrets of a target, a line each: its headers, and the proxy, where one is named. */
static int add_target(e2b_buffer *out, const e2b_target *target)
{
    const struct curl_slist *header;
    int ok = 1;
    for (header = target->headers; header != NULL; header = header->next)
        ok = ok && e2b_buffer_add(out, "header ", 7) && e2b_buffer_add(out, header->data, strlen(header->data)) &&
             e2b_buffer_add(out, "\n", 1);
    if (target->proxy != NULL)
        ok = ok && e2b_buffer_add(out, "proxy ", 6) && e2b_buffer_add(out, target->proxy, strlen(target->proxy)) &&
             e2b_buffer_add(out, "\n", 1);
    return ok;
}

/* leash:send(bytes[, target]) -> true | false: some of it waits for the next call | nil, message: nobody is there */
static int leash_send(lua_State *L)
{
    e2b_leash *leash = check(L);
    size_t len;
    const char *bytes = luaL_checklstring(L, 2, &len);
    const e2b_target *target = lua_isnoneornil(L, 3) ? NULL : e2b_target_check(L, 3);
    if (!e2b_buffer_add(&leash->out, bytes, len) || (target != NULL && !add_target(&leash->out, target)))
        return luaL_error(L, "not enough memory");
    while (leash->out.len > 0) {
        char *from = leash->out.data + leash->out.head;
        ssize_t n = send(leash->fd, from, leash->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && !later(errno))
            return failed(L, "the other end of the leash", errno);
        if (n <= 0)
            break;
        e2b_wipe(from, (size_t)n);
        e2b_buffer_drop(&leash->out, (size_t)n);
    }
    lua_pushboolean(L, leash->out.len == 0);
    return 1;
}

/* leash:receive(seconds) -> bytes | false: nothing came | nil: the other end is gone. Negative: waits for ever. */
static int leash_receive(lua_State *L)
{
    const e2b_leash *leash = check(L);
    lua_Number seconds = luaL_checknumber(L, 2);
    char bytes[4096];
    struct pollfd fds[2];
    ssize_t n;
    fds[0].fd = leash->fd;
    fds[1].fd = leash->owner; /* poll passes over a negative one */
    fds[0].events = fds[1].events = POLLIN;
    fds[0].revents = fds[1].revents = 0;
    if (seconds != 0)
        poll(fds, 2, seconds < 0 ? -1 : seconds > 1000 ? 1000000 : (int)(seconds * 1000));
    n = recv(leash->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0)
        lua_pushlstring(L, bytes, (size_t)n);
    else if (n == 0 || !later(errno) || fds[1].revents != 0)
        lua_pushnil(L); /* all that the owner had sent is read by now */
    else
        lua_pushboolean(L, 0);
    e2b_wipe(bytes, n > 0 ? (size_t)n : 0);
    return 1;
}

/* leash:close(). A forked child that closes its copy ends nothing. */
static int leash_close(lua_State *L)
{
    e2b_leash *leash = luaL_checkudata(L, 1, E2B_LEASH);
    close_if(leash->fd);
    close_if(leash->owner);
    leash->fd = leash->owner = -1;
    e2b_buffer_reset(&leash->out, 1);
    free(leash->out.data);
    memset(&leash->out, 0, sizeof leash->out);
    return 0;
}

static int leash_tostring(lua_State *L)
{
    const e2b_leash *leash = luaL_checkudata(L, 1, E2B_LEASH);
    lua_pushstring(L, leash->fd < 0 ? "e2b.leash (closed)" : "e2b.leash");
    return 1;
}

/* core.place() -> the working directory | nil, the program that this process runs | nil */
static int core_place(lua_State *L)
{
    char path[4096];
#if defined(__linux__)
    ssize_t n;
#endif
    if (getcwd(path, sizeof path) != NULL)
        lua_pushstring(L, path);
    else
        lua_pushnil(L);
#if defined(__linux__)
    n = readlink("/proc/self/exe", path, sizeof path);
    if (n > 0 && (size_t)n < sizeof path) {
        lua_pushlstring(L, path, (size_t)n);
        return 2;
    }
#endif
    return 1;
}

int e2b_leash_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "send", leash_send }, { "receive", leash_receive }, { "close", leash_close }, { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", leash_close }, { "__tostring", leash_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "leash", leash_mine }, { "leash_program", leash_program }, { "place", core_place }, { NULL, NULL },
    };
    e2b_type(L, E2B_LEASH, methods, meta);
    luaL_setfuncs(L, functions, e2b_upvalues(L));
    return 0;
}
