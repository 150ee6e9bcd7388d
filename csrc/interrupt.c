/* The handler of Ctrl-C, kept. The lua program's own takes itself away when it runs (a second Ctrl-C is to end what the
 * first one couldn't), and sets itself again only before the next line of `lua -i`. */
#include "e2b.h"

#include <signal.h>

static int put_back(lua_State *L)
{
    const struct sigaction *kept = lua_touserdata(L, lua_upvalueindex(1));
    sigaction(SIGINT, kept, NULL);
    return 0;
}

/* core.keep_interrupt() -> function */
static int keep_interrupt(lua_State *L)
{
    struct sigaction *kept = e2b_newuserdata(L, sizeof *kept);
    if (sigaction(SIGINT, NULL, kept) != 0)
        return luaL_error(L, "the handler of SIGINT could not be read");
    lua_pushcclosure(L, put_back, 1);
    return 1;
}

int e2b_interrupt_open(lua_State *L)
{
    static const luaL_Reg functions[] = { { "keep_interrupt", keep_interrupt }, { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
    return 0;
}
