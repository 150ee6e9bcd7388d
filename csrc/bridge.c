/* A bridge to a host that waits for sockets of its own making only (nginx): a thread that waits for the engine's
 * descriptor and says so on a unix socket that the host has connected to. The thread touches nothing but these two
 * descriptors: no libcurl, no Lua, no memory that anybody writes to. It says one byte, and nothing more before it has
 * got one back, so it doesn't spin while the host is on its way to the engine. */
#include "engine.h"
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define STACK_BYTES 131072

#if !defined(MSG_NOSIGNAL)
#define MSG_NOSIGNAL 0 /* the thread has all signals blocked anyway */
#endif

struct e2b_bridge {
    e2b_engine *engine; /* NULL: it is gone, and the thread with it */
    pid_t pid;
    int listener, peer; /* -1: closed */
    int watched;        /* the engine's descriptor */
    int runs;           /* there is a thread to join */
    pthread_t thread;
    char folder[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": removed */
    struct sockaddr_un address;
};

static void *watch(void *owner)
{
    const e2b_bridge *bridge = owner;
    struct pollfd fds[2];
    char bytes[16];
    ssize_t got;
    int answered = 1;
    fds[0].fd = bridge->peer;
    fds[0].events = fds[1].events = POLLIN;
    for (;;) {
        fds[1].fd = answered ? bridge->watched : -1;
        fds[0].revents = fds[1].revents = 0;
        if (poll(fds, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            break;
        }
        if (fds[0].revents != 0) {
            got = recv(bridge->peer, bytes, sizeof bytes, MSG_DONTWAIT);
            if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
                break; /* the host is gone, or close() wants to see the end of this */
            if (got > 0)
                answered = 1;
        } else if (fds[1].revents & POLLNVAL) {
            break;
        } else if (fds[1].revents != 0) {
            if (send(bridge->peer, "!", 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
                break;
            answered = 0;
        }
    }
    shutdown(bridge->peer, SHUT_RDWR); /* whoever reads there sees that nobody watches any more */
    return NULL;
}

/* 0 or an errno. */
static int start_thread(e2b_bridge *bridge)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES); /* where that is too little: the usual size */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&bridge->thread, &attributes, watch, bridge);
    if (error == EINVAL)
        error = pthread_create(&bridge->thread, NULL, watch, bridge);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    bridge->runs = error == 0;
    return error;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void remove_name(e2b_bridge *bridge)
{
    if (bridge->folder[0] == '\0')
        return;
    unlink(bridge->address.sun_path);
    rmdir(bridge->folder);
    bridge->folder[0] = '\0';
}

/* Ends the thread and gives back everything; may be called again. The thread is the parent's in a forked child, and so
 * is the name: there only the copies of the descriptors go. */
static void put_down(e2b_bridge *bridge)
{
    int mine = bridge->pid == getpid();
    if (bridge->engine != NULL)
        bridge->engine->bridge = NULL;
    bridge->engine = NULL;
    if (mine && bridge->runs) {
        shutdown(bridge->peer, SHUT_RDWR);
        pthread_join(bridge->thread, NULL);
    }
    bridge->runs = 0;
    close_fd(&bridge->peer);
    close_fd(&bridge->listener);
    if (mine)
        remove_name(bridge);
    bridge->folder[0] = '\0';
}

/* The engine's descriptor is about to be closed, or is not this process's any more. */
void e2b_bridge_end(e2b_engine *engine)
{
    if (engine->bridge != NULL)
        put_down(engine->bridge);
}

/* ---- who is on the other side ---- */

static int is_this_process(int fd)
{
#if defined(SO_PEERCRED) && defined(__linux__)
    struct ucred who;
    socklen_t size = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.pid == getpid();
#elif defined(LOCAL_PEERPID)
    pid_t pid = -1;
    socklen_t size = sizeof pid;
    return getsockopt(fd, SOL_LOCAL, LOCAL_PEERPID, &pid, &size) == 0 && pid == getpid();
#else
    uid_t user;
    gid_t group;
    return getpeereid(fd, &user, &group) == 0 && user == geteuid(); /* nobody else gets into the folder anyway */
#endif
}

static int make_socket(void)
{
#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
#else
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    return fd;
#endif
}

static int accept_one(int listener)
{
#if defined(__linux__)
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
    int fd = accept(listener, NULL, NULL);
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    return fd;
#endif
}

/* ---- for Lua ---- */

static e2b_bridge *check_bridge(lua_State *L)
{
    e2b_bridge *bridge = luaL_checkudata(L, 1, E2B_BRIDGE);
    if (bridge->engine != NULL && bridge->pid != getpid())
        put_down(bridge); /* the parent's */
    return bridge;
}

static int failed(lua_State *L, const char *what, int error)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", what, strerror(error));
    return 2;
}

/* Makes a folder of its own in that one, and in it a socket with a name that cannot be guessed. 0 or an errno. */
static int offer(e2b_bridge *bridge, const char *folder, size_t len)
{
    static const char inside[] = "/e2b-XXXXXX";
    char name[E2B_TEMP_SIZE];
    char *path = bridge->address.sun_path;
    if (len + sizeof inside + sizeof name > sizeof bridge->address.sun_path)
        return ENAMETOOLONG;
    bridge->listener = make_socket();
    if (bridge->listener < 0)
        return errno;
    memcpy(bridge->folder, folder, len);
    memcpy(bridge->folder + len, inside, sizeof inside);
    if (mkdtemp(bridge->folder) == NULL) { /* 0700, whatever the umask */
        int error = errno;
        bridge->folder[0] = '\0';
        return error;
    }
    e2b_temp_name(name);
    bridge->address.sun_family = AF_UNIX;
    len += sizeof inside - 1;
    memcpy(path, bridge->folder, len);
    path[len] = '/';
    memcpy(path + len + 1, name, sizeof name);
    if (bind(bridge->listener, (const struct sockaddr *)(const void *)&bridge->address, sizeof bridge->address) != 0 ||
        listen(bridge->listener, 4) != 0)
        return errno;
    return 0;
}

/* core.bridge(folder) -> bridge | nil, message. The engine is in socket mode from now on. */
static int bridge_new(lua_State *L)
{
    size_t len;
    const char *folder = luaL_checklstring(L, 1, &len);
    e2b_engine *engine = e2b_engine_of(L);
    e2b_bridge *bridge;
    int error;
    luaL_argcheck(L, len > 0 && strlen(folder) == len, 1, "must be the path of a folder");
    e2b_engine_check_pid(engine);
    if (engine->bridge != NULL)
        return luaL_error(L, "this engine has a bridge already");
    bridge = e2b_newuserdata(L, sizeof *bridge);
    memset(bridge, 0, sizeof *bridge);
    bridge->listener = bridge->peer = -1;
    bridge->pid = getpid();
    luaL_setmetatable(L, E2B_BRIDGE);
    error = e2b_engine_switch(engine);
    if (error == 0)
        error = offer(bridge, folder, len);
    if (error != 0) {
        put_down(bridge);
        return failed(L, folder, error);
    }
    bridge->watched = engine->poller.fd;
    bridge->engine = engine;
    engine->bridge = bridge;
    return 1;
}

/* bridge:path() -> where to connect to, or nil when that was done */
static int bridge_path(lua_State *L)
{
    const e2b_bridge *bridge = check_bridge(L);
    if (bridge->folder[0] == '\0')
        return 0;
    lua_pushstring(L, bridge->address.sun_path);
    return 1;
}

/* bridge:start() -> true | nil, message: takes this process's own connection, and watches from now on */
static int bridge_start(lua_State *L)
{
    e2b_bridge *bridge = check_bridge(L);
    int error;
    if (bridge->engine == NULL)
        return luaL_error(L, "attempt to use a closed bridge");
    if (bridge->runs)
        return luaL_error(L, "this bridge was started already");
    do {
        close_fd(&bridge->peer); /* a stranger's */
        bridge->peer = accept_one(bridge->listener);
        error = bridge->peer < 0 ? errno : 0;
    } while (error == EINTR || error == ECONNABORTED || (error == 0 && !is_this_process(bridge->peer)));
    if (error == EAGAIN || error == EWOULDBLOCK) {
        lua_pushnil(L);
        lua_pushliteral(L, "this process has not connected to the bridge");
        return 2;
    }
    close_fd(&bridge->listener);
    remove_name(bridge);
    if (error == 0)
        error = start_thread(bridge);
    if (error != 0) {
        put_down(bridge);
        return failed(L, "no thread to watch the engine", error);
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* bridge:close() */
static int bridge_close(lua_State *L)
{
    put_down(luaL_checkudata(L, 1, E2B_BRIDGE));
    return 0;
}

static int bridge_tostring(lua_State *L)
{
    const e2b_bridge *bridge = check_bridge(L);
    const char *state = bridge->engine == NULL ? "closed" : bridge->runs ? "watching" : "not connected";
    lua_pushfstring(L, "e2b.bridge (%s)", state);
    return 1;
}

int e2b_bridge_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "path", bridge_path }, { "start", bridge_start }, { "close", bridge_close }, { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", bridge_close }, { "__tostring", bridge_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "bridge", bridge_new }, { NULL, NULL } };
    e2b_type(L, E2B_BRIDGE, methods, meta);
    luaL_setfuncs(L, functions, e2b_upvalues(L));
    return 0;
}
