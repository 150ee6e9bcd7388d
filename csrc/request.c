/* From the table of a call's arguments to a request: method, path with query, and body. What can't be sent comes back
 * as a message that names the argument. */
#include "e2b.h"
#include "shape.h"

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

struct request {
    lua_State *L;
    char message[E2B_MESSAGE_SIZE];
};

static int complain(struct request *r, const struct e2b_place *at, const char *what)
{
    e2b_explain(r->message, at, what);
    return 0;
}

static int mismatch(struct request *r, const struct e2b_place *at, const char *expected)
{
    e2b_explain_type(r->message, at, expected, r->L, -1);
    return 0;
}

/* ---- Path ---- */

/* Pushes the parameter of that name as one escaped segment. */
static int push_segment(struct request *r, int args, const char *name, size_t name_len)
{
    lua_State *L = r->L;
    struct e2b_place at = {NULL, NULL, 0};
    const char *s = NULL;
    size_t len = 0;

    lua_pushlstring(L, name, name_len);
    at.key = lua_tostring(L, -1);
    lua_pushvalue(L, -1);
    if (args != 0)
        lua_rawget(L, args);
    else
        lua_pushnil(L);
    if (lua_type(L, -1) != LUA_TSTRING)
        return mismatch(r, &at, "a string");
    s = lua_tolstring(L, -1, &len);
    if (len == 0)
        return complain(r, &at, "it must not be empty");
    /* These stay as they are when escaped, and would be read as steps between folders. */
    if (strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
        return complain(r, &at, "\".\" and \"..\" can't be sent");
    e2b_push_escaped(L, s, len, "%");
    return 1;
}

static int add_path(struct request *r, luaL_Buffer *out, const char *path, int args)
{
    const char *brace;

    while ((brace = strchr(path, '{')) != NULL) {
        const char *end = strchr(brace, '}');
        int top;
        luaL_addlstring(out, path, (size_t)(brace - path));
        top = lua_gettop(r->L);
        if (!push_segment(r, args, brace + 1, (size_t)(end - brace - 1)))
            return 0;
        lua_replace(r->L, top + 1);
        lua_settop(r->L, top + 1);
        luaL_addvalue(out);
        path = end + 1;
    }
    luaL_addstring(out, path);
    return 1;
}

/* ---- Query ---- */

struct key {
    const char *s;
    size_t len;
};

static int compare_keys(const void *a, const void *b)
{
    const struct key *x = (const struct key *)a, *y = (const struct key *)b;
    int order = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);
    return order != 0 ? order : x->len < y->len ? -1 : x->len > y->len;
}

/* Pushes a userdata with the keys of the table at that index in byte order, so that equal requests are equal bytes.
 * The strings belong to the table. */
static int push_keys(struct request *r, int table, const struct e2b_place *at, struct key **keys, size_t *count)
{
    lua_State *L = r->L;
    size_t n = 0, i = 0;

    for (lua_pushnil(L); lua_next(L, table); n++) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            return complain(r, at, "the keys must be strings");
    }
    *count = n;
    *keys = (struct key *)e2b_newuserdata(L, (n + 1) * sizeof **keys);
    for (lua_pushnil(L); lua_next(L, table) && i < n; i++) {
        lua_pop(L, 1);
        (*keys)[i].s = lua_tolstring(L, -1, &(*keys)[i].len);
    }
    qsort(*keys, n, sizeof **keys, compare_keys);
    return 1;
}

/* Pushes the map at that index as one value: pairs of escaped texts, form-encoded, and escaped as a whole again. */
static int push_pairs(struct request *r, int map, const struct e2b_place *up)
{
    lua_State *L = r->L;
    struct e2b_place at = {up, NULL, 0};
    struct key *keys;
    size_t count, i, len;
    luaL_Buffer out;

    if (!push_keys(r, map, up, &keys, &count))
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
static int escape_value(struct request *r, const struct e2b_place *at)
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
static int join_list(struct request *r, const struct e2b_place *up)
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
static int encode_query(struct request *r, const e2b_shape *shape, const struct e2b_place *at)
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
static void add_parameter(struct request *r, luaL_Buffer *out, char *separator, const char *name, size_t len)
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
static int add_query(struct request *r, luaL_Buffer *out, const e2b_field *fields, int query)
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
static int add_raw_query(struct request *r, luaL_Buffer *out, int query, int keys_at, size_t count, char separator)
{
    lua_State *L = r->L;
    const struct key *keys = (const struct key *)lua_touserdata(L, keys_at);
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

/* ---- The whole ---- */

/* Pushes args[name], and answers its stack index, or 0 when it is not given. Anything but a table is misuse. */
static int push_part(lua_State *L, int args, const char *name)
{
    if (args == 0) {
        lua_pushnil(L);
        return 0;
    }
    lua_pushstring(L, name);
    lua_rawget(L, args);
    if (lua_isnil(L, -1))
        return 0;
    if (lua_type(L, -1) != LUA_TTABLE)
        luaL_error(L, "args.%s: a table expected, got %s", name, luaL_typename(L, -1));
    return lua_gettop(L);
}

static int push_row(struct request *r, const e2b_call *call, int args)
{
    lua_State *L = r->L;
    int query = push_part(L, args, "query"), body = push_part(L, args, "body");
    luaL_Buffer out;

    if (query != 0 && !e2b_only_fields(L, query, call->query, NULL, r->message))
        return 0;
    lua_pushstring(L, call->method);
    luaL_buffinit(L, &out);
    if (!add_path(r, &out, call->path, args) || (query != 0 && !add_query(r, &out, call->query, query)))
        return 0;
    luaL_pushresult(&out);
    if (call->body == NULL || (body == 0 && !(call->flags & E2B_ALWAYS_BODY))) {
        lua_pushnil(L);
        lua_pushnil(L);
        return 1;
    }
    if (body != 0) {
        e2b_shape shape = {E2B_OBJECT, 0, NULL, NULL};
        shape.fields = call->body;
        lua_pushvalue(L, body);
        if (!e2b_shape_write(L, &shape, NULL) || !e2b_json_print(L)) {
            snprintf(r->message, sizeof r->message, "%s", lua_tostring(L, -1));
            return 0;
        }
    } else {
        lua_pushliteral(L, "{}");
    }
    lua_pushliteral(L, "application/json");
    return 1;
}

/* Pushes a string of args, or nil. */
static const char *push_text(lua_State *L, int args, const char *name, size_t *len)
{
    lua_pushstring(L, name);
    lua_rawget(L, args);
    if (lua_isnil(L, -1))
        return NULL;
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "args.%s: a string expected, got %s", name, luaL_typename(L, -1));
    return lua_tolstring(L, -1, len);
}

/* Bytes that are neither control characters nor, in a path, blanks or the beginning of a fragment. */
static int is_clean(const char *s, size_t len, int in_path)
{
    size_t i;

    for (i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c == 0x7f || (in_path && (c == ' ' || c == '#')))
            return 0;
    }
    return 1;
}

/* Adds a path that is the caller's: only what is no ASCII is escaped. */
static void add_raw_path(luaL_Buffer *out, const char *path, size_t len)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t i;

    for (i = 0; i < len; i++) {
        unsigned char c = (unsigned char)path[i];
        if (c < 0x80) {
            luaL_addchar(out, (char)c);
        } else {
            luaL_addchar(out, '%');
            luaL_addchar(out, hex[c >> 4]);
            luaL_addchar(out, hex[c & 15]);
        }
    }
}

static int push_raw_body(struct request *r, int args)
{
    lua_State *L = r->L;
    const struct e2b_place at = {NULL, "content_type", 0};
    const char *type;
    size_t len;

    lua_pushliteral(L, "body");
    lua_rawget(L, args);
    if (lua_type(L, -1) == LUA_TTABLE) {
        if (!e2b_shape_write(L, &e2b_shape_any, "body") || !e2b_json_print(L)) {
            snprintf(r->message, sizeof r->message, "%s", lua_tostring(L, -1));
            return 0;
        }
    } else if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING) {
        luaL_error(L, "args.body: a table or a string expected, got %s", luaL_typename(L, -1));
    }
    type = push_text(L, args, "content_type", &len);
    if (type != NULL && (len == 0 || !is_clean(type, len, 0)))
        return complain(r, &at, "it must not be empty or contain control characters");
    if (type == NULL && !lua_isnil(L, -2)) {
        lua_pop(L, 1);
        lua_pushliteral(L, "application/json");
    }
    return 1;
}

static int push_raw(struct request *r, int args)
{
    lua_State *L = r->L;
    const struct e2b_place at_method = {NULL, "method", 0}, at_path = {NULL, "path", 0}, at_query = {NULL, "query", 0};
    const char *method, *path;
    size_t method_len, path_len, i, count = 0;
    int query, keys_at;
    struct key *keys;
    luaL_Buffer out;

    if (args == 0)
        return luaL_error(L, "args: a table with method and path expected");
    query = push_part(L, args, "query");
    if (query != 0 && !push_keys(r, query, &at_query, &keys, &count))
        return 0;
    keys_at = lua_gettop(L);
    path = push_text(L, args, "path", &path_len);
    if (path == NULL || path[0] != '/')
        return complain(r, &at_path, "it must begin with /");
    if (!is_clean(path, path_len, 1))
        return complain(r, &at_path, "it must not contain blanks, control characters or #");
    method = push_text(L, args, "method", &method_len);
    for (i = 0; method != NULL && i < method_len && method[i] >= 'A' && method[i] <= 'Z';)
        i++;
    if (method == NULL || i == 0 || i != method_len || i > 16)
        return complain(r, &at_method, "a method such as GET or POST expected");
    luaL_buffinit(L, &out);
    add_raw_path(&out, path, path_len);
    if (query != 0 && !add_raw_query(r, &out, query, keys_at, count, strchr(path, '?') != NULL ? '&' : '?'))
        return 0;
    luaL_pushresult(&out);
    return push_raw_body(r, args);
}

int e2b_call_request(lua_State *L, const e2b_call *call, int args)
{
    struct request r;
    int base = lua_gettop(L), done;

    luaL_checkstack(L, 40, "request");
    if (lua_isnoneornil(L, args))
        args = 0;
    else if (lua_type(L, args) != LUA_TTABLE)
        return luaL_error(L, "args: a table expected, got %s", luaL_typename(L, args));
    r.L = L;
    r.message[0] = '\0';
    done = (call->flags & E2B_RAW) ? push_raw(&r, args) : push_row(&r, call, args);
    if (done) {
        int i;
        for (i = 1; i <= 4; i++)
            lua_insert(L, base + 1);
        lua_settop(L, base + 4);
    } else {
        lua_settop(L, base);
        lua_pushstring(L, r.message);
    }
    return done;
}
