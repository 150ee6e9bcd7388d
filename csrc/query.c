/* Queries of requests: the fields of a row's, or whatever the caller of the raw row gave. Values are escaped here, all
 * of them. */
#include "e2b.h"
#include "request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_END 9223372036854775807.0
#if LUA_VERSION_NUM >= 503
#define WHOLE(L, d) (lua_isinteger(L, -1) ? (long long)lua_tointeger(L, -1) : (long long)(d))
#else
#define WHOLE(L, d) ((long long)(d))
#endif

static int complain(struct e2b_request *r, const struct e2b_place *at, const char *what)
{
    e2b_explain(r->message, at, what);
    return 0;
}

static int mismatch(struct e2b_request *r, const struct e2b_place *at, const char *expected)
{
    e2b_explain_type(r->message, at, expected, r->L, -1);
    return 0;
}

static int compare_keys(const void *a, const void *b)
{
    const struct e2b_key *x = (const struct e2b_key *)a, *y = (const struct e2b_key *)b;
    int order = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);
    return order != 0 ? order : x->len < y->len ? -1 : x->len > y->len;
}

/* Pushes a userdata with the keys of the table at that index in byte order, so that equal requests are equal bytes.
 * The strings belong to the table. */
int e2b_push_keys(struct e2b_request *r, int table, const struct e2b_place *at, struct e2b_key **keys, size_t *count)
{
    lua_State *L = r->L;
    size_t n = 0, i = 0;

    for (lua_pushnil(L); lua_next(L, table); n++) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            return complain(r, at, "the keys must be strings");
    }
    *count = n;
    *keys = (struct e2b_key *)e2b_newuserdata(L, (n + 1) * sizeof **keys);
    for (lua_pushnil(L); lua_next(L, table) && i < n; i++) {
        lua_pop(L, 1);
        (*keys)[i].s = lua_tolstring(L, -1, &(*keys)[i].len);
    }
    qsort(*keys, n, sizeof **keys, compare_keys);
    return 1;
}

/* Pushes the map at that index as one value: pairs of escaped texts, form-encoded, and escaped as a whole again. */
static int push_pairs(struct e2b_request *r, int map, const struct e2b_place *up)
{
    lua_State *L = r->L;
    struct e2b_place at = {up, NULL, 0};
    struct e2b_key *keys;
    size_t count, i, len;
    luaL_Buffer out;

    if (!e2b_push_keys(r, map, up, &keys, &count))
        return 0;
    luaL_buffinit(L, &out);
    for (i = 0; i < count; i++) {
        const char *s;
        int top;

        if (i > 0)
            luaL_addstring(&out, "%26");
        e2b_push_escaped(L, keys[i].s, keys[i].len, "%2525");
        luaL_addvalue(&out);
        luaL_addstring(&out, "%3D");
        top = lua_gettop(L);
        lua_pushlstring(L, keys[i].s, keys[i].len);
        lua_rawget(L, map);
        at.key = keys[i].s;
        if (lua_type(L, -1) != LUA_TSTRING)
            return mismatch(r, &at, "a string");
        s = lua_tolstring(L, -1, &len);
        e2b_push_escaped(L, s, len, "%2525");
        lua_replace(L, top + 1);
        luaL_addvalue(&out);
    }
    luaL_pushresult(&out);
    return 1;
}

/* Replaces the single value on top with its escaped text. */
static int escape_value(struct e2b_request *r, const struct e2b_place *at)
{
    lua_State *L = r->L;
    const char *s;
    size_t len;
    double d;
    char text[40];

    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        s = lua_toboolean(L, -1) ? "true" : "false";
        lua_pop(L, 1);
        lua_pushstring(L, s);
        return 1;
    case LUA_TNUMBER:
        d = (double)lua_tonumber(L, -1);
        if (!(d - d == 0.0))
            return complain(r, at, "a finite number expected");
        if (d == floor(d) && d > -DIGITS_END && d < DIGITS_END) {
            snprintf(text, sizeof text, "%lld", WHOLE(L, d));
            lua_pop(L, 1);
            lua_pushstring(L, text);
            return 1;
        }
        break;
    case LUA_TSTRING:
        break;
    default:
        return mismatch(r, at, "a string, a number or a boolean");
    }
    s = lua_tolstring(L, -1, &len);
    e2b_push_escaped(L, s, len, "%");
    lua_remove(L, -2);
    return 1;
}

/* Replaces the list on top with its escaped elements between commas, or with nil when it has none. */
static int join_list(struct e2b_request *r, const struct e2b_place *up)
{
    lua_State *L = r->L;
    int list = lua_gettop(L);
    size_t n = lua_rawlen(L, list);
    struct e2b_place at = {up, NULL, 0};
    luaL_Buffer out;

    if (n == 0) {
        lua_pushnil(L);
        if (lua_next(L, list))
            return complain(r, up, "a list expected, got a table with other keys");
        lua_pushnil(L);
        lua_replace(L, list);
        return 1;
    }
    luaL_buffinit(L, &out);
    for (at.index = 1; at.index <= n; at.index++) {
        if (at.index > 1)
            luaL_addchar(&out, ',');
        lua_rawgeti(L, list, (int)at.index);
        if (!escape_value(r, &at))
            return 0;
        luaL_addvalue(&out);
    }
    luaL_pushresult(&out);
    lua_replace(L, list);
    return 1;
}

/* Replaces the value of a query field on top with its escaped text; nil when it is not to be sent. */
static int encode_query(struct e2b_request *r, const e2b_shape *shape, const struct e2b_place *at)
{
    lua_State *L = r->L;
    int top = lua_gettop(L), done;

    if (lua_isnil(L, top))
        return 1;
    if (shape->kind == E2B_PAIRS || shape->kind == E2B_LIST) {
        if (lua_type(L, top) != LUA_TTABLE)
            return mismatch(r, at, shape->kind == E2B_LIST ? "a list" : "a table");
        if (shape->kind == E2B_LIST)
            return join_list(r, at);
        done = push_pairs(r, top, at);
    } else if (shape->kind == E2B_ANY) {
        return lua_type(L, top) == LUA_TTABLE ? join_list(r, at) : escape_value(r, at);
    } else {
        const size_t mark = sizeof E2B_DIGITS_MARK - 1;
        lua_pushvalue(L, top);
        done = e2b_shape_write(L, shape, at->key);
        if (!done) {
            snprintf(r->message, sizeof r->message, "%s", lua_tostring(L, -1));
        } else if (!lua_isnil(L, -1)) {
            if (lua_type(L, -1) == LUA_TSTRING && strncmp(lua_tostring(L, -1), E2B_DIGITS_MARK, mark) == 0)
                lua_pushstring(L, lua_tostring(L, -1) + mark);
            done = escape_value(r, at);
        }
    }
    if (!done)
        return 0;
    if (lua_gettop(L) > top)
        lua_replace(L, top);
    lua_settop(L, top);
    if (lua_type(L, top) == LUA_TSTRING && lua_rawlen(L, top) == 0) {
        lua_pop(L, 1);
        lua_pushnil(L); /* an empty parameter is refused where a missing one is fine */
    }
    return 1;
}

/* Adds "name=value"; the value on top is used up. */
static void add_parameter(struct e2b_request *r, luaL_Buffer *out, char *separator, const char *name, size_t len)
{
    lua_State *L = r->L;

    e2b_push_escaped(L, name, len, "%");
    lua_insert(L, -2);
    lua_pushliteral(L, "=");
    lua_insert(L, -2);
    lua_pushlstring(L, separator, 1);
    lua_insert(L, -4);
    lua_concat(L, 4);
    luaL_addvalue(out);
    *separator = '&';
}

/* The query of a row: its fields in their order. */
int e2b_add_query(struct e2b_request *r, luaL_Buffer *out, const e2b_field *fields, int query)
{
    lua_State *L = r->L;
    char separator = '?';

    for (; fields != NULL && fields->wire != NULL; fields++) {
        struct e2b_place at = {NULL, NULL, 0};
        at.key = fields->name;
        lua_pushstring(L, fields->name);
        lua_rawget(L, query);
        if (!encode_query(r, fields->shape, &at))
            return 0;
        if (lua_isnil(L, -1))
            lua_pop(L, 1);
        else
            add_parameter(r, out, &separator, fields->wire, fields->wire_len);
    }
    return 1;
}

/* The query of the raw row: whatever is there. */
int e2b_add_raw_query(struct e2b_request *r, luaL_Buffer *out, int query, int keys_at, size_t count, char separator)
{
    lua_State *L = r->L;
    const struct e2b_key *keys = (const struct e2b_key *)lua_touserdata(L, keys_at);
    const struct e2b_place root = {NULL, "query", 0};
    size_t i;

    for (i = 0; i < count; i++) {
        struct e2b_place at = {&root, NULL, 0};
        at.key = keys[i].s;
        lua_pushlstring(L, keys[i].s, keys[i].len);
        lua_rawget(L, query);
        if (!encode_query(r, &e2b_shape_any, &at))
            return 0;
        if (lua_isnil(L, -1))
            lua_pop(L, 1);
        else
            add_parameter(r, out, &separator, keys[i].s, keys[i].len);
    }
    return 1;
}
