/* From Lua values to the copy that cjson can encode: the reverse of shape.c. Nothing here raises for a value that can't
 * be sent; the message says which one it was. */
#include "e2b.h"
#include "shape.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define EXACT 9007199254740992.0 /* 2^53 */
#define WRITTEN_EXACTLY 1e14     /* cjson writes 14 digits */
#define DIGITS_END 1e21 /* whole numbers from here on are written with 14 digits and an exponent */
#define MAX_BODY (64u << 20) /* four times what the service takes */

struct walk {
    lua_State *L;
    size_t text; /* bytes of all strings so far */
    char message[E2B_MESSAGE_SIZE];
};

static int complain(struct walk *w, const struct e2b_place *at, const char *what)
{
    e2b_explain(w->message, at, what);
    return 0;
}

static int mismatch(struct walk *w, const struct e2b_place *at, const char *expected)
{
    e2b_explain_type(w->message, at, expected, w->L, -1);
    return 0;
}

static int write_value(struct walk *w, const e2b_shape *shape, const struct e2b_place *at, int depth);

static int write_string(struct walk *w, const struct e2b_place *at)
{
    size_t len;
    const char *s = lua_tolstring(w->L, -1, &len);

    w->text += len;
    if (w->text > MAX_BODY)
        return complain(w, at, "the request is too large (more than 64 MiB)");
    if (len >= sizeof E2B_DIGITS_MARK - 1 && memcmp(s, E2B_DIGITS_MARK, sizeof E2B_DIGITS_MARK - 1) == 0)
        return complain(w, at, "a string that begins with the bytes 01 65 32 62 23 can't be sent");
    return 1;
}

static int write_bytes(struct walk *w, const struct e2b_place *at)
{
    size_t len;
    const char *s = lua_tolstring(w->L, -1, &len);
    char *to;

    if (len > MAX_BODY || (w->text += e2b_base64_size(len)) > MAX_BODY)
        return complain(w, at, "the request is too large (more than 64 MiB)");
    to = (char *)e2b_newuserdata(w->L, e2b_base64_size(len) + 1);
    e2b_base64_encode(s, len, to);
    lua_pushlstring(w->L, to, e2b_base64_size(len));
    lua_replace(w->L, -3);
    lua_pop(w->L, 1);
    return 1;
}

/* The number on top, unless it is one that JSON or the reader does not have. Whole numbers leave as integers. */
static int write_number(struct walk *w, e2b_kind kind, const struct e2b_place *at)
{
    lua_State *L = w->L;
    double d = (double)lua_tonumber(L, -1);
    char text[64];

    if (!(d - d == 0.0))
        return complain(w, at, "a finite number expected");
    if (kind == E2B_SECONDS)
        d = ceil(d);
    if (kind == E2B_EPOCH)
        d = floor(d);
    if (kind != E2B_NUMBER) {
        if (d != floor(d) || d < -EXACT || d > EXACT)
            return complain(w, at, "a whole number expected");
        lua_pop(L, 1);
        e2b_pushwhole(L, (long long)d);
    }
    if (d != floor(d) || (d < WRITTEN_EXACTLY && d > -WRITTEN_EXACTLY))
        return 1;
#if LUA_VERSION_NUM >= 503
    if (lua_isinteger(L, -1)) {
        snprintf(text, sizeof text, E2B_DIGITS_MARK "%lld", (long long)lua_tointeger(L, -1));
    } else
#endif
    {
        if (d >= DIGITS_END || d <= -DIGITS_END)
            return 1;
        snprintf(text, sizeof text, E2B_DIGITS_MARK "%.0f", d);
    }
    lua_pop(L, 1);
    lua_pushstring(L, text);
    return 1;
}

static int write_time(struct walk *w, const struct e2b_place *at)
{
    char text[E2B_TIME_SIZE];
    size_t len;

    if (lua_type(w->L, -1) != LUA_TNUMBER)
        return mismatch(w, at, "a time in seconds since the epoch");
    len = e2b_time_format((double)lua_tonumber(w->L, -1), text);
    if (len == 0)
        return complain(w, at, "this time is outside the years 0 to 9999");
    lua_pop(w->L, 1);
    lua_pushlstring(w->L, text, len);
    return 1;
}

/* Is the table on top a list: are its keys 1 to n and nothing else? */
static int is_list(lua_State *L, size_t n)
{
    int table = lua_gettop(L);
    size_t count = 0;

    lua_pushnil(L);
    while (lua_next(L, table)) {
        double key;
        lua_pop(L, 1);
        key = lua_type(L, -1) == LUA_TNUMBER ? (double)lua_tonumber(L, -1) : 0.0;
        if (key < 1.0 || key > (double)n || key != floor(key)) {
            lua_settop(L, table);
            return 0;
        }
        count++;
    }
    return count == n;
}

static int write_list(struct walk *w, const e2b_shape *item, const struct e2b_place *up, int depth)
{
    lua_State *L = w->L;
    int list = lua_gettop(L);
    size_t n = lua_rawlen(L, list), i, kept = 0;
    struct e2b_place at = {up, NULL, 0};

    if (!is_list(L, n))
        return complain(w, up, "a list expected, got a table with other keys or holes");
    lua_createtable(L, (int)n, 0);
    for (i = 1; i <= n; i++) {
        at.index = i;
        lua_rawgeti(L, list, (int)i);
        if (!write_value(w, item, &at, depth))
            return 0;
        if (lua_isnil(L, -1))
            lua_pop(L, 1);
        else
            lua_rawseti(L, list + 1, (int)++kept);
    }
    lua_replace(L, list);
    return 1;
}

/* Pushes the key at -2 as the string it is on the wire. */
static int push_key(lua_State *L)
{
    double d;
    char text[40];

    if (lua_type(L, -2) == LUA_TSTRING) {
        lua_pushvalue(L, -2);
        return 1;
    }
    if (lua_type(L, -2) != LUA_TNUMBER)
        return 0;
    d = (double)lua_tonumber(L, -2);
    if (d == floor(d) && d >= -EXACT && d <= EXACT) {
        snprintf(text, sizeof text, "%lld", (long long)d);
        lua_pushstring(L, text);
    } else {
        lua_pushvalue(L, -2);
        lua_tostring(L, -1);
    }
    return 1;
}

static int write_map(struct walk *w, const e2b_shape *item, const struct e2b_place *up, int depth)
{
    lua_State *L = w->L;
    int map = lua_gettop(L);
    struct e2b_place at = {up, NULL, 0};

    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, map)) {
        if (!push_key(L))
            return complain(w, up, "the keys of a map must be strings");
        if (lua_type(L, -3) == LUA_TNUMBER) {
            lua_pushvalue(L, -1);
            lua_rawget(L, map);
            if (!lua_isnil(L, -1))
                return complain(w, up, "a number and a string would be the same key");
            lua_pop(L, 1);
        }
        if (!write_string(w, up))
            return 0;
        lua_insert(L, -2);
        at.key = lua_tostring(L, -2);
        if (!write_value(w, item, &at, depth))
            return 0;
        if (lua_isnil(L, -1))
            lua_pop(L, 2);
        else
            lua_rawset(L, map + 1);
    }
    lua_replace(L, map);
    return 1;
}

/* A field the shape does not have would be dropped without a word; it is a mistake of some caller's. */
int e2b_only_fields(lua_State *L, int table, const e2b_field *fields, const struct e2b_place *up, char *message)
{
    lua_pushnil(L);
    while (lua_next(L, table)) {
        const e2b_field *field = fields;
        struct e2b_place at = {up, NULL, 0};

        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING) {
            e2b_explain(message, up, "only named fields expected here");
            return 0;
        }
        at.key = lua_tostring(L, -1);
        while (field != NULL && field->wire != NULL && (field->name == NULL || strcmp(field->name, at.key) != 0))
            field++;
        if (field == NULL || field->wire == NULL) {
            e2b_explain(message, &at, "there is no such field");
            return 0;
        }
    }
    return 1;
}

static int write_object(struct walk *w, const e2b_shape *shape, const struct e2b_place *up, int depth)
{
    lua_State *L = w->L;
    int from = lua_gettop(L);
    const e2b_field *field;
    struct e2b_place at = {up, NULL, 0};

    if (!e2b_only_fields(L, from, shape->fields, up, w->message))
        return 0;
    lua_newtable(L);
    for (field = shape->fields; field->wire != NULL; field++) {
        if (field->name == NULL)
            continue;
        lua_pushlstring(L, field->wire, field->wire_len);
        lua_pushstring(L, field->name);
        lua_rawget(L, from);
        if (!lua_isnil(L, -1)) {
            at.key = field->name;
            if (!write_value(w, field->shape, &at, depth))
                return 0;
        }
        if (lua_isnil(L, -1))
            lua_pop(L, 2);
        else
            lua_rawset(L, from + 1);
    }
    lua_replace(L, from);
    return 1;
}

static int write_any(struct walk *w, const struct e2b_place *at, int depth)
{
    lua_State *L = w->L;
    size_t n;

    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        return write_string(w, at);
    case LUA_TNUMBER:
        return write_number(w, E2B_NUMBER, at);
    case LUA_TBOOLEAN:
    case LUA_TNIL:
        return 1;
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, -1) == NULL)
            return 1; /* what cjson, nginx and others call null */
        break;
    case LUA_TTABLE:
        n = lua_rawlen(L, -1);
        if (n > 0 && is_list(L, n))
            return write_list(w, &e2b_shape_any, at, depth);
        if (n > 0)
            return complain(w, at, "this table is neither a list nor a map with string keys");
        return write_map(w, &e2b_shape_any, at, depth);
    default:
        break;
    }
    return mismatch(w, at, "a value that JSON has");
}

/* Replaces the value on top with what is to be sent; nil when that is nothing. On failure the message is in the walk
 * and the stack is anything. */
static int write_value(struct walk *w, const e2b_shape *shape, const struct e2b_place *at, int depth)
{
    lua_State *L = w->L;
    int type = lua_type(L, -1);

    if (type == LUA_TTABLE) {
        if (++depth > E2B_MAX_DEPTH) {
            while (at != NULL && at->up != NULL)
                at = at->up;
            return complain(w, at, "nested deeper than 100 levels (or a table that contains itself)");
        }
        luaL_checkstack(L, 10, "request");
    }
    switch (shape->kind) {
    case E2B_ANY:
        return write_any(w, at, depth);
    case E2B_STRING:
    case E2B_TEXT:
        if (type != LUA_TSTRING)
            return mismatch(w, at, "a string");
        if (shape->kind == E2B_TEXT && lua_rawlen(L, -1) == 0) {
            lua_pop(L, 1);
            lua_pushnil(L);
            return 1;
        }
        return write_string(w, at);
    case E2B_BOOL:
        return type == LUA_TBOOLEAN ? 1 : mismatch(w, at, "a boolean");
    case E2B_NUMBER:
    case E2B_WHOLE:
    case E2B_INT64:
    case E2B_SECONDS:
    case E2B_EPOCH:
        return type == LUA_TNUMBER ? write_number(w, shape->kind, at) : mismatch(w, at, "a number");
    case E2B_TIME:
        return write_time(w, at);
    case E2B_LIST:
        if (type != LUA_TTABLE)
            return mismatch(w, at, "a list");
        if (lua_rawlen(L, -1) == 0 && is_list(L, 0)) { /* cjson can't write [] */
            lua_pop(L, 1);
            lua_pushnil(L);
            return 1;
        }
        return write_list(w, shape->item, at, depth);
    case E2B_MAP:
        return type == LUA_TTABLE ? write_map(w, shape->item, at, depth) : mismatch(w, at, "a table");
    case E2B_SWITCH:
        if (type == LUA_TBOOLEAN) {
            lua_createtable(L, 0, 1);
            lua_pushvalue(L, -2);
            lua_setfield(L, -2, "enabled");
            lua_replace(L, -2);
            return 1;
        }
        return type == LUA_TTABLE ? write_object(w, shape, at, depth) : mismatch(w, at, "a boolean");
    case E2B_OBJECT:
        return type == LUA_TTABLE ? write_object(w, shape, at, depth) : mismatch(w, at, "a table");
    case E2B_BYTES:
        return type == LUA_TSTRING ? write_bytes(w, at) : mismatch(w, at, "a string");
    case E2B_ENUM:
    case E2B_INNER:
    case E2B_PAIRS:
        break;
    }
    return complain(w, at, "this can't be sent in a body");
}

int e2b_shape_write(lua_State *L, const e2b_shape *shape, const char *name)
{
    struct walk w;
    struct e2b_place root = {NULL, name, 0};
    int value = lua_gettop(L), done;

    luaL_checkstack(L, 4, "request");
    w.L = L;
    w.text = 0;
    lua_pushvalue(L, value);
    done = write_value(&w, shape, name != NULL ? &root : NULL, 0);
    if (!done)
        lua_pushstring(L, w.message);
    lua_replace(L, value);
    lua_settop(L, value);
    return done;
}
