/* From the table of a call's arguments to a request: method, path with query, and body. What can't be sent comes back
 * as a message that names the argument. */
#include "e2b.h"
#include "request.h"

#include <stdio.h>
#include <string.h>

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

/* Pushes the parameter of that name as one escaped segment. */
static int push_segment(struct e2b_request *r, int args, const char *name, size_t name_len)
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
    if ((len == 1 || len == 2) && memcmp(s, "..", len) == 0)
        return complain(r, &at, "\".\" and \"..\" can't be sent");
    e2b_push_escaped(L, s, len, "%");
    return 1;
}

static int add_path(struct e2b_request *r, luaL_Buffer *out, const char *path, int args)
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

/* Puts the envelope of a stream around the message on top. */
static void wrap(lua_State *L)
{
    size_t len = lua_rawlen(L, -1);
    char prefix[5];

    prefix[0] = 0;
    prefix[1] = (char)(len >> 24);
    prefix[2] = (char)(len >> 16);
    prefix[3] = (char)(len >> 8);
    prefix[4] = (char)len;
    lua_pushlstring(L, prefix, sizeof prefix);
    lua_insert(L, -2);
    lua_concat(L, 2);
}

/* Pushes a body that is the caller's, or nil when it comes from elsewhere, and its type. */
static int push_bytes(struct e2b_request *r, int args)
{
    lua_State *L = r->L;
    const struct e2b_place at = {NULL, "content_type", 0};
    const char *type = NULL;
    size_t len;

    if (args == 0) {
        lua_pushnil(L);
    } else {
        push_text(L, args, "body", &len);
        type = push_text(L, args, "content_type", &len);
        if (type != NULL && (len == 0 || !is_clean(type, len, 0)))
            return complain(r, &at, "it must not be empty or contain control characters");
        if (type == NULL)
            lua_pop(L, 1);
    }
    if (type == NULL)
        lua_pushliteral(L, "application/octet-stream");
    return 1;
}

static int push_row(struct e2b_request *r, const e2b_call *call, int args)
{
    lua_State *L = r->L;
    int query = push_part(L, args, "query");
    int body = (call->flags & E2B_BYTES_BODY) ? 0 : push_part(L, args, "body");
    luaL_Buffer out;

    if (query != 0 && !e2b_only_fields(L, query, call->query, NULL, r->message))
        return 0;
    lua_pushstring(L, call->method);
    luaL_buffinit(L, &out);
    if (!add_path(r, &out, call->path, args) || (query != 0 && !e2b_add_query(r, &out, call->query, query)))
        return 0;
    luaL_pushresult(&out);
    if (call->flags & E2B_BYTES_BODY)
        return push_bytes(r, args);
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
    if (call->flags & E2B_STREAM)
        wrap(L);
    lua_pushstring(L, (call->flags & E2B_STREAM) ? "application/connect+json" : "application/json");
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

static int push_raw_body(struct e2b_request *r, int args)
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

static int push_raw(struct e2b_request *r, int args)
{
    lua_State *L = r->L;
    const struct e2b_place at_method = {NULL, "method", 0}, at_path = {NULL, "path", 0}, at_query = {NULL, "query", 0};
    const char *method, *path;
    size_t method_len, path_len, i, count = 0;
    int query, keys_at;
    struct e2b_key *keys;
    luaL_Buffer out;

    if (args == 0)
        return luaL_error(L, "args: a table with method and path expected");
    query = push_part(L, args, "query");
    if (query != 0 && !e2b_push_keys(r, query, &at_query, &keys, &count))
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
    if (query != 0 && !e2b_add_raw_query(r, &out, query, keys_at, count, strchr(path, '?') != NULL ? '&' : '?'))
        return 0;
    luaL_pushresult(&out);
    return push_raw_body(r, args);
}

int e2b_call_request(lua_State *L, const e2b_call *call, int args)
{
    struct e2b_request r;
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
