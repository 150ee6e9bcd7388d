/* The engine as Lua sees it: one per Lua state. */
#include "engine.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_WAIT 1.0 /* seconds; then Lua gets a chance to see a signal */

e2b_engine *e2b_engine_of(lua_State *L)
{
    e2b_engine **box = lua_touserdata(L, E2B_THE_ENGINE);
    return *box;
}

static e2b_engine *check_engine(lua_State *L)
{
    e2b_engine **box = luaL_checkudata(L, 1, E2B_ENGINE);
    if (*box == NULL || (*box)->closed)
        luaL_error(L, "attempt to use a closed engine");
    e2b_engine_check_pid(*box);
    return *box;
}

/* engine:start(transfer) */
static int engine_start(lua_State *L)
{
    e2b_transfer *t;
    check_engine(L);
    t = e2b_transfer_check(L, 2);
    if (t->state != E2B_PREPARED)
        return luaL_error(L, "this transfer was started or cancelled already");
    lua_settop(L, 2);
    t->ref = luaL_ref(L, E2B_ANCHORS); /* the last thing that can raise */
    if (t->state != E2B_PREPARED) { /* cancelled by its guard, which has just been collected */
        e2b_transfer_let_go(L, t);
        return 0;
    }
    e2b_engine_send(t);
    return 0;
}

static int is_readable(int fd)
{
    struct pollfd one;
    one.fd = fd;
    one.events = POLLIN;
    one.revents = 0;
    return poll(&one, 1, 0) > 0;
}

/* engine:wait(seconds) -> true (there is news) | false
 * engine:wait(seconds, transfer) -> true (that one is done, and finished() does not tell of it) | false, and as the
 * second result whether there is news of others
 * engine:wait(seconds, transfer | nil, fd): returns when fd is readable, too; the third result says whether it is */
static int engine_wait(lua_State *L)
{
    e2b_engine *engine = check_engine(L);
    double seconds = (double)luaL_checknumber(L, 2), until, now;
    e2b_transfer *t = lua_isnoneornil(L, 3) ? NULL : e2b_transfer_check(L, 3);
    int fd = (int)luaL_optinteger(L, 4, -1);
    luaL_argcheck(L, lua_isnoneornil(L, 4) || fd >= 0, 4, "must be a file descriptor");
    if (!(seconds > 0))
        seconds = 0;
    now = e2b_now();
    until = now + (seconds < LONGEST_WAIT ? seconds : LONGEST_WAIT);
    while (t == NULL || t->state == E2B_RUNNING) {
        e2b_engine_drive(engine);
        if (engine->news_first != NULL)
            break;
        now = e2b_now();
        if (now >= until || (fd >= 0 && is_readable(fd)) || !e2b_engine_sleep(engine, now, until - now, fd))
            break;
    }
    if (t == NULL) {
        lua_pushboolean(L, engine->news_first != NULL);
        if (fd < 0)
            return 1;
        lua_pushnil(L);
    } else {
        if (t->state == E2B_DONE)
            e2b_transfer_let_go(L, t);
        lua_pushboolean(L, t->state == E2B_DONE || t->state == E2B_TAKEN);
        lua_pushboolean(L, engine->news_first != NULL);
    }
    if (fd < 0)
        return 2;
    lua_pushboolean(L, is_readable(fd));
    return 3;
}

/* engine:step() */
static int engine_step(lua_State *L)
{
    e2b_engine_drive(check_engine(L));
    return 0;
}

/* engine:finished() -> transfer, "done" | "read" | "write"; or nothing */
static int engine_finished(lua_State *L)
{
    e2b_engine *engine = check_engine(L);
    e2b_transfer *t = engine->news_first;
    if (t == NULL)
        return 0;
    luaL_checkstack(L, 4, "no room");
    lua_rawgeti(L, E2B_ANCHORS, t->ref);
    if (t->events & E2B_EVENT_DONE) {
        lua_pushliteral(L, "done");
        luaL_unref(L, E2B_ANCHORS, t->ref);
        t->ref = LUA_NOREF;
        e2b_engine_quiet(t);
    } else if (t->events & E2B_EVENT_READ) {
        lua_pushliteral(L, "read");
        t->events &= (unsigned char)~E2B_EVENT_READ;
    } else {
        lua_pushliteral(L, "write");
        t->events &= (unsigned char)~E2B_EVENT_WRITE;
    }
    if (t->events == 0)
        e2b_engine_quiet(t);
    return 2;
}

/* engine:pollfd() -> fd. From now on in socket mode. */
static int engine_pollfd(lua_State *L)
{
    e2b_engine *engine = check_engine(L);
    int error = e2b_engine_switch(engine);
    if (error != 0)
        return luaL_error(L, "no descriptor to wait on: %s", strerror(error));
    lua_pushinteger(L, engine->poller.fd);
    return 1;
}

static int engine_events(lua_State *L)
{
    check_engine(L);
    lua_pushliteral(L, "r");
    return 1;
}

/* engine:timeout() -> seconds until step() has to be called, or nil */
static int engine_timeout(lua_State *L)
{
    double seconds = e2b_engine_timeout(check_engine(L));
    if (seconds < 0)
        return 0;
    lua_pushnumber(L, (lua_Number)seconds);
    return 1;
}

/* engine:connections(n) */
static int engine_connections(lua_State *L)
{
    e2b_engine *engine = check_engine(L);
    lua_Number n = luaL_checknumber(L, 2);
    luaL_argcheck(L, n >= 1 && n <= 100000 && n == (lua_Number)(long)n, 2, "must be a whole number of connections");
    e2b_engine_connections(engine, (long)n);
    return 0;
}

/* engine:close() */
static int engine_close(lua_State *L)
{
    e2b_engine_stop(check_engine(L));
    return 0;
}

/* At the end of the Lua state, before or after the finalizers of its transfers. */
static int engine_gc(lua_State *L)
{
    e2b_engine **box = luaL_checkudata(L, 1, E2B_ENGINE), *engine = *box;
    if (engine == NULL)
        return 0;
    e2b_engine_check_pid(engine);
    engine->closed = 1;
    e2b_engine_stop(engine);
    e2b_bridge_end(engine);
    e2b_poller_close(&engine->poller);
    *box = NULL;
    e2b_engine_unref(engine);
    return 0;
}

static int engine_tostring(lua_State *L)
{
    e2b_engine **box = luaL_checkudata(L, 1, E2B_ENGINE);
    if (*box == NULL || (*box)->closed)
        lua_pushliteral(L, "e2b.engine (closed)");
    else
        lua_pushfstring(L, "e2b.engine (%s, %d in flight)", (*box)->socket_mode ? "sockets" : "perform",
                        (int)(*box)->in_flight);
    return 1;
}

/* core.engine() */
static int engine_get(lua_State *L)
{
    lua_pushvalue(L, E2B_THE_ENGINE);
    return 1;
}

/* Pushes what every method has as upvalues: the anchors and the engine, made on the first require of this Lua state. */
int e2b_upvalues(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "e2b.anchors");
    lua_getfield(L, LUA_REGISTRYINDEX, "e2b.the_engine");
    return 2;
}

int e2b_engine_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "start", engine_start },     { "wait", engine_wait },       { "step", engine_step },
        { "finished", engine_finished }, { "pollfd", engine_pollfd }, { "events", engine_events },
        { "timeout", engine_timeout }, { "close", engine_close },     { "connections", engine_connections },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", engine_gc }, { "__tostring", engine_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "engine", engine_get }, { NULL, NULL } };
    e2b_engine **box;
    /* Step by step, as an open that failed half way for lack of memory may have left it. */
    lua_getfield(L, LUA_REGISTRYINDEX, "e2b.anchors");
    if (lua_isnil(L, -1)) {
        lua_newtable(L);
        lua_setfield(L, LUA_REGISTRYINDEX, "e2b.anchors");
    }
    lua_getfield(L, LUA_REGISTRYINDEX, "e2b.the_engine");
    if (lua_isnil(L, -1)) {
        box = e2b_newuserdata(L, sizeof *box);
        *box = NULL;
        lua_setfield(L, LUA_REGISTRYINDEX, "e2b.the_engine");
    }
    lua_settop(L, 1);
    e2b_type(L, E2B_ENGINE, methods, meta);
    lua_getfield(L, LUA_REGISTRYINDEX, "e2b.the_engine");
    luaL_setmetatable(L, E2B_ENGINE);
    box = lua_touserdata(L, -1);
    if (*box == NULL) {
        *box = malloc(sizeof **box);
        if (*box == NULL)
            return luaL_error(L, "not enough memory");
        e2b_engine_init(*box);
    }
    lua_settop(L, 1);
    luaL_setfuncs(L, functions, e2b_upvalues(L));
    return 0;
}
