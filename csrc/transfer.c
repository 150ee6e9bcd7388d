/* Transfers: one HTTP exchange each. Preparing one copies everything it needs into one block of its slot, so that
 * nothing of Lua's is referred to while it runs. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_SECONDS 1e9
#define MAX_HEADERS 2000
#define RPC_LINE "Connect-Protocol-Version: 1"
#define STREAM_LINE "Accept-Encoding: identity"

e2b_transfer *e2b_transfer_check(lua_State *L, int index)
{
    e2b_transfer *t = luaL_checkudata(L, index, E2B_TRANSFER);
    if (t->engine == NULL)
        luaL_error(L, "attempt to use a transfer that was not prepared");
    e2b_engine_check_pid(t->engine);
    return t;
}

void e2b_transfer_release(e2b_transfer *t)
{
    if (t->slot != NULL) {
        if (t->code != CURLE_OK || t->cause != E2B_CAUSE_NONE)
            t->slot->kept = 0; /* whatever state that left behind in the handle goes with its options */
        e2b_slot_put(t->engine, t->slot);
        t->slot = NULL;
    }
    e2b_target_unref(t->target);
    t->target = NULL;
    t->state = E2B_TAKEN;
}

/* ---- preparing ---- */

typedef struct options {
    double timeout, connect_timeout, idle_timeout;
    curl_off_t max_bytes, source_size;
    size_t high_water;
    int sink, source;
    unsigned char to, from, gzip;
    size_t header_count, header_bytes;
    int own_type; /* the caller's headers hold a Content-Type */
} options;

static double get_number(lua_State *L, int index, const char *name, double otherwise, double max)
{
    double n = otherwise;
    lua_getfield(L, index, name);
    if (!lua_isnil(L, -1)) {
        if (lua_type(L, -1) != LUA_TNUMBER)
            luaL_error(L, "bad transfer: '%s' must be a number, not a %s", name, luaL_typename(L, -1));
        n = (double)lua_tonumber(L, -1);
        if (!(n >= 0)) /* NaN too */
            luaL_error(L, "bad transfer: '%s' must not be negative", name);
        if (n > max)
            n = max;
    }
    lua_pop(L, 1);
    return n;
}

static int get_fd(lua_State *L, int index, const char *name)
{
    double n = get_number(L, index, name, -1, 2147483647.0);
    if (n != (double)(int)n)
        luaL_error(L, "bad transfer: '%s' must be a file descriptor", name);
    return (int)n;
}

/* Checks { name, value, name, value, … } at index. 0: pushed nil and a message. */
static int check_headers(lua_State *L, int index, options *o)
{
    size_t i, n = lua_rawlen(L, index);
    if (n % 2 != 0 || n > MAX_HEADERS)
        luaL_error(L, "bad transfer: headers must be a list of names and values in turn");
    for (i = 1; i < n; i += 2) {
        size_t name_len, value_len;
        const char *name, *value;
        lua_rawgeti(L, index, (int)i);
        lua_rawgeti(L, index, (int)i + 1);
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "bad transfer: header names and values must be strings");
        name = lua_tolstring(L, -2, &name_len);
        value = lua_tolstring(L, -1, &value_len);
        if (!e2b_header_check(L, name, name_len, value, value_len))
            return 0;
        if (name_len == 12 && strncasecmp(name, "Content-Type", 12) == 0)
            o->own_type = 1;
        o->header_bytes += e2b_header_size(name_len, value_len);
        o->header_count++;
        lua_pop(L, 2);
    }
    return 1;
}

/* Reads the options at index 4; leaves the headers' table (or nil) on the stack. 0: pushed nil and a message. */
static int get_options(lua_State *L, options *o)
{
    double n;
    memset(o, 0, sizeof *o);
    o->max_bytes = o->source_size = -1;
    o->high_water = E2B_HIGH_WATER;
    o->sink = o->source = -1;
    if (lua_isnoneornil(L, 4)) {
        lua_pushnil(L);
        return 1;
    }
    luaL_checktype(L, 4, LUA_TTABLE);
    o->timeout = get_number(L, 4, "timeout", 0, MAX_SECONDS);
    o->connect_timeout = get_number(L, 4, "connect_timeout", 0, MAX_SECONDS);
    o->idle_timeout = get_number(L, 4, "idle_timeout", 0, MAX_SECONDS);
    n = get_number(L, 4, "max_bytes", -1, 4e18);
    o->max_bytes = (curl_off_t)n;
    o->source_size = (curl_off_t)get_number(L, 4, "source_size", -1, 4e18);
    n = get_number(L, 4, "high_water", E2B_HIGH_WATER, 1073741824.0);
    o->high_water = n < 1 ? 1 : (size_t)n;
    o->sink = get_fd(L, 4, "sink");
    lua_getfield(L, 4, "stream");
    o->to = lua_toboolean(L, -1) ? E2B_TO_READER : E2B_TO_BUFFER;
    lua_pop(L, 1);
    lua_getfield(L, 4, "gzip");
    o->gzip = (unsigned char)lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (o->sink >= 0) {
        if (o->to == E2B_TO_READER)
            luaL_error(L, "bad transfer: 'stream' and 'sink' exclude each other");
        o->to = E2B_TO_SINK;
    }
    lua_getfield(L, 4, "source");
    if (lua_type(L, -1) == LUA_TSTRING) {
        if (strcmp(lua_tostring(L, -1), "chunks") != 0)
            luaL_error(L, "bad transfer: 'source' must be a file descriptor or \"chunks\"");
        o->from = E2B_FROM_CHUNKS;
        lua_pop(L, 1);
    } else {
        lua_pop(L, 1);
        o->source = get_fd(L, 4, "source");
        o->from = o->source >= 0 ? E2B_FROM_FD : E2B_FROM_BYTES;
    }
    lua_getfield(L, 4, "headers");
    if (lua_istable(L, -1))
        return check_headers(L, lua_gettop(L), o);
    if (!lua_isnil(L, -1))
        luaL_error(L, "bad transfer: 'headers' must be a table");
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

static void link_line(e2b_transfer *t, struct curl_slist *node, struct curl_slist **last, char *line)
{
    node->data = line;
    node->next = NULL;
    if (*last != NULL)
        (*last)->next = node;
    else
        t->headers = node;
    *last = node;
}

/* Does one of the first count nodes name the same header as line? */
static int is_named(const struct curl_slist *nodes, size_t count, const char *line)
{
    size_t i, len = strcspn(line, ":;");
    for (i = 0; i < count; i++)
        if (strncasecmp(nodes[i].data, line, len) == 0 && (nodes[i].data[len] == ':' || nodes[i].data[len] == ';'))
            return 1;
    return 0;
}

typedef struct parts {
    const char *method, *path, *body, *type;
    size_t method_len, path_len, body_len, type_len;
} parts;

/* Copies the request into the slot. 0: out of memory. Only reads strings of a raw table, so nothing here can raise. */
static int copy_request(lua_State *L, e2b_transfer *t, const parts *p, const options *o, int headers)
{
    e2b_buffer *b = &t->slot->request;
    const e2b_target *target = t->target;
    struct curl_slist *nodes, *last = NULL, *of_target;
    size_t count = 0, max = o->header_count + 4, size, i;
    int has_body = p->body != NULL || t->from != E2B_FROM_BYTES;
    char *at;

    if (o->header_count > 0)
        for (of_target = target->headers; of_target != NULL; of_target = of_target->next)
            max++;
    size = max * sizeof *nodes + o->header_bytes + target->url_len + p->path_len + 1 + p->method_len + 1 +
           p->body_len + 1 + p->type_len + sizeof "Content-Type: " + sizeof "Expect:" + sizeof RPC_LINE +
           sizeof STREAM_LINE;
    if (!e2b_buffer_room(b, size))
        return 0;
    b->len = size;
    nodes = (struct curl_slist *)(void *)b->data;
    at = (char *)(nodes + max);

    t->url = at;
    memcpy(at, target->url, target->url_len);
    at += target->url_len;
    keep(&at, p->path, p->path_len);
    t->method = keep(&at, p->method, p->method_len);
    if (p->body != NULL) {
        t->body = keep(&at, p->body, p->body_len);
        t->body_len = p->body_len;
    }
    for (i = 1; i < 2 * o->header_count; i += 2) {
        size_t name_len, value_len;
        const char *name, *value;
        char *line = at;
        lua_rawgeti(L, headers, (int)i);
        lua_rawgeti(L, headers, (int)i + 1);
        name = lua_tolstring(L, -2, &name_len);
        value = lua_tolstring(L, -1, &value_len);
        at = e2b_header_write(at, name, name_len, value, value_len);
        link_line(t, &nodes[count++], &last, line);
        lua_pop(L, 2);
    }
    if (!o->own_type && (has_body || strcmp(t->method, "POST") == 0)) {
        char *line = at;
        if (p->type != NULL && has_body)
            at = e2b_header_write(at, "Content-Type", 12, p->type, p->type_len);
        else
            keep(&at, "Content-Type:", 13); /* an empty one keeps libcurl from sending a form's */
        link_line(t, &nodes[count++], &last, line);
    }
    if (has_body) { /* else libcurl asks for a 100 Continue before large bodies and waits up to a second */
        char *line = at;
        keep(&at, "Expect:", 7);
        link_line(t, &nodes[count++], &last, line);
    }
    if (t->call->flags & E2B_RPC) {
        char *line = at;
        keep(&at, RPC_LINE, sizeof RPC_LINE - 1);
        link_line(t, &nodes[count++], &last, line);
    }
    if (t->call->flags & E2B_STREAM) { /* whoever compresses on the way also holds back */
        char *line = at;
        keep(&at, STREAM_LINE, sizeof STREAM_LINE - 1);
        link_line(t, &nodes[count++], &last, line);
    }
    if (o->header_count == 0) { /* shared: the list is never changed */
        if (last != NULL)
            last->next = target->headers;
        else
            t->headers = target->headers;
    } else { /* a header of the call's own takes the place of the target's */
        size_t own = count;
        for (of_target = target->headers; of_target != NULL; of_target = of_target->next)
            if (!is_named(nodes, own, of_target->data))
                link_line(t, &nodes[count++], &last, of_target->data);
    }
    return 1;
}

static int is_method(const char *method, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++)
        if (method[i] < 'A' || method[i] > 'Z')
            return 0;
    return len > 0 && len <= 32;
}

/* core.transfer(target, call, args, opts) */
static int transfer_new(lua_State *L)
{
    e2b_engine *engine = e2b_engine_of(L);
    e2b_target *target = e2b_target_check(L, 1);
    const char *name = luaL_checkstring(L, 2);
    const e2b_call *call = e2b_call_find(name);
    e2b_transfer *t;
    options o;
    parts p;
    int headers, i;

    lua_settop(L, 4);
    if (engine == NULL || engine->closed)
        return luaL_error(L, "attempt to use a closed engine");
    if (call == NULL)
        return luaL_error(L, "no REST call is named '%s'", name);
    if (!get_options(L, &o))
        return 2;
    headers = lua_gettop(L); /* 5 */
    if (call->flags & E2B_STREAM) {
        if (o.to == E2B_TO_SINK)
            return luaL_error(L, "bad transfer: a stream of events can't go into a sink");
        o.to = E2B_TO_READER;
        o.gzip = 0;
    }
    if (!e2b_call_request(L, call, 3)) {
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    i = lua_gettop(L) - 3;
    p.method = luaL_checklstring(L, i, &p.method_len);
    p.path = luaL_checklstring(L, i + 1, &p.path_len);
    p.body_len = p.type_len = 0;
    p.body = lua_isnil(L, i + 2) ? NULL : luaL_checklstring(L, i + 2, &p.body_len);
    p.type = lua_isnil(L, i + 3) ? NULL : luaL_checklstring(L, i + 3, &p.type_len);
    if (!is_method(p.method, p.method_len)) {
        lua_pushnil(L);
        lua_pushliteral(L, "the method is not a word in capital letters");
        return 2;
    }
    if (p.body != NULL && o.from != E2B_FROM_BYTES) {
        lua_pushnil(L);
        lua_pushliteral(L, "a request has either a body or a source, not both");
        return 2;
    }

    t = e2b_newuserdata(L, sizeof *t);
    memset(t, 0, sizeof *t);
    luaL_setmetatable(L, E2B_TRANSFER);
    t->engine = engine;
    engine->refs++;
    engine->transfers++;
    e2b_engine_check_pid(engine);
    t->target = target;
    target->refs++;
    t->call = call;
    t->state = E2B_PREPARED;
    t->ref = LUA_NOREF;
    t->to = o.to;
    t->from = o.from;
    t->gzip = o.gzip;
    t->timeout = o.timeout;
    t->connect_timeout = o.connect_timeout;
    t->idle_timeout = o.idle_timeout;
    t->deadline_at = t->connect_at = t->idle_at = E2B_NEVER;
    t->max_bytes = o.max_bytes;
    t->high_water = o.high_water;
    t->sink = o.sink;
    t->source = o.source;
    t->source_size = o.source_size;
    t->total_down = -1;
    t->want_read = 1;
    t->slot = e2b_slot_get(engine);
    if (t->slot == NULL || !copy_request(L, t, &p, &o, headers))
        return luaL_error(L, "not enough memory");
    t->idempotent = t->from == E2B_FROM_BYTES &&
                    ((call->flags & (E2B_IDEMPOTENT | E2B_READS)) || ((call->flags & E2B_RAW) && (strcmp(t->method, "GET") == 0 ||
                      strcmp(t->method, "HEAD") == 0 || strcmp(t->method, "DELETE") == 0)));
    return 1;
}

/* ---- methods ---- */

void e2b_transfer_let_go(lua_State *L, e2b_transfer *t)
{
    e2b_engine_quiet(t);
    if (t->ref != LUA_NOREF) {
        luaL_unref(L, E2B_ANCHORS, t->ref);
        t->ref = LUA_NOREF;
    }
}

/* One that is done already keeps its result. */
void e2b_transfer_cancel(lua_State *L, e2b_transfer *t)
{
    if (t->state == E2B_RUNNING || t->state == E2B_PREPARED) {
        t->cause = E2B_CAUSE_CANCELLED;
        if (t->state == E2B_RUNNING)
            e2b_engine_finish(t, CURLE_ABORTED_BY_CALLBACK);
        else
            t->state = E2B_DONE;
    }
    e2b_transfer_let_go(L, t);
}

/* transfer:cancel() */
static int transfer_cancel(lua_State *L)
{
    e2b_transfer_cancel(L, e2b_transfer_check(L, 1));
    return 0;
}

static int transfer_status(lua_State *L)
{
    e2b_transfer *t = e2b_transfer_check(L, 1);
    if (!t->headers_done)
        return 0;
    lua_pushinteger(L, (lua_Integer)t->status);
    return 1;
}

static void push_count(lua_State *L, curl_off_t n)
{
    if (n < 0)
        lua_pushnil(L);
    else
        e2b_pushwhole(L, (long long)n);
}

/* Of a body that libcurl has whole it alone knows what it has sent. */
static curl_off_t sent_of_bytes(const e2b_transfer *t)
{
    curl_off_t sent = 0;
    if (t->headers_done && t->success)
        return (curl_off_t)t->body_len;
    if (t->slot == NULL || t->state < E2B_RUNNING ||
        curl_easy_getinfo(t->slot->easy, CURLINFO_SIZE_UPLOAD_T, &sent) != CURLE_OK || sent < 0)
        return 0;
    return sent < (curl_off_t)t->body_len ? sent : (curl_off_t)t->body_len;
}

/* transfer:progress() -> bytes_down, bytes_up, total_down|nil, total_up|nil */
static int transfer_progress(lua_State *L)
{
    e2b_transfer *t = e2b_transfer_check(L, 1);
    int plain = t->from == E2B_FROM_BYTES;
    push_count(L, t->down);
    push_count(L, plain ? sent_of_bytes(t) : t->up);
    push_count(L, t->encoded ? -1 : t->total_down);
    push_count(L, plain ? (curl_off_t)t->body_len : t->source_size);
    return 4;
}

static int transfer_gc(lua_State *L)
{
    e2b_transfer *t = luaL_checkudata(L, 1, E2B_TRANSFER);
    e2b_engine *engine = t->engine;
    if (engine == NULL)
        return 0;
    e2b_engine_check_pid(engine);
    if (t->guard != NULL)
        e2b_guard_forget(t->guard);
    e2b_transfer_cancel(L, t);
    e2b_transfer_release(t);
    t->engine = NULL;
    engine->transfers--;
    e2b_engine_unref(engine);
    return 0;
}

static int transfer_tostring(lua_State *L)
{
    static const char *const states[] = { "prepared", "running", "done", "done" };
    e2b_transfer *t = luaL_checkudata(L, 1, E2B_TRANSFER);
    if (t->engine == NULL)
        lua_pushliteral(L, "e2b.transfer (closed)");
    else
        lua_pushfstring(L, "e2b.transfer (%s, %s)", t->call->name, states[t->state]);
    return 1;
}

int e2b_transfer_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "cancel", transfer_cancel },           { "status", transfer_status },
        { "progress", transfer_progress },       { "read", e2b_transfer_read },
        { "write", e2b_transfer_write },         { "close_write", e2b_transfer_close_write },
        { "event", e2b_transfer_event },         { "result", e2b_transfer_result },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", transfer_gc }, { "__tostring", transfer_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "transfer", transfer_new }, { NULL, NULL } };
    e2b_type(L, E2B_TRANSFER, methods, meta);
    luaL_setfuncs(L, functions, e2b_upvalues(L));
    return 0;
}
