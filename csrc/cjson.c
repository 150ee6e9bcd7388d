/* Where lua-cjson comes from. It has global functions by the name of strbuf_…, and so has Neovim, for its own copy of it:
 * loaded as usual, lua-cjson would call Neovim's. Where the two are of different ages (Neovim 0.12 and lua-cjson 2.1.0)
 * what is written then are the right bytes in the wrong places, or elsewhere in memory. */
#include "e2b.h"
#include "shape.h"

#include <dlfcn.h>
#include <string.h>

#if defined(RTLD_DEEPBIND)

/* Where the program has such functions: pushes lua-cjson, loaded so that it calls its own. It stays loaded, as what
 * require() loads does. */
static int push_apart(lua_State *L)
{
    int top = lua_gettop(L);
    void *library, *symbol;
    lua_CFunction open;

    if (dlsym(RTLD_DEFAULT, "strbuf_init") == NULL)
        return 0;
    lua_getglobal(L, "package");
    if (!lua_istable(L, -1))
        return 0;
    lua_getfield(L, -1, "searchpath");
    if (!lua_isfunction(L, -1))
        return 0;
    lua_pushliteral(L, "cjson");
    lua_getfield(L, top + 1, "cpath");
    if (lua_pcall(L, 2, 1, 0) != 0 || lua_type(L, -1) != LUA_TSTRING)
        return 0;
    library = dlopen(lua_tostring(L, -1), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (library == NULL)
        return 0;
    symbol = dlsym(library, "luaopen_cjson");
    if (symbol == NULL) {
        dlclose(library);
        return 0;
    }
    memcpy(&open, &symbol, sizeof open);
    lua_pushcfunction(L, open);
    lua_pushliteral(L, "cjson");
    lua_call(L, 1, 1);
    return 1;
}

#else

static int push_apart(lua_State *L)
{
    (void)L;
    return 0;
}

#endif

/* Pushes what lua-cjson's file returns. */
void e2b_cjson_push(lua_State *L)
{
    int top = lua_gettop(L);

    luaL_checkstack(L, 6, "cjson");
    if (push_apart(L)) {
        lua_replace(L, top + 1);
        lua_settop(L, top + 1);
        return;
    }
    lua_settop(L, top);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "cjson");
    lua_call(L, 1, 1);
}

/* Calls the function below the value on top. 0: it raised, or returned something else than the type. */
static int call(lua_State *L, int type)
{
    int status = lua_pcall(L, 1, 1, 0);

    if (status == LUA_ERRMEM)
        lua_error(L);
    return status == 0 && lua_type(L, -1) == type;
}

/* Raises when what `encode` writes is not what `decode` reads: better now than in a request. */
void e2b_cjson_check(lua_State *L, int encode, int decode)
{
    static const char sample[] = "\"/\\\n//\t\"";
    int top = lua_gettop(L), i, same = 1;

    for (i = 0; same && i < 3; i++) { /* it keeps a buffer from one time to the next */
        lua_pushvalue(L, decode);
        lua_pushvalue(L, encode);
        lua_createtable(L, 1, 0);
        lua_pushstring(L, sample);
        lua_rawseti(L, -2, 1);
        same = call(L, LUA_TSTRING) && call(L, LUA_TTABLE);
        if (same) {
            lua_rawgeti(L, -1, 1);
            same = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), sample) == 0;
        }
        lua_settop(L, top);
    }
    if (!same)
        luaL_error(L, "lua-cjson doesn't work in this program, which has another copy of its functions: load e2b before "
                      "whatever else loads lua-cjson");
}
