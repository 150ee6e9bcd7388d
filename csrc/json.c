/* The private lua-cjson instance. Its settings are ours alone, the host's shared cjson is never touched. What it
 * raises comes back as a message. */
#include "e2b.h"
#include "shape.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define EXACT 9007199254740992.0 /* 2^53: up to here every whole double is that very number */

#define CODEC "e2b.json"
enum { DECODE = 1, ENCODE, KEEP_BUFFER };

/* cjson reserves buffers from an int's worth of bytes, six for one of a string's, and ends the process past it. */
#define MAX_TEXT (256u << 20)

/* An encoding longer than this is not worth keeping cjson's buffer for. */
#define KEPT_BUFFER (64u << 10)

static void push_codec(lua_State *L, int function)
{
    lua_getfield(L, LUA_REGISTRYINDEX, CODEC);
    lua_rawgeti(L, -1, function);
    lua_remove(L, -2);
}

/* Calls the function below the value on top. 0: what it raised is in their place, as a string; a lack of memory goes on. */
static int call_codec(lua_State *L)
{
    int status = lua_pcall(L, 1, 1, 0);

    if (status == 0)
        return 1;
    if (status == LUA_ERRMEM || lua_type(L, -1) != LUA_TSTRING)
        lua_error(L);
    return 0;
}

int e2b_json_parse(lua_State *L, const char *s, size_t len)
{
    size_t first = 0;

    while (first < len && (s[first] == ' ' || s[first] == '\t' || s[first] == '\n' || s[first] == '\r'))
        first++;
    if (first == len) {
        lua_pushliteral(L, "it is empty");
        return 0;
    }
    if (s[first] == '<') {
        lua_pushliteral(L, "it looks like HTML");
        return 0;
    }
    if (len > MAX_TEXT) {
        lua_pushliteral(L, "it is too long to be parsed");
        return 0;
    }
    /* cjson takes a zero byte for the end and would not see what follows. */
    if (memchr(s, '\0', len) != NULL) {
        lua_pushliteral(L, "it contains a zero byte");
        return 0;
    }
    luaL_checkstack(L, 6, "JSON");
    push_codec(L, DECODE);
    lua_pushlstring(L, s, len);
    return call_codec(L);
}

/* Takes the quotes and the mark from numbers that travelled as strings. Such a string begins after one of "[{:,", where
 * the text of another string never has a bare quote. */
static void restore_digits(lua_State *L)
{
    static const char mark[] = "\"\\u0001e2b#";
    const size_t size = sizeof mark - 1;
    size_t len;
    const char *s = lua_tolstring(L, -1, &len), *end = s + len, *from = s, *at = s;
    luaL_Buffer buffer;

    luaL_buffinit(L, &buffer);
    while ((at = memchr(at, '\\', (size_t)(end - at))) != NULL) {
        const char *quote = at - 1;
        if ((quote == s || quote[-1] != '\\') && (size_t)(end - quote) > size && memcmp(quote, mark, size) == 0) {
            luaL_addlstring(&buffer, from, (size_t)(quote - from));
            from = quote + size;
            at = memchr(from, '"', (size_t)(end - from));
            luaL_addlstring(&buffer, from, (size_t)(at - from));
            from = ++at;
        } else {
            at += 2; /* over the escaped character */
        }
    }
    luaL_addlstring(&buffer, from, (size_t)(end - from));
    luaL_pushresult(&buffer);
    lua_remove(L, -2);
}

int e2b_json_print(lua_State *L)
{
    size_t len;
    const char *s;

    luaL_checkstack(L, 6, "JSON");
    push_codec(L, ENCODE);
    lua_insert(L, -2);
    if (!call_codec(L))
        return 0;
    s = lua_tolstring(L, -1, &len);
    if (len > KEPT_BUFFER) {
        push_codec(L, KEEP_BUFFER);
        if (lua_isfunction(L, -1)) {
            lua_pushvalue(L, -1);
            lua_pushboolean(L, 0);
            lua_call(L, 1, 0);
            lua_pushboolean(L, 1);
            lua_call(L, 1, 0);
        } else {
            lua_pop(L, 1);
        }
    }
    if (len >= sizeof E2B_DIGITS_MARK && strstr(s, "\\u0001e2b#") != NULL)
        restore_digits(L);
    return 1;
}

int e2b_json_whole(lua_State *L)
{
#if LUA_VERSION_NUM >= 503
    if (!lua_isinteger(L, -1)) {
        double d = (double)lua_tonumber(L, -1);
        if (d >= -EXACT && d <= EXACT && d == (double)(long long)d) {
            lua_pop(L, 1);
            lua_pushinteger(L, (lua_Integer)d);
            return 1;
        }
    }
#else
    (void)L;
#endif
    return 0;
}

static void clean_list(lua_State *L, size_t n)
{
    int list = lua_gettop(L);
    size_t i, kept = 0;

    for (i = 1; i <= n; i++) {
        int type, changed = 0;

        lua_rawgeti(L, list, (int)i);
        type = lua_type(L, -1);
        if (type == LUA_TLIGHTUSERDATA) {
            lua_pop(L, 1);
            continue;
        }
        if (type == LUA_TTABLE)
            e2b_json_clean(L);
        else if (type == LUA_TNUMBER)
            changed = e2b_json_whole(L);
        if (++kept != i || changed)
            lua_rawseti(L, list, (int)kept);
        else
            lua_pop(L, 1);
    }
    for (; n > kept; n--) {
        lua_pushnil(L);
        lua_rawseti(L, list, (int)n);
    }
}

/* The depth is bounded by the parser's. */
void e2b_json_clean(lua_State *L)
{
    int table = lua_gettop(L);
    size_t n = lua_rawlen(L, table);

    luaL_checkstack(L, 6, "JSON");
    if (n > 0) {
        clean_list(L, n);
        return;
    }
    lua_pushnil(L);
    while (lua_next(L, table)) {
        int type = lua_type(L, -1);

        if (type == LUA_TTABLE) {
            e2b_json_clean(L);
        } else if (type == LUA_TLIGHTUSERDATA || (type == LUA_TNUMBER && e2b_json_whole(L))) {
            lua_pushvalue(L, -2);
            if (type == LUA_TNUMBER)
                lua_pushvalue(L, -2);
            else
                lua_pushnil(L);
            lua_rawset(L, table);
        }
        lua_pop(L, 1);
    }
}

static int json_decode(lua_State *L)
{
    size_t len;
    const char *s = luaL_checklstring(L, 1, &len);

    lua_settop(L, 1);
    if (e2b_json_parse(L, s, len) && e2b_shape_read(L, &e2b_shape_any)) {
        if (!lua_isnil(L, -1))
            return 1;
        lua_pushliteral(L, "it is null");
        return 2;
    }
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

static int json_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    if (e2b_shape_write(L, &e2b_shape_any, NULL) && e2b_json_print(L))
        return 1;
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

/* Calls the setter at `codec` with one value if this cjson has it and takes the value: the forks differ. */
static void set(lua_State *L, int codec, const char *name, int value, int is_boolean)
{
    lua_getfield(L, codec, name);
    if (is_boolean)
        lua_pushboolean(L, value);
    else
        lua_pushinteger(L, value);
    if (lua_type(L, -2) == LUA_TFUNCTION && lua_pcall(L, 1, 0, 0) == 0)
        return;
    lua_settop(L, codec);
}

int e2b_json_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"json_decode", json_decode}, {"json_encode", json_encode}, {NULL, NULL}};
    static const char *const names[] = {"decode", "encode", "encode_keep_buffer"};
    int core = lua_gettop(L), codec = core + 1, i;

    e2b_shape_open(L);
    e2b_cjson_push(L);
    if (lua_istable(L, -1))
        lua_getfield(L, -1, "new");
    if (!lua_isfunction(L, -1))
        return luaL_error(L, "the module 'cjson' is not lua-cjson: it has no function 'new'");
    lua_call(L, 0, 1);
    lua_replace(L, codec);
    set(L, codec, "decode_invalid_numbers", 0, 1);
    set(L, codec, "encode_invalid_numbers", 0, 1);
    set(L, codec, "decode_max_depth", E2B_MAX_DEPTH, 0);
    set(L, codec, "encode_max_depth", E2B_MAX_DEPTH, 0);
    set(L, codec, "encode_number_precision", 14, 0);
    set(L, codec, "encode_sparse_array", 0, 1);
    set(L, codec, "encode_keep_buffer", 1, 1);

    lua_createtable(L, KEEP_BUFFER, 0);
    for (i = 0; i < KEEP_BUFFER; i++) {
        lua_getfield(L, codec, names[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_rawgeti(L, codec + 1, ENCODE);
    lua_rawgeti(L, codec + 1, DECODE);
    e2b_cjson_check(L, codec + 2, codec + 3);
    lua_settop(L, codec + 1);
    lua_setfield(L, LUA_REGISTRYINDEX, CODEC);
    lua_settop(L, core);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
