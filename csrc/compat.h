/* One C API out of Lua 5.1, 5.2, 5.3, 5.4 and LuaJIT: only the calls this module uses. Every shim is static and reached
 * through a macro, so no symbol of Lua's is ever defined here (LuaJIT exports some of these names itself). No version
 * ceilings: what is newer than the newest Lua known here is treated like it. */
#ifndef E2B_COMPAT_H
#define E2B_COMPAT_H

#if defined(__has_include)
#if !__has_include(<lua.h>)
#error "lua.h is missing: install the headers of your Lua (Debian/Ubuntu: liblua5.4-dev, or libluajit-5.1-dev; Fedora: \
lua-devel; Alpine: lua5.4-dev; Arch: lua; macOS: brew install lua) or point LUA_CFLAGS at them"
#endif
#if !__has_include(<curl/curl.h>)
#error "curl/curl.h is missing: install the headers of libcurl 7.66 or later (Debian/Ubuntu: \
libcurl4-openssl-dev; Fedora: libcurl-devel; Alpine: curl-dev; Arch: curl; macOS: xcode-select --install, or brew \
install curl) or point CURL_CFLAGS at them"
#endif
#endif

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stddef.h>

#if defined(__GNUC__)
#define E2B_UNUSED __attribute__((unused))
#define E2B_EXPORT __attribute__((visibility("default")))
#else
#define E2B_UNUSED
#define E2B_EXPORT
#endif

#if LUA_VERSION_NUM < 502

#define lua_rawlen lua_objlen

#undef luaL_setfuncs
#define luaL_setfuncs e2b_compat_setfuncs
static E2B_UNUSED void e2b_compat_setfuncs(lua_State *L, const luaL_Reg *list, int upvalues)
{
    luaL_checkstack(L, upvalues + 1, "too many upvalues");
    for (; list->name != NULL; list++) {
        int i;
        for (i = 0; i < upvalues; i++)
            lua_pushvalue(L, -upvalues);
        lua_pushcclosure(L, list->func, upvalues);
        lua_setfield(L, -(upvalues + 2), list->name);
    }
    lua_pop(L, upvalues);
}

#undef luaL_setmetatable
#define luaL_setmetatable e2b_compat_setmetatable
static E2B_UNUSED void e2b_compat_setmetatable(lua_State *L, const char *name)
{
    luaL_getmetatable(L, name);
    lua_setmetatable(L, -2);
}

#endif

/* A userdata without user values (their number and kind differ in every version, so none are used). */
static E2B_UNUSED void *e2b_newuserdata(lua_State *L, size_t size)
{
#if LUA_VERSION_NUM >= 504
    return lua_newuserdatauv(L, size, 0);
#else
    return lua_newuserdata(L, size);
#endif
}

/* A whole number: an integer where the Lua has them, a number elsewhere. Doubles hold it exactly up to 2^53. */
static E2B_UNUSED void e2b_pushwhole(lua_State *L, long long n)
{
#if LUA_VERSION_NUM >= 503
    lua_pushinteger(L, (lua_Integer)n);
#else
    lua_pushnumber(L, (lua_Number)n);
#endif
}

#endif
