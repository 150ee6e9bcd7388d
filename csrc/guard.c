/* Guards: what is kept by whoever needs a transfer. A running transfer is kept alive by the engine, so that dropping it
 * does not end it; dropping its guard does. */
#include "engine.h"

struct e2b_guard {
    e2b_transfer *transfer; /* NULL: released, or collected already */
};

/* The transfer is being collected. */
void e2b_guard_forget(e2b_guard *guard)
{
    guard->transfer->guard = NULL;
    guard->transfer = NULL;
}

/* core.guard(transfer) */
static int guard_new(lua_State *L)
{
    e2b_transfer *t = e2b_transfer_check(L, 1);
    e2b_guard *guard;
    if (t->guard != NULL)
        return luaL_error(L, "this transfer has a guard already");
    guard = e2b_newuserdata(L, sizeof *guard);
    guard->transfer = NULL;
    luaL_setmetatable(L, E2B_GUARD);
    guard->transfer = t;
    t->guard = guard;
    return 1;
}

/* guard:release() */
static int guard_release(lua_State *L)
{
    e2b_guard *guard = luaL_checkudata(L, 1, E2B_GUARD);
    if (guard->transfer != NULL)
        e2b_guard_forget(guard);
    return 0;
}

static int guard_gc(lua_State *L)
{
    e2b_guard *guard = luaL_checkudata(L, 1, E2B_GUARD);
    e2b_transfer *t = guard->transfer;
    if (t == NULL)
        return 0;
    e2b_guard_forget(guard);
    e2b_engine_check_pid(t->engine);
    e2b_transfer_cancel(L, t);
    return 0;
}

static int guard_tostring(lua_State *L)
{
    e2b_guard *guard = luaL_checkudata(L, 1, E2B_GUARD);
    lua_pushstring(L, guard->transfer != NULL ? "e2b.guard" : "e2b.guard (released)");
    return 1;
}

int e2b_guard_open(lua_State *L)
{
    static const luaL_Reg methods[] = { { "release", guard_release }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", guard_gc }, { "__tostring", guard_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "guard", guard_new }, { NULL, NULL } };
    e2b_type(L, E2B_GUARD, methods, meta);
    luaL_setfuncs(L, functions, e2b_upvalues(L));
    return 0;
}
