/* require("e2b.core"): the one exported symbol. */
#include "engine.h"

#if defined(__linux__) || defined(__APPLE__) || defined(__FreeBSD__)
#include <dlfcn.h>
#endif
#include <string.h>
#include <unistd.h>

#define OLDEST_LIBCURL 0x074200

/* Makes the metatable of a type. The core's table is on top of the stack, and stays there. */
void e2b_type(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, meta, e2b_upvalues(L));
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_newtable(L);
    luaL_setfuncs(L, methods, e2b_upvalues(L));
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

/* core.now() */
static int core_now(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)e2b_now());
    return 1;
}

/* core.getpid() */
static int core_getpid(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)getpid());
    return 1;
}

static void set_count(lua_State *L, const char *name, size_t n)
{
    lua_pushinteger(L, (lua_Integer)n);
    lua_setfield(L, -2, name);
}

/* core.stats() */
static int core_stats(lua_State *L)
{
    const e2b_engine *engine = e2b_engine_of(L);
    lua_createtable(L, 0, 6);
    set_count(L, "engines", engine != NULL && engine->multi != NULL);
    set_count(L, "targets", engine != NULL ? engine->targets : 0);
    set_count(L, "transfers", engine != NULL ? engine->transfers : 0);
    set_count(L, "in_flight", engine != NULL ? engine->in_flight : 0);
    set_count(L, "sockets", engine != NULL ? e2b_sockets_count(engine) : 0);
    set_count(L, "easies", engine != NULL ? engine->easies : 0);
    return 1;
}

static void set_flag(lua_State *L, const char *name, int on)
{
    lua_pushboolean(L, on);
    lua_setfield(L, -2, name);
}

/* core.libcurl() */
static int core_libcurl(lua_State *L)
{
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
    lua_createtable(L, 0, 7);
    lua_pushstring(L, info->version);
    lua_setfield(L, -2, "version");
    lua_pushinteger(L, (lua_Integer)info->version_num);
    lua_setfield(L, -2, "number");
    lua_pushstring(L, info->ssl_version);
    lua_setfield(L, -2, "ssl");
    set_flag(L, "prereq", info->version_num >= 0x075000);
    set_flag(L, "quick_exit", info->version_num >= 0x075700);
    set_flag(L, "http2", (info->features & CURL_VERSION_HTTP2) != 0);
    set_flag(L, "async_dns", (info->features & CURL_VERSION_ASYNCHDNS) != 0);
    return 1;
}

/* Keeps the library that holds this function from being unloaded. */
static void pin(void (*function)(void))
{
#if defined(RTLD_NODELETE) && defined(RTLD_NOLOAD)
    Dl_info where;
    union {
        void (*function)(void);
        void *address;
    } known;
    known.function = function;
    if (dladdr(known.address, &where) != 0 && where.dli_fname != NULL) {
        void *handle = dlopen(where.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
        if (handle != NULL)
            dlclose(handle);
    }
#else
    (void)function;
#endif
}

/* When Lua closes it unloads this module, and libcurl with it if nobody else has it. But a cancelled lookup leaves a
 * thread of libcurl's behind that ends by itself, and that would return into nothing; and so would, on Lua 5.1 and
 * LuaJIT, a finalizer that runs after the unloading and calls something of this module. So both stay. */
static void pin_libraries(void)
{
    pin((void (*)(void))curl_easy_init);
    pin((void (*)(void))core_now);
}

E2B_EXPORT int luaopen_e2b_core(lua_State *L);

E2B_EXPORT int luaopen_e2b_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "now", core_now },         { "getpid", core_getpid }, { "stats", core_stats },
        { "libcurl", core_libcurl }, { NULL, NULL },
    };
    const curl_version_info_data *info;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) /* never cleaned up: the host may use libcurl too */
        return luaL_error(L, "libcurl could not be initialized");
    info = curl_version_info(CURLVERSION_NOW);
    if (info->version_num < OLDEST_LIBCURL)
        return luaL_error(L, "libcurl %s is too old: e2b needs 7.66 or later", info->version);
    pin_libraries();
    lua_settop(L, 0);
    lua_newtable(L);
    e2b_engine_open(L);
    e2b_target_open(L);
    e2b_transfer_open(L);
    e2b_guard_open(L);
    e2b_bridge_open(L);
    e2b_leash_open(L);
    luaL_setfuncs(L, functions, e2b_upvalues(L));
    e2b_json_open(L);
    e2b_calls_open(L);
    e2b_timefmt_open(L);
    e2b_url_open(L);
    e2b_base64_open(L);
    e2b_terminal_open(L);
    e2b_file_open(L);
    e2b_local_open(L);
    e2b_tree_open(L);
    e2b_sha256_open(L);
    e2b_deflate_open(L);
    e2b_output_open(L);
    e2b_interrupt_open(L);
    e2b_journal_open(L);
    e2b_living_open(L);
    lua_pushinteger(L, E2B_ABI);
    lua_setfield(L, -2, "ABI");
    return 1;
}
