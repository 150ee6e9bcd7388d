/* Targets: where requests go and what every one of them carries. Headers may be secret, so the whole block is zeroed
 * when it is freed, and nothing but scheme and host is ever shown. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_HEADERS 1000
/* A shorter value is no secret, and would make holes in innocent words. */
#define SHORTEST_SECRET 6

static int is_token(unsigned char c)
{
    return c > 32 && c < 127 && strchr("()<>@,;:\\\"/[]?={}", c) == NULL;
}

static int is_clean(const char *text, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++)
        if ((unsigned char)text[i] < 32 || text[i] == 127)
            return 0;
    return 1;
}

int e2b_header_check(lua_State *L, const char *name, size_t name_len, const char *value, size_t value_len)
{
    size_t i;
    int bad_name = name_len == 0, bad_value = 0;
    for (i = 0; i < name_len; i++)
        bad_name |= !is_token((unsigned char)name[i]);
    for (i = 0; i < value_len; i++)
        bad_value |= ((unsigned char)value[i] < 32 && value[i] != '\t') || value[i] == 127;
    if (!bad_name && !bad_value)
        return 1;
    lua_pushnil(L);
    if (name_len == 0)
        lua_pushliteral(L, "a header has an empty name");
    else if (bad_name)
        lua_pushliteral(L, "a header's name has a character that is not allowed there");
    else
        lua_pushfstring(L, "header %s: its value has a control character", name);
    return 0;
}

/* "Name: value" or, as libcurl wants an empty value, "Name;", and a zero. */
size_t e2b_header_size(size_t name_len, size_t value_len)
{
    return value_len > 0 ? name_len + value_len + 3 : name_len + 2;
}

char *e2b_header_write(char *at, const char *name, size_t name_len, const char *value, size_t value_len)
{
    memcpy(at, name, name_len);
    at += name_len;
    if (value_len > 0) {
        *at++ = ':';
        *at++ = ' ';
        memcpy(at, value, value_len);
        at += value_len;
    } else {
        *at++ = ';';
    }
    *at++ = '\0';
    return at;
}

static int fail(lua_State *L, const char *message)
{
    lua_pushnil(L);
    lua_pushstring(L, message);
    return 2;
}

/* The string at field name, left on the stack (or nil). */
static const char *get_string(lua_State *L, const char *name, size_t *len)
{
    lua_getfield(L, 1, name);
    if (lua_type(L, -1) == LUA_TSTRING)
        return lua_tolstring(L, -1, len);
    if (!lua_isnil(L, -1))
        luaL_error(L, "bad target: '%s' must be a string, not a %s", name, luaL_typename(L, -1));
    *len = 0;
    return NULL;
}

/* What is wrong with the URL, or NULL. Sets whether it is https, its length without slashes at the end, and that of
 * scheme and host. */
static const char *check_url(const char *url, size_t *len, size_t *shown, int *https)
{
    size_t start, end;
    if (!is_clean(url, *len) || memchr(url, ' ', *len) != NULL)
        return "the URL has a space or a control character";
    if (*len > 8 && strncmp(url, "https://", 8) == 0) {
        *https = 1;
        start = 8;
    } else if (*len > 7 && strncmp(url, "http://", 7) == 0) {
        *https = 0;
        start = 7;
    } else {
        return "the URL must begin with https:// or http:// and name a host";
    }
    while (*len > start && url[*len - 1] == '/')
        (*len)--;
    end = start;
    while (end < *len && url[end] != '/')
        end++;
    if (end == start)
        return "the URL names no host";
    if (memchr(url + start, '@', end - start) != NULL)
        return "the URL holds a user name or password";
    if (memchr(url, '?', *len) != NULL || memchr(url, '#', *len) != NULL)
        return "the URL has a query or a fragment";
    *shown = end;
    return NULL;
}

/* Checks the list of { name, value } at index; counts its entries and the bytes of their lines. */
static int check_headers(lua_State *L, int index, size_t *count, size_t *bytes)
{
    size_t i, n = lua_rawlen(L, index);
    if (n > MAX_HEADERS)
        luaL_error(L, "bad target: too many headers");
    for (i = 1; i <= n; i++) {
        size_t name_len, value_len;
        const char *name, *value;
        lua_rawgeti(L, index, (int)i);
        if (!lua_istable(L, -1))
            luaL_error(L, "bad target: headers must be a list of { name, value }");
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "bad target: headers must be a list of { name, value }");
        name = lua_tolstring(L, -2, &name_len);
        value = lua_tolstring(L, -1, &value_len);
        if (!e2b_header_check(L, name, name_len, value, value_len))
            return 0;
        *bytes += e2b_header_size(name_len, value_len);
        lua_pop(L, 3);
    }
    *count = n;
    return 1;
}

static char *keep(char **at, const char *text, size_t len)
{
    char *copy = *at;
    memcpy(copy, text, len);
    copy[len] = '\0';
    *at += len + 1;
    return copy;
}

static struct curl_slist *add_line(struct curl_slist *node, struct curl_slist **last, char *line)
{
    node->data = line;
    node->next = NULL;
    if (*last != NULL)
        (*last)->next = node;
    *last = node;
    return node;
}

/* core.target{ url=, headers=, user_agent=, proxy=, ca_file= } */
static int target_new(lua_State *L)
{
    e2b_engine *engine = e2b_engine_of(L);
    e2b_target **box, *target;
    struct curl_slist *node, *last = NULL;
    const char *url, *agent, *proxy, *ca_file, *fault;
    size_t url_len, agent_len, proxy_len = 0, ca_len, shown = 0, count = 0, lines = 0, size, i;
    int https = 0, no_proxy;
    char *at;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (engine == NULL || engine->closed) /* a finalizer that runs after the engine's, at the end of the state */
        return luaL_error(L, "attempt to use a closed engine");
    url = get_string(L, "url", &url_len); /* 2 */
    if (url == NULL)
        return luaL_error(L, "bad target: 'url' is missing");
    agent = get_string(L, "user_agent", &agent_len); /* 3 */
    ca_file = get_string(L, "ca_file", &ca_len);     /* 4 */
    lua_getfield(L, 1, "proxy");
    no_proxy = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (no_proxy) {
        lua_pushliteral(L, "");
        proxy = lua_tolstring(L, -1, &proxy_len); /* 5 */
    } else {
        proxy = get_string(L, "proxy", &proxy_len); /* 5 */
    }
    lua_getfield(L, 1, "headers"); /* 6 */

    fault = check_url(url, &url_len, &shown, &https);
    if (fault != NULL)
        return fail(L, fault);
    if (agent != NULL && !e2b_header_check(L, "User-Agent", 10, agent, agent_len))
        return 2;
    if (proxy != NULL && !is_clean(proxy, proxy_len))
        return fail(L, "the proxy's URL has a control character");
    if (ca_file != NULL && (ca_len == 0 || strlen(ca_file) != ca_len))
        return fail(L, "ca_file is not the name of a file");
    if (lua_istable(L, 6)) {
        if (!check_headers(L, 6, &count, &lines))
            return 2;
    } else if (!lua_isnil(L, 6)) {
        return luaL_error(L, "bad target: 'headers' must be a table");
    }

    box = e2b_newuserdata(L, sizeof *box);
    *box = NULL;
    luaL_setmetatable(L, E2B_TARGET);

    if (agent != NULL) {
        count++;
        lines += e2b_header_size(10, agent_len);
    }
    size = sizeof *target + count * sizeof *node + lines + url_len + proxy_len + ca_len + 3;
    target = calloc(1, size);
    if (target == NULL)
        return luaL_error(L, "not enough memory");
    *box = target; /* from here on nothing can raise: only strings are read out of raw tables */
    engine->targets++;
    target->refs = 1;
    target->serial = ++engine->serials;
    target->size = size;
    target->https = https;
    target->shown_len = shown;
    node = (struct curl_slist *)(target + 1);
    at = (char *)(node + count);
    target->url = keep(&at, url, url_len);
    target->url_len = url_len;
    if (proxy != NULL)
        target->proxy = keep(&at, proxy, proxy_len);
    if (ca_file != NULL)
        target->ca_file = keep(&at, ca_file, ca_len);
    if (count > 0)
        target->headers = node;
    if (agent != NULL) {
        char *line = at;
        at = e2b_header_write(at, "User-Agent", 10, agent, agent_len);
        add_line(node++, &last, line);
        count--;
    }
    for (i = 1; i <= count; i++) {
        size_t name_len, value_len;
        const char *name, *value;
        char *line = at;
        lua_rawgeti(L, 6, (int)i);
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        name = lua_tolstring(L, -2, &name_len);
        value = lua_tolstring(L, -1, &value_len);
        at = e2b_header_write(at, name, name_len, value, value_len);
        add_line(node++, &last, line);
        lua_pop(L, 3);
    }
    return 1;
}

/* Does the header line hold what nobody may see? */
static int is_secret(const char *line, size_t name_len)
{
    static const char *const words[] = { "key", "token", "secret", "auth", "cookie" };
    size_t i, w;
    for (w = 0; w < sizeof words / sizeof *words; w++)
        for (i = 0; i + strlen(words[w]) <= name_len; i++)
            if (strncasecmp(line + i, words[w], strlen(words[w])) == 0)
                return 1;
    return 0;
}

/* A server that repeats the key it was given, in its complaint say, must not bring it into a message. */
void e2b_target_mask(const e2b_target *target, char *text, size_t len)
{
    const struct curl_slist *header;
    for (header = target->headers; header != NULL; header = header->next) {
        const char *colon = strchr(header->data, ':'), *value;
        size_t value_len, i;
        if (colon == NULL || !is_secret(header->data, (size_t)(colon - header->data)))
            continue;
        value = colon + 2;
        value_len = strlen(value);
        for (i = 0; value_len >= SHORTEST_SECRET && i + value_len <= len; i++)
            if (text[i] == *value && memcmp(text + i, value, value_len) == 0)
                memset(text + i, '*', value_len);
    }
}

void e2b_target_unref(e2b_target *target)
{
    if (target != NULL && --target->refs == 0) {
        e2b_wipe(target, target->size);
        free(target);
    }
}

e2b_target *e2b_target_check(lua_State *L, int index)
{
    e2b_target **box = luaL_checkudata(L, index, E2B_TARGET);
    if (*box == NULL)
        luaL_error(L, "attempt to use a closed target");
    return *box;
}

static int target_gc(lua_State *L)
{
    e2b_target **box = luaL_checkudata(L, 1, E2B_TARGET);
    e2b_engine *engine = e2b_engine_of(L);
    if (*box != NULL) {
        if (engine != NULL)
            engine->targets--;
        e2b_target_unref(*box);
        *box = NULL;
    }
    return 0;
}

static int target_tostring(lua_State *L)
{
    e2b_target **box = luaL_checkudata(L, 1, E2B_TARGET);
    if (*box == NULL) {
        lua_pushliteral(L, "e2b.target (closed)");
        return 1;
    }
    lua_pushliteral(L, "e2b.target (");
    lua_pushlstring(L, (*box)->url, (*box)->shown_len);
    lua_pushliteral(L, ")");
    lua_concat(L, 3);
    return 1;
}

int e2b_target_open(lua_State *L)
{
    static const luaL_Reg methods[] = { { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", target_gc }, { "__tostring", target_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "target", target_new }, { NULL, NULL } };
    e2b_type(L, E2B_TARGET, methods, meta);
    luaL_setfuncs(L, functions, e2b_upvalues(L));
    return 0;
}
